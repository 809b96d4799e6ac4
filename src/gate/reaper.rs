//! The reaper: closes what a process left open when it died, with an outcome `unknown`. A process
//! that lives says so with a lease.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Gate, GateError,
    call::{LEASE, Moment},
    decide::refused,
    outcome::written,
};
use crate::{
    domain::{AppId, Retention, Seq, TenantId, Verdict},
    ledger::{
        DecisionBody, DecisionRef, Entry, Kind, OutcomeBody, OutcomeStatus, TokenCount, canonical,
    },
    sequencer::{Draft, SubmitError},
    store::Stored,
};

/// How often a lease is renewed, and the dead are looked for.
const RENEW: Duration = Duration::from_secs(3);
/// How soon a lease that could not be renewed is tried again: others wait for it only as long as it holds.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// How many are closed at a time, and how many times in one round.
const CLOSE_AT_ONCE: usize = 256;
const PAGES: usize = 16;
/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// After how long a row that could not be closed is tried again.
const AGAIN: Duration = Duration::from_secs(600);
/// How many such rows are remembered.
const MOST_ASIDE: usize = 4096;

/// Keeps this process's lease and closes what others left.
#[derive(Debug)]
pub struct Reaper {
    gate: Arc<Gate>,
    process: Uuid,
    /// The term of the lease that was seen last.
    term: Option<u64>,
    /// Until when nothing is closed.
    patient_until: Instant,
    /// Rows that cannot be closed, and when that was seen.
    aside: BTreeMap<Seq, Instant>,
    /// Behind which row the next round begins; none for the first.
    after: Option<Seq>,
}

