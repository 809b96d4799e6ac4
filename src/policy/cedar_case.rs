//! Tests in the form of Cedar's own command line (`cedar run-tests`): one request each, judged by
//! Cedar's plain authoriser over the rules, duties apart. Where a case is a call with all its flows,
//! this is a single question to the policies.

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{bundle::Bundle, deep::on_deep_stack, limits::LONGEST_NAME};
use crate::{
    domain::{Effect, Verdict},
    source::{Fault, Faults, SourceFile},
};

/// A request, and the answer that it must get.
#[derive(Debug)]
pub struct CedarCase {
    /// What it shows.
    pub name: String,
    /// The file and the line of it.
    pub place: String,
    row: Row,
}

/// As `cedar run-tests` reads it: what else stands there is for other readers.
#[derive(Debug, Deserialize)]
struct Row {
    #[serde(default)]
    name: Option<String>,
    request: RequestRow,
    entities: Value,
    decision: Verdict,
    reason: Vec<String>,
    num_errors: usize,
}

#[derive(Debug, Deserialize)]
struct RequestRow {
    principal: String,
    action: String,
    resource: String,
    context: Value,
}

impl RequestRow {
    fn is_flow(&self) -> bool {
        self.principal.starts_with("Jurisdiction::")
    }
}

impl CedarCase {
    /// Reads a file of tests: a JSON array. `entities` reads the file that a test names in place of
    /// its entities.
    ///
    /// # Errors
    /// Every fault found: broken JSON, a field that is missing or of another type.
    pub fn load(
        file: &SourceFile,
        entities: &dyn Fn(&str) -> Result<SourceFile, Fault>,
    ) -> Result<Vec<Self>, Faults> {
        let texts: Vec<&RawValue> = serde_json::from_str(&file.text).map_err(|error| {
            let fault = fault(file, 0, &error);
            fault.help("a file of Cedar tests is a JSON array, as `cedar run-tests` reads it")
        })?;
        let (mut cases, mut faults, mut cursor) = (Vec::new(), Faults::default(), 0);
        for (number, text) in texts.into_iter().map(RawValue::get).enumerate() {
            let rest = file.text.get(cursor..).unwrap_or("");
            let start = cursor + rest.find(text).unwrap_or(0);
            cursor = start + text.len();
            let row = serde_json::from_str::<Row>(text).map_err(|error| {
                fault(file, start, &error).help(
                    "a Cedar test has `request` (`principal`, `action`, `resource`, `context`), \
                     `entities`, `decision`, `reason` and `num_errors`",
                )
            });
            let row = row.and_then(|mut row| {
                if let Value::String(path) = &row.entities {
                    let named = entities(path)?;
                    row.entities = serde_json::from_str(&named.text)
                        .map_err(|error| fault(&named, 0, &error))?;
                }
                Ok(row)
            });
            match row {
                Ok(row) => cases.push(Self {
                    name: row.name.clone().unwrap_or_else(|| format!("test {}", number + 1)),
                    place: format!("{}:{}", file.path, file.fault(start..start, "").line),
                    row,
                }),
                Err(fault) => faults.0.push(fault),
            }
        }
        faults.or(cases)
    }

    /// What is otherwise than the test expects; nothing when it passes.
    #[must_use]
    pub fn failure(&self, bundle: &Bundle) -> Option<String> {
        on_deep_stack(|| self.judge(bundle))
    }

    fn judge(&self, bundle: &Bundle) -> Option<String> {
        let (request, entities) = match self.read(bundle) {
            Ok(read) => read,
            Err(error) => return Some(error),
        };
        let mut rules = PolicySet::new();
        for rule in &bundle.rules {
            // A bundle holds no id twice.
            let _ = rules.add(rule.policy.clone());
        }
        let answer = Authorizer::new().is_authorized(&request, &rules, &entities);
        let decision = match answer.decision() {
            Decision::Allow => Verdict::Allow,
            Decision::Deny => Verdict::Deny,
        };
        let mut reasons: Vec<String> =
            answer.diagnostics().reason().map(ToString::to_string).collect();
        reasons.sort();
        let errors: Vec<String> = answer.diagnostics().errors().map(ToString::to_string).collect();
        let Row { decision: expected, reason, num_errors, .. } = &self.row;
        let named = reason.iter().all(|id| reasons.contains(id));
        if decision == *expected && named && errors.len() == *num_errors {
            return None;
        }
        let mut said = format!("expected {}", expected.as_str());
        if !reason.is_empty() {
            said = format!("{said} by {}", reason.join(", "));
        }
        if errors.len() != *num_errors {
            said = format!("{said} while {num_errors} policies fail");
        }
        said = format!("{said}\n      got {}", decision.as_str());
        for id in reasons {
            let effect = bundle.rules.iter().find(|rule| rule.id.as_str() == id);
            let effect = match effect.map(|rule| rule.effect) {
                Some(Effect::Forbid) => "forbids",
                _ => "permits",
            };
            said = format!("{said}\n          {id} {effect}");
        }
        for error in errors {
            said = format!("{said}\n          {error}");
        }
        Some(said)
    }

    /// The request and the entities, valid against the schema.
    fn read(&self, bundle: &Bundle) -> Result<(Request, Entities), String> {
        let RequestRow { principal, action, resource, context } = &self.row.request;
        let uid = |what: &str, text: &str| {
            if text.len() > LONGEST_NAME {
                return Err(format!("the {what} is longer than {LONGEST_NAME} bytes"));
            }
            text.parse::<EntityUid>().map_err(|error| {
                format!("the {what} `{text}` is no entity such as `Jurisdiction::\"DE\"`: {error}")
            })
        };
        let schema = bundle.schema();
        let (principal, action) = (uid("principal", principal)?, uid("action", action)?);
        let resource = uid("resource", resource)?;
        let context = with_what_is_added(context.clone(), self.row.request.is_flow());
        let context = Context::from_json_value(context, Some((schema, &action)))
            .map_err(|error| format!("the context does not fit the schema: {error}"))?;
        let request = Request::new(principal, action, resource, context, Some(schema))
            .map_err(|error| format!("the request does not fit the schema: {error}"))?;
        let entities = Entities::from_json_value(self.row.entities.clone(), Some(schema))
            .map_err(|error| format!("the entities do not fit the schema: {error}"))?;
        Ok((request, entities))
    }
}

/// What Lexgate works out of a call and the facts may be left out of a test: it is empty then.
fn with_what_is_added(mut context: Value, is_flow: bool) -> Value {
    let mut add = |pointer: &str, name: &str| {
        if let Some(Value::Object(fields)) = context.pointer_mut(pointer) {
            fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        }
    };
    add("/data", "classes");
    add("", if is_flow { "reached" } else { "audienceZones" });
    context
}

/// A fault where JSON that begins at the byte `start` of `file` is wrong.
fn fault(file: &SourceFile, start: usize, error: &serde_json::Error) -> Fault {
    let text = file.text.get(start..).unwrap_or("");
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = start + line_start + error.column().saturating_sub(1);
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(said, _)| said);
    file.fault(at..at, message)
}
