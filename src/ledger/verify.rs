//! Whether a row of entries is whole and says nothing against itself, and the tree that it makes. Not
//! whether that tree was signed: an entry cut off at the end, or a chain written anew, shows only
//! against a checkpoint.
//!
//! In two steps: what an entry says by itself ([`Examiner`]), which any number of threads can do, and
//! whether it follows what was before it ([`Verifier::follow`]), one after the other.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::{
    DecisionRef, ErasureBody, GenesisBody, KeyChangeBody, PrunedBody, RecoveryBody, SeqRange,
    TreeHead,
    checkpoint::Checkpoint,
    entry::{Kind, Origin},
    examine::{Decided, Ended, Examined, Examiner, What},
    fault::{ChainFault, Finding},
    note::{Note, VerifierKey},
    tile::Tile,
    time::timestamp_text,
    tree::Edge,
};
use crate::domain::{Digest, Revision, Seq, SnapshotDigests};

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
}

/// The text by which a log's key endorses the next one.
#[must_use]
pub fn endorsement(origin: &Origin, key: &VerifierKey) -> String {
    format!("lexgate key change\n{origin}\n{key}\n")
}

/// Reads a log's entries, from the first one on. Keeps eight bits of each, and some megabytes.
#[derive(Debug)]
pub struct Verifier {
    leaf: Digest,
    origin: Option<Origin>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    kinds: BTreeMap<Kind, u64>,
    active: Option<SnapshotDigests>,
    keys: Vec<(VerifierKey, Seq)>,
    recoveries: Vec<(Seq, Checkpoint)>,
    corrections: Vec<(Seq, Timestamp)>,
    edge: Edge,
    /// The last leaves, the oldest first.
    recent: VecDeque<Digest>,
    decisions: Bits,
    denied: Bits,
    dispatched: Bits,
    ended: Bits,
    committed: Bits,
    erased: Bits,
    erasures: Vec<(Seq, u64)>,
    /// Those whose bodies are not here.
    removed: Bits,
    /// Those of them that a record says were removed.
    explained: Bits,
    pruned: Vec<(Seq, u64)>,
    examiner: Examiner,
}

