//! Decisions judged again: from the snapshot that each pins, by this version of the policy engine. And
//! attempts, by the snapshots that were active when they were sent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{STACK, files::Export, recent::Recent, recount::Recount};
use crate::{
    domain::{CallRequest, Digest, Seq, SnapshotDigests, Verdict},
    facts::{Proposal, Snapshot},
    gate::{How, Judge},
    ledger::{
        DecisionBody, Entry, Kind, LateOutcomeBody, OutcomeBody, SentAttempt, timestamp_text,
    },
    source::SourceFile,
};

/// How many snapshots are kept ready to judge, and how many files they are made from.
const READY: usize = 8;
/// How long the policies and facts of a snapshot may take to be read.
const PATIENCE: Duration = Duration::from_secs(120);

type Shared<K, V> = Mutex<Recent<K, Result<V, String>>>;

/// Judges from an export's contents.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    export: &'a Export,
    proposals: Shared<(Digest, Digest), Proposal>,
    judges: Shared<SnapshotDigests, Arc<Judge>>,
    /// What each activation made active, and until when that was valid.
    active: Mutex<BTreeMap<Seq, (SnapshotDigests, Timestamp)>>,
    judged: AtomicU64,
    recount: Recount,
}

impl<'a> Replay<'a> {
    pub(super) fn of(export: &'a Export) -> Self {
        Self {
            export,
            proposals: Mutex::new(Recent::of(READY)),
            judges: Mutex::new(Recent::of(READY)),
            active: Mutex::default(),
            judged: AtomicU64::new(0),
            recount: Recount::default(),
        }
    }

    /// Takes an activation: what it pins must be what its files amount to at that instant. Gives until when
    /// that is so.
    pub(super) fn activate(
        &self,
        seq: Seq,
        ts: Timestamp,
        pinned: &SnapshotDigests,
    ) -> Result<Timestamp, String> {
        let proposal = self.proposal(pinned)?;
        let until = proposal.validity(ts, pinned).map_err(|error| error.to_string())?;
        let until = until.ok_or_else(|| {
            "activates facts or instruments that its files do not amount to at that instant, by this version: verify with the version that `genesis` names".to_owned()
        })?;
        lock(&self.active).insert(seq, (*pinned, until));
        Ok(until)
    }

