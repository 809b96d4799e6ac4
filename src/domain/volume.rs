//! How many people's data has left a jurisdiction, and the numbers from which a law asks for more.
//! What is counted is decided here; where the counts are kept, elsewhere.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::{Timestamp, ToSpan, civil::Date, tz::Offset};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JurisdictionCode, TenantId};

/// Data that left a jurisdiction: all of it that a threshold can look at.
///
/// Fields stand in alphabetical order: the JSON, by which equal exports are counted together, is the
/// same on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Its categories, sorted.
    pub categories: Vec<String>,
    /// Seats of the operator and of its owners, where they could reach it.
    pub exposed_to: Vec<JurisdictionCode>,
    /// Whether it relates to identifiable people.
    pub personal: bool,
    /// Where it is processed, stored or read, other than where it came from.
    pub to: Vec<JurisdictionCode>,
}

/// How far back a threshold looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// To the first of January.
    CalendarYear,
    /// To the same day of the year before.
    TwelveMonths,
}

/// A number of people from which on a law asks for more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The least number that reaches it.
    pub at_least: u64,
    /// Only data in one of these categories; any data, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<BTreeSet<String>>,
    /// The name by which policies ask for it.
    pub id: String,
    /// Whose people are counted, together; when absent, those of each jurisdiction by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<BTreeSet<JurisdictionCode>>,
    /// Whether data counts that owners and operators could reach, although it is not sent there.
    pub ownership: bool,
    /// Whether only personal data counts.
    pub personal: bool,
    /// Only data that reaches one of these; whatever leaves the origins, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<BTreeSet<JurisdictionCode>>,
    /// Where its days begin: hours east of Greenwich.
    pub utc_offset: i8,
    /// How far back it looks.
    pub window: Window,
    /// No data in one of these categories.
    pub without: BTreeSet<String>,
}

/// Whether `places` hold `place`, or its country.
fn holds(places: &BTreeSet<JurisdictionCode>, place: &JurisdictionCode) -> bool {
    let country = place.as_str().split_once('-').map(|(country, _)| country);
    places.contains(place) || country.is_some_and(|country| places.contains(country))
}

/// The day on which something happens, counted from 1970-01-01, where days begin `offset` hours
/// before they do in Greenwich.
#[must_use]
pub fn day_of(instant: Timestamp, offset: i8) -> i32 {
    let seconds = instant.as_second().saturating_add(i64::from(offset) * 3_600);
    i32::try_from(seconds.div_euclid(86_400)).unwrap_or(i32::MAX)
}

/// The first instant of the day after `instant`'s.
fn next_day(instant: Timestamp, offset: i8) -> Option<Timestamp> {
    let seconds = (i64::from(day_of(instant, offset)) + 1) * 86_400 - i64::from(offset) * 3_600;
    Timestamp::from_second(seconds).ok()
}

impl Threshold {
    /// Whether it counts the people of `origin` among others, and not each jurisdiction's.
    #[must_use]
    pub fn counts_people_of(&self, origin: &JurisdictionCode) -> bool {
        self.origins.as_ref().is_some_and(|origins| holds(origins, origin))
    }

    /// Whether data of `origin` counts towards it, wherever it goes.
    #[must_use]
    pub fn concerns(
        &self,
        origin: &JurisdictionCode,
        personal: bool,
        categories: &[String],
    ) -> bool {
        let one_of =
            |set: &BTreeSet<String>| categories.iter().any(|category| set.contains(category));
        self.origins.as_ref().is_none_or(|origins| holds(origins, origin))
            && (personal || !self.personal)
            && self.categories.as_ref().is_none_or(one_of)
            && !one_of(&self.without)
    }

    fn counts(&self, origin: &JurisdictionCode, export: &Export) -> bool {
        let arrives = |place: &&JurisdictionCode| match (&self.to, &self.origins) {
            (Some(to), _) => holds(to, place),
            (None, Some(origins)) => !holds(origins, place),
            (None, None) => !holds(&BTreeSet::from([origin.clone()]), place),
        };
        let exposed = export.exposed_to.iter().filter(|_| self.ownership);
        self.concerns(origin, export.personal, &export.categories)
            && export.to.iter().chain(exposed).any(|place| arrives(&place))
    }

    /// The first day that counts at `now`.
    fn since(&self, now: Timestamp) -> i32 {
        let today = Offset::constant(self.utc_offset).to_datetime(now).date();
        let first = match self.window {
            Window::CalendarYear => Date::new(today.year(), 1, 1).ok(),
            Window::TwelveMonths => today.checked_sub(1.year()).ok(),
        };
        let midnight = first.and_then(|day| {
            Offset::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())).ok()
        });
        midnight.map_or(i32::MIN, |midnight| day_of(midnight, 0))
    }
}

