//! Late outcomes: what became known of a call after its outcome was written as `unknown`. Held to the same
//! rules as any outcome.

use super::{
    Past, Verifier,
    examine::{EndedLate, Examined},
};
use crate::ledger::fault::ChainFault;

impl Verifier {
    /// Once for each outcome that says nothing, and behind it; its attempts went where the decision allows.
    pub(super) fn end_late(
        &mut self,
        entry: &Examined,
        late: &EndedLate,
        past: &mut dyn Past,
    ) -> Result<(), ChainFault> {
        let EndedLate { outcome, ended } = late;
        let decision = ended.decision;
        let fault = |why| Err(ChainFault::Late(decision.seq, why));
        let is_new = self.late.add(decision.seq);
        match self.unknown.remove(&decision.seq) {
            Some(known) if known == outcome.seq => {}
            Some(_) => return fault("but adds to another record than its outcome"),
            // Both may have been removed because their retention period ended.
            None if self.shelf.removed.has(outcome.seq) && is_new => {}
            None => return fault("which has no outcome `unknown` that it could add to"),
        }
        if self.leaf_at(outcome.seq, past) != Some(outcome.leaf) {
            return fault("but names another leaf hash for its outcome");
        }
        if self.leaf_at(decision.seq, past) != Some(decision.leaf) {
            return fault("but names another leaf hash for the decision");
        }
        if ended.committed {
            self.committed.add(entry.seq);
        }
        let is_here = !self.shelf.removed.has(decision.seq);
        let Some(decided) = self.shelf.written(decision.seq).filter(|_| is_here) else {
            self.unpaired += 1;
            return Ok(());
        };
        self.calls.check_outcome(ended, (decided, entry.ts), past)?;
        for attempt in &ended.attempts {
            past.sent(&self.reigns.sent(entry.seq, decision.seq, attempt));
        }
        Ok(())
    }
}
