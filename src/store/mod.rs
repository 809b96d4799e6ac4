//! Where the ledger lies: one narrow trait, two databases behind it. Keeps bytes and finds them;
//! what they say, and in which order they come, is decided by whoever seals a batch.
//!
//! Every operation ends within a bounded time, also when the database hangs.

mod address;
mod batch;
mod bound;
mod crash;
mod error;
mod index;
mod migrations;
mod personal;
mod postgres;
mod row;
mod sqlite;
mod standing;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

pub use address::AddressError;
pub use batch::{
    Activation, Claim, Found, Head, Lookups, Row, Seal, Sealed, SealedValue, StoreClock,
};
pub(crate) use crash::crash_point;
pub use error::{AppendError, ClockError, MarkError, SettingFault, StoreError};
pub use index::Indexing;
pub use personal::{DestroyedKey, Destruction, KeptValue, PersonalStore, SubjectKey};

use crate::{
    domain::{CountKey, Counts, Digest, Patience, Seq, SnapshotDigests},
    ledger::{Kind, SeqRange, StoreSettings, Tile, TileId},
};

/// An entry as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its position.
    pub seq: Seq,
    /// Its leaf hash.
    pub leaf: Digest,
    /// Its bytes; none when its body was removed, its time being over.
    pub entry: Bytes,
}

/// Which entries are wanted. All conditions must hold; the default has none, and finds nothing
/// because its limit is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordQuery {
    /// Written at this instant or later.
    pub from: Option<Timestamp>,
    /// Written before this instant.
    pub to: Option<Timestamp>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this identifier, or about the record that has it.
    pub id: Option<Uuid>,
    /// Having each of these terms.
    pub terms: Vec<String>,
    /// Having at least one of these terms, unless there are none.
    pub any_of: Vec<String>,
    /// Behind this position.
    pub after: Option<Seq>,
    /// In front of this position.
    pub before: Option<Seq>,
    /// From the highest position down, instead of from the lowest up.
    pub newest_first: bool,
    /// At most so many, those that come first.
    pub limit: usize,
    /// Found in the entries themselves, however many there are, and by no index of their words.
    pub by_entries: bool,
}

/// The snapshot that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its digests and its number.
    pub snapshot: SnapshotDigests,
    /// The record of its activation.
    pub seq: Seq,
}

/// What became of an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The digest of the request that used it.
    pub request: Digest,
    /// The record that answered.
    pub seq: Seq,
}

/// A database that holds one ledger.
#[async_trait]
pub trait Store: PersonalStore + Send + Sync + fmt::Debug {
    /// How long it is waited for.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// Makes the tables, or brings them up to date.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Whether the tables are exactly those that this version needs.
    async fn is_migrated(&self) -> Result<bool, StoreError>;

    /// One transaction: locks the head, hands it to the sealer, writes what it returns, commits.
    async fn append(&self, batch: &mut dyn Seal) -> Result<(), AppendError>;

    /// After an ambiguous append: the entry `id`, if it was written. Takes the head's lock first, so
    /// that a commit under way has ended; what it answers stays so.
    async fn settle(&self, id: Uuid) -> Result<Option<Stored>, StoreError>;

    /// What the next entry follows; `None` while the log is empty.
    async fn head(&self) -> Result<Option<Head>, StoreError>;

    /// Up to `limit` entries from `from` on.
    async fn range(&self, from: Seq, limit: usize) -> Result<Vec<Stored>, StoreError>;

    /// The signed checkpoint of all that is written; `None` while the log is empty.
    async fn checkpoint(&self) -> Result<Option<String>, StoreError>;

    /// The greatest checkpoint that witnesses have cosigned, with their signatures.
    async fn witnessed(&self) -> Result<Option<String>, StoreError>;

    /// Keeps a cosigned checkpoint of `size` entries, unless a greater one is kept.
    async fn keep_witnessed(&self, size: u64, note: &str) -> Result<(), StoreError>;

