//! `lexgate explain --record`: a decision of the ledger, explained by what decided it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::json;

use super::{existing_store, refused, show};
use crate::{
    app::AppError,
    cli::{
        Failure, output,
        output::{Paint, paint},
    },
    config::Config,
    domain::{CallRequest, Clock as _, PolicyId, Seq, SnapshotDigests, SystemClock, Verdict},
    facts::{Proposal, Snapshot},
    gate::{GateError, Judge},
    http::ExplainAnswer,
    ledger::{DecisionBody, Entry, Kind, timestamp_text, to_micros},
    source::SourceFile,
    store::Store,
};

/// Explains the decision at `seq`, and says what would be decided of the same call now.
pub(in crate::cli) async fn explain(
    config: &Config,
    seq: Seq,
    as_json: bool,
) -> Result<(), Failure> {
    let store = existing_store(config).await?;
    let Some(store) = store else {
        let message = "the configured store does not exist yet, or its tables are missing or old";
        return Err(Failure::Environment(message.to_owned()));
    };
    let (recorded, ts) = decision(&*store, seq).await?;
    let call = CallRequest::from(&recorded.call);
    let app = &recorded.caller.app;

    let then = judge(&*store, &recorded.snapshot, ts).await?;
    let explanation = then.explain(app, &call, &recorded.reached).map_err(refused)?;
    let answer = ExplainAnswer::new(&explanation, recorded.snapshot);
    if answer.decision != recorded.decision {
        let was = recorded.decision.as_str();
        let message = format!(
            "the record says `{was}`, and this version judges otherwise: explain it with the version that the record's `engine` names"
        );
        return Err(Failure::Finding(message));
    }
    let now = now(&*store, &recorded, &call).await?;
    if as_json {
        return output::json(&json!({
            "record": seq,
            "decided_at": timestamp_text(ts),
            "explanation": answer,
            "now": now.json(&recorded),
        }));
    }
    output::line(&paint(Paint::Dim, &format!("record {seq}, decided {}", timestamp_text(ts))));
    show(&answer);
    output::line(&now.words(&recorded));
    Ok(())
}

/// What would be decided now.
enum Now {
    Decided {
        decision: Verdict,
        policies: Vec<PolicyId>,
        revision: u64,
    },
    /// The call names what is no longer there.
    Refused(String),
}

impl Now {
    fn is_same(&self, recorded: &DecisionBody) -> bool {
        matches!(self, Self::Decided { decision, policies, .. }
            if *decision == recorded.decision && *policies == policies_of(recorded))
    }

    fn json(&self, recorded: &DecisionBody) -> serde_json::Value {
        let same = self.is_same(recorded);
        match self {
            Self::Decided { decision, policies, revision } => json!({
                "same": same, "decision": decision, "policies": policies, "revision": revision,
            }),
            Self::Refused(why) => json!({ "same": same, "refused": why }),
        }
    }

    fn words(&self, recorded: &DecisionBody) -> String {
        match self {
            Self::Decided { revision, .. } if self.is_same(recorded) => {
                format!("now, under revision {revision}: the same")
            }
            Self::Decided { decision, policies, revision } => {
                let policies: Vec<&str> = policies.iter().map(PolicyId::as_str).collect();
                let (decision, policies) = (decision.as_str(), policies.join(", "));
                format!("now, under revision {revision}: {decision}, by {policies}")
            }
            Self::Refused(why) => format!("now: the call cannot be judged: {why}"),
        }
    }
}

fn policies_of(recorded: &DecisionBody) -> Vec<PolicyId> {
    let mut policies: Vec<_> =
        recorded.reasons.iter().map(|reason| reason.policy.clone()).collect();
    policies.sort();
    policies.dedup();
    policies
}

/// The same call before the active snapshot, with all that left up to now.
async fn now(
    store: &dyn Store,
    recorded: &DecisionBody,
    call: &CallRequest,
) -> Result<Now, Failure> {
    let app = &recorded.caller.app;
    let active = store.active().await.map_err(AppError::from)?;
    let Some(active) = active else {
        return Ok(Now::Refused("no snapshot is active".to_owned()));
    };
    let instant = to_micros(SystemClock.now());
    let judge = judge(store, &active.snapshot, instant).await?;
    let keys = judge.count_keys(app, call, instant);
    let counts = store.exported(&keys).await.map_err(AppError::from)?;
    // An allowed call is among what was counted.
    let reached = match recorded.decision {
        Verdict::Allow => judge.reached_again(app, call, &counts, instant),
        Verdict::Deny => judge.reached(app, call, &counts, instant),
    };
    match judge.judge_afresh(app, call, &reached) {
        Ok(judged) => {
            let mut policies: Vec<_> =
                judged.evaluation.reasons.iter().map(|reason| reason.policy.clone()).collect();
            policies.sort();
            policies.dedup();
            let revision = active.snapshot.revision.0;
            Ok(Now::Decided { decision: judged.evaluation.decision, policies, revision })
        }
        Err(faults) => {
            let said = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
            Ok(Now::Refused(said.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The decision at `seq`, and when it was recorded.
async fn decision(store: &dyn Store, seq: Seq) -> Result<(DecisionBody, Timestamp), Failure> {
    let is_position = i64::try_from(seq.get()).is_ok();
    let stored = if is_position { store.record(seq).await.map_err(AppError::from)? } else { None };
    let Some(stored) = stored else {
        return Err(Failure::Usage(format!("there is no record {seq}")));
    };
    if stored.entry.is_empty() {
        return Err(Failure::Usage(format!(
            "the body of record {seq} was removed: its time was over"
        )));
    }
    let unreadable = || Failure::Finding(format!("record {seq} cannot be read"));
    let entry = Entry::parse(&stored.entry).map_err(|_| unreadable())?;
    if entry.kind != Kind::Decision {
        return Err(Failure::Usage(format!(
            "record {seq} is not a decision, but `{}`",
            entry.kind
        )));
    }
    let body = serde_json::from_str(entry.body.get()).map_err(|_| unreadable())?;
    Ok((body, entry.ts))
}

/// The judge of a snapshot, from the contents that the store keeps.
async fn judge(
    store: &dyn Store,
    pinned: &SnapshotDigests,
    instant: Timestamp,
) -> Result<Judge, Failure> {
    let corrupt = || Failure::from(AppError::from(GateError::Corrupt));
    let bundle = store.content(pinned.bundle).await.map_err(AppError::from)?;
    let organisation = store.content(pinned.organisation).await.map_err(AppError::from)?;
    let (Some(bundle), Some(organisation)) = (bundle, organisation) else {
        return Err(corrupt());
    };
    let texts: BTreeMap<String, String> = serde_json::from_slice(&bundle).map_err(|_| corrupt())?;
    let files: Vec<_> = texts.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
    let organisation = String::from_utf8(organisation).map_err(|_| corrupt())?;
    let organisation = SourceFile::new("organisation.toml", &organisation);
    let proposal = Proposal::recorded(&files, &organisation)?;
    let snapshot = Snapshot::at(&proposal, instant, pinned.revision)
        .map_err(|error| Failure::Finding(crate::cli::chain(&error)))?;
    Ok(Judge::new(Arc::new(snapshot)))
}
