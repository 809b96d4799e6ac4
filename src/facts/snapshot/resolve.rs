//! From a call as it was typed to one in which every name is known, or every name that is not.

use super::Snapshot;
use crate::{
    domain::{
        AppId, Call, CallRequest, Data, DataRequest, FieldFault, JurisdictionCode, TenantId,
        meant_jurisdiction,
    },
    facts::{
        organisation::{Deployment, passes::passing},
        world::TermKind,
    },
    source::did_you_mean,
};

/// The most entries that a list of a call may hold.
const MAX_LIST: usize = 64;
/// How many names of a call are looked up among those that are known: more help no reader.
const MOST_HINTS: usize = 8;
/// The largest whole number that every JSON reader takes exactly.
const MAX_COUNT: u64 = (1 << 53) - 1;

/// What a code looks like, for those who write one that is not known.
const FORM: &str = "want an ISO 3166 code such as `DE` or `CA-QC`";

/// A call with everything that it refers to.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// The call.
    pub call: Call,
    /// The app's tenant.
    pub tenant: TenantId,
    /// The deployments that could serve it, in the organisation's order.
    pub candidates: Vec<&'a Deployment>,
}

/// Looks up every name of `request`, made by `app`.
///
/// # Errors
/// Each field that names something unknown, with what to do.
pub fn resolve<'a>(
    snapshot: &'a Snapshot,
    app: &AppId,
    request: &CallRequest,
) -> Result<Resolved<'a>, Vec<FieldFault>> {
    let mut names = Names { snapshot, faults: Vec::new() };
    let known = snapshot
        .organisation
        .apps
        .get(app)
        .and_then(|row| Some((row, snapshot.organisation.tenants.get(&row.tenant)?)));
    let Some((app, tenant)) = known else {
        return Err(vec![FieldFault::new(
            "",
            format!("the credential's app `{app}` is not in the organisation file"),
        )]);
    };
    let request =
        &*app.claims.tighten(request).map_err(|faults| names.misspelt(request, faults))?;
    let candidates = names.candidates(request);
    let (modalities, candidates) = names.taking(request, candidates);
    let (passes, candidates) = names.passing(request, candidates, &app.tenant);
    let data = request.data.as_ref().map(|data| names.data(data));
    let location = request.location.as_ref();
    let location = location.and_then(|code| names.jurisdiction("/location", code));
    // An answer that nobody meets needs no call: an empty audience is one that was not named.
    let audience = request.audience.as_ref().filter(|audience| !audience.is_empty());
    let audience = match (audience, &data) {
        (Some(audience), _) => names.jurisdictions("/audience", audience),
        (None, Some(data)) if !data.subjects.is_empty() => data.subjects.clone(),
        (None, _) => vec![tenant.domicile.clone()],
    };
    if let Some(purpose) = &request.purpose {
        names.term(TermKind::Purpose, "/purpose", purpose);
    }
    if !names.faults.is_empty() {
        return Err(names.faults);
    }
    let (model, asked_model) = names.model(request);
    let call = Call {
        action: request.action,
        asked_model,
        audience,
        data,
        deployment: request.deployment.as_deref().map(Into::into),
        location: location.unwrap_or_else(|| app.location.clone()),
        modalities,
        model,
        passes,
        purpose: request.purpose.clone(),
    };
    Ok(Resolved { call, tenant: app.tenant.clone(), candidates })
}

struct Names<'a> {
    snapshot: &'a Snapshot,
    faults: Vec<FieldFault>,
}

