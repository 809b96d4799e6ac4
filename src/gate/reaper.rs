//! The reaper: closes what a process left open when it died, with an outcome `unknown`. A process
//! that lives says so with a lease.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Gate, GateError, Recorded, outcome::settled};
use crate::{
    ledger::{DecisionRef, OutcomeBody, OutcomeStatus, TokenCount},
    store::Stored,
};

/// How long a lease holds.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is renewed, and the dead are looked for.
const RENEW: Duration = Duration::from_secs(3);
/// How many are closed at a time.
const CLOSE_AT_ONCE: usize = 256;
/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps this process's lease and closes what others left.
#[derive(Debug)]
pub struct Reaper {
    gate: Arc<Gate>,
    process: Uuid,
    /// When the lease was renewed last.
    renewed: Instant,
    /// Until when nothing is closed.
    patient_until: Instant,
}

impl Reaper {
    /// A reaper for `process`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, process: Uuid) -> Self {
        let now = Instant::now();
        // The store may just be coming back: those who are cut off from it get the time to renew their
        // leases.
        Self { gate, process, renewed: now, patient_until: now + LEASE }
    }

    /// Takes the lease, before anything is dispatched.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn take_lease(&self) -> Result<(), GateError> {
        // A process that may sign nothing lets go of what it holds; and a lease by a clock that was set
        // would outlive the process.
        self.gate.sequencer.standing()?;
        let now = self.gate.store.now().await?;
        let until = now.checked_add(LEASE).unwrap_or(jiff::Timestamp::MAX);
        Ok(self.gate.store.renew_lease(self.process, until).await?)
    }

    /// Works until `stop` fires.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rounds: u64 = 0;
        while stop.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
            if let Err(error) = self.round(rounds).await {
                tracing::warn!(error = %error, "the reaper could not work; it tries again");
            }
            rounds += 1;
        }
    }

    async fn round(&mut self, rounds: u64) -> Result<(), GateError> {
        self.take_lease().await?;
        // Where the store was away from this process, it may have been from others, whose leases ran out
        // although they live: they get the time to come back.
        if self.renewed.elapsed() > LEASE {
            self.patient_until = Instant::now() + LEASE;
        }
        self.renewed = Instant::now();
        let now = self.gate.store.now().await?;
        if self.renewed >= self.patient_until {
            for decision in self.gate.store.expired_dispatches(now, CLOSE_AT_ONCE).await? {
                self.close(&decision).await?;
            }
        }
        self.gate.finish_erasures(now).await?;
        let open = self.gate.store.open_dispatches().await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lexgate_open_dispatches").set(open as f64);
        if rounds.is_multiple_of(1000) {
            let before = now.checked_sub(KEY_LIFE).unwrap_or(jiff::Timestamp::MIN);
            self.gate.store.prune(before).await?;
        }
        Ok(())
    }

    async fn close(&self, stored: &Stored) -> Result<(), GateError> {
        let decision = Recorded::read(stored)?;
        tracing::warn!(seq = %decision.seq, "a process ended before it recorded this call's outcome");
        let body = OutcomeBody {
            attempts: Vec::new(),
            cost: None,
            decision: DecisionRef { leaf: decision.leaf, seq: decision.seq },
            input_commitment: None,
            model: None,
            output_commitment: None,
            reported: None,
            retention: decision.body.retention.clone(),
            skipped: Vec::new(),
            status: OutcomeStatus::Unknown,
            tokens: TokenCount::default(),
        };
        let draft = self.gate.outcome_draft(&decision, &body)?;
        settled(self.gate.sequencer.submit(draft).await)
    }
}
