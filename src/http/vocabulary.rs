//! `GET /v1/vocabulary`: every word that a call may use, for those who do not have the operator's files.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    auth::AsCaller,
    gateway::{CLAIMS, FIELD, HEADER, usable},
    problem::problems,
};
use crate::{
    domain::{Action, JurisdictionCode, Revision},
    facts::{FactsAt, Jurisdiction, Snapshot, TermKind},
};

problems! { VocabularyProblems: Unauthenticated, Forbidden, Timeout, Internal }

/// The vocabulary's endpoint.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(vocabulary))
}

/// The words of calls, as the active snapshot knows them.
#[derive(Debug, Serialize, ToSchema)]
struct Vocabulary<'a> {
    /// What a model can be asked to do.
    actions: [Action; 4],
    /// Categories of data: `data.categories`.
    categories: Vec<&'a str>,
    /// Purposes: `purpose`.
    purposes: Vec<&'a str>,
    /// Jurisdictions: `data.subjects`, `data.location`, `audience`, `location`.
    jurisdictions: Vec<Place<'a>>,
    /// How the gateway is told what a call is about.
    claims: Vec<Claim>,
    /// Virtual models, models and deployments that the app could use: `model`.
    models: Vec<UsableModel>,
    /// The number of the snapshot.
    revision: Revision,
}

/// A jurisdiction.
#[derive(Debug, Serialize, ToSchema)]
struct Place<'a> {
    /// Its code.
    code: &'a JurisdictionCode,
    /// Its English name.
    name: &'a str,
    /// The country, for a subdivision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    within: Option<&'a JurisdictionCode>,
}

/// A claim, by its two names.
#[derive(Debug, Serialize, ToSchema)]
struct Claim {
    /// The header.
    header: String,
    /// The key in the body's `metadata`.
    metadata: String,
}

/// A name to send as `model`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsableModel {
    /// The name.
    pub(super) id: String,
    /// What it is the name of.
    pub(super) kind: NameKind,
    /// Other names for it; a `*` at the end stands for any rest.
    pub(super) aliases: Vec<String>,
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NameKind {
    /// Several deployments, by the organisation's own name.
    VirtualModel,
    /// A model, wherever it runs.
    Model,
    /// One deployment.
    Deployment,
}

/// List the words that a call may use.
///
/// Terms, places, claims, and the models and deployments that the policies would let the caller use, as in
/// `listModels`. A word that is not listed is refused.
#[utoipa::path(
    get, path = "/v1/vocabulary", tag = "decisions", operation_id = "listVocabulary",
    security(("api_key" = [])),
    responses((status = 200, description = "The words", body = Vocabulary,
        example = json!({
            "actions": ["infer", "embed", "fine_tune", "distil"],
            "categories": ["dpv-pd:Contact", "dpv-pd:Health"], "purposes": ["dpv:ServiceProvision"],
            "jurisdictions": [{"code": "CA", "name": "Canada"}, {"code": "CA-QC", "name": "Quebec", "within": "CA"}],
            "claims": [{"header": "x-lexgate-personal", "metadata": "lexgate_personal"}],
            "models": [{"id": "assistant", "kind": "virtual_model", "aliases": ["gpt-5*"]}],
            "revision": 7,
        })), VocabularyProblems),
)]
async fn vocabulary(State(shared): State<Arc<Shared>>, AsCaller(caller): AsCaller) -> Response {
    let judge = shared.gate.keeper().current();
    let models = usable(&judge, &caller);
    Json(Vocabulary::of(judge.snapshot(), models)).into_response()
}

impl<'a> Vocabulary<'a> {
    fn of(snapshot: &'a Snapshot, models: Vec<UsableModel>) -> Self {
        let facts = &snapshot.facts;
        let claim = |name: &str| Claim {
            header: format!("{HEADER}{name}"),
            metadata: format!("{FIELD}{}", name.replace('-', "_")),
        };
        let place = |(code, row): (&'a JurisdictionCode, &'a Jurisdiction)| Place {
            code,
            name: &row.name,
            within: row.within.as_ref(),
        };
        Self {
            actions: [Action::Infer, Action::Embed, Action::FineTune, Action::Distil],
            categories: terms(facts, TermKind::Category),
            purposes: terms(facts, TermKind::Purpose),
            jurisdictions: facts.jurisdictions.iter().map(place).collect(),
            claims: CLAIMS.into_iter().map(claim).collect(),
            models,
            revision: snapshot.digests.revision,
        }
    }
}

fn terms(facts: &FactsAt, kind: TermKind) -> Vec<&str> {
    facts.terms.get(&kind).into_iter().flatten().map(String::as_str).collect()
}