    /// Those of these tiles that have a hash, as wide as they are now.
    async fn tiles(&self, ids: &[TileId]) -> Result<Vec<Tile>, StoreError>;

    /// Removes the bodies of these entries, whose time is over, the words by which they are found and
    /// the values to which they commit. Their places and leaves stay. Under the head's lock, and only
    /// while no legal hold has been recorded at `as_of` or behind it; `None` when one was.
    async fn remove_bodies(&self, range: SeqRange, as_of: Seq) -> Result<Option<u64>, StoreError>;

    /// The entry at `seq`.
    async fn record(&self, seq: Seq) -> Result<Option<Stored>, StoreError>;

    /// The entry with the identifier `id`, unless its body was removed.
    async fn record_by_id(&self, id: Uuid) -> Result<Option<Stored>, StoreError>;

    /// The outcome of a decision.
    async fn outcome_of(&self, decision: Seq) -> Result<Option<Stored>, StoreError>;

    /// The entries that match, in the order that is asked for, without those whose bodies were removed.
    async fn query(&self, query: &RecordQuery) -> Result<Vec<Stored>, StoreError>;

    /// For each of `queries`, those of these entries, in order, that match. None is missed because an index is
    /// wrong.
    async fn matching(
        &self,
        queries: &[RecordQuery],
        seqs: &[Seq],
    ) -> Result<Vec<BTreeSet<Seq>>, StoreError>;

    /// Those of these terms that some entry has; `None` where too much of the log is not indexed yet to look.
    async fn occurring(&self, terms: &[String]) -> Result<Option<Vec<String>>, StoreError>;

    /// How many entries are not indexed: a search reads them.
    async fn unindexed(&self) -> Result<u64, StoreError>;

    /// Indexes the next block of entries, once it is full.
    async fn index_block(&self) -> Result<Indexing, StoreError>;

