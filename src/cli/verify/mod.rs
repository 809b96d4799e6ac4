//! `lexgate verify`

mod files;
mod recount;
mod replay;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    output::{self, Paint, paint},
};
use crate::{
    domain::{Digest, Seq, SnapshotDigests},
    ledger::{
        ChainFault, Checkpoint, Finding, Note, Report, Verifier, VerifierKey, hash_text,
        timestamp_text,
    },
};
use files::Export;
pub(super) use files::{CHECKPOINT, CONTENTS, WITNESSED};
use replay::Replay;

/// How many decisions that differ are named.
const NAMED: usize = 20;

/// Verify an exported ledger: no server, no secret.
///
/// Checks the checkpoint's signature, the tree, the chain, the sequence, times, kinds, the form of
/// every record, that every outcome belongs to one decision and every decision to the snapshot that
/// was active, and that the key is the log's. Says what holds, or where the first fault is.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The folder that `lexgate export` wrote.
    dir: PathBuf,
    /// The log's verifier key, as `lexgate init` printed it.
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// A file of checkpoints of the log that you kept: the export must go on from each. May be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
    /// A witness, by its verifier key, that must have cosigned the log. May be given several times.
    #[arg(long, value_name = "VKEY")]
    witness: Vec<String>,
    /// Judge every decision again from the snapshot that it pins, and report those that differ.
    #[arg(long)]
    replay: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// All that was found to hold.
struct Verified {
    report: Report,
    checkpoint: Checkpoint,
    /// Whose signatures on the checkpoint hold.
    signed_by: Vec<VerifierKey>,
    /// How many entries the witnesses have seen, where they were asked for.
    seen: Option<u64>,
    /// The earlier checkpoints that the log goes on from.
    since: Vec<Checkpoint>,
    replayed: Option<u64>,
    contents: usize,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let verified = self.verify();
        output::end_progress();
        match verified {
            Ok(verified) => self.report(&verified),
            Err(failure) => {
                if self.json {
                    output::json(&json!({ "holds": false, "fault": failure.to_string() }))?;
                }
                Err(failure)
            }
        }
    }

    fn verify(&self) -> Result<Verified, Failure> {
        let key = self.vkey("--key", &self.key)?;
        let witnesses = self.witness.iter().map(|text| self.vkey("--witness", text));
        let witnesses = witnesses.collect::<Result<Vec<_>, _>>()?;
        let (export, checkpoint, note) = Export::open(&self.dir)?;
        let mut since = Vec::new();
        for path in &self.since {
            let kept = files::read_checkpoints(path)?;
            if kept.is_empty() {
                let path = path.display();
                return Err(Failure::Usage(format!("--since: `{path}` holds no checkpoint")));
            }
            since.extend(kept);
        }
        let kept = since.len();
        let cosigned = export.cosigned()?;
        since.extend(cosigned.clone());
        for (earlier, _) in &since {
            if earlier.size > checkpoint.size {
                return Err(Failure::Finding(format!(
                    "the log has {} entries; a checkpoint that was kept says {}: entries are missing",
                    checkpoint.size, earlier.size
                )));
            }
        }
        let replay = self.replay.then(|| Replay::of(&export));
        let mut watcher = Watcher {
            export: &export,
            since: by_size(&since),
            size: checkpoint.size,
            contents: BTreeSet::new(),
            differing: Vec::new(),
        };
        watcher.held_against(&Verifier::new())?;
        let verifier = stream::read(&export, replay.as_ref(), &mut watcher)?;
        export.check_nothing_beyond()?;
        let Watcher { contents, mut differing, .. } = watcher;
        let report = verifier.finish();
        // Of what was removed nobody can count what left.
        let is_whole = report.pruned.iter().all(|(_, count)| *count == 0);
        if let Some(replay) = replay.as_ref().filter(|_| is_whole) {
            differing.extend(replay.miscounted());
        }
        check_tree(&report, &checkpoint)?;
        if let Some(seq) = report.missing {
            let finding = Finding { seq, fault: ChainFault::Missing };
            return Err(Failure::Finding(finding.to_string()));
        }
        let signed_by = check_keys(&report, &key, &note, &since)?;
        let seen = check_witnesses(&witnesses, cosigned.as_ref())?;
        since.truncate(kept);
        if !differing.is_empty() {
            return Err(Failure::Finding(differing_text(&differing)));
        }
        Ok(Verified {
            replayed: replay.map(|replay| replay.judged()),
            since: since.into_iter().map(|(checkpoint, _)| checkpoint).collect(),
            contents: contents.len(),
            report,
            checkpoint,
            signed_by,
            seen,
        })
    }

    #[expect(clippy::unused_self, reason = "reads like the other steps")]
    fn vkey(&self, option: &str, text: &str) -> Result<VerifierKey, Failure> {
        text.parse().map_err(|error| Failure::Usage(format!("{option}: {error}")))
    }

    fn report(&self, verified: &Verified) -> Result<(), Failure> {
        let Verified { report, checkpoint, signed_by, seen, since, replayed, contents } = verified;
        let names: Vec<_> = signed_by.iter().map(ToString::to_string).collect();
        let kinds = report.kinds.iter().map(|(kind, count)| (kind.to_string(), *count));
        if self.json {
            return output::json(&json!({
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
                "committed": report.committed,
                "erased": under(&report.erasures),
                "pruned": under(&report.pruned),
            }));
        }
        let line = |text: String| output::line(&format!("  {text}"));
        output::line(&paint(Paint::Good, &format!("the log `{}` holds", checkpoint.origin)));
        line(format!("{} entries, none missing, each following the one before", report.entries));
        for (seq, count) in report.pruned.iter().filter(|(_, count)| *count > 0) {
            line(format!(
                "  {count:>9} of them removed under record {seq}, their time being over: only their leaves are here"
            ));
        }
        for (kind, count) in kinds {
            line(format!("  {count:>9} {kind}"));
        }
        if let Some((first, last)) = report.span {
            line(format!("from {} to {}", timestamp_text(first), timestamp_text(last)));
        }
        line(format!("they make the tree with the root {}", hash_text(&checkpoint.root)));
        for name in names {
            line(format!("whose checkpoint is signed by {name}"));
        }
        if let Some(greatest) = since.iter().map(|earlier| earlier.size).max() {
            let n = since.len();
            line(format!(
                "it goes on from {n} kept checkpoints, the greatest of {greatest} entries"
            ));
        }
        if let Some(size) = seen {
            line(format!("every given witness has seen it up to {size} entries"));
        }
        line(format!(
            "every decision was made by the snapshot then active; all {contents} contents are here, unchanged"
        ));
        line("every outcome belongs to one decision, and no decision has two".to_owned());
        line(match report.open.len() {
            0 => "every call that the gateway sent has its outcome".to_owned(),
            n => format!(
                "{n} calls have no outcome yet: they were under way, or their process had just ended"
            ),
        });
        if report.committed > 0 {
            let n = report.committed;
            line(format!("{n} records commit to an end user's identifier, or to what a call said"));
        }
        for (seq, count) in &report.erasures {
            line(format!("  {count:>9} of these values were erased under record {seq}"));
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
        match replayed {
            Some(n) => line(format!("{n} decisions, judged again, come out the same")),
            None => output::line(&paint(
                Paint::Dim,
                "  not judged again: `--replay` does that with the policies in the export",
            )),
        }
        if since.is_empty() && seen.is_none() {
            output::line(&paint(
                Paint::Dim,
                "  whether this is all of the log, only a checkpoint kept elsewhere can tell: `--since FILE`",
            ));
        }
        Ok(())
    }
}

