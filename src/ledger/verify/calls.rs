//! Decisions and their outcomes: what was sent must be what was allowed, and afterwards.
//!
//! Of a decision twelve bytes are kept, and once for all that say the same what its outcome must agree
//! with. Where too many say something of their own, the decision is read again.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use jiff::{SignedDuration, Timestamp};

use super::{
    Past,
    bits::Bits,
    examine::{Decided, Ended, Terms, What, read_again},
};
use crate::{
    domain::{Retention, Seq},
    ledger::{Attempt, OutcomeStatus, fault::ChainFault, time::timestamp_text},
};

/// How far the clocks may differ by which a decision, its attempts and its outcome were timed: they may be
/// those of two machines, and each may be set right in between.
pub const CLOCKS: SignedDuration = SignedDuration::from_secs(10);

/// How many bytes of what decisions say are kept.
const REMEMBERED: usize = 16 << 20;
/// Stands for what is not kept.
const FORGOTTEN: u32 = u32::MAX;

/// The decisions of a log and their outcomes.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) decisions: Bits,
    denied: Bits,
    pub(super) dispatched: Bits,
    pub(super) ended: Bits,
    /// What the decision at a position says; anything at others.
    terms: Vec<u32>,
    kept: Vec<Arc<Terms>>,
    known: HashMap<Arc<Terms>, u32, RandomState>,
    /// How much of them is kept, in bytes.
    bytes: usize,
}

impl Calls {
    /// Takes a decision.
    pub(super) fn decide(&mut self, seq: Seq, decided: &Decided) {
        self.decisions.add(seq);
        if !decided.terms.is_allowed {
            self.denied.add(seq);
        }
        if decided.terms.is_dispatched {
            self.dispatched.add(seq);
        }
        let number = self.number(&decided.terms);
        let at = usize::try_from(seq.get()).unwrap_or(usize::MAX);
        if self.terms.len() <= at {
            self.terms.resize(at + 1, FORGOTTEN);
        }
        if let Some(place) = self.terms.get_mut(at) {
            *place = number;
        }
    }

    fn number(&mut self, terms: &Arc<Terms>) -> u32 {
        if let Some(number) = self.known.get(terms) {
            return *number;
        }
        let names = terms.open.iter().map(|name| name.as_str().len() + 32);
        let bytes = 160 + terms.retention.class.len() + names.sum::<usize>();
        let number = u32::try_from(self.kept.len()).unwrap_or(FORGOTTEN);
        if number == FORGOTTEN || self.bytes + bytes > REMEMBERED {
            return FORGOTTEN;
        }
        self.bytes += bytes;
        self.kept.push(terms.clone());
        self.known.insert(terms.clone(), number);
        number
    }

    /// Whether the decision at `seq` is here, and no denial.
    pub(super) fn check_decision(&self, seq: Seq) -> Result<(), ChainFault> {
        if !self.decisions.has(seq) {
            return Err(ChainFault::NoDecision(seq));
        }
        if self.denied.has(seq) {
            return Err(ChainFault::OfDenial(seq));
        }
        Ok(())
    }

    /// What the decision at `seq` says, which is here.
    fn terms(&self, seq: Seq, past: &mut dyn Past) -> Result<Arc<Terms>, ChainFault> {
        let number = usize::try_from(seq.get()).ok().and_then(|at| self.terms.get(at));
        let number = number.and_then(|number| usize::try_from(*number).ok());
        if let Some(terms) = number.and_then(|number| self.kept.get(number)) {
            return Ok(terms.clone());
        }
        let entry = past.entry(seq).ok_or(ChainFault::NoDecision(seq))?;
        match read_again(&entry)? {
            What::Decided(decided) => Ok(decided.terms),
            _ => Err(ChainFault::NoDecision(seq)),
        }
    }

    /// Holds an outcome against its decision, which is here and was made at `decided`.
    pub(super) fn check_outcome(
        &self,
        ended: &Ended,
        (decided, written): (Timestamp, Timestamp),
        past: &mut dyn Past,
    ) -> Result<(), ChainFault> {
        let seq = ended.decision.seq;
        let terms = self.terms(seq, past)?;
        if ended.retention != terms.retention {
            return Err(ChainFault::Retention {
                decision: seq,
                said: kept(&ended.retention),
                is: kept(&terms.retention),
            });
        }
        if terms.is_dispatched == (ended.status == OutcomeStatus::Reported) {
            return Err(ChainFault::Sender(
                seq,
                if terms.is_dispatched {
                    "a caller reports it, but Lexgate was to send the call"
                } else {
                    "Lexgate says what became of a call that it was not to send"
                },
            ));
        }
        let all = ended.attempts.iter().map(|attempt| &attempt.deployment).chain(&ended.skipped);
        for deployment in all {
            if !terms.open.contains(deployment) {
                let tried = ended.attempts.iter().any(|one| one.deployment == *deployment);
                return Err(ChainFault::Unlawful {
                    decision: seq,
                    deployment: deployment.clone(),
                    verb: if tried { "was sent to" } else { "passed over" },
                });
            }
        }
        check_times(&ended.attempts, seq, decided, written)
    }
}

