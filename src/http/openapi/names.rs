//! The names in the examples: those of the active organisation, chosen so that what `Try it out` sends is
//! answered. They are for everybody who reads the document, so they are few.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    super::{auth::Keys, gateway::least},
    refine::operations,
};
use crate::{
    domain::{Action, AppId, CallRequest, Caller, DataRequest, EndUser, KeyName, Verdict},
    facts::{App, AppClaims, Deployment, Organisation, TermKind},
    gate::{How, Judge},
};

/// How many names are tried at most for one that is allowed.
const MOST_TRIED: usize = 64;
/// The header of each claim.
const CLAIMS: &str = "x-lexgate-";

/// A deployment, with its model and whoever runs it.
#[derive(Clone, Debug)]
struct Served {
    deployment: String,
    model: String,
    operator: String,
}

impl Served {
    fn new(deployment: &str, model: &str, operator: &str) -> Self {
        let [deployment, model, operator] = [deployment, model, operator].map(str::to_owned);
        Self { deployment, model, operator }
    }

    fn of(deployment: &Deployment) -> Self {
        let (model, operator) = (deployment.model.as_str(), deployment.operator.as_str());
        Self::new(deployment.id.as_str(), model, operator)
    }
}

/// The names of one organisation.
#[derive(Clone, Debug)]
pub(in crate::http) struct Names {
    tenant: String,
    app: String,
    /// The jurisdiction from which the app calls.
    place: String,
    /// What is sent as `model` to chat, and to embed.
    model: String,
    embedder: String,
    category: String,
    purpose: String,
    /// Where a call about no person's data goes, where else it could, and where data about persons may not.
    allowed: Served,
    other: String,
    denied: Served,
    /// The least that a call of the app says.
    pub(in crate::http) plain: CallRequest,
    /// A call about a person, pinned to the deployment that is denied.
    pub(in crate::http) pinned: CallRequest,
}

impl Names {
    /// Those of the example organisation.
    pub(in crate::http) fn example() -> Self {
        let mut names = Self {
            tenant: "acme".to_owned(),
            app: "support-copilot".to_owned(),
            place: "DE".to_owned(),
            model: "assistant".to_owned(),
            embedder: "assistant".to_owned(),
            category: "dpv-pd:Health".to_owned(),
            purpose: "dpv:ServiceProvision".to_owned(),
            allowed: Served::new("smollm2@laptop", "smollm2-135m", "acme"),
            other: "mistral-small@dc-frankfurt".to_owned(),
            denied: Served::new("qwen3-32b@dashscope-sg", "qwen3-32b", "alibaba-cloud"),
            plain: least(&AppClaims::default(), ""),
            pinned: least(&AppClaims::default(), ""),
        };
        names.plain.model = Some(names.model.clone());
        names.pinned = names.pinned_call(None);
        names
    }

    /// Those of the organisation of `judge`, whose app with a key in `keys` is the one that calls. What of the
    /// example's names it has too stays.
    pub(in crate::http) fn of(judge: &Judge, keys: &Keys) -> Self {
        let mut names = Self::example();
        let snapshot = judge.snapshot();
        let organisation = &snapshot.organisation;
        let example = AppId::from(names.app.as_str());
        let with_keys = || keys.callers().filter(|id| organisation.apps.contains_key(*id));
        let preferred = with_keys().find(|id| **id == example);
        let id =
            preferred.or_else(|| with_keys().next()).or_else(|| organisation.apps.keys().next());
        let Some((id, app)) = id.and_then(|id| organisation.apps.get_key_value(id)) else {
            return names;
        };
        names.tenant = app.tenant.to_string();
        names.app = id.to_string();
        names.place = app.claims.location.clone().unwrap_or_else(|| app.location.to_string());
        let terms = &snapshot.facts.terms;
        let term = |kind, known: &str| pick(terms.get(&kind), known);
        names.category = term(TermKind::Category, &names.category);
        let purpose = || term(TermKind::Purpose, &names.purpose);
        names.purpose = app.claims.purpose.clone().unwrap_or_else(purpose);
        names.choose(judge, id, app);
        names
    }

