//! Whether a clock may date an entry: held against the store's, against how long the machine has run,
//! and against the log's last entry. Not a clock itself ([`crate::domain::Clock`]).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{Clock, Seq},
    ledger::{Entry, to_micros},
    store::{ClockError, Head, RecordQuery, Store, StoreClock, StoreError, Stored},
};

/// By which part of the time that has passed a clock may be led back to the right time, in small steps,
/// without having been set: more than any quartz needs, and in a day less than two minutes.
const LEADING: u32 = 1_000;
/// Longer than the two clocks take to be read one after the other; else the process was stopped between.
const AT_ONCE: Duration = Duration::from_millis(50);
/// How often they are read before that is taken as it is.
const READINGS: u32 = 5;

/// How old the last entry may be before a start says so: whether a log rested or a clock is ahead, nothing
/// on a machine of its own can tell.
const LONG_IDLE: SignedDuration = SignedDuration::from_hours(24 * 14);
/// How many entries are looked at together for one that is there.
const LOOKED_AT: u64 = 256;

/// Holds a clock to a bound.
#[derive(Debug)]
pub(super) struct Timekeeper {
    bound: SignedDuration,
    anchor: Mutex<Option<Anchor>>,
}

/// When the clock was right, and how long the machine had run then.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    wall: Timestamp,
    running: Duration,
}

impl Timekeeper {
    pub(super) const fn new(bound: SignedDuration) -> Self {
        Self { bound, anchor: Mutex::new(None) }
    }

    /// How far times may be apart.
    pub(super) const fn bound(&self) -> SignedDuration {
        self.bound
    }

    /// The time, unless the clock was set since it was asked first. What it was led by in small steps
    /// does not count.
    pub(super) fn unset(&self, clock: &dyn Clock) -> Result<Timestamp, ClockError> {
        let (here, running) = read(clock);
        let Some(running) = running else { return Ok(here) };
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let known = anchor.get_or_insert(Anchor { wall: here, running });
        let passed = running.saturating_sub(known.running);
        let expected = known.wall.checked_add(passed).unwrap_or(Timestamp::MAX);
        let by = here.duration_since(expected);
        if by.abs() > self.bound {
            return Err(ClockError::Jumped { here, expected, bound: self.bound });
        }
        let most = SignedDuration::try_from(passed / LEADING).unwrap_or(SignedDuration::ZERO);
        let led = by.clamp(-most, most);
        *known = Anchor { wall: expected.checked_add(led).unwrap_or(expected), running };
        Ok(here)
    }

    /// Whether this machine's clock and the store's agree, where the store's was asked between `before`
    /// and `here`.
    pub(super) fn agree(
        &self,
        before: Timestamp,
        store: Timestamp,
        here: Timestamp,
    ) -> Result<(), ClockError> {
        let apart = ClockError::Apart { here, store, bound: self.bound };
        let ahead = before.duration_since(store) > self.bound;
        let behind = store.duration_since(here) > self.bound;
        if ahead || behind { Err(apart) } else { Ok(()) }
    }

    /// Whether the log's last entry is not dated after `now`, but for the bound.
    pub(super) fn is_past(&self, log: Timestamp, now: Timestamp) -> Result<(), ClockError> {
        if log.duration_since(now) > self.bound {
            return Err(ClockError::LogAhead { log, now });
        }
        Ok(())
    }

    /// The time of the next entry behind `head`. A log that is ahead is not followed, unless it `may_lead`.
    pub(super) fn date(
        &self,
        clock: &dyn Clock,
        shares_clock: bool,
        head: &Head,
        store: StoreClock,
        may_lead: bool,
    ) -> Result<Timestamp, ClockError> {
        let here = if shares_clock { self.unset(clock)? } else { clock.now() };
        let now = match store {
            StoreClock::At(store) => {
                self.agree(here, store, here)?;
                Some(store)
            }
            StoreClock::Own => Some(here),
            StoreClock::Unasked => None,
        };
        if let Some(now) = now.filter(|_| !may_lead) {
            self.is_past(head.ts, now)?;
        }
        Ok(to_micros(here))
    }

    /// Everything that can be asked of the clocks outside a commit, where the log ends with `head`.
    pub(super) async fn check(
        &self,
        clock: &dyn Clock,
        store: &dyn Store,
        head: Option<&Head>,
    ) -> Result<(), StoreError> {
        let before = if store.shares_clock() { self.unset(clock)? } else { clock.now() };
        let theirs = store.now().await?;
        self.agree(before, theirs, clock.now())?;
        Ok(head.map_or(Ok(()), |head| self.is_past(head.ts, theirs))?)
    }
}

/// Whether the clocks agree, and the log's last entry lies in the past, before anything is signed.
///
/// # Errors
/// What is wrong with them, or the store fails.
pub async fn check_clocks(
    bound: SignedDuration,
    clock: &dyn Clock,
    store: &dyn Store,
) -> Result<(), StoreError> {
    let head = store.head().await?;
    Timekeeper::new(bound).check(clock, store, head.as_ref()).await?;
    if let Some(head) = head {
        let idle = clock.now().duration_since(head.ts);
        if idle > LONG_IDLE {
            tracing::warn!(
                last_entry = %head.ts, now = %clock.now(),
                "the log's last entry is old: if this machine's clock is ahead, stop and set it before anything is recorded"
            );
        }
    }
    Ok(())
}

/// A long time in which nothing was recorded, or by which a clock was set ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When the last entry in front of it was written.
    pub since: Timestamp,
    /// When the first entry behind it was; the present where there is none.
    pub until: Timestamp,
}