/// A set of positions.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, seq: Seq) -> bool {
        let word = usize::try_from(seq.get() / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word >> (seq.get() % 64) & 1 == 1)
    }

    /// Adds a position. Whether it is new.
    fn add(&mut self, seq: Seq) -> bool {
        let at = usize::try_from(seq.get() / 64).unwrap_or(usize::MAX);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let is_new = !self.has(seq);
        if let Some(word) = self.0.get_mut(at) {
            *word |= 1 << (seq.get() % 64);
        }
        is_new
    }

    /// Those that are not in `others`.
    fn without(&self, others: &Self) -> impl Iterator<Item = Seq> {
        let all = (0..64 * self.0.len() as u64).map(Seq::new);
        all.filter(|seq| self.has(*seq) && !others.has(*seq))
    }

    /// Adds what of a range is in `others`. How many are new.
    fn take_from(&mut self, others: &Self, range: SeqRange) -> u64 {
        self.0.resize(self.0.len().max(others.0.len()), 0);
        let (first, last) = (range.first.get(), range.last.get());
        let words = usize::try_from(first / 64).unwrap_or(usize::MAX)
            ..usize::try_from(last / 64 + 1).unwrap_or(usize::MAX).min(others.0.len());
        let mut count = 0;
        for at in words {
            let start = 64 * at as u64;
            let low = u64::MAX << first.saturating_sub(start).min(63);
            let high = u64::MAX >> (start + 63).saturating_sub(last).min(63);
            let theirs = others.0.get(at).copied().unwrap_or_default() & low & high;
            if let Some(ours) = self.0.get_mut(at) {
                count += u64::from((theirs & !*ours).count_ones());
                *ours |= theirs;
            }
        }
        count
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
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
            keys: Vec::new(),
            recoveries: Vec::new(),
            corrections: Vec::new(),
            edge: Edge::default(),
            recent: VecDeque::new(),
            decisions: Bits::default(),
            denied: Bits::default(),
            dispatched: Bits::default(),
            ended: Bits::default(),
            committed: Bits::default(),
            erased: Bits::default(),
            erasures: Vec::new(),
            removed: Bits::default(),
            explained: Bits::default(),
            pruned: Vec::new(),
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
        self.follow(examined, &mut |_| None).map(drop)
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

    /// Takes the next entry. Gives the tiles of the tree that it has filled, or made grow. `older` gives
    /// the leaf of an entry that was read more than 65,536 entries ago.
    ///
    /// # Errors
    /// What is wrong with it. Nothing after it means anything: stop there.
    pub fn follow(
        &mut self,
        examined: Examined,
        older: &mut dyn FnMut(Seq) -> Option<Digest>,
    ) -> Result<Vec<Tile>, Finding> {
        let seq = self.next();
        self.check_place(&examined)
            .and_then(|()| self.take(&examined, older))
            .map_err(|fault| Finding { seq, fault })?;
        self.leaf = examined.leaf;
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
        self.removed.add(self.next());
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
    pub fn finish(self) -> Report {
        Report {
            entries: self.edge.size(),
            root: self.edge.root(),
            origin: self.origin,
            leaf: self.leaf,
            span: self.first.zip(self.last),
            kinds: self.kinds,
            open: self.dispatched.without(&self.ended).collect(),
            committed: self.committed.count(),
            missing: self.removed.without(&self.explained).next(),
            keys: self.keys,
            recoveries: self.recoveries,
            corrections: self.corrections,
            erasures: self.erasures,
            pruned: self.pruned,
        }
    }

    fn check_place(&self, entry: &Examined) -> Result<(), ChainFault> {
        if entry.seq != self.next() {
            return Err(ChainFault::Position(entry.seq));
        }
        if entry.prev != self.leaf {
            return Err(ChainFault::Chain { said: entry.prev.hex(), is: self.leaf.hex() });
        }
        if let Some(origin) = self.origin.as_ref().filter(|origin| **origin != entry.log) {
            return Err(ChainFault::OtherLog { said: entry.log.clone(), is: origin.clone() });
        }
        if let (What::Corrected(was), Some(last)) = (&entry.what, self.last) {
            // Where the entry in front of it was removed, its time is not known, but what it followed.
            let is_gone = self.removed.has(Seq::new(entry.seq.get().saturating_sub(1)));
            if (*was == last || (is_gone && *was > last)) && entry.ts <= *was {
                return Ok(());
            }
            let [said, to, is] = [*was, entry.ts, last].map(timestamp_text);
            return Err(ChainFault::Correction { said, to, is });
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

    fn take(
        &mut self,
        entry: &Examined,
        older: &mut dyn FnMut(Seq) -> Option<Digest>,
    ) -> Result<(), ChainFault> {
        match &entry.what {
            What::Opened(genesis) => self.open(genesis, &entry.log),
            What::Activated(snapshot) => self.activate(snapshot),
            What::Decided(decided) => self.decide(entry.seq, decided),
            What::Ended(ended) => self.end(entry.seq, ended, older),
            What::KeyChanged(change) => self.change_key(entry, change),
            What::Recovered(recovery) => self.recover(entry, recovery),
            What::Corrected(was) => {
                self.corrections.push((entry.seq, *was));
                Ok(())
            }
            What::Erased(erasure) => self.erase(entry.seq, erasure),
            What::Pruned(pruned) => self.prune(entry.seq, pruned),
            What::Nothing => Ok(()),
        }
    }

    fn open(&mut self, genesis: &GenesisBody, log: &Origin) -> Result<(), ChainFault> {
        match genesis.origin.parse::<Origin>() {
            Ok(said) if said != *log => {
                return Err(ChainFault::OtherLog { said, is: log.clone() });
            }
            _ => {}
        }
        let key = genesis.public_key.parse();
        let key = key.map_err(|_| ChainFault::Key("the text is no verifier key"))?;
        self.keys.push((key, Seq::new(0)));
        Ok(())
    }

    fn activate(&mut self, snapshot: &SnapshotDigests) -> Result<(), ChainFault> {
        let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
        let Revision(said) = snapshot.revision;
        if said != is + 1 {
            return Err(ChainFault::Revision { said, is });
        }
        self.active = Some(*snapshot);
        Ok(())
    }

    fn decide(&mut self, seq: Seq, decided: &Decided) -> Result<(), ChainFault> {
        if self.active.as_ref() != Some(&*decided.snapshot) {
            let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
            return Err(ChainFault::Superseded { said: decided.snapshot.revision.0, is });
        }
        self.decisions.add(seq);
        if !decided.allowed {
            self.denied.add(seq);
        }
        if decided.dispatched {
            self.dispatched.add(seq);
        }
        if decided.committed {
            self.committed.add(seq);
        }
        Ok(())
    }

    fn end(
        &mut self,
        seq: Seq,
        ended: &Ended,
        older: &mut dyn FnMut(Seq) -> Option<Digest>,
    ) -> Result<(), ChainFault> {
        self.pair(&ended.decision, older)?;
        if ended.committed {
            self.committed.add(seq);
        }
        Ok(())
    }

    fn erase(&mut self, seq: Seq, erasure: &ErasureBody) -> Result<(), ChainFault> {
        for erased in &erasure.erased {
            if !self.committed.has(*erased) && !self.removed.has(*erased) {
                return Err(ChainFault::Erasure(*erased, "which held none"));
            }
            if !self.erased.add(*erased) {
                return Err(ChainFault::Erasure(*erased, "which were erased before"));
            }
        }
        self.erasures.push((seq, erasure.erased.len() as u64));
        Ok(())
    }

    /// What was removed can still be here: in a copy that was made before.
    fn prune(&mut self, seq: Seq, pruned: &PrunedBody) -> Result<(), ChainFault> {
        let (mut gone, mut next) = (0, Seq::new(0));
        for range in &pruned.removed {
            if range.first < next || range.first > range.last || range.last >= seq {
                return Err(ChainFault::Pruned(*range));
            }
            next = Seq::new(range.last.get() + 1);
            gone += self.explained.take_from(&self.removed, *range);
        }
        self.pruned.push((seq, gone));
        Ok(())
    }

    fn pair(
        &mut self,
        decision: &DecisionRef,
        older: &mut dyn FnMut(Seq) -> Option<Digest>,
    ) -> Result<(), ChainFault> {
        if !self.decisions.has(decision.seq) && !self.removed.has(decision.seq) {
            return Err(ChainFault::NoDecision(decision.seq));
        }
        if self.denied.has(decision.seq) {
            return Err(ChainFault::OfDenial(decision.seq));
        }
        let back = self.edge.size() - decision.seq.get();
        let recent =
            usize::try_from(back).ok().and_then(|back| self.recent.len().checked_sub(back));
        let leaf = match recent.and_then(|at| self.recent.get(at)) {
            Some(leaf) => Some(*leaf),
            None => older(decision.seq),
        };
        if leaf != Some(decision.leaf) {
            return Err(ChainFault::OtherDecision(decision.seq));
        }
        if self.ended.add(decision.seq) {
            Ok(())
        } else {
            Err(ChainFault::SecondOutcome(decision.seq))
        }
    }

    /// Only a key of the log says which key comes next.
    fn change_key(&mut self, entry: &Examined, change: &KeyChangeBody) -> Result<(), ChainFault> {
        let fault = ChainFault::Key;
        let former =
            self.keys.last().map(|(key, _)| key).filter(|key| key.to_string() == change.former);
        let former = former.ok_or(fault("the former key is not the log's"))?;
        let key: VerifierKey =
            change.public_key.parse().map_err(|_| fault("the text is no verifier key"))?;
        let note = Note::parse(&change.endorsement);
        let note = note.map_err(|_| fault("the endorsement is no signed note"))?;
        if note.text() != endorsement(&entry.log, &key) {
            return Err(fault("the endorsement names another key"));
        }
        note.verify(std::slice::from_ref(former))
            .map_err(|_| fault("the former key has not signed the endorsement"))?;
        self.keys.push((key, entry.seq));
        Ok(())
    }

    fn recover(&mut self, entry: &Examined, recovery: &RecoveryBody) -> Result<(), ChainFault> {
        let fault = ChainFault::Recovery;
        let found = TreeHead { root: self.edge.root(), size: self.edge.size() };
        if recovery.found != found {
            return Err(fault("but it was found as another tree than the one before the record"));
        }
        let note = Note::parse(&recovery.lost);
        let lost = note.and_then(|note| {
            let keys: Vec<_> = self.keys.iter().map(|(key, _)| key.clone()).collect();
            note.verify(&keys)?;
            Checkpoint::read(&note)
        });
        let lost = lost.map_err(|_| fault("but what was lost is no checkpoint of this log"))?;
        self.recoveries.push((entry.seq, lost));
        Ok(())
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