    fn choose(&mut self, judge: &Judge, id: &AppId, app: &App) {
        let organisation = &judge.snapshot().organisation;
        let caller = Caller {
            app: id.clone(),
            authenticated: "example".to_owned(),
            key: KeyName::from("example"),
            tenant: app.tenant.clone(),
        };
        let decide = |request: &CallRequest| judge.decide(&caller, request, &How::default()).ok();
        self.plain = least(&app.claims, &self.place);
        let models = known_models(organisation, &self.model);
        // The first name that may be called through the gateway, with the deployment that then answers.
        let first = |action| {
            models.iter().take(MOST_TRIED).find_map(|name| {
                let model = Some(name.clone());
                let decided = decide(&CallRequest { action, model, ..self.plain.clone() })?;
                let allowed = decided
                    .body
                    .candidates
                    .iter()
                    .filter(|candidate| candidate.decision == Verdict::Allow);
                let mut reached =
                    allowed.filter_map(|one| organisation.deployment(one.deployment.as_str()));
                Some((name.clone(), reached.find(|deployment| deployment.backend.is_some())?))
            })
        };
        let (chats, embeds) = (first(Action::Infer), first(Action::Embed));
        let any = organisation.deployments.first();
        let by_any = || any.map(|deployment| (deployment.id.to_string(), deployment));
        if let Some((model, deployment)) = chats.or_else(by_any) {
            self.allowed = Served::of(deployment);
            self.embedder = embeds.map_or_else(|| model.clone(), |(name, _)| name);
            self.model = model;
        }
        self.plain.model = Some(self.model.clone());
        let known = |id: &str| organisation.deployment(id).is_some();
        let another = |one: &&Deployment| one.id.as_str() != self.allowed.deployment;
        if !known(&self.other) {
            let other = organisation.deployments.iter().find(another).or(any);
            self.other = other.map(|one| one.id.to_string()).unwrap_or_default();
        }
        let preferred = organisation.deployment(&self.denied.deployment);
        let all = || preferred.into_iter().chain(&organisation.deployments).take(MOST_TRIED);
        let denies = |deployment: &&Deployment| {
            let pinned = Self { denied: Served::of(deployment), ..self.clone() };
            decide(&pinned.pinned_call(Some(app)))
                .is_some_and(|decided| decided.body.decision == Verdict::Deny)
        };
        if let Some(deployment) = all().find(denies).or_else(|| all().next()) {
            self.denied = Served::of(deployment);
        }
        self.pinned = self.pinned_call(Some(app));
    }

    /// The call about a person, with all that the organisation says of its app's calls.
    fn pinned_call(&self, app: Option<&App>) -> CallRequest {
        let claims = app.map(|app| app.claims.clone()).unwrap_or_default();
        let or_else = |said: Vec<String>, one: &str| {
            if said.is_empty() { vec![one.to_owned()] } else { said }
        };
        let subjects = or_else(claims.subjects, &self.place);
        CallRequest {
            action: Action::Infer,
            model: None,
            deployment: Some(self.denied.deployment.clone()),
            data: Some(DataRequest {
                personal: true,
                categories: or_else(claims.categories, &self.category),
                subject_count: Some(claims.subject_count.unwrap_or(1)),
                subjects,
                location: None,
            }),
            passes: Vec::new(),
            modalities: Vec::new(),
            purpose: Some(self.purpose.clone()),
            audience: Some(or_else(claims.audience, &self.place)),
            location: Some(self.place.clone()),
            end_user: EndUser::parse("u-1842").ok(),
        }
    }

    /// Writes the names into the examples of `document`, which are those of the example organisation.
    pub(super) fn fill(&self, document: &mut Value) {
        operations(document, |operation| {
            let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
            let model = if id == "createEmbedding" { &self.embedder } else { &self.model };
            let renamed = Renamed::new(self, model);
            operation.values_mut().for_each(|value| renamed.in_examples(value));
            let is_gateway = operation.get("tags") == Some(&json!(["gateway"]));
            if is_gateway {
                self.fill_claims(operation);
            }
        });
        for (path, at, call) in [
            ("/v1/decisions", "examples/personal_data/value", &self.pinned),
            ("/v1/decisions", "examples/no_personal_data/value", &self.plain),
            ("/v1/decisions/batch", "example/calls/0", &self.pinned),
            ("/v1/decisions/batch", "example/calls/1", &self.plain),
            ("/v1/explain", "example", &self.pinned),
        ] {
            let path = path.replace('/', "~1");
            let pointer = format!("/paths/{path}/post/requestBody/content/application~1json/{at}");
            if let Some(place) = document.pointer_mut(&pointer) {
                *place = json!(call);
            }
        }
    }

