//! Outcomes: what became of a call, once for each.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Gate, GateError, Recorded,
    call::Beside,
    content::Content,
    course::Ending,
    decide::{instant, refused},
    limits,
};
use crate::{
    dispatch::Said,
    domain::{Caller, FieldFault, Seq, Verdict},
    ledger::{
        DecisionRef, Kind, OutcomeBody, OutcomeStatus, ReportedStatus, TokenCount, canonical,
    },
    sequencer::{Draft, Receipt, Reserved, SubmitError},
};

/// What a caller that ran inference itself says of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeReport {
    /// How it ended.
    pub status: ReportedStatus,
    /// Tokens read.
    #[serde(default)]
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub input_tokens: Option<u64>,
    /// Tokens written.
    #[serde(default)]
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub output_tokens: Option<u64>,
    /// The model that was served.
    #[serde(default)]
    pub model: Option<String>,
}

impl OutcomeReport {
    /// Numbers that a record cannot hold.
    fn faults(&self) -> Vec<FieldFault> {
        let counts = [("/input_tokens", self.input_tokens), ("/output_tokens", self.output_tokens)];
        let too_large = counts
            .into_iter()
            .filter(|(_, count)| count.is_some_and(|count| count > canonical::MAX_INTEGER));
        let detail = || format!("larger than {}", canonical::MAX_INTEGER);
        too_large.map(|(pointer, _)| FieldFault::new(pointer, detail())).collect()
    }
}

impl Gate {
    /// Records what `caller` says became of the decision `id`.
    ///
    /// # Errors
    /// When there is no such decision of this app, it was denied or dispatched, or was reported
    /// before.
    pub async fn report(
        &self,
        caller: &Caller,
        id: Uuid,
        report: OutcomeReport,
    ) -> Result<Seq, GateError> {
        let faults = report.faults();
        if !faults.is_empty() {
            return Err(GateError::Invalid(faults));
        }
        let stored = self.store.record_by_id(id).await?.ok_or(GateError::NoSuchDecision)?;
        let decision = Recorded::read(&stored)?;
        if decision.body.caller.app != caller.app {
            return Err(GateError::NoSuchDecision);
        }
        match (decision.body.decision, decision.body.dispatch) {
            (Verdict::Deny, _) => return Err(GateError::Denied),
            (Verdict::Allow, true) => return Err(GateError::Dispatched),
            (Verdict::Allow, false) => {}
        }
        let body = OutcomeBody {
            attempts: Vec::new(),
            cost: None,
            decision: DecisionRef { leaf: decision.leaf, seq: decision.seq },
            input_commitment: None,
            model: report.model.map(|model| model.chars().take(256).collect()),
            output_commitment: None,
            reported: Some(report.status),
            retention: decision.body.retention.clone(),
            skipped: Vec::new(),
            status: OutcomeStatus::Reported,
            tokens: TokenCount { input: report.input_tokens, output: report.output_tokens },
        };
        let draft = self.outcome_draft(&decision, &body)?;
        let receipt = self.sequencer.submit(draft).await.map_err(refused)?;
        written(OutcomeStatus::Reported);
        Ok(receipt.seq)
    }

    /// Records what became of a call that Lexgate sent. Comes back only once it is recorded, or
    /// the process ends.
    pub(super) async fn record_outcome(
        &self,
        decision: &Recorded,
        place: Reserved,
        ending: Ending,
        content: Content,
    ) -> Result<(), GateError> {
        let Ending { attempts, skipped, status, answered, used, .. } = ending;
        let judge = self.keeper.current();
        let organisation = &judge.snapshot().organisation;
        let cost = limits::cost(organisation, &attempts, answered.tokens);
        let body = OutcomeBody {
            attempts,
            cost,
            decision: DecisionRef { leaf: decision.leaf, seq: decision.seq },
            input_commitment: content.input,
            model: answered.model,
            output_commitment: content.output,
            reported: None,
            retention: decision.body.retention.clone(),
            skipped,
            status,
            tokens: answered.tokens,
        };
        let volume = self.settle_exports(decision, status, &body.attempts);
        let spent = limits::cost(organisation, &body.attempts, used);
        let (caller, now) = (&decision.body.caller, instant(&*self.clock));
        let quota = limits::spending(organisation, caller, used, spent.as_ref(), now);
        // What was tried nowhere has used nothing.
        let quota = if body.attempts.is_empty() && status != OutcomeStatus::Unknown {
            self.used.returned.give_back(quota, &decision.limits, now)
        } else {
            quota
        };
        let beside = Beside { personal: content.value, volume, quota };
        let draft = Draft {
            personal: beside.personal.clone(),
            volume: beside.volume.clone(),
            quota: beside.quota.clone(),
            ..self.outcome_draft(decision, &body)?
        };
        match self.sequencer.submit_reserved(place, draft).await {
            Ok(_) => {
                written(status);
                Ok(())
            }
            // Another process took this one for dead.
            Err(SubmitError::AlreadyReported) => self.record_late(decision, body, beside).await,
            Err(error) => Err(refused(error)),
        }
    }

    pub(super) fn outcome_draft(
        &self,
        decision: &Recorded,
        body: &OutcomeBody,
    ) -> Result<Draft, GateError> {
        Ok(Draft {
            terms: decision.body.outcome_terms(&body.attempts).into(),
            about: Some(decision.seq),
            ..Draft::new(self.fresh_id()?, Kind::Outcome, canonical::to_vec(body)?)
        })
    }
}

/// What a backend said of its answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    pub(super) model: Option<String>,
    pub(super) tokens: TokenCount,
    /// How many events it came in.
    pub(super) events: u64,
}

impl Answered {
    /// Takes what an answer, or one event of it, says: the latest word holds.
    pub(super) fn add(&mut self, said: &Said) {
        // A number that no record can hold is no count.
        let countable = |count: &u64| *count < 1 << 53;
        self.events += 1;
        if let Some(model) = &said.model {
            self.model = Some(short(model));
        }
        self.tokens.input = said.input.filter(countable).or(self.tokens.input);
        self.tokens.output = said.output.filter(countable).or(self.tokens.output);
    }
}

/// A backend's name for a model, as far as a record holds it.
fn short(model: &str) -> String {
    if model.len() <= 256 { model.to_owned() } else { model.chars().take(64).collect() }
}

/// Counts an outcome that this process has written.
pub(super) fn written(status: OutcomeStatus) {
    metrics::counter!("lexgate_outcomes_total", "status" => status.as_str()).increment(1);
}

/// An outcome that somebody else recorded first is recorded.
pub(super) fn settled(submitted: Result<Receipt, SubmitError>) -> Result<(), GateError> {
    match submitted {
        Ok(_) => Ok(()),
        Err(SubmitError::AlreadyReported) => {
            tracing::warn!("the outcome was recorded by another process first");
            Ok(())
        }
        Err(error) => Err(refused(error)),
    }
}
