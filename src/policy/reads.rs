//! What the conditions of policies look at: two requests that differ only in what nobody looks at
//! have the same answer. Found from the text alone, and wide where the text leaves a doubt.

use serde_json::Value;

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

/// The name in `{".": {"left": {"Var": "context"}, "attr": name}}`.
fn attribute_of_context(fields: &serde_json::Map<String, Value>) -> Option<&str> {
    let access = fields.get(".")?;
    let is_context = access.get("left")?.get("Var")? == "context";
    access.get("attr")?.as_str().filter(|_| is_context)
}
