//! A witness over HTTP, as C2SP tlog-witness has it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use super::{Refusal, Witness};
use crate::domain::Clock;

/// The largest request, in bytes.
const BODY: usize = 64 << 10;
const TEXT: &str = "text/plain; charset=utf-8";

/// The witness's endpoints.
pub fn router(witness: Arc<Witness>, clock: Arc<dyn Clock>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state((witness, clock))
}

async fn add_checkpoint(
    State((witness, clock)): State<(Arc<Witness>, Arc<dyn Clock>)>,
    body: String,
) -> Response {
    let time = u64::try_from(clock.now().as_second()).unwrap_or_default();
    let answer = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, time)).await;
    match answer {
        Ok(Ok(line)) => ([(header::CONTENT_TYPE, TEXT)], line).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::UnknownLog => StatusCode::NOT_FOUND,
        Refusal::Unsigned => StatusCode::FORBIDDEN,
        Refusal::OtherSize(size) => {
            let kind = [(header::CONTENT_TYPE, "text/x.tlog.size")];
            return (StatusCode::CONFLICT, kind, format!("{size}\n")).into_response();
        }
        Refusal::Forked(_) => {
            tracing::error!(%refusal, "a checkpoint was not cosigned");
            StatusCode::CONFLICT
        }
        Refusal::Inconsistent(_) => {
            tracing::error!(%refusal, "a checkpoint was not cosigned");
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Refusal::Storage(_) => {
            tracing::error!(%refusal, "a checkpoint was not cosigned");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, [(header::CONTENT_TYPE, TEXT)], format!("{refusal}\n")).into_response()
}
