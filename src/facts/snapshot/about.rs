//! What the dated facts say about a name that policies use, for people to read.

use super::names::COVERED_ZONE;
use crate::{
    domain::{JurisdictionCode, Window},
    facts::world::{Group, RawThreshold, World, dated::Dated},
    policy::EntityKind,
};

impl World {
    /// Every fact about the zone, the set of findings or the licence with this id, whenever it holds,
    /// in words; nothing about other kinds of entity.
    #[must_use]
    pub fn about(&self, kind: EntityKind, id: &str) -> Vec<Dated<String>> {
        match kind {
            EntityKind::Zone if id == COVERED_ZONE => {
                let rows = self.coverage.iter();
                rows.map(|row| told(row, places(&row.fact.jurisdictions, &row.fact.zones)))
                    .collect()
            }
            EntityKind::Zone => self.members(Group::Zone, id),
            EntityKind::Adequacy => self.members(Group::Adequacy, id),
            EntityKind::License => {
                let rows = self.licences.iter().filter(|row| row.fact.id.as_str() == id);
                rows.map(|row| {
                    let licence = &row.fact.licence;
                    let yes = |yes| if yes { "yes" } else { "no" };
                    let mut said = format!(
                        "commerce: {}; answers may train models: {}",
                        yes(licence.commercial_use),
                        yes(licence.output_training)
                    );
                    let territories: Vec<_> =
                        licence.excluded_territories.iter().cloned().collect();
                    let territories = places(&territories, &row.fact.excluded_zones);
                    if territories != NOBODY {
                        said = format!("{said}; not in {territories}");
                    }
                    if !licence.excluded_purposes.is_empty() {
                        let purposes: Vec<_> =
                            licence.excluded_purposes.iter().map(String::as_str).collect();
                        said = format!("{said}; not for {}", purposes.join(", "));
                    }
                    for (limit, of) in [
                        (licence.monthly_active_users_limit, "users a month"),
                        (licence.monthly_revenue_usd_limit, "US dollars a month"),
                        (licence.annual_revenue_usd_limit, "US dollars a year"),
                    ] {
                        if let Some(limit) = limit {
                            said = format!("{said}; up to {limit} {of}");
                        }
                    }
                    told(row, said)
                })
                .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The same about the class of data or the threshold of people with this id, and which it is.
    #[must_use]
    pub fn about_counted(&self, id: &str) -> Option<(&'static str, Vec<Dated<String>>)> {
        let class = self.classes.iter().filter(|row| row.fact.0 == id);
        let class: Vec<_> = class
            .map(|row| told(row, row.fact.1.iter().cloned().collect::<Vec<_>>().join(", ")))
            .collect();
        if !class.is_empty() {
            return Some(("class", class));
        }
        let thresholds = self.thresholds.iter().filter(|row| row.fact.id == id);
        let thresholds: Vec<_> = thresholds.map(|row| told(row, row.fact.words())).collect();
        (!thresholds.is_empty()).then_some(("threshold", thresholds))
    }

    fn members(&self, group: Group, id: &str) -> Vec<Dated<String>> {
        let of_set = |row: &&Dated<_>| {
            let fact: &crate::facts::world::Membership = &row.fact;
            fact.group == group && fact.id == id
        };
        let rows = self.memberships.iter().filter(of_set);
        rows.map(|row| told(row, places(&row.fact.members, &row.fact.zones))).collect()
    }
}

impl RawThreshold {
    fn words(&self) -> String {
        let window = match self.window {
            Window::CalendarYear => "in a calendar year",
            Window::TwelveMonths => "in twelve months",
        };
        let whose = places(&self.jurisdictions, &self.zones);
        let mut said = format!("{} people or more of {whose} {window}", self.at_least);
        if let Some(class) = &self.class {
            said = format!("{said}, in data of class::\"{class}\"");
        }
        if !self.without.is_empty() {
            said = format!("{said}, in no data of {}", self.without.join(", "));
        }
        if !self.to_zones.is_empty() {
            said = format!("{said}, reaching {}", places(&[], &self.to_zones));
        }
        said
    }
}

const NOBODY: &str = "nobody";

fn places(codes: &[JurisdictionCode], zones: &[String]) -> String {
    let codes = codes.iter().map(|code| code.as_str().to_owned());
    let all: Vec<String> =
        codes.chain(zones.iter().map(|zone| format!("all of Zone::\"{zone}\""))).collect();
    if all.is_empty() { NOBODY.to_owned() } else { all.join(", ") }
}

/// The fact in words, with its dates and its source.
fn told<T>(row: &Dated<T>, fact: String) -> Dated<String> {
    Dated {
        fact,
        valid: row.valid,
        source: row.source.clone(),
        checked: row.checked,
        confidence: row.confidence,
        review_by: row.review_by,
        file: row.file.clone(),
        span: row.span.clone(),
    }
}
