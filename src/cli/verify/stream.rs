//! A log read on all cores, in the order of its entries and in constant memory.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{super::Failure, files::Export, replay::Replay};
use crate::{
    domain::{Digest, SnapshotDigests},
    ledger::{
        ChainFault, Examined, Examiner, Finding, TILE_WIDTH, Tile, TileId, Verifier, read_bundle,
    },
};

/// How many bundles a thread may be ahead.
const AHEAD: usize = 4;

/// A bundle that was read, and the tile of its leaves.
struct Chunk {
    /// Its entries; `None` for one whose body was removed.
    entries: Vec<Option<Result<Examined, ChainFault>>>,
    leaves: Vec<Digest>,
    path: String,
    /// Decisions that are judged otherwise today.
    differing: Vec<String>,
}

/// What is called with the state after each entry, and after each bundle.
pub(super) trait Watch {
    fn entry(
        &mut self,
        verifier: &Verifier,
        activated: Option<SnapshotDigests>,
    ) -> Result<(), Failure>;
    fn bundle(&mut self, verifier: &Verifier, differing: Vec<String>);
}

/// Reads all of an export. Stops at the first fault.
pub(super) fn read(
    export: &Export,
    replay: Option<&Replay<'_>>,
    watch: &mut dyn Watch,
) -> Result<Verifier, Failure> {
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|first| {
                let (send, chunks) = sync_channel(AHEAD);
                scope.spawn(move || read_every(export, replay, (first, threads), &send));
                chunks
            })
            .collect();
        follow(export, &readers, watch)
    })
}

/// Reads every bundle that is this thread's turn.
fn read_every(
    export: &Export,
    replay: Option<&Replay<'_>>,
    (first, threads): (u64, u64),
    send: &SyncSender<Result<Chunk, Failure>>,
) {
    let (mut n, mut desk) = (first, Desk::default());
    while n < export.bundles() {
        let chunk = read_chunk(export, replay, &mut desk, n);
        let failed = chunk.is_err();
        if send.send(chunk).is_err() || failed {
            return;
        }
        n += threads;
    }
}

/// What a thread reads with.
#[derive(Default)]
struct Desk {
    examiner: Examiner,
    /// The bundle at hand.
    bundle: Vec<u8>,
}

fn read_chunk(
    export: &Export,
    replay: Option<&Replay<'_>>,
    desk: &mut Desk,
    n: u64,
) -> Result<Chunk, Failure> {
    let Desk { examiner, bundle } = desk;
    export.bundle(n, bundle)?;
    let (leaves, path) = export.tile(TileId { level: 0, n })?;
    let bytes = read_bundle(bundle).unwrap_or_default();
    let present = |entry: &&[u8]| !entry.is_empty();
    let entries = bytes.iter().map(|entry| Some(*entry).filter(present));
    let entries = entries.map(|entry| Some(examiner.examine(entry?))).collect();
    let mut differing = Vec::new();
    if let Some(replay) = replay {
        for entry in bytes {
            differing.extend(replay.differs(entry));
        }
    }
    Ok(Chunk { entries, leaves, path, differing })
}

/// Takes the bundles in their order.
fn follow(
    export: &Export,
    readers: &[Receiver<Result<Chunk, Failure>>],
    watch: &mut dyn Watch,
) -> Result<Verifier, Failure> {
    let mut verifier = Verifier::new();
    let mut older = Older { export, tile: None };
    for reader in readers.iter().cycle() {
        if verifier.next().get().div_ceil(TILE_WIDTH as u64) == export.bundles() {
            break;
        }
        let ended = || Failure::Environment("a thread that reads the export has ended".to_owned());
        let chunk = reader.recv().map_err(|_| ended())??;
        let mut entries = chunk.entries.into_iter().zip(&chunk.leaves).peekable();
        while let Some((examined, leaf)) = entries.next() {
            let seq = verifier.next();
            let found = |fault| Failure::Finding(Finding { seq, fault }.to_string());
            let Some(examined) = examined.transpose().map_err(found)? else {
                let tiles = verifier.follow_removed(*leaf);
                check_full(export, &tiles)?;
                watch.entry(&verifier, None)?;
                continue;
            };
            let next = entries.peek().and_then(|(next, _)| next.as_ref()?.as_ref().ok());
            let changed = (examined.leaf != *leaf).then(|| {
                let chained = next.is_some_and(|next| next.prev == examined.leaf);
                Failure::Finding(if chained {
                    format!(
                        "the tile `{}` was changed: it holds another hash for entry {seq}",
                        chunk.path
                    )
                } else {
                    format!(
                        "entry {seq}: was changed: its hash is not the one in the tile `{}`",
                        chunk.path
                    )
                })
            });
            let activated = examined.activated();
            let tiles = verifier
                .follow(examined, &mut |seq| older.leaf(seq))
                .map_err(|finding| Failure::Finding(finding.to_string()))?;
            if let Some(changed) = changed {
                return Err(changed);
            }
            check_full(export, &tiles)?;
            watch.entry(&verifier, activated)?;
        }
        watch.bundle(&verifier, chunk.differing);
    }
    for tile in verifier.edge().partial().iter().filter(|tile| tile.id.level > 0) {
        export.check_tile(tile)?;
    }
    Ok(verifier)
}

/// Full tiles of leaves were compared entry by entry; those that still grow come at the end.
fn check_full(export: &Export, tiles: &[Tile]) -> Result<(), Failure> {
    let full = |tile: &&Tile| tile.id.level > 0 && tile.hashes.len() == TILE_WIDTH;
    tiles.iter().filter(full).try_for_each(|tile| export.check_tile(tile))
}

/// Leaves that are no longer in memory, from tiles that have been compared with their entries.
struct Older<'a> {
    export: &'a Export,
    tile: Option<(TileId, Vec<Digest>)>,
}

impl Older<'_> {
    fn leaf(&mut self, seq: crate::domain::Seq) -> Option<Digest> {
        let id = TileId { level: 0, n: seq.get() / TILE_WIDTH as u64 };
        if self.tile.as_ref().is_none_or(|(there, _)| *there != id) {
            self.tile = Some((id, self.export.tile(id).ok()?.0));
        }
        let at = usize::try_from(seq.get() % TILE_WIDTH as u64).ok()?;
        self.tile.as_ref().and_then(|(_, hashes)| hashes.get(at)).copied()
    }
}
