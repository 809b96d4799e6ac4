//! HTTP: who asks, for what, and how the answer looks. Not what the answer is (`gate`).

mod audit;
mod auth;
mod body;
mod coding;
mod connections;
mod contents;
mod cors;
mod decided;
mod decisions;
mod examples;
mod export;
mod gateway;
mod holds;
mod limits;
mod missing;
mod observe;
mod openapi;
mod operations;
mod pace;
mod personal;
mod problem;
mod proofs;
mod reading;
mod refused;
mod service;
mod tlog;
mod vocabulary;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

pub use auth::Keys;
pub use connections::{Bounds, serve};
pub(crate) use decisions::ExplainAnswer;
pub(crate) use observe::RequestId;
pub use openapi::openapi;

use crate::gate::{Budget, Gate};
use problem::{Problem, ProblemKind};

/// How long a request may take that does not wait for a model.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every handler can reach.
#[derive(Debug)]
pub struct Shared {
    /// The gate.
    pub gate: Arc<Gate>,
    /// The API keys.
    pub keys: Keys,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Fires when the service is to end.
    pub draining: CancellationToken,
    /// What bodies may take.
    pub bodies: Bodies,
    /// The origins whose pages may call from a browser; `*` for all.
    pub cors_origins: Vec<String>,
}

/// What the bodies of requests may take.
#[derive(Debug)]
pub struct Bodies {
    /// Room.
    pub room: Arc<Budget>,
    /// How long one may stand still.
    pub patience: Duration,
}

/// The endpoints that answer from what is known, within seconds.
fn prompt_routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .merge(decisions::routes())
        .merge(vocabulary::routes())
        .merge(audit::routes())
        .merge(proofs::routes())
        .merge(export::routes())
        .merge(contents::routes())
        .merge(personal::routes())
        .merge(holds::routes())
        .merge(tlog::routes())
        .merge(service::routes())
}

/// The whole service.
pub fn router(shared: Arc<Shared>) -> Router {
    let (prompt, document) =
        prompt_routes().layer(middleware::from_fn(within_time)).split_for_parts();
    let watch = refused::Watch::new(shared.clone(), &document);
    let prompt = prompt.layer(middleware::from_fn_with_state(watch, refused::record));
    let (models, _) = gateway::routes().split_for_parts();
    let answers = operations::Answers::new(&openapi::generated());
    let cors = cors::layer(&shared.cors_origins);
    let router = Router::new()
        .merge(prompt)
        .merge(models)
        .method_not_allowed_fallback(missing::wrong_method)
        .fallback(missing::missing)
        .with_state(shared.clone())
        .merge(openapi::docs(shared.clone()))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(
                ProblemKind::Internal,
                "the service's log says more under this request's identifier",
            )
            .into_response()
        }))
        .layer(middleware::from_fn_with_state(shared, reading::watch));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(middleware::from_fn_with_state(answers, observe::observe))
}

async fn within_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(ProblemKind::Timeout, "no answer within 10 seconds").into_response(),
    }
}
