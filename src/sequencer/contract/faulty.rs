//! A store that fails when it is told to; otherwise the one behind it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use crate::{
    domain::{CountKey, Counts, Digest, Seq},
    ledger::{Edge, SeqRange, StoreSettings, Tile, TileId},
    store::{
        Active, AppendError, Claimed, DestroyedKey, Destruction, Found, Head, Indexing, KeptValue,
        PersonalStore, RecordQuery, Seal, Store, StoreError, Stored, SubjectKey,
    },
};

/// What goes wrong with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is written, and that is known.
    Refuse,
    /// All is written, but the answer is lost.
    LoseAnswer,
    /// Nothing is written, and nobody knows.
    LoseCommit,
    /// The append waits until it is released, then works.
    Wait,
    /// All is written, the answer waits until it is released.
    WaitAfter,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    behind: Arc<dyn Store>,
    appends: Mutex<VecDeque<Fault>>,
    settles: Mutex<u32>,
    pub(crate) gate: Semaphore,
    waiting: Semaphore,
}

impl Faulty {
    pub(crate) fn before(behind: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            behind,
            appends: Mutex::default(),
            settles: Mutex::default(),
            gate: Semaphore::new(0),
            waiting: Semaphore::new(0),
        })
    }

    /// The next appends fail so, one after the other.
    pub(crate) fn will(&self, faults: impl IntoIterator<Item = Fault>) {
        self.appends.lock().unwrap().extend(faults);
    }

    /// The next `n` look-ups fail.
    pub(crate) fn will_not_settle(&self, n: u32) {
        *self.settles.lock().unwrap() = n;
    }

    /// Waits until an append waits.
    pub(crate) async fn reached(&self) {
        let reached = timeout(Duration::from_secs(5), self.waiting.acquire()).await;
        reached.expect("no append came").unwrap().forget();
    }

    async fn edge(&self) -> Edge {
        let mut edge = Edge::default();
        let stored = self.behind.range(Seq::new(0), usize::MAX).await.unwrap();
        edge.extend(stored.iter().map(|stored| stored.leaf));
        edge
    }

    async fn wait(&self) {
        self.waiting.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl Store for Faulty {
    async fn append(&self, batch: &mut dyn Seal) -> Result<(), AppendError> {
        let fault = self.appends.lock().unwrap().pop_front();
        match fault {
            None => self.behind.append(batch).await,
            Some(Fault::Refuse) => Err(AppendError::NotCommitted(StoreError::TimedOut)),
            Some(Fault::LoseAnswer) => {
                self.behind.append(batch).await?;
                Err(AppendError::Ambiguous(StoreError::TimedOut))
            }
            Some(Fault::LoseCommit) => {
                let head = self.behind.head().await.map_err(AppendError::NotCommitted)?.unwrap();
                let edge = self.edge().await;
                batch.seal(&head, &edge, &Found::default()).map_err(AppendError::NotCommitted)?;
                Err(AppendError::Ambiguous(StoreError::TimedOut))
            }
            Some(Fault::Wait) => {
                self.wait().await;
                self.behind.append(batch).await
            }
            Some(Fault::WaitAfter) => {
                self.behind.append(batch).await?;
                self.wait().await;
                Ok(())
            }
        }
    }

    async fn settle(&self, id: Uuid) -> Result<Option<Stored>, StoreError> {
        let fails = {
            let mut settles = self.settles.lock().unwrap();
            let fails = *settles > 0;
            *settles = settles.saturating_sub(1);
            fails
        };
        if fails { Err(StoreError::TimedOut) } else { self.behind.settle(id).await }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.behind.migrate().await
    }
    async fn is_migrated(&self) -> Result<bool, StoreError> {
        self.behind.is_migrated().await
    }
    async fn matching(
        &self,
        queries: &[RecordQuery],
        seqs: &[Seq],
    ) -> Result<Vec<BTreeSet<Seq>>, StoreError> {
        self.behind.matching(queries, seqs).await
    }
    async fn occurring(&self, terms: &[String]) -> Result<Option<Vec<String>>, StoreError> {
        self.behind.occurring(terms).await
    }
    async fn unindexed(&self) -> Result<u64, StoreError> {
        self.behind.unindexed().await
    }
    async fn index_block(&self) -> Result<Indexing, StoreError> {
        self.behind.index_block().await
    }
    async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.behind.head().await
    }
    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        self.behind.checkpoint().await
    }
    async fn witnessed(&self) -> Result<Option<String>, StoreError> {
        self.behind.witnessed().await
    }
    async fn keep_witnessed(&self, size: u64, note: &str) -> Result<(), StoreError> {
        self.behind.keep_witnessed(size, note).await
    }
    async fn tiles(&self, ids: &[TileId]) -> Result<Vec<Tile>, StoreError> {
        self.behind.tiles(ids).await
    }
    async fn range(&self, from: Seq, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.behind.range(from, limit).await
    }
    async fn remove_bodies(&self, range: SeqRange, as_of: Seq) -> Result<Option<u64>, StoreError> {
        self.behind.remove_bodies(range, as_of).await
    }
    async fn record(&self, seq: Seq) -> Result<Option<Stored>, StoreError> {
        self.behind.record(seq).await
    }
    async fn record_by_id(&self, id: Uuid) -> Result<Option<Stored>, StoreError> {
        self.behind.record_by_id(id).await
    }
    async fn outcome_of(&self, decision: Seq) -> Result<Option<Stored>, StoreError> {
        self.behind.outcome_of(decision).await
    }
    async fn query(&self, query: &RecordQuery) -> Result<Vec<Stored>, StoreError> {
        self.behind.query(query).await
    }
    async fn active(&self) -> Result<Option<Active>, StoreError> {
        self.behind.active().await
    }
    async fn content(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.behind.content(digest).await
    }
    async fn exported(&self, keys: &BTreeSet<CountKey>) -> Result<Counts, StoreError> {
        self.behind.exported(keys).await
    }
    async fn idempotent(&self, scope: &str, key: &str) -> Result<Option<Claimed>, StoreError> {
        self.behind.idempotent(scope, key).await
    }
    async fn prune(&self, before: Timestamp) -> Result<(), StoreError> {
        self.behind.prune(before).await
    }
    async fn renew_lease(&self, process: Uuid, until: Timestamp) -> Result<(), StoreError> {
        self.behind.renew_lease(process, until).await
    }
    async fn grant_missing_leases(&self, until: Timestamp) -> Result<u64, StoreError> {
        self.behind.grant_missing_leases(until).await
    }
    async fn release_lease(&self, process: Uuid) -> Result<(), StoreError> {
        self.behind.release_lease(process).await
    }
    async fn abandon(&self, decisions: &[Seq]) -> Result<(), StoreError> {
        self.behind.abandon(decisions).await
    }
    async fn expired_dispatches(
        &self,
        now: Timestamp,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        self.behind.expired_dispatches(now, after, limit).await
    }
    async fn open_dispatches(&self) -> Result<u64, StoreError> {
        self.behind.open_dispatches().await
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.behind.now().await
    }
    async fn examine(&self) -> Result<StoreSettings, StoreError> {
        self.behind.examine().await
    }
    async fn writable(&self) -> Result<(), StoreError> {
        self.behind.writable().await
    }
}

