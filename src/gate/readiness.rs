//! Whether this process can work, check by check: what `/readyz` says. One probe is shared by all who ask,
//! however many they are.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Gate, GateError,
    call::Moment,
    confirmation::{ConfirmationError, check_head},
};
use crate::{ledger::StoreSettings, store::StoreError};

/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(1);
/// How often the process asks itself, if nobody else does.
const ROUND: Duration = Duration::from_secs(2);
/// How long the store may take to say that it can be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// One thing without which the process cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Why it fails, in words that anybody may read.
    pub fault: Option<String>,
}

/// Whether the process can work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Each check.
    pub checks: Vec<Check>,
    /// What the store says of itself, where it could be asked.
    pub store: Option<StoreSettings>,
}

impl Readiness {
    /// The checks that fail.
    pub fn failing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.checks.iter().filter_map(|check| Some((check.name, check.fault.as_deref()?)))
    }

    /// What fails, in one line; empty when nothing does.
    #[must_use]
    pub fn fault(&self) -> String {
        let mut all = String::new();
        for (name, fault) in self.failing() {
            let gap = if all.is_empty() { "" } else { "; " };
            let _ = write!(all, "{gap}{name}: {fault}");
        }
        all
    }
}

/// The latest answer, and when it was had.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<Option<(Instant, Arc<Readiness>)>>);

impl Gate {
    /// Whether this process can work, as it was found within the last second.
    pub async fn readiness(&self) -> Arc<Readiness> {
        let mut latest = self.readiness.0.lock().await;
        if let Some((at, known)) = &*latest
            && at.elapsed() < FRESH
        {
            return known.clone();
        }
        let found = Arc::new(self.probe_readiness().await);
        let before = latest.as_ref().map(|(_, known)| known.fault()).unwrap_or_default();
        let now = found.fault();
        if now != before {
            if now.is_empty() {
                tracing::info!("the service is ready again");
            } else {
                tracing::error!(fault = now, "the service is not ready");
            }
        }
        for check in &found.checks {
            let is_well = if check.fault.is_none() { 1.0 } else { 0.0 };
            metrics::gauge!("lexgate_ready", "check" => check.name).set(is_well);
        }
        *latest = Some((Instant::now(), found.clone()));
        found
    }

    /// Asks again and again until `stop` fires: what has changed under a running service is refused also
    /// where no balancer asks.
    pub async fn watch_readiness(self: Arc<Self>, stop: CancellationToken) {
        loop {
            self.readiness().await;
            if stop.run_until_cancelled(tokio::time::sleep(ROUND)).await.is_none() {
                break;
            }
        }
    }

    /// While others may take this process for dead it sends nothing.
    fn lease_fault(&self) -> Option<String> {
        let is_held = self.lease.held_since(Moment::now(&*self.clock)).is_some();
        (!is_held).then(|| {
            "the lease of this process ran out: it sends nothing until it is renewed".to_owned()
        })
    }

    async fn probe_readiness(&self) -> Readiness {
        let (examined, written, signed, standing) = tokio::join!(
            timeout(PATIENCE, self.store.examine()),
            timeout(PATIENCE, self.store.writable()),
            timeout(PATIENCE, check_head(&*self.store, self.sequencer.signer())),
            timeout(PATIENCE, self.sequencer.is_ready()),
        );
        let standing = standing.unwrap_or(Err(StoreError::TimedOut));
        let log = match signed {
            _ if standing.is_err() => standing.as_ref().err().map(said),
            Ok(Ok(())) => None,
            Ok(Err(ConfirmationError::Unconfirmed(fault))) => Some(fault.to_string()),
            Ok(Err(ConfirmationError::Store(error))) => Some(said(&error)),
            Err(_) => Some(StoreError::TimedOut.to_string()),
        };
        let examined = examined.unwrap_or(Err(StoreError::TimedOut));
        let written = written.unwrap_or(Err(StoreError::TimedOut));
        let check = |name, fault: Option<String>| Check { name, fault };
        // What else stops the process belongs here, one line each.
        let checks = vec![
            check("store", examined.as_ref().err().map(said)),
            check("write", written.as_ref().err().map(said)),
            check("log", log),
            check("lease", self.lease_fault()),
            check("room", self.has_room().err().map(|error| error.to_string())),
            check("snapshot", self.keeper.standing().err().map(|error| said_of_snapshot(&error))),
        ];
        Readiness { checks, store: examined.ok() }
    }
}

/// What anybody may hear of a store that fails: a database's own words may hold names and addresses.
fn said(error: &StoreError) -> String {
    match error {
        error if error.refuses_to_sign() => error.to_string(),
        StoreError::Setting(_)
        | StoreError::Content(_)
        | StoreError::ReadOnly
        | StoreError::TimedOut
        | StoreError::Corrupt(_) => error.to_string(),
        error => {
            tracing::warn!(%error, "the store fails");
            "the store failed; the log says how".to_owned()
        }
    }
}

/// The same of the snapshot: faults of policies quote their lines.
fn said_of_snapshot(error: &GateError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}