    /// The headers that a call of the app must have are sent by `Try it out`.
    fn fill_claims(&self, operation: &mut Map<String, Value>) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
            let said = name.strip_prefix(CLAIMS).and_then(|claim| self.claim(claim));
            if let (Some(said), Some(parameter)) = (said, parameter.as_object_mut()) {
                parameter.insert("example".to_owned(), said);
            }
        }
    }

    fn claim(&self, name: &str) -> Option<Value> {
        let data = self.plain.data.as_ref();
        let list = |words: &[String]| (!words.is_empty()).then(|| json!(words.join(",")));
        match name {
            "personal" => data.map(|data| json!(data.personal)),
            "data" => data.and_then(|data| list(&data.categories)),
            "subjects" => data.and_then(|data| list(&data.subjects)),
            "subject-count" => data.and_then(|data| Some(json!(data.subject_count?))),
            "purpose" => self.plain.purpose.as_ref().map(|purpose| json!(purpose)),
            "audience" => self.plain.audience.as_deref().and_then(list),
            "location" => self.plain.location.as_ref().map(|place| json!(place)),
            _ => None,
        }
    }
}

/// The names that can be sent as `model`, the preferred one first.
fn known_models(organisation: &Organisation, preferred: &str) -> Vec<String> {
    let virtual_models = organisation.virtual_models.keys().map(ToString::to_string);
    let models = organisation.models.keys().map(ToString::to_string);
    let mut names: Vec<String> = virtual_models.chain(models).collect();
    // What comes first keeps its order.
    names.sort_by_key(|name| name != preferred);
    names
}

/// A word of the vocabulary: the one that is known from the example, if it is there.
fn pick(words: Option<&BTreeSet<String>>, known: &str) -> String {
    let first = words.filter(|words| !words.contains(known)).and_then(BTreeSet::first);
    first.map_or(known, String::as_str).to_owned()
}

/// What stands in an example, and what takes its place.
struct Renamed {
    words: Vec<(String, String)>,
    tenant: (String, String),
}

impl Renamed {
    fn new(names: &Names, model: &str) -> Self {
        let of = Names::example();
        let rows = [
            (of.allowed.deployment, &names.allowed.deployment),
            (of.allowed.model, &names.allowed.model),
            (of.allowed.operator, &names.allowed.operator),
            (of.other, &names.other),
            (of.denied.deployment, &names.denied.deployment),
            (of.denied.model, &names.denied.model),
            (of.denied.operator, &names.denied.operator),
            (of.model, &model.to_owned()),
            (of.app, &names.app),
            (of.place, &names.place),
            (of.category, &names.category),
            (of.purpose, &names.purpose),
        ];
        let words = rows.map(|(from, to)| (from, to.clone())).to_vec();
        Self { words, tenant: (of.tenant, names.tenant.clone()) }
    }

    /// Looks for examples in `value`.
    fn in_examples(&self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    if matches!(key.as_str(), "example" | "examples") {
                        self.rename("", value);
                    } else {
                        self.in_examples(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.in_examples(item)),
            _ => {}
        }
    }

    /// Renames what is in an example under `key`.
    fn rename(&self, key: &str, value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.iter_mut().for_each(|(key, value)| self.rename(key, value));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.rename(key, item)),
            // `assistant` is a role as well as a model.
            Value::String(text) if key != "role" => self.rename_text(key, text),
            _ => {}
        }
    }
    fn rename_text(&self, key: &str, text: &mut String) {
        // One word can name a tenant and an operator.
        if matches!(key, "tenant" | "exporter") && *text == self.tenant.0 {
            text.clone_from(&self.tenant.1);
            return;
        }
        if let Some((_, to)) = self.words.iter().find(|(from, _)| from == text) {
            text.clone_from(to);
            return;
        }
        for (from, to) in std::iter::once(&self.tenant).chain(&self.words) {
            for quote in ['`', '"'] {
                let quoted = |name: &str| format!("{quote}{name}{quote}");
                *text = text.replace(&quoted(from), &quoted(to));
            }
        }
    }
}
