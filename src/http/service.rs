//! The service about itself: is it up, can it work, what does it do all day.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    problem::{Problem, ProblemKind, problems},
};
use crate::{domain::FieldFault, ledger::StoreSettings};

problems! { ReadyProblems: NotReady }

/// The service's own endpoints.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the process lives.
///
/// Checks nothing: it is for a supervisor that restarts a process that hangs.
#[utoipa::path(
    get, path = "/healthz", tag = "service", operation_id = "healthz",
    responses((status = 200, description = "It does", body = Health, example = json!({"status": "ok"}))),
)]
async fn healthz() -> axum::Json<Health> {
    axum::Json(Health { status: "ok" })
}

/// That the service can work.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Always `ready`.
    status: &'static str,
    /// The number of the snapshot that decides.
    revision: u64,
    /// Each check: `ok`.
    checks: BTreeMap<&'static str, &'static str>,
    /// What the store says of itself.
    #[schema(required = true)]
    store: Option<StoreSettings>,
}

/// Whether the service can work.
///
/// A row was written within the last second, the store is as it must be, the
/// log goes on from what was seen of it, the clocks agree, and the active snapshot may decide. Else `detail`
/// says what fails, and `errors` check by check.
#[utoipa::path(
    get, path = "/readyz", tag = "service", operation_id = "readyz",
    responses((status = 200, description = "It can", body = Readiness,
        example = json!({
            "status": "ready", "revision": 7,
            "checks": {"log": "ok", "snapshot": "ok", "store": "ok", "write": "ok"},
            "store": {
                "engine": "sqlite", "version": "3.46.0",
                "settings": {"journal_mode": "wal", "synchronous": "full"},
            },
        })), ReadyProblems),
)]
async fn readyz(State(shared): State<Arc<Shared>>) -> Result<axum::Json<Readiness>, Problem> {
    if shared.draining.is_cancelled() {
        return Err(Problem::new(ProblemKind::NotReady, "the service is shutting down"));
    }
    let found = shared.gate.readiness().await;
    let fault = found.fault();
    if !fault.is_empty() {
        let errors = found.failing();
        let errors = errors.map(|(name, fault)| FieldFault::new(format!("/checks/{name}"), fault));
        return Err(Problem {
            errors: errors.collect(),
            ..Problem::new(ProblemKind::NotReady, fault)
        });
    }
    let revision = shared.gate.keeper().current().snapshot().digests.revision.0;
    let checks = found.checks.iter().map(|check| (check.name, "ok")).collect();
    Ok(axum::Json(Readiness { status: "ready", revision, checks, store: found.store.clone() }))
}

/// Metrics for Prometheus.
///
/// In its text format, version 0.0.4. `docs/OPERATIONS.md` says what each one counts.
#[utoipa::path(
    get, path = "/metrics", tag = "service", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text format", body = String,
        content_type = "text/plain", example = json!("lexgate_decisions_total{decision=\"allow\",tier=\"on_device\"} 12"))),
)]
async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    shared.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render())
}
