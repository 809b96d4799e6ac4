//! What an entry says by itself: its form, its kind's shape, its leaf hash. Not whether it follows the
//! entries before it ([`crate::ledger::verify`]).

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::shape;
use crate::{
    domain::{DeploymentId, Digest, Retention, Seq, SnapshotDigests, Verdict},
    ledger::{
        ActivationBody, Attempt, AuditReadBody, ClockCorrectedBody, DecisionBody, DecisionRef,
        ErasureBody, GenesisBody, KeyChangeBody, KeyRetiredBody, LateOutcomeBody, LegalHoldBody,
        OutcomeBody, OutcomeStatus, PrunedBody, RecoveryBody, RefusedBody,
        commitment::before_commitment,
        entry::{ENTRY_LIMIT, Entry, Kind, Origin, leaf_of},
        fault::ChainFault,
        retention::kept_months,
    },
};

/// What stands in front of an entry's body.
const OPEN: &[u8] = b"{\"body\":";
/// How far from an entry's end what follows the body begins, at most: the longest origin and kind, and
/// some room.
const TAIL: usize = 700;
/// How many bytes of bodies are remembered.
const REMEMBERED: usize = 8 << 20;

/// What an outcome must agree with, of its decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::ledger) struct Terms {
    pub(in crate::ledger) is_allowed: bool,
    /// Whether Lexgate sends the call.
    pub(in crate::ledger) is_dispatched: bool,
    /// Where it may go.
    pub(in crate::ledger) open: Box<[DeploymentId]>,
    pub(in crate::ledger) retention: Retention,
}

/// An entry that was read by itself.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Its leaf hash.
    pub leaf: Digest,
    /// The leaf hash that it names for the entry before it.
    pub prev: Digest,
    /// Its kind.
    pub kind: Kind,
    pub(in crate::ledger) id: Uuid,
    pub(in crate::ledger) seq: Seq,
    pub(in crate::ledger) ts: Timestamp,
    pub(in crate::ledger) log: Origin,
    /// For how many months it is kept; `None` for ever.
    pub(in crate::ledger) months: Option<u32>,
    pub(in crate::ledger) what: What,
}

impl Examined {
    /// The snapshot that it activates, if it does.
    #[must_use]
    pub fn activated(&self) -> Option<SnapshotDigests> {
        match &self.what {
            What::Activated(snapshot) => Some(**snapshot),
            _ => None,
        }
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// When it was written.
    #[must_use]
    pub const fn ts(&self) -> Timestamp {
        self.ts
    }
}

/// What an entry says that others must agree with.
#[derive(Clone, Debug)]
pub(in crate::ledger) enum What {
    Opened(Arc<GenesisBody>),
    Activated(Arc<SnapshotDigests>),
    Decided(Decided),
    Ended(Box<Ended>),
    EndedLate(Box<EndedLate>),
    KeyChanged(Arc<KeyChangeBody>),
    KeyRetired(Arc<KeyRetiredBody>),
    Recovered(Arc<RecoveryBody>),
    /// The log's time goes back from this one.
    Corrected(Timestamp),
    Erased(Arc<ErasureBody>),
    Pruned(Arc<PrunedBody>),
    Held(Arc<LegalHoldBody>),
    Nothing,
}

/// A decision.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Decided {
    pub(in crate::ledger) snapshot: Arc<SnapshotDigests>,
    pub(in crate::ledger) terms: Arc<Terms>,
    /// Whether it holds a commitment to a person's identifier.
    pub(in crate::ledger) committed: bool,
}

/// An outcome.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Ended {
    pub(in crate::ledger) decision: DecisionRef,
    pub(in crate::ledger) status: OutcomeStatus,
    pub(in crate::ledger) attempts: Vec<Attempt>,
    /// The deployments that were passed over.
    pub(in crate::ledger) skipped: Vec<DeploymentId>,
    pub(in crate::ledger) retention: Retention,
    /// Whether it holds a commitment to what the call said.
    pub(in crate::ledger) committed: bool,
}

impl Ended {
    /// Whether it says nothing: another process than the one that sent the call wrote it.
    pub(in crate::ledger) fn is_unknown(&self) -> bool {
        self.status == OutcomeStatus::Unknown && self.attempts.is_empty()
    }
}

/// A late outcome.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct EndedLate {
    /// The outcome to which it adds.
    pub(in crate::ledger) outcome: DecisionRef,
    pub(in crate::ledger) ended: Ended,
}

/// Reads entries by themselves, one after the other. Remembers the bodies of decisions: apps make the
/// same call again and again, and a body that is the same byte for byte says the same.
#[derive(Debug, Default)]
pub struct Examiner {
    known: HashMap<Box<[u8]>, Decided, RandomState>,
    /// How long they are together.
    bytes: usize,
}