/// The pause of more than two weeks out of which the log has come within the last two weeks, by a clock that
/// says `now`, or has not come yet: either it rested, or that clock is ahead.
///
/// # Errors
/// When the store fails, or an entry cannot be read.
pub async fn long_pause(store: &dyn Store, now: Timestamp) -> Result<Option<Pause>, StoreError> {
    let Ok(from) = now.checked_sub(LONG_IDLE) else { return Ok(None) };
    // What a wrong clock has dated ahead, before it was corrected, does not count.
    let to = now.checked_add(LONG_IDLE).ok();
    let recent =
        RecordQuery { from: Some(from), to, limit: 1, by_entries: true, ..RecordQuery::default() };
    let first = store.query(&recent).await?.into_iter().next();
    let next = store.head().await?.map_or(Seq::new(0), |head| head.next);
    let (end, until) = match first.filter(|first| first.seq < next) {
        Some(first) => (first.seq, written(&first)?),
        None => (next, now),
    };
    let since = last_before(store, end).await?;
    let is_long = |since: &Timestamp| until.duration_since(*since) > LONG_IDLE;
    Ok(since.filter(is_long).map(|since| Pause { since, until }))
}

/// When the last entry in front of `end` was written, of those that are there.
async fn last_before(store: &dyn Store, end: Seq) -> Result<Option<Timestamp>, StoreError> {
    let mut end = end.get();
    while end > 0 {
        let start = end.saturating_sub(LOOKED_AT);
        let width = usize::try_from(end - start).unwrap_or(usize::MAX);
        let found = store.range(Seq::new(start), width).await?;
        if let Some(last) = found.iter().rfind(|stored| !stored.entry.is_empty()) {
            return written(last).map(Some);
        }
        end = start;
    }
    Ok(None)
}

fn written(stored: &Stored) -> Result<Timestamp, StoreError> {
    let entry = Entry::parse(&stored.entry);
    entry.map(|entry| entry.ts).map_err(|_| StoreError::Corrupt("an entry cannot be read"))
}

/// The time and how long the machine has run, read at one instant as far as that can be had.
fn read(clock: &dyn Clock) -> (Timestamp, Option<Duration>) {
    let mut reading = (clock.now(), clock.running());
    for _ in 0..READINGS {
        let before = clock.running();
        reading = (clock.now(), clock.running());
        let (Some(before), Some(after)) = (before, reading.1) else { break };
        if after.saturating_sub(before) < AT_ONCE {
            break;
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fixture;

    /// A machine whose clock is set by hand, and that runs by hand.
    #[derive(Debug)]
    struct Machine(Mutex<(Timestamp, Duration)>);

    impl Machine {
        fn new() -> Self {
            Self(Mutex::new((fixture::instant(), Duration::from_secs(500))))
        }

        fn run(&self, seconds: i64) {
            self.set(seconds);
            self.0.lock().unwrap().1 += Duration::from_secs(seconds.unsigned_abs());
        }

        fn set(&self, seconds: i64) {
            self.0.lock().unwrap().0 += SignedDuration::from_secs(seconds);
        }
    }

    impl Clock for Machine {
        fn now(&self) -> Timestamp {
            self.0.lock().unwrap().0
        }

        fn running(&self) -> Option<Duration> {
            Some(self.0.lock().unwrap().1)
        }
    }

    fn keeper() -> Timekeeper {
        Timekeeper::new(SignedDuration::from_secs(5))
    }

    #[test]
    fn a_clock_that_was_set_is_refused_until_it_is_set_back() {
        let (keeper, machine) = (keeper(), Machine::new());
        keeper.unset(&machine).unwrap();
        // A laptop that slept for a day: the machine has run on.
        machine.run(86_400);
        keeper.unset(&machine).unwrap();
        for jump in [120 * 86_400, 6, -6, -86_400] {
            machine.set(jump);
            let error = keeper.unset(&machine).unwrap_err();
            assert!(matches!(error, ClockError::Jumped { .. }), "{error}");
            machine.run(3_600);
            keeper.unset(&machine).unwrap_err();
            machine.set(-jump);
            keeper.unset(&machine).unwrap();
        }
    }

    #[test]
    fn small_steps_do_not_add_up_unless_time_has_passed_between() {
        let (keeper, machine) = (keeper(), Machine::new());
        keeper.unset(&machine).unwrap();
        machine.set(4);
        keeper.unset(&machine).unwrap();
        machine.set(4);
        keeper.unset(&machine).unwrap_err();
        machine.set(-4);
        // NTP that steps a bad clock by four seconds a day.
        for _ in 0..30 {
            machine.run(86_400);
            keeper.unset(&machine).unwrap();
            machine.set(4);
            keeper.unset(&machine).unwrap();
        }
    }

    #[test]
    fn two_clocks_agree_within_the_bound_however_long_the_answer_took() {
        let (keeper, now) = (keeper(), fixture::instant());
        let at = |seconds| now + SignedDuration::from_secs(seconds);
        keeper.agree(now, at(5), now).unwrap();
        keeper.agree(now, at(-5), now).unwrap();
        keeper.agree(now, at(6), now).unwrap_err();
        keeper.agree(now, at(-6), now).unwrap_err();
        keeper.agree(now, at(10), at(20)).unwrap();
        let error = keeper.agree(at(400 * 86_400), now, at(400 * 86_400)).unwrap_err();
        assert!(error.to_string().contains("ahead of the store's"), "{error}");
    }
}
