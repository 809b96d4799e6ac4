//! Probes: for each exception of a policy a duty that holds where it does, so that a case can show that
//! it is reached.

use cedar_policy::{Policy, PolicyId as CedarId};
use serde_json::{Value, json};

use super::{Bundle, rule::Rule};
use crate::{
    domain::Effect,
    source::{Fault, Faults, SourceFile},
};

/// What the ids of probes begin with.
const PREFIX: &str = "probe:";

/// One alternative of one `unless`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The duty that holds where it does.
    pub id: String,
    /// The policy.
    pub policy: String,
    /// What it says.
    pub text: String,
}

/// Whether a policy of this id is a probe.
#[must_use]
pub fn is_probe(id: &str) -> bool {
    id.starts_with(PREFIX)
}

/// A permit of everything: only what a policy forbids is denied beside it.
#[must_use]
pub fn permit_all() -> SourceFile {
    let text = format!(
        "@id(\"{PREFIX}permit\") @citation(\"a probe\") permit (principal, action, resource);\n"
    );
    SourceFile::new("probes.cedar", &text)
}

/// The probes of all policies, as a file of duties.
///
/// # Errors
/// When Cedar cannot write one of its own policies.
pub fn probes(bundle: &Bundle) -> Result<(SourceFile, Vec<Probe>), Faults> {
    let (mut text, mut probes) = (String::new(), Vec::new());
    for rule in bundle.rules().filter(|rule| rule.effect == Effect::Forbid) {
        for (n, alternative) in alternatives(rule)?.into_iter().enumerate() {
            let id = format!("{PREFIX}{}:{}", rule.id, n + 1);
            let (_, mut conditions) = form(rule, "when")?;
            let condition = json!({ "kind": "when", "body": alternative });
            let alone = write(rule, &id, vec![condition.clone()])?;
            conditions.push(condition);
            text.push_str(&write(rule, &id, conditions)?);
            text.push('\n');
            let says = alone.rsplit("when").next().unwrap_or_default();
            let says = says.trim().trim_end_matches(';').trim_matches(['{', '}', ' ', '\n']);
            let says = says.split_whitespace().collect::<Vec<_>>().join(" ");
            probes.push(Probe { id, policy: rule.id.to_string(), text: says });
        }
    }
    Ok((SourceFile::new("duties/probes.cedar", &text), probes))
}

/// The policy in Cedar's JSON form, and its conditions by kind.
fn form(rule: &Rule, kind: &str) -> Result<(Value, Vec<Value>), Fault> {
    let form = rule.policy.to_json().map_err(|error| rule.fault(error.to_string()))?;
    let conditions = form.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let of_kind = |condition: &Value| condition.get("kind").is_some_and(|is| is == kind);
    Ok((form, conditions.into_iter().filter(of_kind).collect()))
}

/// What the policy's `unless` clauses say, each alternative by itself.
fn alternatives(rule: &Rule) -> Result<Vec<Value>, Fault> {
    let (_, conditions) = form(rule, "unless")?;
    let mut found = Vec::new();
    for body in conditions.iter().filter_map(|condition| condition.get("body")) {
        split(body, &mut found);
    }
    Ok(found)
}

fn split(body: &Value, found: &mut Vec<Value>) {
    let sides = body.get("||").and_then(|either| Some((either.get("left")?, either.get("right")?)));
    match sides {
        Some((left, right)) => {
            split(left, found);
            split(right, found);
        }
        None => found.push(body.clone()),
    }
}

/// A duty with the policy's scope and these conditions.
fn write(rule: &Rule, id: &str, conditions: Vec<Value>) -> Result<String, Fault> {
    let fault = |error: String| rule.fault(error);
    let (mut form, _) = form(rule, "when")?;
    let fields = form.as_object_mut().ok_or_else(|| fault("has no JSON form".to_owned()))?;
    fields.extend([
        ("conditions".to_owned(), conditions.into()),
        ("effect".to_owned(), "permit".into()),
        ("annotations".to_owned(), json!({ "id": id, "citation": "a probe", "duty": "a probe" })),
    ]);
    let policy = Policy::from_json(Some(CedarId::new(id)), form);
    let policy = policy.map_err(|error| fault(error.to_string()))?;
    policy.to_cedar().ok_or_else(|| fault("cannot be written as text".to_owned()))
}
