//! What the conditions of policies look at: two requests that differ only in what nobody looks at
//! have the same answer. Found from the text alone, and wide where the text leaves a doubt.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::json::{attribute_of_context, conjuncts};

/// Which parts of a request some condition can see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The action.
    pub action: bool,
    /// The context, in whatever part.
    pub context: bool,
    /// `context.deployment`, or the context as a whole.
    pub deployment: bool,
}

impl Reads {
    /// What a condition of which nothing is known may look at.
    pub(super) const EVERYTHING: Self = Self { action: true, context: true, deployment: true };

    /// What `json` looks at: conditions in Cedar's JSON form, where a variable stands under `Var`.
    pub(super) fn of(json: &Value) -> Self {
        match json {
            Value::Object(fields) => match attribute_of_context(fields) {
                Some(attribute) => {
                    let deployment = attribute == "deployment";
                    Self { action: false, context: true, deployment }
                }
                None => Self::of_all(fields.iter().map(|(key, value)| match value {
                    Value::String(variable) if key == "Var" => Self::of_variable(variable),
                    _ => Self::of(value),
                })),
            },
            Value::Array(items) => Self::of_all(items.iter().map(Self::of)),
            _ => Self::default(),
        }
    }

    /// What any of several looks at.
    pub(super) fn of_all(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::default(), |seen, reads| Self {
            action: seen.action || reads.action,
            context: seen.context || reads.context,
            deployment: seen.deployment || reads.deployment,
        })
    }

    fn of_variable(variable: &str) -> Self {
        match variable {
            "principal" | "resource" => Self::default(),
            "action" => Self { action: true, ..Self::default() },
            _ => Self { context: true, deployment: true, action: false },
        }
    }
}

/// Conditions, in Cedar's JSON form, of which any that is false makes the whole false: those that
/// look at no context, up to the first that the context might make fail.
pub(super) fn gates(conditions: &Value) -> Vec<Value> {
    let mut gates = Vec::new();
    for condition in conditions.as_array().into_iter().flatten() {
        let (Some(kind), Some(body)) = (condition.get("kind"), condition.get("body")) else {
            break;
        };
        for part in if kind == "when" { conjuncts(body) } else { vec![body] } {
            if !Reads::of(part).context {
                gates.push(json!({ "kind": kind, "body": part }));
            } else if !FLAGS.contains(part) {
                return gates;
            }
        }
    }
    gates
}

/// Parts of the context that are there in every request, and true or false.
static FLAGS: LazyLock<[Value; 2]> = LazyLock::new(|| {
    let data = json!({ ".": { "left": { "Var": "context" }, "attr": "data" } });
    ["personal", "classified"].map(|flag| json!({ ".": { "left": data, "attr": flag } }))
});

#[cfg(test)]
mod tests {
    use super::*;

    /// What this condition looks at, and how many gates it has.
    fn read(condition: &str) -> (Reads, usize) {
        let policy = format!("permit (principal, action, resource) {condition};");
        let policy: cedar_policy::Policy = policy.parse().unwrap();
        let conditions = policy.to_json().unwrap()["conditions"].clone();
        (Reads::of(&conditions), gates(&conditions).len())
    }

    #[test]
    fn what_a_condition_looks_at_is_found_and_doubt_counts_as_everything() {
        let reads = |condition| {
            let Reads { action, context, deployment } = read(condition).0;
            [action, context, deployment]
        };
        assert_eq!(reads(""), [false; 3]);
        assert_eq!(reads(r#"when { principal in Zone::"EU" }"#), [false; 3]);
        assert_eq!(reads(r#"unless { action in Action::"use" }"#), [true, false, false]);
        assert_eq!(reads("when { context.data.personal }"), [false, true, false]);
        assert_eq!(reads("when { context.deployment.approved }"), [false, true, true]);
        assert_eq!(reads(r#"when { context["deployment"].approved }"#), [false, true, true]);
        assert_eq!(reads("when { [1].contains(context.deployment) }"), [false, true, true]);
        assert_eq!(reads("when { context has deployment }"), [false, true, true]);
        assert_eq!(reads("when { (if true then context else context).x }"), [false, true, true]);
        assert_eq!(reads("when { {a: context}.a.deployment }"), [false, true, true]);
        // Names of a record's fields are no variables, and hide none.
        assert_eq!(reads(r#"when { {"Var": "action", ".": "context"} == 1 }"#), [false; 3]);
        assert_eq!(reads(r#"when { {"Var": action, ".": context} == 1 }"#), [true; 3]);
    }

    #[test]
    fn gates_stand_before_whatever_the_context_might_make_fail() {
        let gates = |condition| read(condition).1;
        assert_eq!(gates("when { context.data.personal && resource in principal }"), 1);
        assert_eq!(gates("when { (resource in principal && true) && action == principal }"), 3);
        assert_eq!(gates("when { context.data.personal } unless { resource in principal }"), 1);
        assert_eq!(gates("when { resource in principal || context.data.personal }"), 0);
        assert_eq!(gates("when { context.volume.subjects + 1 > 0 && resource in principal }"), 0);
        assert_eq!(gates("unless { context.absent && true } when { resource in principal }"), 0);
    }
}
