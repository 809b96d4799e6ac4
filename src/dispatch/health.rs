//! How each deployment is: what its results, its own word and its queue say of it. Not where a call
//! may go (`gate`), and not how it is asked ([`super::probe`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    breaker::Breaker,
    identity::{Question, Server},
};
use crate::{
    domain::{AppId, DeploymentId, Tier},
    facts::BackendAddress,
    ledger::SkipReason,
};

/// How many probes must fail in a row before a deployment is not well.
const FAILED_PROBES: u32 = 2;
/// How often a backend is asked how it is, unless its address says otherwise: one of the organisation's
/// own, one whose queue matters, and a provider's.
const PROBE: Duration = Duration::from_secs(10);
const PROBE_QUEUE: Duration = Duration::from_secs(1);
const PROBE_REMOTE: Duration = Duration::from_secs(60);
/// How long it is remembered that it refuses to be asked for usage in a stream.
const NO_USAGE: Duration = Duration::from_secs(3600);
/// How much the latest answer counts in the average time to a first byte.
const LATEST: f64 = 0.3;

/// What is known of all deployments of the active snapshot.
#[derive(Debug, Default)]
pub struct Fleet(Mutex<HashMap<DeploymentId, Arc<Standing>>>);

impl Fleet {
    /// What is known of `deployment`, which is reached at `address`. Another address is another
    /// deployment: nothing is known of it yet.
    #[must_use]
    pub fn standing(&self, deployment: &DeploymentId, address: &BackendAddress) -> Arc<Standing> {
        let mut known = lock(&self.0);
        match known.get(deployment) {
            Some(standing) if standing.address == *address => standing.clone(),
            _ => {
                let standing = Arc::new(Standing::new(deployment.clone(), address.clone()));
                known.insert(deployment.clone(), standing.clone());
                standing
            }
        }
    }

    /// Forgets every deployment that is not among `kept`.
    pub fn retain(&self, kept: impl Fn(&DeploymentId) -> bool) {
        lock(&self.0).retain(|deployment, _| kept(deployment));
    }
}

/// What is known of one deployment.
#[derive(Debug)]
pub struct Standing {
    deployment: DeploymentId,
    address: BackendAddress,
    in_flight: AtomicU64,
    asking: Semaphore,
    /// Whether it is to be asked before its turn comes.
    is_doubted: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    failed_probes: u32,
    /// Whether the last probe heard from it that it is not well, which its answers do not outweigh.
    says_unwell: bool,
    out_of_service: Option<Contradiction>,
    waiting: Option<u64>,
    /// The average, in seconds.
    first_byte: Option<f64>,
    /// When it answered a stream for which it was not asked for usage, and had refused the same with it.
    refused_usage: Option<Instant>,
}

impl Standing {
    fn new(deployment: DeploymentId, address: BackendAddress) -> Self {
        let (in_flight, asking) = (AtomicU64::new(0), Semaphore::new(1));
        let is_doubted = AtomicBool::new(false);
        Self { deployment, address, in_flight, asking, is_doubted, known: Mutex::default() }
    }

    /// The deployment.
    #[must_use]
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// How often it is asked how it is: more often where its queue matters, less often where it is
    /// somebody else's.
    #[must_use]
    pub fn probe_interval(&self, tier: Tier) -> Duration {
        self.address.probe_interval.unwrap_or(match (tier, self.address.max_waiting) {
            (_, Some(_)) => PROBE_QUEUE,
            (Tier::Remote, None) => PROBE_REMOTE,
            (_, None) => PROBE,
        })
    }

