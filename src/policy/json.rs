//! Walks over policies in Cedar's JSON form.

use serde_json::{Map, Value};

/// The string literals of a policy in Cedar's JSON form, where a literal stands under `Value`.
pub(super) fn collect_strings(json: Option<&Value>, found: &mut Vec<String>) {
    match json {
        Some(Value::Object(fields)) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "Value" && !text.is_empty() => {
                        found.push(text.clone());
                    }
                    // The argument of a constructor is a number or a date, not a name.
                    _ if ["decimal", "datetime", "duration"].contains(&key.as_str()) => {}
                    _ => collect_strings(Some(value), found),
                }
            }
        }
        Some(Value::Array(items)) => {
            for item in items {
                collect_strings(Some(item), found);
            }
        }
        _ => {}
    }
}

/// The parts of a condition that all must hold.
pub(super) fn conjuncts(body: &Value) -> Vec<&Value> {
    match body.get("&&").map(|and| (and.get("left"), and.get("right"))) {
        Some((Some(left), Some(right))) => [conjuncts(left), conjuncts(right)].concat(),
        _ => vec![body],
    }
}

/// The name in `{".": {"left": {"Var": "context"}, "attr": name}}`.
pub(super) fn attribute_of_context(fields: &Map<String, Value>) -> Option<&str> {
    let access = fields.get(".")?;
    let is_context = access.get("left")?.get("Var")? == "context";
    access.get("attr")?.as_str().filter(|_| is_context)
}
