//! The service about itself: is it up, can it work, what does it do all day.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    problem::{Problem, ProblemKind, problems},
};
use crate::gate::GateError;

/// How long the store may take to say that it can be written.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

problems! { ReadyProblems: LedgerUnavailable }

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
}

/// Whether the service can work: the store can be written, the log goes on from what was seen of it, the
/// clocks agree, and a snapshot is active.
#[utoipa::path(
    get, path = "/readyz", tag = "service", operation_id = "readyz",
    responses((status = 200, description = "It can", body = Readiness,
        example = json!({"status": "ready", "revision": 7})), ReadyProblems),
)]
async fn readyz(State(shared): State<Arc<Shared>>) -> Result<axum::Json<Readiness>, Problem> {
    let unready = |detail: &str| Problem::new(ProblemKind::LedgerUnavailable, detail);
    let works = async {
        shared.gate.is_ready().await?;
        Ok::<_, GateError>(shared.gate.store().writable().await?)
    };
    match timeout(STORE_PATIENCE, works).await {
        Ok(Ok(())) if !shared.draining.is_cancelled() => {
            let revision = shared.gate.keeper().current().snapshot().digests.revision.0;
            Ok(axum::Json(Readiness { status: "ready", revision }))
        }
        Ok(Ok(())) => Err(unready("the service is shutting down")),
        Ok(Err(error @ GateError::Halted(_))) => Err(unready(&error.to_string())),
        _ => Err(unready("the store cannot be written")),
    }
}

/// Metrics for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "service", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text format", body = String,
        content_type = "text/plain", example = json!("lexgate_decisions_total{decision=\"allow\",tier=\"on_device\"} 12"))),
)]
async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    shared.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render())
}
