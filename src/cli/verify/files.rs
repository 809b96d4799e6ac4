//! An export as files: what lies where, and whether it is there. Not whether it is true.

use std::{collections::BTreeSet, path::Path};

use super::{
    super::Failure,
    folder::{Folder, read_named},
};
use crate::{
    domain::{Digest, Seq},
    ledger::{
        Checkpoint, ENTRY_LIMIT, Note, TILE_WIDTH, Tile, TileId, TilePath, read_bundle, read_tile,
    },
};

/// The longest note, in bytes.
const NOTE: u64 = 64 << 10;
/// The longest tile: 256 hashes.
const TILE: u64 = 32 * TILE_WIDTH as u64;
/// The longest bundle: 256 entries, each behind its length.
const BUNDLE: u64 = ((ENTRY_LIMIT + 2) * TILE_WIDTH) as u64;
/// The longest content of a snapshot.
const CONTENT: u64 = 32 << 20;
/// The longest file of checkpoints that were kept.
const KEPT: u64 = 64 << 20;

/// The folder of the contents that snapshots pin, each under its digest.
pub(in crate::cli) const CONTENTS: &str = "contents";
/// The file of the signed checkpoint.
pub(in crate::cli) const CHECKPOINT: &str = "checkpoint";

/// The file of the greatest checkpoint that witnesses have cosigned, where there is one.
pub(in crate::cli) const WITNESSED: &str = "checkpoint.witnessed";

/// The folder that `lexgate export` wrote.
#[derive(Debug)]
pub(super) struct Export {
    folder: Folder,
    /// How many entries its checkpoint says that there are.
    size: u64,
}

impl Export {
    /// Opens an export: reads its checkpoint, which is not verified.
    pub(super) fn open(dir: &Path) -> Result<(Self, Checkpoint, Note), Failure> {
        let folder = Folder::open(dir)?;
        let Some((checkpoint, note)) = checkpoint_in(&folder, CHECKPOINT)? else {
            return Err(Failure::Finding(format!(
                "there is no checkpoint `{}`: `lexgate export` writes one",
                dir.join(CHECKPOINT).display()
            )));
        };
        Ok((Self { folder, size: checkpoint.size }, checkpoint, note))
    }

    /// The checkpoint that witnesses have cosigned, where there is one.
    pub(super) fn cosigned(&self) -> Result<Option<(Checkpoint, Note)>, Failure> {
        checkpoint_in(&self.folder, WITNESSED)
    }

    /// The first files in the folder that belong to nothing that is verified, and how many there are.
    pub(super) fn others(
        &self,
        most: usize,
        contents: &BTreeSet<Digest>,
    ) -> Result<(Vec<String>, u64), Failure> {
        self.folder.others(most, |name| {
            if let Some(content) = name.strip_prefix("contents/") {
                return Digest::from_hex(content).is_some_and(|digest| contents.contains(&digest));
            }
            let Some(path) = name.strip_prefix("tile/") else {
                return name == CHECKPOINT || name == WITNESSED;
            };
            let (id, width) = match path.parse() {
                Ok(TilePath::Hashes { id, width }) => (id, width),
                Ok(TilePath::Entries { n, width }) => (TileId { level: 0, n }, width),
                Err(_) => return false,
            };
            id.width(self.size) == width
        })
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
        if !self.folder.read(&path.to_string(), BUNDLE, bytes)? {
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
        let mut bytes = Vec::new();
        if !self.folder.read(&path, TILE, &mut bytes)? {
            return Err(Failure::Finding(format!("the tile `{path}` is missing")));
        }
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
            if self.folder.has(&path.to_string()) {
                return Err(Failure::Finding(format!(
                    "there are entries beyond the {} of the checkpoint (`{path}`): the checkpoint was replaced by an older one, or entries were added",
                    self.size
                )));
            }
        }
        Ok(())
    }

    /// An entry, and empty where its body was removed.
    pub(super) fn entry(&self, seq: Seq, bundle: &mut Vec<u8>) -> Option<Vec<u8>> {
        let n = seq.get() / TILE_WIDTH as u64;
        self.bundle(n, bundle).ok()?;
        let entries = read_bundle(bundle).ok()?;
        let at = usize::try_from(seq.get() % TILE_WIDTH as u64).ok()?;
        entries.get(at).map(|entry| entry.to_vec())
    }

    /// A content that a snapshot pins.
    pub(super) fn content(&self, digest: Digest) -> Result<Vec<u8>, String> {
        let (name, mut bytes) = (format!("{CONTENTS}/{}", digest.hex()), Vec::new());
        match self.folder.read(&name, CONTENT, &mut bytes) {
            Ok(true) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(true) => Err(format!("the content of {digest} has been changed")),
            Ok(false) => Err(format!("the content of {digest} is missing: there is no `{name}`")),
            Err(error) => Err(format!("the content of {digest} cannot be read: {error}")),
        }
    }
}

/// The checkpoint in a file of an export that holds one; `None` when there is no such file.
fn checkpoint_in(folder: &Folder, name: &str) -> Result<Option<(Checkpoint, Note)>, Failure> {
    let mut bytes = Vec::new();
    if !folder.read(name, NOTE, &mut bytes)? {
        return Ok(None);
    }
    let mut all = checkpoints(bytes, name)?;
    match (all.pop(), all.is_empty()) {
        (Some(checkpoint), true) => Ok(Some(checkpoint)),
        _ => Err(Failure::Finding(format!("`{name}` does not hold one checkpoint"))),
    }
}

/// The checkpoints in a file that somebody kept, one after the other.
pub(super) fn read_checkpoints(path: &Path) -> Result<Vec<(Checkpoint, Note)>, Failure> {
    checkpoints(read_named(path, KEPT)?, &path.display().to_string())
}

fn checkpoints(bytes: Vec<u8>, name: &str) -> Result<Vec<(Checkpoint, Note)>, Failure> {
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::Finding(format!("the checkpoint `{name}` is not UTF-8: it was changed"))
    })?;
    let bad = |error| Failure::Finding(format!("the checkpoint `{name}`: {error}"));
    let notes = Note::parse_all(&text).map_err(bad)?;
    notes.into_iter().map(|note| Ok((Checkpoint::read(&note).map_err(bad)?, note))).collect()
}
