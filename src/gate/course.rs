//! One allowed call on its way through the deployments of its allowed set: which are tried, what is
//! tried again, and how it ends.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::sleep;

use super::{
    Gate, GateError, Recorded,
    attempt::{Exchange, Outcome},
    call::{Pass, pieces},
    choose::Choice,
    content::Sent,
    dispatch::{Failed, LabelledBy, ModelCall, Reply, ReplyBody, ReplySender, Served},
    failure::{Failure, status_of},
    limits,
    outcome::Answered,
    stream::{Begun, Pump},
    trace::{self, warn_of},
};
use crate::{
    dispatch::{Endpoint, Labeller, Permit, Standing},
    domain::{Caller, Candidate, DeploymentId, PolicyId, Verdict},
    facts::BackendAddress,
    ledger::{Attempt, AttemptFailure, OutcomeStatus, SkipReason, Skipped, TokenCount},
};

/// How often the allowed deployments are gone through.
const ROUNDS: u32 = 2;
/// The pause before the second round, at least and at most; a `Retry-After` beyond it is the client's to
/// wait for.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How many pieces of a streamed answer wait for a slow client.
const STREAM_BUFFER: usize = 32;

/// One allowed call on its way.
pub(super) struct Course<'a> {
    gate: &'a Arc<Gate>,
    caller: &'a Caller,
    call: &'a Arc<ModelCall>,
    recorded: &'a Arc<Recorded>,
    attempts: Vec<Attempt>,
    skipped: BTreeMap<DeploymentId, SkipReason>,
    last: Option<Failure>,
    /// Where the last attempt was at a backend that does not know what the call names: where, and its words.
    words: Option<(Candidate, Bytes)>,
    /// Which deployments refuse to be asked for usage in a stream.
    without_usage: BTreeSet<DeploymentId>,
    /// Takes what the client is sent of an answer.
    pub(super) sent: Sent,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) attempts: Vec<Attempt>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) status: OutcomeStatus,
    pub(super) answered: Answered,
    /// What it counts for where use is limited.
    pub(super) used: TokenCount,
    pub(super) sent: Sent,
}

/// What one round came to.
enum Round {
    /// The call has ended.
    Ended(OutcomeStatus, Answered),
    /// These may answer if they are asked again.
    Again(BTreeSet<DeploymentId>),
}

impl<'a> Course<'a> {
    pub(super) fn new(
        gate: &'a Arc<Gate>,
        caller: &'a Caller,
        call: &'a Arc<ModelCall>,
        recorded: &'a Arc<Recorded>,
    ) -> Self {
        Self {
            gate,
            caller,
            call,
            recorded,
            attempts: Vec::new(),
            skipped: BTreeMap::new(),
            last: None,
            words: None,
            without_usage: BTreeSet::new(),
            sent: Sent::default(),
        }
    }

    /// Tries the allowed deployments until one answers.
    pub(super) async fn run(mut self, reply: ReplySender) -> Ending {
        let mut reply = Some(reply);
        let mut only = None;
        for round in 1..=ROUNDS {
            match self.round(&mut reply, only.as_ref()).await {
                Round::Ended(status, answered) => return self.end(status, answered),
                Round::Again(again) if again.is_empty() || round == ROUNDS => break,
                Round::Again(again) => only = Some(again),
            }
            let Some(pause) = self.pause() else { break };
            if let Some(status) = self.rest(pause, &mut reply).await {
                return self.end(status, Answered::default());
            }
        }
        let status = self.last.map_or(OutcomeStatus::UpstreamError, |last| status_of(last.why));
        if let Some(reply) = reply {
            let (answer, words) = match self.words.take() {
                Some((candidate, words)) => {
                    let served = self.served(&candidate, 404, "application/json".to_owned());
                    (Ok(Reply::Answered(served, ReplyBody::Whole(words.clone()))), Some(words))
                }
                None => (self.nobody_answered(status), None),
            };
            if reply.send(answer).is_ok()
                && let Some(words) = words
            {
                self.sent.add(&words);
            }
        }
        self.end(status, Answered::default())
    }

    fn end(self, status: OutcomeStatus, answered: Answered) -> Ending {
        let tried = |deployment: &DeploymentId| {
            self.attempts.iter().any(|attempt| attempt.deployment == *deployment)
        };
        let skipped = self.skipped.into_iter().filter(|(deployment, _)| !tried(deployment));
        let skipped = skipped.map(|(deployment, reason)| Skipped { deployment, reason });
        let skipped = skipped.collect();
        let used = limits::used(status, &self.attempts, &answered, self.call.received.len());
        Ending { skipped, attempts: self.attempts, status, answered, used, sent: self.sent }
    }

