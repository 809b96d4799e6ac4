//! Whether a row of entries is whole and says nothing against itself, and the tree that it makes. Not
//! whether that tree was signed: an entry cut off at the end, or a chain written anew, shows only
//! against a checkpoint.
//!
//! In two steps: what an entry says by itself ([`Examiner`]), which any number of threads can do, and
//! whether it follows what was before it ([`Verifier::follow`]), one after the other.

mod bits;
mod calls;
mod examine;
mod keys;
mod late;
mod pruned;
mod resumed;
pub(super) mod shape;
mod span;

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    DecisionRef, ErasureBody, GenesisBody,
    checkpoint::Checkpoint,
    entry::{Kind, Origin},
    fault::{ChainFault, Finding},
    note::VerifierKey,
    tile::Tile,
    time::timestamp_text,
    tree::Edge,
};
use crate::domain::{Digest, Revision, Seq, SnapshotDigests};
use bits::Bits;
pub use calls::CLOCKS;
use calls::Calls;
use examine::{Ended, What};
pub use examine::{Examined, Examiner};
use keys::KeyChain;
use pruned::Shelf;
pub use pruned::Shortest;
use span::Reigns;
pub use span::{CONFIRMED, SentAttempt};

/// How many leaves are kept in memory: outcomes mostly follow their decisions soon.
const WINDOW: usize = 65_536;

/// What was read, when nothing was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log; `None` when there was no entry.
    pub origin: Option<Origin>,
    /// How many entries there are.
    pub entries: u64,
    /// The leaf hash of the last one; zeros when there is none.
    pub leaf: Digest,
    /// The root of the tree over all leaves.
    pub root: Digest,
    /// When the first and the last were written.
    pub span: Option<(Timestamp, Timestamp)>,
    /// How many of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Decisions that were dispatched and have no outcome. In a log that is still written to, this
    /// is no fault: the calls may be under way.
    pub open: Vec<Seq>,
    /// The log's keys, the first from its beginning, each endorsed by the one before it.
    pub keys: Vec<(VerifierKey, Seq)>,
    /// Those of them that sign no more, and the records that say so.
    pub retired: Vec<(VerifierKey, Seq)>,
    /// Where the log went on after a loss, and what was lost.
    pub recoveries: Vec<(Seq, Checkpoint)>,
    /// The records that say that time went back, each with the wrong time.
    pub corrections: Vec<(Seq, Timestamp)>,
    /// How many decisions hold a commitment to a person's identifier, and outcomes to what a call said.
    pub committed: u64,
    /// The records of erasures, and how many values each says were destroyed.
    pub erasures: Vec<(Seq, u64)>,
    /// The records that say that others were removed, and how many of those are not here.
    pub pruned: Vec<(Seq, u64)>,
    /// The first entry that is not here although no record says that it was removed.
    pub missing: Option<Seq>,
    /// A legal hold in force, an entry that it keeps and that is not here, and the record that says that
    /// it was removed.
    pub broken_hold: Option<(Seq, Seq, Seq)>,
    /// An identifier that two entries have.
    pub repeated: Option<Uuid>,
    /// Outcomes whose decisions are not here: where they were sent is held against nothing.
    pub unpaired: u64,
}

/// What a verifier asks for while it reads on: entries that were read long ago. And whom it tells of what
/// was sent, to be judged by the policies.
pub trait Past {
    /// The leaf of an entry that was read more than 65,536 entries ago.
    fn leaf(&mut self, seq: Seq) -> Option<Digest>;
    /// An entry that was read before.
    fn entry(&mut self, seq: Seq) -> Option<Vec<u8>>;
    /// An attempt of a decision that is here.
    fn sent(&mut self, attempt: &SentAttempt<'_>);
}

/// Nothing is known but what is in memory.
#[derive(Debug)]
struct Forgotten;

impl Past for Forgotten {
    fn leaf(&mut self, _: Seq) -> Option<Digest> {
        None
    }

    fn entry(&mut self, _: Seq) -> Option<Vec<u8>> {
        None
    }

    fn sent(&mut self, _: &SentAttempt<'_>) {}
}

/// The text by which a log's key endorses the next one.
#[must_use]
pub fn endorsement(origin: &Origin, key: &VerifierKey) -> String {
    format!("lexgate key change\n{origin}\n{key}\n")
}

/// Reads a log's entries, from the first one on. Keeps some thirty bytes of each, and some megabytes.
#[derive(Debug)]
pub struct Verifier {
    leaf: Digest,
    origin: Option<Origin>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    kinds: BTreeMap<Kind, u64>,
    active: Option<SnapshotDigests>,
    reigns: Reigns,
    keys: KeyChain,
    recoveries: Vec<(Seq, Checkpoint)>,
    corrections: Vec<(Seq, Timestamp)>,
    edge: Edge,
    /// The last leaves, the oldest first.
    recent: VecDeque<Digest>,
    ids: Vec<u128>,
    calls: Calls,
    shelf: Shelf,
    /// The outcomes that say nothing, by their decisions, until a late one adds to them.
    unknown: BTreeMap<Seq, Seq>,
    /// The decisions that have a late outcome.
    late: Bits,
    committed: Bits,
    erased: Bits,
    erasures: Vec<(Seq, u64)>,
    unpaired: u64,
    examiner: Examiner,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// A verifier that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            leaf: Digest::from_bytes([0; 32]),
            origin: None,
            first: None,
            last: None,
            kinds: BTreeMap::new(),
            active: None,
            reigns: Reigns::default(),
            keys: KeyChain::default(),
            recoveries: Vec::new(),
            corrections: Vec::new(),
            edge: Edge::default(),
            recent: VecDeque::new(),
            ids: Vec::new(),
            calls: Calls::default(),
            shelf: Shelf::default(),
            unknown: BTreeMap::new(),
            late: Bits::default(),
            committed: Bits::default(),
            erased: Bits::default(),
            erasures: Vec::new(),
            unpaired: 0,
            examiner: Examiner::default(),
        }
    }

