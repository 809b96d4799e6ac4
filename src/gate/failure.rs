//! How an attempt failed: what that says of the deployment, whether another may be tried, and in which
//! words a client hears of it.

use std::time::{Duration, Instant};

use crate::{
    dispatch::{Break, SendError, Trial},
    ledger::{AttemptFailure, OutcomeStatus},
};

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) why: AttemptFailure,
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Duration>,
}

impl From<AttemptFailure> for Failure {
    fn from(why: AttemptFailure) -> Self {
        Self { why, status: None, retry_after: None }
    }
}

impl Failure {
    /// Whether the backend surely did nothing with the call.
    pub(super) fn is_untouched(self) -> bool {
        let refusals = [401, 402, 403, 404, 405, 408, 425, 429, 501, 503, 529];
        match self.why {
            AttemptFailure::Unreachable | AttemptFailure::NoKey | AttemptFailure::Redirected => {
                true
            }
            AttemptFailure::Status => self.status.is_some_and(|status| refusals.contains(&status)),
            _ => false,
        }
    }

    /// Whether the same deployment may answer when it is asked once more.
    pub(super) fn may_pass(self) -> bool {
        let passing = |status| matches!(status, 408 | 425 | 429 | 500 | 502..);
        match self.why {
            AttemptFailure::Unreachable | AttemptFailure::BrokeOff => true,
            AttemptFailure::Status => self.status.is_some_and(passing),
            _ => false,
        }
    }

    /// Tells what it says of the deployment, for its caller.
    pub(super) fn judge(self, trial: Trial) {
        let now = Instant::now();
        match (self.why, self.status) {
            // The key is missing here, not there.
            (AttemptFailure::NoKey, _) => {}
            (AttemptFailure::WrongModel, _) => trial.saw_another_model(now),
            (AttemptFailure::Status, Some(429)) => trial.busy(now, self.retry_after, true),
            (_, Some(503)) if self.retry_after.is_some() => {
                trial.busy(now, self.retry_after, false);
            }
            // Its key or its account is refused: that is not the request's fault.
            (AttemptFailure::Status, Some(401..=403)) => trial.failed(now),
            // Any other such status is about the request, or an API that it does not offer.
            (AttemptFailure::Status, Some(400..=499 | 501)) => {}
            _ => trial.failed(now),
        }
    }
}

/// What an error of the way is in the record's words.
pub(super) fn failure(error: &SendError) -> AttemptFailure {
    match error {
        SendError::Unreachable(_)
        | SendError::Tls(_)
        | SendError::Elsewhere
        | SendError::NoLongerAllowed => AttemptFailure::Unreachable,
        SendError::Broken(_) => AttemptFailure::BrokeOff,
        SendError::Timeout(_) => AttemptFailure::Timeout,
        SendError::TooLarge(_) | SendError::NoEvents | SendError::Coding(_) => {
            AttemptFailure::BadAnswer
        }
        SendError::NoKey(_) => AttemptFailure::NoKey,
    }
}

/// How an outcome says that its last attempt failed.
pub(super) fn status_of(failure: AttemptFailure) -> OutcomeStatus {
    match failure {
        AttemptFailure::Timeout => OutcomeStatus::Timeout,
        _ => OutcomeStatus::UpstreamError,
    }
}

/// What the client of a stream is told that broke for this reason; `None`: this process ends.
pub(super) const fn broken(failure: Option<AttemptFailure>) -> Break {
    let (code, message) = match failure {
        None => (
            "shutting_down",
            "the service is shutting down and cut this answer off; send the request again",
        ),
        Some(AttemptFailure::Timeout) => {
            ("upstream_timeout", "the backend took too long: its answer was cut off")
        }
        Some(AttemptFailure::BadAnswer) => (
            "upstream_error",
            "the backend broke off its answer: it sent what is not an event of this API",
        ),
        Some(AttemptFailure::ErrorInAnswer) => {
            ("upstream_error", "the backend broke off its answer with an error")
        }
        Some(AttemptFailure::WrongModel) => (
            "upstream_error",
            "the backend's answer was broken off: it named another model than the approved one",
        ),
        Some(_) => ("upstream_error", "the backend broke off its answer"),
    };
    Break { code, message }
}
