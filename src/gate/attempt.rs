//! One attempt at one deployment, up to its answer or the first event of it; and what the result says
//! of the deployment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Gate, Recorded,
    call::Pass,
    course::Failure,
    dispatch::{ModelCall, ReplySender},
    outcome::Answered,
    stream::{Begun, begin, failure},
    trace::{Attempting, warn_of},
};
use crate::{
    dispatch::{
        BackendReply, BackendRequest, FieldsError, Said, SendError, Trial, names_same_model,
    },
    facts::BackendAddress,
    ledger::{AttemptFailure, OutcomeStatus},
};

/// The largest answer in one piece that is taken from a backend.
const MAX_ANSWER: usize = 32 << 20;
/// The longest refusal that is handed on in the backend's own words.
const MAX_WORDS: usize = 1 << 20;
/// In which steps room is taken for an answer.
const STEP: usize = 64 << 10;

/// One attempt.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) gate: &'a Gate,
    pub(super) call: &'a ModelCall,
    pub(super) recorded: &'a Arc<Recorded>,
    pub(super) tried: &'a Attempting,
    pub(super) pass: &'a Arc<Pass>,
}

/// How it ended, or goes on.
pub(super) enum Outcome {
    /// With an answer in one piece that the client gets.
    Whole { status: u16, content_type: String, body: Bytes, answered: Answered },
    /// With one that has begun to come.
    Stream { status: u16, content_type: String, begun: Box<Begun> },
    /// Without one; another deployment may be tried. With the backend's own words where it does not know
    /// what the call names.
    Failed(Failure, Option<Bytes>),
    /// It may not be sent any more, and was not.
    NoLongerAllowed,
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
                if outcome.is_success() {
                    trial.began(Instant::now(), elapsed);
                }
                outcome
            }
            Err(failure) => {
                let (why, status) = (failure.why.as_str(), failure.status);
                warn_of!(self.recorded, deployment = %self.tried.deployment(), why, status, "an attempt failed");
                Outcome::Failed(failure, None)
            }
        }
    }

    async fn exchange(self, address: &BackendAddress) -> Result<Outcome, Failure> {
        let failed = |why| Failure { why, status: None, retry_after: None };
        let body = self.body_for(address).map_err(|_| failed(AttemptFailure::BadAnswer))?;
        let request = BackendRequest {
            path: self.call.endpoint.path(),
            body,
            permit: self.pass.clone(),
            headers: self.call.headers.clone(),
            stream: self.call.stream,
            request_id: self.call.request_id.clone(),
            trace: self.tried.context(),
        };
        let first_byte = tokio::time::Instant::now() + address.timeouts.first_byte;
        let mut answer = match self.gate.backends.send(address, request).await {
            Ok(answer) => answer,
            Err(SendError::NoLongerAllowed) => return Ok(Outcome::NoLongerAllowed),
            Err(error) => {
                warn_of!(self.recorded, deployment = %self.tried.deployment(), %error, "a backend gave no answer");
                return Err(failed(failure(&error)));
            }
        };
        self.tried.began();
        let status = answer.status;
        let retry_after = answer.retry_after.as_deref().and_then(|text| self.seconds(text));
        let with_status = |why| Failure { why, status: Some(status), retry_after };
        if (300..400).contains(&status) {
            return Err(with_status(AttemptFailure::Redirected));
        }
        if status == 404 {
            let words = read_words(&mut answer, MAX_WORDS).await.filter(|words| says_why(words));
            return Ok(Outcome::Failed(with_status(AttemptFailure::Status), words));
        }
        if !answer.is_final() {
            return Err(with_status(AttemptFailure::Status));
        }
        if !answer.is_success() {
            return Ok(self.refused(&mut answer).await);
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
        // An answer that was cut off has no status that would mean anything. What is JSON is known by
        // itself: backends and their proxies name other types.
        let whole = self.read_whole(&mut answer).await.map_err(|error| failed(failure(&error)))?;
        let said = self.call.endpoint.read_answer(&whole);
        let said = said.ok_or_else(|| with_status(AttemptFailure::BadAnswer))?;
        if said.is_error {
            return Err(with_status(AttemptFailure::ErrorInAnswer));
        }
        if said.model.as_ref().is_some_and(|model| !names_same_model(address, model)) {
            return Err(with_status(AttemptFailure::WrongModel));
        }
        let content_type = answer.json_type();
        Ok(Outcome::whole(status, content_type, whole, Some(&said)))
    }

    /// The backend's word that the request itself is wrong: what is JSON as it is, anything else as an error
    /// of this API.
    async fn refused(self, answer: &mut BackendReply) -> Outcome {
        let status = answer.status;
        let words = read_words(answer, MAX_WORDS).await.unwrap_or_default();
        if serde_json::from_slice::<&RawValue>(&words).is_ok() {
            let said = self.call.endpoint.read_answer(&words);
            return Outcome::whole(status, answer.json_type(), words, said.as_ref());
        }
        let is_plain = answer.media_type() == "text/plain";
        let plain = str::from_utf8(&words).ok().filter(|_| is_plain);
        let body = self.call.endpoint.refusal(status, plain);
        Outcome::whole(status, JSON.to_owned(), body, None)
    }

    /// What a failure says of the deployment, for its caller.
    pub(super) fn judge(trial: Trial, failure: Failure) {
        let now = Instant::now();
        match (failure.why, failure.status) {
            (AttemptFailure::WrongModel, _) => trial.saw_another_model(now),
            (AttemptFailure::Status, Some(429)) => trial.busy(now, failure.retry_after, true),
            (_, Some(503)) if failure.retry_after.is_some() => {
                trial.busy(now, failure.retry_after, false);
            }
            // Its key or its account is refused: that is not the request's fault.
            (AttemptFailure::Status, Some(401..=403)) => trial.failed(now),
            // Any other such status is about the request, or an API that it does not offer.
            (AttemptFailure::Status, Some(400..=499 | 501)) => {}
            _ => trial.failed(now),
        }
    }

    /// The body with the backend's name for the model, and usage asked for where it is streamed.
    fn body_for(self, address: &BackendAddress) -> Result<Vec<Bytes>, FieldsError> {
        let mut body = self.call.body.clone();
        body.set("model", &address.model)?;
        if self.call.stream {
            self.call.endpoint.ask_for_usage(&mut body)?;
        }
        body.pieces()
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

impl Outcome {
    fn whole(status: u16, content_type: String, body: Bytes, said: Option<&Said>) -> Self {
        let mut answered = Answered::default();
        if let Some(said) = said {
            answered.add(said);
        }
        Self::Whole { status, content_type, body, answered }
    }

    /// Whether a backend has begun a good answer.
    fn is_success(&self) -> bool {
        match self {
            Self::Whole { status, .. } | Self::Stream { status, .. } => (200..300).contains(status),
            Self::Failed(..) | Self::NoLongerAllowed | Self::Given(_) => false,
        }
    }
}

/// The type of what is JSON.
const JSON: &str = "application/json";

impl BackendReply {
    /// The type under which JSON is handed on: the backend's own, where that says so.
    fn json_type(&self) -> String {
        let media_type = self.media_type();
        let says_so = media_type == JSON || media_type.ends_with("+json");
        let own = self.content_type.clone().filter(|_| says_so);
        own.unwrap_or_else(|| JSON.to_owned())
    }

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
    /// Another deployment might do better with anything else, such as an account that is empty (402).
    fn is_final(&self) -> bool {
        let request_is_wrong = (400..500).contains(&self.status)
            && ![401, 402, 403, 404, 405, 408, 425, 429].contains(&self.status);
        self.is_success() || request_is_wrong
    }
}

/// What a backend says of a request that it refuses; `None` when that breaks off, or is longer than `most`.
async fn read_words(answer: &mut BackendReply, most: usize) -> Option<Bytes> {
    let mut words = BytesMut::new();
    while let Some(piece) = answer.body.next().await {
        let piece = piece.ok().filter(|piece| words.len() + piece.len() <= most)?;
        words.extend_from_slice(&piece);
    }
    Some(words.freeze())
}

/// Whether these words are an API's, and not those of a server that knows no such path.
fn says_why(words: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Words<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    let words = serde_json::from_slice::<Words<'_>>(words).ok();
    words.and_then(|words| words.error).is_some_and(|error| error.get() != "null")
}
