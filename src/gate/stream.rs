//! Handing a streamed answer on, event by event. A stream that breaks ends in an error event and
//! never looks complete.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Budget, Gone, LARGE, LastWord, PieceSender, Room},
    content::Sent,
    failure::{broken, failure, status_of},
    outcome::Answered,
};
use crate::{
    dispatch::{
        Endpoint, Event, Events, Labelled, Labeller, Progress, Said, SendError, names_same_model,
    },
    facts::BackendAddress,
    ledger::{AttemptFailure, OutcomeStatus},
};

/// How long a client hears nothing before it is told that the stream goes on.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// What it is told: a comment, which every reader of events skips.
pub(super) const STILL_HERE: &[u8] = b": keepalive\n\n";
/// How many bytes of comments a backend may send before its answer begins.
const MOST_COMMENTS: usize = 1 << 20;

type Body = BoxStream<'static, Result<Bytes, SendError>>;

/// The events of a body, in as much room as they take.
pub(super) struct Reader {
    body: Body,
    events: Events,
    budget: Arc<Budget>,
    holder: Arc<str>,
    /// For the event that is not whole yet.
    room: Option<Room>,
}

impl Reader {
    /// The events of `body`. Large ones take room of `budget`, for `holder`.
    pub(super) fn new(body: Body, budget: &Arc<Budget>, holder: &str) -> Self {
        let (budget, holder) = (budget.clone(), holder.into());
        Self { body, events: Events::default(), budget, holder, room: None }
    }

    /// The next event of what has come, with the room that it takes.
    fn ready(&mut self) -> Option<(Event, Option<Room>)> {
        let event = self.events.next_event()?;
        Some((event, self.room.take()))
    }

    /// Takes what has come.
    async fn take(&mut self, piece: &[u8]) -> Result<(), SendError> {
        let held = self.events.held() + piece.len();
        if held >= LARGE {
            let room = self.room.get_or_insert_with(|| self.budget.holder(&self.holder));
            room.need(held.next_multiple_of(LARGE)).await;
        }
        self.events.push(piece)
    }

    /// The event that is left where nothing more comes.
    fn rest(&mut self) -> Option<(Event, Option<Room>)> {
        let event = self.events.rest()?;
        Some((event, self.room.take()))
    }
}

/// A streamed answer whose first event has come.
pub(super) struct Begun {
    reader: Reader,
    first: Event,
    /// The room that it takes.
    room: Option<Room>,
    said: Said,
}

/// Waits for the first event of a streamed answer. Until then another deployment can still be tried.
pub(super) async fn begin(
    endpoint: Endpoint,
    address: &BackendAddress,
    mut reader: Reader,
) -> Result<Begun, AttemptFailure> {
    let mut comments = 0;
    loop {
        while let Some((event, room)) = reader.ready() {
            if let Some(said) = first(endpoint, address, &event)? {
                return Ok(Begun { reader, first: event, room, said });
            }
            comments += event.bytes().len();
            if comments > MOST_COMMENTS {
                return Err(AttemptFailure::BadAnswer);
            }
        }
        let Some(piece) = reader.body.next().await else { break };
        let piece = piece.map_err(|error| failure(&error))?;
        reader.take(&piece).await.map_err(|error| failure(&error))?;
    }
    let (event, room) = reader.rest().ok_or(AttemptFailure::BrokeOff)?;
    let said = first(endpoint, address, &event).map_err(|why| match why {
        AttemptFailure::BadAnswer => AttemptFailure::BrokeOff,
        why => why,
    })?;
    let said = said.ok_or(AttemptFailure::BrokeOff)?;
    Ok(Begun { reader, first: event, room, said })
}

/// What the event that may be the first one says; `None` for a mere comment.
fn first(
    endpoint: Endpoint,
    address: &BackendAddress,
    event: &Event,
) -> Result<Option<Said>, AttemptFailure> {
    let Some(data) = event.data().filter(|data| !data.trim().is_empty()) else { return Ok(None) };
    let said = read(endpoint, address, &data)?;
    if said.is_error { Err(AttemptFailure::ErrorInAnswer) } else { Ok(Some(said)) }
}

