//! Counting people whose data leaves: what a decision rests on, what it reserves, and what is given
//! back when the call went elsewhere.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::{Gate, GateError, Judge, Recorded, memo::Decided};
use crate::{
    domain::{
        AppId, Asked, CallRequest, Caller, Candidate, CountKey, Counts, Data, Export, Exported,
        FlowAction, JurisdictionCode, Placement, Reached, TenantId, Tier, Verdict, Volume,
    },
    ledger::{Attempt, DecisionBody, OutcomeStatus},
};

/// The flows by which data gets somewhere.
const TRANSFERS: [FlowAction; 3] = [FlowAction::Process, FlowAction::Store, FlowAction::Access];
/// The flows by which somebody else has power over it.
const EXPOSURES: [FlowAction; 2] = [FlowAction::Operate, FlowAction::Own];

/// More people than there are: no call counts for more, so that no sum outgrows a store's numbers.
const MOST_PEOPLE: i64 = 10_000_000_000;

/// What has left so far, for calls that are judged one after the other.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Counts,
    now: Timestamp,
}

impl Tally {
    /// The thresholds that `request` counts towards, and whether it reaches them.
    pub(super) fn ask(
        &self,
        judge: &Judge,
        caller: &Caller,
        request: &CallRequest,
    ) -> Vec<(Asked, bool)> {
        self.counts.answer(judge.snapshot().asked(&caller.app, request, self.now))
    }

    /// Counts what leaves with a decision, for those after it.
    pub(super) fn add(
        &mut self,
        judge: &Judge,
        asked: Vec<(Asked, bool)>,
        decided: &Decided,
    ) -> Volume {
        let body = &decided.body;
        let people = people(body);
        let leaving = decided.exports.iter().cloned();
        let adds =
            leaving.map(|export| counted(judge, &body.caller.tenant, export, self.now, people));
        let volume = Volume { asked, adds: adds.collect() };
        volume.adds.iter().for_each(|exported| self.counts.add(exported));
        volume
    }
}

impl Judge {
    /// What has to be looked up to say which thresholds `request` reaches.
    #[must_use]
    pub fn count_keys(
        &self,
        app: &AppId,
        request: &CallRequest,
        now: Timestamp,
    ) -> BTreeSet<CountKey> {
        self.snapshot().asked(app, request, now).iter().flat_map(Asked::keys).collect()
    }

    /// The thresholds that `request` reaches with all that left before it.
    #[must_use]
    pub fn reached(
        &self,
        app: &AppId,
        request: &CallRequest,
        counts: &Counts,
        now: Timestamp,
    ) -> Vec<Reached> {
        Reached::of(&counts.answer(self.snapshot().asked(app, request, now)))
    }

    /// The same for a call that is among what was counted.
    #[must_use]
    pub fn reached_again(
        &self,
        app: &AppId,
        request: &CallRequest,
        counts: &Counts,
        now: Timestamp,
    ) -> Vec<Reached> {
        let asked = self.snapshot().asked(app, request, now).into_iter();
        let counted = asked.map(|asked| Asked { own: asked.own.map(|_| 0), ..asked });
        Reached::of(&counts.answer(counted.collect()))
    }
}

impl Gate {
    /// What left so far, as far as `requests` are held against it.
    pub(super) async fn tally(
        &self,
        judge: &Judge,
        caller: &Caller,
        requests: &[CallRequest],
        now: Timestamp,
    ) -> Result<Tally, GateError> {
        let asked = requests.iter().flat_map(|call| judge.snapshot().asked(&caller.app, call, now));
        let keys = asked.flat_map(|asked| asked.keys()).collect::<BTreeSet<_>>();
        let counts = if keys.is_empty() {
            Counts::default()
        } else {
            self.in_time(self.store.exported(&keys)).await?
        };
        Ok(Tally { counts, now })
    }

    /// The thresholds that a call reaches whose decision is recorded: it has been counted.
    pub(super) async fn reached_again(
        &self,
        judge: &Judge,
        caller: &Caller,
        request: &CallRequest,
        now: Timestamp,
    ) -> Result<Vec<Reached>, GateError> {
        let tally = self.tally(judge, caller, std::slice::from_ref(request), now).await?;
        Ok(judge.reached_again(&caller.app, request, &tally.counts, now))
    }

