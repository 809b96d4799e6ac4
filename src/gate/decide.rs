//! Decide and record: no answer before its record is durable, none from a snapshot that is past.

mod repeat;

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use tracing::Span;
use uuid::Uuid;

use super::{
    Gate, GateError, Judge,
    call::Moment,
    limits,
    memo::{Decided, How},
    trace,
    vault::Kept,
    volume::Tally,
};
use crate::{
    domain::{CallRequest, Caller, DecisionId, Digest, FieldFault, LimitState, Reached, Seq},
    ledger::{self, DecisionBody, Entry, Kind},
    sequencer::{Draft, Receipt, SubmitError},
    store::{Claim, Claimed, Stored},
};

/// How often a call is judged again because the snapshot moved.
const ATTEMPTS: usize = 5;

/// A caller's own name for a request, under which the first answer is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// At most 128 visible ASCII characters.
    ///
    /// # Errors
    /// A fault of the header.
    pub fn parse(text: &str) -> Result<Self, FieldFault> {
        let fits =
            (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldFault::header("Idempotency-Key", "want 1 to 128 visible ASCII characters"))
        }
    }
}

/// A decision with its place in the ledger.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The decision's identifier, which is its entry's.
    pub id: DecisionId,
    /// When it was recorded.
    pub ts: Timestamp,
    /// The log that holds it.
    pub log: String,
    /// Its position.
    pub seq: Seq,
    /// Its leaf hash.
    pub leaf: Digest,
    /// What the record says.
    pub body: Arc<DecisionBody>,
    /// How far the limits are used to which it was held.
    pub limits: Arc<[LimitState]>,
    /// The instant from which what it rests on no longer holds; `None` where it is not known, or there is none.
    pub valid_until: Option<Timestamp>,
    /// The term of the lease in which this process recorded it.
    pub(super) lease: u64,
    /// When this process heard that it is recorded.
    heard: Instant,
}

impl Recorded {
    /// The time, as the ledger's goes on from when the decision was recorded: what the machine's clock is set to
    /// meanwhile does not reach the record of an attempt.
    pub(super) fn time(&self) -> Timestamp {
        self.ts.checked_add(self.heard.elapsed()).unwrap_or(Timestamp::MAX)
    }

    /// The decision that `stored` holds.
    pub(super) fn read(stored: &Stored) -> Result<Self, GateError> {
        let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
        if entry.kind != Kind::Decision {
            return Err(GateError::NoSuchDecision);
        }
        let body: DecisionBody =
            serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
        Ok(Self {
            id: entry.id.into(),
            ts: entry.ts,
            log: entry.log.as_str().to_owned(),
            seq: stored.seq,
            leaf: stored.leaf,
            body: Arc::new(body),
            limits: Arc::default(),
            valid_until: None,
            lease: 0,
            heard: Instant::now(),
        })
    }
}

/// How a decision is to be recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Manner {
    /// Whether Lexgate sends the call when it is allowed.
    pub(super) dispatch: bool,
    /// The claim of an idempotency key.
    pub(super) claim: Option<Arc<Claim>>,
}

