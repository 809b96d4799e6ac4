//! What is known of a call after another process has written its outcome `unknown`, because this one
//! seemed dead: a record of its own, once.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::super::{
    Gate, GateError, Recorded, confirmation::in_signed_tree, outcome::settled, trace::warn_of,
};
use crate::{
    domain::{Quota, Volume},
    ledger::{
        DecisionRef, Entry, Kind, LateOutcomeBody, OutcomeBody, OutcomeStatus, canonical, leaf_of,
    },
    sequencer::{Draft, SealedValue},
    store::Stored,
};

/// How often the store is asked for the outcome that was written, and the pause between.
const ATTEMPTS: usize = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// What an outcome brings with it into the commit.
#[derive(Clone, Debug)]
pub(in crate::gate) struct Beside {
    pub(in crate::gate) personal: Option<Arc<SealedValue>>,
    pub(in crate::gate) volume: Option<Arc<Volume>>,
    pub(in crate::gate) quota: Option<Arc<Quota>>,
}

impl Gate {
    /// Records what `body` adds to the outcome that another process has written. Where that says how the
    /// call ended, it stands.
    pub(in crate::gate) async fn record_late(
        &self,
        decision: &Recorded,
        body: OutcomeBody,
        beside: Beside,
    ) -> Result<(), GateError> {
        let stored = self.written(decision).await?;
        // A row that says how a call ended is believed where the log has signed it, not where it lies.
        let leaf = leaf_of(&stored.entry);
        in_signed_tree(&*self.store, self.sequencer.signer(), stored.seq, leaf).await?;
        let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
        let written: OutcomeBody =
            serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
        let says_nothing =
            |body: &OutcomeBody| body.status == OutcomeStatus::Unknown && body.attempts.is_empty();
        if !says_nothing(&written) || says_nothing(&body) {
            warn_of!(decision, "the outcome was recorded by another process first");
            return Ok(());
        }
        warn_of!(
            decision,
            "the outcome was recorded by another process as `unknown`: what is known is recorded beside it"
        );
        let terms = decision.body.outcome_terms(&body.attempts).into();
        let outcome = DecisionRef { leaf: stored.leaf, seq: stored.seq };
        let body = canonical::to_vec(&LateOutcomeBody::new(body, outcome))?;
        // The call itself was ended by the outcome that was written.
        let quota = beside.quota.map(|quota| Quota { under_way: None, ..Quota::clone(&quota) });
        let draft = Draft {
            terms,
            // Whoever writes about the same outcome finds that it was done.
            about: Some(stored.seq),
            personal: beside.personal,
            volume: beside.volume,
            quota: quota.filter(|quota| !quota.is_empty()).map(Arc::new),
            ..Draft::new(self.fresh_id()?, Kind::LateOutcome, body)
        };
        let place = self.sequencer.reserve().map_err(super::super::decide::refused)?;
        let submitted = self.sequencer.submit_reserved(place, draft).await;
        if submitted.is_ok() {
            metrics::counter!("lexgate_late_outcomes_total").increment(1);
        }
        settled(submitted)
    }

    /// The outcome that another process has written.
    async fn written(&self, decision: &Recorded) -> Result<Stored, GateError> {
        let mut last = GateError::Corrupt;
        for _ in 0..ATTEMPTS {
            match self.store.outcome_of(decision.seq).await {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) => return Err(GateError::Corrupt),
                Err(error) => last = error.into(),
            }
            tokio::select! {
                () = self.halt.cancelled() => break,
                () = sleep(PAUSE) => {}
            }
        }
        Err(last)
    }
}
