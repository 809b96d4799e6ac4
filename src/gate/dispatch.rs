//! Sending an approved call: each attempt goes to a deployment of the decision's allowed set, and
//! ends in one outcome record, whatever happens to the client, the backend or the policies.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{
    Gate, GateError, Recorded,
    decide::{Manner, instant},
    outcome::Answered,
    stream::Pump,
};
use crate::{
    dispatch::{BackendReply, BackendRequest, Fields, FieldsError, SendError},
    domain::{CallRequest, Caller, DeploymentId, JurisdictionCode, Verdict},
    facts::BackendAddress,
    ledger::{Attempt, OutcomeStatus, TokenCount},
};

/// The largest answer in one piece that is taken from a backend.
const MAX_ANSWER: usize = 32 << 20;
/// How many pieces of a streamed answer wait for a slow client.
const STREAM_BUFFER: usize = 32;

/// A call to a model, as the gateway received it.
#[derive(Debug)]
pub struct ModelCall {
    /// What it is about.
    pub request: CallRequest,
    /// The path below a backend's base URL.
    pub path: &'static str,
    /// The body, without claims.
    pub body: Fields,
    /// Whether the answer comes in chunks.
    pub stream: bool,
    /// Whether the client asked for usage in the stream.
    pub wants_usage: bool,
    /// The request's identifier.
    pub request_id: String,
}

/// What becomes of a call to a model.
#[derive(Debug)]
pub enum Reply {
    /// It was denied.
    Denied(Box<Recorded>),
    /// A backend answered.
    Answered(Served, ReplyBody),
    /// No backend of the allowed set answered.
    Failed {
        /// The decision, which allowed it.
        recorded: Arc<Recorded>,
        /// How the last attempt ended.
        status: OutcomeStatus,
        /// The backend's HTTP status, where there was one.
        upstream: Option<u16>,
        /// The backend's `Retry-After`, where it sent one.
        retry_after: Option<String>,
    },
}

/// Where an answer comes from.
#[derive(Clone, Debug)]
pub struct Served {
    /// The decision.
    pub recorded: Arc<Recorded>,
    /// The deployment that answered.
    pub deployment: DeploymentId,
    /// Where inference ran.
    pub jurisdictions: Vec<JurisdictionCode>,
    /// The backend's HTTP status.
    pub status: u16,
    /// The backend's content type.
    pub content_type: String,
}

/// A backend's answer.
#[derive(Debug)]
pub enum ReplyBody {
    /// In one piece.
    Whole(Bytes),
    /// In pieces, as they come; it ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl Gate {
    /// Decides, records, sends and records again. What was begun is finished also when the caller
    /// of this function goes away.
    ///
    /// # Errors
    /// When the call cannot be judged or not be recorded: nothing was sent then.
    pub async fn call(
        self: &Arc<Self>,
        caller: Caller,
        call: ModelCall,
    ) -> Result<Reply, GateError> {
        let (reply, answer) = oneshot::channel();
        let gate = self.clone();
        self.tasks.spawn(async move {
            let manner = Manner { dispatch: true, claim: None };
            match gate.decide_in(&caller, &call.request, manner).await {
                Err(error) => drop(reply.send(Err(error))),
                Ok(recorded) if recorded.body.decision == Verdict::Deny => {
                    drop(reply.send(Ok(Reply::Denied(Box::new(recorded)))));
                }
                Ok(recorded) => {
                    let recorded = Arc::new(recorded);
                    let course = Course { gate: &gate, caller: &caller, call: &call, recorded: &recorded };
                    let (attempts, status, answered) = course.run(reply).await;
                    let written = gate.record_outcome(&recorded, attempts, status, answered).await;
                    if let Err(error) = written {
                        tracing::error!(%error, seq = %recorded.seq, "an outcome is left to the reaper");
                    }
                }
            }
        });
        answer.await.unwrap_or(Err(GateError::Closed))
    }
}

type ReplySender = oneshot::Sender<Result<Reply, GateError>>;
type Ending = (Vec<Attempt>, OutcomeStatus, Answered);

/// One allowed call on its way through the backends.
struct Course<'a> {
    gate: &'a Arc<Gate>,
    caller: &'a Caller,
    call: &'a ModelCall,
    recorded: &'a Arc<Recorded>,
}

/// How one attempt ended.
enum Attempted {
    /// With an answer that the client gets.
    Answered(BackendReply, Option<Bytes>),
    /// Without one; another deployment may be tried.
    Failed(OutcomeStatus, Option<u16>, Option<String>),
    /// The client has gone, or the process is ending: nobody waits any more.
    Given(OutcomeStatus),
}

