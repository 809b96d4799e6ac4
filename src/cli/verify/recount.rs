//! People counted again from the log alone: which thresholds each decision reached must be what the
//! decisions before it amount to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::{
    domain::{
        Asked, CallRequest, Counts, Export, JurisdictionCode, Reached, Seq, TenantId, day_of,
    },
    facts::Snapshot,
    gate::{is_settled, people, reserved, sent},
    ledger::{DecisionBody, OutcomeBody},
};

/// What left an origin on behalf of a tenant, by day.
type Left = BTreeMap<(TenantId, JurisdictionCode), BTreeMap<(i32, Export), i64>>;

/// What the log says of counts, gathered in any order.
#[derive(Debug, Default)]
pub(super) struct Recount(Mutex<BTreeMap<Seq, Said>>);

#[derive(Debug)]
enum Said {
    Decision(Box<Decided>),
    /// Of a decision: where it was tried.
    Outcome(Box<OutcomeBody>),
}

#[derive(Debug)]
struct Decided {
    ts: Timestamp,
    body: DecisionBody,
    asked: Vec<Asked>,
    /// The day on which it counts, by origin.
    days: BTreeMap<JurisdictionCode, i32>,
}

impl Recount {
    /// Keeps what a decision rests on and reserves, if it is about counts at all.
    pub(super) fn decision(
        &self,
        seq: Seq,
        ts: Timestamp,
        body: &DecisionBody,
        request: &CallRequest,
        snapshot: &Snapshot,
    ) {
        let asked = snapshot.asked(&body.caller.app, request, ts);
        let leaving = reserved(body);
        if asked.is_empty() && leaving.is_empty() && body.reached.is_empty() {
            return;
        }
        let day = |(origin, _)| {
            let day = snapshot.day_of(&origin, ts);
            (origin, day)
        };
        let (body, days) = (body.clone(), leaving.into_iter().map(day).collect());
        self.keep(seq, Said::Decision(Box::new(Decided { ts, body, asked, days })));
    }

    /// Keeps where a decision was tried.
    pub(super) fn outcome(&self, seq: Seq, body: OutcomeBody) {
        self.keep(seq, Said::Outcome(Box::new(body)));
    }

    fn keep(&self, seq: Seq, said: Said) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(seq, said);
    }

    /// Every decision that says otherwise than the count does.
    pub(super) fn differing(&self) -> Vec<String> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut left, mut differing) = (Left::new(), Vec::new());
        for (seq, said_here) in said.iter() {
            match said_here {
                Said::Decision(decided) => {
                    differing
                        .extend(decided.differs(&left).map(|text| format!("entry {seq}: {text}")));
                    decided.count(&mut left, reserved(&decided.body), 1);
                }
                Said::Outcome(outcome) => {
                    let decision = said.get(&outcome.decision.seq);
                    let Some(Said::Decision(decided)) = decision else { continue };
                    if is_settled(&decided.body, outcome.status, &outcome.attempts) {
                        decided.count(&mut left, reserved(&decided.body), -1);
                        decided.count(&mut left, sent(&decided.body, &outcome.attempts), 1);
                    }
                }
            }
        }
        differing
    }
}

impl Decided {
    fn differs(&self, left: &Left) -> Option<String> {
        let mut counts = Counts::default();
        for key in self.asked.iter().flat_map(Asked::keys) {
            let known = left.get(&(key.tenant.clone(), key.origin.clone())).into_iter().flatten();
            let since = known.filter(|((day, _), _)| *day >= key.since);
            let found = since.map(|((_, export), people)| (export.clone(), *people)).collect();
            counts.0.insert(key, found);
        }
        let counted = Reached::of(&counts.answer(self.asked.clone()));
        let text = |reached: &[Reached]| {
            let rows =
                reached.iter().map(|row| format!("{} {}", row.from, row.thresholds.join(" ")));
            let rows: Vec<_> = rows.collect();
            if rows.is_empty() { "none".to_owned() } else { rows.join(", ") }
        };
        (counted != self.body.reached).then(|| {
            let (was, is) = (text(&self.body.reached), text(&counted));
            format!("says that it reached {was}; counted again, it reached {is}")
        })
    }

    fn count(&self, left: &mut Left, exports: Vec<(JurisdictionCode, Export)>, sign: i64) {
        let people = people(&self.body) * sign;
        for (origin, export) in exports {
            let day = self.days.get(&origin).copied().unwrap_or_else(|| day_of(self.ts, 0));
            let known = left.entry((self.body.caller.tenant.clone(), origin)).or_default();
            let sum = known.entry((day, export)).or_default();
            *sum = sum.saturating_add(people);
        }
    }
}
