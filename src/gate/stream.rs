//! Handing a streamed answer on, event by event. A stream that breaks ends in an error event and
//! never looks complete.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Gone, LastWord, PieceSender},
    content::Sent,
    outcome::Answered,
};
use crate::{
    dispatch::{Endpoint, Event, Events, Said, SendError, names_same_model},
    facts::BackendAddress,
    ledger::{AttemptFailure, OutcomeStatus},
};

/// How long a client hears nothing before it is told that the stream goes on.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// What it is told: a comment, which every reader of events skips.
pub(super) const STILL_HERE: &[u8] = b": keepalive\n\n";
/// How many comments a backend may send before its answer begins.
const MOST_COMMENTS: usize = 10_000;

type Body = BoxStream<'static, Result<Bytes, SendError>>;

/// A streamed answer whose first event has come.
pub(super) struct Begun {
    body: Body,
    events: Events,
    first: Event,
    said: Said,
}

/// Waits for the first event of a streamed answer. Until then another deployment can still be tried.
pub(super) async fn begin(
    endpoint: Endpoint,
    address: &BackendAddress,
    mut body: Body,
) -> Result<Begun, AttemptFailure> {
    let mut events = Events::default();
    let mut comments = 0;
    loop {
        while let Some(event) = events.next_event() {
            let Some(data) = event.data().filter(|data| !data.trim().is_empty()) else {
                comments += 1;
                if comments > MOST_COMMENTS {
                    return Err(AttemptFailure::BadAnswer);
                }
                continue;
            };
            let said = read(endpoint, address, &data)?;
            if said.is_error {
                return Err(AttemptFailure::ErrorInAnswer);
            }
            return Ok(Begun { body, events, first: event, said });
        }
        match body.next().await {
            None => return Err(AttemptFailure::BrokeOff),
            Some(piece) => {
                piece.and_then(|piece| events.push(&piece)).map_err(|error| failure(&error))?;
            }
        }
    }
}

