//! What one snapshot decided before: a call that comes again is neither judged nor written out again.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use moka::sync::Cache;

use super::{GateError, Judge, Judged, volume::reserved};
use crate::{
    domain::{CallRequest, Caller, DeploymentId, Export, JurisdictionCode, Reached, Verdict},
    ledger::{DecisionBody, Engine, canonical},
    policy,
};

/// How many decisions a snapshot remembers.
const CAPACITY: u64 = 2_000;

/// Who asked what, and how it is to be decided.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Question {
    caller: Caller,
    request: CallRequest,
    how: How,
}

/// How a call is to be decided, beside what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct How {
    /// Whether Lexgate sends the call when it is allowed.
    pub dispatch: bool,
    /// The thresholds that it reaches.
    pub reached: Vec<Reached>,
    /// Where it goes, if it may; else to the first deployment that is allowed.
    pub preferred: Option<DeploymentId>,
}

/// The decisions that are remembered.
#[derive(Debug)]
pub(super) struct Memo(Cache<Question, Arc<Decided>>);

impl Default for Memo {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}

/// A decision that has no place in the ledger yet: all that its record will say.
#[derive(Debug)]
pub struct Decided {
    /// What the record says.
    pub body: Arc<DecisionBody>,
    /// The same in canonical form.
    pub json: Bytes,
    /// The words by which the record is found.
    pub terms: Arc<[String]>,
    /// What leaves each origin if it is made.
    pub exports: Arc<[(JurisdictionCode, Export)]>,
}

impl Judge {
    /// What is decided of `request`, made by `caller`.
    ///
    /// # Errors
    /// Each field that names something unknown.
    pub fn decide(
        &self,
        caller: &Caller,
        request: &CallRequest,
        how: &How,
    ) -> Result<Arc<Decided>, GateError> {
        // Who the end user is decides nothing.
        let known = CallRequest { end_user: None, ..request.clone() };
        let question = Question { caller: caller.clone(), request: known, how: how.clone() };
        if let Some(decided) = self.memo.0.get(&question) {
            return Ok(decided);
        }
        let started = Instant::now();
        let judged =
            self.judge_preferring(&caller.app, request, &how.reached, how.preferred.as_ref());
        let judged = judged.map_err(GateError::Invalid)?;
        let decided = Arc::new(self.write(caller, judged, how, started)?);
        self.memo.0.insert(question, decided.clone());
        Ok(decided)
    }

    fn write(
        &self,
        caller: &Caller,
        judged: Judged,
        how: &How,
        started: Instant,
    ) -> Result<Decided, GateError> {
        let Judged { call, tenant, evaluation } = judged;
        let body = DecisionBody {
            call,
            caller: Caller { tenant, ..caller.clone() },
            candidates: evaluation.candidates,
            decision: evaluation.decision,
            dispatch: how.dispatch && evaluation.decision == Verdict::Allow,
            duties: evaluation.duties,
            engine: Engine {
                name: policy::ENGINE_NAME.to_owned(),
                version: policy::engine_version(),
            },
            errors: evaluation.errors,
            evaluation_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            instruments: evaluation.instruments,
            reached: how.reached.clone(),
            reasons: evaluation.reasons,
            retention: evaluation.retention,
            route: evaluation.route,
            snapshot: self.snapshot().digests,
            user_commitment: None,
        };
        Ok(Decided {
            json: canonical::to_vec(&body)?.into(),
            terms: body.terms().into(),
            exports: reserved(&body).into(),
            body: Arc::new(body),
        })
    }
}
