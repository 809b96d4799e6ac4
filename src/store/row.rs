//! Between the ledger's types and columns: both databases keep numbers as 64-bit integers, instants
//! as microseconds and digests as bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use rust_decimal::Decimal;
use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{Active, Claimed, Head, StoreError, Stored};
use crate::{
    domain::{
        CountKey, CounterKey, Counts, Digest, Revision, Seq, SnapshotDigests, Used, under_way,
    },
    ledger::{Edge, TILE_WIDTH, Tile, TileId, partial_tiles, read_tile},
};

/// A position as a column has it. One beyond the columns' range is nowhere.
pub(super) fn seq_column(seq: Seq) -> i64 {
    i64::try_from(seq.get()).unwrap_or(i64::MAX)
}

/// A revision as a column has it.
pub(super) fn revision_column(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A count as a `LIMIT` has it.
pub(super) fn limit_column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn number(column: i64) -> Result<u64, StoreError> {
    u64::try_from(column).map_err(|_| StoreError::Corrupt("a negative number"))
}

pub(super) fn digest(column: &[u8]) -> Result<Digest, StoreError> {
    let bytes = column.try_into().map_err(|_| StoreError::Corrupt("a digest of another length"))?;
    Ok(Digest::from_bytes(bytes))
}

/// What both databases' rows can give.
pub(super) trait Columns {
    fn integer(&self, index: usize) -> Result<i64, StoreError>;
    fn bytes(&self, index: usize) -> Result<Vec<u8>, StoreError>;
    fn text(&self, index: usize) -> Result<String, StoreError>;
}

impl<R: Row> Columns for R
where
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    fn integer(&self, index: usize) -> Result<i64, StoreError> {
        Ok(self.try_get(index)?)
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.try_get(index)?)
    }

    fn text(&self, index: usize) -> Result<String, StoreError> {
        Ok(self.try_get(index)?)
    }
}

/// The position in a column.
pub(super) fn seq(row: &impl Columns, index: usize) -> Result<Seq, StoreError> {
    number(row.integer(index)?).map(Seq::new)
}

/// `seq, leaf, entry`.
pub(super) fn stored(row: &impl Columns) -> Result<Stored, StoreError> {
    Ok(Stored { seq: seq(row, 0)?, leaf: digest(&row.bytes(1)?)?, entry: row.bytes(2)?.into() })
}

/// Rows of `seq, leaf, entry`.
pub(super) fn all_stored<R: Columns>(rows: &[R]) -> Result<Vec<Stored>, StoreError> {
    rows.iter().map(stored).collect()
}

/// `next, leaf, ts, revision`.
pub(super) fn head(row: &impl Columns) -> Result<Head, StoreError> {
    let ts = Timestamp::from_microsecond(row.integer(2)?)
        .map_err(|_| StoreError::Corrupt("an instant beyond the calendar"))?;
    Ok(Head {
        next: seq(row, 0)?,
        leaf: digest(&row.bytes(1)?)?,
        ts,
        revision: Revision(number(row.integer(3)?)?),
    })
}

/// `revision, seq, bundle, facts, organisation, registers`.
pub(super) fn active(row: &impl Columns) -> Result<Active, StoreError> {
    let snapshot = SnapshotDigests {
        bundle: digest(&row.bytes(2)?)?,
        facts: digest(&row.bytes(3)?)?,
        organisation: digest(&row.bytes(4)?)?,
        registers: digest(&row.bytes(5)?)?,
        revision: Revision(number(row.integer(0)?)?),
    };
    Ok(Active { snapshot, seq: seq(row, 1)? })
}

