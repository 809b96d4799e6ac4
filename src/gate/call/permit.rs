//! The one gate in front of every attempt: whether it may be sent, at the moment at which it is. The
//! decision said so once; since then a fact may have ended, another snapshot may be active, and this process
//! may have stood still. Not which deployment is tried (`choose`, `course`).

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    super::{Gate, GateError, Judge, ModelCall, Recorded, trace::warn_of},
    fresh::Moment,
};
use crate::{
    dispatch::Permit,
    domain::{Caller, Candidate, Revision, Verdict},
    facts::BackendAddress,
};

/// How long the snapshot that has become active may take to be read.
const REFRESH: Duration = Duration::from_secs(2);
/// How often it is asked again because the snapshot moved meanwhile.
const ATTEMPTS: usize = 3;

/// The permit of one attempt at one deployment.
#[derive(Debug)]
pub(in crate::gate) struct Pass {
    gate: Arc<Gate>,
    caller: Caller,
    call: Arc<ModelCall>,
    recorded: Arc<Recorded>,
    candidate: Candidate,
    address: BackendAddress,
    grant: Mutex<Grant>,
    sent: OnceLock<Timestamp>,
}

/// Which snapshot allows the attempt, and until when.
#[derive(Clone, Copy, Debug)]
struct Grant {
    revision: Revision,
    until: Option<Timestamp>,
}

impl Pass {
    /// The permit for an attempt at `candidate`, which is at `address`: what the decision has granted.
    pub(in crate::gate) fn new(
        gate: &Arc<Gate>,
        caller: &Caller,
        call: &Arc<ModelCall>,
        recorded: &Arc<Recorded>,
        (candidate, address): (&Candidate, &BackendAddress),
    ) -> Self {
        let revision = recorded.body.snapshot.revision;
        let grant = Grant { revision, until: recorded.valid_until };
        Self {
            gate: gate.clone(),
            caller: caller.clone(),
            call: call.clone(),
            recorded: recorded.clone(),
            candidate: candidate.clone(),
            address: address.clone(),
            grant: Mutex::new(grant),
            sent: OnceLock::new(),
        }
    }

    /// When the first byte of the call was sent; `None` when none was.
    pub(in crate::gate) fn sent(&self) -> Option<Timestamp> {
        self.sent.get().copied()
    }

