//! Attempts that were refused although the key is known: recorded, so that nobody tries without a trace,
//! and counted together where a key tries often, so that nobody fills the log with them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Gate, GateError, decide::refused};
use crate::{
    domain::KeyName,
    ledger::{Kind, RefusedBody, canonical, key_term},
    sequencer::Draft,
};

/// For how long a key's refusals are seen together.
const SPELL: Duration = Duration::from_secs(300);
/// How many of them have a record of their own.
const EACH: u32 = 10;

/// A known key tried what it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The API key.
    pub key: KeyName,
    /// The operation of the OpenAPI document.
    pub operation: String,
    /// Why it was refused.
    pub why: String,
}

/// Refusals that wait to be recorded together, by key. There are as many as the configuration has keys.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<KeyName, Spell>>);

#[derive(Debug)]
struct Spell {
    began: Instant,
    recorded: u32,
    /// How often which operation was refused beyond those that were recorded, and why.
    more: BTreeMap<String, (u64, String)>,
}

impl Refusals {
    /// Whether this one gets a record of its own; it is counted otherwise.
    fn admit(&self, refusal: &Refusal, now: Instant) -> bool {
        let mut spells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Spell { began: now, recorded: 0, more: BTreeMap::new() };
        let spell = spells.entry(refusal.key.clone()).or_insert_with(fresh);
        if now.duration_since(spell.began) >= SPELL && spell.more.is_empty() {
            *spell = fresh();
        }
        if spell.recorded < EACH {
            spell.recorded += 1;
            return true;
        }
        count(spell, refusal, 1);
        false
    }

    /// Counts so many whose record could not be written.
    fn keep(&self, refusal: &Refusal, times: u64, now: Instant) {
        let mut spells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Spell { began: now, recorded: EACH, more: BTreeMap::new() };
        count(spells.entry(refusal.key.clone()).or_insert_with(fresh), refusal, times);
    }

    /// What was counted in spells that are over, or in all; forgets them.
    fn take(&self, now: Instant, all: bool) -> Vec<(Refusal, u64)> {
        let mut spells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        spells.retain(|key, spell| {
            if !all && now.duration_since(spell.began) < SPELL {
                return true;
            }
            for (operation, (times, why)) in std::mem::take(&mut spell.more) {
                due.push((Refusal { key: key.clone(), operation, why }, times));
            }
            false
        });
        due
    }
}

fn count(spell: &mut Spell, refusal: &Refusal, more: u64) {
    let (times, why) = spell.more.entry(refusal.operation.clone()).or_default();
    *times += more;
    why.clone_from(&refusal.why);
}

impl Gate {
    /// Records that a known key was refused, or counts it, where the key is refused often. It is refused
    /// all the same where that cannot be recorded now: then it is recorded later.
    pub async fn record_refusal(&self, refusal: Refusal) {
        let Refusal { key, operation, why } = &refusal;
        metrics::counter!("lexgate_refused_total", "operation" => operation.clone()).increment(1);
        tracing::info!(%key, operation, why, "a known API key was refused");
        if !self.refusals.admit(&refusal, Instant::now()) {
            return;
        }
        if let Err(error) = self.write_refusal(&refusal, 1).await {
            tracing::warn!(%error, "a refusal is not recorded yet; it is tried again");
            self.refusals.keep(&refusal, 1, Instant::now());
        }
    }

    /// Records what was counted, once its time has come; at the end of the process, all of it.
    pub async fn record_counted_refusals(&self, all: bool) {
        for (refusal, times) in self.refusals.take(Instant::now(), all) {
            if let Err(error) = self.write_refusal(&refusal, times).await {
                let Refusal { key, operation, .. } = &refusal;
                tracing::warn!(%error, %key, operation, times, "refusals are not recorded yet; they are tried again");
                self.refusals.keep(&refusal, times, Instant::now());
            }
        }
    }

    async fn write_refusal(&self, refusal: &Refusal, times: u64) -> Result<(), GateError> {
        let Refusal { key, operation, why } = refusal.clone();
        let retention = self.keeper.current().snapshot().facts.retention([]);
        let terms = [key_term(&key)].into();
        let body = canonical::to_vec(&RefusedBody { key, operation, retention, times, why })?;
        let draft = Draft { terms, ..Draft::new(self.fresh_id()?, Kind::Refused, body) };
        self.sequencer.submit(draft).await.map(drop).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(key: &str, operation: &str) -> Refusal {
        Refusal { key: key.into(), operation: operation.to_owned(), why: "no".to_owned() }
    }

    #[test]
    fn a_key_that_tries_often_is_counted() {
        let (refusals, begun) = (Refusals::default(), Instant::now());
        let read = refusal("a", "readRecord");
        let admitted = (0..5_000).filter(|_| refusals.admit(&read, begun)).count();
        assert_eq!(admitted, 10);
        assert!(refusals.admit(&refusal("b", "readRecord"), begun), "each key by itself");
        assert!(!refusals.admit(&refusal("a", "eraseSubject"), begun));
        assert_eq!(refusals.take(begun, false), []);

        let later = begun + SPELL;
        // Nothing is lost where nobody has taken what was counted.
        assert!(!refusals.admit(&read, later));
        let mut taken = refusals.take(later, false);
        taken.sort_by_key(|(_, times)| *times);
        assert_eq!(taken, [(refusal("a", "eraseSubject"), 1), (read.clone(), 4_991)]);
        assert_eq!(refusals.take(later, true), []);
        assert!(refusals.admit(&read, later), "another spell");
        refusals.keep(&read, 1, later);
        assert_eq!(refusals.take(later, true), [(read, 1)], "at the end of the process");
    }
}
