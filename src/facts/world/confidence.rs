//! How sure the facts are that hold at one instant. Not what rests on them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Group, RawLicence, World,
    at::{ConfidenceAt, Covering, FactsAt, Unsure},
    dated::Dated,
};
use crate::domain::{Confidence, JurisdictionCode};

impl World {
    /// How sure `facts` are, which hold at `instant`.
    pub(in crate::facts) fn confidence_at(
        &self,
        instant: Timestamp,
        facts: &FactsAt,
    ) -> ConfidenceAt {
        let mut found = ConfidenceAt {
            zones: self.unsure(Group::Zone, instant, facts, None),
            ..ConfidenceAt::default()
        };
        found.adequacy = self.unsure(Group::Adequacy, instant, facts, Some(&found));
        for row in self.coverage.iter().filter(|row| row.valid.holds_at(instant)) {
            let covering = found.coverage.entry(row.fact.pack.clone()).or_insert_with(|| {
                Covering { confidence: row.confidence, jurisdictions: BTreeSet::new() }
            });
            covering.confidence = covering.confidence.min(row.confidence);
            covering.jurisdictions.extend(facts.zone_members(&row.fact.zones));
            covering.jurisdictions.extend(row.fact.jurisdictions.iter().cloned());
        }
        let id = |licence: &RawLicence| licence.id.clone();
        found.licences = unsure(&self.licences, instant, id);
        found.classes = unsure(&self.classes, instant, |(id, _)| id.clone());
        found.thresholds = unsure(&self.thresholds, instant, |threshold| threshold.id.clone());
        found
    }

    /// The members of every group of a kind that are not sure. A finding for a zone is as sure as the
    /// finding itself and the member's place in the zone.
    fn unsure(
        &self,
        group: Group,
        instant: Timestamp,
        facts: &FactsAt,
        zones: Option<&ConfidenceAt>,
    ) -> BTreeMap<String, Unsure> {
        let mut least: BTreeMap<&str, BTreeMap<JurisdictionCode, Confidence>> = BTreeMap::new();
        let rows = self.memberships.iter().filter(|row| row.fact.group == group);
        for row in rows.filter(|row| row.valid.holds_at(instant)) {
            let members = least.entry(&row.fact.id).or_default();
            let mut lower = |member: &JurisdictionCode, confidence: Confidence| {
                let least = members.entry(member.clone()).or_default();
                *least = confidence.min(*least);
            };
            for member in &row.fact.members {
                lower(member, row.confidence);
            }
            for zone in &row.fact.zones {
                for member in facts.zones.get(zone).into_iter().flatten() {
                    let in_zone = zones.map(|zones| zones.in_zone(zone, member));
                    lower(member, row.confidence.min(in_zone.unwrap_or_default()));
                }
            }
        }
        let mut unsure: BTreeMap<String, Unsure> = BTreeMap::new();
        for (id, members) in least {
            for (member, confidence) in members {
                if confidence < Confidence::Primary {
                    let grades = unsure.entry(id.to_owned()).or_default();
                    grades.entry(confidence).or_default().insert(member);
                }
            }
        }
        unsure
    }
}

/// The facts of a kind that are not sure, by what names them.
fn unsure<T, K: Ord>(
    rows: &[Dated<T>],
    instant: Timestamp,
    name: impl Fn(&T) -> K,
) -> BTreeMap<K, Confidence> {
    let rows = rows.iter().filter(|row| row.valid.holds_at(instant));
    let rows = rows.filter(|row| row.confidence < Confidence::Primary);
    rows.map(|row| (name(&row.fact), row.confidence)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;

    const FACTS: &str = r#"
        [defaults]
        valid_from = "2026-01-01"
        source = "s"
        checked = "2026-01-01"
        confidence = "primary"
        [[jurisdiction]]
        code = "AA"
        name = "A"
        [[jurisdiction]]
        code = "BB"
        name = "B"
        [[zone]]
        id = "Z"
        name = "z"
        [[membership]]
        zone = "Z"
        members = ["AA"]
        confidence = "secondary"
        [[membership]]
        zone = "Z"
        members = ["BB"]
        [[set]]
        id = "F"
        name = "f"
        [[finding]]
        set = "F"
        zones = ["Z"]
        [[finding]]
        set = "F"
        members = ["BB"]
        confidence = "general"
        valid_from = "2027-01-01"
        [[coverage]]
        pack = "p.cedar"
        jurisdictions = ["AA"]
        [[coverage]]
        pack = "p.cedar"
        zones = ["Z"]
        confidence = "general"
        valid_from = "2027-01-01"
    "#;

    fn at(instant: &str) -> String {
        let files = [SourceFile::new("facts/all.toml", FACTS), SourceFile::new("p.cedar", "")];
        let facts = World::load(&files).unwrap().at(instant.parse().unwrap());
        serde_json::to_string(&facts.confidence).unwrap()
    }

    #[test]
    fn a_fact_is_as_sure_as_the_least_sure_row_that_holds() {
        assert_eq!(
            at("2026-06-01T00:00:00Z"),
            r#"{"adequacy":{"F":{"secondary":["AA"]}},"classes":{},"coverage":{"p.cedar":{"confidence":"primary","jurisdictions":["AA"]}},"licences":{},"thresholds":{},"zones":{"Z":{"secondary":["AA"]}}}"#
        );
        assert_eq!(
            at("2027-06-01T00:00:00Z"),
            r#"{"adequacy":{"F":{"general":["BB"],"secondary":["AA"]}},"classes":{},"coverage":{"p.cedar":{"confidence":"general","jurisdictions":["AA","BB"]}},"licences":{},"thresholds":{},"zones":{"Z":{"secondary":["AA"]}}}"#
        );
    }
}
