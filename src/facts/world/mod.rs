//! World facts: what is so for everybody, each with its dates and its source.

pub(in crate::facts) mod at;
mod confidence;
pub(in crate::facts) mod date_text;
pub(in crate::facts) mod dated;
mod file;
pub(in crate::facts) mod licence_id;
mod names;
pub(in crate::facts) mod places;
pub(in crate::facts) mod remedy;
mod thresholds;
pub(in crate::facts) mod upkeep;
#[cfg(test)]
mod world_tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use self::{
    at::{FactsAt, Licence, RetentionRule},
    dated::Dated,
    places::{Jurisdiction, named, place},
};
use crate::domain::{JurisdictionCode, LicenceId, Retention, Window};

/// What a term of the vocabulary stands for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TermKind {
    /// A category of data.
    Category,
    /// Something an operator is certified for.
    Certification,
    /// A kind of legal instrument.
    Instrument,
    /// A purpose of processing.
    Purpose,
    /// A protection that a deployment has.
    Safeguard,
}

impl TermKind {
    /// What people call it.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Category => "category",
            Self::Certification => "certification",
            Self::Instrument => "kind of instrument",
            Self::Purpose => "purpose",
            Self::Safeguard => "safeguard",
        }
    }
}

/// All dated facts, whenever they hold.
#[derive(Debug, Default)]
pub struct World {
    pub(super) jurisdictions: Vec<Dated<(JurisdictionCode, Jurisdiction)>>,
    pub(super) groups: BTreeMap<Group, BTreeSet<String>>,
    pub(super) memberships: Vec<Dated<Membership>>,
    pub(super) licences: Vec<Dated<RawLicence>>,
    pub(super) coverage: Vec<Dated<Coverage>>,
    pub(super) terms: Vec<Dated<(TermKind, String)>>,
    pub(super) retentions: Vec<Dated<RawRetention>>,
    pub(super) classes: Vec<Dated<(String, BTreeSet<String>)>>,
    pub(super) thresholds: Vec<Dated<RawThreshold>>,
}

/// Zones and adequacy findings: both are sets of jurisdictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Zone,
    Adequacy,
}