    /// What the client hears when no allowed deployment answered.
    fn nobody_answered(&self, status: OutcomeStatus) -> Result<Reply, GateError> {
        let reasons: BTreeSet<SkipReason> = self.skipped.values().copied().collect();
        let asked = !self.attempts.is_empty();
        if !asked && !reasons.is_empty() {
            if reasons.iter().all(|reason| *reason == SkipReason::NoBackend) {
                return Err(GateError::NoBackend);
            }
            // The snapshot moved after the decision, and allows none of them any more.
            if reasons.iter().all(|reason| *reason == SkipReason::NoLongerAllowed) {
                return Err(GateError::Unsettled);
            }
        }
        let choices = self.gate.choices(&self.call.request, &self.recorded.body);
        // Nothing but its own "too many requests" keeps this app from where it might go.
        let elsewhere = [SkipReason::Busy, SkipReason::NoBackend, SkipReason::NoLongerAllowed];
        let is_limited =
            !asked && choices.is_limited && reasons.iter().all(|one| elsewhere.contains(one));
        let opens = choices.again.map(|at| at.saturating_duration_since(Instant::now()));
        let lacks_key = |attempt: &Attempt| attempt.failure == Some(AttemptFailure::NoKey);
        let down = |attempt: &Attempt| {
            attempt.failure == Some(AttemptFailure::Unreachable)
                || attempt.http_status == Some(503)
                || lacks_key(attempt)
        };
        Ok(Reply::Failed(Box::new(Failed {
            recorded: self.recorded.clone(),
            status,
            upstream: self.last.and_then(|last| last.status).or(is_limited.then_some(429)),
            is_down: self.attempts.iter().all(down),
            lacks_key: asked && self.attempts.iter().all(lacks_key),
            retry_after: self.last.and_then(|last| last.retry_after).or(opens),
        })))
    }

    /// How long to wait for a second round; `None` when it is not worth it.
    fn pause(&self) -> Option<Duration> {
        let asked = self.last.and_then(|last| last.retry_after).unwrap_or_default();
        // Callers that were refused together should not come back together.
        let jitter = Duration::from_millis(self.gate.roll(100));
        (asked <= PAUSE.1).then(|| asked.max(PAUSE.0) + jitter)
    }

    /// Waits; gives how the call ended if the client left, or the process is ending.
    async fn rest(
        &self,
        pause: Duration,
        reply: &mut Option<ReplySender>,
    ) -> Option<OutcomeStatus> {
        let reply = reply.as_mut()?;
        tokio::select! {
            () = reply.closed() => Some(OutcomeStatus::ClientDisconnected),
            () = self.gate.halt.cancelled() => Some(OutcomeStatus::Unknown),
            () = sleep(pause) => None,
        }
    }

