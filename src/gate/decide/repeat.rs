//! Giving an answer again under its idempotency key: only while it would be given today, so that a memory
//! of an allow is no way around what has ended or changed since.

use super::{
    super::{
        Gate, GateError, Judge,
        call::Moment,
        confirmation::{ConfirmationError, in_signed_tree},
        memo::How,
    },
    Recorded,
};
use crate::{
    domain::{CallRequest, Caller, Seq, Verdict},
    ledger,
    store::{Claim, Stored},
};

impl Gate {
    /// The first answer that was given under an idempotency key, while it would be given today.
    pub(super) async fn repeat(
        &self,
        caller: &Caller,
        request: &CallRequest,
        claim: &Claim,
        seq: Seq,
    ) -> Result<Recorded, GateError> {
        let known = self.claimed(claim).await?;
        if known.is_none_or(|known| known.request != claim.request) {
            return Err(GateError::KeyReused);
        }
        let stored = self.in_time(self.store.record(seq)).await?.ok_or(GateError::Corrupt)?;
        let recorded = Recorded::read(&stored)?;
        // First it is heard which snapshot decides: what a call resolves to is known of that one alone.
        let still_answers = self.still_answers(caller, request, &recorded).await?;
        self.check_repeated(caller, request, &stored, &recorded).await?;
        if still_answers {
            Ok(recorded)
        } else {
            Err(GateError::AnswerOutdated { id: recorded.id, seq })
        }
    }

    /// The table of keys is an index: it may lead to another call's record, or to one that nobody signed.
    async fn check_repeated(
        &self,
        caller: &Caller,
        request: &CallRequest,
        stored: &Stored,
        recorded: &Recorded,
    ) -> Result<(), GateError> {
        let leaf = ledger::leaf_of(&stored.entry);
        let signed = in_signed_tree(&*self.store, self.sequencer.signer(), stored.seq, leaf);
        match tokio::time::timeout(self.store.patience().lookup(), signed).await {
            Err(_) => return Err(GateError::LedgerUnavailable),
            Ok(Err(ConfirmationError::Store(error))) => return Err(error.into()),
            Ok(Err(ConfirmationError::Unconfirmed(error))) => {
                tracing::error!(%error, seq = %stored.seq, "an idempotency key leads to a record that was not signed");
                return Err(GateError::Corrupt);
            }
            Ok(Ok(())) => {}
        }
        let body = &recorded.body;
        let judge = self.keeper.deciding()?;
        // What a call resolves to is known of the active snapshot alone.
        let is_the_call = judge.snapshot().digests != body.snapshot || {
            let (dispatch, reached) = (body.dispatch, body.reached.clone());
            let how = How { dispatch, reached, preferred: None };
            judge.decide(caller, request, &how)?.body.call == body.call
        };
        let is_callers = body.caller.app == caller.app && body.caller.tenant == caller.tenant;
        if is_callers && is_the_call {
            return Ok(());
        }
        tracing::error!(seq = %stored.seq, "an idempotency key leads to the record of another call");
        Err(GateError::Corrupt)
    }

    /// Whether the snapshot that gave an answer is the active one, and what the answer rests on has not ended.
    async fn still_answers(
        &self,
        caller: &Caller,
        request: &CallRequest,
        recorded: &Recorded,
    ) -> Result<bool, GateError> {
        let revision = self.ask_revision(self.store.patience().lookup()).await?;
        let time = self.confirmed.time(Moment::now(&*self.clock));
        let is_past = |judge: &Judge| {
            let snapshot = judge.snapshot();
            snapshot.digests.revision != revision
                || snapshot.valid_until.is_some_and(|until| time >= until)
        };
        if is_past(&*self.keeper.deciding()?) {
            self.keeper.refresh().await?;
        }
        let judge = self.keeper.deciding()?;
        let snapshot = judge.snapshot();
        let counted = snapshot.asked(&caller.app, request, recorded.ts);
        // The days that an allow was counted in.
        let ends = counted.iter().filter_map(|asked| asked.until).min();
        let ends = ends.filter(|_| recorded.body.decision == Verdict::Allow);
        Ok(snapshot.digests == recorded.body.snapshot && ends.is_none_or(|ends| time < ends))
    }
}
