//! `lexgate verify`

mod contained;
mod files;
mod folder;
mod recent;
mod recount;
mod replay;
mod report;
mod stream;
mod watch;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Failure, output};
use crate::ledger::{ChainFault, Checkpoint, Finding, Note, Report, Verifier, VerifierKey};
use files::Export;
pub(super) use files::{CHECKPOINT, CONTENTS, WITNESSED};
use replay::Replay;
use watch::Watcher;

/// The stack of a thread that judges, in bytes: policies are trees, and they are walked.
const STACK: usize = 64 << 20;
/// How many files are named that were not checked.
const NAMED: usize = 20;

/// Verify an exported ledger: no server, no secret.
///
/// Checks the checkpoint's signature, the tree, the chain, the sequence, times, kinds, the form of
/// every record, that every decision names the snapshot that was active, that every outcome belongs to
/// one decision and went only where that allows, that what is not here may have been removed, and that
/// the key is the log's. Says what holds and what was not checked, or where the first fault is.
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
    /// Judge every decision again from the snapshot that it pins, and every attempt by the snapshot that
    /// was active when it was sent, and report those that differ.
    #[arg(long)]
    replay: bool,
    /// Do so in this process, not in one of its own.
    #[arg(long, hide = true)]
    contained: bool,
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
    /// Files that belong to nothing that is verified: the first of them, and how many there are.
    others: (Vec<String>, u64),
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.replay && !self.contained {
            return contained::run(self.json);
        }
        let verified =
            if self.contained { contained::within(|| self.verify()) } else { self.verify() };
        output::end_progress();
        match verified {
            Ok(verified) if self.json => report::as_json(&verified),
            Ok(verified) => {
                report::as_text(&verified);
                Ok(())
            }
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
        let mut watcher = Watcher::new(&export, replay.as_ref(), &since, checkpoint.size);
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
        check_whole(&report, &export)?;
        let signed_by = check_keys(&report, &key, &note, &since)?;
        let seen = check_witnesses(&witnesses, cosigned.as_ref())?;
        since.truncate(kept);
        differing.report()?;
        Ok(Verified {
            others: export.others(NAMED, &contents)?,
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
}

/// Verifies an export of a log that has this key.
pub(super) fn check(dir: &Path, key: &str) -> Result<(), Failure> {
    let verify = Verify {
        dir: dir.to_owned(),
        key: key.to_owned(),
        since: Vec::new(),
        witness: Vec::new(),
        replay: false,
        contained: false,
        json: false,
    };
    let verified = verify.verify();
    output::end_progress();
    verified.map(drop)
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

/// Nothing may be missing, or be there twice.
fn check_whole(report: &Report, export: &Export) -> Result<(), Failure> {
    if let Some(seq) = report.missing {
        let finding = Finding { seq, fault: ChainFault::Missing };
        return Err(Failure::Finding(finding.to_string()));
    }
    if let Some((hold, removed, says)) = report.broken_hold {
        return Err(Failure::Finding(format!(
            "entry {says}: says that entry {removed} was removed, which the legal hold of entry {hold} keeps"
        )));
    }
    let Some(id) = report.repeated else { return Ok(()) };
    let places = stream::positions_of(export, id)?;
    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
    Err(Failure::Finding(format!("the entries {} have the same `id`, {id}", places.join(" and "))))
}

/// The given key must be the log's. Its newest key must have signed the checkpoint, and one of its keys each
/// of those that were kept. Gives the keys that have signed the checkpoint and are not retired.
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
    let mut signed_by = verify(note, &keys, "the checkpoint")?;
    signed_by.retain(|key| !report.retired.iter().any(|(retired, _)| retired == key));
    if let Some((newest, since)) = report.keys.last().filter(|(key, _)| !signed_by.contains(key)) {
        return Err(Failure::Finding(format!(
            "the checkpoint is not signed by `{newest}`, the log's key since entry {since}, but by a former one: what a former key signs alone is not the log's. Where the key has just been changed, start every service of the log anew and export again"
        )));
    }
    for (earlier, note) in since {
        verify(note, &keys, &format!("the checkpoint of {} entries", earlier.size))?;
    }
    Ok(signed_by)
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
