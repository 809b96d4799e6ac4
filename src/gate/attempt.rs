//! One attempt at one deployment, up to its answer or the first event of it; and what the result says
//! of the deployment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::{
    Gate, Recorded,
    course::Failure,
    dispatch::{ModelCall, ReplySender},
    outcome::Answered,
    stream::{Begun, begin, failure},
    trace::Attempting,
};
use crate::{
    dispatch::{
        BackendReply, BackendRequest, FieldsError, SendError, Standing, Trial, names_same_model,
    },
    facts::BackendAddress,
    ledger::{AttemptFailure, OutcomeStatus},
};

/// The largest answer in one piece that is taken from a backend.
const MAX_ANSWER: usize = 32 << 20;
/// In which steps room is taken for one.
const STEP: usize = 64 << 10;

/// One attempt.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) gate: &'a Gate,
    pub(super) call: &'a ModelCall,
    pub(super) recorded: &'a Arc<Recorded>,
    pub(super) tried: &'a Attempting,
}

/// How it ended, or goes on.
pub(super) enum Outcome {
    /// With an answer in one piece that the client gets.
    Whole { status: u16, content_type: String, body: Bytes, answered: Answered },
    /// With one that has begun to come.
    Stream { status: u16, content_type: String, begun: Box<Begun> },
    /// Without one; another deployment may be tried.
    Failed(Failure),
    /// The client has gone, or the process is ending: nobody waits any more.
    Given(OutcomeStatus),
}