/// Verifies an export of a log that has this key.
pub(super) fn check(dir: &Path, key: &str) -> Result<(), Failure> {
    let verify = Verify {
        dir: dir.to_owned(),
        key: key.to_owned(),
        since: Vec::new(),
        witness: Vec::new(),
        replay: false,
        json: false,
    };
    let verified = verify.verify();
    output::end_progress();
    verified.map(drop)
}

/// Under which records how many things were done.
fn under(records: &[(Seq, u64)]) -> Vec<serde_json::Value> {
    records.iter().map(|(seq, count)| json!({ "record": seq, "count": count })).collect()
}

/// The tree of the entries must be the one that was signed.
fn check_tree(report: &Report, checkpoint: &Checkpoint) -> Result<(), Failure> {
    if report.origin.as_ref().is_some_and(|origin| *origin != checkpoint.origin) {
        return Err(Failure::Finding(format!(
            "the checkpoint is of the log `{}`, the entries are not",
            checkpoint.origin
        )));
    }
    if report.root == checkpoint.root {
        return Ok(());
    }
    Err(Failure::Finding(format!(
        "the {} entries make another tree than the checkpoint says: history was rewritten, or the checkpoint was changed",
        report.entries
    )))
}

/// Every witness must have cosigned the checkpoint that they were shown. Gives its size.
fn check_witnesses(
    witnesses: &[VerifierKey],
    cosigned: Option<&(Checkpoint, Note)>,
) -> Result<Option<u64>, Failure> {
    if witnesses.is_empty() {
        return Ok(None);
    }
    let Some((checkpoint, note)) = cosigned else {
        return Err(Failure::Finding("no witness has cosigned this log".to_owned()));
    };
    for witness in witnesses {
        note.verify(std::slice::from_ref(witness)).map_err(|error| {
            Failure::Finding(format!("the witness `{}`: {error}", witness.name()))
        })?;
    }
    Ok(Some(checkpoint.size))
}

