//! The keeper of the snapshot: which one decides now, and how the next one takes its place. All
//! processes on a store agree, because the store holds which snapshot is active.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{GateError, Judge, decide::instant, fresh_id};
use crate::{
    domain::{Clock, Digest, Faults, Revision, SnapshotDigests, SourceFile},
    facts::{Proposal, Snapshot},
    ledger::{ActivationBody, Kind, canonical},
    sequencer::{Draft, Sequencer, SubmitError},
    store::{Activation, Store, StoreError},
};

/// How often the store is asked whether another process has activated something.
const POLL: Duration = Duration::from_secs(5);
/// How often an activation is tried again because another was faster.
const ATTEMPTS: usize = 5;

/// When the files' snapshot takes the active one's place at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// Whenever they differ.
    Always,
    /// Only while none is active.
    WhenNone,
    /// Never.
    Never,
}

/// Why no snapshot can decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// No snapshot is active, and this process may not activate one.
    #[error(
        "the store has no active snapshot; set `[policies] activate_on_start = true` on one replica"
    )]
    NoneActive,
    /// The active snapshot's content cannot be read by this software.
    #[error("the active snapshot in the store cannot be read by this version:\n{0}")]
    Unreadable(#[from] Faults),
    /// The store or the ledger failed.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl From<StoreError> for KeeperError {
    fn from(error: StoreError) -> Self {
        Self::Gate(error.into())
    }
}

/// Knows the snapshot that decides.
#[derive(Debug)]
pub struct Keeper {
    current: ArcSwap<Judge>,
    /// The files behind it. Held while it is changed, so that one change is made at a time.
    proposal: Mutex<Proposal>,
    office: Office,
}

/// What the keeper works with.
#[derive(Debug)]
struct Office {
    store: Arc<dyn Store>,
    sequencer: Sequencer,
    clock: Arc<dyn Clock>,
    random: SystemRandom,
}

impl Keeper {
    /// Activates what `proposal` says, or takes what is active, as `activate` tells.
    ///
    /// # Errors
    /// When nothing is active and nothing may be activated, or the store fails.
    pub async fn start(
        proposal: Proposal,
        activate: Activate,
        store: Arc<dyn Store>,
        sequencer: Sequencer,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeeperError> {
        let office = Office { store, sequencer, clock, random: SystemRandom::new() };
        let active = office.store.active().await?;
        let take_files = match (activate, &active) {
            (Activate::Always, _) | (Activate::WhenNone, None) => true,
            (Activate::Never, None) => return Err(KeeperError::NoneActive),
            (Activate::WhenNone | Activate::Never, Some(_)) => false,
        };
        let proposal = match active {
            Some(active) if !take_files => {
                let served = office.proposal(&active.snapshot, &proposal).await?;
                if served.bundle.digest != proposal.bundle.digest
                    || served.organisation_digest() != proposal.organisation_digest()
                {
                    tracing::warn!(
                        revision = active.snapshot.revision.0,
                        "the files differ from the active snapshot, which decides; activate them to change that"
                    );
                }
                served
            }
            _ => proposal,
        };
        let snapshot = office.settle(&proposal, "start").await?;
        Ok(Self {
            current: ArcSwap::from_pointee(Judge::new(snapshot)),
            proposal: Mutex::new(proposal),
            office,
        })
    }

    /// The snapshot that decides now, ready to judge.
    #[must_use]
    pub fn current(&self) -> Arc<Judge> {
        self.current.load_full()
    }

    /// Takes what is active in the store; where a dated fact has begun or ended since, activates
    /// the snapshot that follows from it.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what this version cannot read.
    pub async fn refresh(&self) -> Result<(), GateError> {
        let mut proposal = self.proposal.lock().await;
        let current = self.current.load_full();
        let active = self.office.store.active().await?.ok_or(GateError::Corrupt)?;
        let now = self.office.now().await?;
        let known = current.snapshot();
        let past = known.valid_until.is_some_and(|until| now >= until);
        if active.snapshot == known.digests && !past {
            return Ok(());
        }
        *proposal = self.office.proposal(&active.snapshot, &proposal).await.map_err(gate_error)?;
        let snapshot = self.office.settle(&proposal, "facts_changed").await.map_err(gate_error)?;
        tracing::info!(revision = snapshot.digests.revision.0, "another snapshot decides");
        self.current.store(Arc::new(Judge::new(snapshot)));
        Ok(())
    }

    /// Follows the store and the calendar until `stop` fires.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let until_change = self.current().snapshot().valid_until.map_or(POLL, |until| {
                let wait = until.duration_since(self.office.clock.now());
                Duration::try_from(wait).unwrap_or(Duration::ZERO)
            });
            let wait = until_change.clamp(Duration::from_millis(10), POLL);
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the active snapshot could not be read; it is tried again");
            }
        }
    }
}