#[async_trait]
impl PersonalStore for Faulty {
    async fn master_key(&self, proof: Option<Digest>) -> Result<Option<Digest>, StoreError> {
        self.behind.master_key(proof).await
    }
    async fn subject_key(&self, subject: Digest) -> Result<Option<SubjectKey>, StoreError> {
        self.behind.subject_key(subject).await
    }
    async fn keep_subject_key(&self, subject: Digest, key: &SubjectKey) -> Result<(), StoreError> {
        self.behind.keep_subject_key(subject, key).await
    }
    async fn kept_value(&self, seq: Seq) -> Result<Option<KeptValue>, StoreError> {
        self.behind.kept_value(seq).await
    }
    async fn keys_of(&self, subjects: &[Digest]) -> Result<Vec<Uuid>, StoreError> {
        self.behind.keys_of(subjects).await
    }
    async fn destroy_keys(&self, destruction: &Destruction) -> Result<bool, StoreError> {
        self.behind.destroy_keys(destruction).await
    }
    async fn destroyed_keys(
        &self,
        subjects: Option<&[Digest]>,
        before: Timestamp,
    ) -> Result<Vec<DestroyedKey>, StoreError> {
        self.behind.destroyed_keys(subjects, before).await
    }
    async fn values_under(
        &self,
        key: Uuid,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError> {
        self.behind.values_under(key, after, limit).await
    }
    async fn forget_values(
        &self,
        key: Uuid,
        values: &[Seq],
        erasure: Seq,
    ) -> Result<(), StoreError> {
        self.behind.forget_values(key, values, erasure).await
    }
    async fn forget_key(&self, key: Uuid) -> Result<(), StoreError> {
        self.behind.forget_key(key).await
    }
}
