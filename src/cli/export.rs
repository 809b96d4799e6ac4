//! `lexgate export`

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{ConfigFile, Failure, output};
use crate::{
    app::AppError,
    domain::{Digest, Seq},
    ledger::{ActivationBody, Entry, Kind, TILE_WIDTH, TilePath, read_bundle, write_bundle},
    store::{self, Store, Stored},
};

/// The folder of the contents that snapshots pin, each under its digest.
pub(super) const CONTENTS: &str = "contents";

/// Write the ledger as static files that anybody can verify.
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
        let config = self.config.load()?;
        let store = store::open(config.store.url.expose()).await.map_err(AppError::from)?;
        // What is appended meanwhile belongs to the next export.
        let head = store.head().await.map_err(AppError::from)?;
        let size = head.map_or(0, |head| head.next.get());
        self.check_folder(&*store).await?;
        let contents = self.write_entries(&*store, size).await?;
        for digest in &contents {
            let bytes = store.content(*digest).await.map_err(AppError::from)?;
            let bytes = bytes.ok_or_else(|| {
                Failure::Finding(format!(
                    "the store does not hold the content {digest} that a record names"
                ))
            })?;
            write(&self.dir.join(CONTENTS).join(digest.hex()), &bytes)?;
        }
        if self.json {
            return output::json(
                &json!({ "entries": size, "contents": contents.len(), "dir": self.dir }),
            );
        }
        let dir = self.dir.display();
        output::line(&format!(
            "{size} entries and {} contents of snapshots are in `{dir}`",
            contents.len()
        ));
        output::line(&format!("verify them with: lexgate verify {dir} --key VKEY"));
        Ok(())
    }

    /// Refuses a folder with something else in it: what is there is not ours to mix with.
    async fn check_folder(&self, store: &dyn Store) -> Result<(), Failure> {
        let mut files = match std::fs::read_dir(&self.dir) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::io("read", &self.dir, &error)),
        };
        if files.next().is_none() {
            return Ok(());
        }
        let first = store.record(Seq::new(0)).await.map_err(AppError::from)?;
        let there = bundle(&self.dir, 0)?;
        let there = there.as_deref().and_then(|bundle| read_bundle(bundle).ok());
        let there = there.and_then(|entries| entries.first().map(|entry| entry.to_vec()));
        if there.is_some() && there.as_deref() == first.as_ref().map(|stored| &*stored.entry) {
            return Ok(());
        }
        let dir = self.dir.display();
        Err(Failure::Usage(format!(
            "`{dir}` holds something else than an export of this log: name an empty folder"
        )))
    }

    /// Writes `size` entries in bundles; gives the digests that activations among them name.
    async fn write_entries(
        &self,
        store: &dyn Store,
        size: u64,
    ) -> Result<BTreeSet<Digest>, Failure> {
        let mut contents = BTreeSet::new();
        let mut next = 0;
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
            let entries: Vec<_> = stored.into_iter().map(|stored| stored.entry).collect();
            let bundle = write_bundle(&entries)
                .map_err(|error| Failure::Finding(format!("entries after {next}: {error}")))?;
            let number = next / TILE_WIDTH as u64;
            write(&self.dir.join(TilePath::Entries { n: number, width }.to_string()), &bundle)?;
            self.remove_smaller(number, width)?;
            next += width as u64;
            output::progress(&format!("{next} of {size} entries"));
        }
        output::end_progress();
        Ok(contents)
    }

    /// Removes partial bundles of an earlier export that `width` entries have replaced.
    fn remove_smaller(&self, number: u64, width: usize) -> Result<(), Failure> {
        for smaller in 1..width {
            let path = self.dir.join(TilePath::Entries { n: number, width: smaller }.to_string());
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Failure::io("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The bundle `n` of an export: whole, or as much of it as there is.
pub(super) fn bundle(dir: &Path, n: u64) -> Result<Option<Vec<u8>>, Failure> {
    for width in (1..=TILE_WIDTH).rev() {
        let path = dir.join(TilePath::Entries { n, width }.to_string());
        match std::fs::read(&path) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io("read", &path, &error)),
        }
    }
    Ok(None)
}

fn contents_of(stored: &Stored) -> Result<Vec<Digest>, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Finding(format!("entry {} cannot be read: {error}", stored.seq))
    };
    let entry = Entry::parse(&stored.entry).map_err(|error| broken(&error))?;
    if entry.kind != Kind::BundleActivated {
        return Ok(Vec::new());
    }
    let body: ActivationBody =
        serde_json::from_str(entry.body.get()).map_err(|error| broken(&error))?;
    let digests = body.snapshot;
    Ok(vec![digests.bundle, digests.facts, digests.organisation, digests.registers])
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
    std::fs::write(path, bytes).map_err(|error| Failure::io("write", path, &error))
}
