//! What a policy's conditions name: where a change of the world could change its answer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{names::EntityKind, rule::Rule};

/// The words of a policy's conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Texts that it compares with.
    pub texts: BTreeSet<String>,
    /// Whole numbers that it compares with.
    pub numbers: BTreeSet<u64>,
    /// Attributes that it looks at, by name.
    pub attributes: BTreeSet<String>,
}

impl Rule {
    /// The zones and adequacy findings that the policy names, in its scope or in its conditions.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<String> {
        let uids = self.policy.entity_literals().into_iter();
        let named = uids.filter(|uid| {
            let kind = EntityKind::named(uid.type_name().basename());
            matches!(kind, Some(EntityKind::Zone | EntityKind::Adequacy))
        });
        named.map(|uid| uid.id().unescaped().to_owned()).collect()
    }

    /// What the policy's conditions name.
    #[must_use]
    pub fn mentions(&self) -> Mentions {
        let mut mentions = Mentions::default();
        if let Ok(json) = self.policy.to_json() {
            mentions.collect(json.get("conditions").unwrap_or(&Value::Null));
        }
        mentions
    }
}

impl Mentions {
    fn collect(&mut self, json: &Value) {
        match json {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value) {
                        ("Value", Value::String(text)) => drop(self.texts.insert(text.clone())),
                        ("Value", Value::Number(number)) => self.numbers.extend(number.as_u64()),
                        ("attr", Value::String(name)) => drop(self.attributes.insert(name.clone())),
                        _ => self.collect(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            _ => {}
        }
    }
}