/// What is looked up: all that left an origin on behalf of a tenant since a day.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountKey {
    /// Who exported.
    pub tenant: TenantId,
    /// From where.
    pub origin: JurisdictionCode,
    /// Since which day, as [`day_of`] counts them.
    pub since: i32,
}

/// People whose data left, to be added to the counts. A negative number takes back what was
/// reserved and did not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Who exported.
    pub tenant: TenantId,
    /// From where.
    pub origin: JurisdictionCode,
    /// On which day.
    pub day: i32,
    /// What.
    pub export: Export,
    /// How many people.
    pub subjects: i64,
}

/// What was found under some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub HashMap<CountKey, Vec<(Export, i64)>>);

impl Counts {
    /// Adds `exported` wherever it belongs.
    pub fn add(&mut self, exported: &Exported) {
        for (key, found) in &mut self.0 {
            if key.tenant == exported.tenant
                && key.origin == exported.origin
                && key.since <= exported.day
            {
                found.push((exported.export.clone(), exported.subjects));
            }
        }
    }

    /// How many people count towards what was asked, without the call at hand.
    fn before(&self, asked: &Asked) -> u64 {
        let sum = asked.keys().iter().filter_map(|key| Some((key, self.0.get(key)?))).fold(
            0_i64,
            |sum, (key, found)| {
                let counted =
                    found.iter().filter(|(export, _)| asked.threshold.counts(&key.origin, export));
                counted.fold(sum, |sum, (_, subjects)| sum.saturating_add(*subjects))
            },
        );
        u64::try_from(sum).unwrap_or(0)
    }

    /// Whether `asked` is reached with the call at hand. A call that names no number of people cannot
    /// be shown to stay below, and reaches every threshold.
    #[must_use]
    pub fn reach(&self, asked: &Asked) -> bool {
        let reaches = |own| self.before(asked).saturating_add(own) >= asked.threshold.at_least;
        asked.own.is_none_or(reaches)
    }

    /// Each of `asked` with whether it is reached.
    #[must_use]
    pub fn answer(&self, asked: Vec<Asked>) -> Vec<(Asked, bool)> {
        let reached: Vec<bool> = asked.iter().map(|asked| self.reach(asked)).collect();
        asked.into_iter().zip(reached).collect()
    }
}

/// A threshold that a call counts towards.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The threshold.
    pub threshold: Arc<Threshold>,
    /// Who exports.
    pub tenant: TenantId,
    /// From where.
    pub origin: JurisdictionCode,
    /// Since which day others count.
    pub since: i32,
    /// Until when they do: then another day begins.
    pub until: Option<Timestamp>,
    /// How many people the call itself is about, where it says so.
    pub own: Option<u64>,
}

impl Asked {
    /// What a call about `own` people asks of `threshold` at `now`.
    #[must_use]
    pub fn new(
        threshold: &Arc<Threshold>,
        tenant: &TenantId,
        origin: &JurisdictionCode,
        own: Option<u64>,
        now: Timestamp,
    ) -> Self {
        Self {
            threshold: threshold.clone(),
            tenant: tenant.clone(),
            origin: origin.clone(),
            since: threshold.since(now),
            until: next_day(now, threshold.utc_offset),
            own,
        }
    }

    /// What has to be looked up to answer.
    #[must_use]
    pub fn keys(&self) -> Vec<CountKey> {
        if self.own.is_none() {
            return Vec::new();
        }
        let mut origins = self.threshold.origins.clone().unwrap_or_default();
        origins.insert(self.origin.clone());
        let key = |origin| CountKey { tenant: self.tenant.clone(), origin, since: self.since };
        origins.into_iter().map(key).collect()
    }
}

/// What a decision rests on and adds, as far as people are counted.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Each threshold that the call counts towards, and whether it was found reached.
    pub asked: Vec<(Asked, bool)>,
    /// What leaves with it.
    pub adds: Vec<Exported>,
}

impl Volume {
    /// Whether it rests on nothing and adds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.adds.is_empty()
    }

    /// Whether the counts still say what the decision rests on.
    #[must_use]
    pub fn stands(&self, counts: &Counts) -> bool {
        self.asked.iter().all(|(asked, reached)| counts.reach(asked) == *reached)
    }

    /// From when on it has to be asked again.
    #[must_use]
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.asked.iter().filter_map(|(asked, _)| asked.until).min()
    }
}

/// The thresholds that a call reaches, with all that left before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// Whose people were counted.
    pub from: JurisdictionCode,
    /// The thresholds, sorted.
    pub thresholds: Vec<String>,
}

