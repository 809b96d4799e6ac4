//! Whether a row of entries is whole and says nothing against itself, and the tree that it makes. Not
//! whether that tree was signed: an entry cut off at the end, or a chain written anew, shows only
//! against a checkpoint.
//!
//! In two steps: what an entry says by itself ([`examine`]), which any number of threads can do, and
//! whether it follows what was before it ([`Verifier::follow`]), one after the other.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    ActivationBody, AuditReadBody, DecisionBody, DecisionRef, GenesisBody, KeyChangeBody,
    OutcomeBody, RecoveryBody, TreeHead,
    checkpoint::Checkpoint,
    entry::{Entry, Kind, Origin, leaf_of},
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
}

/// What an entry says by itself: its form, its kind's shape, its leaf hash.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Its leaf hash.
    pub leaf: Digest,
    /// The leaf hash that it names for the entry before it.
    pub prev: Digest,
    /// Its kind.
    pub kind: Kind,
    seq: Seq,
    ts: Timestamp,
    log: Origin,
    what: What,
}

impl Examined {
    /// The snapshot that it activates, if it does.
    #[must_use]
    pub fn activated(&self) -> Option<&SnapshotDigests> {
        match &self.what {
            What::Activated(snapshot) => Some(snapshot),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
enum What {
    Opened(Box<GenesisBody>),
    Activated(Box<SnapshotDigests>),
    Decided { snapshot: Box<SnapshotDigests>, dispatched: bool },
    Ended(DecisionRef),
    KeyChanged(Box<KeyChangeBody>),
    Recovered(Box<RecoveryBody>),
    Nothing,
}

/// Reads one entry by itself.
///
/// # Errors
/// What is wrong with it.
pub fn examine(bytes: &[u8]) -> Result<Examined, ChainFault> {
    let entry = Entry::parse(bytes)?;
    let (kind, text) = (&entry.kind, entry.body);
    let what = match kind {
        Kind::Genesis => What::Opened(Box::new(body(kind, text)?)),
        Kind::BundleActivated => {
            let activation: ActivationBody = body(kind, text)?;
            What::Activated(Box::new(activation.snapshot))
        }
        Kind::Decision => {
            let decision: DecisionBody = body(kind, text)?;
            let dispatched = decision.dispatch;
            What::Decided { snapshot: Box::new(decision.snapshot), dispatched }
        }
        Kind::Outcome => What::Ended(body::<OutcomeBody>(kind, text)?.decision),
        Kind::KeyChanged => What::KeyChanged(Box::new(body(kind, text)?)),
        Kind::LedgerRecovered => What::Recovered(Box::new(body(kind, text)?)),
        Kind::AuditRead => {
            body::<AuditReadBody>(kind, text)?;
            What::Nothing
        }
        Kind::Other(_) => What::Nothing,
    };
    let Entry { prev, seq, ts, log, kind, .. } = entry;
    Ok(Examined { leaf: leaf_of(bytes), prev, kind, seq, ts, log, what })
}

/// The text by which a log's key endorses the next one.
#[must_use]
pub fn endorsement(origin: &Origin, key: &VerifierKey) -> String {
    format!("lexgate key change\n{origin}\n{key}\n")
}

/// Reads a log's entries, from the first one on. Keeps three bits of each, and some megabytes.
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
    edge: Edge,
    /// The last leaves, the oldest first.
    recent: VecDeque<Digest>,
    decisions: Bits,
    dispatched: Bits,
    ended: Bits,
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
    fn without(&self, others: &Self) -> Vec<Seq> {
        let all = (0..64 * self.0.len() as u64).map(Seq::new);
        all.filter(|seq| self.has(*seq) && !others.has(*seq)).collect()
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
            edge: Edge::default(),
            recent: VecDeque::new(),
            decisions: Bits::default(),
            dispatched: Bits::default(),
            ended: Bits::default(),
        }
    }

    /// Reads the next entry, of a log that is not long.
    ///
    /// # Errors
    /// What is wrong with it. Nothing after it means anything: stop there.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        let seq = self.next();
        let examined = examine(bytes).map_err(|fault| Finding { seq, fault })?;
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
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(examined.leaf);
        Ok(self.edge.extend([examined.leaf]))
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
            open: self.dispatched.without(&self.ended),
            keys: self.keys,
            recoveries: self.recoveries,
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
            What::Decided { snapshot, dispatched } => self.decide(entry.seq, snapshot, *dispatched),
            What::Ended(decision) => self.pair(decision, older),
            What::KeyChanged(change) => self.change_key(entry, change),
            What::Recovered(recovery) => self.recover(entry, recovery),
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

    fn decide(
        &mut self,
        seq: Seq,
        snapshot: &SnapshotDigests,
        dispatched: bool,
    ) -> Result<(), ChainFault> {
        if self.active.as_ref() != Some(snapshot) {
            let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
            return Err(ChainFault::Superseded { said: snapshot.revision.0, is });
        }
        self.decisions.add(seq);
        if dispatched {
            self.dispatched.add(seq);
        }
        Ok(())
    }

    fn pair(
        &mut self,
        decision: &DecisionRef,
        older: &mut dyn FnMut(Seq) -> Option<Digest>,
    ) -> Result<(), ChainFault> {
        if !self.decisions.has(decision.seq) {
            return Err(ChainFault::NoDecision(decision.seq));
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

fn body<T: DeserializeOwned>(kind: &Kind, text: &RawValue) -> Result<T, ChainFault> {
    serde_json::from_str(text.get()).map_err(|error| ChainFault::Body { kind: kind.clone(), error })
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
