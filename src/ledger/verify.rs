//! Whether a row of entries is whole and says nothing against itself. Not who signed it: an entry
//! cut off at the end, or a chain written anew, shows only against a checkpoint.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    ActivationBody, AuditReadBody, DecisionBody, GenesisBody, OutcomeBody,
    entry::{Entry, EntryError, Kind, Origin, leaf_of},
    time::timestamp_text,
};
use crate::domain::{Digest, Revision, Seq, SnapshotDigests};

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("entry {seq}: {fault}")]
pub struct Finding {
    /// The position at which the row stops being what it should.
    pub seq: Seq,
    /// What is wrong there.
    pub fault: ChainFault,
}

/// What can be wrong with a row of entries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// The bytes are not an entry.
    #[error("{0}")]
    Entry(#[from] EntryError),
    /// Another position than the next one.
    #[error("says that it is entry {0}: one was removed, added or moved")]
    Position(Seq),
    /// The entry before it is not the one that it was chained to.
    #[error("was chained to {said}, but the entry before it is {is}: one of the two was changed")]
    Chain {
        /// The leaf hash that the entry names.
        said: String,
        /// The leaf hash of the entry before it.
        is: String,
    },
    /// Another log's entry.
    #[error("belongs to the log `{said}`, not to `{is}`")]
    OtherLog {
        /// The log that it names.
        said: Origin,
        /// The log.
        is: Origin,
    },
    /// An instant before that of the entry before it.
    #[error("was written at {said}, before the entry in front of it ({is})")]
    Time {
        /// When it says that it was written.
        said: String,
        /// When the one before it was.
        is: String,
    },
    /// The log does not begin with a genesis entry, or has another one.
    #[error("a log has one `genesis` entry, its first; here is `{0}`")]
    Genesis(Kind),
    /// The body is not what its kind says.
    #[error("not a body of kind `{kind}`: {error}")]
    Body {
        /// The kind.
        kind: Kind,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
    /// A snapshot was skipped or activated twice.
    #[error("activates revision {said} after revision {is}")]
    Revision {
        /// The revision that it activates.
        said: u64,
        /// The revision before it.
        is: u64,
    },
    /// A decision under another snapshot than the active one.
    #[error("decided under revision {said}, while another snapshot (revision {is}) was active")]
    Superseded {
        /// The revision that it names.
        said: u64,
        /// The active revision.
        is: u64,
    },
    /// An outcome of something that is not a decision before it.
    #[error("is the outcome of entry {0}, which is no decision before it")]
    NoDecision(Seq),
    /// An outcome that names another leaf than its decision's.
    #[error("is the outcome of decision {0}, but names another leaf hash")]
    OtherDecision(Seq),
    /// A second outcome.
    #[error("is a second outcome of decision {decision}; the first is entry {first}")]
    SecondOutcome {
        /// The decision.
        decision: Seq,
        /// Its first outcome.
        first: Seq,
    },
}

/// What was read, when nothing was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log; `None` when there was no entry.
    pub origin: Option<Origin>,
    /// How many entries there are.
    pub entries: u64,
    /// The leaf hash of the last one; zeros when there is none.
    pub leaf: Digest,
    /// When the first and the last were written.
    pub span: Option<(Timestamp, Timestamp)>,
    /// How many of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Decisions that were dispatched and have no outcome. In a log that is still written to, this
    /// is no fault: the calls may be under way.
    pub open: Vec<Seq>,
}

/// Reads a log's entries, from the first one on. Keeps about a hundred bytes for each decision.
#[derive(Clone, Debug)]
pub struct Verifier {
    next: u64,
    leaf: Digest,
    origin: Option<Origin>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    kinds: BTreeMap<Kind, u64>,
    decisions: BTreeMap<Seq, Decided>,
    active: Option<SnapshotDigests>,
}

