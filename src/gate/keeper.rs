//! The keeper of the snapshot: which one decides now, and how the next one takes its place. All
//! processes on a store agree, because the store holds which snapshot is active; each believes it only as
//! far as the signed log does ([`super::confirmation`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    GateError, Judge,
    confirmation::{ConfirmationError, Unconfirmed, confirm, named},
    decide::instant,
    fresh_id,
};
use crate::{
    domain::{Clock, Digest, Revision, SnapshotDigests},
    facts::{Proposal, Snapshot},
    ledger::{ActivationBody, Kind, canonical},
    sequencer::{Draft, Sequencer, SubmitError},
    source::{Faults, SourceFile},
    store::{Activation, Active, Store, StoreError},
};

/// How often the store is asked whether another process has activated something.
const POLL: Duration = Duration::from_secs(5);
/// How soon it is asked at the earliest, where a fact ends.
const SOONEST: Duration = Duration::from_millis(10);
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

/// Why a snapshot is activated: the files of a process that starts say so.
const START: &str = "start";
/// Why a snapshot is activated: time has passed over the same files.
const FACTS_CHANGED: &str = "facts_changed";

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
    /// The active snapshot's content is not what its digests name.
    #[error("the active snapshot in the store cannot be read: {0}")]
    Content(&'static str),
    /// The store calls a snapshot active that the signed log does not.
    #[error(
        "the active snapshot in the store is not confirmed by the signed log: {0}; somebody has written to the store past this service"
    )]
    Unconfirmed(#[from] Unconfirmed),
    /// The store or the ledger failed.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl From<StoreError> for KeeperError {
    fn from(error: StoreError) -> Self {
        Self::Gate(error.into())
    }
}

impl From<ConfirmationError> for KeeperError {
    fn from(error: ConfirmationError) -> Self {
        match error {
            ConfirmationError::Store(error) => error.into(),
            ConfirmationError::Unconfirmed(fault) => Self::Unconfirmed(fault),
        }
    }
}

impl KeeperError {
    /// Whether it says something of the active snapshot; else nothing is known of it now.
    fn is_of_the_snapshot(&self) -> bool {
        match self {
            Self::NoneActive | Self::Unreadable(_) | Self::Content(_) | Self::Unconfirmed(_) => {
                true
            }
            Self::Gate(error) => {
                matches!(error, GateError::Snapshot(_) | GateError::Store(StoreError::Content(_)))
            }
        }
    }
}

