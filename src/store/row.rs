//! Between the ledger's types and columns: both databases keep numbers as 64-bit integers, instants
//! as microseconds and digests as bytes.

use jiff::Timestamp;
use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{Active, Claimed, Head, StoreError, Stored};
use crate::domain::{Digest, Revision, Seq, SnapshotDigests};

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

fn digest(column: &[u8]) -> Result<Digest, StoreError> {
    let bytes = column.try_into().map_err(|_| StoreError::Corrupt("a digest of another length"))?;
    Ok(Digest::from_bytes(bytes))
}

/// What both databases' rows can give.
pub(super) trait Columns {
    fn integer(&self, index: usize) -> Result<i64, StoreError>;
    fn bytes(&self, index: usize) -> Result<Vec<u8>, StoreError>;
}

impl<R: Row> Columns for R
where
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    fn integer(&self, index: usize) -> Result<i64, StoreError> {
        Ok(self.try_get(index)?)
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, StoreError> {
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

/// `request, seq`.
pub(super) fn claimed(row: &impl Columns) -> Result<Claimed, StoreError> {
    Ok(Claimed { request: digest(&row.bytes(0)?)?, seq: seq(row, 1)? })
}

/// A count.
pub(super) fn count(row: &impl Columns) -> Result<u64, StoreError> {
    number(row.integer(0)?)
}