impl Reaper {
    /// A reaper for `process`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, process: Uuid) -> Self {
        let patient_until = Instant::now() + LEASE;
        Self { gate, process, term: None, patient_until, aside: BTreeMap::new(), after: None }
    }

    /// Takes the lease, before anything is dispatched.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn take_lease(&self) -> Result<(), GateError> {
        self.gate.renew_lease(self.process).await
    }

    /// Works until `stop` fires. However much there is to close, the lease is renewed meanwhile.
    pub async fn run(self, stop: CancellationToken) {
        let (gate, process) = (self.gate.clone(), self.process);
        let renewing = async {
            let mut wait = RENEW;
            while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
                wait = RENEW;
                if let Err(error) = gate.renew_lease(process).await {
                    tracing::warn!(%error, "the lease could not be renewed; it is tried again");
                    wait = RENEW_AGAIN;
                }
            }
        };
        tokio::join!(renewing, self.reap(&stop));
    }

    async fn reap(mut self, stop: &CancellationToken) {
        // The store may just be coming back: those who are cut off from it get the time to renew their
        // leases.
        self.patient_until = Instant::now() + LEASE;
        let mut rounds: u64 = 0;
        while stop.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
            if let Err(error) = self.round(rounds).await {
                tracing::warn!(error = %error, "the reaper could not work; it tries again");
            }
            rounds += 1;
        }
    }

    /// Each part by itself: what stops one of them stops no other.
    async fn round(&mut self, rounds: u64) -> Result<(), GateError> {
        self.gate.give_up_left_open().await;
        let now = self.gate.store.now().await?;
        let erased = self.gate.finish_erasures(now).await;
        let closed = if self.may_close() { self.close_expired(now).await } else { Ok(()) };
        self.gate.record_counted_refusals(false).await;
        let open = self.gate.store.open_dispatches().await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lexgate_open_dispatches").set(open as f64);
        if rounds.is_multiple_of(1000) {
            let before = now.checked_sub(KEY_LIFE).unwrap_or(jiff::Timestamp::MIN);
            self.gate.store.prune(before).await?;
        }
        erased.and(closed)
    }

    /// Whether others without a lease can be taken for dead. Where the store was away from this process, it
    /// may have been from others, whose leases ran out although they live: they get the time to come back.
    fn may_close(&mut self) -> bool {
        let Some(term) = self.gate.lease.held_since(Moment::now(&*self.gate.clock)) else {
            return false;
        };
        if self.term.replace(term).is_some_and(|former| former != term) {
            self.patient_until = Instant::now() + LEASE;
        }
        Instant::now() >= self.patient_until
    }

    /// Closes the calls of the dead, a bounded number of them. The next round goes on behind them.
    async fn close_expired(&mut self, now: jiff::Timestamp) -> Result<(), GateError> {
        // A process is not taken for dead because its row is gone: one that lives renews it meanwhile.
        let until = now.checked_add(LEASE).unwrap_or(jiff::Timestamp::MAX);
        let granted = self.gate.store.grant_missing_leases(until).await?;
        if granted > 0 {
            tracing::warn!(
                granted,
                "leases of processes with calls under way were gone from the store: somebody has deleted them"
            );
        }
        for _ in 0..PAGES {
            let store = &self.gate.store;
            let page = store.expired_dispatches(now, self.after, CLOSE_AT_ONCE).await?;
            let is_last = page.len() < CLOSE_AT_ONCE;
            for stored in page {
                if self.is_aside(stored.seq) {
                    self.after = Some(stored.seq);
                    continue;
                }
                match self.close(&stored).await {
                    // One that has its outcome was closed by another process in this moment, or is no row of
                    // a call: it is not tried again at once either.
                    Ok(()) => {}
                    Err(GateError::AlreadyReported) => self.remember(stored.seq),
                    Err(error) if is_of_the_row(&error) => self.put_aside(stored.seq, &error),
                    Err(error) => return Err(error),
                }
                self.after = Some(stored.seq);
            }
            if is_last {
                self.after = None;
                break;
            }
        }
        Ok(())
    }

    fn is_aside(&mut self, seq: Seq) -> bool {
        let is_so = self.aside.get(&seq).is_some_and(|since| since.elapsed() < AGAIN);
        if !is_so {
            self.aside.remove(&seq);
        }
        is_so
    }

    fn put_aside(&mut self, seq: Seq, error: &GateError) {
        tracing::error!(%seq, %error, "an open dispatch cannot be closed; it is tried again in ten minutes");
        metrics::counter!("lexgate_unclosable_dispatches_total").increment(1);
        self.remember(seq);
    }

    fn remember(&mut self, seq: Seq) {
        if self.aside.len() >= MOST_ASIDE {
            self.aside.retain(|_, since| since.elapsed() < AGAIN);
        }
        if self.aside.len() < MOST_ASIDE {
            self.aside.insert(seq, Instant::now());
        }
    }

    async fn close(&self, stored: &Stored) -> Result<(), GateError> {
        let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
        if entry.kind != Kind::Decision {
            return Err(GateError::NoSuchDecision);
        }
        let text = entry.body.get();
        let call: OpenCall = serde_json::from_str(text).map_err(|_| GateError::Corrupt)?;
        match (call.decision, call.dispatch) {
            (Verdict::Deny, _) => return Err(GateError::Denied),
            (Verdict::Allow, false) => return Err(GateError::NoSuchDecision),
            (Verdict::Allow, true) => {}
        }
        let (app, key) = whose(text);
        tracing::warn!(
            seq = %stored.seq, decision = %entry.id, app, key,
            "a process ended before it recorded this call's outcome"
        );
        let body = OutcomeBody {
            attempts: Vec::new(),
            cost: None,
            decision: DecisionRef { leaf: stored.leaf, seq: stored.seq },
            input_commitment: None,
            model: None,
            output_commitment: None,
            reported: None,
            retention: Retention { class: call.retention.class, months: call.retention.months },
            skipped: Vec::new(),
            status: OutcomeStatus::Unknown,
            tokens: TokenCount::default(),
        };
        let draft = Draft {
            terms: terms(text).into(),
            about: Some(stored.seq),
            ..Draft::new(self.gate.fresh_id()?, Kind::Outcome, canonical::to_vec(&body)?)
        };
        match self.gate.sequencer.submit(draft).await {
            Ok(_) => {
                written(OutcomeStatus::Unknown);
                Ok(())
            }
            Err(SubmitError::AlreadyReported) => Err(GateError::AlreadyReported),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Gate {
    /// Says in the store that `process` lives, and remembers here since when that is said without a gap.
    async fn renew_lease(&self, process: Uuid) -> Result<(), GateError> {
        // A process that may sign nothing lets go of what it holds; and a lease by a clock that was set
        // would outlive the process.
        self.sequencer.standing()?;
        let asked = Moment::now(&*self.clock);
        let now = self.store.now().await?;
        let until = now.checked_add(LEASE).unwrap_or(jiff::Timestamp::MAX);
        self.store.renew_lease(process, until).await?;
        self.lease.renewed(asked, Moment::now(&*self.clock));
        Ok(())
    }
}

/// What closing a call needs to know of its decision, whatever else a later version says there.
#[derive(Deserialize)]
struct OpenCall {
    decision: Verdict,
    dispatch: bool,
    retention: Kept,
}

#[derive(Deserialize)]
struct Kept {
    class: String,
    months: Option<u32>,
}

/// Whose call it was.
#[derive(Deserialize)]
struct Whose {
    caller: Calling,
}

#[derive(Deserialize)]
struct Calling {
    app: AppId,
    #[serde(default)]
    key: String,
    tenant: TenantId,
}

/// The app and the API key of a decision, for the log.
fn whose(decision: &str) -> (String, String) {
    let whose = serde_json::from_str::<Whose>(decision);
    whose.map_or_else(
        |_| Default::default(),
        |Whose { caller }| (caller.app.to_string(), caller.key),
    )
}

/// The words by which the outcome is found: its decision's, as far as they can be read.
fn terms(decision: &str) -> Vec<String> {
    if let Ok(body) = serde_json::from_str::<DecisionBody>(decision) {
        return body.outcome_terms(&[]);
    }
    let whose = serde_json::from_str::<Whose>(decision);
    whose.map_or_else(
        |_| Vec::new(),
        |Whose { caller }| vec![format!("app:{}", caller.app), format!("tenant:{}", caller.tenant)],
    )
}

/// Whether it is this row that cannot be closed, and not the ledger that cannot be written.
fn is_of_the_row(error: &GateError) -> bool {
    matches!(
        error,
        GateError::Corrupt
            | GateError::NoSuchDecision
            | GateError::Denied
            | GateError::Canonical(_)
            | GateError::RecordTooLarge { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_s_decision_can_be_closed() {
        let text = r#"{"caller":{"app":"desk","later":1,"tenant":"acme"},"decision":"allow","dispatch":true,"later":{},"retention":{"class":"a","later":[],"months":6}}"#;
        let call: OpenCall = serde_json::from_str(text).unwrap();
        assert!(call.dispatch && call.decision == Verdict::Allow);
        assert_eq!((call.retention.class.as_str(), call.retention.months), ("a", Some(6)));
        assert_eq!(terms(text), ["app:desk", "tenant:acme"]);
        assert_eq!(terms("{}"), [""; 0]);
    }
}
