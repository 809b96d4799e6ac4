//! `lexgate export`

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::{
    ConfigFile, Failure, output,
    verify::{CHECKPOINT, CONTENTS, WITNESSED, begins_with},
};
use crate::{
    app::{self, AppError},
    domain::{Digest, Seq},
    ledger::{
        ActivationBody, Checkpoint, Edge, Entry, Kind, Note, TILE_WIDTH, Tile, TilePath, leaf_of,
        read_bundle, write_bundle,
    },
    store::{Store, Stored},
};

/// Write the ledger as static files that anybody can verify.
///
/// They are as confidential as the organisation file: only their owner may read them.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The folder to write; it must be empty, or hold an earlier export of the same log.
    dir: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(super) async fn run(self) -> Result<(), Failure> {
        super::log_warnings()?;
        let config = self.config.load()?;
        let store = app::reach_store(&config).await.map_err(AppError::from)?;
        let (size, contents) = write_export(&*store, &self.dir, false).await?;
        if self.json {
            return output::json(
                &json!({ "entries": size, "contents": contents, "dir": self.dir }),
            );
        }
        let dir = self.dir.display();
        output::line(&format!(
            "{size} entries, their tree, its checkpoint and {contents} contents of snapshots are in `{dir}`"
        ));
        output::line(&format!(
            "verify them with: lexgate verify {dir} --key VKEY; VKEY is the verifier key that `lexgate init` printed and `serve` logs at start"
        ));
        Ok(())
    }
}

/// Writes all of the log into a folder; `durable`: it is on the disk when this comes back. Gives how many
/// entries and contents there are.
pub(super) async fn write_export(
    store: &dyn Store,
    dir: &Path,
    durable: bool,
) -> Result<(u64, usize), Failure> {
    Folder { dir, durable }.write(store).await
}

/// Where an export is written.
struct Folder<'a> {
    dir: &'a Path,
    durable: bool,
}