/// `tenant, origin, since, export, subjects`.
pub(super) fn counts<R: Columns>(
    keys: &BTreeSet<CountKey>,
    rows: &[R],
) -> Result<Counts, StoreError> {
    // A key under which nothing left stands there too: what a batch adds is counted under it.
    let mut counts: HashMap<_, _> = keys.iter().map(|key| (key.clone(), Vec::new())).collect();
    for row in rows {
        let (since, n) = (row.integer(2)?, row.integer(4)?);
        let since = i32::try_from(since).map_err(|_| StoreError::Corrupt("a day beyond time"))?;
        let origin = row.text(1)?;
        let origin =
            origin.parse().map_err(|_| StoreError::Corrupt("an origin that is no jurisdiction"))?;
        let key = CountKey { tenant: row.text(0)?.into(), origin, since };
        let export = serde_json::from_str(&row.text(3)?)
            .map_err(|_| StoreError::Corrupt("an export that is no JSON"))?;
        counts.entry(key).or_default().push((export, n));
    }
    Ok(Counts(counts))
}

/// `name, since, used`.
pub(super) fn used<R: Columns>(rows: &[R]) -> Result<Used, StoreError> {
    let counter = |row: &R| {
        let since = Timestamp::from_microsecond(row.integer(1)?)
            .map_err(|_| StoreError::Corrupt("an instant beyond the calendar"))?;
        let used = Decimal::from_str_exact(&row.text(2)?)
            .map_err(|_| StoreError::Corrupt("a counter that is no number"))?;
        Ok((CounterKey { name: row.text(0)?.into(), since }, used))
    };
    rows.iter().map(counter).collect()
}

/// `app, tenant, count`.
pub(super) fn calls_under_way<R: Columns>(rows: &[R]) -> Result<Used, StoreError> {
    let mut used = Used::new();
    for row in rows {
        let calls = row.integer(2)?;
        for key in under_way(&row.text(0)?.into(), &row.text(1)?.into()) {
            *used.entry(key).or_default() += Decimal::from(calls);
        }
    }
    Ok(used)
}

/// `request, seq`.
pub(super) fn claimed(row: &impl Columns) -> Result<Claimed, StoreError> {
    Ok(Claimed { request: digest(&row.bytes(0)?)?, seq: seq(row, 1)? })
}

/// `level, n, hashes`.
pub(super) fn tile(row: &impl Columns) -> Result<Tile, StoreError> {
    let level = u32::try_from(row.integer(0)?)
        .map_err(|_| StoreError::Corrupt("a tile of a level that cannot be"))?;
    let hashes =
        read_tile(&row.bytes(2)?).ok_or(StoreError::Corrupt("a tile of another length"))?;
    Ok(Tile { id: TileId { level, n: number(row.integer(1)?)? }, hashes })
}

/// The first and the last position of the leaves under a tile of level 0.
pub(super) fn leaves_of(id: TileId) -> (i64, i64) {
    let first = id.n.saturating_mul(TILE_WIDTH as u64);
    let last = first.saturating_add(TILE_WIDTH as u64 - 1);
    (seq_column(Seq::new(first)), seq_column(Seq::new(last)))
}

/// Rows of `seq, leaf`, in order: the tiles of leaves that they make.
pub(super) fn leaf_tiles<R: Columns>(rows: &[R]) -> Result<Vec<Tile>, StoreError> {
    let mut tiles: Vec<Tile> = Vec::new();
    for row in rows {
        let id = TileId { level: 0, n: number(row.integer(0)?)? / TILE_WIDTH as u64 };
        let leaf = digest(&row.bytes(1)?)?;
        match tiles.last_mut() {
            Some(tile) if tile.id == id => tile.hashes.push(leaf),
            _ => tiles.push(Tile { id, hashes: vec![leaf] }),
        }
    }
    Ok(tiles)
}

/// The edge of a tree of `size` leaves from the tiles at its right, as they were found.
pub(super) fn edge(size: Seq, found: Vec<Tile>) -> Result<Edge, StoreError> {
    let mut found: BTreeMap<_, _> = found.into_iter().map(|tile| (tile.id, tile.hashes)).collect();
    let partial = partial_tiles(size.get()).map(|(id, _)| found.remove(&id).unwrap_or_default());
    let edge = Edge::from_tiles(size.get(), partial.collect());
    edge.ok_or(StoreError::Corrupt("the tiles are not those of the entries"))
}

/// A count.
pub(super) fn count(row: &impl Columns) -> Result<u64, StoreError> {
    number(row.integer(0)?)
}
