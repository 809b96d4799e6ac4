//! Decisions judged again: from the snapshot that each pins, by this version of the policy engine.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;

use super::{files::Export, recount::Recount};
use crate::{
    domain::{Call, CallRequest, DataRequest, Seq, SnapshotDigests, SourceFile},
    facts::{Proposal, Snapshot},
    gate::{How, Judge},
    ledger::{DecisionBody, Entry, Kind, OutcomeBody},
};

type Judges = HashMap<String, Result<Arc<Judge>, String>>;

/// Judges from an export's contents.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    export: &'a Export,
    judges: Mutex<Judges>,
    judged: AtomicU64,
    recount: Recount,
}

impl<'a> Replay<'a> {
    pub(super) fn of(export: &'a Export) -> Self {
        Self {
            export,
            judges: Mutex::default(),
            judged: AtomicU64::new(0),
            recount: Recount::default(),
        }
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
        let request = request(&recorded.call);
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

    /// The judge of a snapshot, made once.
    fn judge(&self, pinned: &SnapshotDigests, ts: Timestamp) -> Result<Arc<Judge>, String> {
        let name = format!("{pinned:?}");
        let mut judges = self.judges.lock().unwrap_or_else(PoisonError::into_inner);
        judges.entry(name).or_insert_with(|| self.load(pinned, ts)).clone()
    }

    /// A dated fact that begins or ends makes a snapshot of its own, so the facts at the time of any
    /// decision under it are its facts.
    fn load(&self, pinned: &SnapshotDigests, ts: Timestamp) -> Result<Arc<Judge>, String> {
        let bundle = self.export.content(pinned.bundle)?;
        let organisation = self.export.content(pinned.organisation)?;
        let unreadable = |what: &str| format!("the {what} of its snapshot cannot be read");
        let texts: BTreeMap<String, String> =
            serde_json::from_slice(&bundle).map_err(|_| unreadable("bundle"))?;
        let files: Vec<_> = texts.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
        let text = String::from_utf8(organisation).map_err(|_| unreadable("organisation"))?;
        let proposal = Proposal::recorded(&files, SourceFile::new("organisation.toml", &text))
            .map_err(|faults| format!("{}: {faults}", unreadable("bundle or organisation")))?;
        let snapshot = Snapshot::at(&proposal, ts, pinned.revision)
            .map_err(|error| format!("its snapshot cannot be built: {error}"))?;
        if snapshot.digests != *pinned {
            return Err("this version makes another snapshot of the same contents: verify with the version that `genesis` names".to_owned());
        }
        Ok(Arc::new(Judge::new(Arc::new(snapshot))))
    }
}

/// The question that resolves to `call`.
fn request(call: &Call) -> CallRequest {
    let texts = |codes: &[crate::domain::JurisdictionCode]| {
        codes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    CallRequest {
        action: call.action,
        model: call.model.clone(),
        deployment: call.deployment.as_ref().map(ToString::to_string),
        data: call.data.as_ref().map(|data| DataRequest {
            personal: data.personal,
            categories: data.categories.clone(),
            subjects: texts(&data.subjects),
            subject_count: Some(data.subject_count),
            location: data.location.as_ref().map(ToString::to_string),
        }),
        passes: call.passes.clone(),
        purpose: call.purpose.clone(),
        audience: Some(texts(&call.audience)),
        location: Some(call.location.to_string()),
        end_user: None,
    }
}
