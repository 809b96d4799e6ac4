//! How each deployment is: what its results, its own word and its queue say of it. Not where a call
//! may go (`gate`), and not how it is asked ([`super::probe`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::identity::{Question, Server};
use crate::{
    domain::{DeploymentId, Tier},
    facts::BackendAddress,
    ledger::SkipReason,
};

/// How many probes must fail in a row before a deployment is not well.
const FAILED_PROBES: u32 = 2;
/// The longest time for which a backend's `Retry-After` is believed.
const LONGEST_BUSY: Duration = Duration::from_secs(300);
/// How often a backend is asked how it is, unless its address says otherwise: one of the organisation's
/// own, one whose queue matters, and a provider's.
const PROBE: Duration = Duration::from_secs(10);
const PROBE_QUEUE: Duration = Duration::from_secs(1);
const PROBE_REMOTE: Duration = Duration::from_secs(60);
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
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// In a row, but for answers that have only begun.
    failures: u32,
    breaker: Option<Open>,
    /// How long the breaker was open last; none since an answer came to its end.
    cool_down: Option<Duration>,
    failed_probes: u32,
    /// Whether the last probe heard from it that it is not well, which its answers do not outweigh.
    says_unwell: bool,
    busy_until: Option<Instant>,
    out_of_service: Option<OutOfService>,
    waiting: Option<u64>,
    /// The average, in seconds.
    first_byte: Option<f64>,
}

/// A breaker that is open.
#[derive(Debug)]
struct Open {
    until: Instant,
    trial: bool,
}

/// Why a deployment is not what the catalogue says.
#[derive(Debug)]
struct OutOfService {
    reason: String,
    /// What showed it; none when an answer did, which nothing that it says of itself can take back.
    said: Option<Contradiction>,
}

impl Standing {
    fn new(deployment: DeploymentId, address: BackendAddress) -> Self {
        let (in_flight, asking) = (AtomicU64::new(0), Semaphore::new(1));
        Self { deployment, address, in_flight, asking, known: Mutex::default() }
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

    /// Why it should not be tried now; `None` when it may be.
    #[must_use]
    pub fn unfit(&self, now: Instant) -> Option<SkipReason> {
        let known = lock(&self.known);
        let open = known.breaker.as_ref().is_some_and(|open| open.trial || now < open.until);
        if known.out_of_service.is_some() {
            Some(SkipReason::OutOfService)
        } else if open {
            Some(SkipReason::BreakerOpen)
        } else if known.failed_probes >= FAILED_PROBES {
            Some(SkipReason::Unhealthy)
        } else if known.busy_until.is_some_and(|until| now < until) {
            Some(SkipReason::Busy)
        } else {
            None
        }
    }

    /// Whether more waits in its queue than it is to have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let waiting = lock(&self.known).waiting;
        self.address.max_waiting.zip(waiting).is_some_and(|(most, waiting)| waiting > most)
    }

    /// Takes a place for one attempt, the only one where an open breaker lets one through.
    ///
    /// # Errors
    /// Why it should not be tried now.
    pub fn begin(self: &Arc<Self>, now: Instant) -> Result<Trial, SkipReason> {
        if let Some(reason) = self.unfit(now) {
            return Err(reason);
        }
        let mut known = lock(&self.known);
        let is_trial = match &mut known.breaker {
            // Somebody else was quicker.
            Some(open) if open.trial => return Err(SkipReason::BreakerOpen),
            Some(open) => {
                open.trial = true;
                true
            }
            None => false,
        };
        drop(known);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Trial { standing: self.clone(), is_trial })
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

    /// When it may be tried again, where that is known.
    #[must_use]
    pub fn opens_at(&self) -> Option<Instant> {
        let known = lock(&self.known);
        let breaker = known.breaker.as_ref().map(|open| open.until);
        breaker.into_iter().chain(known.busy_until).max()
    }

    /// It served a model that nobody approved: it is left alone until its address or its process
    /// changes, because a trial would send it another call.
    pub fn take_out(&self, reason: String) {
        self.out(OutOfService { reason, said: None });
    }

    fn out(&self, found: OutOfService) {
        let mut known = lock(&self.known);
        let news = known.out_of_service.as_ref().is_none_or(|old| old.reason != found.reason);
        if known.out_of_service.as_ref().is_some_and(|old| old.said.is_none()) {
            return;
        }
        if news {
            tracing::error!(deployment = %self.deployment, reason = %found.reason, "taken out of service");
        }
        known.out_of_service = Some(found);
    }

    /// Notes what it says of itself. That it says nothing takes nothing back.
    pub fn probed(&self, probed: &Probed) {
        let taken_back =
            |out: &mut OutOfService| out.said.as_ref().is_some_and(|said| probed.takes_back(said));
        match &probed.contradiction {
            Some(said) => {
                self.out(OutOfService { reason: said.reason.clone(), said: Some(said.clone()) });
            }
            None if lock(&self.known).out_of_service.take_if(taken_back).is_some() => {
                tracing::info!(deployment = %self.deployment, "back in service");
            }
            None => {}
        }
        let mut known = lock(&self.known);
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
                tracing::warn!(deployment = %self.deployment, "not well: it is left alone until a probe succeeds");
            }
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
    is_trial: bool,
}

impl Trial {
    /// Its answer began, after `first_byte`: calls may come again. What failed before is forgotten only
    /// when an answer comes to its end.
    pub fn began(&self, first_byte: Duration) {
        let mut known = lock(&self.standing.known);
        if !known.says_unwell {
            known.failed_probes = 0;
        }
        if known.breaker.take().is_some() {
            tracing::info!(deployment = %self.standing.deployment, "the breaker is closed");
        }
        let latest = first_byte.as_secs_f64();
        known.first_byte =
            Some(known.first_byte.map_or(latest, |old| old + LATEST * (latest - old)));
    }

    /// Its answer came to its end.
    pub fn succeeded(self) {
        let mut known = lock(&self.standing.known);
        known.failures = 0;
        known.cool_down = None;
    }

    /// It failed, or broke off.
    pub fn failed(self, now: Instant) {
        let settings = self.standing.address.breaker;
        let mut known = lock(&self.standing.known);
        known.failures = known.failures.saturating_add(1);
        if known.failures < settings.failures || known.breaker.is_some() && !self.is_trial {
            return;
        }
        let longest = settings.cool_down * 16;
        let cool_down = known.cool_down.map_or(settings.cool_down, |last| (last * 2).min(longest));
        tracing::warn!(deployment = %self.standing.deployment, failures = known.failures, ?cool_down, "the breaker is open");
        known.breaker = Some(Open { until: now + cool_down, trial: false });
        known.cool_down = Some(cool_down);
    }

    /// It asked to be left alone for this long.
    pub fn busy(self, now: Instant, wait: Option<Duration>) {
        if let Some(wait) = wait {
            lock(&self.standing.known).busy_until = Some(now + wait.min(LONGEST_BUSY));
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.standing.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_trial
            && let Some(open) = &mut lock(&self.standing.known).breaker
        {
            open.trial = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
