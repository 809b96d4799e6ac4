//! How much an app or a tenant may use in a while, and how much it has. What is counted is decided here;
//! where the counters are kept, elsewhere.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use rust_decimal::Decimal;

use super::{AppId, Currency, KeyName, TenantId};

/// What an app, or a tenant with all its apps, may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many of its calls may be under way at once.
    pub concurrent: Option<u64>,
    /// How much it may use in a while.
    pub rates: Vec<Rate>,
}

/// So much in a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Of what.
    pub measure: Measure,
    /// How much.
    pub most: Decimal,
    /// In which while.
    pub period: Period,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Calls, whether the law allows them or not.
    Requests,
    /// Tokens read and written, as the backend counts them.
    Tokens,
    /// What the calls cost.
    Money(Currency),
    /// Calls under way.
    Concurrent,
}

impl Measure {
    /// The word for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Money(_) => "money",
            Self::Concurrent => "concurrent",
        }
    }
}

/// A while of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From second 0 to second 0.
    Minute,
    /// From minute 0 to minute 0.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
}

impl Period {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// When the one in which `now` lies began, and when the next one begins.
    #[must_use]
    pub fn around(self, now: Timestamp) -> (Timestamp, Timestamp) {
        let seconds = match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => return month(now),
        };
        let since = now.as_second().div_euclid(seconds) * seconds;
        let at = |second| Timestamp::from_second(second).unwrap_or(now);
        (at(since), at(since + seconds))
    }
}

fn month(now: Timestamp) -> (Timestamp, Timestamp) {
    let first = now.to_zoned(TimeZone::UTC).date().first_of_month();
    let midnight = |day: jiff::civil::Date| {
        day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
    };
    let next = first.checked_add(1.month()).map_or(Timestamp::MAX, midnight);
    (midnight(first), next)
}

/// Who is held to a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// An app.
    App(AppId),
    /// A tenant, with all its apps.
    Tenant(TenantId),
    /// An API key that belongs to no app.
    Key(KeyName),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(id) => write!(f, "app `{id}`"),
            Self::Tenant(id) => write!(f, "tenant `{id}`"),
            Self::Key(name) => write!(f, "API key `{name}`"),
        }
    }
}

/// One limit at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Who is held to it.
    pub held: Held,
    /// What is limited.
    pub measure: Measure,
    /// How much.
    pub most: Decimal,
    /// In which while; none for calls under way.
    pub period: Option<Period>,
    /// When the while began; the same instant for ever where there is none.
    pub since: Timestamp,
    /// When the next one begins.
    pub until: Option<Timestamp>,
}

impl Limit {
    /// The counter that it looks at.
    #[must_use]
    pub fn key(&self) -> CounterKey {
        let (kind, id) = match &self.held {
            Held::App(id) => ("app", id.as_str()),
            Held::Tenant(id) => ("tenant", id.as_str()),
            Held::Key(name) => ("key", name.as_str()),
        };
        let period = self.period.map_or("now", Period::as_str);
        let name = match &self.measure {
            Measure::Money(currency) => format!("{kind}:{id}/{currency}/{period}"),
            measure => format!("{kind}:{id}/{}/{period}", measure.as_str()),
        };
        CounterKey { name: name.into(), since: self.since }
    }
}

/// A counter: whose, of what, and since when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    /// Whose and of what, as the store has it.
    pub name: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}

/// What the counters say. One that is not there is at zero.
pub type Used = BTreeMap<CounterKey, Decimal>;

/// The limits that a record is held to, and what it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// None of these may have been reached.
    pub limits: Vec<Limit>,
    /// What is added to the counters.
    pub adds: Vec<(CounterKey, Decimal)>,
    /// Whether calls under way are counted, and of whom.
    pub under_way: Option<(AppId, TenantId)>,
}

/// How far a limit was used when a call was let through, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The limit.
    pub limit: Limit,
    /// How much was used, with the call at hand if it was let through.
    pub used: Decimal,
    /// When.
    pub at: Timestamp,
}

impl LimitState {
    /// What is left, not below zero.
    #[must_use]
    pub fn remaining(&self) -> Decimal {
        (self.limit.most - self.used).max(Decimal::ZERO)
    }

    /// How long until it begins anew.
    #[must_use]
    pub fn resets_in(&self) -> Option<SignedDuration> {
        self.limit.until.map(|until| until.duration_since(self.at).max(SignedDuration::ZERO))
    }
}

impl fmt::Display for LimitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { held, measure, most, period, .. } = &self.limit;
        let what = match measure {
            Measure::Requests => format!("{most} requests"),
            Measure::Tokens => format!("{most} tokens"),
            Measure::Money(currency) => format!("{most} {currency}"),
            Measure::Concurrent => format!("{most} calls at once"),
        };
        match period {
            Some(period) => write!(f, "{held} may use {what} a {}", period.as_str()),
            None => write!(f, "{held} may have {what}"),
        }
    }
}