impl<'a> Names<'a> {
    fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(FieldFault::new(pointer, detail));
    }

    /// `faults` of a call that does not fit its app's claims; of a field with a name that is not known, that
    /// instead: a slip is why it does not fit.
    fn misspelt(&mut self, request: &CallRequest, faults: Vec<FieldFault>) -> Vec<FieldFault> {
        let _ = request.data.as_ref().map(|data| self.data(data));
        if let Some(purpose) = &request.purpose {
            self.term(TermKind::Purpose, "/purpose", purpose);
        }
        let mut all = std::mem::take(&mut self.faults);
        let is_explained =
            |fault: &FieldFault| all.iter().any(|one| one.pointer.starts_with(&fault.pointer));
        let rest: Vec<_> = faults.into_iter().filter(|fault| !is_explained(fault)).collect();
        all.extend(rest);
        all
    }

    /// Whether what is near to one more name is looked for.
    fn hints(&self) -> bool {
        self.faults.len() < MOST_HINTS
    }

    /// The model by the organisation's own name, and the alias under which it was asked for.
    fn model(&self, request: &CallRequest) -> (Option<String>, Option<String>) {
        let Some(asked) = &request.model else { return (None, None) };
        match self.snapshot.organisation.virtual_model(asked) {
            Some((id, _)) if id.as_str() != asked => (Some(id.to_string()), Some(asked.clone())),
            _ => (Some(asked.clone()), None),
        }
    }

    /// What the call needs its model to take, sorted, each once; and the candidates whose models do.
    fn taking(
        &mut self,
        request: &CallRequest,
        candidates: Vec<&'a Deployment>,
    ) -> (Vec<String>, Vec<&'a Deployment>) {
        self.length("/modalities", request.modalities.len());
        let is_word = |text: &String| {
            (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if let Some(at) = request.modalities.iter().position(|text| !is_word(text)) {
            let detail = "want a word of at most 32 letters, such as `image`";
            self.fault(format!("/modalities/{at}"), detail);
            return (Vec::new(), candidates);
        }
        let mut modalities: Vec<String> =
            request.modalities.iter().take(MAX_LIST).cloned().collect();
        modalities.sort();
        modalities.dedup();
        let models = &self.snapshot.organisation.models;
        let takes = |deployment: &&Deployment| {
            let model = models.get(&deployment.model);
            model.is_none_or(|model| modalities.iter().all(|one| model.takes(one)))
        };
        let has_some = !candidates.is_empty();
        let taking: Vec<_> = candidates.into_iter().filter(takes).collect();
        if has_some && taking.is_empty() {
            let what = modalities.join("`, `");
            self.fault("/modalities", format!("no deployment of this model takes `{what}`"));
        }
        (modalities, taking)
    }

    fn candidates(&mut self, request: &CallRequest) -> Vec<&'a Deployment> {
        let organisation = &*self.snapshot.organisation;
        let behind_model = request.model.as_ref().map(|model| {
            let found = organisation.deployments_of(model);
            if found.is_empty() {
                let model: String = model.chars().take(128).collect();
                let hint = did_you_mean(&model, organisation.model_names());
                self.fault("/model", unknown_model(&model, &hint));
            }
            found
        });
        let Some(id) = &request.deployment else {
            if behind_model.is_none() {
                self.fault("/model", "name a `model` or a `deployment`");
            }
            return behind_model.unwrap_or_default();
        };
        let Some(deployment) = organisation.deployment(id) else {
            let id: String = id.chars().take(128).collect();
            let known = organisation.deployments.iter().map(|deployment| deployment.id.as_str());
            let hint = did_you_mean(&id, known);
            self.fault("/deployment", format!("unknown deployment `{id}`{hint}"));
            return Vec::new();
        };
        let serves = |found: &Vec<&Deployment>| found.iter().any(|found| found.id == deployment.id);
        if behind_model.is_some_and(|found| !found.is_empty() && !serves(&found)) {
            self.fault("/deployment", format!("`{id}` does not serve the model that is asked for"));
        }
        vec![deployment]
    }

    /// What the call needs passed on, sorted, each once; and the candidates that do.
    fn passing(
        &mut self,
        request: &CallRequest,
        candidates: Vec<&'a Deployment>,
        tenant: &TenantId,
    ) -> (Vec<String>, Vec<&'a Deployment>) {
        self.length("/passes", request.passes.len());
        let mut passes: Vec<String> = request.passes.iter().take(MAX_LIST).cloned().collect();
        passes.sort();
        passes.dedup();
        if candidates.is_empty() {
            return (passes, candidates);
        }
        match passing(candidates, &passes, tenant, request.deployment.is_some()) {
            Ok(candidates) => (passes, candidates),
            Err(missing) => {
                let index = request.passes.iter().position(|field| *field == missing.field);
                self.fault(format!("/passes/{}", index.unwrap_or_default()), missing.detail);
                (passes, Vec::new())
            }
        }
    }

    fn data(&mut self, data: &DataRequest) -> Data {
        let mut categories = data.categories.clone();
        self.length("/data/categories", categories.len());
        for (index, category) in categories.iter().enumerate().take(MAX_LIST) {
            self.term(TermKind::Category, &format!("/data/categories/{index}"), category);
        }
        categories.sort();
        categories.dedup();
        let mut subjects = self.jurisdictions("/data/subjects", &data.subjects);
        subjects.sort();
        subjects.dedup();
        let location = data.location.as_ref();
        let location = location.and_then(|code| self.jurisdiction("/data/location", code));
        let subject_count = data.people();
        if subject_count > MAX_COUNT {
            self.fault("/data/subject_count", format!("larger than {MAX_COUNT}"));
        }
        Data { categories, location, personal: data.personal, subject_count, subjects }
    }

    fn length(&mut self, pointer: &str, length: usize) {
        if length > MAX_LIST {
            self.fault(pointer, format!("holds {length} entries; at most {MAX_LIST} are taken"));
        }
    }

    fn jurisdictions(&mut self, pointer: &str, codes: &[String]) -> Vec<JurisdictionCode> {
        self.length(pointer, codes.len());
        let codes = codes.iter().enumerate().take(MAX_LIST);
        codes
            .filter_map(|(index, code)| self.jurisdiction(&format!("{pointer}/{index}"), code))
            .collect()
    }

    fn jurisdiction(&mut self, pointer: &str, code: &str) -> Option<JurisdictionCode> {
        let facts = &self.snapshot.facts;
        let shown: String = code.chars().take(32).collect();
        let (fault, help) = if let Ok(code) = code.parse::<JurisdictionCode>() {
            match facts.place(code) {
                Ok(place) => return Some(place),
                Err(help) => (format!("unknown jurisdiction `{shown}`"), help),
            }
        } else {
            let help = meant_jurisdiction(&shown).or_else(|| facts.place_named(&shown));
            (format!("`{shown}` is not an ISO 3166 code"), help)
        };
        let detail = match help {
            _ if !self.hints() => fault,
            Some(help) => format!("{fault}: {help}"),
            None => format!("{fault}: {FORM}; `GET /v1/vocabulary` lists them"),
        };
        self.fault(pointer, detail);
        None
    }

    fn term(&mut self, kind: TermKind, pointer: &str, id: &str) {
        if !self.snapshot.facts.knows_term(kind, id) {
            let id: String = id.chars().take(128).collect();
            let hint = self.term_hint(kind, &id);
            self.fault(pointer, format!("unknown {} `{id}`{hint}", kind.noun()));
        }
    }

    fn term_hint(&self, kind: TermKind, id: &str) -> String {
        if !self.hints() {
            return String::new();
        }
        let terms = &self.snapshot.facts.terms;
        if let Some((kind, _)) = terms.iter().find(|(_, terms)| terms.contains(id)) {
            return format!(": it is a {}", kind.noun());
        }
        let known = terms.get(&kind).into_iter().flatten().map(String::as_str);
        let hint = did_you_mean(id, known);
        if hint.is_empty() { ": `GET /v1/vocabulary` lists them".to_owned() } else { hint }
    }
}

/// Says that no model has this name, and what may have been meant.
#[must_use]
pub fn unknown_model(name: &str, hint: &str) -> String {
    format!(
        "unknown model `{name}`{hint}{} `GET /v1/models` lists the models",
        if hint.is_empty() { ":" } else { "" }
    )
}
