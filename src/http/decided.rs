//! What a table says of an outcome beside its own record: whose call it was, and what had been decided. The
//! record of an outcome names its decision, and no more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    domain::Seq,
    gate::{Gate, GateError},
    store::Stored,
};

/// How many decisions are remembered: an outcome follows its decision closely.
const MOST: usize = 10_000;
/// How many records are read at once, for the decisions among them.
const STRETCH: usize = 1000;

/// A decision, as far as the row of its outcome repeats it.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) tenant: String,
    pub(super) app: String,
    pub(super) key: String,
    pub(super) action: String,
    pub(super) decision: String,
}

/// Decisions by their positions.
#[derive(Debug, Default)]
pub(super) struct Decisions(BTreeMap<Seq, Decided>);

impl Decisions {
    /// Learns the decisions that the outcomes among `rows` are about. Those of earlier pages are known.
    pub(super) async fn learn(
        &mut self,
        gate: &Gate,
        rows: &[(&Stored, Value)],
    ) -> Result<(), GateError> {
        for (stored, entry) in rows {
            self.note(stored.seq, entry);
        }
        let wanted = rows.iter().filter_map(|(_, entry)| about(entry));
        let mut wanted: BTreeSet<Seq> = wanted.filter(|seq| !self.0.contains_key(seq)).collect();
        while let Some(first) = wanted.first().copied() {
            let beyond = wanted.split_off(&Seq::new(first.get() + STRETCH as u64));
            let last = wanted.last().map_or(first, |last| *last);
            let length = usize::try_from(last.get() - first.get() + 1).unwrap_or(STRETCH);
            for stored in gate.store().range(first, length).await? {
                // A body that was removed says nothing any more.
                let entry = serde_json::from_slice::<Value>(&stored.entry);
                if let Some(entry) = entry.ok().filter(|_| wanted.contains(&stored.seq)) {
                    self.note(stored.seq, &entry);
                }
            }
            wanted = beyond;
        }
        Ok(())
    }

    /// The position of the decision that `entry` is about, and what is known of it.
    pub(super) fn of(&self, entry: &Value) -> (Option<Seq>, Option<&Decided>) {
        let seq = about(entry);
        (seq, seq.and_then(|seq| self.0.get(&seq)))
    }

    fn note(&mut self, seq: Seq, entry: &Value) {
        if entry.pointer("/kind").and_then(Value::as_str) != Some("decision") {
            return;
        }
        let text = |pointer: &str| {
            let text = entry.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let decided = Decided {
            tenant: text("/body/caller/tenant"),
            app: text("/body/caller/app"),
            key: text("/body/caller/key"),
            action: text("/body/call/action"),
            decision: text("/body/decision"),
        };
        self.0.insert(seq, decided);
    }

    /// Forgets the oldest beyond what is kept, once their rows are written.
    pub(super) fn forget(&mut self) {
        while self.0.len() > MOST {
            self.0.pop_first();
        }
    }
}

/// The position of the decision that an outcome is about.
fn about(entry: &Value) -> Option<Seq> {
    entry.pointer("/body/decision/seq").and_then(Value::as_u64).map(Seq::new)
}
