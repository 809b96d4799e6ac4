//! What is appended in one transaction, and who decides it. No SQL.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::StoreError;
use crate::{
    domain::{
        CountKey, CounterKey, Counts, Digest, Exported, Quota, Revision, Seq, SnapshotDigests,
        Used, Volume,
    },
    ledger::{Edge, Kind, Tile},
};

/// Turns what waits into rows, while the head is locked.
pub trait Seal: Send {
    /// What must be known, apart from the head, before [`Seal::seal`] can decide.
    fn lookups(&self) -> Lookups;

    /// The rows that follow `head`, whose entries make the tree that ends in `edge`. May be called
    /// again when the batch was not committed. A batch without rows changes nothing.
    ///
    /// # Errors
    /// When nothing may be written to this store at all.
    fn seal(&mut self, head: &Head, edge: &Edge, found: &Found) -> Result<Sealed, StoreError>;
}

/// Questions about what is in the store already.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// Whether entry 0 is wanted.
    pub genesis: bool,
    /// The leaf hash of this entry.
    pub leaf: Option<Seq>,
    /// Idempotency claims: scope and key.
    pub claims: Vec<(String, String)>,
    /// Decisions for which an outcome is about to be written.
    pub decisions: Vec<Seq>,
    /// Whose exports are counted.
    pub counts: BTreeSet<CountKey>,
    /// Counters of what was used.
    pub counters: BTreeSet<CounterKey>,
    /// Whether the calls under way are counted too, of those apps and tenants that are limited.
    pub under_way: bool,
}

/// Their answers.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Entry 0, if it was asked for and exists.
    pub genesis: Option<Bytes>,
    /// The leaf hash that was asked for, if there is such an entry.
    pub leaf: Option<Digest>,
    /// The claims that are taken, by scope and key, and by which record.
    pub claims: HashMap<(String, String), Seq>,
    /// The decisions that have an outcome.
    pub reported: HashSet<Seq>,
    /// What left, under each key that was asked for.
    pub counts: Counts,
    /// What was used, as far as it was asked for.
    pub used: Used,
    /// The signed checkpoint of the tree at the head, where the head was looked at.
    pub checkpoint: Option<String>,
    /// What the store's clock says.
    pub clock: StoreClock,
}

/// The clock by which an entry's time is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreClock {
    /// It is asked when the batch is written, which fails where [`Sealed::clock`] is exceeded.
    #[default]
    Unasked,
    /// It is this machine's own.
    Own,
    /// What it said while the head was locked.
    At(Timestamp),
}

/// What the next entry follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The next position. 0: the log is empty.
    pub next: Seq,
    /// The leaf hash of the entry before it; zeros for an empty log.
    pub leaf: Digest,
    /// When that entry was written.
    pub ts: Timestamp,
    /// The active snapshot's number; 0 when there is none.
    pub revision: Revision,
}

/// A batch that is ready to be written.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The rows, in order, the first of them at the head's `next`.
    pub rows: Vec<Row>,
    /// The head after them.
    pub head: Head,
    /// The edge of the tree with them.
    pub edge: Edge,
    /// The tiles that have become full, or have grown.
    pub tiles: Vec<Tile>,
    /// The signed checkpoint of the tree with them.
    pub checkpoint: Arc<str>,
    /// The counters that have changed, as they are now.
    pub used: Used,
    /// This machine's time, and how far that and the entries' time may be from the store's clock, where
    /// it has one of its own.
    pub clock: Option<(Timestamp, SignedDuration)>,
}

impl Sealed {
    /// The same in microseconds; without a bound, more than any two times are apart.
    pub(super) fn clock_columns(&self) -> (i64, i64) {
        let (here, bound) = self.clock.unzip();
        let bound = bound.and_then(|bound| i64::try_from(bound.as_micros()).ok());
        (here.unwrap_or(self.head.ts).as_microsecond(), bound.unwrap_or(i64::MAX))
    }