fn gate_error(error: KeeperError) -> GateError {
    match error {
        KeeperError::Gate(error) => error,
        error => {
            tracing::error!(%error, "the active snapshot cannot be served");
            GateError::Corrupt
        }
    }
}

impl Office {
    /// Now, but never before the last entry: another process's clock may be ahead, within the bound, and
    /// the ledger's time does not go back.
    async fn now(&self) -> Result<Timestamp, GateError> {
        let head = self.sequencer.head().await?;
        let now = instant(&*self.clock);
        Ok(head.map_or(now, |head| now.max(head.ts)))
    }

    /// The files behind an active snapshot: `known` where they are the same.
    async fn proposal(
        &self,
        active: &SnapshotDigests,
        known: &Proposal,
    ) -> Result<Proposal, KeeperError> {
        if known.bundle.digest == active.bundle
            && known.organisation_digest() == active.organisation
        {
            return Ok(known.clone());
        }
        let bundle = self.content(active.bundle).await?;
        let organisation = self.content(active.organisation).await?;
        let texts: BTreeMap<String, String> =
            serde_json::from_slice(&bundle).map_err(|_| GateError::Corrupt)?;
        let files: Vec<SourceFile> =
            texts.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
        let text = String::from_utf8(organisation).map_err(|_| GateError::Corrupt)?;
        Ok(Proposal::load(&files, SourceFile::new("organisation.toml", &text))?)
    }

    async fn content(&self, digest: Digest) -> Result<Vec<u8>, KeeperError> {
        Ok(self.store.content(digest).await?.ok_or(GateError::Corrupt)?)
    }

    /// The snapshot of `proposal` now, active under its number.
    async fn settle(&self, proposal: &Proposal, cause: &str) -> Result<Arc<Snapshot>, KeeperError> {
        for _ in 0..ATTEMPTS {
            let digests = self.store.active().await?.map(|active| active.snapshot);
            let now = self.now().await?;
            let revision = digests.map_or(Revision(0), |digests| digests.revision);
            let same = Snapshot::at(proposal, now, revision).map_err(GateError::from)?;
            if digests == Some(same.digests) {
                return Ok(Arc::new(same));
            }
            if let Some(snapshot) = self.activate(same, revision, cause).await? {
                return Ok(Arc::new(snapshot));
            }
            tracing::info!("another process activated a snapshot first");
        }
        Err(GateError::Unsettled.into())
    }

    /// Makes `snapshot` follow the revision `expected`; `None` when another did so first.
    async fn activate(
        &self,
        mut snapshot: Snapshot,
        expected: Revision,
        cause: &str,
    ) -> Result<Option<Snapshot>, KeeperError> {
        let contents = snapshot.contents().iter();
        let activation = Activation {
            expected,
            bundle: snapshot.digests.bundle,
            facts: snapshot.digests.facts,
            organisation: snapshot.digests.organisation,
            registers: snapshot.digests.registers,
            contents: contents.map(|part| (part.digest, part.kind, part.bytes.clone())).collect(),
        };
        snapshot.digests.revision = activation.revision();
        let body = ActivationBody { cause: cause.to_owned(), snapshot: snapshot.digests };
        let id = fresh_id(&*self.clock, &self.random)?;
        let body = canonical::to_vec(&body).map_err(GateError::from)?;
        let draft = Draft {
            valid_until: snapshot.valid_until,
            activation: Some(Arc::new(activation)),
            ..Draft::new(id, Kind::BundleActivated, body)
        };
        match self.sequencer.submit(draft).await {
            Ok(_) => Ok(Some(snapshot)),
            Err(SubmitError::Stale) => Ok(None),
            Err(error) => Err(super::decide::refused(error).into()),
        }
    }
}