    /// Tries each of the allowed deployments, or `only` these of them, once.
    async fn round(
        &mut self,
        reply: &mut Option<ReplySender>,
        only: Option<&BTreeSet<DeploymentId>>,
    ) -> Round {
        let mut again = BTreeSet::new();
        let mut left: VecDeque<Choice> = self.in_order().into();
        while let Some(choice) = left.pop_front() {
            if only.is_some_and(|only| !only.contains(&choice.deployment)) {
                continue;
            }
            let Some(candidate) = self.allowed(&choice.deployment) else { continue };
            let at = (&candidate, choice.standing.address());
            let pass = Pass::new(self.gate, self.caller, self.call, self.recorded, at);
            if !pass.holds() && !pass.renew().await {
                self.skipped.insert(choice.deployment, SkipReason::NoLongerAllowed);
                continue;
            }
            let Some(waiting) = reply.as_mut() else { break };
            let trial = match choice.standing.begin(&self.caller.app, Instant::now()) {
                Ok(trial) => trial,
                Err(reason) => {
                    self.skipped.insert(choice.deployment, reason);
                    continue;
                }
            };
            let (started, pass) = (self.recorded.time(), Arc::new(pass));
            let tried = trace::attempt(self.gate, self.call, &candidate, choice.standing.address());
            let (call, recorded) = (self.call, self.recorded);
            let (gate, asks_usage) = (self.gate, self.asks_usage(&choice.standing));
            let exchange =
                Exchange { gate, call, recorded, tried: &tried, pass: &pass, asks_usage };
            let outcome = exchange.run(choice.standing.address(), &trial, waiting).await;
            self.note(&choice.deployment, pass.sent().unwrap_or(started), &outcome);
            if outcome.is_success() && self.without_usage.contains(&choice.deployment) {
                choice.standing.refuses_usage(Instant::now());
            }
            match outcome {
                Outcome::NoLongerAllowed => {
                    self.skipped.insert(choice.deployment, SkipReason::NoLongerAllowed);
                }
                Outcome::Given(status) => {
                    if status == OutcomeStatus::Unknown {
                        let deployment = tried.deployment();
                        warn_of!(self.recorded, %deployment, "the service ends: a call is cut off");
                    }
                    tried.ended(status, None, None, &Answered::default());
                    return Round::Ended(status, Answered::default());
                }
                // It did nothing with what it refused, and may do all of it with what the client sent.
                Outcome::RefusedOurs(failure) => {
                    (self.last, self.words) = (Some(failure), None);
                    let (why, status) = (failure.why, failure.status);
                    tried.ended(status_of(why), status, Some(why), &Answered::default());
                    self.without_usage.insert(choice.deployment.clone());
                    left.push_front(choice);
                }
                Outcome::Failed(failure, words) => {
                    self.last = Some(failure);
                    self.words = words.map(|words| (candidate, words));
                    let (why, status) = (failure.why, failure.status);
                    tried.ended(status_of(why), status, Some(why), &Answered::default());
                    failure.judge(trial);
                    let repeatable = self.call.is_repeatable();
                    if !failure.is_untouched() && !repeatable {
                        // Nor are those asked again that did nothing with it.
                        return Round::Again(BTreeSet::new());
                    }
                    if failure.may_pass() {
                        again.insert(choice.deployment);
                    }
                }
                Outcome::Whole { status, content_type, body, answered } => {
                    let served = self.served(&candidate, status, content_type);
                    let outcome = self.hand_over(served, &body, reply.take());
                    if (200..300).contains(&status) {
                        trial.succeeded(Instant::now());
                    }
                    tried.ended(outcome, Some(status), None, &answered);
                    return Round::Ended(outcome, answered);
                }
                Outcome::Stream { status, content_type, begun } => {
                    let served = self.served(&candidate, status, content_type);
                    let address = choice.standing.address();
                    let (outcome, answered, failure) =
                        self.stream(served, address, *begun, reply.take()).await;
                    tried.ended(outcome, Some(status), failure, &answered);
                    if let Some(attempt) = self.attempts.last_mut() {
                        attempt.finished = self.recorded.time();
                        attempt.failure = failure;
                    }
                    if let Some(why) = failure {
                        Failure::from(why).judge(trial);
                    } else if outcome == OutcomeStatus::Ok {
                        trial.succeeded(Instant::now());
                    }
                    return Round::Ended(outcome, answered);
                }
            }
        }
        Round::Again(again)
    }

    /// Hands an answer in one piece to the client.
    fn hand_over(
        &mut self,
        mut served: Served,
        body: &Bytes,
        reply: Option<ReplySender>,
    ) -> OutcomeStatus {
        let success = (200..300).contains(&served.status);
        served.label =
            Some(LabelledBy::Caller).filter(|_| success && self.asks_for_label(&served.duties));
        let answer = Ok(Reply::Answered(served, ReplyBody::Whole(body.clone())));
        if reply.is_none_or(|reply| reply.send(answer).is_err()) {
            return OutcomeStatus::ClientDisconnected;
        }
        self.sent.add(body);
        if success { OutcomeStatus::Ok } else { OutcomeStatus::UpstreamError }
    }