#[derive(Clone, Debug)]
struct Decided {
    leaf: Digest,
    dispatched: bool,
    outcome: Option<Seq>,
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
            next: 0,
            leaf: Digest::from_bytes([0; 32]),
            origin: None,
            first: None,
            last: None,
            kinds: BTreeMap::new(),
            decisions: BTreeMap::new(),
            active: None,
        }
    }

    /// Reads the next entry.
    ///
    /// # Errors
    /// What is wrong with it. Nothing after it means anything: stop there.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        self.read(bytes).map_err(|fault| Finding { seq: Seq::new(self.next), fault })
    }

    /// What was read.
    #[must_use]
    pub fn finish(self) -> Report {
        let open = |decided: &Decided| decided.dispatched && decided.outcome.is_none();
        Report {
            origin: self.origin,
            entries: self.next,
            leaf: self.leaf,
            span: self.first.zip(self.last),
            kinds: self.kinds,
            open: self.decisions.iter().filter(|(_, d)| open(d)).map(|(seq, _)| *seq).collect(),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), ChainFault> {
        let entry = Entry::parse(bytes)?;
        self.check_place(&entry)?;
        let leaf = leaf_of(bytes);
        self.check_body(&entry, leaf)?;
        self.next += 1;
        self.leaf = leaf;
        self.first.get_or_insert(entry.ts);
        self.last = Some(entry.ts);
        self.origin.get_or_insert(entry.log);
        *self.kinds.entry(entry.kind).or_default() += 1;
        Ok(())
    }

    fn check_place(&self, entry: &Entry<'_>) -> Result<(), ChainFault> {
        if entry.seq.get() != self.next {
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
        if (self.next == 0) != (entry.kind == Kind::Genesis) {
            return Err(ChainFault::Genesis(entry.kind.clone()));
        }
        Ok(())
    }

    fn check_body(&mut self, entry: &Entry<'_>, leaf: Digest) -> Result<(), ChainFault> {
        match &entry.kind {
            Kind::Genesis => {
                let genesis: GenesisBody = body(&entry.kind, entry.body)?;
                match genesis.origin.parse::<Origin>() {
                    Ok(said) if said != entry.log => {
                        Err(ChainFault::OtherLog { said, is: entry.log.clone() })
                    }
                    _ => Ok(()),
                }
            }
            Kind::BundleActivated => self.activate(&body(&entry.kind, entry.body)?),
            Kind::Decision => self.decide(entry.seq, leaf, &body(&entry.kind, entry.body)?),
            Kind::Outcome => self.pair(entry.seq, &body(&entry.kind, entry.body)?),
            Kind::AuditRead => body::<AuditReadBody>(&entry.kind, entry.body).map(drop),
            Kind::Other(_) => Ok(()),
        }
    }

    fn activate(&mut self, activation: &ActivationBody) -> Result<(), ChainFault> {
        let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
        let Revision(said) = activation.snapshot.revision;
        if said != is + 1 {
            return Err(ChainFault::Revision { said, is });
        }
        self.active = Some(activation.snapshot);
        Ok(())
    }

    fn decide(&mut self, seq: Seq, leaf: Digest, body: &DecisionBody) -> Result<(), ChainFault> {
        if self.active != Some(body.snapshot) {
            let Revision(is) = self.active.map_or(Revision(0), |active| active.revision);
            return Err(ChainFault::Superseded { said: body.snapshot.revision.0, is });
        }
        self.decisions.insert(seq, Decided { leaf, dispatched: body.dispatch, outcome: None });
        Ok(())
    }

    fn pair(&mut self, seq: Seq, outcome: &OutcomeBody) -> Result<(), ChainFault> {
        let decision = outcome.decision;
        let Some(decided) = self.decisions.get_mut(&decision.seq) else {
            return Err(ChainFault::NoDecision(decision.seq));
        };
        if decided.leaf != decision.leaf {
            return Err(ChainFault::OtherDecision(decision.seq));
        }
        if let Some(first) = decided.outcome.replace(seq) {
            return Err(ChainFault::SecondOutcome { decision: decision.seq, first });
        }
        Ok(())
    }
}

fn body<T: DeserializeOwned>(kind: &Kind, text: &RawValue) -> Result<T, ChainFault> {
    serde_json::from_str(text.get()).map_err(|error| ChainFault::Body { kind: kind.clone(), error })
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