    /// What leaves with the entries, equal exports together: how many people, by [`Exported`]'s
    /// tenant, origin, day and export, the last as JSON.
    pub(super) fn exports(&self) -> Vec<(&str, &str, i32, String, i64)> {
        let mut sums: BTreeMap<(&str, &str, i32, String), i64> = BTreeMap::new();
        let volumes = self.rows.iter().filter_map(|row| row.volume.as_deref());
        for Exported { tenant, origin, day, export, subjects } in volumes.flat_map(|v| &v.adds) {
            let export = serde_json::to_string(export).unwrap_or_default();
            let sum = sums.entry((tenant.as_str(), origin.as_str(), *day, export)).or_default();
            *sum = sum.saturating_add(*subjects);
        }
        let rows = sums.into_iter();
        rows.map(|((tenant, origin, day, export), n)| (tenant, origin, day, export, n)).collect()
    }
}

impl Row {
    /// Of a decision that is dispatched: the process that does it, and whose call it is where that is
    /// counted.
    pub(super) fn opens(&self) -> Option<(Uuid, Option<&str>, Option<&str>)> {
        let whose = self.quota.as_ref().and_then(|quota| quota.under_way.as_ref());
        let (app, tenant) = whose.map(|(app, tenant)| (app.as_str(), tenant.as_str())).unzip();
        self.dispatched_by.map(|process| (process, app, tenant))
    }
}

/// One entry and what is kept beside it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its position.
    pub seq: Seq,
    /// Its identifier.
    pub id: Uuid,
    /// When it is written.
    pub ts: Timestamp,
    /// Its kind.
    pub kind: Kind,
    /// Of an outcome: its decision, which is no longer open then. Of a late one: the outcome before it.
    pub about: Option<Seq>,
    /// Its leaf hash.
    pub leaf: Digest,
    /// Its bytes.
    pub entry: Bytes,
    /// The words by which it is found.
    pub terms: Arc<[String]>,
    /// Of a decision that is dispatched: the process that does it.
    pub dispatched_by: Option<Uuid>,
    /// The idempotency key that it answers.
    pub claim: Option<Arc<Claim>>,
    /// The snapshot that becomes active with it.
    pub activation: Option<Arc<Activation>>,
    /// The value that it commits to.
    pub personal: Option<Arc<SealedValue>>,
    /// Whose data leaves with it.
    pub volume: Option<Arc<Volume>>,
    /// The limits to which it was held.
    pub quota: Option<Arc<Quota>>,
}

/// A value that identifies a person or says what a call said, and that only the holder of the master key can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedValue {
    /// The key, mostly a person's own.
    pub key: Uuid,
    /// The value and its salt, under that key.
    pub sealed: Vec<u8>,
}

/// An idempotency key, used by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose keys these are.
    pub scope: String,
    /// The key.
    pub key: String,
    /// The digest of the request that used it.
    pub request: Digest,
}

/// A snapshot that is to become active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The active revision that it replaces; its own is one more.
    pub expected: Revision,
    /// Digest of the bundle.
    pub bundle: Digest,
    /// Digest of the world facts.
    pub facts: Digest,
    /// Digest of the organisation's facts.
    pub organisation: Digest,
    /// Digest of the registers.
    pub registers: Digest,
    /// The content behind the digests, each with what it is. What the store has already is left
    /// as it is.
    pub contents: Vec<(Digest, &'static str, Vec<u8>)>,
}

impl Activation {
    /// The revision that the snapshot gets.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        Revision(self.expected.0.saturating_add(1))
    }

    /// The snapshot as it stands in records once it is active.
    #[must_use]
    pub const fn snapshot(&self) -> SnapshotDigests {
        SnapshotDigests {
            bundle: self.bundle,
            facts: self.facts,
            organisation: self.organisation,
            registers: self.registers,
            revision: self.revision(),
        }
    }
}