impl Course<'_> {
    /// Tries the allowed deployments in order until one answers.
    async fn run(&self, mut reply: ReplySender) -> Ending {
        let mut attempts = Vec::new();
        let mut last = (OutcomeStatus::UpstreamError, None, None);
        let mut without_backend = false;
        for candidate in &self.recorded.body.candidates {
            if candidate.decision != Verdict::Allow
                || !self.still_allowed(&candidate.deployment).await
            {
                continue;
            }
            let Some(address) = self.address(&candidate.deployment) else {
                without_backend = true;
                continue;
            };
            let started = instant(&*self.gate.clock);
            let clock = std::time::Instant::now();
            let attempted = self.attempt(&address, &mut reply).await;
            metrics::histogram!("lexgate_dispatch_seconds").record(clock.elapsed().as_secs_f64());
            let http_status = match &attempted {
                Attempted::Answered(answer, _) => Some(answer.status),
                Attempted::Failed(_, http_status, _) => *http_status,
                Attempted::Given(_) => None,
            };
            attempts.push(Attempt {
                deployment: candidate.deployment.clone(),
                failure: None,
                finished: instant(&*self.gate.clock),
                http_status,
                started,
            });
            match attempted {
                Attempted::Failed(status, http_status, retry_after) => {
                    last = (status, http_status, retry_after);
                }
                Attempted::Given(status) => return (attempts, status, Answered::default()),
                Attempted::Answered(answer, whole) => {
                    let served = Served {
                        recorded: self.recorded.clone(),
                        deployment: candidate.deployment.clone(),
                        jurisdictions: candidate.placement.process.clone(),
                        status: answer.status,
                        content_type: answer.content_type.clone().unwrap_or_default(),
                    };
                    let (status, answered) = self.hand_over(served, answer, whole, reply).await;
                    if let Some(attempt) = attempts.last_mut() {
                        attempt.finished = instant(&*self.gate.clock);
                    }
                    return (attempts, status, answered);
                }
            }
        }
        let (status, upstream, retry_after) = last;
        let recorded = self.recorded.clone();
        drop(reply.send(match (attempts.is_empty(), without_backend) {
            (false, _) => Ok(Reply::Failed { recorded, status, upstream, retry_after }),
            (true, true) => Err(GateError::NoBackend),
            // The snapshot moved after the decision, and allows none of them any more.
            (true, false) => Err(GateError::Unsettled),
        }));
        (attempts, status, Answered::default())
    }

    /// Where the snapshot has moved since the decision, an attempt needs an allow of the new one.
    async fn still_allowed(&self, deployment: &DeploymentId) -> bool {
        let judge = self.gate.keeper.current();
        if judge.snapshot().digests == self.recorded.body.snapshot {
            return true;
        }
        let (caller, request) = (self.caller, &self.call.request);
        let Ok(reached) = self.gate.reached_again(&judge, caller, request).await else {
            return false;
        };
        let judged = judge.judge_afresh(&caller.app, request, &reached);
        judged.is_ok_and(|judged| {
            judged.evaluation.candidates.iter().any(|candidate| {
                candidate.deployment == *deployment && candidate.decision == Verdict::Allow
            })
        })
    }

    fn address(&self, deployment: &DeploymentId) -> Option<BackendAddress> {
        self.gate.keeper.current().snapshot().deployment(deployment)?.backend.clone()
    }

    async fn attempt(&self, address: &BackendAddress, reply: &mut ReplySender) -> Attempted {
        let failed = |status| Attempted::Failed(status, None, None);
        let Ok(body) = self.body_for(address) else { return failed(OutcomeStatus::UpstreamError) };
        let request = BackendRequest {
            path: self.call.path,
            body: body.into(),
            stream: self.call.stream,
            request_id: self.call.request_id.clone(),
        };
        let exchange = async {
            let mut answer = self.gate.backends.send(address, request).await?;
            // A stream is handed on as it comes; anything else is read to its end first.
            let whole = if answer.is_event_stream() && self.call.stream {
                None
            } else {
                Some(read_whole(&mut answer).await?)
            };
            Ok::<_, SendError>((answer, whole))
        };
        // Whether anybody still waits comes first: nothing is sent for nobody.
        let result = tokio::select! {
            biased;
            () = reply.closed() => return Attempted::Given(OutcomeStatus::ClientDisconnected),
            () = self.gate.halt.cancelled() => return Attempted::Given(OutcomeStatus::Unknown),
            result = exchange => result,
        };
        match result {
            Ok((answer, whole)) if answer.is_usable(whole.as_ref()) => {
                Attempted::Answered(answer, whole)
            }
            Ok((answer, _)) => Attempted::Failed(
                OutcomeStatus::UpstreamError,
                Some(answer.status),
                answer.retry_after,
            ),
            Err(error) => {
                tracing::warn!(error = %error, seq = %self.recorded.seq, "a backend gave no answer");
                let timed_out = matches!(error, SendError::Timeout(_));
                failed(if timed_out {
                    OutcomeStatus::Timeout
                } else {
                    OutcomeStatus::UpstreamError
                })
            }
        }
    }

    /// The body with the backend's name for the model, and usage asked for where it is streamed.
    fn body_for(&self, address: &BackendAddress) -> Result<Vec<u8>, FieldsError> {
        let mut body = self.call.body.clone();
        body.set("model", &address.model)?;
        if self.call.stream {
            let mut options: Fields = body.read("stream_options")?.unwrap_or_default();
            options.set("include_usage", &true)?;
            body.set("stream_options", &options)?;
        }
        body.to_vec()
    }

    async fn hand_over(
        &self,
        served: Served,
        answer: BackendReply,
        whole: Option<Bytes>,
        reply: ReplySender,
    ) -> (OutcomeStatus, Answered) {
        let success = (200..300).contains(&answer.status);
        if let Some(whole) = whole {
            let answered = read_usage(&whole);
            let delivered = reply.send(Ok(Reply::Answered(served, ReplyBody::Whole(whole))));
            let status = match (success, delivered) {
                (_, Err(_)) => OutcomeStatus::ClientDisconnected,
                (true, Ok(())) => OutcomeStatus::Ok,
                (false, Ok(())) => OutcomeStatus::UpstreamError,
            };
            return (status, answered);
        }
        let (pieces, receiver) = mpsc::channel(STREAM_BUFFER);
        if reply.send(Ok(Reply::Answered(served, ReplyBody::Stream(receiver)))).is_err() {
            return (OutcomeStatus::ClientDisconnected, Answered::default());
        }
        let pump = Pump::new(pieces, self.call.wants_usage);
        pump.run(answer.body, &self.gate.halt).await
    }
}

