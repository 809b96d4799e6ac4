//! The world as it would be after some changes, and what would be judged in it. Nothing of it is
//! recorded.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{change::Change, effort::Effort};
use crate::{
    domain::{
        AppId, CallRequest, Candidate, DataRequest, DeploymentId, FlowAction, JurisdictionCode,
        Reached,
    },
    facts::{Deployment, Organisation, Site},
    gate::Judge,
};

/// How often a call is judged for one deployment, at the most: what nobody can read is not computed.
const MOST_JUDGED: u32 = 2_000;
/// As how many judgements another organisation counts, whose entities have to be built.
const WORLD: u32 = 20;

/// A call for one deployment, and worlds that differ from the one that is.
#[derive(Debug)]
pub(super) struct Suppose<'a> {
    judge: &'a Judge,
    pub(super) app: &'a AppId,
    pub(super) request: CallRequest,
    pub(super) reached: &'a [Reached],
    /// How often it was judged.
    judged: Cell<u32>,
    is_cut: Cell<bool>,
    effort: &'a Effort,
    /// Judges of other organisations, by the changes that make them.
    others: RefCell<BTreeMap<BTreeSet<Change>, Option<Arc<Judge>>>>,
}

impl<'a> Suppose<'a> {
    pub(super) fn new(
        judge: &'a Judge,
        app: &'a AppId,
        request: &CallRequest,
        reached: &'a [Reached],
        deployment: &DeploymentId,
        effort: &'a Effort,
    ) -> Self {
        let (model, deployment) = (None, Some(deployment.to_string()));
        let request = CallRequest { model, deployment, ..request.clone() };
        let (judged, is_cut, others) = (Cell::new(0), Cell::new(false), RefCell::default());
        Self { judge, app, request, reached, judged, is_cut, effort, others }
    }

    /// Whether something was not judged that was asked.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// What would be found of the deployment after `changes`; nothing once too much was asked.
    pub(super) fn candidate(&self, changes: &BTreeSet<Change>) -> Option<Candidate> {
        let judged = self.judged.get();
        if judged >= MOST_JUDGED || !self.effort.spend(1) {
            self.is_cut.set(true);
            return None;
        }
        self.judged.set(judged + 1);
        let (mut request, mut kinds) = (self.request.clone(), Vec::new());
        let mut reached = self.reached.to_vec();
        for change in changes {
            match change {
                Change::Instrument { kind, .. } => kinds.push(kind.clone()),
                Change::Purpose { purpose } => request.purpose = Some(purpose.clone()),
                Change::Action { action } => request.action = *action,
                Change::Declaration => request.data = Some(self.declared()),
                Change::FewerPeople { threshold, .. } => {
                    for row in &mut reached {
                        row.thresholds.retain(|id| id != threshold);
                    }
                }
                _ => {}
            }
        }
        let app = self.app;
        let judged = self.in_world_after(changes, |judge| {
            judge.judge_supposing(app, &request, &reached, &kinds).ok()
        });
        judged?.evaluation.candidates.into_iter().next()
    }

    /// What can be said of data of which nothing was said: whose it is, or that it is nobody's.
    fn declared(&self) -> DataRequest {
        let whose = self.judge.snapshot().organisation.apps.get(self.app);
        let subjects = whose.map(|app| app.location.to_string()).into_iter();
        match &self.request.data {
            Some(data) => DataRequest { subjects: subjects.collect(), ..data.clone() },
            None => DataRequest {
                personal: false,
                categories: Vec::new(),
                subjects: Vec::new(),
                subject_count: None,
                location: None,
            },
        }
    }

    /// What is found by the judge of the organisation after `changes`; nothing where they fit no
    /// organisation.
    fn in_world_after<T>(
        &self,
        changes: &BTreeSet<Change>,
        find: impl FnOnce(&Judge) -> Option<T>,
    ) -> Option<T> {
        let own: BTreeSet<Change> =
            changes.iter().filter(|change| is_of_organisation(change)).cloned().collect();
        if own.is_empty() {
            return find(self.judge);
        }
        let mut others = self.others.borrow_mut();
        if !others.contains_key(&own) && !self.effort.spend(WORLD) {
            self.is_cut.set(true);
            return None;
        }
        let other = others.entry(own).or_insert_with_key(|changes| {
            let snapshot = self.judge.snapshot();
            let mut organisation = Organisation::clone(&snapshot.organisation);
            for change in changes {
                apply(change, &mut organisation);
            }
            let other = snapshot.supposing(organisation).ok()?;
            Some(Arc::new(Judge::new(Arc::new(other))))
        });
        other.as_deref().and_then(find)
    }
}

fn is_of_organisation(change: &Change) -> bool {
    matches!(
        change,
        Change::Certification { .. }
            | Change::SideLicence { .. }
            | Change::Safeguard { .. }
            | Change::Retention { .. }
            | Change::Approval { .. }
            | Change::Place { .. }
    )
}

fn apply(change: &Change, organisation: &mut Organisation) {
    match change {
        Change::Certification { certification, operator } => {
            if let Some(operator) = organisation.operators.get_mut(operator) {
                operator.certifications.push(certification.clone());
            }
        }
        Change::SideLicence { licence, tenant } => {
            if let Some(tenant) = organisation.tenants.get_mut(tenant) {
                tenant.side_licences.push(licence.clone());
            }
        }
        Change::Safeguard { safeguard, deployment } => {
            let all = of(organisation, deployment);
            all.for_each(|deployment| deployment.safeguards.push(safeguard.clone()));
        }
        Change::Retention { hours, deployment } => {
            of(organisation, deployment).for_each(|deployment| deployment.retention_hours = *hours);
        }
        Change::Approval { deployment } => {
            of(organisation, deployment).for_each(|deployment| deployment.approved = true);
        }
        Change::Place { deployment, action, from, to } => {
            move_to(organisation, deployment, *action, from, to);
        }
        _ => {}
    }
}

fn of<'o>(
    organisation: &'o mut Organisation,
    id: &'o DeploymentId,
) -> impl Iterator<Item = &'o mut Deployment> {
    organisation.deployments.iter_mut().filter(move |deployment| deployment.id == *id)
}

fn move_to(
    organisation: &mut Organisation,
    id: &DeploymentId,
    action: FlowAction,
    from: &JurisdictionCode,
    to: &JurisdictionCode,
) {
    let Some(operator) = of(organisation, id).map(|found| found.operator.clone()).next() else {
        return;
    };
    for deployment in of(organisation, id) {
        let sites = match action {
            FlowAction::Process => &mut deployment.process,
            FlowAction::Store => &mut deployment.store,
            FlowAction::Access => &mut deployment.access,
            FlowAction::Operate | FlowAction::Own => continue,
        };
        for site in sites.iter_mut() {
            // Where the call is made, it is moved there by name.
            if *site == Site::Fixed(from.clone()) || *site == Site::Caller {
                *site = Site::Fixed(to.clone());
            }
        }
    }
    let Some(operator) = organisation.operators.get_mut(&operator) else { return };
    match action {
        FlowAction::Operate if operator.seat == *from => operator.seat = to.clone(),
        FlowAction::Own => {
            for owner in operator.owners.iter_mut().filter(|owner| *owner == from) {
                *owner = to.clone();
            }
        }
        _ => {}
    }
}
