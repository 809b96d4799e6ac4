//! The one use case: decide, record, dispatch, record. Not how it is asked (`http`, `cli`).

mod attempt;
mod bounds;
mod call;
mod choose;
mod conclude;
mod confirmation;
mod content;
mod counterfactual;
mod course;
mod decide;
mod dispatch;
mod erasure;
mod error;
mod explain;
mod failure;
mod grounds;
#[cfg(test)]
mod grounds_tests;
mod holds;
mod indexer;
mod judge;
#[cfg(test)]
mod judge_tests;
mod keeper;
#[cfg(test)]
mod laws_tests;
mod limits;
mod memo;
mod outcome;
mod prober;
mod proof;
mod readiness;
mod reading;
mod reaper;
mod refusals;
mod series;
mod stream;
#[cfg(test)]
mod stream_tests;
mod trace;
mod vault;
mod volume;

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use bounds::Bounds;
pub use call::{Budget, Pieces, Room};
pub use confirmation::Unconfirmed;
pub use content::OpenedContent;
pub use counterfactual::{Change, Counterfactual, Destinations, Effort, Lifted, Way};
pub use decide::{IdempotencyKey, Recorded};
pub use dispatch::{Failed, LabelledBy, ModelCall, Reply, ReplyBody, Served};
pub use erasure::{Erased, Erasure};
pub use error::GateError;
pub use explain::{Considered, Explanation};
pub use holds::{Hold, holds};
pub use judge::{Judge, Judged};
pub use keeper::{Activate, Keeper, KeeperError};
pub use memo::{Decided, How};
pub use outcome::OutcomeReport;
pub use proof::{Inclusion, LogKey, log_keys};
pub use readiness::{Check, Readiness};
pub use reading::Reading;
pub use reaper::Reaper;
pub use refusals::Refusal;
pub use vault::{InvalidMasterKey, MasterKey, Opened, Vault};
pub use volume::{is_settled, people, reserved, sent};

/// What a decision names where no policy of the bundle decided.
pub use crate::policy::{DEFAULT_DENY, EVALUATION_ERROR};

use crate::{
    dispatch::{Backends, Fleet},
    domain::{Clock, DecisionId},
    sequencer::Sequencer,
    store::Store,
};

/// The checkpoint: every call goes through here, and only what passed leaves.
#[derive(Debug)]
pub struct Gate {
    keeper: Arc<Keeper>,
    sequencer: Sequencer,
    store: Arc<dyn Store>,
    vault: Option<Vault>,
    backends: Arc<dyn Backends>,
    fleet: Arc<Fleet>,
    clock: Arc<dyn Clock>,
    random: SystemRandom,
    refusals: refusals::Refusals,
    /// Whether this process is believed to live.
    lease: call::Lease,
    /// What the store said last of the active snapshot.
    confirmed: call::Confirmed,
    /// Calls under way, which outlive the request that began them.
    tasks: TaskTracker,
    /// Fires when calls under way must end.
    halt: CancellationToken,
    readiness: readiness::Latest,
    used: bounds::Use,
    left_open: dispatch::LeftOpen,
}

/// What a gate is made of.
#[derive(Debug)]
pub struct GateParts {
    /// Knows the snapshot that decides.
    pub keeper: Arc<Keeper>,
    /// Writes the ledger.
    pub sequencer: Sequencer,
    /// Reads it.
    pub store: Arc<dyn Store>,
    /// Keeps what identifies persons, where the organisation does.
    pub vault: Option<Vault>,
    /// Takes calls for deployments.
    pub backends: Arc<dyn Backends>,
    /// Knows how the deployments are.
    pub fleet: Arc<Fleet>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Holds the calls under way.
    pub tasks: TaskTracker,
    /// Ends them.
    pub halt: CancellationToken,
}

impl Gate {
    /// A gate of these parts.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        let GateParts { keeper, sequencer, store, vault, backends, fleet, clock, tasks, halt } =
            parts;
        let used = bounds::Use::new(&Bounds::default(), store.searches());
        Self {
            keeper,
            sequencer,
            store,
            vault,
            backends,
            fleet,
            clock,
            random: SystemRandom::new(),
            lease: call::Lease::default(),
            confirmed: call::Confirmed::default(),
            refusals: refusals::Refusals::default(),
            tasks,
            halt,
            readiness: readiness::Latest::default(),
            left_open: dispatch::LeftOpen::default(),
            used,
        }
    }

    /// The snapshot that decides.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// Where the ledger lies.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The writer of the ledger.
    #[must_use]
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// Whether records can be signed and calls decided: the log goes on from what was seen of it, the
    /// clocks agree, and witnesses have seen it as lately as was asked for.
    ///
    /// # Errors
    /// What forbids it.
    pub async fn is_ready(&self) -> Result<(), GateError> {
        Ok(self.sequencer.is_ready().await?)
    }

    fn fresh_id(&self) -> Result<Uuid, GateError> {
        fresh_id(&*self.clock, &self.random)
    }
}

/// A new identifier, a UUID version 7.
///
/// # Errors
/// When the machine gives no randomness.
pub fn fresh_id(clock: &dyn Clock, random: &SystemRandom) -> Result<Uuid, GateError> {
    let mut bytes = [0; 10];
    random.fill(&mut bytes).map_err(|_| GateError::NoRandomness)?;
    Ok(DecisionId::at(clock.now(), bytes).uuid())
}