impl Exchange<'_> {
    /// Sends the call once.
    pub(super) async fn run(
        self,
        address: &BackendAddress,
        trial: &Trial,
        reply: &mut ReplySender,
    ) -> Outcome {
        let started = Instant::now();
        // Whether anybody still waits comes first: nothing is sent for nobody.
        let result = tokio::select! {
            biased;
            () = reply.closed() => return Outcome::Given(OutcomeStatus::ClientDisconnected),
            () = self.gate.halt.cancelled() => return Outcome::Given(OutcomeStatus::Unknown),
            result = self.exchange(address) => result,
        };
        let elapsed = started.elapsed();
        metrics::histogram!("lexgate_dispatch_seconds").record(elapsed.as_secs_f64());
        match result {
            Ok(outcome) => {
                trial.began(elapsed);
                outcome
            }
            Err(failure) => {
                let (why, status) = (failure.why.as_str(), failure.status);
                tracing::warn!(why, status, seq = %self.recorded.seq, "an attempt failed");
                Outcome::Failed(failure)
            }
        }
    }

    async fn exchange(self, address: &BackendAddress) -> Result<Outcome, Failure> {
        let failed = |why| Failure { why, status: None, retry_after: None };
        let body = self.body_for(address).map_err(|_| failed(AttemptFailure::BadAnswer))?;
        let request = BackendRequest {
            path: self.call.endpoint.path(),
            body: body.into(),
            headers: self.call.headers.clone(),
            stream: self.call.stream,
            request_id: self.call.request_id.clone(),
            trace: self.tried.context(),
        };
        let first_byte = tokio::time::Instant::now() + address.timeouts.first_byte;
        let sent = self.gate.backends.send(address, request).await;
        let mut answer = sent.map_err(|error| {
            tracing::warn!(%error, seq = %self.recorded.seq, "a backend gave no answer");
            failed(failure(&error))
        })?;
        self.tried.began();
        let status = answer.status;
        let retry_after = answer.retry_after.as_deref().and_then(|text| self.seconds(text));
        let with_status = |why| Failure { why, status: Some(status), retry_after };
        if (300..400).contains(&status) {
            return Err(with_status(AttemptFailure::Redirected));
        }
        if !answer.is_final() {
            return Err(with_status(AttemptFailure::Status));
        }
        let content_type = answer.content_type.clone().unwrap_or_default();
        // A stream is handed on as it comes; anything else is read to its end first.
        if answer.is_event_stream() && self.call.stream {
            let begun = begin(self.call.endpoint, address, answer.body);
            let begun = tokio::time::timeout_at(first_byte, begun).await;
            let begun = begun.unwrap_or(Err(AttemptFailure::Timeout)).map_err(|why| Failure {
                why,
                status: Some(status),
                retry_after: None,
            })?;
            return Ok(Outcome::Stream { status, content_type, begun: Box::new(begun) });
        }
        if answer.media_type() != "application/json" {
            return Err(with_status(AttemptFailure::BadAnswer));
        }
        // An answer that was cut off has no status that would mean anything.
        let whole = self.read_whole(&mut answer).await.map_err(|error| failed(failure(&error)))?;
        let said = self.call.endpoint.read_answer(&whole);
        let said = said.ok_or_else(|| with_status(AttemptFailure::BadAnswer))?;
        if answer.is_success() {
            let names_another =
                said.model.as_ref().is_some_and(|model| !names_same_model(address, model));
            if said.is_error {
                return Err(with_status(AttemptFailure::ErrorInAnswer));
            }
            if names_another {
                return Err(with_status(AttemptFailure::WrongModel));
            }
        }
        let mut answered = Answered::default();
        answered.add(&said);
        Ok(Outcome::Whole { status, content_type, body: whole, answered })
    }

    /// What a failure says of the deployment.
    pub(super) fn judge(trial: Trial, standing: &Standing, failure: Failure) {
        let now = Instant::now();
        match (failure.why, failure.status) {
            (AttemptFailure::WrongModel, _) => {
                let model = &standing.address().model;
                standing.take_out(format!("its answer named another model than `{model}`"));
            }
            (AttemptFailure::Status, Some(429)) => trial.busy(now, failure.retry_after),
            (_, Some(503)) if failure.retry_after.is_some() => {
                trial.busy(now, failure.retry_after);
            }
            // It does not offer this API, which says nothing of how it is.
            (AttemptFailure::Status, Some(404 | 405 | 501)) => {}
            _ => trial.failed(now),
        }
    }

    /// The body with the backend's name for the model, and usage asked for where it is streamed.
    fn body_for(self, address: &BackendAddress) -> Result<Vec<u8>, FieldsError> {
        let mut body = self.call.body.clone();
        body.set("model", &address.model)?;
        if self.call.stream {
            self.call.endpoint.ask_for_usage(&mut body)?;
        }
        body.to_vec()
    }

    /// The whole answer, with the room that it takes for as long as it is kept.
    async fn read_whole(self, answer: &mut BackendReply) -> Result<Bytes, SendError> {
        let mut held = self.gate.used.answers.holder(self.recorded.body.caller.app.as_str());
        let mut whole = BytesMut::new();
        while let Some(piece) = answer.body.next().await {
            let piece = piece?;
            let read = whole.len() + piece.len();
            if read > MAX_ANSWER {
                return Err(SendError::TooLarge(MAX_ANSWER));
            }
            held.need(read.next_multiple_of(STEP)).await;
            whole.extend_from_slice(&piece);
        }
        Ok(held.keep(whole.freeze()))
    }

    /// `Retry-After`: seconds, or an instant (RFC 9110, section 10.2.3).
    fn seconds(self, text: &str) -> Option<Duration> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(at.duration_since(self.gate.clock.now())).ok()
    }
}

impl BackendReply {
    fn media_type(&self) -> &str {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        content_type.split(';').next().unwrap_or_default().trim()
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_event_stream(&self) -> bool {
        self.is_success() && self.media_type() == "text/event-stream"
    }

    /// Whether the client gets it: a success, or the backend's word that the request itself is wrong.
    /// Another deployment might do better with anything else.
    fn is_final(&self) -> bool {
        let request_is_wrong = (400..500).contains(&self.status)
            && ![401, 403, 404, 405, 408, 425, 429].contains(&self.status);
        self.is_success() || request_is_wrong
    }
}
