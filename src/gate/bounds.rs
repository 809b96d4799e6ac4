//! What callers may use of this process beside the limits of the organisation: answers under way, searches,
//! explanations, readings, and the store's last room.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Budget, Gate, GateError,
    call::UnderWay,
    decide::{instant, refused},
    limits::Returned,
};
use crate::{
    domain::{AppId, Caller, Held, KeyName, Limits, Measure, Period, Quota, Rate},
    sequencer::SubmitError,
    store::{RecordQuery, StoreError, Stored},
};

/// How many explanations are made at once: each takes a processor.
const EXPLANATIONS: usize = 2;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(2);
/// For how long it is counted how much is not indexed, to say so.
const COUNTING: Duration = Duration::from_millis(500);
/// How often it is looked how much room the store has.
const LOOK: Duration = Duration::from_secs(1);

/// What callers may use.
#[derive(Debug)]
pub struct Bounds {
    /// How much room the answers of backends may take.
    pub answers: u64,
    /// How many recorded requests an API key that belongs to no app may make in a minute.
    pub readings_per_minute: u32,
    /// How many bytes the store must have free for anything but what closes calls.
    pub min_free: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { answers: 256 << 20, readings_per_minute: 600, min_free: 0 }
    }
}

/// What of it is used.
#[derive(Debug)]
pub(super) struct Use {
    /// Room for the answers of backends.
    pub(super) answers: Arc<Budget>,
    pub(super) under_way: UnderWay,
    /// Requests of calls that went nowhere.
    pub(super) returned: Returned,
    readings: Limits,
    searches: Arc<Semaphore>,
    explanations: Arc<Semaphore>,
    explains: Mutex<HashMap<AppId, Arc<Semaphore>>>,
    min_free: u64,
    /// What the store had free when it was looked last; all there is where nobody knows.
    free: AtomicU64,
}

impl Use {
    pub(super) fn new(bounds: &Bounds, searches: usize) -> Self {
        let rate = Rate {
            measure: Measure::Requests,
            most: bounds.readings_per_minute.into(),
            period: Period::Minute,
        };
        Self {
            answers: Arc::new(Budget::new(bounds.answers)),
            under_way: UnderWay::default(),
            returned: Returned::default(),
            readings: Limits { concurrent: None, rates: vec![rate] },
            searches: Arc::new(Semaphore::new(searches)),
            explanations: Arc::new(Semaphore::new(EXPLANATIONS)),
            explains: Mutex::default(),
            min_free: bounds.min_free,
            free: AtomicU64::new(u64::MAX),
        }
    }
}

impl Gate {
    /// The same gate with other bounds.
    #[must_use]
    pub fn with_bounds(mut self, bounds: &Bounds) -> Self {
        self.used = Use::new(bounds, self.store.searches());
        self
    }

    /// Whether a call of `caller` need not be read at all: so many calls of this process are under way.
    ///
    /// # Errors
    /// [`GateError::Limited`], or [`GateError::StorageLow`].
    pub fn admits(&self, caller: &Caller) -> Result<(), GateError> {
        self.has_room()?;
        let judge = self.keeper.current();
        let organisation = &judge.snapshot().organisation;
        match self.used.under_way.reached(organisation, caller, instant(&*self.clock)) {
            Some(state) => Err(refused(SubmitError::Limited(Box::new(state)))),
            None => Ok(()),
        }
    }

    /// Whether the store has room for more than what closes calls.
    ///
    /// # Errors
    /// [`GateError::StorageLow`].
    pub fn has_room(&self) -> Result<(), GateError> {
        let (free, floor) = (self.used.free.load(Ordering::Relaxed), self.used.min_free);
        if free < floor { Err(GateError::StorageLow { free, floor }) } else { Ok(()) }
    }