    /// Takes the right to ask it, which one has at a time.
    #[must_use]
    pub fn asking(&self) -> Option<SemaphorePermit<'_>> {
        self.asking.try_acquire().ok()
    }

    /// How it is reached.
    #[must_use]
    pub fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// Whether calls have shown something that only its own word can settle. It is asked once.
    #[must_use]
    pub fn take_doubt(&self) -> bool {
        self.is_doubted.swap(false, Ordering::Relaxed)
    }

    /// Why a call of `app` should not be tried now; `None` when it may be.
    #[must_use]
    pub fn unfit(&self, app: &AppId, now: Instant) -> Option<SkipReason> {
        let known = lock(&self.known);
        known.unfit_for_all().or_else(|| known.breaker.refusal(app, now))
    }

    /// Whether calls may be sent there, apart from those of callers whose own calls failed.
    #[must_use]
    pub fn is_fit(&self, now: Instant) -> bool {
        let known = lock(&self.known);
        known.unfit_for_all().is_none() && !known.breaker.is_failing(now)
    }

    /// How many callers' own calls keep them away.
    #[must_use]
    pub fn kept_away(&self, now: Instant) -> usize {
        lock(&self.known).breaker.kept_away(now).len()
    }

    /// Whether what keeps `app` away is the backend's word that it gets too many requests.
    #[must_use]
    pub fn is_limited(&self, app: &AppId, now: Instant) -> bool {
        let known = lock(&self.known);
        known.unfit_for_all().is_none() && known.breaker.is_limited(app, now)
    }

    /// Whether more waits in its queue than it is to have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let waiting = lock(&self.known).waiting;
        self.address.max_waiting.zip(waiting).is_some_and(|(most, waiting)| waiting > most)
    }

    /// Takes a place for one attempt of `app`, the only one where an open breaker lets one through.
    ///
    /// # Errors
    /// Why it should not be tried now.
    pub fn begin(self: &Arc<Self>, app: &AppId, now: Instant) -> Result<Trial, SkipReason> {
        let mut known = lock(&self.known);
        if let Some(reason) = known.unfit_for_all() {
            return Err(reason);
        }
        let is_trial = known.breaker.begin(app, now)?;
        drop(known);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Trial { standing: self.clone(), app: app.clone(), is_test: is_trial })
    }

    /// Whether it is asked for usage in a stream whose caller did not ask.
    #[must_use]
    pub fn asks_for_usage(&self, now: Instant) -> bool {
        let refused = lock(&self.known).refused_usage;
        self.address.usage_in_streams && refused.is_none_or(|at| now.duration_since(at) >= NO_USAGE)
    }

    /// Notes that it answers a stream only where it is not asked for usage.
    pub fn refuses_usage(&self, now: Instant) {
        if lock(&self.known).refused_usage.replace(now).is_none() {
            tracing::warn!(
                deployment = %self.deployment,
                "the backend refuses `stream_options`: streams are sent without it for an hour; set `usage_in_streams = false` in its `[deployments.backend]` to make that permanent"
            );
        }
    }

    /// How many calls are under way there and wait in its queue.
    #[must_use]
    pub fn load(&self) -> u64 {
        let waiting = lock(&self.known).waiting.unwrap_or(0);
        self.in_flight.load(Ordering::Relaxed).saturating_add(waiting)
    }

    /// How long it took on average until an answer began; `None` while it is unknown.
    #[must_use]
    pub fn first_byte(&self) -> Option<Duration> {
        lock(&self.known).first_byte.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// When a call of `app` may be tried again, where that is known.
    #[must_use]
    pub fn opens_at(&self, app: &AppId) -> Option<Instant> {
        lock(&self.known).breaker.opens_at(app)
    }

    /// Notes what it says of itself. That it says nothing takes nothing back.
    pub fn probed(&self, probed: &Probed) {
        let mut known = lock(&self.known);
        match &probed.contradiction {
            Some(said) => {
                let before = known.out_of_service.replace(said.clone());
                if before.is_none_or(|before| before.reason != said.reason) {
                    tracing::error!(deployment = %self.deployment, reason = %said.reason, "taken out of service");
                }
            }
            None if known.out_of_service.take_if(|said| probed.takes_back(said)).is_some() => {
                tracing::info!(deployment = %self.deployment, "back in service");
            }
            None => {}
        }
        known.waiting = probed.waiting;
        known.says_unwell = probed.says_unwell;
        if probed.is_well {
            if known.failed_probes >= FAILED_PROBES {
                tracing::info!(deployment = %self.deployment, "well again");
            }
            known.failed_probes = 0;
        } else {
            known.failed_probes = known.failed_probes.saturating_add(1);
            if known.failed_probes == FAILED_PROBES {
                let why = probed.complaint.as_deref();
                tracing::warn!(
                    deployment = %self.deployment, host = self.address.base_url.host(), why,
                    "not well: it gets no calls until a probe succeeds"
                );
            }
        }
    }
}

