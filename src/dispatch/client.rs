//! The HTTP client for backends: what goes out, within which limits, and what comes back. Where keys
//! come from is in [`super::credentials`], how connections are made in [`super::connections`].

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use reqwest::{
    RequestBuilder, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    BackendReply, BackendRequest, Backends, Endpoint, Expected, Grants, Probed, SendError,
    connections::Connections,
    credentials::{Credentials, Key},
    outgoing::Outgoing,
    probe::probe,
};
use crate::{facts::BackendAddress, telemetry::TraceContext};

/// Where Anthropic's API takes a key.
const X_API_KEY: &str = "x-api-key";
/// The largest answer to a question without a body.
const MOST_TOLD: usize = 1 << 20;

/// Speaks to every backend of the organisation: only to configured hosts, redirects not followed.
#[derive(Debug)]
pub struct OpenAiClient {
    credentials: Credentials,
    connections: Connections,
}

/// When an attempt is over, whatever has come.
#[derive(Clone, Copy, Debug)]
struct Limits {
    first_byte: Instant,
    between_chunks: Duration,
    total: Instant,
}

impl OpenAiClient {
    /// A client with TLS by ring, which reads nothing of this machine for a backend but what `grants` list.
    #[must_use]
    pub fn new(grants: Grants) -> Self {
        // A second call finds the provider installed already, by itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            credentials: Credentials::new(grants.secrets),
            connections: Connections::new(grants.ca_files),
        }
    }

    /// Asks the backend at `address` a question without a body; `url` is on the host of its API. `limit` is
    /// for the answer: a command that gives the key has its own.
    ///
    /// # Errors
    /// When `url` is elsewhere, when there is no whole answer within `limit`, or one of more than 1 MiB.
    pub async fn get(
        &self,
        address: &BackendAddress,
        url: &str,
        limit: Duration,
    ) -> Result<(u16, Bytes), SendError> {
        let url = on_the_host_of(address, url)?;
        let (client, key) = self.ready(address).await?;
        let mut call = client.get(url);
        if let Some(key) = &key {
            call = call.header(AUTHORIZATION, key.bearer());
        }
        let asked = async {
            let mut response = self.sent(address, call, key.as_ref()).await?;
            let mut told = BytesMut::new();
            while let Some(piece) = response.chunk().await.map_err(broken)? {
                if told.len() + piece.len() > MOST_TOLD {
                    return Err(SendError::TooLarge(MOST_TOLD));
                }
                told.extend_from_slice(&piece);
            }
            Ok((response.status().as_u16(), told.freeze()))
        };
        timeout(limit, asked).await.unwrap_or(Err(SendError::Timeout("answer")))
    }

    /// What a request to `address` needs. It too has an end: files may lie on disks that do not answer.
    async fn ready(
        &self,
        address: &BackendAddress,
    ) -> Result<(reqwest::Client, Option<Key>), SendError> {
        let made = async {
            let client = self.connections.client(address).await?;
            let key = match &address.key {
                Some(source) => Some(self.credentials.key(source).await?),
                None => None,
            };
            Ok((client, key))
        };
        timeout(address.timeouts.total, made).await.unwrap_or(Err(SendError::Timeout("key")))
    }

    /// Sends `call`, which holds `key`, up to the headers of the answer.
    async fn sent(
        &self,
        address: &BackendAddress,
        call: RequestBuilder,
        key: Option<&Key>,
    ) -> Result<Response, SendError> {
        let response = call.send().await.map_err(broken)?;
        if matches!(response.status().as_u16(), 401 | 403)
            && let (Some(source), Some(key)) = (&address.key, key)
        {
            self.credentials.refused(source, key);
        }
        Ok(response)
    }
}

#[async_trait]
impl Backends for OpenAiClient {
    async fn send(
        &self,
        address: &BackendAddress,
        request: BackendRequest,
    ) -> Result<BackendReply, SendError> {
        let total = Instant::now() + address.timeouts.total;
        let (client, key) = self.ready(address).await?;
        let accept = if request.stream { "text/event-stream" } else { "application/json" };
        let mut call = client
            .post(address.base_url.join(request.path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .header("x-request-id", request.request_id);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        for (name, value) in request.trace.iter().map(TraceContext::header) {
            call = call.header(name, value);
        }
        if let Some(key) = &key {
            call = call.header(AUTHORIZATION, key.bearer());
            if [Endpoint::Messages, Endpoint::CountTokens]
                .map(Endpoint::path)
                .contains(&request.path)
            {
                call = call.header(X_API_KEY, key.plain());
            }
        }
        let limits = Limits {
            first_byte: Instant::now() + address.timeouts.first_byte,
            between_chunks: address.timeouts.between_chunks,
            total,
        };
        let body = Outgoing::new(request.body, request.permit);
        let refused = body.refused();
        let sent = self.sent(address, call.body(reqwest::Body::wrap(body)), key.as_ref());
        let response = timeout_at(limits.first_byte.min(total), sent).await;
        let response = response.map_err(|_| SendError::Timeout("first byte"))?;
        let response = response
            .map_err(|error| if refused.is_so() { SendError::NoLongerAllowed } else { error })?;
        let header =
            |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Ok(BackendReply {
            status: response.status().as_u16(),
            content_type: header(CONTENT_TYPE).map(str::to_owned),
            retry_after: header(RETRY_AFTER).map(str::to_owned),
            body: chunks(response, limits, request.stream),
        })
    }

    async fn probe(&self, expected: &Expected<'_>) -> Probed {
        probe(self, expected).await
    }
}

/// `url`, which must be where the key of `address` may go.
fn on_the_host_of(address: &BackendAddress, url: &str) -> Result<Url, SendError> {
    let elsewhere = |_| SendError::Elsewhere;
    let url = Url::parse(url).map_err(elsewhere)?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if is_plain && url.origin() == address.base_url.origin() {
        Ok(url)
    } else {
        Err(SendError::Elsewhere)
    }
}

fn broken(error: reqwest::Error) -> SendError {
    // A request that cannot be built is not sent either.
    if error.is_connect() || error.is_builder() {
        SendError::Unreachable(error.without_url())
    } else if error.is_timeout() {
        SendError::Timeout("connection")
    } else {
        // The URL is configuration, not news; it may not reach a client.
        SendError::Broken(error.without_url())
    }
}

/// The body in pieces. The first of a streamed answer has the time of a first byte: many backends send
/// headers before they begin to think.
fn chunks(
    response: Response,
    limits: Limits,
    stream: bool,
) -> stream::BoxStream<'static, Result<Bytes, SendError>> {
    let first = if stream { limits.first_byte } else { Instant::now() };
    stream::unfold(Some((response, first)), move |state| async move {
        let (mut response, first) = state?;
        let next = first.max(Instant::now() + limits.between_chunks);
        let piece = timeout_at(next.min(limits.total), response.chunk()).await;
        match piece {
            Ok(Ok(Some(piece))) => Some((Ok(piece), Some((response, Instant::now())))),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some((Err(broken(error)), None)),
            Err(_) if next < limits.total => Some((Err(SendError::Timeout("next piece")), None)),
            Err(_) => Some((Err(SendError::Timeout("end of the answer")), None)),
        }
    })
    .boxed()
}