/// What an event says; an error when it is of no such answer, or of another model than is approved.
fn read(endpoint: Endpoint, address: &BackendAddress, data: &str) -> Result<Said, AttemptFailure> {
    let said = endpoint.read_event(data.trim()).ok_or(AttemptFailure::BadAnswer)?;
    match &said.model {
        Some(model) if !names_same_model(address, model) => Err(AttemptFailure::WrongModel),
        _ => Ok(said),
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
        SendError::TooLarge(_) | SendError::NoEvents => AttemptFailure::BadAnswer,
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

/// How a stream ended.
pub(super) struct Pumped {
    pub(super) status: OutcomeStatus,
    /// Why, where the backend broke it.
    pub(super) failure: Option<AttemptFailure>,
    pub(super) answered: Answered,
    /// What comes after the last event of a stream that is complete.
    pub(super) rest: Option<Rest>,
}

/// The rest of a body whose events are complete. A connection on which something is left unread cannot
/// be used again.
pub(super) struct Rest(Body);

impl Rest {
    /// For how long it is read.
    const TIME: Duration = Duration::from_secs(1);
    /// How many bytes of it are read.
    const ROOM: usize = 64 << 10;

    /// Reads it to its end, which comes at once if all is well. However long it is, it is let go in the
    /// end, and with it the connection.
    pub(super) async fn read(mut self) {
        let reading = async {
            let mut room = Self::ROOM;
            while let Some(Ok(piece)) = self.0.next().await
                && piece.len() <= room
            {
                room -= piece.len();
            }
        };
        let _ = tokio::time::timeout(Self::TIME, reading).await;
    }
}

/// Moves events from a backend to a client.
#[derive(Debug)]
pub(super) struct Pump<'a> {
    client: PieceSender,
    /// A place kept free, so that a client that reads slowly hears too that the stream broke.
    last_word: Option<LastWord>,
    endpoint: Endpoint,
    address: &'a BackendAddress,
    wants_usage: bool,
    label: Option<String>,
    answered: Answered,
}

impl<'a> Pump<'a> {
    /// A pump towards `client`, an empty channel of two places or more; the client gets usage only
    /// when it asked for it.
    pub(super) fn new(
        client: PieceSender,
        endpoint: Endpoint,
        address: &'a BackendAddress,
        wants_usage: bool,
    ) -> Self {
        let last_word = client.last_word();
        let answered = Answered::default();
        Self { client, last_word, endpoint, address, wants_usage, label: None, answered }
    }

    /// Begins the client's stream with `label`.
    pub(super) fn label(&mut self, label: Option<String>) {
        self.label = label;
    }

    /// Pumps until the stream ends, breaks, or nobody listens. What the client is sent goes to `sent` too,
    /// but for the comments that keep its connection alive.
    pub(super) async fn run(
        mut self,
        begun: Begun,
        halt: &CancellationToken,
        sent: &mut Sent,
    ) -> Pumped {
        let client = self.client.clone();
        // Also a client that does not read, and so holds the backend back, has an end.
        let deadline = Instant::now() + self.address.timeouts.total;
        let ended = tokio::select! {
            ended = self.pump(begun, sent) => ended,
            () = client.closed() => Err(Stop::Client),
            () = halt.cancelled() => Err(Stop::Halt),
            () = sleep_until(deadline) => Err(Stop::Broke(AttemptFailure::Timeout)),
        };
        let is_ours = matches!(ended, Err(Stop::Halt));
        let (status, failure, rest) = match ended {
            Ok(rest) => (OutcomeStatus::Ok, None, Some(rest)),
            Err(Stop::Client) => (OutcomeStatus::ClientDisconnected, None, None),
            Err(Stop::Halt) => (OutcomeStatus::Unknown, None, None),
            Err(Stop::Broke(failure)) => (status_of(failure), Some(failure), None),
        };
        let broken = matches!(
            status,
            OutcomeStatus::UpstreamError | OutcomeStatus::Timeout | OutcomeStatus::Unknown
        );
        if let Some(last_word) = self.last_word.take_if(|_| broken) {
            // What this process cut off itself is not the backend's fault.
            let broken = if is_ours {
                Bytes::from(self.endpoint.cut_off())
            } else {
                Bytes::from_static(self.endpoint.broken().as_bytes())
            };
            last_word.send(broken.clone());
            sent.add(&broken);
        }
        Pumped { status, failure, answered: self.answered, rest }
    }

    async fn pump(&mut self, begun: Begun, sent: &mut Sent) -> Result<Rest, Stop> {
        let Begun { mut body, mut events, first, said } = begun;
        let label = self.label.take();
        let label = label.and_then(|label| self.endpoint.label(first.data()?.trim(), &label));
        if let Some(label) = label {
            self.hand(label, sent).await?;
        }
        let mut is_last = self.pass(&first, Some(said), sent).await?;
        loop {
            while !is_last && let Some(event) = events.next_event() {
                let data = event.data().filter(|data| !data.trim().is_empty());
                let said = data.map(|data| read(self.endpoint, self.address, &data)).transpose()?;
                is_last = self.pass(&event, said, sent).await?;
            }
            if is_last {
                return Ok(Rest(body));
            }
            let piece = self.wait(&mut body).await?;
            let piece = piece.ok_or(Stop::Broke(AttemptFailure::BrokeOff))?;
            let pushed = piece.and_then(|piece| events.push(&piece));
            pushed.map_err(|error| {
                tracing::warn!(%error, host = self.address.base_url.host(), "a backend's stream failed");
                Stop::Broke(failure(&error))
            })?;
        }
    }

    /// The next piece. The client is told every now and then that one is waited for.
    async fn wait(&mut self, body: &mut Body) -> Result<Option<Result<Bytes, SendError>>, Stop> {
        let mut quiet = Instant::now() + KEEPALIVE;
        loop {
            tokio::select! {
                biased;
                piece = body.next() => return Ok(piece),
                () = sleep_until(quiet) => {
                    // A client that has not read what it was sent needs no more to read.
                    self.client.try_send(Bytes::from_static(STILL_HERE));
                    quiet = Instant::now() + KEEPALIVE;
                }
            }
        }
    }

    /// Hands an event on, as far as the client asked for it; says whether the stream ends with it.
    async fn pass(
        &mut self,
        event: &Event,
        said: Option<Said>,
        sent: &mut Sent,
    ) -> Result<bool, Stop> {
        let said = said.unwrap_or_default();
        self.answered.add(&said);
        if let Some(bytes) = self.asked_for(event, &said) {
            self.hand(bytes, sent).await?;
        }
        if said.is_error {
            return Err(Stop::Broke(AttemptFailure::ErrorInAnswer));
        }
        Ok(said.is_last)
    }

    /// What the client gets of an event: all of it, but for usage that only the ledger asked for.
    fn asked_for(&self, event: &Event, said: &Said) -> Option<Bytes> {
        if self.wants_usage || !said.has_usage() {
            return Some(event.bytes().clone());
        }
        if said.is_usage_only {
            return None;
        }
        let rest = event.data().and_then(|data| Endpoint::without_usage(event.bytes(), &data));
        Some(rest.unwrap_or_else(|| event.bytes().clone()))
    }

    /// Hands `bytes` to the client's connection.
    async fn hand(&self, bytes: Bytes, sent: &mut Sent) -> Result<(), Stop> {
        let is_comment = &*bytes == STILL_HERE;
        let heard = bytes.clone();
        self.client.send(bytes).await.map_err(|Gone| Stop::Client)?;
        // Whoever reads the stream cannot tell whose such a comment is: all of them are left out.
        if !is_comment {
            sent.add(&heard);
        }
        Ok(())
    }
}

/// Why a stream goes no further.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Broke(AttemptFailure),
    Client,
    Halt,
}

impl From<AttemptFailure> for Stop {
    fn from(failure: AttemptFailure) -> Self {
        Self::Broke(failure)
    }
}
