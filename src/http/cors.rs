//! Calls from web pages of other origins: only where the configuration names them.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer, ExposeHeaders};

/// What of an answer a page may read beside what every page may.
const READABLE: [&str; 20] = [
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "www-authenticate",
    "x-lexgate-decision",
    "x-lexgate-record",
    "x-lexgate-deployment",
    "x-lexgate-jurisdictions",
    "x-lexgate-duties",
    "x-lexgate-withheld",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-tokens-remaining",
];
/// For how long a browser remembers what it may.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Lets pages of these origins call, with a key of their own: no cookie is ever read. `None` where there are
/// none.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let named: Vec<HeaderValue> = origins.iter().filter_map(|one| one.parse().ok()).collect();
    if named.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(READABLE.map(HeaderName::from_static)))
        .max_age(REMEMBERED);
    Some(if origins == ["*"] {
        layer.allow_origin(Any)
    } else {
        layer.allow_origin(AllowOrigin::list(named))
    })
}