/// Attempts come after their decision, one after the other, and before the record of them.
fn check_times(
    attempts: &[Attempt],
    decision: Seq,
    decided: Timestamp,
    written: Timestamp,
) -> Result<(), ChainFault> {
    let is_before = |one: Timestamp, other: Timestamp| one.duration_until(other) > CLOCKS;
    let fault = |attempt: &Attempt, what: &str, bound: Timestamp| {
        Err(ChainFault::AttemptTime {
            decision,
            deployment: attempt.deployment.clone(),
            what: format!("{what} {}", timestamp_text(bound)),
        })
    };
    let mut before = decided;
    for attempt in attempts {
        let Attempt { started, finished, .. } = *attempt;
        let began = format!("started at {}, before", timestamp_text(started));
        if is_before(started, decided) {
            return fault(attempt, &format!("{began} the decision was recorded at"), decided);
        }
        if is_before(started, before) {
            return fault(attempt, &format!("{began} the attempt in front of it ended at"), before);
        }
        if is_before(finished, started) {
            let text = format!("ended at {}, before it started at", timestamp_text(finished));
            return fault(attempt, &text, started);
        }
        if is_before(written, finished) {
            let text =
                format!("ended at {}, after its outcome was recorded at", timestamp_text(finished));
            return fault(attempt, &text, written);
        }
        before = finished;
    }
    Ok(())
}

/// How long a record is kept, in words.
fn kept(retention: &Retention) -> String {
    let months =
        retention.months.map_or_else(|| "for ever".to_owned(), |n| format!("for {n} months"));
    format!("{months} (`{}`)", retention.class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Digest,
        ledger::{
            Examiner, SentAttempt,
            fixture::{self, Chain},
        },
    };

    /// The entries of a chain, from a file as it were.
    struct Written(Chain, usize);

    impl Past for Written {
        fn leaf(&mut self, _: Seq) -> Option<Digest> {
            None
        }

        fn entry(&mut self, seq: Seq) -> Option<Vec<u8>> {
            self.1 += 1;
            self.0.entries.get(usize::try_from(seq.get()).unwrap()).cloned()
        }

        fn sent(&mut self, _: &SentAttempt<'_>) {}
    }

    #[test]
    fn what_was_not_kept_is_read_again() {
        let mut past = Written(Chain::example(), 0);
        let what = |entry: &[u8]| Examiner::default().examine(entry).unwrap().what;
        let What::Decided(decided) = what(&past.0.entries[2]) else { panic!("a decision") };
        let What::Ended(mut ended) = what(&past.0.entries[5]) else { panic!("an outcome") };
        let at = (fixture::instant(), fixture::instant());
        for (bytes, reads) in [(0, 0), (REMEMBERED, 1)] {
            let mut calls = Calls { bytes, ..Calls::default() };
            calls.decide(Seq::new(2), &decided);
            past.1 = 0;
            assert!(calls.check_outcome(&ended, at, &mut past).is_ok());
            assert_eq!(past.1, reads);
            let allowed = ended.attempts[0].deployment.clone();
            ended.attempts[0].deployment = "qwen3-32b@dashscope-sg".into();
            let fault = calls.check_outcome(&ended, at, &mut past).unwrap_err();
            assert!(matches!(fault, ChainFault::Unlawful { .. }), "{fault}");
            ended.attempts[0].deployment = allowed;
        }
    }

    #[test]
    fn clocks_may_differ_by_ten_seconds_and_no_more() {
        let at = |seconds| fixture::instant() + SignedDuration::from_secs(seconds);
        let times = |started, finished| {
            let attempt = Attempt {
                deployment: "a@b".into(),
                failure: None,
                finished: at(finished),
                http_status: None,
                started: at(started),
            };
            check_times(&[attempt], Seq::new(2), at(0), at(30)).is_ok()
        };
        assert!(times(-10, 0) && times(0, 40) && times(20, 10));
        assert!(!times(-11, 0) && !times(0, 41) && !times(20, 9));
    }
}
