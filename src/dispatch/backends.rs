//! What the gate asks of backends, answered by the HTTP client.

use async_trait::async_trait;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use super::{
    BackendReply, BackendRequest, Backends, Endpoint, Expected, OpenAiClient, Probed, SendError,
    client::{Limits, VERSION, bearing, broken, chunks},
    outgoing::Outgoing,
    probe::probe,
};
use crate::{
    facts::{Api, BackendAddress},
    telemetry::TraceContext,
};

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
        let is_messages =
            [Endpoint::Messages, Endpoint::CountTokens].map(Endpoint::path).contains(&request.path);
        let names_version = request.headers.iter().any(|(name, _)| *name == VERSION.0);
        let mut call = client
            .post(address.base_url.join(request.path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, "identity")
            .header("x-request-id", request.request_id);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        for (name, value) in request.trace.iter().map(TraceContext::header) {
            call = call.header(name, value);
        }
        if is_messages && !names_version {
            call = call.header(VERSION.0, VERSION.1);
        }
        // What Anthropic offers beside its own API reads keys as OpenAI does.
        let is_anthropic = is_messages && address.api != Some(Api::OpenAi);
        let api = if is_anthropic { Api::Anthropic } else { Api::OpenAi };
        let call = bearing(call, key.as_ref(), api);
        let timeouts = address.timeouts;
        let begin = if request.stream { timeouts.first_byte } else { timeouts.answer };
        let limits = Limits {
            begin: Instant::now() + begin,
            between_chunks: timeouts.between_chunks,
            total,
        };
        let body = Outgoing::new(request.body, request.permit);
        let refused = body.refused();
        let sent = call.body(reqwest::Body::wrap(body)).send();
        let response = timeout_at(limits.begin.min(total), sent).await;
        let response = response.map_err(|_| SendError::Timeout("first byte"))?;
        let response = response.map_err(broken);
        let response = response
            .map_err(|error| if refused.is_so() { SendError::NoLongerAllowed } else { error })?;
        self.heard(address, key.as_ref(), response.status().as_u16());
        let header =
            |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Ok(BackendReply {
            status: response.status().as_u16(),
            content_type: header(CONTENT_TYPE).map(str::to_owned),
            retry_after: header(RETRY_AFTER).map(str::to_owned),
            body: chunks(response, limits),
        })
    }

    async fn probe(&self, expected: &Expected<'_>) -> Probed {
        probe(self, expected).await
    }
}
