//! An export as files: what lies where, and whether it is there. Not whether it is true.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use super::super::Failure;
use crate::{
    domain::Digest,
    ledger::{Checkpoint, Note, TILE_WIDTH, Tile, TileId, TilePath, read_bundle, read_tile},
};

/// The folder of the contents that snapshots pin, each under its digest.
pub(in crate::cli) const CONTENTS: &str = "contents";
/// The file of the signed checkpoint.
pub(in crate::cli) const CHECKPOINT: &str = "checkpoint";

/// The file of the greatest checkpoint that witnesses have cosigned, where there is one.
pub(in crate::cli) const WITNESSED: &str = "checkpoint.witnessed";

/// The folder that `lexgate export` wrote.
#[derive(Debug)]
pub(super) struct Export {
    dir: PathBuf,
    /// How many entries its checkpoint says that there are.
    size: u64,
}

impl Export {
    /// Opens an export: reads its checkpoint, which is not verified.
    pub(super) fn open(dir: &Path) -> Result<(Self, Checkpoint, Note), Failure> {
        let (checkpoint, note) = read_checkpoint(&dir.join(CHECKPOINT))?;
        let export = Self { dir: dir.to_owned(), size: checkpoint.size };
        Ok((export, checkpoint, note))
    }

    /// The checkpoint that witnesses have cosigned, where there is one.
    pub(super) fn cosigned(&self) -> Result<Option<(Checkpoint, Note)>, Failure> {
        let path = self.dir.join(WITNESSED);
        if path.exists() { read_checkpoint(&path).map(Some) } else { Ok(None) }
    }

    /// How many bundles there are.
    pub(super) fn bundles(&self) -> u64 {
        self.size.div_ceil(TILE_WIDTH as u64)
    }

    /// Reads bundle `n`, as wide as it must be, in place of what is in `bytes`.
    pub(super) fn bundle(&self, n: u64, bytes: &mut Vec<u8>) -> Result<(), Failure> {
        let width = TileId { level: 0, n }.width(self.size);
        let path = TilePath::Entries { n, width };
        let first = n.saturating_mul(TILE_WIDTH as u64);
        let missing = || {
            format!(
                "entry {first} and those after it are missing: there is no `{path}`, which a checkpoint of {} entries needs",
                self.size
            )
        };
        if !self.read_into(&path.to_string(), bytes)? {
            return Err(Failure::Finding(missing()));
        }
        match read_bundle(bytes) {
            Ok(entries) if entries.len() == width => Ok(()),
            Ok(entries) => Err(Failure::Finding(format!(
                "entry {}: `{path}` holds {} entries instead of {width}",
                first + entries.len().min(width) as u64,
                entries.len(),
            ))),
            Err(error) => {
                Err(Failure::Finding(format!("`{path}`, from entry {first} on: {error}")))
            }
        }
    }

    /// The tile at `id`, as wide as it must be; and its path.
    pub(super) fn tile(&self, id: TileId) -> Result<(Vec<Digest>, String), Failure> {
        let path = TilePath::Hashes { id, width: id.width(self.size) }.to_string();
        let bytes = self
            .read(&path)?
            .ok_or_else(|| Failure::Finding(format!("the tile `{path}` is missing")))?;
        let hashes = read_tile(&bytes).filter(|hashes| hashes.len() == id.width(self.size));
        let hashes = hashes
            .ok_or_else(|| Failure::Finding(format!("the tile `{path}` has another length")))?;
        Ok((hashes, path))
    }

    /// Whether the file of `tile` says the same.
    pub(super) fn check_tile(&self, tile: &Tile) -> Result<(), Failure> {
        let (there, path) = self.tile(tile.id)?;
        let differs = |(a, b): (&Digest, &Digest)| a != b;
        match there.iter().zip(&tile.hashes).position(differs) {
            None if there.len() == tile.hashes.len() => Ok(()),
            place => Err(Failure::Finding(format!(
                "the tile `{path}` was changed: its hash {} is not that of the entries",
                place.unwrap_or(there.len())
            ))),
        }
    }

    /// Whether there is something that the checkpoint does not cover.
    pub(super) fn check_nothing_beyond(&self) -> Result<(), Failure> {
        let n = self.size / TILE_WIDTH as u64;
        let width = TileId { level: 0, n }.width(self.size);
        let wider = (width + 1..=TILE_WIDTH).map(|width| TilePath::Entries { n, width });
        let next = std::iter::once(TilePath::Entries { n: n + 1, width: TILE_WIDTH });
        for path in wider.chain(next) {
            if self.dir.join(path.to_string()).exists() {
                return Err(Failure::Finding(format!(
                    "there are entries beyond the {} of the checkpoint (`{path}`): the checkpoint was replaced by an older one, or entries were added",
                    self.size
                )));
            }
        }
        Ok(())
    }

    /// A content that a snapshot pins.
    pub(super) fn content(&self, digest: Digest) -> Result<Vec<u8>, String> {
        match fs::read(self.dir.join(CONTENTS).join(digest.hex())) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(_) => Err(format!("the content of {digest} has been changed")),
            Err(error) => Err(format!("the content of {digest} cannot be read: {error}")),
        }
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let mut bytes = Vec::new();
        Ok(self.read_into(path, &mut bytes)?.then_some(bytes))
    }

    /// Whether the file is there.
    fn read_into(&self, path: &str, bytes: &mut Vec<u8>) -> Result<bool, Failure> {
        bytes.clear();
        let path = self.dir.join(path);
        match File::open(&path).and_then(|mut file| file.read_to_end(bytes)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::io("read", &path, &error)),
        }
    }
}

/// The checkpoint in a file that holds one.
fn read_checkpoint(path: &Path) -> Result<(Checkpoint, Note), Failure> {
    let mut all = read_checkpoints(path)?;
    match (all.pop(), all.is_empty()) {
        (Some(checkpoint), true) => Ok(checkpoint),
        _ => Err(Failure::Finding(format!("`{}` does not hold one checkpoint", path.display()))),
    }
}

/// The checkpoints in a file, one after the other.
pub(super) fn read_checkpoints(path: &Path) -> Result<Vec<(Checkpoint, Note)>, Failure> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::Finding(format!(
            "there is no checkpoint `{}`: `lexgate export` writes one",
            path.display()
        )),
        _ => Failure::io("read", path, &error),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::Finding(format!(
            "the checkpoint `{}` is not UTF-8: it was changed",
            path.display()
        ))
    })?;
    let bad = |error| Failure::Finding(format!("the checkpoint `{}`: {error}", path.display()));
    let notes = Note::parse_all(&text).map_err(bad)?;
    notes.into_iter().map(|note| Ok((Checkpoint::read(&note).map_err(bad)?, note))).collect()
}