    /// Gives back what a decision reserved, and counts what was sent in its place.
    pub(super) fn settle_exports(
        &self,
        decision: &Recorded,
        status: OutcomeStatus,
        attempts: &[Attempt],
    ) -> Option<Arc<Volume>> {
        let body = &decision.body;
        if !is_settled(body, status, attempts) {
            return None;
        }
        let (reserved, sent) = (reserved(body), sent(body, attempts));
        if reserved == sent {
            return None;
        }
        let people = people(body);
        let judge = self.keeper.current();
        let count = |exports: Vec<(JurisdictionCode, Export)>, people| {
            let tenant = &body.caller.tenant;
            let judge = &judge;
            exports.into_iter().map(move |one| counted(judge, tenant, one, decision.ts, people))
        };
        let adds = count(reserved, -people).chain(count(sent, people)).collect();
        Some(Arc::new(Volume { asked: Vec::new(), adds }))
    }
}

fn counted(
    judge: &Judge,
    tenant: &TenantId,
    (origin, export): (JurisdictionCode, Export),
    now: Timestamp,
    subjects: i64,
) -> Exported {
    let day = judge.snapshot().day_of(&origin, now);
    Exported { tenant: tenant.clone(), origin, day, export, subjects }
}

/// How many people a decision's call is about, as far as they are counted.
#[must_use]
pub fn people(decision: &DecisionBody) -> i64 {
    let declared = decision.call.data.as_ref().map_or(0, |data| data.subject_count);
    i64::try_from(declared).unwrap_or(MOST_PEOPLE).min(MOST_PEOPLE)
}

/// Whether an outcome tells where a call went that Lexgate sent. One that was cut off keeps all that it
/// reserved.
#[must_use]
pub fn is_settled(decision: &DecisionBody, status: OutcomeStatus, attempts: &[Attempt]) -> bool {
    decision.dispatch && !(status == OutcomeStatus::Unknown && attempts.is_empty())
}

/// What a decision reserves, by origin.
#[must_use]
pub fn reserved(body: &DecisionBody) -> Vec<(JurisdictionCode, Export)> {
    exports(body, open_to(body))
}

/// What left of a decision's call that was tried there.
#[must_use]
pub fn sent(body: &DecisionBody, attempts: &[Attempt]) -> Vec<(JurisdictionCode, Export)> {
    let tried = |candidate: &&Candidate| {
        attempts.iter().any(|attempt| attempt.deployment == candidate.deployment)
    };
    exports(body, body.candidates.iter().filter(tried))
}

/// Where the call of a decision may go: a gateway may try every allowed deployment, a caller has the
/// route.
fn open_to(body: &DecisionBody) -> impl Iterator<Item = &Candidate> {
    let route = body.route.as_ref().filter(|_| !body.dispatch).map(|route| &route.deployment);
    body.candidates.iter().filter(move |candidate| {
        candidate.decision == Verdict::Allow
            && route.is_none_or(|route| candidate.deployment == *route)
    })
}

/// What leaves each origin of the call when it goes to `candidates`.
fn exports<'a>(
    body: &'a DecisionBody,
    candidates: impl Iterator<Item = &'a Candidate>,
) -> Vec<(JurisdictionCode, Export)> {
    let data = body.call.data.as_ref().filter(|data| data.subject_count > 0);
    let (Some(data), Verdict::Allow) = (data, body.decision) else { return Vec::new() };
    let candidates: Vec<&Candidate> = candidates.collect();
    let leaving = |origin: &JurisdictionCode| {
        let export = export(data, origin, &candidates);
        let leaves = !export.to.is_empty() || !export.exposed_to.is_empty();
        leaves.then(|| (origin.clone(), export))
    };
    data.origins().filter_map(leaving).collect()
}

fn export(data: &Data, origin: &JurisdictionCode, candidates: &[&Candidate]) -> Export {
    let elsewhere = |places: Vec<&Placement>, flows: &[FlowAction]| {
        let all = places.into_iter().flat_map(|at| flows.iter().flat_map(|flow| at.of(*flow)));
        let mut places: Vec<_> = all.filter(|place| *place != origin).cloned().collect();
        places.sort();
        places.dedup();
        places
    };
    let all = candidates.iter();
    // Nobody reaches from outside what stays on the device.
    let away = all.clone().filter(|candidate| candidate.tier != Tier::OnDevice);
    Export {
        categories: data.categories.clone(),
        exposed_to: elsewhere(away.map(|at| &at.placement).collect(), &EXPOSURES),
        personal: data.personal,
        to: elsewhere(all.map(|at| &at.placement).collect(), &TRANSFERS),
    }
}
