//! The HTTP client for backends: what goes out, within which limits, and what comes back. Where keys
//! come from is in [`super::credentials`], how connections are made in [`super::connections`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use reqwest::{
    RequestBuilder, Response, Url,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Grants, SendError,
    connections::Connections,
    credentials::{Credentials, Key},
    encoding::decoded,
};
use crate::facts::{Api, BackendAddress};

/// Where Anthropic's API takes a key.
const X_API_KEY: &str = "x-api-key";
/// The header without which Anthropic's API answers nothing, and the version that its SDKs send.
pub(super) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
/// Where Anthropic's API is.
const ANTHROPIC: &str = "anthropic.com";
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
pub(super) struct Limits {
    /// Up to the headers, and to the first piece: many backends send headers before they begin to think.
    pub(super) begin: Instant,
    pub(super) between_chunks: Duration,
    pub(super) total: Instant,
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
        let ask = async |api| {
            let call = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            told(with_key(call, key.as_ref(), api)).await
        };
        let asked = async {
            let api = address.api.or_else(|| api_at(address.base_url.host()));
            let mut answer = ask(api.unwrap_or(Api::OpenAi)).await?;
            // Nothing says whose API it is: the other header may be the one that it reads.
            if api.is_none() && key.is_some() && is_refusal(answer.0) {
                answer = ask(Api::Anthropic).await?;
            }
            self.heard(address, key.as_ref(), answer.0);
            Ok(answer)
        };
        timeout(limit, asked).await.unwrap_or(Err(SendError::Timeout("answer")))
    }

    /// What a request to `address` needs. It too has an end: files may lie on disks that do not answer.
    pub(super) async fn ready(
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

    /// Notes that a backend answered with `status` to what held `key`.
    pub(super) fn heard(&self, address: &BackendAddress, key: Option<&Key>, status: u16) {
        if is_refusal(status)
            && let (Some(source), Some(key)) = (&address.key, key)
        {
            self.credentials.refused(source, key);
        }
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

pub(super) fn broken(error: reqwest::Error) -> SendError {
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

/// The body in pieces, as it was before a backend compressed it.
pub(super) fn chunks(
    response: Response,
    limits: Limits,
) -> stream::BoxStream<'static, Result<Bytes, SendError>> {
    let codings = codings(&response);
    let pieces = stream::unfold(Some((response, limits.begin)), move |state| async move {
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
    });
    // Some who read it ask once more at its end.
    decoded(pieces.fuse().boxed(), codings.iter().map(String::as_str))
}

fn codings(response: &Response) -> Vec<String> {
    let values = response.headers().get_all(CONTENT_ENCODING).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// Sends `call`, and reads a short answer to its end.
async fn told(call: RequestBuilder) -> Result<(u16, Bytes), SendError> {
    let response = call.send().await.map_err(broken)?;
    let (status, codings) = (response.status().as_u16(), codings(&response));
    let pieces = response.bytes_stream().map(|piece| piece.map_err(broken)).boxed();
    let mut pieces = decoded(pieces, codings.iter().map(String::as_str));
    let mut told = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if told.len() + piece.len() > MOST_TOLD {
            return Err(SendError::TooLarge(MOST_TOLD));
        }
        told.extend_from_slice(&piece);
    }
    Ok((status, told.freeze()))
}

/// `call` with `key` in the header in which `api` reads it, and in no other.
pub(super) fn bearing(call: RequestBuilder, key: Option<&Key>, api: Api) -> RequestBuilder {
    match (key, api) {
        (None, _) => call,
        (Some(key), Api::OpenAi) => call.header(AUTHORIZATION, key.bearer()),
        (Some(key), Api::Anthropic) => call.header(X_API_KEY, key.plain()),
    }
}

/// A question without a body, as `api` takes it.
fn with_key(call: RequestBuilder, key: Option<&Key>, api: Api) -> RequestBuilder {
    let call = if api == Api::Anthropic { call.header(VERSION.0, VERSION.1) } else { call };
    bearing(call, key, api)
}

/// Whose API is at `host`, where that is known.
fn api_at(host: &str) -> Option<Api> {
    let before = host.strip_suffix(ANTHROPIC);
    before
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        .then_some(Api::Anthropic)
}

/// Whether a status says that a key is not accepted.
const fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 403)
}
