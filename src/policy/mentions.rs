//! What a policy names: groups of jurisdictions, licences, texts, numbers and attributes. So it is known
//! which dated facts it rests on, and what could change its answer. Found from the text alone.

use std::collections::BTreeSet;

use cedar_policy::Policy;
use serde_json::Value;

use super::{json::collect_strings, names::EntityKind};

/// What a policy looks at beside the call, the organisation and plain jurisdictions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Attributes that its conditions look at, by name.
    pub attributes: BTreeSet<String>,
    /// Whether it looks at a model's licence.
    pub licences: bool,
    /// Whole numbers that it compares with.
    pub numbers: BTreeSet<u64>,
    /// The sets of adequacy findings that it names, sorted.
    pub sets: Vec<String>,
    /// The texts that it compares with: among them classes of data and thresholds of people.
    pub texts: Vec<String>,
    /// The zones that it names, sorted.
    pub zones: Vec<String>,
}

impl Mentions {
    /// What `policy` looks at, whose conditions are these in Cedar's JSON form.
    pub(super) fn of(policy: &Policy, conditions: &Value) -> Self {
        let mut found = Self::default();
        found.collect(conditions);
        found.licences = found.attributes.contains("license");
        for literal in policy.entity_literals() {
            let id = || literal.id().unescaped().to_owned();
            match EntityKind::named(literal.type_name().basename()) {
                Some(EntityKind::Zone) => found.zones.push(id()),
                Some(EntityKind::Adequacy) => found.sets.push(id()),
                Some(EntityKind::License) => found.licences = true,
                _ => {}
            }
        }
        collect_strings(Some(conditions), &mut found.texts);
        for named in [&mut found.sets, &mut found.texts, &mut found.zones] {
            named.sort();
            named.dedup();
        }
        found
    }

    /// Attributes stand under `attr` beside what they are read of, numbers under `Value`.
    fn collect(&mut self, json: &Value) {
        match json {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value) {
                        ("attr", Value::String(name)) if fields.contains_key("left") => {
                            self.attributes.insert(name.clone());
                        }
                        ("Value", Value::Number(number)) => self.numbers.extend(number.as_u64()),
                        _ => self.collect(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_licences_are_found_in_scope_and_conditions() {
        let mentions = |text: &str| {
            let policy: Policy = text.parse().unwrap();
            Mentions::of(&policy, &policy.to_json().unwrap()["conditions"])
        };
        let found = mentions(
            r#"forbid (principal in Zone::"Z", action, resource)
               when { !(resource in Zone::"Z") && context.reached.contains("x") }
               unless { resource in Adequacy::"B" || resource in Adequacy::"A" };"#,
        );
        let (sets, zones) = (vec!["A".to_owned(), "B".to_owned()], vec!["Z".to_owned()]);
        let attributes = BTreeSet::from(["reached".to_owned()]);
        let texts = vec!["x".to_owned()];
        assert_eq!(found, Mentions { attributes, sets, texts, zones, ..Mentions::default() });
        let licences = |condition| {
            mentions(&format!("permit (principal, action, resource) {condition};")).licences
        };
        assert!(licences("when { resource.model.license.commercialUse }"));
        assert!(licences(r#"unless { context.x == License::"MIT" }"#));
        assert!(!licences(r#"when { resource.approved && context.note == "license" }"#));
    }
}