    async fn stream(
        &mut self,
        mut served: Served,
        address: &BackendAddress,
        begun: Begun,
        reply: Option<ReplySender>,
    ) -> (OutcomeStatus, Answered, Option<AttemptFailure>) {
        let app = self.caller.app.as_str();
        let (sender, receiver) = pieces(STREAM_BUFFER, self.gate.used.answers.clone(), app);
        let (label, deployment) = (self.label(), served.deployment.clone());
        let label = label.filter(|_| self.asks_for_label(&served.duties));
        let by = if label.is_some() { LabelledBy::Gateway } else { LabelledBy::Caller };
        served.label = Some(by).filter(|_| self.asks_for_label(&served.duties));
        let answer = Ok(Reply::Answered(served, ReplyBody::Stream(receiver)));
        if reply.is_none_or(|reply| reply.send(answer).is_err()) {
            return (OutcomeStatus::ClientDisconnected, Answered::default(), None);
        }
        let mut pump = Pump::new(sender, self.call.endpoint, address, self.call.wants_usage);
        let (endpoint, body) = (self.call.endpoint, &self.call.body);
        pump.label(label.map(|label| Labeller::new(endpoint, label, body)));
        let pumped = pump.run(begun, &self.gate.halt, &mut self.sent).await;
        if let Some(why) = pumped.failure {
            let why = why.as_str();
            warn_of!(self.recorded, %deployment, why, "a streamed answer broke");
        } else if pumped.status == OutcomeStatus::Unknown {
            warn_of!(self.recorded, %deployment, "the service ends: a streamed answer is cut off");
        }
        // The client has all of it by now, and does not wait for the connection's sake.
        if let Some(rest) = pumped.rest {
            self.gate.tasks.spawn(rest.read());
        }
        (pumped.status, pumped.answered, pumped.failure)
    }

    /// Whether a deployment is asked for usage that the client has not asked for.
    fn asks_usage(&self, standing: &Standing) -> bool {
        self.call.stream
            && self.call.endpoint.hides_usage()
            && !self.call.wants_usage
            && standing.asks_for_usage(Instant::now())
            && !self.without_usage.contains(standing.deployment())
    }

    /// Whether one of these duties asks for a label.
    fn asks_for_label(&self, duties: &[PolicyId]) -> bool {
        let judge = self.gate.keeper.current();
        let engine = &judge.snapshot().engine;
        duties.iter().filter_map(|duty| engine.rule(duty)).any(|rule| rule.labels)
    }

    /// The app's label for a streamed answer, where a person reads that and no program.
    fn label(&self) -> Option<String> {
        let judge = self.gate.keeper.current();
        let app = judge.snapshot().organisation.apps.get(&self.caller.app)?;
        let (endpoint, body) = (self.call.endpoint, &self.call.body);
        let is_text = endpoint != Endpoint::Embeddings && !endpoint.is_structured(body);
        app.stream_label.clone().filter(|_| is_text)
    }

    /// The fit deployments, the decision's own route first.
    fn in_order(&mut self) -> Vec<Choice> {
        let choices = self.gate.choices(&self.call.request, &self.recorded.body);
        let skipped = choices.skipped.into_iter().map(|one| (one.deployment, one.reason));
        self.skipped.extend(skipped);
        let mut fit = choices.fit;
        let route = self.recorded.body.route.as_ref().map(|route| &route.deployment);
        let chosen = fit.iter().position(|choice| Some(&choice.deployment) == route);
        // What has filled up since waits behind the others.
        if let Some(chosen) =
            chosen.filter(|at| fit.get(*at).is_some_and(|c| !c.standing.is_full()))
        {
            let choice = fit.remove(chosen);
            fit.insert(0, choice);
        }
        let full: Vec<DeploymentId> = fit
            .iter()
            .filter(|choice| choice.standing.is_full())
            .map(|choice| choice.deployment.clone())
            .collect();
        self.skipped.extend(full.into_iter().map(|one| (one, SkipReason::Full)));
        fit
    }

    /// The recorded candidate, which is allowed.
    fn allowed(&self, deployment: &DeploymentId) -> Option<Candidate> {
        let mut candidates = self.recorded.body.candidates.iter();
        let found = candidates.find(|candidate| candidate.deployment == *deployment)?;
        (found.decision == Verdict::Allow).then(|| found.clone())
    }

    fn served(&self, candidate: &Candidate, status: u16, content_type: String) -> Served {
        Served {
            recorded: self.recorded.clone(),
            deployment: candidate.deployment.clone(),
            jurisdictions: candidate.placement.process.clone(),
            duties: candidate.duties.clone(),
            status,
            content_type,
            label: None,
        }
    }

    fn note(&mut self, deployment: &DeploymentId, started: jiff::Timestamp, outcome: &Outcome) {
        let (failure, http_status) = match outcome {
            Outcome::NoLongerAllowed => return,
            Outcome::Failed(failure, _) | Outcome::RefusedOurs(failure) => {
                (Some(failure.why), failure.status)
            }
            Outcome::Whole { status, .. } | Outcome::Stream { status, .. } => (None, Some(*status)),
            Outcome::Given(_) => (None, None),
        };
        self.attempts.push(Attempt {
            deployment: deployment.clone(),
            failure,
            finished: self.recorded.time(),
            http_status,
            started,
        });
    }
}