/// What an event says; an error when it is of no such answer, or of another model than is approved.
fn read(endpoint: Endpoint, address: &BackendAddress, data: &str) -> Result<Said, AttemptFailure> {
    let said = endpoint.read_event(data.trim()).ok_or(AttemptFailure::BadAnswer)?;
    match &said.model {
        Some(model) if !names_same_model(address, model) => Err(AttemptFailure::WrongModel),
        _ => Ok(said),
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
    label: Option<Labeller>,
    answered: Answered,
    progress: Progress,
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
        let (answered, progress) = (Answered::default(), Progress::default());
        Self { client, last_word, endpoint, address, wants_usage, label: None, answered, progress }
    }

    /// Puts a label in front of what the client reads.
    pub(super) fn label(&mut self, label: Option<Labeller>) {
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
        let (status, failure, rest) = match ended {
            Ok(rest) => (OutcomeStatus::Ok, None, rest),
            Err(Stop::Client) => (OutcomeStatus::ClientDisconnected, None, None),
            Err(Stop::Halt) => (OutcomeStatus::Unknown, None, None),
            Err(Stop::Broke(failure)) => (status_of(failure), Some(failure), None),
        };
        let is_broken = matches!(
            status,
            OutcomeStatus::UpstreamError | OutcomeStatus::Timeout | OutcomeStatus::Unknown
        );
        if let Some(last_word) = self.last_word.take_if(|_| is_broken)
            && let Some(word) = self.progress.broken(self.endpoint, broken(failure))
        {
            sent.add(&word);
            last_word.send(word);
        }
        Pumped { status, failure, answered: self.answered, rest }
    }

    /// Gives what is left of the body of a whole answer, where something may be.
    async fn pump(&mut self, begun: Begun, sent: &mut Sent) -> Result<Option<Rest>, Stop> {
        let Begun { mut reader, first, room, said } = begun;
        let mut is_last = self.pass(&first, Some(said), room, sent).await?;
        loop {
            while !is_last && let Some((event, room)) = reader.ready() {
                is_last = self.read(&event, room, sent).await?;
            }
            if is_last {
                return Ok(Some(Rest(reader.body)));
            }
            let Some(piece) = self.wait(&mut reader.body).await? else { break };
            let taken = match piece {
                Ok(piece) => reader.take(&piece).await,
                Err(error) => Err(error),
            };
            taken.map_err(|error| {
                tracing::warn!(%error, host = self.address.base_url.host(), "a backend's stream failed");
                Stop::Broke(failure(&error))
            })?;
        }
        // Not every backend says more than that the text has ended, nor writes its last blank line.
        if let Some((event, room)) = reader.rest() {
            let read = self.read(&event, room, sent).await;
            let cut = Stop::Broke(AttemptFailure::BrokeOff);
            read.map_err(|stop| if stop.is_garbage() { cut } else { stop })?;
        }
        let is_whole = self.progress.is_whole();
        if is_whole { Ok(None) } else { Err(Stop::Broke(AttemptFailure::BrokeOff)) }
    }

    /// Reads an event and hands it on; says whether the stream ends with it.
    async fn read(
        &mut self,
        event: &Event,
        room: Option<Room>,
        sent: &mut Sent,
    ) -> Result<bool, Stop> {
        let data = event.data().filter(|data| !data.trim().is_empty());
        let said = data.map(|data| read(self.endpoint, self.address, &data)).transpose()?;
        self.pass(event, said, room, sent).await
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
        mut room: Option<Room>,
        sent: &mut Sent,
    ) -> Result<bool, Stop> {
        let Some(said) = said else {
            self.answered.add(&Said::default());
            self.hand(event.bytes().clone(), room, sent).await?;
            return Ok(false);
        };
        self.answered.add(&said);
        let data = event.data().unwrap_or_default();
        let data = data.trim();
        self.progress.note(self.endpoint, &said, data);
        let labelled = self.label.as_mut().map(|label| label.pass(event, data));
        let mut is_handed = false;
        match labelled.unwrap_or(Labelled::Same) {
            Labelled::Same => {}
            Labelled::Before(label) => self.hand(label, None, sent).await?,
            Labelled::Instead(event) => {
                self.hand(event, room.take(), sent).await?;
                is_handed = true;
            }
        }
        if !is_handed && let Some(bytes) = self.asked_for(event, &said) {
            self.hand(bytes, room, sent).await?;
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

    /// Hands `bytes` to the client's connection, with the room that they already take.
    async fn hand(&self, bytes: Bytes, room: Option<Room>, sent: &mut Sent) -> Result<(), Stop> {
        let is_comment = &*bytes == STILL_HERE;
        let heard = bytes.clone();
        self.client.send(bytes, room).await.map_err(|Gone| Stop::Client)?;
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

impl Stop {
    /// Whether what came is of no such answer.
    const fn is_garbage(self) -> bool {
        matches!(self, Self::Broke(AttemptFailure::BadAnswer))
    }
}

impl From<AttemptFailure> for Stop {
    fn from(failure: AttemptFailure) -> Self {
        Self::Broke(failure)
    }
}
