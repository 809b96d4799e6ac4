//! One attempt at one deployment, up to its answer or the first event of it; and what the result says
//! of the deployment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};

use super::{
    Gate, Recorded,
    call::Pass,
    dispatch::{ModelCall, ReplySender},
    failure::{Failure, failure},
    outcome::Answered,
    stream::{Begun, Reader, begin},
    trace::{Attempting, warn_of},
};
use crate::{
    dispatch::{
        BackendReply, BackendRequest, FieldsError, MAX_EVENT, Said, SendError, Trial,
        is_of_account, names_same_model, says_why,
    },
    facts::BackendAddress,
    ledger::{AttemptFailure, OutcomeStatus},
};

/// The largest answer in one piece that is taken from a backend.
const MAX_ANSWER: usize = MAX_EVENT;
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
    /// Whether usage is asked for, which the client has not asked for.
    pub(super) asks_usage: bool,
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
    /// It refuses what the client has not asked for: it may be sent once more, without.
    RefusedOurs(Failure),
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
        let body = self.body_for(address).map_err(|_| AttemptFailure::BadAnswer)?;
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
                return Err(failure(&error).into());
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
            let words = read_words(&mut answer, MAX_WORDS).await.filter(says_why);
            let words = words.map(|words| self.call.endpoint.refusal(status, &words));
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
        if self.call.stream {
            let looked = tokio::time::timeout_at(first_byte, answer.begins_events()).await;
            let looked = looked.unwrap_or(Err(SendError::Timeout("first event")));
            if looked.map_err(|error| with_status(failure(&error)))? {
                let begun = self.begin(address, answer.body);
                let begun = tokio::time::timeout_at(first_byte, begun).await;
                let begun = begun.unwrap_or(Err(AttemptFailure::Timeout)).map_err(with_status)?;
                let own = Some(content_type).filter(|own| own.starts_with(EVENTS));
                let content_type = own.unwrap_or_else(|| EVENTS.to_owned());
                return Ok(Outcome::Stream { status, content_type, begun: Box::new(begun) });
            }
        }
        // An answer that was cut off has no status that would mean anything. What is JSON is known by
        // itself: backends and their proxies name other types.
        let whole = self.read_whole(&mut answer).await.map_err(|error| failure(&error))?;
        let said = self.call.endpoint.read_answer(&whole);
        let said = said.ok_or_else(|| with_status(AttemptFailure::BadAnswer))?;
        if said.is_error {
            return Err(with_status(AttemptFailure::ErrorInAnswer));
        }
        if said.model.as_ref().is_some_and(|model| !names_same_model(address, model)) {
            return Err(with_status(AttemptFailure::WrongModel));
        }
        Ok(Outcome::whole(status, answer.json_type(), whole, Some(&said)))
    }

    async fn begin(
        self,
        address: &BackendAddress,
        body: stream::BoxStream<'static, Result<Bytes, SendError>>,
    ) -> Result<Begun, AttemptFailure> {
        let app = self.recorded.body.caller.app.as_str();
        begin(self.call.endpoint, address, Reader::new(body, &self.gate.used.answers, app)).await
    }

    /// The backend's word that the request itself is wrong, in a form in which the client's SDK prints it.
    async fn refused(self, answer: &mut BackendReply) -> Outcome {
        let status = answer.status;
        let words = read_words(answer, MAX_WORDS).await.unwrap_or_default();
        if self.asks_usage && matches!(status, 400 | 422) && names_usage(&words) {
            let why = AttemptFailure::Status;
            return Outcome::RefusedOurs(Failure { status: Some(status), ..why.into() });
        }
        if is_of_account(&words) {
            let why = AttemptFailure::Status;
            return Outcome::Failed(Failure { status: Some(status), ..why.into() }, None);
        }
        let said = self.call.endpoint.read_answer(&words);
        let content_type = said.as_ref().map_or_else(|| JSON.to_owned(), |_| answer.json_type());
        let body = self.call.endpoint.refusal(status, &words);
        Outcome::whole(status, content_type, body, said.as_ref())
    }

    /// The body with the backend's name for the model, and usage asked for where the ledger wants it.
    fn body_for(self, address: &BackendAddress) -> Result<Vec<Bytes>, FieldsError> {
        let mut body = self.call.body.clone();
        body.set("model", &address.model)?;
        if self.asks_usage {
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
    pub(super) fn is_success(&self) -> bool {
        match self {
            Self::Whole { status, .. } | Self::Stream { status, .. } => (200..300).contains(status),
            Self::Failed(..) | Self::RefusedOurs(_) | Self::NoLongerAllowed | Self::Given(_) => {
                false
            }
        }
    }
}

/// The type of what is JSON.
const JSON: &str = "application/json";
/// The type of a stream of events.
const EVENTS: &str = "text/event-stream";

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

    /// Whether the body of an answer that was to be streamed is one of events: its beginning tells more
    /// than its type, which some proxies replace.
    async fn begins_events(&mut self) -> Result<bool, SendError> {
        let mut body = std::mem::replace(&mut self.body, stream::empty().boxed());
        let begin = loop {
            match body.next().await.transpose()? {
                Some(piece) if piece.is_empty() => {}
                begin => break begin,
            }
        };
        let start = begin.clone().unwrap_or_default();
        self.body = stream::iter(begin.map(Ok)).chain(body).boxed();
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start).trim_ascii_start();
        let fields: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
        let may_be = |field: &&[u8]| start.starts_with(field) || field.starts_with(start);
        let says_so = self.media_type() == EVENTS;
        Ok(if says_so {
            !start.starts_with(b"{")
        } else {
            !start.is_empty() && fields.iter().any(may_be)
        })
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

/// Whether a refusal names what is added for the ledger.
fn names_usage(words: &[u8]) -> bool {
    [&b"stream_options"[..], b"include_usage"]
        .iter()
        .any(|name| memchr::memmem::find(words, name).is_some())
}
