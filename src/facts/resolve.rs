//! From a call as it was typed to one in which every name is known, or every name that is not.

use super::{organisation::Deployment, passes::passing, snapshot::Snapshot, world::TermKind};
use crate::domain::{
    AppId, Call, CallRequest, Data, DataRequest, FieldFault, JurisdictionCode, TenantId,
};

/// The most entries that a list of a call may hold.
const MAX_LIST: usize = 64;
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
    let request = &*app.claims.tighten(request)?;
    let candidates = names.candidates(request);
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
    let call = Call {
        action: request.action,
        audience,
        data,
        deployment: request.deployment.as_deref().map(Into::into),
        location: location.unwrap_or_else(|| app.location.clone()),
        model: request.model.clone(),
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

    fn candidates(&mut self, request: &CallRequest) -> Vec<&'a Deployment> {
        let organisation = &*self.snapshot.organisation;
        let behind_model = request.model.as_ref().map(|model| {
            let found = organisation.deployments_of(model);
            if found.is_empty() {
                let model: String = model.chars().take(128).collect();
                self.fault(
                    "/model",
                    format!("unknown model `{model}`: `GET /v1/models` lists the models"),
                );
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
            self.fault("/deployment", format!("unknown deployment `{id}`"));
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
        let parsed =
            code.parse::<JurisdictionCode>().map_err(|error| match facts.place_named(code) {
                Some(help) => format!("`{code}` is not an ISO 3166 code: {help}"),
                None => error.to_string(),
            });
        let place = parsed.and_then(|code| {
            let unknown = format!("unknown jurisdiction `{code}`");
            facts.place(code).map_err(|help| {
                let help = help.unwrap_or_else(|| FORM.to_owned());
                format!("{unknown}: {help}")
            })
        });
        place.map_err(|detail| self.fault(pointer, detail)).ok()
    }

    fn term(&mut self, kind: TermKind, pointer: &str, id: &str) {
        if !self.snapshot.facts.knows_term(kind, id) {
            let id: String = id.chars().take(128).collect();
            let kind = kind.noun();
            self.fault(
                pointer,
                format!("unknown {kind} `{id}`: the vocabulary is in `facts/vocabulary.toml`"),
            );
        }
    }
}