    /// Reads the next entry, of a log that is not long.
    ///
    /// # Errors
    /// What is wrong with it. Nothing after it means anything: stop there.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        let seq = self.next();
        let examined = self.examiner.examine(bytes).map_err(|fault| Finding { seq, fault })?;
        self.follow(examined, &mut Forgotten).map(drop)
    }

    /// The position of the next entry.
    #[must_use]
    pub fn next(&self) -> Seq {
        Seq::new(self.edge.size())
    }

    /// The tree that was read.
    #[must_use]
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// No record that is written while the active snapshot decides is kept for less than this.
    pub fn keep_at_least(&mut self, shortest: Shortest) {
        self.shelf.keep_at_least(shortest);
    }

    /// Takes the next entry. Gives the tiles of the tree that it has filled, or made grow.
    ///
    /// # Errors
    /// What is wrong with it. Nothing after it means anything: stop there.
    pub fn follow(
        &mut self,
        examined: Examined,
        past: &mut dyn Past,
    ) -> Result<Vec<Tile>, Finding> {
        let seq = self.next();
        self.check_place(&examined)
            .and_then(|()| self.take(&examined, past))
            .map_err(|fault| Finding { seq, fault })?;
        self.leaf = examined.leaf;
        self.shelf.add(examined.ts, examined.months);
        self.ids.push(examined.id.as_u128());
        self.first.get_or_insert(examined.ts);
        self.last = Some(examined.ts);
        match self.kinds.get_mut(&examined.kind) {
            Some(count) => *count += 1,
            None => drop(self.kinds.insert(examined.kind, 1)),
        }
        self.origin.get_or_insert(examined.log);
        Ok(self.grow(examined.leaf))
    }

    /// Takes the next entry, whose body is not here: only its leaf is. Gives the tiles, as
    /// [`Verifier::follow`] does.
    pub fn follow_removed(&mut self, leaf: Digest) -> Vec<Tile> {
        self.shelf.add_removed(self.next());
        self.leaf = leaf;
        self.grow(leaf)
    }

    fn grow(&mut self, leaf: Digest) -> Vec<Tile> {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(leaf);
        self.edge.extend([leaf])
    }

    /// What was read.
    #[must_use]
    pub fn finish(mut self) -> Report {
        Report {
            entries: self.edge.size(),
            root: self.edge.root(),
            repeated: self.repeated(),
            origin: self.origin,
            leaf: self.leaf,
            span: self.first.zip(self.last),
            kinds: self.kinds,
            open: self.calls.dispatched.without(&self.calls.ended).collect(),
            committed: self.committed.count(),
            missing: self.shelf.missing(),
            broken_hold: self.shelf.broken_hold(),
            keys: self.keys.keys,
            retired: self.keys.retired,
            recoveries: self.recoveries,
            corrections: self.corrections,
            erasures: self.erasures,
            pruned: self.shelf.pruned,
            unpaired: self.unpaired,
        }
    }

    /// An identifier that two entries have.
    fn repeated(&mut self) -> Option<Uuid> {
        self.ids.sort_unstable();
        let mut pairs = self.ids.iter().zip(self.ids.iter().skip(1));
        pairs.find(|(one, next)| one == next).map(|(id, _)| Uuid::from_u128(*id))
    }

    fn check_place(&self, entry: &Examined) -> Result<(), ChainFault> {
        if entry.seq != self.next() {
            return Err(ChainFault::Position(entry.seq));
        }
        if entry.prev != self.leaf {
            return Err(ChainFault::Chain { said: entry.prev.hex(), is: self.leaf.hex() });
        }
        if let Some(origin) = self.origin.as_ref().filter(|origin| **origin != entry.log) {
            let (said, is) = (entry.log.to_string(), origin.clone());
            return Err(ChainFault::OtherLog { said, is });
        }
        if let (What::Corrected(was), Some(last)) = (&entry.what, self.last) {
            return self.check_correction(entry, *was, last);
        }
        if let Some(last) = self.last.filter(|last| entry.ts < *last) {
            let (said, is) = (timestamp_text(entry.ts), timestamp_text(last));
            return Err(ChainFault::Time { said, is });
        }
        if (entry.seq == Seq::new(0)) != (entry.kind == Kind::Genesis) {
            return Err(ChainFault::Genesis(entry.kind.clone()));
        }
        Ok(())
    }

    fn take(&mut self, entry: &Examined, past: &mut dyn Past) -> Result<(), ChainFault> {
        let seq = entry.seq;
        match &entry.what {
            What::Opened(genesis) => self.open(genesis, &entry.log),
            What::Activated(snapshot) => self.activate(entry, snapshot),
            What::Decided(decided) => {
                self.check_snapshot(&decided.snapshot)?;
                self.calls.decide(seq, decided);
                if decided.committed {
                    self.committed.add(seq);
                }
                Ok(())
            }
            What::Ended(ended) => self.end(entry, ended, past),
            What::EndedLate(late) => self.end_late(entry, late, past),
            What::KeyChanged(change) => self.keys.change(seq, &entry.log, change),
            What::KeyRetired(retired) => self.keys.retire(seq, retired),
            What::Recovered(recovery) => self.recover(entry, recovery),
            What::Corrected(was) => {
                self.corrections.push((seq, *was));
                Ok(())
            }
            What::Erased(erasure) => self.erase(seq, erasure),
            What::Pruned(pruned) => self.shelf.prune(seq, entry.ts, pruned),
            What::Held(hold) => self.shelf.hold(seq, hold),
            What::Nothing => Ok(()),
        }
    }

    fn open(&mut self, genesis: &GenesisBody, log: &Origin) -> Result<(), ChainFault> {
        if genesis.origin != *log.as_str() {
            let (said, is) = (genesis.origin.clone(), log.clone());
            return Err(ChainFault::OtherLog { said, is });
        }
        self.keys.open(&genesis.public_key, log)
    }

    fn activate(&mut self, entry: &Examined, snapshot: &SnapshotDigests) -> Result<(), ChainFault> {
        let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
        let Revision(said) = snapshot.revision;
        if said != is + 1 {
            return Err(ChainFault::Revision { said, is });
        }
        self.active = Some(*snapshot);
        self.reigns.begin(entry.seq, entry.ts);
        self.shelf.keep_at_least(Shortest::Unknown);
        Ok(())
    }

    fn check_snapshot(&self, said: &SnapshotDigests) -> Result<(), ChainFault> {
        if self.active.as_ref() == Some(said) {
            return Ok(());
        }
        let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
        Err(ChainFault::Superseded { said: said.revision.0, is })
    }

    /// An outcome belongs to one decision, and its attempts went where that allows.
    fn end(
        &mut self,
        entry: &Examined,
        ended: &Ended,
        past: &mut dyn Past,
    ) -> Result<(), ChainFault> {
        let decision = ended.decision.seq;
        let is_here = !self.shelf.removed.has(decision);
        if is_here {
            self.calls.check_decision(decision)?;
        }
        self.check_leaf(&ended.decision, past)?;
        if !self.calls.ended.add(decision) {
            return Err(ChainFault::SecondOutcome(decision));
        }
        if ended.committed {
            self.committed.add(entry.seq);
        }
        if ended.is_unknown() {
            self.unknown.insert(decision, entry.seq);
        }
        let Some(decided) = self.shelf.written(decision).filter(|_| is_here) else {
            self.unpaired += 1;
            return Ok(());
        };
        self.calls.check_outcome(ended, (decided, entry.ts), past)?;
        for attempt in &ended.attempts {
            past.sent(&self.reigns.sent(entry.seq, decision, attempt));
        }
        Ok(())
    }

    /// The leaf of an entry that was read.
    fn leaf_at(&self, seq: Seq, past: &mut dyn Past) -> Option<Digest> {
        let back = self.edge.size().checked_sub(seq.get()).filter(|back| *back > 0)?;
        let recent =
            usize::try_from(back).ok().and_then(|back| self.recent.len().checked_sub(back));
        match recent.and_then(|at| self.recent.get(at)) {
            Some(leaf) => Some(*leaf),
            None => past.leaf(seq),
        }
    }

    fn erase(&mut self, seq: Seq, erasure: &ErasureBody) -> Result<(), ChainFault> {
        for erased in &erasure.erased {
            if !self.committed.has(*erased) && !self.shelf.removed.has(*erased) {
                return Err(ChainFault::Erasure(*erased, "which held none"));
            }
            if !self.erased.add(*erased) {
                return Err(ChainFault::Erasure(*erased, "which were erased before"));
            }
        }
        self.erasures.push((seq, erasure.erased.len() as u64));
        Ok(())
    }

    /// The decision at a position must be the one that is named.
    fn check_leaf(&self, decision: &DecisionRef, past: &mut dyn Past) -> Result<(), ChainFault> {
        if decision.seq >= self.next() {
            return Err(ChainFault::NoDecision(decision.seq));
        }
        if self.leaf_at(decision.seq, past) == Some(decision.leaf) {
            Ok(())
        } else {
            Err(ChainFault::OtherDecision(decision.seq))
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
