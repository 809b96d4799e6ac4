//! What the entry of an outcome says: how a call ended, where it was tried, and where it was not.
//!
//! Fields stand in alphabetical order: their JSON is then canonical (RFC 8785) as it is written.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Commitment;
use crate::domain::{DeploymentId, Digest, Money, Retention, Seq};

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeBody {
    /// Each attempt, in order. Empty when the caller ran inference itself.
    pub attempts: Vec<Attempt>,
    /// What the answer cost, where the deployment has a price and the backend counted. Absent when not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cost: Option<Money>,
    /// The decision it belongs to.
    pub decision: DecisionRef,
    /// Commitment to the body of the request, as the client sent it. Absent where there is to be none,
    /// or Lexgate did not send the call.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub input_commitment: Option<Commitment>,
    /// The model that the backend, or the caller, says was served.
    pub model: Option<String>,
    /// Commitment to the body of the answer, as it was handed to the client: of a stream every event,
    /// without Lexgate's comments. Absent where no backend's answer was handed on.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub output_commitment: Option<Commitment>,
    /// How it ended in the caller's words, when the status is `reported`.
    pub reported: Option<ReportedStatus>,
    /// How long the record is kept: as long as its decision's.
    pub retention: Retention,
    /// The deployments that the law allows and that were passed over, with the reason. Absent when none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// How it ended.
    pub status: OutcomeStatus,
    /// What was consumed, where it is known.
    pub tokens: TokenCount,
}

/// A decision's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionRef {
    /// Its leaf hash, 64 hexadecimal digits.
    #[serde(with = "super::leaf_hex")]
    #[schema(value_type = String)]
    pub leaf: Digest,
    /// Its position.
    pub seq: Seq,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// An answer was received whole.
    Ok,
    /// Every backend that was tried failed, or one broke off.
    UpstreamError,
    /// No answer in time.
    Timeout,
    /// The client went away.
    ClientDisconnected,
    /// The caller ran inference itself and said how it ended.
    Reported,
    /// Nobody knows: the process that sent it ended first.
    Unknown,
}

impl OutcomeStatus {
    /// The word in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::ClientDisconnected => "client_disconnected",
            Self::Reported => "reported",
            Self::Unknown => "unknown",
        }
    }
}

/// How a call ended, in the words of the caller that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportedStatus {
    /// An answer was received whole.
    Ok,
    /// The backend failed.
    UpstreamError,
    /// No answer in time.
    Timeout,
    /// The end user went away.
    ClientDisconnected,
}

/// One try at one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Where it was sent.
    pub deployment: DeploymentId,
    /// Why it gave no answer that the client could have. Absent when it did.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub failure: Option<AttemptFailure>,
    /// When the answer, or the failure, was complete.
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub finished: Timestamp,
    /// The backend's HTTP status, where there was one.
    pub http_status: Option<u16>,
    /// When it was sent.
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
}

/// Why an attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptFailure {
    /// No connection, so nothing was sent.
    Unreachable,
    /// It broke off its answer.
    BrokeOff,
    /// It took too long.
    Timeout,
    /// Its HTTP status says that it failed or is busy.
    Status,
    /// It wanted the call to go to another address.
    Redirected,
    /// Its answer is none: of another type, broken, or larger than is taken.
    BadAnswer,
    /// Its answer is an error under a status of success.
    ErrorInAnswer,
    /// It served a model that nobody approved.
    WrongModel,
    /// Its key cannot be read, so nothing was sent.
    NoKey,
}

impl AttemptFailure {
    /// The word in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::BrokeOff => "broke_off",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Redirected => "redirected",
            Self::BadAnswer => "bad_answer",
            Self::ErrorInAnswer => "error_in_answer",
            Self::WrongModel => "wrong_model",
            Self::NoKey => "no_key",
        }
    }
}

/// A deployment that the law allows, and that a call was not sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Why.
    pub reason: SkipReason,
}

/// Why a deployment that the law allows was passed over.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It has no `backend`: callers run inference themselves.
    NoBackend,
    /// The policies or facts moved since the decision, and do not allow it any more.
    NoLongerAllowed,
    /// It is not what the catalogue says that it is.
    OutOfService,
    /// It failed too often lately.
    BreakerOpen,
    /// It says that it is not well, or does not answer when it is asked.
    Unhealthy,
    /// It asked to be left alone for a while.
    Busy,
    /// Too much waits in its queue, and another one could take the call.
    Full,
}

/// Tokens, as the backend counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCount {
    /// Tokens read.
    pub input: Option<u64>,
    /// Tokens written.
    pub output: Option<u64>,
}

/// A field that is absent, never `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
