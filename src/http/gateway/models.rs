//! `GET /v1/models`: what the caller could use, and nothing else.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Shared,
        auth::AsCaller,
        problem::{Problem, ProblemKind},
        vocabulary::{NameKind, UsableModel},
    },
    VERSION,
    failure::{ErrorAnswer, Failure},
};
use crate::{
    dispatch::Endpoint,
    domain::{Action, CallRequest, Caller, DataRequest, FieldFault, Verdict},
    facts::{AppClaims, unknown_model},
    gate::{How, Judge},
    source::did_you_mean,
};

/// The models, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// Virtual models first, then models.
    data: Vec<ModelRow>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelRow {
    /// What to send as `model`.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Always 0: when a model was made decides nothing here.
    created: u64,
    /// Who made it; `lexgate` for a virtual model.
    owned_by: String,
}

/// The models, in Anthropic's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageModelList {
    /// Virtual models first, then models.
    data: Vec<MessageModel>,
    /// Always `false`: all of them are there.
    has_more: bool,
    /// The first one's `id`.
    first_id: Option<String>,
    /// The last one's `id`.
    last_id: Option<String>,
}

/// A model, in Anthropic's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageModel {
    /// Always `model`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What to send as `model`.
    id: String,
    /// The same.
    display_name: String,
    /// Always the beginning of 1970: when a model was made decides nothing here.
    created_at: &'static str,
}

impl From<ModelRow> for MessageModel {
    fn from(row: ModelRow) -> Self {
        let created_at = "1970-01-01T00:00:00Z";
        Self { kind: "model", display_name: row.id.clone(), id: row.id, created_at }
    }
}

/// The API whose client asks, by the header that every one of Anthropic's sends.
fn asked_by(headers: &HeaderMap) -> Endpoint {
    if headers.contains_key(VERSION) { Endpoint::Messages } else { Endpoint::ChatCompletions }
}

fn row(id: &str, owned_by: &str) -> ModelRow {
    ModelRow { id: id.to_owned(), object: "model", created: 0, owned_by: owned_by.to_owned() }
}

/// List the models.
///
/// The organisation's virtual models, then its models: those that the policies would let the caller use
/// for data about nobody, or for the data that the organisation declares for the app, and that the
/// gateway can reach. What a call may do depends on what it declares. With the header `anthropic-version`
/// the answer has Anthropic's shape.
#[utoipa::path(
    get, path = "/v1/models", tag = "gateway", operation_id = "listModels",
    security(("api_key" = [])),
    responses(
        (status = 200, description = "The models", body = ModelList,
            example = json!({"object": "list", "data": [{"id": "assistant", "object": "model", "created": 0, "owned_by": "lexgate"}]})),
        (status = 401, description = "A valid API key is required", body = ErrorAnswer,
            example = json!({"error": {"message": "the API key is not known", "type": "authentication_error", "param": null, "code": "invalid_api_key"}})),
        (status = 403, description = "The key lacks the role", body = ErrorAnswer,
            example = json!({"error": {"message": "this needs the role `caller`: the API key `auditor` has `auditor`", "type": "permission_error", "param": null, "code": "insufficient_permissions"}})),
    ),
)]
pub(super) async fn models(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    caller: Result<AsCaller, Problem>,
) -> Response {
    let asked_by = asked_by(&headers);
    let caller = match caller {
        Ok(AsCaller(caller)) => caller,
        Err(problem) => return Failure::from(problem).answer(asked_by),
    };
    let judge = shared.gate.keeper().current();
    let organisation = &judge.snapshot().organisation;
    let virtual_models = organisation.virtual_models.keys().map(|id| row(id.as_str(), "lexgate"));
    let models = organisation.models.iter().map(|(id, model)| row(id.as_str(), &model.provider));
    let all = virtual_models.chain(models);
    let data = all.filter(|row| could_use(&judge, &caller, &row.id));
    if !asked_by.is_anthropics() {
        return Json(ModelList { object: "list", data: data.collect() }).into_response();
    }
    let data: Vec<MessageModel> = data.map(Into::into).collect();
    let id = |row: Option<&MessageModel>| row.map(|row| row.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Json(MessageModelList { data, has_more: false, first_id, last_id }).into_response()
}

/// Every name that `caller` could send as `model`: virtual models, models, deployments.
pub(in crate::http) fn usable(judge: &Judge, caller: &Caller) -> Vec<UsableModel> {
    let organisation = &judge.snapshot().organisation;
    let virtual_models = organisation.virtual_models.iter().map(|(id, model)| UsableModel {
        id: id.to_string(),
        kind: NameKind::VirtualModel,
        aliases: model.aliases.clone(),
    });
    let bare = |id: &str, kind| UsableModel { id: id.to_owned(), kind, aliases: Vec::new() };
    let models = organisation.models.keys().map(|id| bare(id.as_str(), NameKind::Model));
    let deployments = organisation.deployments.iter();
    let deployments = deployments.map(|row| bare(row.id.as_str(), NameKind::Deployment));
    let all = virtual_models.chain(models).chain(deployments);
    all.filter(|one| could_use(judge, caller, &one.id)).collect()
}

/// Look up a model.
///
/// A virtual model, a model or a deployment, if the caller could use it.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "gateway", operation_id = "retrieveModel",
    security(("api_key" = [])),
    params(("id" = String, Path, description = "The model", example = "assistant")),
    responses(
        (status = 200, description = "The model", body = ModelRow,
            example = json!({"id": "assistant", "object": "model", "created": 0, "owned_by": "lexgate"})),
        (status = 401, description = "A valid API key is required", body = ErrorAnswer,
            example = json!({"error": {"message": "the API key is not known", "type": "authentication_error", "param": null, "code": "invalid_api_key"}})),
        (status = 403, description = "The key lacks the role", body = ErrorAnswer,
            example = json!({"error": {"message": "this needs the role `caller`: the API key `auditor` has `auditor`", "type": "permission_error", "param": null, "code": "insufficient_permissions"}})),
        (status = 404, description = "Unknown, or nothing that the caller could use", body = ErrorAnswer,
            example = json!({"error": {"message": "unknown model `gpt-9`: `GET /v1/models` lists the models", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})),
    ),
)]
pub(super) async fn model(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    caller: Result<AsCaller, Problem>,
    Path(id): Path<String>,
) -> Response {
    let asked_by = asked_by(&headers);
    match found(&shared, caller, &id) {
        Ok(row) if asked_by.is_anthropics() => Json(MessageModel::from(row)).into_response(),
        Ok(row) => Json(row).into_response(),
        Err(failure) => failure.answer(asked_by),
    }
}

