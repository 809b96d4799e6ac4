//! `GET /v1/models`: what the caller could use, and nothing else.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Shared,
        auth::AsCaller,
        problem::{Problem, ProblemKind},
    },
    failure::{ErrorAnswer, Failure},
};
use crate::{
    domain::{Action, CallRequest, Caller, DataRequest, FieldFault, Verdict},
    facts::AppClaims,
    gate::{How, Judge},
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

fn row(id: &str, owned_by: &str) -> ModelRow {
    ModelRow { id: id.to_owned(), object: "model", created: 0, owned_by: owned_by.to_owned() }
}

/// List the models.
///
/// The organisation's virtual models, then its models: those that the policies would let the caller use
/// for data about nobody, or for the data that the organisation declares for the app, and that the
/// gateway can reach. What a call may do depends on what it declares.
#[utoipa::path(
    get, path = "/v1/models", tag = "gateway", operation_id = "listModels",
    security(("api_key" = [])),
    responses(
        (status = 200, description = "The models", body = ModelList,
            example = json!({"object": "list", "data": [{"id": "assistant", "object": "model", "created": 0, "owned_by": "lexgate"}]})),
        (status = 401, description = "A valid API key is required", body = ErrorAnswer,
            example = json!({"error": {"message": "the API key is not known", "type": "authentication_error", "param": null, "code": "invalid_api_key"}})),
        (status = 403, description = "The key lacks the role", body = ErrorAnswer,
            example = json!({"error": {"message": "this needs the role `caller`", "type": "permission_error", "param": null, "code": "insufficient_permissions"}})),
    ),
)]
pub(super) async fn models(
    State(shared): State<Arc<Shared>>,
    caller: Result<AsCaller, Problem>,
) -> Result<axum::Json<ModelList>, Failure> {
    let AsCaller(caller) = caller?;
    let judge = shared.gate.keeper().current();
    let organisation = &judge.snapshot().organisation;
    let virtual_models = organisation.virtual_models.keys().map(|id| row(id.as_str(), "lexgate"));
    let models = organisation.models.iter().map(|(id, model)| row(id.as_str(), &model.provider));
    let all = virtual_models.chain(models);
    let data = all.filter(|row| could_use(&judge, &caller, &row.id)).collect();
    Ok(axum::Json(ModelList { object: "list", data }))
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
            example = json!({"error": {"message": "this needs the role `caller`", "type": "permission_error", "param": null, "code": "insufficient_permissions"}})),
        (status = 404, description = "Unknown, or nothing that the caller could use", body = ErrorAnswer,
            example = json!({"error": {"message": "unknown model `gpt-9`: `GET /v1/models` lists the models", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})),
    ),
)]
pub(super) async fn model(
    State(shared): State<Arc<Shared>>,
    caller: Result<AsCaller, Problem>,
    Path(id): Path<String>,
) -> Result<axum::Json<ModelRow>, Failure> {
    let AsCaller(caller) = caller?;
    let judge = shared.gate.keeper().current();
    let organisation = &judge.snapshot().organisation;
    let made_by = |model: &str| organisation.models.get(model).map(|model| &*model.provider);
    let owner = if organisation.virtual_models.contains_key(&*id) {
        Some("lexgate")
    } else {
        let deployment = organisation.deployment(&id);
        made_by(deployment.map_or(&*id, |deployment| deployment.model.as_str()))
    };
    if let Some(owner) = owner.filter(|_| could_use(&judge, &caller, &id)) {
        return Ok(axum::Json(row(&id, owner)));
    }
    let id: String = id.chars().take(128).collect();
    let detail = format!("unknown model `{id}`: `GET /v1/models` lists the models");
    let fault = FieldFault::new("/model", detail);
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