#[derive(Clone, Debug)]
pub(super) struct Membership {
    pub(super) group: Group,
    pub(super) id: String,
    pub(super) members: Vec<JurisdictionCode>,
    /// Zones whose members are members here too.
    pub(super) zones: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Coverage {
    /// The policy file.
    pub(super) pack: String,
    pub(super) jurisdictions: Vec<JurisdictionCode>,
    pub(super) zones: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct RawLicence {
    pub(super) id: LicenceId,
    pub(super) name: String,
    pub(super) licence: Licence,
    pub(super) excluded_zones: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct RawRetention {
    pub(super) retention: Retention,
    /// Whose law says so; with `zones` empty too, everybody's.
    pub(super) jurisdictions: Vec<JurisdictionCode>,
    pub(super) zones: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct RawThreshold {
    pub(super) at_least: u64,
    pub(super) class: Option<String>,
    pub(super) id: String,
    pub(super) jurisdictions: Vec<JurisdictionCode>,
    pub(super) ownership: bool,
    pub(super) personal: bool,
    pub(super) to_zones: Vec<String>,
    pub(super) utc_offset: i8,
    pub(super) window: Window,
    pub(super) without: Vec<String>,
    pub(super) zones: Vec<String>,
}

impl World {
    /// The facts that hold at `instant`.
    #[must_use]
    pub fn at(&self, instant: Timestamp) -> FactsAt {
        let holds = |valid: &super::Validity| valid.holds_at(instant);
        let mut facts = FactsAt::default();
        for row in self.jurisdictions.iter().filter(|row| holds(&row.valid)) {
            let (code, jurisdiction) = row.fact.clone();
            facts.jurisdictions.insert(code, jurisdiction);
        }
        for (group, ids) in &self.groups {
            let groups = match group {
                Group::Zone => &mut facts.zones,
                Group::Adequacy => &mut facts.adequacy,
            };
            groups.extend(ids.iter().map(|id| (id.clone(), BTreeSet::new())));
        }
        // Zones before the findings that name them.
        for group in [Group::Zone, Group::Adequacy] {
            let rows = self.memberships.iter().filter(|row| row.fact.group == group);
            for row in rows.filter(|row| holds(&row.valid)) {
                let mut members = facts.zone_members(&row.fact.zones);
                members.extend(row.fact.members.iter().cloned());
                let groups = match group {
                    Group::Zone => &mut facts.zones,
                    Group::Adequacy => &mut facts.adequacy,
                };
                groups.entry(row.fact.id.clone()).or_default().extend(members);
            }
        }
        for row in self.coverage.iter().filter(|row| holds(&row.valid)) {
            let members = facts.zone_members(&row.fact.zones);
            facts.coverage.extend(members);
            facts.coverage.extend(row.fact.jurisdictions.iter().cloned());
        }
        for row in self.licences.iter().filter(|row| holds(&row.valid)) {
            let mut licence = row.fact.licence.clone();
            licence.excluded_territories.extend(facts.zone_members(&row.fact.excluded_zones));
            facts.licences.insert(row.fact.id.clone(), licence);
        }
        for row in self.terms.iter().filter(|row| holds(&row.valid)) {
            let (kind, id) = row.fact.clone();
            facts.terms.entry(kind).or_default().insert(id);
        }
        for row in self.retentions.iter().filter(|row| holds(&row.valid)) {
            let RawRetention { retention, jurisdictions, zones } = row.fact.clone();
            let everywhere = jurisdictions.is_empty() && zones.is_empty();
            let mut places = facts.zone_members(&zones);
            places.extend(jurisdictions);
            facts
                .retentions
                .push(RetentionRule { retention, places: (!everywhere).then_some(places) });
        }
        for row in self.classes.iter().filter(|row| holds(&row.valid)) {
            let (id, categories) = row.fact.clone();
            facts.classes.insert(id, categories);
        }
        let thresholds = self.thresholds.iter().filter(|row| holds(&row.valid));
        facts.thresholds = thresholds.map(|row| row.fact.resolve(&facts)).collect();
        facts.confidence = self.confidence_at(instant, &facts);
        facts
    }

    /// The first instant after `instant` at which a fact begins or ends.
    #[must_use]
    pub fn next_change(&self, instant: Timestamp) -> Option<Timestamp> {
        let boundaries = self.jurisdictions.iter().flat_map(|row| row.valid.boundaries());
        boundaries
            .chain(self.memberships.iter().flat_map(|row| row.valid.boundaries()))
            .chain(self.licences.iter().flat_map(|row| row.valid.boundaries()))
            .chain(self.coverage.iter().flat_map(|row| row.valid.boundaries()))
            .chain(self.terms.iter().flat_map(|row| row.valid.boundaries()))
            .chain(self.retentions.iter().flat_map(|row| row.valid.boundaries()))
            .chain(self.classes.iter().flat_map(|row| row.valid.boundaries()))
            .chain(self.thresholds.iter().flat_map(|row| row.valid.boundaries()))
            .filter(|boundary| *boundary > instant)
            .min()
    }

    /// Whether a jurisdiction has this code at any time.
    #[must_use]
    pub fn knows_jurisdiction(&self, code: &str) -> bool {
        self.jurisdictions.iter().any(|row| row.fact.0.as_str() == code)
    }

    /// The jurisdiction whose law applies at a place: itself, or the country of a subdivision that has no
    /// law of its own.
    ///
    /// # Errors
    /// What to write instead, where more can be said than that the place is not known.
    pub(super) fn place(&self, code: JurisdictionCode) -> Result<JurisdictionCode, Option<String>> {
        place(code, self.jurisdictions.iter().map(|row| (&row.fact.0, &row.fact.1)))
    }

    /// What to write instead of a text that is not a code.
    pub(super) fn place_named(&self, text: &str) -> Option<String> {
        named(text, &self.jurisdictions.iter().map(|row| (&row.fact.0, &row.fact.1)))
    }

    /// Whether a zone has this id.
    #[must_use]
    pub fn knows_zone(&self, id: &str) -> bool {
        self.groups.get(&Group::Zone).is_some_and(|ids| ids.contains(id))
    }

    /// Whether a set of adequacy findings has this id.
    #[must_use]
    pub fn knows_adequacy(&self, id: &str) -> bool {
        self.groups.get(&Group::Adequacy).is_some_and(|ids| ids.contains(id))
    }

    /// Whether a licence has this id at any time.
    #[must_use]
    pub fn knows_licence(&self, id: &str) -> bool {
        self.licences.iter().any(|row| row.fact.id.as_str() == id)
    }

    /// The licences with their names, at any time.
    pub(super) fn licence_names(&self) -> Vec<(LicenceId, String)> {
        let rows = self.licences.iter();
        rows.map(|row| (row.fact.id.clone(), row.fact.name.clone())).collect()
    }

    /// The licences, at any time.
    pub(super) fn licence_ids(&self) -> impl Iterator<Item = &str> {
        self.licences.iter().map(|row| row.fact.id.as_str())
    }

    /// The ids of zones, or of sets of findings.
    pub(super) fn group_ids(&self, group: Group) -> impl Iterator<Item = &str> {
        self.groups.get(&group).into_iter().flatten().map(String::as_str)
    }

    /// The codes of jurisdictions, at any time.
    pub(super) fn codes(&self) -> impl Iterator<Item = &str> {
        self.jurisdictions.iter().map(|row| row.fact.0.as_str())
    }

    /// The terms of `kind`, or of any kind, at any time.
    pub(super) fn term_ids(&self, kind: Option<TermKind>) -> impl Iterator<Item = &str> {
        let of_kind =
            self.terms.iter().filter(move |row| kind.is_none_or(|kind| row.fact.0 == kind));
        of_kind.map(|row| row.fact.1.as_str())
    }

    /// The classes of data, at any time.
    pub(super) fn class_ids(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().map(|row| row.fact.0.as_str())
    }

    /// The thresholds of people, at any time.
    pub(super) fn threshold_ids(&self) -> impl Iterator<Item = &str> {
        self.thresholds.iter().map(|row| row.fact.id.as_str())
    }

    /// Whether the vocabulary holds this term: of `kind`, or of any kind.
    #[must_use]
    pub fn knows_term(&self, kind: Option<TermKind>, id: &str) -> bool {
        self.terms.iter().any(|row| row.fact.1 == id && kind.is_none_or(|kind| row.fact.0 == kind))
    }
}