impl Limits {
    /// The limits as they are at `now`, those of `measures` only.
    pub fn at<'a>(
        &'a self,
        held: &'a Held,
        now: Timestamp,
    ) -> impl Iterator<Item = Limit> + use<'a> {
        let rates = self.rates.iter().map(move |rate| {
            let (since, until) = rate.period.around(now);
            Limit {
                held: held.clone(),
                measure: rate.measure.clone(),
                most: rate.most,
                period: Some(rate.period),
                since,
                until: Some(until),
            }
        });
        let concurrent = self.concurrent.map(|most| Limit {
            held: held.clone(),
            measure: Measure::Concurrent,
            most: most.into(),
            period: None,
            since: Timestamp::UNIX_EPOCH,
            until: None,
        });
        rates.chain(concurrent)
    }
}

impl Quota {
    /// Whether there is nothing to look up and nothing to count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.adds.is_empty() && self.under_way.is_none()
    }

    /// The counters that it looks at or adds to, but for those of calls under way.
    pub fn counters(&self) -> impl Iterator<Item = CounterKey> {
        let limits = self.limits.iter().filter(|limit| limit.period.is_some()).map(Limit::key);
        limits.chain(self.adds.iter().map(|(key, _)| key.clone()))
    }

    /// Whether it looks at calls under way.
    #[must_use]
    pub fn counts_calls(&self) -> bool {
        self.limits.iter().any(|limit| limit.period.is_none())
    }

    /// The counters of calls under way that it changes.
    pub fn under_way(&self) -> impl Iterator<Item = CounterKey> {
        self.under_way.iter().flat_map(|(app, tenant)| under_way(app, tenant))
    }

    /// The first limit that has been reached.
    #[must_use]
    pub fn reached(&self, used: &Used, at: Timestamp) -> Option<LimitState> {
        self.states(used, at).find(|state| state.used >= state.limit.most)
    }

    /// How far each limit is used.
    pub fn states(&self, used: &Used, at: Timestamp) -> impl Iterator<Item = LimitState> {
        self.limits.iter().map(move |limit| LimitState {
            limit: limit.clone(),
            used: used.get(&limit.key()).copied().unwrap_or_default(),
            at,
        })
    }
}

/// The counters of an app's and a tenant's calls under way.
#[must_use]
pub fn under_way(app: &AppId, tenant: &TenantId) -> [CounterKey; 2] {
    [Held::App(app.clone()), Held::Tenant(tenant.clone())].map(|held| {
        let limit = Limit {
            held,
            measure: Measure::Concurrent,
            most: Decimal::ZERO,
            period: None,
            since: Timestamp::UNIX_EPOCH,
            until: None,
        };
        limit.key()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_begins_and_ends_with_the_calendar() {
        let now = at("2026-12-31T23:59:59.9Z");
        let around = |period: Period| {
            let (since, until) = period.around(now);
            (since.to_string(), until.to_string())
        };
        let next = "2027-01-01T00:00:00Z".to_owned();
        assert_eq!(around(Period::Minute), ("2026-12-31T23:59:00Z".to_owned(), next.clone()));
        assert_eq!(around(Period::Hour), ("2026-12-31T23:00:00Z".to_owned(), next.clone()));
        assert_eq!(around(Period::Day), ("2026-12-31T00:00:00Z".to_owned(), next.clone()));
        assert_eq!(around(Period::Month), ("2026-12-01T00:00:00Z".to_owned(), next));
        assert_eq!(Period::Month.around(at("2028-02-29T12:00:00Z")).1, at("2028-03-01T00:00:00Z"));
        assert!(Period::Month.around(Timestamp::MAX).0 < Timestamp::MAX);
    }

    #[test]
    fn a_limit_is_reached_with_what_it_names_and_not_before() {
        let limits = Limits {
            concurrent: Some(2),
            rates: vec![Rate {
                measure: Measure::Tokens,
                most: 100.into(),
                period: Period::Minute,
            }],
        };
        let held = Held::App("desk".into());
        let now = at("2026-11-26T10:00:30Z");
        let quota = Quota { limits: limits.at(&held, now).collect(), ..Quota::default() };
        let keys: Vec<_> = quota.limits.iter().map(Limit::key).collect();
        assert_eq!(&*keys[0].name, "app:desk/tokens/minute");
        assert_eq!(keys[1], under_way(&"desk".into(), &"acme".into())[0]);
        let used = |tokens: i64, calls: i64| {
            Used::from([(keys[0].clone(), tokens.into()), (keys[1].clone(), calls.into())])
        };
        assert_eq!(quota.reached(&Used::new(), now), None);
        assert_eq!(quota.reached(&used(99, 1), now), None);
        let state = quota.reached(&used(100, 0), now).unwrap();
        assert_eq!(state.to_string(), "app `desk` may use 100 tokens a minute");
        assert_eq!(state.resets_in(), Some(SignedDuration::from_secs(30)));
        let state = quota.reached(&used(0, 2), now).unwrap();
        assert_eq!(state.to_string(), "app `desk` may have 2 calls at once");
        assert_eq!((state.remaining(), state.resets_in()), (Decimal::ZERO, None));
    }
}
