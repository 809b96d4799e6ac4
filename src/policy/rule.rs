//! One policy as Lexgate needs it: its Cedar form and what its annotations say.

use cedar_policy::Policy;

use super::{
    mentions::Mentions,
    reads::{Reads, gates},
    scope::Scope,
};
use crate::{
    domain::{Effect, PolicyId},
    source::{Fault, SourceFile},
};

/// A policy with its annotations.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `@id`.
    pub id: PolicyId,
    /// Whether it permits or forbids.
    pub effect: Effect,
    /// `@citation`: the law, licence or rule that it implements.
    pub citation: String,
    /// `@advice`: what to do when it forbids.
    pub advice: Option<String>,
    /// `@duty`: what an allowed caller must do.
    pub duty: Option<String>,
    /// `@enforcement("label")`: the gateway can do the duty by labelling the answer.
    pub labels: bool,
    /// The file that holds it, relative to the policy folder.
    pub file: String,
    /// Its first line in that file.
    pub line: usize,
    /// Its text, as written.
    pub text: String,
    /// The dated facts that it looks at.
    pub mentions: Mentions,
    pub(super) policy: Policy,
    /// The policy for requests that its scope is known to match: the same without the scope.
    pub(super) conditions: Policy,
    /// What its conditions look at.
    pub(super) reads: Reads,
    /// Conditions of it that look at no context, each as a policy of its own: where one of them
    /// is false, the policy does not hold, whatever the context.
    pub(super) gates: Vec<Policy>,
    pub(super) scope: Scope,
}

impl Rule {
    /// Reads the annotations of `policy`, whose text begins at the byte `start` of `file`.
    ///
    /// # Errors
    /// When an annotation is missing, or has no place there.
    pub(super) fn read(
        policy: &Policy,
        file: &SourceFile,
        start: usize,
        is_duty: bool,
    ) -> Result<Self, Fault> {
        let text = policy.to_cedar().unwrap_or_default();
        let fault = |message: String| file.fault(start..start + text.len(), message);
        let annotation = |name: &str| {
            policy
                .annotation(name)
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let Some(id) = annotation("id") else {
            return Err(fault("the policy has no `@id`".to_owned())
                .help("write `@id(\"…\")` above it: decisions and records name policies by it"));
        };
        let Some(citation) = annotation("citation") else {
            return Err(fault(format!("policy `{id}` has no `@citation`"))
                .help("name the article, licence section or rule that it implements"));
        };
        let effect = match policy.effect() {
            cedar_policy::Effect::Permit => Effect::Permit,
            cedar_policy::Effect::Forbid => Effect::Forbid,
        };
        let (advice, duty) = (annotation("advice"), annotation("duty"));
        if effect == Effect::Forbid && advice.is_none() {
            return Err(fault(format!("policy `{id}` forbids and has no `@advice`"))
                .help("say in a sentence what the reader can do about a denial"));
        }
        if is_duty && (effect == Effect::Forbid || duty.is_none()) {
            return Err(fault(format!("duty `{id}` must be a `permit` with a `@duty`")).help(
                "duties are evaluated after an allow and can only add; write denials elsewhere",
            ));
        }
        if !is_duty && duty.is_some() {
            return Err(fault(format!("policy `{id}` has a `@duty` outside `duties/`"))
                .help("move it to a file in `duties/`"));
        }
        let labels = match annotation("enforcement").as_deref() {
            None => false,
            Some("label") if is_duty => true,
            Some(_) => {
                return Err(fault(format!(
                    "policy `{id}` has an `@enforcement` that nobody knows"
                ))
                .help(
                    "duties that ask for a label have `@enforcement(\"label\")`; others have none",
                ));
            }
        };
        let policy = policy.new_id(cedar_policy::PolicyId::new(&id));
        let conditions = without_scope(&policy).map_err(fault)?;
        let json = conditions.to_json().map_err(|error| fault(error.to_string()))?;
        let written = json.get("conditions").unwrap_or(&json);
        let gates = gates(written).into_iter().map(|gate| with_conditions(&conditions, &[gate]));
        Ok(Self {
            gates: gates.collect::<Result<_, _>>().map_err(fault)?,
            mentions: Mentions::of(&policy, written),
            reads: Reads::of(written),
            conditions,
            line: fault(String::new()).line,
            scope: Scope::of(&policy),
            policy,
            id: id.into(),
            effect,
            citation,
            advice,
            duty,
            labels,
            file: file.path.to_string(),
            text,
        })
    }

    /// A fault at the policy's first line, for what only the facts can tell is wrong.
    #[must_use]
    pub fn fault(&self, message: String) -> Fault {
        self.fault_in(0..self.text.len(), message)
    }

    /// The same where the policy first writes `name`.
    #[must_use]
    pub fn fault_at(&self, name: &str, message: String) -> Fault {
        match self.text.find(name) {
            Some(start) => self.fault_in(start..start + name.len(), message),
            None => self.fault(message),
        }
    }

    fn fault_in(&self, span: std::ops::Range<usize>, message: String) -> Fault {
        let fault = SourceFile::new(&self.file, &self.text).fault(span, message);
        Fault { line: self.line + fault.line - 1, ..fault }
    }
}

/// `policy` with a scope that everything matches.
fn without_scope(policy: &Policy) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    for part in ["principal", "action", "resource"] {
        if let Some(constraint) = json.get_mut(part) {
            *constraint = serde_json::json!({ "op": "All" });
        }
    }
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}

/// `policy` with these conditions, in Cedar's JSON form, for its own.
fn with_conditions(policy: &Policy, conditions: &[serde_json::Value]) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    if let Some(own) = json.get_mut("conditions") {
        *own = conditions.into();
    }
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}