impl Gate {
    /// Judges `request` and records the decision.
    ///
    /// # Errors
    /// When it cannot be judged, or not be recorded: the call must not be made then.
    pub async fn decide(
        &self,
        caller: &Caller,
        request: &CallRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<Recorded, GateError> {
        trace::decide(&Span::current(), self.decide_once(caller, request, key)).await
    }

    async fn decide_once(
        &self,
        caller: &Caller,
        request: &CallRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<Recorded, GateError> {
        self.sequencer.may_decide()?;
        let claim = key.map(|key| Arc::new(self.claim(caller, request, key)));
        if let Some(claim) = &claim
            && let Some(known) = self.claimed(claim).await?
        {
            return self.repeat(caller, request, claim, known.seq).await;
        }
        self.decide_in(caller, request, Manner { dispatch: false, claim }).await
    }

    /// Judges all `requests` and records the decisions in one commit.
    ///
    /// # Errors
    /// When one of them cannot be judged, or they cannot be recorded.
    pub async fn decide_all(
        &self,
        caller: &Caller,
        requests: &[CallRequest],
    ) -> Result<Vec<Recorded>, GateError> {
        trace::decide_all(&Span::current(), self.decide_together(caller, requests)).await
    }

    async fn decide_together(
        &self,
        caller: &Caller,
        requests: &[CallRequest],
    ) -> Result<Vec<Recorded>, GateError> {
        self.has_room()?;
        self.sequencer.may_decide()?;
        let mut users = Vec::new();
        for request in requests {
            users.push(self.keep_user(caller, request).await?);
        }
        let mut now = instant(&*self.clock);
        for _ in 0..ATTEMPTS {
            let judge = self.keeper.deciding()?;
            let (mut bodies, mut drafts, mut faults) = (Vec::new(), Vec::new(), Vec::new());
            let mut tally = self.tally(&judge, caller, requests, now).await?;
            for (index, (request, user)) in requests.iter().zip(&users).enumerate() {
                let manner = Manner::default();
                match self.draft(caller, &judge, request, &manner, user.as_ref(), &mut tally) {
                    Ok((decided, draft)) => {
                        bodies.push((draft.id, decided));
                        drafts.push(draft);
                    }
                    Err(GateError::Invalid(found)) => {
                        faults.extend(found.into_iter().map(|fault| {
                            let pointer = format!("/calls/{index}{}", fault.pointer);
                            FieldFault::new(pointer, fault.detail)
                        }));
                    }
                    Err(error) => return Err(error),
                }
            }
            if !faults.is_empty() {
                return Err(GateError::Invalid(faults));
            }
            match self.sequencer.submit_whole(drafts).await {
                Ok(receipts) => {
                    let recorded = bodies.into_iter().zip(receipts);
                    let recorded = recorded
                        .map(|((id, decided), receipt)| self.recorded(id, &decided, &receipt));
                    return Ok(recorded.collect());
                }
                // One snapshot judged them all: it is past for all of them.
                Err(SubmitError::Stale) => now = self.catch_up(now).await?,
                Err(SubmitError::TooLarge { bytes, limit }) => {
                    let largest =
                        requests.iter().enumerate().max_by_key(|(_, request)| places(request));
                    let Some((index, request)) = largest else { return Err(GateError::Corrupt) };
                    return Err(too_large(request, &format!("/calls/{index}"), bytes, limit));
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Err(GateError::Unsettled)
    }

    pub(super) async fn decide_in(
        &self,
        caller: &Caller,
        request: &CallRequest,
        manner: Manner,
    ) -> Result<Recorded, GateError> {
        let user = self.keep_user(caller, request).await?;
        self.decide_for(caller, request, user.as_ref(), manner).await
    }

    /// The same for an end user who is sealed already.
    pub(super) async fn decide_for(
        &self,
        caller: &Caller,
        request: &CallRequest,
        user: Option<&Kept>,
        manner: Manner,
    ) -> Result<Recorded, GateError> {
        self.has_room()?;
        self.sequencer.may_decide()?;
        let mut now = instant(&*self.clock);
        for _ in 0..ATTEMPTS {
            let judge = self.keeper.deciding()?;
            let mut tally = self.tally(&judge, caller, std::slice::from_ref(request), now).await?;
            let drafted = self.draft(caller, &judge, request, &manner, user, &mut tally);
            let (decided, draft) = drafted?;
            let (id, valid_until) = (draft.id, draft.valid_until);
            let asked = Moment::now(&*self.clock);
            let lease = self.lease.held_since(asked).unwrap_or_default();
            match self.sequencer.submit(draft).await {
                Ok(receipt) => {
                    self.confirmed.note(decided.body.snapshot.revision, asked, receipt.ts);
                    let recorded = self.recorded(id, &decided, &receipt);
                    return Ok(Recorded { valid_until, lease, ..recorded });
                }
                Err(SubmitError::Stale) => now = self.catch_up(now).await?,
                Err(SubmitError::Claimed(seq)) => {
                    let Some(claim) = &manner.claim else { return Err(GateError::Corrupt) };
                    return self.repeat(caller, request, claim, seq).await;
                }
                Err(SubmitError::TooLarge { bytes, limit }) => {
                    return Err(too_large(request, "", bytes, limit));
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Err(GateError::Unsettled)
    }

    /// Takes what made a decision stale: another snapshot, other counts, or another day. Gives the
    /// time, which is not before the ledger's.
    async fn catch_up(&self, now: Timestamp) -> Result<Timestamp, GateError> {
        self.keeper.refresh().await?;
        let head = self.in_time(self.sequencer.head()).await?;
        let now = now.max(instant(&*self.clock));
        Ok(head.map_or(now, |head| now.max(head.ts)))
    }

    /// Seals who the end user is, where the organisation keeps that.
    pub(super) async fn keep_user(
        &self,
        caller: &Caller,
        request: &CallRequest,
    ) -> Result<Option<Kept>, GateError> {
        let (Some(vault), Some(user)) = (&self.vault, &request.end_user) else { return Ok(None) };
        self.in_time(vault.seal(&caller.tenant, user)).await.map(Some)
    }

    /// The decision of `request`, and its way into the ledger.
    fn draft(
        &self,
        caller: &Caller,
        judge: &Judge,
        request: &CallRequest,
        manner: &Manner,
        user: Option<&Kept>,
        tally: &mut Tally,
    ) -> Result<(Arc<Decided>, Draft), GateError> {
        let started = Instant::now();
        let asked = tally.ask(judge, caller, request);
        let decided =
            self.decide_well(judge, caller, request, manner.dispatch, Reached::of(&asked))?;
        metrics::histogram!("lexgate_evaluate_seconds").record(started.elapsed().as_secs_f64());
        let snapshot = judge.snapshot();
        let json = match user {
            Some(user) => user.commitment.put_into(&decided.json).into(),
            None => decided.json.clone(),
        };
        let volume = tally.add(judge, asked, &decided);
        let organisation = &snapshot.organisation;
        let dispatched = decided.body.dispatch;
        let quota = limits::admission(organisation, caller, dispatched, instant(&*self.clock));
        let ends = [snapshot.valid_until, volume.valid_until()];
        let draft = Draft {
            personal: user.map(|user| user.value.clone()),
            terms: decided.terms.clone(),
            revision: Some(snapshot.digests.revision),
            valid_until: ends.into_iter().flatten().min(),
            dispatch: decided.body.dispatch,
            claim: manner.claim.clone(),
            volume: (!volume.is_empty()).then(|| Arc::new(volume)),
            quota,
            ..Draft::new(self.fresh_id()?, Kind::Decision, json)
        };
        Ok((decided, draft))
    }

    /// The decision, with the route to the deployment that is best now: which one that is decides nothing
    /// about what is allowed. Callers that run inference themselves get the first that is well.
    fn decide_well(
        &self,
        judge: &Judge,
        caller: &Caller,
        request: &CallRequest,
        dispatch: bool,
        reached: Vec<Reached>,
    ) -> Result<Arc<Decided>, GateError> {
        let mut how = How { dispatch, reached, preferred: None };
        let decided = judge.decide(caller, request, &how)?;
        let Some(route) = &decided.body.route else { return Ok(decided) };
        let best = if dispatch {
            let fit = self.choices(request, &decided.body).fit;
            fit.into_iter().next().map(|choice| choice.deployment)
        } else {
            self.first_well(&decided.body)
        };
        if best.as_ref().is_none_or(|best| *best == route.deployment) {
            return Ok(decided);
        }
        how.preferred = best;
        judge.decide(caller, request, &how)
    }

    fn recorded(&self, id: Uuid, decided: &Decided, receipt: &Receipt) -> Recorded {
        let body = decided.body.clone();
        decided.counters.count(&body);
        let log = self.sequencer.origin().to_string();
        Recorded {
            id: id.into(),
            ts: receipt.ts,
            log,
            seq: receipt.seq,
            leaf: receipt.leaf,
            body,
            limits: receipt.limits.clone(),
            valid_until: None,
            lease: 0,
            heard: Instant::now(),
        }
    }

    /// Keys belong to an app; the same key and request are the same wherever they arrive. Who the end
    /// user is cannot be found from what is kept: it is left out, or under the master key.
    fn claim(&self, caller: &Caller, request: &CallRequest, key: IdempotencyKey) -> Claim {
        let text = |request: &CallRequest| serde_json::to_vec(request).unwrap_or_default();
        let request = match &self.vault {
            Some(vault) => vault.fingerprint(&text(request)),
            None => Digest::of(&text(&CallRequest { end_user: None, ..request.clone() })),
        };
        Claim { scope: caller.app.to_string(), key: key.0, request }
    }

    /// What an idempotency key was used for.
    async fn claimed(&self, claim: &Claim) -> Result<Option<Claimed>, GateError> {
        self.in_time(self.store.idempotent(&claim.scope, &claim.key)).await
    }

    /// What was looked up in front of a decision. A store that hangs is a ledger that cannot be written.
    pub(super) async fn in_time<T, E: Into<GateError>>(
        &self,
        lookup: impl Future<Output = Result<T, E>>,
    ) -> Result<T, GateError> {
        let patience = self.store.patience().lookup();
        let Ok(found) = tokio::time::timeout(patience, lookup).await else {
            tracing::warn!(within = ?patience, "the store did not answer what a decision needs in time");
            return Err(GateError::LedgerUnavailable);
        };
        found.map_err(Into::into)
    }
}

/// The gate's word for why the sequencer took nothing.
pub(super) fn refused(error: SubmitError) -> GateError {
    match error {
        SubmitError::QueueFull => GateError::QueueFull,
        SubmitError::TooLarge { bytes, limit } => GateError::RecordTooLarge { bytes, limit },
        SubmitError::Limited(state) => {
            let measure = state.limit.measure.as_str();
            metrics::counter!("lexgate_limited_total", "measure" => measure).increment(1);
            GateError::Limited(state)
        }
        SubmitError::AlreadyReported => GateError::AlreadyReported,
        SubmitError::Closed => GateError::Closed,
        SubmitError::Stale => GateError::Unsettled,
        SubmitError::Unavailable(error) if error.refuses_to_sign() => GateError::Halted(error),
        error => {
            tracing::warn!(%error, "the ledger took no record");
            GateError::LedgerUnavailable
        }
    }
}

/// How many jurisdictions a call names, which is what makes its record long.
fn places(request: &CallRequest) -> usize {
    let audience = request.audience.as_ref().map_or(0, Vec::len);
    request.data.as_ref().map_or(0, |data| data.subjects.len()).max(audience)
}

/// Says what makes the record of `request` too long, and what helps.
fn too_large(request: &CallRequest, prefix: &str, bytes: usize, limit: usize) -> GateError {
    let data = request.data.as_ref();
    let [subjects, categories] =
        data.map_or([0; 2], |data| [data.subjects.len(), data.categories.len()]);
    let audience = request.audience.as_ref().map_or(0, Vec::len);
    // Each origin is judged on its way to each place of each deployment, and each of these flows recorded.
    let (field, help) = if subjects > 1 && subjects >= audience && subjects >= categories {
        let help = "split the call, with fewer subjects in each part";
        ("/data/subjects", format!("it names {subjects} subjects: {help}"))
    } else if audience > 1 && audience >= categories {
        ("/audience", format!("it names {audience} jurisdictions: name fewer"))
    } else if categories > 1 {
        ("/data/categories", format!("it names {categories} categories: name fewer"))
    } else {
        ("/model", "too many deployments are considered for it".to_owned())
    };
    let help = match request.deployment {
        None => format!("{help}, or name one `deployment`, so that no other one is considered"),
        Some(_) => help,
    };
    let detail = format!(
        "the record of this call would take {bytes} bytes, and an entry holds at most {limit}; {help}"
    );
    GateError::Invalid(vec![FieldFault::new(format!("{prefix}{field}"), detail)])
}

/// Microsecond times, as records write them.
pub(super) fn instant(clock: &dyn crate::domain::Clock) -> Timestamp {
    ledger::to_micros(clock.now())
}