/// Roots by the size of their trees.
fn by_size(checkpoints: &[(Checkpoint, Note)]) -> BTreeMap<u64, Vec<Digest>> {
    let mut roots: BTreeMap<u64, Vec<Digest>> = BTreeMap::new();
    for (checkpoint, _) in checkpoints {
        roots.entry(checkpoint.size).or_default().push(checkpoint.root);
    }
    roots
}

/// The given key must be the log's, and one of the log's keys must have signed each checkpoint. Gives
/// the keys that have signed the last.
fn check_keys(
    report: &Report,
    key: &VerifierKey,
    note: &Note,
    since: &[(Checkpoint, Note)],
) -> Result<Vec<VerifierKey>, Failure> {
    let keys: Vec<_> = report.keys.iter().map(|(key, _)| key.clone()).collect();
    if !keys.contains(key) {
        let first = keys.first().map(ToString::to_string).unwrap_or_default();
        return Err(Failure::Finding(format!(
            "entry 0: the log was opened with the key `{first}`, not `{key}`"
        )));
    }
    // What is endorsed by the given key, or endorsed it, is the log's too.
    let verify = |note: &Note, keys: &[VerifierKey], what: &str| {
        let signed =
            note.verify(keys).map_err(|error| Failure::Finding(format!("{what}: {error}")));
        signed.map(|signed| signed.into_iter().cloned().collect::<Vec<_>>())
    };
    let signed_by = verify(note, &keys, "the checkpoint")?;
    for (earlier, note) in since {
        verify(note, &keys, &format!("the checkpoint of {} entries", earlier.size))?;
    }
    Ok(signed_by)
}

fn differing_text(differing: &[String]) -> String {
    let mut text = format!("{} decisions come out otherwise when judged again:", differing.len());
    for line in differing.iter().take(NAMED) {
        text = format!("{text}\n  {line}");
    }
    if differing.len() > NAMED {
        text = format!("{text}\n  … and {} more", differing.len() - NAMED);
    }
    text
}

/// Looks at each entry as it comes.
struct Watcher<'a> {
    export: &'a Export,
    since: BTreeMap<u64, Vec<Digest>>,
    size: u64,
    contents: BTreeSet<Digest>,
    differing: Vec<String>,
}

impl Watcher<'_> {
    /// Holds the tree read so far against the checkpoints of its size.
    fn held_against(&self, verifier: &Verifier) -> Result<(), Failure> {
        let size = verifier.edge().size();
        let Some(roots) = self.since.get(&size) else { return Ok(()) };
        let root = verifier.edge().root();
        if roots.iter().all(|kept| *kept == root) {
            return Ok(());
        }
        Err(Failure::Finding(format!(
            "the first {size} entries are not those of the checkpoint that was kept: history was rewritten"
        )))
    }

    fn check_contents(&mut self, pinned: &SnapshotDigests) -> Result<(), String> {
        for digest in [pinned.bundle, pinned.facts, pinned.organisation, pinned.registers] {
            if self.contents.insert(digest) {
                self.export.content(digest)?;
            }
        }
        Ok(())
    }
}

impl stream::Watch for Watcher<'_> {
    fn entry(
        &mut self,
        verifier: &Verifier,
        activated: Option<SnapshotDigests>,
    ) -> Result<(), Failure> {
        if let Some(pinned) = activated {
            let seq = verifier.edge().size() - 1;
            self.check_contents(&pinned)
                .map_err(|what| Failure::Finding(format!("entry {seq}: {what}")))?;
        }
        self.held_against(verifier)
    }

    fn bundle(&mut self, verifier: &Verifier, differing: Vec<String>) {
        self.differing.extend(differing);
        output::progress(&format!("{} of {} entries hold", verifier.edge().size(), self.size));
    }
}

/// Whether a folder holds an export of the log that begins with this entry.
pub(super) fn begins_with(dir: &Path, genesis: &[u8]) -> bool {
    let Ok((export, ..)) = Export::open(dir) else { return false };
    let mut bundle = Vec::new();
    if export.bundle(0, &mut bundle).is_err() {
        return false;
    }
    let entries = crate::ledger::read_bundle(&bundle).unwrap_or_default();
    entries.first().is_some_and(|first| *first == genesis)
}
