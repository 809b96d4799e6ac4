//! The index by which records are found: for each term and each block of positions, which of them have
//! it. A block is indexed once it is full, behind the log and outside of any commit; what follows the last
//! one is read as it is. How many blocks there are costs time, never a record.

mod bits;
mod build;
mod search;

use std::ops::Range;

use jiff::Timestamp;
use uuid::Uuid;

pub(super) use bits::Bits;
pub(super) use build::next_block;
pub(super) use search::{matching, occurring, search};

use super::{StoreError, Stored};
use crate::ledger::Kind;

/// How many positions a block has.
pub(super) const BLOCK: u64 = 4096;
/// The term of every record that is there.
const EVERY: &str = "";

/// How far the log and its index reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The first position that is not indexed.
    pub(super) next: u64,
    /// How often bodies were removed: what was read before may be gone.
    pub(super) removals: i64,
    /// The position behind the last record.
    pub(super) head: u64,
}

impl Progress {
    /// Where the index ends. It never reaches behind the log, and consists of whole blocks: somebody who set
    /// it forward would hide what is not indexed.
    fn end(self) -> Result<u64, StoreError> {
        if self.next > self.head || !self.next.is_multiple_of(BLOCK) {
            return Err(StoreError::Corrupt(
                "`term_progress` says that more is indexed than there is",
            ));
        }
        Ok(self.next)
    }
}

/// A part of the log, and how it is walked.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) span: Range<u64>,
    /// Records of this kind alone, of which there are few.
    pub(super) kind: Option<Kind>,
    pub(super) newest_first: bool,
    /// Whether the words of the records are wanted.
    pub(super) words: bool,
}

/// A record as the index sees it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) seq: u64,
    pub(super) kind: String,
    /// The words that were written beside it.
    pub(super) terms: Vec<String>,
}

/// Where a term occurs within a block, as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) term: String,
    pub(super) block: u64,
    pub(super) seqs: Vec<u8>,
}

/// A block that is ready to be kept.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) progress: Progress,
    pub(super) terms: Vec<(String, Vec<u8>)>,
}

impl Block {
    /// Its number.
    pub(super) const fn number(&self) -> u64 {
        self.progress.next / BLOCK
    }
}

/// What became of the next block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// It was indexed; there may be another one.
    Indexed,
    /// There is none: what is not indexed is less than a block.
    UpToDate,
    /// Somebody else was at it, or bodies were removed meanwhile.
    Overtaken,
}

/// Questions to a database about its log. None of them is about records whose bodies were removed, except
/// for their instants.
pub(super) trait Index: Send {
    /// Whether there are roles that may write the index and not the records. What the index shows is then held
    /// against the records; else words that only the index still has are taken from it.
    const HAS_ROLES: bool;

    fn progress(&mut self) -> impl Future<Output = Result<Progress, StoreError>> + Send;

    /// The position behind the last record.
    fn end(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Where these terms occur in the blocks from `first` up to `end`.
    fn kept(
        &mut self,
        terms: &[String],
        first: u64,
        end: u64,
    ) -> impl Future<Output = Result<Vec<Kept>, StoreError>> + Send;

    /// The first [`BLOCK`] records of `part`, in its order.
    fn listed(
        &mut self,
        part: &Part,
    ) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;

    /// The records at these positions, in order, as the index sees them.
    fn listed_at(
        &mut self,
        seqs: &[u64],
    ) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;

    /// The records at these positions, in any order.
    fn entries(
        &mut self,
        seqs: &[u64],
    ) -> impl Future<Output = Result<Vec<Stored>, StoreError>> + Send;

    /// The first position from `first` up to `end` whose instant is not before `instant`; `end` if there
    /// is none. Instants must not decrease there.
    fn first_since(
        &mut self,
        instant: Timestamp,
        first: u64,
        end: u64,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Where the log's time went back, in order.
    fn corrections(&mut self) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send;

    /// The record with the identifier `id`, its outcome, and what became known later, in order.
    fn about(&mut self, id: Uuid) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send;

    /// Those of these terms that occur in a block.
    fn indexed(
        &mut self,
        terms: &[String],
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
}
