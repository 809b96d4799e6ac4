//! Which snapshot was active when: by whose word an attempt was sent.

use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{DeploymentId, Seq},
    ledger::Attempt,
};

/// How long before it is sent a call's snapshot was known to be the active one, at most: so long after an
/// activation, an attempt may still be sent by the word of the snapshot before.
pub const CONFIRMED: SignedDuration = SignedDuration::from_millis(500);

/// A call that was sent somewhere.
#[derive(Clone, Debug)]
pub struct SentAttempt<'a> {
    /// The outcome that says so.
    pub outcome: Seq,
    /// The decision.
    pub decision: Seq,
    /// Where it was sent.
    pub deployment: &'a DeploymentId,
    /// When.
    pub started: Timestamp,
    /// The record that activated the decision's own snapshot.
    pub own: Seq,
    /// The records that activated the snapshots by which it may have been sent, the first one first: the one
    /// that was active at the time, and another one where it became active just before.
    pub activations: Vec<Seq>,
}

/// When each snapshot became active, in order.
#[derive(Debug, Default)]
pub(super) struct Reigns(Vec<(Seq, Timestamp)>);

impl Reigns {
    pub(super) fn begin(&mut self, seq: Seq, ts: Timestamp) {
        self.0.push((seq, ts));
    }

    /// An attempt of a decision that is here, with the snapshots by which it may have been sent. None is
    /// older than the decision's own.
    pub(super) fn sent<'a>(
        &self,
        outcome: Seq,
        decision: Seq,
        attempt: &'a Attempt,
    ) -> SentAttempt<'a> {
        let own = self.0.partition_point(|(seq, _)| *seq < decision).saturating_sub(1);
        let since = self.0.get(own + 1..).unwrap_or_default();
        let begun = |by: Timestamp| since.partition_point(|(_, ts)| *ts <= by);
        let sure = attempt.started.checked_sub(CONFIRMED).unwrap_or(Timestamp::MIN);
        let (first, last) = (own + begun(sure), own + begun(attempt.started));
        let active = self.0.get(first..=last).unwrap_or_default();
        SentAttempt {
            outcome,
            decision,
            own: self.0.get(own).map_or(decision, |(seq, _)| *seq),
            deployment: &attempt.deployment,
            started: attempt.started,
            activations: active.iter().map(|(seq, _)| *seq).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fixture;

    #[test]
    fn an_attempt_is_by_the_word_of_what_was_active_half_a_second_before_or_since() {
        let at = |millis| fixture::instant() + SignedDuration::from_millis(millis);
        let mut reigns = Reigns::default();
        for (seq, millis) in [(1, 0), (4, 1_000), (5, 1_200), (9, 60_000)] {
            reigns.begin(Seq::new(seq), at(millis));
        }
        let sent = |decision, millis| {
            let attempt = Attempt {
                deployment: "a@b".into(),
                failure: None,
                finished: at(millis),
                http_status: None,
                started: at(millis),
            };
            let sent = reigns.sent(Seq::new(10), Seq::new(decision), &attempt);
            sent.activations.iter().map(|seq| seq.get()).collect::<Vec<_>>()
        };
        assert_eq!(sent(2, 999), [1]);
        assert_eq!(sent(2, 1_000), [1, 4]);
        assert_eq!(sent(2, 1_300), [1, 4, 5]);
        assert_eq!(sent(2, 1_499), [1, 4, 5]);
        assert_eq!(sent(2, 1_500), [4, 5]);
        assert_eq!(sent(2, 1_700), [5]);
        assert_eq!(sent(6, 900), [5], "by none that is older than the decision's own");
        assert_eq!(sent(6, 60_600), [9]);
    }
}
