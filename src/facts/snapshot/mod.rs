//! The snapshot: everything that decides, at one instant, under one number.

mod about;
mod counting;
mod entities;
pub(in crate::facts) mod names;
pub(in crate::facts) mod proposal;
pub(in crate::facts) mod resolve;
#[cfg(test)]
mod snapshot_tests;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use self::{counting::thresholds, entities::entities, proposal::Proposal};
use super::{
    organisation::{Deployment, Instrument, Organisation},
    world::at::FactsAt,
};
use crate::{
    domain::{DeploymentId, Digest, Revision, SnapshotDigests, TenantId, Threshold},
    policy::{Engine, on_deep_stack},
};

/// Policies, world facts and organisation as they stand at one instant. A decision is a pure
/// function of a call and a snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// The digest of each part, and the snapshot's number.
    pub digests: SnapshotDigests,
    /// The first instant at which a dated fact changes, and this snapshot is past.
    pub valid_until: Option<Timestamp>,
    /// The world facts.
    pub facts: FactsAt,
    /// The organisation.
    pub organisation: Arc<Organisation>,
    /// The policies, over these facts.
    pub engine: Engine,
    /// Those of the facts, and those that policies mean.
    pub(super) thresholds: Vec<Arc<Threshold>>,
    instruments: Vec<Instrument>,
    contents: Vec<Content>,
    deployments: BTreeMap<DeploymentId, usize>,
}

/// A part of a snapshot, as it is kept for replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What it is: `bundle`, `facts`, `organisation`, `registers`.
    pub kind: &'static str,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Content {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { kind, digest: Digest::of(&bytes), bytes }
    }
}

