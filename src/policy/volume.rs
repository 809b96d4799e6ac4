//! The numbers with which policies compare `context.volume`. A policy sees a volume only as far as it
//! compares it: so a decision rests on which of these numbers are reached, and on nothing finer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::rule::Rule;
use crate::source::Fault;

/// What `context.volume` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeField {
    /// Everybody.
    Subjects,
    /// People whose data falls into a category.
    SensitiveSubjects,
}

impl VolumeField {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Subjects, Self::SensitiveSubjects];

    /// The name in the schema.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subjects => "subjects",
            Self::SensitiveSubjects => "sensitiveSubjects",
        }
    }

    /// The name of the threshold that a policy means when it compares this with `number`.
    #[must_use]
    pub fn threshold(self, number: u64) -> String {
        format!("context.volume.{} >= {number}", self.as_str())
    }
}

/// The numbers from which on a comparison can turn out otherwise, by field.
pub type Bounds = BTreeMap<VolumeField, BTreeSet<u64>>;

/// Adds the numbers with which `rule` compares volumes.
///
/// # Errors
/// When it does anything else with a volume.
pub(super) fn bounds(rule: &Rule, bounds: &mut Bounds) -> Result<(), Fault> {
    let json = rule.policy.to_json().map_err(|error| rule.fault(error.to_string()))?;
    let strange = || {
        rule.fault(format!("policy `{}` does more with `context.volume` than compare it", rule.id))
            .help("compare it with a whole number, `context.volume.subjects < 100000`; what a law counts in another way is a `[[threshold]]` in `facts/volumes.toml`")
    };
    find(json.get("conditions").unwrap_or(&Value::Null), bounds).ok_or_else(strange)
}

/// `None` where a volume stands outside of a comparison.
fn find(json: &Value, bounds: &mut Bounds) -> Option<()> {
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_comparison = ["<", "<=", ">", ">=", "==", "!="].contains(&key.as_str());
                if is_comparison && let Some((field, number)) = comparison(value) {
                    // Below and above are told apart at the number and at the one after it.
                    bounds.entry(field).or_default().extend([number, number.saturating_add(1)]);
                } else if is_volume(value) || (key == "." && is_context_volume(value)) {
                    return None;
                } else {
                    find(value, bounds)?;
                }
            }
            Some(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| find(item, bounds)),
        _ => Some(()),
    }
}

fn comparison(sides: &Value) -> Option<(VolumeField, u64)> {
    let (left, right) = (sides.get("left")?, sides.get("right")?);
    let one =
        |volume: &Value, number: &Value| Some((field(volume)?, number.get("Value")?.as_u64()?));
    one(left, right).or_else(|| one(right, left))
}

/// `{".": {"left": context.volume, "attr": field}}`.
fn field(json: &Value) -> Option<VolumeField> {
    let access = json.get(".")?;
    let volume = access.get("left").filter(|left| is_volume(left));
    let name = access.get("attr")?.as_str()?;
    volume.and_then(|_| VolumeField::ALL.into_iter().find(|field| field.as_str() == name))
}

/// `{".": {"left": {"Var": "context"}, "attr": "volume"}}`.
fn is_volume(json: &Value) -> bool {
    json.get(".").is_some_and(is_context_volume)
}

fn is_context_volume(access: &Value) -> bool {
    let is_context = access.get("left").and_then(|left| left.get("Var"));
    is_context.is_some_and(|var| var == "context")
        && access.get("attr").is_some_and(|attr| attr == "volume")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(condition: &str) -> Option<Bounds> {
        let policy = format!("permit (principal, action, resource) when {{ {condition} }};");
        let policy: cedar_policy::Policy = policy.parse().unwrap();
        let mut bounds = Bounds::new();
        find(&policy.to_json().unwrap()["conditions"], &mut bounds).map(|()| bounds)
    }

    #[test]
    fn the_numbers_of_comparisons_are_found_and_anything_else_is_refused() {
        use VolumeField::{SensitiveSubjects, Subjects};
        let of = |field, numbers: &[u64]| {
            Some(Bounds::from([(field, numbers.iter().copied().collect())]))
        };
        assert_eq!(read("context.data.personal"), Some(Bounds::new()));
        assert_eq!(read("context.volume.subjects < 100"), of(Subjects, &[100, 101]));
        assert_eq!(
            read(
                "!(5 >= context.volume.sensitiveSubjects) || context.volume.sensitiveSubjects == 9"
            ),
            of(SensitiveSubjects, &[5, 6, 9, 10])
        );
        for strange in [
            "context.volume.subjects + 1 > 100",
            "context.volume.subjects < context.volume.sensitiveSubjects",
            "context.volume == {subjects: 1, sensitiveSubjects: 1}",
            "[1].contains(context.volume.subjects)",
            "context.volume has subjects",
            "context.volume.subjects > -5",
        ] {
            assert_eq!(read(strange), None, "{strange}");
        }
    }
}
