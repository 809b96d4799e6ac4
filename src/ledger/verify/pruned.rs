//! What was removed, and whether it was old enough: as far as the entries around it tell.
//!
//! Of an entry that is not here only its place is known. It was written no earlier than the last entry in
//! front of it that is here, and by the snapshot that was active then, because activations are never
//! removed. So the soonest instant at which it could have gone is known: its retention period had not ended
//! before.

use std::collections::HashMap;

use jiff::Timestamp;

use super::bits::Bits;
use crate::{
    domain::{Digest, Seq},
    ledger::{
        LegalHoldBody, PrunedBody, SeqRange,
        fault::ChainFault,
        retention::months_after,
        time::{parse_timestamp, timestamp_text},
    },
};

/// How many legal holds are held against what was removed.
const HOLDS: usize = 1_000;
/// Stands for a record that is kept for ever.
const FOR_EVER: u16 = u16::MAX;

/// How long any record is kept at least, by the facts of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortest {
    /// That is not known: any record may go at once.
    Unknown,
    /// So many months.
    Months(u32),
    /// Every record is kept for ever.
    ForEver,
}

/// Every position of a log: when it was written, how long it is kept, and whether it is here. Ten bytes and
/// three bits for each.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// When an entry was written, in microseconds; of one that is not here, the last one in front of it
    /// that is.
    written: Vec<i64>,
    /// For how many months it is kept, at least.
    months: Vec<u16>,
    /// Those whose bodies are not here.
    pub(super) removed: Bits,
    /// Those that a record says were removed, whether or not they are here.
    pub(super) named: Bits,
    /// The records that say so, and how many of those that each was the first to name are not here.
    pub(super) pruned: Vec<(Seq, u64)>,
    /// The latest instant that a removal counted as the present one, and its record.
    pub(super) latest: Option<(Timestamp, Seq)>,
    shortest: Option<Shortest>,
    holds: HashMap<Digest, Hold>,
}

/// A legal hold in force.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// The record that set it.
    set: Seq,
    /// The span that it surely covers, whatever a record says; `None` when it covers a part of the records.
    span: Option<(Timestamp, Timestamp)>,
    /// A record that was removed although the hold covered it, and the record that says so.
    broken: Option<(Seq, Seq)>,
}

impl Shelf {
    /// Adds the next entry, which is here; `months` is `None` when it is kept for ever.
    pub(super) fn add(&mut self, ts: Timestamp, months: Option<u32>) {
        self.written.push(ts.as_microsecond());
        let months = months.and_then(|months| u16::try_from(months).ok());
        self.months.push(months.unwrap_or(FOR_EVER));
    }

    /// Adds the next entry, which is not here.
    pub(super) fn add_removed(&mut self, seq: Seq) {
        self.removed.add(seq);
        self.written.push(self.written.last().copied().unwrap_or(i64::MIN));
        self.months.push(match self.shortest {
            // In front of the first snapshot is nothing that may go.
            None | Some(Shortest::ForEver) => FOR_EVER,
            Some(Shortest::Unknown) => 0,
            Some(Shortest::Months(months)) => u16::try_from(months).unwrap_or(FOR_EVER),
        });
    }

    /// From here on a snapshot decides by whose facts no record is kept for less than this.
    pub(super) fn keep_at_least(&mut self, shortest: Shortest) {
        self.shortest = Some(shortest);
    }

    /// When the entry at a position was written, which is here.
    pub(super) fn written(&self, seq: Seq) -> Option<Timestamp> {
        let at = usize::try_from(seq.get()).ok()?;
        self.written.get(at).and_then(|micros| Timestamp::from_microsecond(*micros).ok())
    }

