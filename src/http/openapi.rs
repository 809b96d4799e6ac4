//! The OpenAPI document, generated from the handlers, and the page that shows it.

use axum::Router;
use utoipa::{
    OpenApi,
    openapi::{
        OpenApi as Document,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::{gateway, problem, prompt_routes, tlog};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lexgate",
        description = "The checkpoint before an AI call. Every call is judged against policies on data \
            sovereignty and model licences; every decision is recorded before it is answered.\n\n\
            Failures are problem documents (RFC 9457), but for the OpenAI-compatible endpoints, which \
            answer in OpenAI's error shape. Every answer carries `x-request-id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
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

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> Document {
    let mut document = OpenApiRouter::with_openapi(Outline::openapi())
        .merge(prompt_routes())
        .merge(gateway::routes())
        .into_openapi();
    let components = document.components.get_or_insert_default();
    components.schemas.extend([problem::schema(), gateway::schema()]);
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, from `lexgate init` or `lexgate keys create`"))
        .build();
    components.add_security_scheme("api_key", SecurityScheme::Http(key));
    document
}

/// `/docs` and `/openapi.json`, with all assets in the binary.
pub(super) fn docs() -> Router {
    SwaggerUi::new("/docs").url("/openapi.json", openapi()).into()
}
