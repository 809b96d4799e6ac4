//! The breaker of one deployment: what the attempts of each caller came to there. What one caller's calls
//! do closes the deployment for that caller alone, because they may fail by the caller's fault. Where they
//! fail for several and succeed for nobody, one failure is enough for each that comes anew.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{domain::AppId, facts::BreakerSettings, ledger::SkipReason};

/// How long it is remembered what became of a caller's calls.
const MEMORY: Duration = Duration::from_secs(600);
/// From how many callers on it is looked whose memory is over.
const MANY: usize = 256;
/// The longest time for which a backend's `Retry-After` is believed.
const LONGEST_BUSY: Duration = Duration::from_secs(300);
/// How many callers must fail before it is the deployment that fails.
const SEVERAL: usize = 2;
/// How many callers must see another model before the backend is asked what it serves.
const WITNESSES: usize = 3;

/// What the calls of all callers came to.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    callers: HashMap<AppId, Calls>,
    /// When an answer came to its end last, whoever's it was.
    succeeded: Option<Instant>,
}

/// What the calls of one caller came to.
#[derive(Debug, Default)]
struct Calls {
    /// In a row, but for answers that have only begun.
    failures: u32,
    open: Option<Open>,
    /// How long it was open last; none since an answer came to its end.
    cool_down: Option<Duration>,
    busy: Option<Busy>,
    /// When an answer named another model.
    saw_another: Option<Instant>,
    last: Option<Instant>,
}

/// A breaker that is open.
#[derive(Debug)]
struct Open {
    /// When its caller's calls began to fail.
    since: Instant,
    until: Instant,
    trial: bool,
}

/// A backend that asked to be left alone.
#[derive(Clone, Copy, Debug)]
struct Busy {
    until: Instant,
    /// Whether it said that it gets too many requests, and not that it is down.
    is_limit: bool,
}

impl Breaker {
    /// Why a call of `app` should not be tried now; `None` when it may be.
    pub(super) fn refusal(&self, app: &AppId, now: Instant) -> Option<SkipReason> {
        let calls = self.callers.get(app)?;
        if calls.open.as_ref().is_some_and(|open| open.trial || now < open.until) {
            Some(SkipReason::BreakerOpen)
        } else if calls.busy.is_some_and(|busy| now < busy.until) {
            Some(SkipReason::Busy)
        } else {
            None
        }
    }

    /// Whether what keeps `app` away is the backend's word that it gets too many requests.
    pub(super) fn is_limited(&self, app: &AppId, now: Instant) -> bool {
        let busy = self.callers.get(app).and_then(|calls| calls.busy);
        busy.is_some_and(|busy| busy.is_limit && now < busy.until)
    }

    /// When a call of `app` may be tried again, where that is known.
    pub(super) fn opens_at(&self, app: &AppId) -> Option<Instant> {
        let calls = self.callers.get(app)?;
        let open = calls.open.as_ref().map(|open| open.until);
        open.into_iter().chain(calls.busy.map(|busy| busy.until)).max()
    }

    /// Whether several callers' calls fail, and nobody's have succeeded since the first of them failed.
    pub(super) fn is_failing(&self, now: Instant) -> bool {
        let fails = |calls: &&Calls| {
            let open = calls.open.as_ref().filter(|_| calls.failures > 0);
            open.is_some_and(|open| {
                now.duration_since(open.until.min(now)) < MEMORY
                    && self.succeeded.is_none_or(|at| at < open.since)
            })
        };
        self.callers.values().filter(fails).count() >= SEVERAL
    }