/// Why checked files still made no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A value that Cedar does not take.
    #[error("a fact cannot be expressed in Cedar")]
    Attribute(#[from] Box<cedar_policy::EntityAttrEvaluationError>),
    /// Facts that do not fit the schema.
    #[error("the facts do not fit `schema.cedarschema`")]
    Entities(#[from] Box<cedar_policy::entities_errors::EntitiesError>),
    /// Facts that cannot be written as JSON.
    #[error("the facts cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl From<cedar_policy::entities_errors::EntitiesError> for SnapshotError {
    fn from(error: cedar_policy::entities_errors::EntitiesError) -> Self {
        Self::Entities(Box::new(error))
    }
}

/// What a snapshot pins at one instant.
struct Parts {
    facts: FactsAt,
    instruments: Vec<Instrument>,
    contents: Vec<Content>,
    digests: SnapshotDigests,
}

impl Parts {
    fn at(
        proposal: &Proposal,
        instant: Timestamp,
        revision: Revision,
    ) -> Result<Self, SnapshotError> {
        on_deep_stack(|| Self::build(proposal, instant, revision))
    }

    fn build(
        proposal: &Proposal,
        instant: Timestamp,
        revision: Revision,
    ) -> Result<Self, SnapshotError> {
        let Proposal { bundle, world, organisation, organisation_file } = proposal;
        let facts = world.at(instant);
        let instruments: Vec<Instrument> = organisation.instruments_at(instant).cloned().collect();
        let contents = vec![
            Content::new("bundle", bundle.content.clone()),
            Content::new("facts", serde_json::to_vec(&facts)?),
            Content::new("organisation", organisation_file.text.as_bytes().to_vec()),
            Content::new("registers", serde_json::to_vec(&instruments)?),
        ];
        let digest = |kind: &str| {
            let found = contents.iter().find(|content| content.kind == kind);
            found.map_or_else(|| Digest::of(b""), |content| content.digest)
        };
        let digests = SnapshotDigests {
            bundle: digest("bundle"),
            facts: digest("facts"),
            organisation: digest("organisation"),
            registers: digest("registers"),
            revision,
        };
        Ok(Self { facts, instruments, contents, digests })
    }
}

/// How many changes of dated facts are looked at that change nothing in what a snapshot pins.
const MOST_CHANGES: usize = 1_000;

impl Proposal {
    /// The first instant after this one at which a dated fact changes.
    #[must_use]
    pub fn next_change(&self, instant: Timestamp) -> Option<Timestamp> {
        let ends = [self.world.next_change(instant), self.organisation.next_change(instant)];
        ends.into_iter().flatten().min()
    }

    /// Until when the snapshot of this proposal at `instant` can be the active one: the first change after
    /// it that makes another. `None` where that is not what the proposal amounts to at `instant`.
    ///
    /// # Errors
    /// When the facts cannot be written as JSON.
    pub fn validity(
        &self,
        instant: Timestamp,
        pinned: &SnapshotDigests,
    ) -> Result<Option<Timestamp>, SnapshotError> {
        let is_same = |at| {
            let parts = Parts::at(self, at, pinned.revision)?;
            Ok::<_, SnapshotError>(parts.digests == *pinned)
        };
        if !is_same(instant)? {
            return Ok(None);
        }
        let mut at = instant;
        for _ in 0..MOST_CHANGES {
            let Some(next) = self.next_change(at) else { return Ok(Some(Timestamp::MAX)) };
            if !is_same(next)? {
                return Ok(Some(next));
            }
            at = next;
        }
        Ok(Some(at))
    }
}

impl Snapshot {
    /// What `proposal` amounts to at `instant`, under the number `revision`.
    ///
    /// # Errors
    /// When the facts do not fit the policies' schema.
    pub fn at(
        proposal: &Proposal,
        instant: Timestamp,
        revision: Revision,
    ) -> Result<Self, SnapshotError> {
        let Proposal { bundle, organisation, .. } = proposal;
        let Parts { facts, instruments, contents, digests } =
            Parts::at(proposal, instant, revision)?;
        let deployments = organisation.deployments.iter().enumerate();
        let entities = entities(&facts, organisation, bundle.schema())?;
        Ok(Self {
            digests,
            valid_until: proposal.next_change(instant),
            thresholds: thresholds(&facts, bundle),
            engine: Engine::new(bundle.clone(), entities),
            facts,
            organisation: organisation.clone(),
            instruments,
            deployments: deployments.map(|(index, row)| (row.id.clone(), index)).collect(),
            contents,
        })
    }

    /// The same policies and facts, if the organisation were another one. It stands for nothing that
    /// was ever active: only for asking what would be.
    ///
    /// # Errors
    /// When the organisation does not fit the policies' schema.
    pub fn supposing(&self, organisation: Organisation) -> Result<Self, SnapshotError> {
        let bundle = self.engine.bundle();
        let entities = entities(&self.facts, &organisation, bundle.schema())?;
        let deployments = organisation.deployments.iter().enumerate();
        Ok(Self {
            digests: self.digests,
            valid_until: self.valid_until,
            facts: self.facts.clone(),
            engine: Engine::new(bundle.clone(), entities),
            thresholds: self.thresholds.clone(),
            instruments: self.instruments.clone(),
            contents: Vec::new(),
            deployments: deployments.map(|(index, row)| (row.id.clone(), index)).collect(),
            organisation: Arc::new(organisation),
        })
    }

    /// The parts, as they are kept for replay.
    #[must_use]
    pub fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// The deployment with this id.
    #[must_use]
    pub fn deployment(&self, id: &DeploymentId) -> Option<&Deployment> {
        self.deployments.get(id).and_then(|index| self.organisation.deployments.get(*index))
    }

    /// The instruments in force between `tenant` and the operator of `deployment`.
    pub fn instruments<'a>(
        &'a self,
        tenant: &'a TenantId,
        deployment: &'a Deployment,
    ) -> impl Iterator<Item = &'a Instrument> {
        self.instruments.iter().filter(move |instrument| {
            instrument.exporter == *tenant && instrument.recipient == deployment.operator
        })
    }
}