impl Folder<'_> {
    async fn write(&self, store: &dyn Store) -> Result<(u64, usize), Failure> {
        self.check_folder(store).await?;
        // What is appended from here on belongs to the next export.
        let note = store.checkpoint().await.map_err(AppError::from)?;
        let note = note.ok_or_else(|| Failure::Finding("the log is empty".to_owned()))?;
        let checkpoint = Note::parse(&note).and_then(|note| Checkpoint::read(&note));
        let checkpoint = checkpoint
            .map_err(|error| Failure::Finding(format!("the store's checkpoint: {error}")))?;
        let contents = self.write_log(store, &checkpoint).await?;
        for digest in &contents {
            let bytes = store.content(*digest).await.map_err(AppError::from)?;
            let bytes = bytes.ok_or_else(|| {
                Failure::Finding(format!(
                    "the store does not hold the content {digest} that a record names"
                ))
            })?;
            self.put(&self.dir.join(CONTENTS).join(digest.hex()), &bytes)?;
        }
        // Kept after the checkpoint was read, it may be of a greater tree: that is for the next export.
        let witnessed = store.witnessed().await.map_err(AppError::from)?;
        let size_of = |note: &str| Checkpoint::read(&Note::parse(note).ok()?).ok();
        if let Some(witnessed) = witnessed
            && size_of(&witnessed).is_some_and(|witnessed| witnessed.size <= checkpoint.size)
        {
            self.put(&self.dir.join(WITNESSED), witnessed.as_bytes())?;
        }
        self.put(&self.dir.join(CHECKPOINT), note.as_bytes())?;
        Ok((checkpoint.size, contents.len()))
    }

    /// Refuses a folder with something else in it: what is there is not ours to mix with.
    async fn check_folder(&self, store: &dyn Store) -> Result<(), Failure> {
        let mut files = match std::fs::read_dir(self.dir) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::io("read", self.dir, &error)),
        };
        if files.next().is_none() {
            return Ok(());
        }
        let first = store.record(Seq::new(0)).await.map_err(AppError::from)?;
        if first.is_some_and(|first| begins_with(self.dir, &first.entry)) {
            return Ok(());
        }
        let dir = self.dir.display();
        Err(Failure::Usage(format!(
            "`{dir}` holds something else than an export of this log: name an empty folder"
        )))
    }

    /// Writes the entries in bundles, and the tiles of their tree; gives the digests that activations
    /// among them name.
    async fn write_log(
        &self,
        store: &dyn Store,
        checkpoint: &Checkpoint,
    ) -> Result<BTreeSet<Digest>, Failure> {
        let (size, mut next) = (checkpoint.size, 0);
        let (mut contents, mut edge) = (BTreeSet::new(), Edge::default());
        while next < size {
            let width =
                usize::try_from(size - next).map_or(TILE_WIDTH, |left| left.min(TILE_WIDTH));
            let stored = store.range(Seq::new(next), width).await.map_err(AppError::from)?;
            if stored.len() != width {
                return Err(Failure::Finding(format!(
                    "the store does not hold all entries after {next}"
                )));
            }
            for stored in &stored {
                contents.extend(contents_of(stored)?);
            }
            for tile in edge.extend(stored.iter().map(|stored| stored.leaf)) {
                if tile.hashes.len() == TILE_WIDTH {
                    self.write_tile(&tile)?;
                }
            }
            let n = next / TILE_WIDTH as u64;
            let entries = self.with_archived(n, &stored)?;
            let bundle = write_bundle(&entries)
                .map_err(|error| Failure::Finding(format!("entries after {next}: {error}")))?;
            self.replace(width, &bundle, |width| TilePath::Entries { n, width })?;
            next += width as u64;
            output::progress(&format!("{next} of {size} entries"));
        }
        output::end_progress();
        for tile in edge.partial() {
            self.write_tile(&tile)?;
        }
        if edge.root() != checkpoint.root {
            return Err(Failure::Finding(
                "the entries in the store do not make the tree of its checkpoint: the store was changed"
                    .to_owned(),
            ));
        }
        Ok(contents)
    }

    /// The entries of a bundle. Those whose bodies have been removed since are taken from the earlier
    /// export in the folder, where there is one: an archive keeps what it has.
    fn with_archived(&self, n: u64, stored: &[Stored]) -> Result<Vec<Bytes>, Failure> {
        let mut entries: Vec<_> = stored.iter().map(|stored| stored.entry.clone()).collect();
        if entries.iter().all(|entry| !entry.is_empty()) {
            return Ok(entries);
        }
        let Some((path, earlier)) = self.earlier_bundle(n, entries.len())? else {
            return Ok(entries);
        };
        let damaged = |what: &str| {
            Failure::Finding(format!(
                "`{}` {what}: it is left as it is; restore it, or export into another folder",
                path.display()
            ))
        };
        let kept = read_bundle(&earlier).map_err(|error| damaged(&error.to_string()))?;
        for ((entry, stored), kept) in entries.iter_mut().zip(stored).zip(kept) {
            if entry.is_empty() && !kept.is_empty() {
                if leaf_of(kept) != stored.leaf {
                    return Err(damaged(&format!("holds another entry {}", stored.seq)));
                }
                *entry = Bytes::copy_from_slice(kept);
            }
        }
        Ok(entries)
    }

    /// The widest bundle `n` that an earlier export has left.
    fn earlier_bundle(&self, n: u64, width: usize) -> Result<Option<(PathBuf, Vec<u8>)>, Failure> {
        for width in (1..=width).rev() {
            let path = self.dir.join(TilePath::Entries { n, width }.to_string());
            match std::fs::read(&path) {
                Ok(bytes) => return Ok(Some((path, bytes))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::io("read", &path, &error)),
            }
        }
        Ok(None)
    }

    /// Writes a file, or leaves it as it was: never half of it.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        if std::fs::read(path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| Failure::io("make", folder, &error))?;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(bytes)?;
            if self.durable {
                file.sync_all()?;
            }
            std::fs::rename(&fresh, path)?;
            if self.durable { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| Failure::io("write", path, &error))
    }

    fn write_tile(&self, tile: &Tile) -> Result<(), Failure> {
        let id = tile.id;
        self.replace(tile.hashes.len(), &tile.bytes(), |width| TilePath::Hashes { id, width })
    }

    /// Writes a file in place of the narrower ones of an earlier export.
    fn replace(
        &self,
        width: usize,
        bytes: &[u8],
        path: impl Fn(usize) -> TilePath,
    ) -> Result<(), Failure> {
        let file = self.dir.join(path(width).to_string());
        self.put(&file, bytes)?;
        let partial = self.dir.join(path(1).to_string());
        let Some(folder) = partial.parent().filter(|folder| folder.is_dir()) else {
            return Ok(());
        };
        for smaller in 1..width {
            let path = self.dir.join(path(smaller).to_string());
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Failure::io("remove", &path, &error));
                }
                _ => {}
            }
        }
        if width == TILE_WIDTH {
            // Empty now; that something else lies in it is no failure.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }
}

fn contents_of(stored: &Stored) -> Result<Vec<Digest>, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Finding(format!("entry {} cannot be read: {error}", stored.seq))
    };
    if stored.entry.is_empty() {
        return Ok(Vec::new());
    }
    let entry = Entry::parse(&stored.entry).map_err(|error| broken(&error))?;
    if entry.kind != Kind::BundleActivated {
        return Ok(Vec::new());
    }
    let body: ActivationBody =
        serde_json::from_str(entry.body.get()).map_err(|error| broken(&error))?;
    let digests = body.snapshot;
    Ok(vec![digests.bundle, digests.facts, digests.organisation, digests.registers])
}