    /// Takes a record that says what was removed. What is still here is of a copy that was made before.
    pub(super) fn prune(
        &mut self,
        seq: Seq,
        ts: Timestamp,
        pruned: &PrunedBody,
    ) -> Result<(), ChainFault> {
        if pruned.before > ts {
            let (said, is) = (timestamp_text(pruned.before), timestamp_text(ts));
            return Err(ChainFault::PrunedLater { said, is });
        }
        let (mut gone, mut next) = (0, Seq::new(0));
        let mut named = std::mem::take(&mut self.named);
        for range in &pruned.removed {
            let SeqRange { first, last } = *range;
            if first < next || first > last || last >= seq {
                return Err(ChainFault::Pruned(*range));
            }
            next = Seq::new(last.get() + 1);
            named.add_range(*range, |removed| {
                self.check_age(removed, pruned.before)?;
                if self.removed.has(removed) {
                    gone += 1;
                    self.break_holds(removed, (seq, ts));
                }
                Ok::<_, ChainFault>(())
            })?;
        }
        self.named = named;
        if !pruned.removed.is_empty() {
            self.latest = self.latest.max(Some((pruned.before, seq)));
        }
        self.pruned.push((seq, gone));
        Ok(())
    }

    /// Whether the retention period of the record at `seq` can have ended at `before`.
    fn check_age(&self, seq: Seq, before: Timestamp) -> Result<(), ChainFault> {
        let is_here = !self.removed.has(seq);
        let months = usize::try_from(seq.get()).ok().and_then(|at| self.months.get(at)).copied();
        let months = months.filter(|months| *months != FOR_EVER).map(u32::from);
        let (Some(months), Some(written)) = (months, self.written(seq)) else {
            return Err(ChainFault::KeptForEver(
                seq,
                if is_here {
                    "records of its kind are kept for ever"
                } else {
                    "what lies there must be kept for ever: no snapshot was active yet, or the facts of the active one let no record go"
                },
            ));
        };
        let until = months_after(written, months);
        if until.is_some_and(|until| until <= before) {
            return Ok(());
        }
        let (written, before) = (timestamp_text(written), timestamp_text(before));
        let until = until.map_or_else(|| "for ever".to_owned(), timestamp_text);
        Err(ChainFault::PrunedEarly { seq, is_here, written, months, until, before })
    }

    /// Takes a record that sets a hold, or lifts one.
    pub(super) fn hold(&mut self, seq: Seq, body: &LegalHoldBody) -> Result<(), ChainFault> {
        let id = Digest::of(body.id.as_bytes());
        let Some(records) = &body.records else {
            // Two officers may lift a hold at once.
            return match self.holds.get_mut(&id) {
                Some(hold) => {
                    (hold.span, hold.broken) = (None, None);
                    Ok(())
                }
                None => Err(ChainFault::NoHold(body.id.clone())),
            };
        };
        let instant = |name| match records.get(name) {
            None => Some(None),
            Some(text) => parse_timestamp(text).or_else(|| text.parse().ok()).map(Some),
        };
        let is_whole = records.keys().all(|name| name == "from" || name == "to");
        let span = match (is_whole, instant("from"), instant("to")) {
            (true, Some(from), Some(to)) if self.holds.len() < HOLDS => {
                Some((from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX)))
            }
            _ => None,
        };
        self.holds.insert(id, Hold { set: seq, span, broken: None });
        Ok(())
    }

    /// Notes which holds keep what the record `says` to be removed, and is not here. A hold that is lifted
    /// later says nothing: what a record names may be removed only then.
    fn break_holds(&mut self, removed: Seq, (says, ts): (Seq, Timestamp)) {
        let Some(soonest) = self.written(removed) else { return };
        for hold in self.holds.values_mut() {
            let covers = hold.span.is_some_and(|(from, to)| from <= soonest && ts < to);
            if covers && hold.broken.is_none() {
                hold.broken = Some((removed, says));
            }
        }
    }

    /// A record that was removed although a hold in force keeps it: the hold's record, the one that was
    /// removed, and the one that says so.
    pub(super) fn broken_hold(&self) -> Option<(Seq, Seq, Seq)> {
        let broken = |hold: &Hold| hold.broken.map(|(removed, says)| (says, hold.set, removed));
        let first = self.holds.values().filter_map(broken).min();
        first.map(|(says, set, removed)| (set, removed, says))
    }

    /// The first entry that is not here although no record says that it was removed.
    pub(super) fn missing(&self) -> Option<Seq> {
        self.removed.without(&self.named).next()
    }
}