impl Reached {
    /// What `asked` amounts to, by origin.
    #[must_use]
    pub fn of(asked: &[(Asked, bool)]) -> Vec<Self> {
        let mut reached: Vec<Self> = Vec::new();
        for (asked, _) in asked.iter().filter(|(_, reached)| *reached) {
            let id = asked.threshold.id.clone();
            match reached.iter_mut().find(|row| row.from == asked.origin) {
                Some(row) => row.thresholds.push(id),
                None => reached.push(Self { from: asked.origin.clone(), thresholds: vec![id] }),
            }
        }
        for row in &mut reached {
            row.thresholds.sort();
        }
        reached.sort();
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> JurisdictionCode {
        text.parse().unwrap()
    }

    fn codes(texts: &[&str]) -> BTreeSet<JurisdictionCode> {
        texts.iter().map(|text| code(text)).collect()
    }

    fn threshold() -> Threshold {
        Threshold {
            at_least: 100,
            categories: None,
            id: "t".to_owned(),
            origins: Some(codes(&["CN"])),
            ownership: false,
            personal: true,
            to: None,
            utc_offset: 8,
            window: Window::CalendarYear,
            without: BTreeSet::from(["health".to_owned()]),
        }
    }

    fn export(to: &[&str], categories: &[&str]) -> Export {
        Export {
            categories: categories.iter().map(|&text| text.to_owned()).collect(),
            exposed_to: vec![code("RU")],
            personal: true,
            to: to.iter().map(|text| code(text)).collect(),
        }
    }

    #[test]
    fn what_counts_left_the_origin_and_is_of_the_kind() {
        let counts = |threshold: &Threshold, from: &str, export: &Export| {
            threshold.counts(&code(from), export)
        };
        let t = threshold();
        assert!(counts(&t, "CN", &export(&["SG"], &[])));
        assert!(counts(&t, "CN", &export(&["HK"], &[])), "Hong Kong is not the mainland");
        assert!(counts(&t, "CN-BJ", &export(&["SG"], &[])));
        assert!(!counts(&t, "CN", &export(&["CN-BJ"], &[])), "within");
        assert!(!counts(&t, "DE", &export(&["SG"], &[])), "another's people");
        assert!(!counts(&t, "CN", &export(&["SG"], &["health"])), "counted by another threshold");
        assert!(!counts(&t, "CN", &Export { personal: false, ..export(&["SG"], &[]) }));
        let t = Threshold { to: Some(codes(&["RU"])), ..threshold() };
        assert!(!counts(&t, "CN", &export(&["SG"], &[])), "owned there, not sent there");
        let t = Threshold { ownership: true, ..t };
        assert!(counts(&t, "CN", &export(&[], &[])));
        let t = Threshold { origins: None, ..threshold() };
        assert!(counts(&t, "DE", &export(&["SG"], &[])));
        assert!(!counts(&t, "DE", &export(&["DE-BE"], &[])));
    }

    #[test]
    fn windows_begin_where_the_law_s_days_do() {
        let day = |text: &str| day_of(format!("{text}T00:00:00Z").parse().unwrap(), 0);
        let since = |threshold: &Threshold, now: &str| threshold.since(now.parse().unwrap());
        let year = threshold();
        assert_eq!(since(&year, "2026-12-31T15:59:59Z"), day("2026-01-01"));
        assert_eq!(since(&year, "2026-12-31T16:00:00Z"), day("2027-01-01"), "midnight in Beijing");
        let months = Threshold { window: Window::TwelveMonths, utc_offset: 0, ..threshold() };
        assert_eq!(since(&months, "2026-11-25T10:00:00Z"), day("2025-11-25"));
        assert_eq!(since(&months, "2028-02-29T10:00:00Z"), day("2027-02-28"));
        assert_eq!(day_of("2026-12-31T16:00:00Z".parse().unwrap(), 8), day("2027-01-01"));
        let next = next_day("2026-12-31T15:00:00Z".parse().unwrap(), 8).unwrap();
        assert_eq!(next.to_string(), "2026-12-31T16:00:00Z");
    }

    #[test]
    fn a_threshold_is_reached_with_the_call_at_hand() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        let asked =
            |own| Asked::new(&Arc::new(threshold()), &"acme".into(), &code("CN"), Some(own), now);
        let mut counts = Counts::default();
        counts.0.extend(asked(1).keys().into_iter().map(|key| (key, Vec::new())));
        let mut add = |tenant: &str, to: &str, day: i32, subjects| {
            let (tenant, origin) = (tenant.into(), code("CN"));
            counts.add(&Exported { tenant, origin, day, export: export(&[to], &[]), subjects });
            counts.clone()
        };
        let today = day_of(now, 8);
        add("acme", "SG", today, 60);
        add("acme", "CN-BJ", today, 1_000);
        add("other", "SG", today, 1_000);
        let counts = add("acme", "SG", today - 400, 1_000);
        assert!(!counts.reach(&asked(39)));
        assert!(counts.reach(&asked(40)), "exactly 100");
        assert!(!counts.reach(&asked(0)));
        assert!(counts.reach(&Asked { own: None, ..asked(1) }), "nobody knows how many");
        assert!(add("acme", "SG", today, -1).reach(&asked(41)));
        assert!(!add("acme", "SG", today, 0).reach(&asked(40)), "one was taken back");
    }
}