fn found(
    shared: &Shared,
    caller: Result<AsCaller, Problem>,
    id: &str,
) -> Result<ModelRow, Failure> {
    let AsCaller(caller) = caller?;
    let judge = shared.gate.keeper().current();
    let organisation = &judge.snapshot().organisation;
    let made_by = |model: &str| organisation.models.get(model).map(|model| &*model.provider);
    let owner = if organisation.virtual_model(id).is_some() {
        Some("lexgate")
    } else {
        let deployment = organisation.deployment(id);
        made_by(deployment.map_or(id, |deployment| deployment.model.as_str()))
    };
    if let Some(owner) = owner.filter(|_| could_use(&judge, &caller, id)) {
        return Ok(row(id, owner));
    }
    let id: String = id.chars().take(128).collect();
    let hint = did_you_mean(&id, organisation.model_names());
    let fault = FieldFault::new("/model", unknown_model(&id, &hint));
    Err(Problem::fields(ProblemKind::InvalidRequest, vec![fault]).into())
}

/// Whether some call of the app to `name` would be allowed, to a deployment that has a backend.
fn could_use(judge: &Judge, caller: &Caller, name: &str) -> bool {
    let organisation = &judge.snapshot().organisation;
    let Some(app) = organisation.apps.get(&caller.app) else { return false };
    let is_deployment = organisation.deployment(name).is_some();
    [Action::Infer, Action::Embed].into_iter().any(|action| {
        let mut request = least(&app.claims, app.location.as_str());
        request.action = action;
        request.model = (!is_deployment).then(|| name.to_owned());
        request.deployment = is_deployment.then(|| name.to_owned());
        let Ok(decided) = judge.decide(caller, &request, &How::default()) else { return false };
        decided.body.candidates.iter().any(|candidate| {
            let deployment = organisation.deployment(candidate.deployment.as_str());
            candidate.decision == Verdict::Allow
                && deployment.is_some_and(|deployment| deployment.backend.is_some())
        })
    })
}

/// The least that a call of an app must say: what the organisation says of it, and for what each call
/// must say itself, the place from which it calls.
pub(in crate::http) fn least(claims: &AppClaims, here: &str) -> CallRequest {
    use crate::facts::ClaimName::{Audience, Location, Purpose, SubjectCount, Subjects};
    let requires = |claim| claims.required.contains(&claim);
    let here = |claim| if requires(claim) { vec![here.to_owned()] } else { Vec::new() };
    let subjects =
        if claims.subjects.is_empty() { here(Subjects) } else { claims.subjects.clone() };
    let personal = claims.personal.unwrap_or(!subjects.is_empty());
    CallRequest {
        passes: Vec::new(),
        modalities: Vec::new(),
        action: Action::Infer,
        model: None,
        deployment: None,
        data: Some(DataRequest {
            personal,
            categories: claims.categories.clone(),
            subject_count: requires(SubjectCount)
                .then(|| claims.subject_count.unwrap_or(u64::from(personal))),
            subjects,
            location: None,
        }),
        purpose: requires(Purpose)
            .then(|| claims.purpose.clone().unwrap_or_else(|| "dpv:ServiceProvision".to_owned())),
        audience: requires(Audience).then(|| {
            if claims.audience.is_empty() { here(Audience) } else { claims.audience.clone() }
        }),
        location: here(Location).pop().map(|here| claims.location.clone().unwrap_or(here)),
        end_user: None,
    }
}