    /// Looks how much room the store has, now.
    pub async fn look_for_room(&self) {
        match self.store.free().await {
            Ok(free) => {
                let free = free.unwrap_or(u64::MAX);
                let before = self.used.free.swap(free, Ordering::Relaxed);
                let floor = self.used.min_free;
                if free < floor && before >= floor {
                    tracing::error!(
                        free,
                        floor,
                        "the store's disk is almost full: only what closes calls is written"
                    );
                } else if free >= floor && before < floor {
                    tracing::info!(free, "the store has room again");
                }
                if free < u64::MAX {
                    // In mebibytes a gauge is exact.
                    let mib = u32::try_from(free >> 20).unwrap_or(u32::MAX);
                    metrics::gauge!("lexgate_store_free_bytes").set(f64::from(mib) * 1_048_576.0);
                }
            }
            Err(error) => tracing::warn!(%error, "how much room the store has is not known"),
        }
    }

    /// Looks every second how much room the store has, until `stop` fires.
    pub async fn watch_room(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            self.look_for_room().await;
        }
    }

    /// What a recorded request with the API key `key` is held to.
    pub(super) fn per_key(&self, key: &KeyName, now: Timestamp) -> Arc<Quota> {
        let held = Held::Key(key.clone());
        let limits: Vec<_> = self.used.readings.at(&held, now).collect();
        let adds = limits.iter().map(|limit| (limit.key(), 1.into())).collect();
        Arc::new(Quota { limits, adds, under_way: None })
    }

    /// The records that match, found with the share of the store's readers that searches have. The search
    /// is finished also when nobody waits for it any more: the database would go on all the same.
    ///
    /// # Errors
    /// [`GateError::Busy`] when others search, or the store fails.
    pub async fn search(&self, query: &RecordQuery) -> Result<Vec<Stored>, GateError> {
        let turn = turn(&self.used.searches, "other searches of the ledger are under way").await?;
        let (store, query) = (self.store.clone(), query.clone());
        let searched = self.tasks.spawn(async move {
            let found = store.query(&query).await;
            drop(turn);
            found
        });
        self.told(searched.await.unwrap_or(Err(StoreError::TimedOut))).await
    }

    /// Those of these terms that some record has; `None` where too much is not indexed yet to look.
    ///
    /// # Errors
    /// As of a search.
    pub async fn occurring(&self, terms: &[String]) -> Result<Option<Vec<String>>, GateError> {
        let turn = turn(&self.used.searches, "other searches of the ledger are under way").await?;
        let (store, terms) = (self.store.clone(), terms.to_vec());
        let searched = self.tasks.spawn(async move {
            let occurring = store.occurring(&terms).await;
            drop(turn);
            occurring
        });
        self.told(searched.await.unwrap_or(Err(StoreError::TimedOut))).await
    }

    /// An answer, or that it took too long, and whether that will pass.
    async fn told<T>(&self, answer: Result<T, StoreError>) -> Result<T, GateError> {
        match answer {
            Err(StoreError::SlowQuestion) => {
                let unindexed = timeout(COUNTING, self.store.unindexed()).await;
                let unindexed = unindexed.ok().and_then(Result::ok).unwrap_or_default();
                Err(GateError::SlowQuestion { unindexed })
            }
            answer => Ok(answer?),
        }
    }

    /// A turn for an explanation to `app`: one at a time, and two of all apps.
    pub(super) async fn turn_to_explain(
        &self,
        app: &AppId,
    ) -> Result<[OwnedSemaphorePermit; 2], GateError> {
        let own = {
            let mut explains = self.used.explains.lock().unwrap_or_else(PoisonError::into_inner);
            let one = || Arc::new(Semaphore::new(1));
            explains.entry(app.clone()).or_insert_with(one).clone()
        };
        let own = turn(&own, "another explanation for this app is under way").await?;
        let all = &self.used.explanations;
        Ok([own, turn(all, "other explanations are under way").await?])
    }
}

async fn turn(
    turns: &Arc<Semaphore>,
    busy: &'static str,
) -> Result<OwnedSemaphorePermit, GateError> {
    match timeout(TURN, turns.clone().acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(GateError::Busy(busy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_waited_for_and_not_for_ever() {
        let turns = Arc::new(Semaphore::new(1));
        let first = turn(&turns, "busy").await.unwrap();
        let refused = turn(&turns, "other searches are under way").await.unwrap_err();
        assert_eq!(refused.to_string(), "other searches are under way: ask again later");
        let (second, ()) = tokio::join!(turn(&turns, "busy"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(first);
        });
        assert!(second.is_ok());
    }
}