    /// Lets a call of `app` begin. Whether it is the only one that an open breaker lets through.
    pub(super) fn begin(&mut self, app: &AppId, now: Instant) -> Result<bool, SkipReason> {
        if let Some(reason) = self.refusal(app, now) {
            return Err(reason);
        }
        let is_failing = self.is_failing(now);
        let calls = self.calls(app, now);
        match &mut calls.open {
            Some(open) => open.trial = true,
            None if is_failing => calls.open = Some(Open { since: now, until: now, trial: true }),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// An answer to a call of `app` began: its calls may come again. Whether its breaker was open.
    pub(super) fn began(&mut self, app: &AppId, now: Instant) -> bool {
        self.calls(app, now).open.take().is_some()
    }

    /// An answer to a call of `app` came to its end.
    pub(super) fn succeeded(&mut self, app: &AppId, now: Instant) {
        self.succeeded = Some(now);
        let calls = self.calls(app, now);
        calls.failures = 0;
        calls.cool_down = None;
        calls.saw_another = None;
    }

    /// A call of `app` failed. For how long its breaker is open now, where that opened it.
    pub(super) fn failed(
        &mut self,
        app: &AppId,
        now: Instant,
        settings: BreakerSettings,
        is_trial: bool,
    ) -> Option<Duration> {
        let calls = self.calls(app, now);
        calls.failures = calls.failures.saturating_add(1);
        let is_open = calls.open.is_some();
        if !is_trial && (is_open || calls.failures < settings.failures) {
            return None;
        }
        let longest = settings.cool_down * 16;
        let cool_down = calls.cool_down.map_or(settings.cool_down, |last| (last * 2).min(longest));
        let since = calls.open.as_ref().map_or(now, |open| open.since);
        calls.open = Some(Open { since, until: now + cool_down, trial: false });
        calls.cool_down = Some(cool_down);
        Some(cool_down)
    }

    /// The backend asked `app` to leave it alone for this long.
    pub(super) fn busy(&mut self, app: &AppId, now: Instant, wait: Duration, is_limit: bool) {
        let until = now + wait.min(LONGEST_BUSY);
        self.calls(app, now).busy = Some(Busy { until, is_limit });
    }

    /// An answer to `app` named another model. Whether so many callers have seen that by now that the
    /// backend is to be asked.
    pub(super) fn saw_another(&mut self, app: &AppId, now: Instant) -> bool {
        self.calls(app, now).saw_another = Some(now);
        let recent =
            |calls: &&Calls| calls.saw_another.is_some_and(|at| now.duration_since(at) < MEMORY);
        let is_enough = self.callers.values().filter(recent).count() >= WITNESSES;
        if is_enough {
            // It is asked once for what they saw, however often they say so.
            self.callers.values_mut().for_each(|calls| calls.saw_another = None);
        }
        is_enough
    }

    /// A trial of `app` ended without a word.
    pub(super) fn let_go(&mut self, app: &AppId) {
        if let Some(open) = self.callers.get_mut(app).and_then(|calls| calls.open.as_mut()) {
            open.trial = false;
        }
    }

    fn calls(&mut self, app: &AppId, now: Instant) -> &mut Calls {
        if self.callers.len() >= MANY && !self.callers.contains_key(app) {
            let is_young = |at: Instant| now.duration_since(at) < MEMORY;
            self.callers.retain(|_, calls| {
                calls.open.as_ref().is_some_and(|open| open.trial)
                    || calls.last.is_some_and(is_young)
            });
        }
        let calls = self.callers.entry(app.clone()).or_default();
        calls.last = Some(now);
        calls
    }

    /// The callers that are kept away now.
    pub(super) fn kept_away(&self, now: Instant) -> BTreeSet<&AppId> {
        self.callers.keys().filter(|app| self.refusal(app, now).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, cool_down: Duration::from_secs(5) };

    fn fail(breaker: &mut Breaker, app: &AppId, times: u32, now: Instant) {
        for _ in 0..times {
            breaker.failed(app, now, SETTINGS, false);
        }
    }

    #[test]
    fn what_one_caller_breaks_is_broken_for_that_caller() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let (bad, good): (AppId, AppId) = ("bad".into(), "good".into());
        fail(&mut breaker, &bad, 300, start);
        assert_eq!(breaker.refusal(&bad, start), Some(SkipReason::BreakerOpen));
        for _ in 0..9 {
            assert_eq!(breaker.begin(&good, start), Ok(false), "as many at once as ever");
        }
        breaker.busy(&bad, start, Duration::from_secs(9_999), true);
        assert_eq!(breaker.refusal(&good, start), None);
        let later = start + LONGEST_BUSY;
        assert!(breaker.is_limited(&bad, start + (LONGEST_BUSY / 2)));
        assert!(!breaker.is_limited(&bad, later));
        // One call tries, and a failed trial keeps the same caller away for longer.
        assert_eq!(breaker.begin(&bad, later), Ok(true));
        assert_eq!(breaker.begin(&bad, later), Err(SkipReason::BreakerOpen));
        assert_eq!(breaker.failed(&bad, later, SETTINGS, true), Some(SETTINGS.cool_down * 2));
        assert_eq!(breaker.kept_away(later).into_iter().collect::<Vec<_>>(), [&bad]);
        assert_eq!(breaker.begin(&good, later), Ok(false));
    }

    #[test]
    fn where_all_fail_one_failure_is_enough_for_each_that_comes() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let [a, b, c, d]: [AppId; 4] = ["a", "b", "c", "d"].map(AppId::from);
        fail(&mut breaker, &a, 3, start);
        assert!(!breaker.is_failing(start), "one caller says nothing of the deployment");
        fail(&mut breaker, &b, 3, start);
        assert!(breaker.is_failing(start));
        // Each may see for itself, once.
        assert_eq!(breaker.begin(&c, start), Ok(true));
        assert_eq!(breaker.begin(&c, start), Err(SkipReason::BreakerOpen));
        assert_eq!(breaker.begin(&d, start), Ok(true), "nobody's trial stands in another's way");
        assert!(breaker.failed(&c, start, SETTINGS, true).is_some(), "one is enough");
        assert_eq!(breaker.refusal(&c, start), Some(SkipReason::BreakerOpen));
        // A trial that says nothing takes nothing.
        breaker.let_go(&d);
        assert_eq!(breaker.begin(&d, start), Ok(true));
        assert!(breaker.began(&d, start));
        let now = start + Duration::from_secs(1);
        breaker.succeeded(&d, now);
        assert!(!breaker.is_failing(now), "it answers");
        assert_eq!(breaker.begin(&"e".into(), now), Ok(false));
    }

    #[test]
    fn several_must_see_another_model_and_few_callers_are_remembered() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..9 {
            assert!(!breaker.saw_another(&"a".into(), now));
        }
        assert!(!breaker.saw_another(&"b".into(), now));
        assert!(breaker.saw_another(&"c".into(), now));
        assert!(!breaker.saw_another(&"c".into(), now), "it has been asked");
        for n in 0..2 * MANY {
            breaker.succeeded(&format!("app-{n}").as_str().into(), now);
        }
        breaker.succeeded(&"last".into(), now + MEMORY);
        assert_eq!(breaker.callers.len(), 1, "what is long past is forgotten");
    }
}