impl Known {
    /// Why nobody's call should be tried: what the backend said of itself when it was asked.
    fn unfit_for_all(&self) -> Option<SkipReason> {
        if self.out_of_service.is_some() {
            Some(SkipReason::OutOfService)
        } else if self.failed_probes >= FAILED_PROBES {
            Some(SkipReason::Unhealthy)
        } else {
            None
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Whether it answers and says that it is well.
    pub is_well: bool,
    /// Whether it says that it is not.
    pub says_unwell: bool,
    /// Why it is not well.
    pub complaint: Option<String>,
    /// How many requests wait in its queue, where it says so.
    pub waiting: Option<u64>,
    /// In what it is not what the catalogue says.
    pub contradiction: Option<Contradiction>,
    /// The software that it is, as far as it tells.
    pub server: Option<Server>,
    /// What it was asked, and answered.
    pub answered: BTreeSet<Question>,
}

impl Probed {
    /// Whether what it said before holds no more: it was asked the same and says otherwise, or it has
    /// become another software.
    fn takes_back(&self, said: &Contradiction) -> bool {
        let is_another =
            self.server.is_some() && said.server.is_some() && self.server != said.server;
        self.answered.contains(&said.question) || is_another
    }
}

/// In what a backend is not what the catalogue says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// What it was asked.
    pub question: Question,
    /// The software that it was then.
    pub server: Option<Server>,
    /// In words.
    pub reason: String,
}

/// One attempt under way. Dropped without a word, it says nothing of the deployment.
#[derive(Debug)]
pub struct Trial {
    standing: Arc<Standing>,
    app: AppId,
    is_test: bool,
}

impl Trial {
    /// Its answer began, after `first_byte`: its caller's calls may come again. What failed before is
    /// forgotten only when an answer comes to its end.
    pub fn began(&self, now: Instant, first_byte: Duration) {
        let mut known = lock(&self.standing.known);
        if !known.says_unwell {
            known.failed_probes = 0;
        }
        if known.breaker.began(&self.app, now) {
            tracing::info!(deployment = %self.standing.deployment, app = %self.app, "the breaker is closed");
        }
        let latest = first_byte.as_secs_f64();
        known.first_byte =
            Some(known.first_byte.map_or(latest, |old| old + LATEST * (latest - old)));
    }

    /// Its answer came to its end.
    pub fn succeeded(self, now: Instant) {
        lock(&self.standing.known).breaker.succeeded(&self.app, now);
    }

    /// It failed, or broke off.
    pub fn failed(self, now: Instant) {
        let settings = self.standing.address.breaker;
        let mut known = lock(&self.standing.known);
        let was_failing = known.breaker.is_failing(now);
        let cool_down = known.breaker.failed(&self.app, now, settings, self.is_test);
        if let Some(cool_down) = cool_down {
            tracing::warn!(deployment = %self.standing.deployment, app = %self.app, ?cool_down, "the breaker is open");
        }
        if !was_failing && known.breaker.is_failing(now) {
            tracing::warn!(deployment = %self.standing.deployment, "the calls of several apps fail: it is asked how it is");
            self.standing.is_doubted.store(true, Ordering::Relaxed);
        }
    }

    /// Its answer named another model: a failure for its caller. Several callers' word is reason enough to
    /// ask the backend, and none to believe them.
    pub fn saw_another_model(self, now: Instant) {
        let is_doubted = lock(&self.standing.known).breaker.saw_another(&self.app, now);
        if is_doubted {
            self.standing.is_doubted.store(true, Ordering::Relaxed);
        }
        self.failed(now);
    }

    /// It asked to be left alone for this long: because it gets too many requests, or because it is down.
    pub fn busy(self, now: Instant, wait: Option<Duration>, is_limit: bool) {
        if let Some(wait) = wait {
            lock(&self.standing.known).breaker.busy(&self.app, now, wait, is_limit);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.standing.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_test {
            lock(&self.standing.known).breaker.let_go(&self.app);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
