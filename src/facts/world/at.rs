//! The world facts that hold at one instant: what a snapshot pins and a replay needs.
//!
//! Fields stand in alphabetical order and sets are sorted: the JSON is the same on every machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    TermKind,
    places::{Jurisdiction, named, place},
};
use crate::domain::{Confidence, JurisdictionCode, LicenceId, Retention, Threshold};

/// Every fact that holds at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactsAt {
    /// Adequacy findings: which jurisdictions each set holds.
    pub adequacy: BTreeMap<String, BTreeSet<JurisdictionCode>>,
    /// Classes of data: which categories fall under each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, BTreeSet<String>>,
    /// How sure these facts are.
    pub confidence: ConfidenceAt,
    /// Jurisdictions whose law on personal data some pack implements.
    pub coverage: BTreeSet<JurisdictionCode>,
    /// Every jurisdiction.
    pub jurisdictions: BTreeMap<JurisdictionCode, Jurisdiction>,
    /// Every licence.
    pub licences: BTreeMap<LicenceId, Licence>,
    /// How long records are kept.
    pub retentions: Vec<RetentionRule>,
    /// The vocabulary.
    pub terms: BTreeMap<TermKind, BTreeSet<String>>,
    /// Numbers of people from which a law asks for more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<Threshold>,
    /// Zones: which jurisdictions each holds.
    pub zones: BTreeMap<String, BTreeSet<JurisdictionCode>>,
}

impl FactsAt {
    /// Whether the vocabulary holds the term.
    #[must_use]
    pub fn knows_term(&self, kind: TermKind, id: &str) -> bool {
        self.terms.get(&kind).is_some_and(|terms| terms.contains(id))
    }

    /// The jurisdiction whose law applies at a place: itself, or the country of a subdivision that has no
    /// law of its own.
    ///
    /// # Errors
    /// What to write instead, where more can be said than that the place is not known.
    pub fn place(&self, code: JurisdictionCode) -> Result<JurisdictionCode, Option<String>> {
        place(code, self.jurisdictions.iter())
    }

    /// What to write instead of a country's name.
    pub(in crate::facts) fn place_named(&self, text: &str) -> Option<String> {
        named(text, &self.jurisdictions.iter())
    }

    /// The country of a subdivision.
    #[must_use]
    pub fn country(&self, place: &JurisdictionCode) -> Option<&JurisdictionCode> {
        self.jurisdictions.get(place).and_then(|row| row.within.as_ref())
    }

    /// The zones that hold one of these places, or its country.
    #[must_use]
    pub fn zones_of(&self, places: &[JurisdictionCode]) -> Vec<&str> {
        let holds = |members: &BTreeSet<JurisdictionCode>| {
            places.iter().any(|place| {
                let country = self.country(place);
                members.contains(place) || country.is_some_and(|country| members.contains(country))
            })
        };
        let zones = self.zones.iter().filter(|(_, members)| holds(members));
        zones.map(|(id, _)| id.as_str()).collect()
    }

    /// How long a record is kept that touches these places: the longest time that a law there wants.
    /// For ever, where none says anything.
    #[must_use]
    pub fn retention<'a>(
        &self,
        places: impl IntoIterator<Item = &'a JurisdictionCode>,
    ) -> Retention {
        let mut touched = BTreeSet::new();
        for place in places {
            let country = self.country(place);
            touched.extend(country.into_iter().chain([place]));
        }
        let rules = self.retentions.iter().filter(|rule| {
            let wants = |places: &BTreeSet<_>| touched.iter().any(|place| places.contains(*place));
            rule.places.as_ref().is_none_or(wants)
        });
        // Of the same length, the law of a place is named before everybody's.
        let longest = rules.max_by_key(|rule| (rule.retention.months, rule.places.is_some()));
        let forever = || Retention { class: "unlimited".to_owned(), months: None };
        longest.map_or_else(forever, |rule| rule.retention.clone())
    }

    /// The members of all these zones.
    pub(in crate::facts) fn zone_members(&self, zones: &[String]) -> BTreeSet<JurisdictionCode> {
        zones.iter().filter_map(|zone| self.zones.get(zone)).flatten().cloned().collect()
    }
}

/// How long the records of calls that touch some places are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Where the law holds; everywhere, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<BTreeSet<JurisdictionCode>>,
    /// How long.
    pub retention: Retention,
}

/// What a model licence allows, as far as it can be typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// More than this many US dollars a year need a side licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annual_revenue_usd_limit: Option<u64>,
    /// Whether it may serve commerce.
    pub commercial_use: bool,
    /// Purposes that it forbids.
    pub excluded_purposes: BTreeSet<String>,
    /// Where neither model nor output may be used.
    pub excluded_territories: BTreeSet<JurisdictionCode>,
    /// More than this many users a month need a side licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_active_users_limit: Option<u64>,
    /// More than this many US dollars a month need a side licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_revenue_usd_limit: Option<u64>,
    /// Whether its answers may train another model.
    pub output_training: bool,
}

/// The members of a zone or a set of findings that are less sure than `primary`.
pub(super) type Unsure = BTreeMap<Confidence, BTreeSet<JurisdictionCode>>;

/// How sure each fact is on which a decision may rest. Where several facts say the same, the least sure
/// of them counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfidenceAt {
    /// Adequacy findings: the members of each set that are less sure than `primary`.
    pub adequacy: BTreeMap<String, Unsure>,
    /// Classes of data that are less sure than `primary`.
    pub classes: BTreeMap<String, Confidence>,
    /// Coverage, by the policy file that claims it.
    pub coverage: BTreeMap<String, Covering>,
    /// Licences that are less sure than `primary`.
    pub licences: BTreeMap<LicenceId, Confidence>,
    /// Thresholds of people that are less sure than `primary`.
    pub thresholds: BTreeMap<String, Confidence>,
    /// Zones: the members of each that are less sure than `primary`.
    pub zones: BTreeMap<String, Unsure>,
}

/// What a pack claims to implement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Covering {
    /// How sure that is.
    pub confidence: Confidence,
    /// Whose law on personal data.
    pub jurisdictions: BTreeSet<JurisdictionCode>,
}

impl ConfidenceAt {
    /// How sure the membership of `member` in a zone is.
    #[must_use]
    pub fn in_zone(&self, zone: &str, member: &JurisdictionCode) -> Confidence {
        sure(self.zones.get(zone), member)
    }

    /// How sure the finding for `member` is.
    #[must_use]
    pub fn in_set(&self, set: &str, member: &JurisdictionCode) -> Confidence {
        sure(self.adequacy.get(set), member)
    }
}

fn sure(unsure: Option<&Unsure>, member: &JurisdictionCode) -> Confidence {
    let mut grades = unsure.into_iter().flatten();
    let found = grades.find(|(_, members)| members.contains(member));
    found.map_or(Confidence::Primary, |(confidence, _)| *confidence)
}