    /// What is wrong with an attempt: that no snapshot by which it may have been sent lets it go there.
    /// `decision` gives the entry of its decision.
    pub(super) fn sent(
        &self,
        attempt: &SentAttempt<'_>,
        decision: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<String> {
        let SentAttempt { started, own, .. } = *attempt;
        let active = |seq: &Seq| lock(&self.active).get(seq).copied();
        let valid: Vec<_> = attempt
            .activations
            .iter()
            .filter_map(|seq| active(seq).map(|(pinned, until)| (*seq, pinned, until)))
            .filter(|(_, _, until)| started < *until)
            .collect();
        if valid.iter().any(|(seq, ..)| *seq == own) {
            return None;
        }
        let fault = |why: String| {
            let SentAttempt { outcome, decision, deployment, .. } = attempt;
            let at = timestamp_text(started);
            Some(format!(
                "entry {outcome}: the attempt at `{deployment}` for decision {decision} was sent at {at}, {why}"
            ))
        };
        if valid.is_empty() {
            return fault("when no snapshot was valid".to_owned());
        }
        let Some(entry) = decision() else {
            return fault("and its decision cannot be read".to_owned());
        };
        let mut last = None;
        for (_, pinned, _) in valid {
            match self.allows(&entry, &pinned, attempt) {
                Ok(true) => return None,
                Ok(false) => {
                    last = Some(format!("when revision {} did not allow it", pinned.revision.0));
                }
                Err(error) => last = Some(format!("and cannot be judged: {error}")),
            }
        }
        fault(last.unwrap_or_default())
    }

    /// Whether a snapshot lets the call of a decision go to the same deployment at the same places.
    fn allows(
        &self,
        entry: &[u8],
        pinned: &SnapshotDigests,
        attempt: &SentAttempt<'_>,
    ) -> Result<bool, String> {
        let entry = Entry::parse(entry).map_err(|error| error.to_string())?;
        let recorded: DecisionBody =
            serde_json::from_str(entry.body.get()).map_err(|error| error.to_string())?;
        let judge = self.judge(pinned, attempt.started)?;
        let request = CallRequest::from(&recorded.call);
        // A call that names what is not there any more goes nowhere.
        let Ok(judged) = judge.judge_afresh(&recorded.caller.app, &request, &recorded.reached)
        else {
            return Ok(false);
        };
        let was = recorded.candidates.iter().find(|one| one.deployment == *attempt.deployment);
        Ok(judged.evaluation.candidates.iter().any(|now| {
            now.decision == Verdict::Allow
                && was.is_some_and(|was| {
                    was.deployment == now.deployment && was.placement == now.placement
                })
        }))
    }

    /// How many decisions were judged again.
    pub(super) fn judged(&self) -> u64 {
        self.judged.load(Ordering::Relaxed)
    }

    /// Decisions whose thresholds are not what the whole log amounts to.
    pub(super) fn miscounted(&self) -> Vec<String> {
        self.recount.differing()
    }

    /// What is otherwise when the decision in `entry` is judged again; nothing for what is no
    /// decision, or no entry.
    pub(super) fn differs(&self, entry: &[u8]) -> Option<String> {
        let entry = Entry::parse(entry).ok()?;
        if entry.kind == Kind::Outcome {
            let outcome: OutcomeBody = serde_json::from_str(entry.body.get()).ok()?;
            self.recount.outcome(entry.seq, outcome);
        }
        if entry.kind == Kind::LateOutcome {
            let late: LateOutcomeBody = serde_json::from_str(entry.body.get()).ok()?;
            self.recount.outcome(entry.seq, late.into());
        }
        if entry.kind != Kind::Decision {
            return None;
        }
        let recorded: DecisionBody = serde_json::from_str(entry.body.get()).ok()?;
        let difference = self.difference(entry.seq, &recorded, entry.ts);
        self.judged.fetch_add(1, Ordering::Relaxed);
        difference.map(|difference| format!("entry {}: {difference}", entry.seq))
    }

    fn difference(&self, seq: Seq, recorded: &DecisionBody, ts: Timestamp) -> Option<String> {
        let judge = match self.judge(&recorded.snapshot, ts) {
            Ok(judge) => judge,
            Err(error) => return Some(error),
        };
        let request = CallRequest::from(&recorded.call);
        self.recount.decision(seq, ts, recorded, &request, judge.snapshot());
        let how = How {
            dispatch: recorded.dispatch,
            reached: recorded.reached.clone(),
            // Which of the allowed deployments was well at the time is no matter of law.
            preferred: recorded.route.as_ref().map(|route| route.deployment.clone()),
        };
        let decided = match judge.decide(&recorded.caller, &request, &how) {
            Ok(decided) => decided,
            Err(error) => return Some(format!("cannot be judged: {error}")),
        };
        let again = DecisionBody {
            engine: recorded.engine.clone(),
            evaluation_us: recorded.evaluation_us,
            user_commitment: recorded.user_commitment,
            ..DecisionBody::clone(&decided.body)
        };
        if again == *recorded {
            return None;
        }
        if again.decision != recorded.decision {
            let (was, is) = (recorded.decision.as_str(), again.decision.as_str());
            return Some(format!("was `{was}`, is `{is}`"));
        }
        let parts = [
            ("call", again.call != recorded.call),
            ("route", again.route != recorded.route),
            ("candidates", again.candidates != recorded.candidates),
            ("reasons", again.reasons != recorded.reasons),
            ("duties", again.duties != recorded.duties),
            ("instruments", again.instruments != recorded.instruments),
            ("errors", again.errors != recorded.errors),
            ("retention", again.retention != recorded.retention),
            ("dispatch", again.dispatch != recorded.dispatch),
        ];
        let parts: Vec<_> = parts.iter().filter(|(_, differs)| *differs).map(|(p, _)| *p).collect();
        Some(format!("the decision is the same, but not its {}", parts.join(", ")))
    }

    /// The judge of a snapshot, which is what its files amount to at `ts`.
    fn judge(&self, pinned: &SnapshotDigests, ts: Timestamp) -> Result<Arc<Judge>, String> {
        // Others wait: what is dear is made once.
        lock(&self.judges).get_or_make(pinned, || {
            let (proposal, pinned) = (self.proposal(pinned)?, *pinned);
            in_time(move || {
                let snapshot = Snapshot::at(&proposal, ts, pinned.revision)
                    .map_err(|error| format!("its snapshot cannot be built: {error}"))?;
                if snapshot.digests != pinned {
                    return Err("this version makes another snapshot of the same contents: verify with the version that `genesis` names".to_owned());
                }
                Ok(Arc::new(Judge::new(Arc::new(snapshot))))
            })
        })
    }

    /// What the files that a snapshot pins say.
    fn proposal(&self, pinned: &SnapshotDigests) -> Result<Proposal, String> {
        let SnapshotDigests { bundle, organisation, .. } = *pinned;
        lock(&self.proposals).get_or_make(&(bundle, organisation), || {
            let bundle = self.export.content(bundle)?;
            let organisation = self.export.content(organisation)?;
            in_time(move || read_proposal(&bundle, organisation))
        })
    }
}

fn read_proposal(bundle: &[u8], organisation: Vec<u8>) -> Result<Proposal, String> {
    let unreadable = |what: &str| format!("the {what} of its snapshot cannot be read");
    let texts: BTreeMap<String, String> =
        serde_json::from_slice(bundle).map_err(|_| unreadable("bundle"))?;
    let files: Vec<_> = texts.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
    let text = String::from_utf8(organisation).map_err(|_| unreadable("organisation"))?;
    Proposal::recorded(&files, &SourceFile::new("organisation.toml", &text))
        .map_err(|faults| format!("{}: {faults}", unreadable("bundle or organisation")))
}

/// Does what somebody else's files may make long or deep: on a stack of its own, and not for ever.
fn in_time<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (send, answer) = mpsc::channel();
    let thread = thread::Builder::new().stack_size(STACK);
    thread
        .spawn(move || drop(send.send(make())))
        .map_err(|error| format!("its snapshot cannot be built: {error}"))?;
    answer.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        Err(format!("its snapshot cannot be built within {} seconds", PATIENCE.as_secs()))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
