//! Handing a streamed answer on, chunk by chunk. A stream that breaks ends in an error event and
//! never looks complete.

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_util::sync::CancellationToken;

use super::{
    dispatch::{AnswerFields, short},
    outcome::Answered,
};
use crate::{
    dispatch::{Event, Events, SendError},
    ledger::OutcomeStatus,
};

/// The error event of a stream that broke, in the shape that the OpenAI SDKs raise.
const BROKEN: &str = concat!(
    r#"data: {"error":{"message":"the backend broke off its answer","type":"upstream_error","#,
    r#""param":null,"code":"upstream_error"}}"#,
    "\n\n"
);

/// Moves events from a backend to a client.
#[derive(Debug)]
pub(super) struct Pump {
    client: mpsc::Sender<Bytes>,
    /// A place kept free, so that a client that reads slowly hears too that the stream broke.
    last_word: Option<OwnedPermit<Bytes>>,
    wants_usage: bool,
    answered: Answered,
    done: bool,
}

impl Pump {
    /// A pump towards `client`, an empty channel of two places or more; the client gets usage only
    /// when it asked for it.
    pub(super) fn new(client: mpsc::Sender<Bytes>, wants_usage: bool) -> Self {
        let last_word = client.clone().try_reserve_owned().ok();
        Self { client, last_word, wants_usage, answered: Answered::default(), done: false }
    }

    /// Pumps until the stream ends, breaks, or nobody listens.
    pub(super) async fn run(
        mut self,
        body: BoxStream<'static, Result<Bytes, SendError>>,
        halt: &CancellationToken,
    ) -> (OutcomeStatus, Answered) {
        let client = self.client.clone();
        let status = tokio::select! {
            status = self.pump(body) => status,
            () = client.closed() => OutcomeStatus::ClientDisconnected,
            () = halt.cancelled() => OutcomeStatus::Unknown,
        };
        if matches!(
            status,
            OutcomeStatus::UpstreamError | OutcomeStatus::Timeout | OutcomeStatus::Unknown
        ) {
            let broken = Bytes::from_static(BROKEN.as_bytes());
            if let Some(last_word) = self.last_word.take() {
                last_word.send(broken);
            }
        }
        (status, self.answered)
    }

    async fn pump(
        &mut self,
        mut body: BoxStream<'static, Result<Bytes, SendError>>,
    ) -> OutcomeStatus {
        let mut events = Events::default();
        while let Some(piece) = body.next().await {
            let pushed = piece.and_then(|piece| events.push(&piece));
            if let Err(error) = pushed {
                tracing::warn!(%error, "a streamed answer broke");
                let timed_out = matches!(error, SendError::Timeout(_));
                return if timed_out {
                    OutcomeStatus::Timeout
                } else {
                    OutcomeStatus::UpstreamError
                };
            }
            while let Some(event) = events.next_event() {
                if self.note(&event) && self.client.send(event.bytes().clone()).await.is_err() {
                    return OutcomeStatus::ClientDisconnected;
                }
                if self.done {
                    return OutcomeStatus::Ok;
                }
            }
        }
        OutcomeStatus::UpstreamError
    }

    /// Takes from an event what the record keeps; says whether the client gets the event.
    fn note(&mut self, event: &Event) -> bool {
        let Some(data) = event.data() else { return true };
        if data.trim() == "[DONE]" {
            self.done = true;
            return true;
        }
        let fields: AnswerFields = serde_json::from_str(&data).unwrap_or_default();
        if let Some(model) = fields.model {
            self.answered.model = Some(short(model));
        }
        let Some(usage) = fields.usage else { return true };
        self.answered.tokens = usage.into();
        let only_usage = fields.choices.is_none_or(|choices| choices.is_empty());
        self.wants_usage || !only_usage
    }
}
