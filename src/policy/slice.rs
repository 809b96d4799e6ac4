//! What is left to ask of the policies once principal, action and resource are known.

use std::sync::Arc;

use cedar_policy::{Decision, EntityUid, Policy, PolicySet, Response};

use super::reads::Reads;
use crate::domain::PolicyId;

/// What the policies say of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether a permit matched, no forbid did, and nothing failed.
    pub allowed: bool,
    /// The permits of an allow, the forbids of a deny; sorted; empty when no permit matched.
    pub policies: Vec<PolicyId>,
    /// Policies that failed, with what Cedar said.
    pub failures: Vec<(PolicyId, String)>,
}

/// One part of a request: an entity, and what an engine knows of it.
#[derive(Clone, Debug)]
pub struct Part {
    pub(super) uid: EntityUid,
    /// None outside the snapshot.
    pub(super) known: Option<Known>,
}

/// An entity's number in its snapshot, and that of its class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) number: u32,
    pub(super) class: u32,
}

/// The policies that can apply to a request, as far as its context is needed to tell.
#[derive(Debug)]
pub struct Slice {
    number: usize,
    reads: Reads,
    holding: Holding,
    open: PolicySet,
    /// The answer to every request, where nothing is open.
    settled: Option<Arc<Judgement>>,
}

/// The policies that hold for a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    pub(super) permits: Vec<PolicyId>,
    pub(super) forbids: Vec<PolicyId>,
}

impl Slice {
    /// The slice in which the policies `holding` are known to hold, and those of `open` look at
    /// `reads` to tell.
    pub(super) fn new(number: usize, holding: Holding, open: PolicySet, reads: Reads) -> Self {
        let settled = open.is_empty().then(|| Arc::new(holding.clone().judgement(Vec::new())));
        Self { number, reads, holding, open, settled }
    }

    /// No two slices of an engine have the same.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// What the open policies look at.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.reads
    }

    /// The answer to every request, where no policy needs the context to tell.
    #[must_use]
    pub fn settled(&self) -> Option<&Arc<Judgement>> {
        self.settled.as_ref()
    }

    pub(super) fn open(&self) -> &PolicySet {
        &self.open
    }

    /// The judgement, once the open policies have answered.
    pub(super) fn judgement(&self, response: &Response) -> Judgement {
        let diagnostics = response.diagnostics();
        let errors = diagnostics.errors().map(|error| {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(failure) = error;
            (AsRef::<str>::as_ref(failure.policy_id()).into(), failure.inner().to_string())
        });
        let mut holding = self.holding.clone();
        let same_effect = match response.decision() {
            Decision::Allow => &mut holding.permits,
            Decision::Deny => &mut holding.forbids,
        };
        same_effect.extend(diagnostics.reason().map(|id| AsRef::<str>::as_ref(id).into()));
        holding.judgement(errors.collect())
    }
}

impl Holding {
    pub(super) fn judgement(self, failures: Vec<(PolicyId, String)>) -> Judgement {
        let denied = !self.forbids.is_empty();
        let mut policies = if denied { self.forbids } else { self.permits };
        policies.sort();
        let allowed = !denied && !policies.is_empty() && failures.is_empty();
        Judgement { allowed, policies, failures }
    }
}

pub(super) fn united<'p>(policies: impl Iterator<Item = &'p Policy>) -> PolicySet {
    let mut set = PolicySet::new();
    for policy in policies {
        // Ids are unique in a bundle: the set takes each.
        let _ = set.add(policy.clone());
    }
    set
}