/// Knows the snapshot that decides.
#[derive(Debug)]
pub struct Keeper {
    current: ArcSwap<Judge>,
    /// Why the current one may not decide: another is active, or seems to be, and cannot be taken.
    doubt: ArcSwapOption<String>,
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
        let active = office.active().await?;
        let take_files = match (activate, &active) {
            (Activate::Always, _) | (Activate::WhenNone, None) => true,
            (Activate::Never, None) => return Err(KeeperError::NoneActive),
            (Activate::WhenNone | Activate::Never, Some(_)) => false,
        };
        let (proposal, cause) = match active {
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
                // What comes from the store is not what this process's files say.
                (served, FACTS_CHANGED)
            }
            _ => (proposal, START),
        };
        let snapshot = office.settle(&proposal, cause).await?;
        Ok(Self {
            current: ArcSwap::from_pointee(Judge::new(snapshot)),
            doubt: ArcSwapOption::empty(),
            proposal: Mutex::new(proposal),
            office,
        })
    }

    /// The snapshot that decides now, ready to judge.
    #[must_use]
    pub fn current(&self) -> Arc<Judge> {
        self.current.load_full()
    }

    /// The snapshot that decides now, if one may.
    ///
    /// # Errors
    /// While the store names another one that cannot be taken.
    pub fn deciding(&self) -> Result<Arc<Judge>, GateError> {
        self.standing()?;
        Ok(self.current())
    }

    /// Whether a snapshot may decide.
    ///
    /// # Errors
    /// Why none may.
    pub fn standing(&self) -> Result<(), GateError> {
        let doubt = self.doubt.load();
        doubt.as_ref().map_or(Ok(()), |doubt| Err(GateError::NoSnapshot(doubt.to_string())))
    }

    /// Takes what is active in the store; where a dated fact has begun or ended since, activates
    /// the snapshot that follows from it.
    ///
    /// # Errors
    /// When the store cannot be read, or what it names cannot be taken: then nothing is decided until it
    /// can.
    pub async fn refresh(&self) -> Result<(), GateError> {
        let mut proposal = self.proposal.lock().await;
        match self.follow(&mut proposal).await {
            Ok(()) => {
                if self.doubt.swap(None).is_some() {
                    tracing::info!("the active snapshot can be served again");
                }
                Ok(())
            }
            Err(error) if error.is_of_the_snapshot() => {
                let doubt = error.to_string();
                if self.doubt.load().as_ref().is_none_or(|known| **known != doubt) {
                    tracing::error!(%error, "the active snapshot cannot be served: nothing is decided");
                }
                self.doubt.store(Some(Arc::new(doubt.clone())));
                Err(GateError::NoSnapshot(doubt))
            }
            Err(KeeperError::Gate(error)) => Err(error),
            Err(error) => Err(GateError::NoSnapshot(error.to_string())),
        }
    }

    async fn follow(&self, proposal: &mut Proposal) -> Result<(), KeeperError> {
        let current = self.current.load_full();
        let known = current.snapshot();
        let active = named(&*self.office.store).await?.ok_or(KeeperError::NoneActive)?;
        let now = self.office.now().await?;
        let past = known.valid_until.is_some_and(|until| now >= until);
        if active.snapshot == known.digests && !past {
            return Ok(());
        }
        if active.snapshot.revision < known.digests.revision {
            let (active, known) = (active.snapshot.revision.0, known.digests.revision.0);
            return Err(Unconfirmed::WentBack { active, known }.into());
        }
        confirm(&*self.office.store, self.office.sequencer.signer(), &active).await?;
        *proposal = self.office.proposal(&active.snapshot, proposal).await?;
        let snapshot = self.office.settle(proposal, FACTS_CHANGED).await?;
        tracing::info!(revision = snapshot.digests.revision.0, "another snapshot decides");
        self.current.store(Arc::new(Judge::new(snapshot)));
        Ok(())
    }

    /// Follows the store and the calendar until `stop` fires.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut shortest = SOONEST;
        loop {
            let until_change = self.current().snapshot().valid_until.map_or(POLL, |until| {
                let wait = until.duration_since(self.office.clock.now());
                Duration::try_from(wait).unwrap_or(Duration::ZERO)
            });
            let wait = until_change.clamp(shortest, POLL);
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            let refreshed = self.refresh().await;
            // What has failed is not asked for again at once, however long the snapshot has been past.
            shortest = if refreshed.is_ok() { SOONEST } else { POLL };
            match refreshed {
                // Said once, when it began.
                Ok(()) | Err(GateError::NoSnapshot(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "the active snapshot could not be read; it is tried again");
                }
            }
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

    /// The active snapshot, as the signed log has it.
    async fn active(&self) -> Result<Option<Active>, KeeperError> {
        let active = named(&*self.store).await?;
        if let Some(active) = &active {
            confirm(&*self.store, self.sequencer.signer(), active).await?;
        }
        Ok(active)
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
        let texts: BTreeMap<String, String> = serde_json::from_slice(&bundle)
            .map_err(|_| KeeperError::Content("its bundle is not an object of files"))?;
        let files: Vec<SourceFile> =
            texts.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
        let text = String::from_utf8(organisation)
            .map_err(|_| KeeperError::Content("its organisation is not UTF-8"))?;
        let proposal = Proposal::recorded(&files, &SourceFile::new("organisation.toml", &text))?;
        // What is activated next must be the same policies and the same organisation.
        if proposal.bundle.digest != active.bundle
            || proposal.organisation_digest() != active.organisation
        {
            return Err(KeeperError::Content("its bundle is not in canonical form"));
        }
        Ok(proposal)
    }

    async fn content(&self, digest: Digest) -> Result<Vec<u8>, KeeperError> {
        let content = self.store.content(digest).await?;
        content.ok_or(KeeperError::Content("a content is missing"))
    }

    /// The snapshot of `proposal` now, active under its number.
    async fn settle(&self, proposal: &Proposal, cause: &str) -> Result<Arc<Snapshot>, KeeperError> {
        for _ in 0..ATTEMPTS {
            let digests = self.active().await?.map(|active| active.snapshot);
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
        let store = Some(self.store.examine().await?);
        let body = ActivationBody { cause: cause.to_owned(), snapshot: snapshot.digests, store };
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