impl BackendReply {
    fn media_type(&self) -> &str {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        content_type.split(';').next().unwrap_or_default().trim()
    }

    fn is_event_stream(&self) -> bool {
        (200..300).contains(&self.status) && self.media_type() == "text/event-stream"
    }

    /// Whether the client gets it: a success in the right form, or the backend's word that the
    /// request itself is wrong. Another deployment might do better with anything else.
    fn is_usable(&self, whole: Option<&Bytes>) -> bool {
        let request_is_wrong =
            (400..500).contains(&self.status) && ![401, 403, 408, 429].contains(&self.status);
        let success = (200..300).contains(&self.status);
        let Some(whole) = whole else { return success };
        let is_json = self.media_type() == "application/json"
            && serde_json::from_slice::<serde::de::IgnoredAny>(whole).is_ok();
        (success || request_is_wrong) && is_json
    }
}

async fn read_whole(answer: &mut BackendReply) -> Result<Bytes, SendError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = answer.body.next().await {
        let piece = piece?;
        if whole.len() + piece.len() > MAX_ANSWER {
            return Err(SendError::TooLarge(MAX_ANSWER));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The parts of an answer, or of its last chunk, that the record keeps.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AnswerFields {
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) choices: Option<Vec<serde::de::IgnoredAny>>,
}

/// Tokens in an OpenAI answer.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

impl From<Usage> for TokenCount {
    fn from(usage: Usage) -> Self {
        // A number that no record can hold is no count.
        let countable = |count: &u64| *count < 1 << 53;
        Self {
            input: usage.prompt_tokens.filter(countable),
            output: usage.completion_tokens.filter(countable),
        }
    }
}

fn read_usage(whole: &[u8]) -> Answered {
    let fields: AnswerFields = serde_json::from_slice(whole).unwrap_or_default();
    Answered {
        model: fields.model.map(short),
        tokens: fields.usage.map(TokenCount::from).unwrap_or_default(),
    }
}

/// A backend's name for a model, as far as a record holds it.
pub(super) fn short(model: String) -> String {
    if model.len() <= 256 { model } else { model.chars().take(64).collect() }
}