    /// Removes a little of an index of an older version that is not asked for any more. Whether there may
    /// be more of it.
    async fn clear_former_index(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// The snapshot that decides, once one was activated.
    async fn active(&self) -> Result<Option<Active>, StoreError>;

    /// The content with this digest, whose bytes are held against it.
    async fn content(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// What left, under each of these keys.
    async fn exported(&self, keys: &BTreeSet<CountKey>) -> Result<Counts, StoreError>;

    /// Which request used an idempotency key, and what answered it.
    async fn idempotent(&self, scope: &str, key: &str) -> Result<Option<Claimed>, StoreError>;

    /// Forgets the idempotency keys used, the leases that ran out, and the counters of what was over,
    /// before an instant.
    async fn prune(&self, before: Timestamp) -> Result<(), StoreError>;

    /// Says that `process` lives, until an instant. A process does so before its first dispatch.
    async fn renew_lease(&self, process: Uuid, until: Timestamp) -> Result<(), StoreError>;

    /// Gives each process that has a call under way, and whose lease is gone, one until an instant, and says
    /// how many there were: a row that somebody has deleted tells of nobody's death.
    async fn grant_missing_leases(&self, until: Timestamp) -> Result<u64, StoreError>;

    /// Says that `process` has ended; what it left open may be closed at once.
    async fn release_lease(&self, process: Uuid) -> Result<(), StoreError>;

    /// Gives up decisions that will not be dispatched after all: no living process owns them then.
    async fn abandon(&self, decisions: &[Seq]) -> Result<(), StoreError>;

    /// Dispatched decisions without outcome whose process has a lease that ran out by `now`, or that were given up, behind `after`, those
    /// with the lowest positions.
    async fn expired_dispatches(
        &self,
        now: Timestamp,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError>;

    /// How many dispatched decisions have no outcome.
    async fn open_dispatches(&self) -> Result<u64, StoreError>;

    /// The store's own time, by which leases run: machines that share it need not agree on theirs.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Whether the store's clock is this machine's own, so that neither can tell when the other is wrong.
    fn shares_clock(&self) -> bool {
        false
    }

    /// Writes a row and commits it: whether an entry could be written now. After an append that failed,
    /// as much as a batch has.
    async fn writable(&self) -> Result<(), StoreError>;

    /// How many bytes are free where it writes; `None` where that cannot be known, because another machine
    /// does the writing.
    async fn free(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// How many searches may read at once: half of the connections that read.
    fn searches(&self) -> usize {
        1
    }

    /// Asks again for everything on which the ledger relies and that can change while it is used, and
    /// says what it is. While it is not as it must be, nothing is read or written.
    async fn examine(&self) -> Result<StoreSettings, StoreError>;
}

/// What an operator says about the store, besides where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Whether the way to another machine may be one that others can read or change.
    pub insecure_tls: bool,
    /// Whether a commit must have reached another machine.
    pub require_synchronous_standby: bool,
    /// How long it is waited for.
    pub patience: Patience,
}

/// What a row is that no commit of a sequencer can have left.
const BEYOND_HEAD: &str = "an entry lies behind the head of the log: somebody has written to the table `entries` past this service; find out who may, and let an administrator delete the rows from `head.next` on";

/// How many rows of leases take about as much room as a batch.
const ROWS_OF_A_BATCH: i64 = 1000;

/// How many entries are held against a search in one operation.
const MATCHED_AT_ONCE: usize = 1024;

/// For how long a start, or `lexgate migrate`, indexes what is not: some million entries. What is left then
/// is indexed while the service runs.
const INDEXING: Duration = Duration::from_secs(60);

/// Indexes what is not, as far as there is time for it. What cannot be indexed can be found all the same.
async fn index_for_a_while(store: &dyn Store) {
    let began = Instant::now();
    while began.elapsed() < INDEXING {
        match store.index_block().await {
            Ok(Indexing::Indexed) => {}
            Ok(Indexing::UpToDate | Indexing::Overtaken) => return,
            Err(error) => {
                tracing::warn!(%error, "the log could not be indexed; the service tries again");
                return;
            }
        }
    }
}

/// A term as a store keeps it: neither NUL nor the separator of terms is in it.
pub(crate) fn storable(term: &str) -> Cow<'_, str> {
    const UNSTORABLE: [char; 2] = ['\0', '\u{1f}'];
    if term.contains(UNSTORABLE) {
        return term.replace(UNSTORABLE, "\u{fffd}").into();
    }
    term.into()
}

/// A content's bytes, if they are those of its digest.
fn held_against(digest: Digest, bytes: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
    match bytes {
        Some(bytes) if Digest::of(&bytes) != digest => Err(StoreError::Content(digest)),
        bytes => Ok(bytes),
    }
}

/// The beginning of the oldest while that may not be over at `instant`: a month.
fn counted_since(instant: Timestamp) -> Timestamp {
    let longest = SignedDuration::from_hours(24 * 32);
    instant.checked_sub(longest).unwrap_or(Timestamp::MIN)
}

/// Opens the store at `url`: `sqlite://path` (folder and file are made when missing) or
/// `postgres://…`. Connects when it is first used.
///
/// # Errors
/// When the address names no store, or the folder cannot be made.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    open_with(url, StoreOptions::default()).await
}

/// Opens the store at `url` as `options` say.
///
/// # Errors
/// When the address names no store or an unsafe way to one, or the folder cannot be made.
pub async fn open_with(url: &str, options: StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    address::check(url)?;
    let opened: Result<Arc<dyn Store>, StoreError> = if url.starts_with("sqlite") {
        sqlite::SqliteStore::open(url, options.patience).await.map(|store| Arc::new(store) as _)
    } else {
        postgres::PostgresStore::open(url, options).map(|store| Arc::new(store) as _)
    };
    opened.map_err(|error| match error {
        // It would repeat what it could not use.
        StoreError::Database(sqlx::Error::Configuration(_)) => AddressError::Parameter.into(),
        error => error,
    })
}
