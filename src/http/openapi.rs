//! The OpenAPI document, generated from the handlers, and the page that shows it. The examples of the
//! document that a service serves are those of its active organisation.

mod bodies;
mod names;
mod parameters;
mod refine;

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router, body::Bytes, extract::State, http::header, response::IntoResponse, routing::get,
};
use serde_json::Value;
use utoipa::{
    OpenApi,
    openapi::{
        OpenApi as Generated,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{Shared, gateway, problem, prompt_routes, tlog};
use crate::domain::Revision;
pub(super) use names::Names;

const JSON: &str = "application/json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lexgate",
        description = "The checkpoint before an AI call. Every call is judged against policies on data \
            sovereignty and model licences; every decision is recorded before it is answered.\n\n\
            Failures are problem documents (RFC 9457), but for the OpenAI-compatible endpoints, which \
            answer in OpenAI's error shape. Every answer carries `x-request-id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "The operator of this Lexgate"),
    ),
    servers(
        (url = "/", description = "The service that serves this document"),
        (url = "http://127.0.0.1:8080", description = "A service on this machine, as `lexgate init` configures it"),
    ),
    paths(tlog::tile, tlog::entries),
    tags(
        (name = "decisions", description = "May this call be made? For application developers, role `caller`."),
        (name = "gateway", description = "OpenAI's API, judged before it leaves. Role `caller`."),
        (name = "audit", description = "The ledger, for regulators. Role `auditor`; each reading is recorded."),
        (name = "registers", description = "What officers decide: legal holds, and the erasure of persons. Role `officer`."),
        (name = "tlog", description = "The ledger as a transparency log (C2SP tlog-tiles), for the tools of others."),
        (name = "service", description = "The service itself, for operators."),
    ),
)]
struct Outline;

/// The OpenAPI document, with the names of the example organisation in its examples.
#[must_use]
pub fn openapi() -> Value {
    with_names(&Names::example())
}

fn with_names(names: &Names) -> Value {
    let mut document = serde_json::to_value(generated()).unwrap_or_default();
    bodies::describe(&mut document);
    refine::refine(&mut document);
    names.fill(&mut document);
    document
}

/// The document as the code says it.
pub(super) fn generated() -> Generated {
    let mut document = OpenApiRouter::with_openapi(Outline::openapi())
        .merge(prompt_routes())
        .merge(gateway::routes())
        .into_openapi();
    let components = document.components.get_or_insert_default();
    components.schemas.extend(problem::schemas());
    components.schemas.extend(gateway::schemas());
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, from `lexgate init` or `lexgate keys create`"))
        .build();
    components.add_security_scheme("api_key", SecurityScheme::Http(key));
    document
}

/// The document of the active snapshot, made once for each.
#[derive(Debug)]
struct Documents {
    shared: Arc<Shared>,
    made: Mutex<Option<(Revision, Bytes)>>,
}

impl Documents {
    fn current(&self) -> Bytes {
        let judge = self.shared.gate.keeper().current();
        let revision = judge.snapshot().digests.revision;
        // Held while it is made: who asks in between waits, and does not make it again.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, document)) = made.as_ref().filter(|(of, _)| *of == revision) {
            return document.clone();
        }
        let names = Names::of(&judge, &self.shared.keys);
        let document = Bytes::from(with_names(&names).to_string());
        *made = Some((revision, document.clone()));
        document
    }
}

/// `/docs` and `/openapi.json`, with all assets in the binary.
pub(super) fn docs(shared: Arc<Shared>) -> Router {
    let config = Config::from("/openapi.json").try_it_out_enabled(true);
    let page: Router<Arc<Documents>> = SwaggerUi::new("/docs").config(config).into();
    let documents = Documents { shared, made: Mutex::new(None) };
    page.route("/openapi.json", get(document)).with_state(Arc::new(documents))
}

async fn document(State(documents): State<Arc<Documents>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, JSON)], documents.current())
}