impl Examiner {
    /// Reads one entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn examine(&mut self, bytes: &[u8]) -> Result<Examined, ChainFault> {
        match self.known(bytes) {
            Some(examined) => Ok(examined),
            None => self.afresh(bytes),
        }
    }

    /// Reads an entry whose body is known; `None` when it is not, or when anything is wrong.
    fn known(&self, bytes: &[u8]) -> Option<Examined> {
        let (body, tail) = split(bytes)?;
        let (body, committed) = match before_commitment(body) {
            Some(head) => (head, true),
            None => (body, false),
        };
        let known = if committed {
            self.known.get(&[body, b"}"].concat()[..])?
        } else {
            self.known.get(body)?
        };
        // An object in canonical form is exchanged for another one: what is left is canonical if,
        // and only if, all of it was.
        let short = [OPEN, b"{}", tail].concat();
        let entry = Entry::parse(&short).ok()?;
        let decided = Decided { committed, ..known.clone() };
        let is_decision = entry.kind == Kind::Decision;
        is_decision.then(|| examined(&entry, leaf_of(bytes), What::Decided(decided)))
    }

    fn afresh(&mut self, bytes: &[u8]) -> Result<Examined, ChainFault> {
        let entry = Entry::parse(bytes)?;
        let what = what(&entry)?;
        if let What::Decided(decided) = &what {
            let body = entry.body.get().as_bytes();
            let body: Box<[u8]> = match before_commitment(body) {
                Some(head) => [head, b"}"].concat().into(),
                None => body.into(),
            };
            if self.bytes + body.len() > REMEMBERED {
                self.known.clear();
                self.bytes = 0;
            }
            self.bytes += body.len();
            self.known.insert(body, decided.clone());
        }
        Ok(examined(&entry, leaf_of(bytes), what))
    }
}

fn examined(entry: &Entry<'_>, leaf: Digest, what: What) -> Examined {
    let Entry { id, prev, seq, ts, .. } = *entry;
    let months = match &what {
        What::Decided(decided) => decided.terms.retention.months,
        What::Ended(ended) => ended.retention.months,
        What::EndedLate(late) => late.ended.retention.months,
        _ => kept_months(entry),
    };
    let (kind, log) = (entry.kind.clone(), entry.log.clone());
    Examined { leaf, prev, kind, id, seq, ts, log, months, what }
}

/// What an entry says that was examined before.
pub(in crate::ledger) fn read_again(bytes: &[u8]) -> Result<What, ChainFault> {
    what(&Entry::parse(bytes)?)
}

/// An entry's body, and what follows it. Where a text has the look of an entry's but is none, they
/// are not what they seem.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.len() > ENTRY_LIMIT {
        return None;
    }
    let rest = bytes.strip_prefix(OPEN)?;
    let far = rest.len().saturating_sub(TAIL);
    let near = rest.get(far..)?;
    let follows = |window: &[u8]| matches!(window, [b',', b'"', b'i', b'd', b'"', b':', b'"']);
    let at = near.windows(7).rposition(follows)?;
    rest.split_at_checked(far + at)
}

fn what(entry: &Entry<'_>) -> Result<What, ChainFault> {
    let (kind, text) = (&entry.kind, entry.body);
    Ok(match kind {
        Kind::Genesis => What::Opened(Arc::new(body(kind, text)?)),
        Kind::BundleActivated => {
            What::Activated(Arc::new(body::<ActivationBody>(kind, text)?.snapshot))
        }
        Kind::Decision => What::Decided(decided(body(kind, text)?)?),
        Kind::Outcome => What::Ended(Box::new(ended(kind, body(kind, text)?)?)),
        Kind::LateOutcome => {
            let late: LateOutcomeBody = body(kind, text)?;
            let outcome = late.outcome;
            What::EndedLate(Box::new(EndedLate { outcome, ended: ended(kind, late.into())? }))
        }
        Kind::KeyChanged => What::KeyChanged(Arc::new(body(kind, text)?)),
        Kind::KeyRetired => What::KeyRetired(Arc::new(body(kind, text)?)),
        Kind::LedgerRecovered => What::Recovered(Arc::new(body(kind, text)?)),
        Kind::ClockCorrected => What::Corrected(body::<ClockCorrectedBody>(kind, text)?.was),
        Kind::Erasure => What::Erased(Arc::new(body(kind, text)?)),
        Kind::SegmentPruned => What::Pruned(Arc::new(body(kind, text)?)),
        Kind::AuditRead => nothing(body::<AuditReadBody>(kind, text)?),
        Kind::LegalHold => What::Held(Arc::new(body(kind, text)?)),
        Kind::Refused => nothing(body::<RefusedBody>(kind, text)?),
        Kind::Other(_) => What::Nothing,
    })
}

fn decided(body: DecisionBody) -> Result<Decided, ChainFault> {
    shape::of_decision(&body)
        .map_err(|what| ChainFault::Contradiction { kind: Kind::Decision, what })?;
    let open = body.candidates.into_iter().filter(|one| one.decision == Verdict::Allow);
    Ok(Decided {
        snapshot: Arc::new(body.snapshot),
        terms: Arc::new(Terms {
            is_allowed: body.decision == Verdict::Allow,
            is_dispatched: body.dispatch,
            open: open.map(|candidate| candidate.deployment).collect(),
            retention: body.retention,
        }),
        committed: body.user_commitment.is_some(),
    })
}

fn ended(kind: &Kind, body: OutcomeBody) -> Result<Ended, ChainFault> {
    shape::of_outcome(&body)
        .map_err(|what| ChainFault::Contradiction { kind: kind.clone(), what })?;
    Ok(Ended {
        decision: body.decision,
        status: body.status,
        skipped: body.skipped.into_iter().map(|one| one.deployment).collect(),
        attempts: body.attempts,
        retention: body.retention,
        committed: body.input_commitment.is_some() || body.output_commitment.is_some(),
    })
}

/// The shape is right, and nothing else depends on it.
fn nothing<T>(_: T) -> What {
    What::Nothing
}

fn body<T: DeserializeOwned>(kind: &Kind, text: &RawValue) -> Result<T, ChainFault> {
    serde_json::from_str(text.get()).map_err(|error| ChainFault::Body { kind: kind.clone(), error })
}
