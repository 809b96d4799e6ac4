//! Sending an approved call: decided, recorded, sent, recorded again, whatever happens to the client,
//! the backend or the policies. Not in which order deployments are tried (`choose`, `course`).

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    Gate, GateError, Pieces, Recorded,
    content::Keeping,
    course::Course,
    decide::{Manner, refused},
    trace::{self, warn_of},
};
use crate::{
    dispatch::{Endpoint, Fields},
    domain::{CallRequest, Caller, DeploymentId, JurisdictionCode, PolicyId, Seq, Verdict},
    ledger::OutcomeStatus,
    telemetry::Trace,
};

/// A call to a model, as the gateway received it.
#[derive(Debug)]
pub struct ModelCall {
    /// What it is about.
    pub request: CallRequest,
    /// Through which API.
    pub endpoint: Endpoint,
    /// The body, without claims.
    pub body: Fields,
    /// The body as it came.
    pub received: Bytes,
    /// The headers that a backend gets beside Lexgate's own.
    pub headers: Vec<(&'static str, String)>,
    /// Whether the answer comes in chunks.
    pub stream: bool,
    /// Whether the client asked for usage in the stream.
    pub wants_usage: bool,
    /// The request's identifier.
    pub request_id: String,
    /// The request's place in its trace.
    pub trace: Trace,
}

impl ModelCall {
    /// Whether the same request twice does the same as once. What is passed on beyond the call may have done
    /// something there.
    pub(super) fn is_repeatable(&self) -> bool {
        self.request.passes.is_empty() && self.endpoint.is_repeatable(&self.body)
    }
}

/// What becomes of a call to a model.
#[derive(Debug)]
pub enum Reply {
    /// It was denied.
    Denied(Box<Recorded>),
    /// A backend answered.
    Answered(Served, ReplyBody),
    /// No backend of the allowed set answered.
    Failed(Box<Failed>),
}

/// Why nobody answered.
#[derive(Debug)]
pub struct Failed {
    /// The decision, which allowed it.
    pub recorded: Arc<Recorded>,
    /// How the last attempt ended.
    pub status: OutcomeStatus,
    /// The last backend's HTTP status, where there was one.
    pub upstream: Option<u16>,
    /// Whether every allowed deployment is down: none was asked, or none could be reached.
    pub is_down: bool,
    /// Whether each of them lacks its key on this side.
    pub lacks_key: bool,
    /// How long to wait before another try, where that is known.
    pub retry_after: Option<Duration>,
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
    /// The duties that come with an answer of this deployment.
    pub duties: Vec<PolicyId>,
    /// The backend's HTTP status.
    pub status: u16,
    /// The backend's content type.
    pub content_type: String,
    /// Whose the label is that a duty asks for; `None` where none does.
    pub label: Option<LabelledBy>,
}

/// Who labels an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelledBy {
    /// Its text begins with the app's label.
    Gateway,
    /// It is handed on as it came.
    Caller,
}

impl LabelledBy {
    /// The word in the answer's header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "added",
            Self::Caller => "caller",
        }
    }
}

/// A backend's answer.
#[derive(Debug)]
pub enum ReplyBody {
    /// In one piece.
    Whole(Bytes),
    /// In pieces, as they come; it ends when the sender is dropped.
    Stream(Pieces),
}

pub(super) type ReplySender = oneshot::Sender<Result<Reply, GateError>>;

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
        // The outcome's place is kept before anything happens that would need it.
        let place = self.sequencer.reserve().map_err(refused)?;
        let (reply, answer) = oneshot::channel();
        let (gate, call) = (self.clone(), Arc::new(call));
        self.tasks.spawn(async move {
            let manner = Manner { dispatch: true, claim: None };
            let mut keeping = None;
            let deciding = async {
                let user = gate.keep_user(&caller, &call.request).await?;
                keeping = gate.keep_content(&caller, user.as_ref()).await?;
                gate.decide_for(&caller, &call.request, user.as_ref(), manner).await
            };
            match trace::decide(call.trace.span(), deciding).await {
                Err(error) => drop(reply.send(Err(error))),
                Ok(recorded) if recorded.body.decision == Verdict::Deny => {
                    drop(reply.send(Ok(Reply::Denied(Box::new(recorded)))));
                }
                Ok(recorded) => {
                    let recorded = Arc::new(recorded);
                    let open = Open::new(&gate, recorded.seq);
                    let _under_way = gate.used.under_way.begin(&caller);
                    let mut course = Course::new(&gate, &caller, &call, &recorded);
                    course.sent = keeping.as_ref().map(Keeping::sent).unwrap_or_default();
                    let mut ending = course.run(reply).await;
                    let sent = std::mem::take(&mut ending.sent);
                    let content = keeping.map(|keeping| keeping.commit(&call.received, sent));
                    let content = content.unwrap_or_default();
                    let written = gate.record_outcome(&recorded, place, ending, content).await;
                    match written {
                        Ok(()) => open.closed(),
                        Err(error) => {
                            warn_of!(&recorded, %error, "an outcome is left to the reaper");
                        }
                    }
                }
            }
        });
        answer.await.unwrap_or(Err(GateError::Closed))
    }
}

/// Dispatches without outcome that are still to be given up.
#[derive(Debug, Default)]
pub(super) struct LeftOpen(Mutex<BTreeSet<Seq>>);

impl LeftOpen {
    fn locked(&self) -> MutexGuard<'_, BTreeSet<Seq>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Gives up what this process leaves without outcome, so that a reaper closes it. What cannot be given up
    /// now is kept for the next time.
    pub(super) async fn give_up_left_open(&self) {
        let left: Vec<Seq> = mem::take(&mut *self.left_open.locked()).into_iter().collect();
        if left.is_empty() {
            return;
        }
        if let Err(error) = self.store.abandon(&left).await {
            tracing::warn!(%error, dispatches = left.len(), "dispatches without outcome cannot be given up; it is tried again");
            self.left_open.locked().extend(left);
        }
    }
}

/// A dispatch without outcome. Dropped before it is closed, whatever the cause, it belongs to no living
/// process any more, and the reaper closes it.
struct Open {
    gate: Arc<Gate>,
    decision: Option<Seq>,
}

impl Open {
    fn new(gate: &Arc<Gate>, decision: Seq) -> Self {
        Self { gate: gate.clone(), decision: Some(decision) }
    }

    fn closed(mut self) {
        self.decision = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(decision) = self.decision else { return };
        let gate = self.gate.clone();
        gate.left_open.locked().insert(decision);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { gate.give_up_left_open().await });
        }
    }
}
