//! What `lexgate verify` says of an export that holds: what was checked, and what was not.

use serde_json::{Value, json};

use super::{
    super::{
        Failure,
        output::{self, Paint, paint},
    },
    Verified,
};
use crate::{
    domain::Seq,
    ledger::{Kind, Report, hash_text, timestamp_text},
};

/// Says it for a program.
pub(super) fn as_json(verified: &Verified) -> Result<(), Failure> {
    let Verified { report, checkpoint, signed_by, seen, since, replayed, others, .. } = verified;
    let names: Vec<_> = signed_by.iter().map(ToString::to_string).collect();
    let kinds = report.kinds.iter().map(|(kind, count)| (kind.to_string(), *count));
    output::json(&json!({
        "holds": true,
        "log": checkpoint.origin.as_str(),
        "entries": report.entries,
        "root": checkpoint.root.hex(),
        "leaf": report.leaf.hex(),
        "signed_by": names,
        "kinds": kinds.collect::<std::collections::BTreeMap<_, _>>(),
        "open": report.open,
        "replayed": replayed,
        "witnessed": seen,
        "since": since.iter().map(|earlier| earlier.size).collect::<Vec<_>>(),
        "recoveries": report.recoveries.iter().map(|(seq, _)| seq).collect::<Vec<_>>(),
        "corrections": report.corrections.iter().map(|(seq, _)| seq).collect::<Vec<_>>(),
        "retired": report.retired.iter().map(|(key, seq)| {
            json!({ "record": seq, "vkey": key.to_string() })
        }).collect::<Vec<_>>(),
        "committed": report.committed,
        "erased": under(&report.erasures),
        "pruned": under(&report.pruned),
        "unchecked": {
            "outcomes": report.unpaired,
            "records": unknown(report),
            "files": others.0,
            "more_files": others.1 - others.0.len() as u64,
        },
    }))
}

/// Says it for a person.
pub(super) fn as_text(verified: &Verified) {
    let Verified { report, checkpoint, signed_by, .. } = verified;
    output::line(&paint(Paint::Good, &format!("the log `{}` holds", checkpoint.origin)));
    line(format!("{} entries, each following the one before", report.entries));
    for (seq, count) in report.pruned.iter().filter(|(_, count)| *count > 0) {
        line(format!(
            "  {count:>9} of them are not here: record {seq} says that they were removed because their retention period had ended"
        ));
    }
    for (kind, count) in &report.kinds {
        line(format!("  {count:>9} {kind}"));
    }
    if let Some((first, last)) = report.span {
        line(format!("from {} to {}", timestamp_text(first), timestamp_text(last)));
    }
    line(format!("they make the tree with the root {}", hash_text(&checkpoint.root)));
    for name in signed_by {
        line(format!("whose checkpoint is signed by {name}"));
    }
    for (key, seq) in &report.retired {
        line(format!("record {seq} says that {key} was retired"));
    }
    history(verified);
    calls(verified);
    unchecked(verified);
}

fn history(verified: &Verified) {
    let Verified { report, seen, since, .. } = verified;
    if let Some(greatest) = since.iter().map(|earlier| earlier.size).max() {
        let n = since.len();
        line(format!("it goes on from {n} kept checkpoints, the greatest of {greatest} entries"));
    }
    if let Some(size) = seen {
        line(format!("every given witness has seen it up to {size} entries"));
    }
    if report.committed > 0 {
        let n = report.committed;
        line(format!("{n} records commit to an end user's identifier, or to what a call said"));
    }
    for (seq, count) in &report.erasures {
        line(format!("  {count:>9} of these values were erased, record {seq} says"));
    }
    for (seq, lost) in &report.recoveries {
        output::line(&paint(
            Paint::Bad,
            &format!(
                "  record {seq} says that the log was recovered after a loss: {} entries had been signed before",
                lost.size
            ),
        ));
    }
    for (seq, was) in &report.corrections {
        output::line(&paint(
            Paint::Bad,
            &format!(
                "  record {seq} says that a clock had been wrong: time went back there from {}",
                timestamp_text(*was)
            ),
        ));
    }
}

fn calls(verified: &Verified) {
    let Verified { report, replayed, contents, .. } = verified;
    line(format!(
        "every decision names the snapshot then active; all {contents} contents are here, unchanged"
    ));
    line("every outcome belongs to one decision, and no decision has two");
    line("every attempt went where its decision allows, and after it");
    line(match report.open.len() {
        0 => "every call that the gateway sent has its outcome".to_owned(),
        n => format!(
            "{n} calls have no outcome: they were under way, or their process had just ended"
        ),
    });
    if let Some(n) = replayed {
        line(format!(
            "{n} decisions, judged again, come out the same; each was made, and each attempt sent, while a snapshot was valid that allows it"
        ));
    }
}

/// What nobody should take for checked.
fn unchecked(verified: &Verified) {
    let Verified { report, seen, since, replayed, others: (names, count), .. } = verified;
    let line = |text: String| output::line(&paint(Paint::Dim, &format!("  {text}")));
    if replayed.is_none() {
        line("not judged again: `--replay` does that with the policies in the export".to_owned());
    }
    if report.pruned.iter().any(|(_, count)| *count > 0) {
        line("not checked: what was removed; that it was old enough is known only as far as the entries around it tell, and from its archive".to_owned());
    }
    if report.unpaired > 0 {
        let n = report.unpaired;
        line(format!("not checked: where {n} outcomes were sent, whose decisions are not here"));
    }
    let n = unknown(report);
    if n > 0 {
        line(format!(
            "not checked: what {n} records say, of kinds that this version does not know"
        ));
    }
    for name in names {
        line(format!("not checked: the file `{name}`, which belongs to no export"));
    }
    if *count > names.len() as u64 {
        line(format!("not checked: {} more such files", count - names.len() as u64));
    }
    if since.is_empty() && seen.is_none() {
        line("whether this is all of the log, only a checkpoint kept elsewhere can tell: `--since FILE`".to_owned());
    }
}

fn line(text: impl AsRef<str>) {
    output::line(&format!("  {}", text.as_ref()));
}

/// How many records are of kinds that this version does not know.
fn unknown(report: &Report) -> u64 {
    let is_unknown = |kind: &Kind| matches!(kind, Kind::Other(_));
    report.kinds.iter().filter(|(kind, _)| is_unknown(kind)).map(|(_, count)| count).sum()
}

/// Under which records how many things were done.
fn under(records: &[(Seq, u64)]) -> Vec<Value> {
    records.iter().map(|(seq, count)| json!({ "record": seq, "count": count })).collect()
}