    fn grant(&self) -> Grant {
        *self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_valid(&self, now: Moment) -> bool {
        let time = self.gate.confirmed.time(now);
        let is_over = self.grant().until.is_some_and(|until| time >= until);
        !is_over && self.is_mine(now) && self.may_sign()
    }

    /// Whether nobody has taken this process for dead since the call was decided: its outcome would be
    /// written then, also where the process is believed to live again.
    fn is_mine(&self, now: Moment) -> bool {
        self.gate.lease.held_since(now) == Some(self.recorded.lease)
    }

    /// Whether this process may still sign what becomes of the call, and still knows which snapshot decides.
    fn may_sign(&self) -> bool {
        self.gate.sequencer.standing().is_ok() && self.gate.keeper.standing().is_ok()
    }

    async fn ask(&self) -> Result<bool, GateError> {
        let gate = &*self.gate;
        for _ in 0..ATTEMPTS {
            let judge = gate.keeper.deciding()?;
            let snapshot = judge.snapshot();
            let revision = snapshot.digests.revision;
            let is_active = gate.is_active(revision).await?;
            let now = Moment::now(&*gate.clock);
            let time = gate.confirmed.time(now);
            if !is_active || snapshot.valid_until.is_some_and(|until| time >= until) {
                let refreshed = timeout(REFRESH, gate.keeper.refresh()).await;
                refreshed.map_err(|_| GateError::LedgerUnavailable)??;
                continue;
            }
            let ends = self.recorded.valid_until;
            let is_recorded = snapshot.digests == self.recorded.body.snapshot;
            let until = if is_recorded && ends.is_none_or(|ends| time < ends) {
                ends
            } else {
                let Some(until) = self.judge_again(&judge, time).await? else { return Ok(false) };
                until
            };
            *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = Grant { revision, until };
            if self.holds() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the snapshot has moved since the decision, or its counts are of a day that is over, an attempt
    /// needs an allow of today, for the same places and at the same address. Gives until when that holds;
    /// `None` when there is none.
    async fn judge_again(
        &self,
        judge: &Judge,
        time: Timestamp,
    ) -> Result<Option<Option<Timestamp>>, GateError> {
        let (caller, request) = (&self.caller, &self.call.request);
        let snapshot = judge.snapshot();
        let row = snapshot.organisation.deployment(self.candidate.deployment.as_str());
        if row.is_none_or(|row| row.backend.as_ref() != Some(&self.address)) {
            return Ok(None);
        }
        let reached = self.gate.reached_again(judge, caller, request, time).await?;
        let judged = judge.judge_afresh(&caller.app, request, &reached);
        let judged = judged.map_err(GateError::Invalid)?;
        let is_allowed = judged.evaluation.candidates.iter().any(|candidate| {
            candidate.deployment == self.candidate.deployment
                && candidate.placement == self.candidate.placement
                && candidate.decision == Verdict::Allow
        });
        let counted = snapshot.asked(&caller.app, request, time);
        let ends = counted.iter().filter_map(|asked| asked.until).chain(snapshot.valid_until);
        Ok(is_allowed.then(|| ends.min()))
    }
}

#[async_trait]
impl Permit for Pass {
    fn holds(&self) -> bool {
        let now = Moment::now(&*self.gate.clock);
        let revision = self.grant().revision;
        // The addresses are those of the snapshot that this process has taken since.
        let is_taken = self.gate.keeper.current().snapshot().digests.revision == revision;
        is_taken && self.is_valid(now) && self.gate.confirmed.is_active(revision, now)
    }

    async fn renew(&self) -> bool {
        if !self.is_mine(Moment::now(&*self.gate.clock)) {
            let deployment = &self.candidate.deployment;
            warn_of!(&self.recorded, %deployment, "this process' lease ran out: a call is not sent");
            return false;
        }
        self.ask().await.unwrap_or_else(|error| {
            let deployment = &self.candidate.deployment;
            warn_of!(&self.recorded, %deployment, %error, "it could not be confirmed that a call may still be sent: it is not sent");
            false
        })
    }

    fn begun(&self) {
        let _ = self.sent.set(self.recorded.time());
    }

    fn lasts(&self) -> bool {
        self.is_valid(Moment::now(&*self.gate.clock))
    }
}

impl Gate {
    /// Whether `revision` is the active one. Where that was not heard a moment ago the store is asked, once
    /// for all calls that wait: if each of them asked, it would be slow exactly when many have to know.
    async fn is_active(&self, revision: Revision) -> Result<bool, GateError> {
        let heard = || self.confirmed.heard(revision, Moment::now(&*self.clock));
        if let Some(is_active) = heard() {
            return Ok(is_active);
        }
        let patience = self.store.patience().confirmation();
        let asked = async {
            let _turn = self.confirmed.turn().await;
            match heard() {
                Some(is_active) => Ok(is_active),
                None => self.ask_revision(patience).await.map(|active| active == revision),
            }
        };
        timeout(patience, asked).await.map_err(|_| GateError::LedgerUnavailable)?
    }

    /// The active revision, as the store says now.
    pub(in crate::gate) async fn ask_revision(
        &self,
        patience: Duration,
    ) -> Result<Revision, GateError> {
        let asked = Moment::now(&*self.clock);
        let head = timeout(patience, self.sequencer.head()).await;
        let head = head.map_err(|_| GateError::LedgerUnavailable)??;
        let head = head.ok_or(GateError::Corrupt)?;
        self.confirmed.note(head.revision, asked, head.ts);
        Ok(head.revision)
    }
}
