//! What shows that a record stands in the log, and that the log only grew: read from the tiles, a few
//! of them however long the log.

use std::collections::BTreeSet;

use super::{Gate, GateError};
use crate::{
    domain::{Digest, Seq},
    ledger::{
        Checkpoint, Entry, GenesisBody, KeyChangeBody, KeyRetiredBody, Kind, Note, Plan,
        TILE_WIDTH, TileId, TlogProof, write_bundle,
    },
    store::{RecordQuery, Store},
};

/// How many keys of a log are listed.
const MOST_KEYS: usize = 1000;

/// A record's place in the tree, with the checkpoint that fixes it.
#[derive(Clone, Debug)]
pub struct Inclusion {
    /// What the checkpoint says.
    pub tree: Checkpoint,
    /// The proof, with the checkpoint as it was signed.
    pub proof: TlogProof,
}

/// A key of the log, and the record from which it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    /// The verifier key.
    pub vkey: String,
    /// The record that names it.
    pub from_seq: Seq,
    /// The record from which it signs no more.
    pub retired: Option<Seq>,
}

impl Gate {
    /// The tree as it was signed last.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn checkpoint(&self) -> Result<(Checkpoint, Note), GateError> {
        self.sequencer.checkpoint().await?.ok_or(GateError::Corrupt)
    }

    /// The proof that the record at `seq` is in the log; `None` when it is not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn inclusion(&self, seq: Seq) -> Result<Option<Inclusion>, GateError> {
        let (tree, checkpoint) = self.checkpoint().await?;
        let Some(plan) = Plan::inclusion(seq.get(), tree.size) else { return Ok(None) };
        let hashes = self.make(&plan).await?;
        Ok(Some(Inclusion { tree, proof: TlogProof { index: seq.get(), hashes, checkpoint } }))
    }

    /// The proof that the first `old` entries of the log's first `new` are the same; `None` when it
    /// has not so many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Option<Vec<Digest>>, GateError> {
        let (tree, _) = self.checkpoint().await?;
        let Some(plan) = Plan::consistency(old, new).filter(|_| new <= tree.size) else {
            return Ok(None);
        };
        self.make(&plan).await.map(Some)
    }

    async fn make(&self, plan: &Plan) -> Result<Vec<Digest>, GateError> {
        let ids: Vec<_> = plan.tiles().into_iter().collect();
        let tiles = self.store.tiles(&ids).await?.into_iter().map(|tile| (tile.id, tile.hashes));
        plan.make(&tiles.collect()).ok_or(GateError::Corrupt)
    }

    /// The first `width` hashes of a tile; `None` when it does not have so many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tile(&self, id: TileId, width: usize) -> Result<Option<Vec<u8>>, GateError> {
        let mut tiles = self.store.tiles(&[id]).await?;
        let hashes = tiles.pop().map(|tile| tile.hashes).unwrap_or_default();
        let hashes = hashes.get(..width);
        Ok(hashes.map(|hashes| hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()))
    }

    /// The first `width` entries of a bundle; `None` when it does not have so many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn entries(&self, n: u64, width: usize) -> Result<Option<Vec<u8>>, GateError> {
        let first = n.saturating_mul(TILE_WIDTH as u64);
        let stored = self.store.range(Seq::new(first), width).await?;
        let entries: Vec<_> = stored.iter().map(|stored| &stored.entry).collect();
        let whole = stored.last().is_some_and(|last| last.seq.get() + 1 == first + width as u64);
        if !whole || entries.len() != width {
            return Ok(None);
        }
        write_bundle(&entries).map(Some).map_err(|_| GateError::Corrupt)
    }
}

/// The keys that have signed the log, the oldest first.
///
/// # Errors
/// When the store fails.
pub async fn log_keys(store: &dyn Store) -> Result<Vec<LogKey>, GateError> {
    let genesis = store.record(Seq::new(0)).await?.ok_or(GateError::Corrupt)?;
    let query =
        RecordQuery { kind: Some(Kind::KeyChanged), limit: MOST_KEYS, ..RecordQuery::default() };
    let changes = store.query(&query).await?;
    let mut keys = Vec::new();
    for stored in std::iter::once(&genesis).chain(&changes) {
        let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
        let body = entry.body.get();
        let vkey = match entry.kind {
            Kind::Genesis => serde_json::from_str(body).map(|body: GenesisBody| body.public_key),
            _ => serde_json::from_str(body).map(|body: KeyChangeBody| body.public_key),
        };
        let vkey = vkey.map_err(|_| GateError::Corrupt)?;
        keys.push(LogKey { vkey, from_seq: stored.seq, retired: None });
    }
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(key.vkey.clone()));
    let query = RecordQuery { kind: Some(Kind::KeyRetired), ..query };
    for stored in store.query(&query).await? {
        let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
        let body: KeyRetiredBody =
            serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
        if let Some(key) = keys.iter_mut().find(|key| key.vkey == body.retired) {
            key.retired.get_or_insert(stored.seq);
        }
    }
    Ok(keys)
}
