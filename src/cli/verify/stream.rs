//! A log read on all cores, in the order of its entries and in constant memory.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use jiff::Timestamp;
use uuid::Uuid;

use super::{super::Failure, STACK, files::Export, replay::Replay};
use crate::{
    domain::{Digest, Seq, SnapshotDigests},
    ledger::{
        ChainFault, Examined, Examiner, Finding, Kind, Past, SentAttempt, TILE_WIDTH, Tile, TileId,
        Verifier, leaf_of, read_bundle,
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

/// What an entry was, as far as whoever watches wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) seq: Seq,
    /// When it was written, where it is here.
    pub(super) ts: Option<Timestamp>,
    /// Whether it is a decision.
    pub(super) is_decision: bool,
    /// The snapshot that it activates.
    pub(super) activated: Option<SnapshotDigests>,
}

/// What is called with the state after each entry, and after each bundle.
pub(super) trait Watch {
    fn entry(&mut self, verifier: &mut Verifier, seen: Seen) -> Result<(), Failure>;
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
                let reading = move || read_every(export, replay, (first, threads), &send);
                let thread = thread::Builder::new().stack_size(STACK);
                thread.spawn_scoped(scope, reading).map_err(|error| {
                    Failure::Environment(format!("a thread that reads cannot be started: {error}"))
                })?;
                Ok(chunks)
            })
            .collect::<Result<_, Failure>>()?;
        follow(export, replay, &readers, watch)
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
    replay: Option<&Replay<'_>>,
    readers: &[Receiver<Result<Chunk, Failure>>],
    watch: &mut dyn Watch,
) -> Result<Verifier, Failure> {
    let mut verifier = Verifier::new();
    let mut past =
        ExportedPast { export, replay, tile: None, bundle: Vec::new(), differing: Vec::new() };
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
                let seen = Seen { seq, ts: None, is_decision: false, activated: None };
                watch.entry(&mut verifier, seen)?;
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
            let seen = Seen {
                seq,
                ts: Some(examined.ts()),
                is_decision: examined.kind == Kind::Decision,
                activated: examined.activated(),
            };
            let tiles = verifier
                .follow(examined, &mut past)
                .map_err(|finding| Failure::Finding(finding.to_string()))?;
            if let Some(changed) = changed {
                return Err(changed);
            }
            check_full(export, &tiles)?;
            watch.entry(&mut verifier, seen)?;
        }
        watch.bundle(&verifier, chunk.differing);
        watch.bundle(&verifier, std::mem::take(&mut past.differing));
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

/// Entries and leaves that are no longer in memory: leaves are from tiles that have been compared with
/// their entries, and so entries are the ones that were read.
struct ExportedPast<'a> {
    export: &'a Export,
    replay: Option<&'a Replay<'a>>,
    tile: Option<(TileId, Vec<Digest>)>,
    bundle: Vec<u8>,
    /// Attempts that were not lawful.
    differing: Vec<String>,
}

impl Past for ExportedPast<'_> {
    fn leaf(&mut self, seq: Seq) -> Option<Digest> {
        let id = TileId { level: 0, n: seq.get() / TILE_WIDTH as u64 };
        if self.tile.as_ref().is_none_or(|(there, _)| *there != id) {
            self.tile = Some((id, self.export.tile(id).ok()?.0));
        }
        let at = usize::try_from(seq.get() % TILE_WIDTH as u64).ok()?;
        self.tile.as_ref().and_then(|(_, hashes)| hashes.get(at)).copied()
    }

    fn entry(&mut self, seq: Seq) -> Option<Vec<u8>> {
        let entry = self.export.entry(seq, &mut self.bundle)?;
        (Some(leaf_of(&entry)) == self.leaf(seq)).then_some(entry)
    }

    fn sent(&mut self, attempt: &SentAttempt<'_>) {
        let Some(replay) = self.replay else { return };
        let unlawful = replay.sent(attempt, || self.entry(attempt.decision));
        self.differing.extend(unlawful);
    }
}

/// The first two positions whose entries have this identifier.
pub(super) fn positions_of(export: &Export, id: Uuid) -> Result<Vec<u64>, Failure> {
    let (mut bundle, mut found) = (Vec::new(), Vec::new());
    let id = format!(r#","id":"{id}","kind":""#);
    for n in 0..export.bundles() {
        export.bundle(n, &mut bundle)?;
        for (at, entry) in read_bundle(&bundle).unwrap_or_default().iter().enumerate() {
            // Behind the body, where nothing but the envelope is.
            let tail = entry.get(entry.len().saturating_sub(700)..).unwrap_or_default();
            if memchr::memmem::rfind(tail, id.as_bytes()).is_some() {
                found.push(n * TILE_WIDTH as u64 + at as u64);
            }
            if found.len() == 2 {
                return Ok(found);
            }
        }
    }
    Ok(found)
}
