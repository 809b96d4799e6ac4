//! What one snapshot decided before: a call that comes again is neither judged nor written out again.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use moka::sync::Cache;

use super::{GateError, Judge, Judged, series::Counters, volume::reserved};
use crate::{
    domain::{CallRequest, Caller, DeploymentId, Export, JurisdictionCode, Reached, Verdict},
    ledger::{DecisionBody, Engine, canonical},
    policy,
};

/// How many bytes of decisions a snapshot remembers: some two thousand of the usual size.
const CAPACITY: u64 = 32 << 20;
/// What a decision takes beside its text: names, counts and tables.
const OVERHEAD: usize = 1 << 10;
/// How often a decision's text is held, as text and taken apart.
const COPIES: usize = 3;

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
        let weigh = |_: &Question, decided: &Arc<Decided>| {
            let bytes = OVERHEAD + COPIES * decided.json.len();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(CAPACITY).weigher(weigh).build())
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
    /// What counts it once it is recorded.
    pub(super) counters: Counters,
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
            counters: Counters::default(),
            body: Arc::new(body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_weighed_and_not_counted() {
        let memo = Memo::default();
        let caller = Caller {
            app: "desk".into(),
            authenticated: String::new(),
            key: "desk".into(),
            tenant: "acme".into(),
        };
        let body = Arc::new(crate::ledger::fixture::decision(1, false, "weighed"));
        let call: CallRequest =
            serde_json::from_value(serde_json::json!({ "action": "infer" })).unwrap();
        for number in 0..3_000 {
            let request = CallRequest { model: Some(number.to_string()), ..call.clone() };
            let question = Question { caller: caller.clone(), request, how: How::default() };
            let decided = Decided {
                body: body.clone(),
                json: Bytes::from(vec![b' '; 65_000]),
                terms: Arc::default(),
                exports: Arc::default(),
                counters: Counters::default(),
            };
            memo.0.insert(question, Arc::new(decided));
        }
        memo.0.run_pending_tasks();
        assert!((1..=CAPACITY).contains(&memo.0.weighted_size()), "{}", memo.0.weighted_size());
        assert!(memo.0.entry_count() < 200, "{}", memo.0.entry_count());
    }
}
