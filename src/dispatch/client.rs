//! The HTTP client for OpenAI-compatible backends.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use tokio::time::timeout;

use super::{BackendReply, BackendRequest, Backends, Expected, Probed, SendError, probe::probe};
use crate::{
    facts::{BackendAddress, KeySource},
    telemetry::TraceContext,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer in one piece may take: it is written before its first byte is sent.
const WHOLE_ANSWER: Duration = Duration::from_secs(300);
/// How long the first byte of an answer in chunks may take.
const FIRST_BYTE: Duration = Duration::from_secs(120);
/// How long the next chunk may take.
const NEXT_CHUNK: Duration = Duration::from_secs(60);

/// Speaks to every backend of the organisation: only to configured hosts, redirects not followed.
#[derive(Clone, Debug)]
pub struct OpenAiClient(reqwest::Client);

impl OpenAiClient {
    /// A client with TLS by ring and the system's roots.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, SendError> {
        // A second call finds the provider installed already, by itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would be a place that no policy has judged.
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(SendError::Broken)?;
        Ok(Self(client))
    }
}

#[async_trait]
impl Backends for OpenAiClient {
    async fn send(
        &self,
        address: &BackendAddress,
        request: BackendRequest,
    ) -> Result<BackendReply, SendError> {
        let accept = if request.stream { "text/event-stream" } else { "application/json" };
        let mut call = self
            .0
            .post(format!("{}{}", address.base_url, request.path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .header("x-request-id", request.request_id);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        for (name, value) in request.trace.iter().flat_map(TraceContext::headers) {
            call = call.header(name, value);
        }
        if let Some(variable) = &address.key {
            call = call.header(AUTHORIZATION, bearer(variable)?);
        }
        let limit = if request.stream { FIRST_BYTE } else { WHOLE_ANSWER };
        let response = timeout(limit, call.body(request.body).send())
            .await
            .map_err(|_| SendError::Timeout("first byte"))?
            .map_err(broken)?;
        let header =
            |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Ok(BackendReply {
            status: response.status().as_u16(),
            content_type: header(CONTENT_TYPE).map(str::to_owned),
            retry_after: header(RETRY_AFTER).map(str::to_owned),
            body: chunks(response),
        })
    }

    async fn probe(&self, expected: &Expected<'_>) -> Probed {
        probe(self, expected).await
    }
}

impl OpenAiClient {
    /// Asks the backend at `address` a question without a body; `url` is below its own.
    ///
    /// # Errors
    /// When it gives no whole answer within `limit`.
    pub async fn get(
        &self,
        address: &BackendAddress,
        url: &str,
        limit: Duration,
    ) -> Result<(u16, bytes::Bytes), SendError> {
        let mut call = self.0.get(url).timeout(limit);
        if let Some(variable) = &address.key {
            call = call.header(AUTHORIZATION, bearer(variable)?);
        }
        let response = call.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await.map_err(broken)?))
    }
}

/// The key in the environment variable, marked so that it is never printed.
fn bearer(source: &KeySource) -> Result<HeaderValue, SendError> {
    let (KeySource::Environment(variable) | KeySource::Secret(variable)) = source;
    let missing = || SendError::NoKey(variable.to_owned());
    let key = std::env::var(variable).map_err(|_| missing())?;
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", key.trim())).map_err(|_| missing())?;
    value.set_sensitive(true);
    Ok(value)
}

fn broken(error: reqwest::Error) -> SendError {
    if error.is_connect() {
        SendError::Unreachable(error.without_url())
    } else if error.is_timeout() {
        SendError::Timeout("connection")
    } else {
        // The URL is configuration, not news; it may not reach a client.
        SendError::Broken(error.without_url())
    }
}

fn chunks(
    response: reqwest::Response,
) -> stream::BoxStream<'static, Result<bytes::Bytes, SendError>> {
    stream::unfold(Some(response), |response| async {
        let mut response = response?;
        match timeout(NEXT_CHUNK, response.chunk()).await {
            Ok(Ok(Some(chunk))) => Some((Ok(chunk), Some(response))),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some((Err(broken(error)), None)),
            Err(_) => Some((Err(SendError::Timeout("next chunk")), None)),
        }
    })
    .boxed()
}
