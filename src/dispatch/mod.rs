//! Sending an approved call to a backend, and reading what comes back. Not whether it may be sent
//! (`gate`), nor what the record says of it (`ledger`).

mod backends;
mod breaker;
mod client;
#[cfg(test)]
mod client_tests;
mod connections;
mod credentials;
pub(crate) mod encoding;
mod ending;
mod endpoint;
mod fields;
mod health;
mod identity;
mod label;
mod outgoing;
mod probe;
mod refusal;
mod secret;
mod sse;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use client::OpenAiClient;
pub use connections::TlsFault;
pub use credentials::KeyError;
pub use ending::{Break, Progress};
pub use endpoint::{Endpoint, Said};
pub use fields::{Fields, FieldsError};
pub use health::{Contradiction, Fleet, Probed, Standing, Trial};
pub use identity::{Expected, Question, Server, names_same_model};
pub use label::{Labelled, Labeller};
pub use outgoing::Permit;
pub use refusal::{is_of_account, says_why};
pub use secret::{Grants, SecretFault, SecretSource, Secrets};
pub use sse::{Event, Events, MAX_EVENT};

use crate::{facts::BackendAddress, telemetry::TraceContext};

/// One request to an OpenAI-compatible backend.
#[derive(Clone, Debug)]
pub struct BackendRequest {
    /// The path below the backend's base URL, such as `/chat/completions`.
    pub path: &'static str,
    /// The JSON body, with the backend's own name for the model, in pieces that follow one another.
    pub body: Vec<Bytes>,
    /// Says whether it may be sent, when connection and key are there.
    pub permit: Arc<dyn Permit>,
    /// Headers that it gets beside Lexgate's own.
    pub headers: Vec<(&'static str, String)>,
    /// Whether the answer is to come in chunks.
    pub stream: bool,
    /// The identifier under which the caller knows the request.
    pub request_id: String,
    /// The attempt's place in a trace, where there is one.
    pub trace: Option<TraceContext>,
}

/// What a backend answers, as soon as it begins to.
pub struct BackendReply {
    /// The HTTP status.
    pub status: u16,
    /// The content type, where it names one.
    pub content_type: Option<String>,
    /// Its `Retry-After`, where it sends one.
    pub retry_after: Option<String>,
    /// The body, in pieces as they arrive.
    pub body: BoxStream<'static, Result<Bytes, SendError>>,
}

impl fmt::Debug for BackendReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendReply")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// Why a backend gave no whole answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Its key is not there: nothing was sent.
    #[error("{0}")]
    NoKey(#[from] KeyError),
    /// Its certificates cannot be judged: nothing was sent.
    #[error("{0}")]
    Tls(#[from] TlsFault),
    /// It was to be asked at another host than its own, to which its key may not go: nothing was sent.
    #[error("a question to another host than the backend's")]
    Elsewhere,
    /// It may not be sent any more: nothing of its body was.
    #[error("the call may not be sent any more")]
    NoLongerAllowed,
    /// It could not be asked: nothing was sent.
    #[error("the backend cannot be reached: {}", cause(.0))]
    Unreachable(#[source] reqwest::Error),
    /// It broke off.
    #[error("the backend broke off: {}", cause(.0))]
    Broken(#[source] reqwest::Error),
    /// It took too long.
    #[error("the backend took too long: no {0} in time")]
    Timeout(&'static str),
    /// It sent what is no stream of events.
    #[error("the backend's answer is not an event stream: a line ends in a bare carriage return")]
    NoEvents,
    /// It compressed its answer in a way that cannot be undone.
    #[error("the backend's answer cannot be decompressed: {0}")]
    Coding(String),
    /// It sent more than is taken.
    #[error("the backend's answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// What lies at the bottom of an error: the library's own words on top say only that there is one.
fn cause(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause
}

/// Something that takes requests for deployments.
#[async_trait]
pub trait Backends: Send + Sync + fmt::Debug {
    /// Sends `request` to the backend at `address`, once and only while its permit holds, and returns when
    /// the answer begins.
    async fn send(
        &self,
        address: &BackendAddress,
        request: BackendRequest,
    ) -> Result<BackendReply, SendError>;

    /// Asks the backend that `expected` describes who and how it is.
    async fn probe(&self, expected: &Expected<'_>) -> Probed;
}
