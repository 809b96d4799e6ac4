//! `lexgate verify`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    Failure, export,
    output::{self, Paint, paint},
};
use crate::{
    domain::Digest,
    ledger::{
        ActivationBody, Entry, GenesisBody, Kind, Report, TILE_WIDTH, Verifier, read_bundle,
        timestamp_text,
    },
};

/// Verify an exported ledger: no server, no secret.
///
/// Checks the chain, the sequence, times, kinds, the form of every record, that every outcome
/// belongs to one decision and every decision to the snapshot that was active, and that the key is
/// the one with which the log was opened.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The folder that `lexgate export` wrote.
    dir: PathBuf,
    /// The log's verifier key, as `lexgate init` printed it.
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.verify() {
            Ok(report) => self.report(&report),
            Err(failure) => {
                output::end_progress();
                if self.json {
                    output::json(&json!({ "holds": false, "fault": failure.to_string() }))?;
                }
                Err(failure)
            }
        }
    }

    fn verify(&self) -> Result<Report, Failure> {
        let mut verifier = Verifier::new();
        let (mut bundle, mut last_is_whole) = (0, true);
        while last_is_whole {
            let Some(bytes) = export::bundle(&self.dir, bundle)? else { break };
            let entries = read_bundle(&bytes).map_err(|error| {
                Failure::Finding(format!("bundle {bundle} cannot be read: {error}"))
            })?;
            last_is_whole = entries.len() == TILE_WIDTH;
            for entry in &entries {
                verifier.push(entry).map_err(|finding| Failure::Finding(finding.to_string()))?;
                self.check_contents(entry)?;
            }
            bundle += 1;
            output::progress(&format!("{} entries hold", bundle * TILE_WIDTH as u64));
        }
        output::end_progress();
        let report = verifier.finish();
        if report.entries == 0 {
            let dir = self.dir.display();
            return Err(Failure::Finding(format!(
                "`{dir}` holds no entries: `lexgate export` writes them"
            )));
        }
        Ok(report)
    }

    /// The key of the genesis must be the one that was given; pinned contents must be there.
    fn check_contents(&self, bytes: &[u8]) -> Result<(), Failure> {
        let Ok(entry) = Entry::parse(bytes) else { return Ok(()) };
        let finding = |what: String| Failure::Finding(format!("entry {}: {what}", entry.seq));
        match entry.kind {
            Kind::Genesis => {
                let body: GenesisBody = serde_json::from_str(entry.body.get())
                    .map_err(|error| finding(error.to_string()))?;
                if body.public_key == self.key {
                    return Ok(());
                }
                Err(finding(format!(
                    "the log was opened with the key `{}`, not `{}`",
                    body.public_key, self.key
                )))
            }
            Kind::BundleActivated => {
                let body: ActivationBody = serde_json::from_str(entry.body.get())
                    .map_err(|error| finding(error.to_string()))?;
                let snapshot = body.snapshot;
                let pinned =
                    [snapshot.bundle, snapshot.facts, snapshot.organisation, snapshot.registers];
                pinned.iter().try_for_each(|digest| self.check_content(*digest).map_err(finding))
            }
            _ => Ok(()),
        }
    }

    fn check_content(&self, digest: Digest) -> Result<(), String> {
        let path = self.dir.join(export::CONTENTS).join(digest.hex());
        match std::fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(()),
            Ok(_) => Err(format!("the content of {digest} has been changed")),
            Err(error) => Err(format!("the content of {digest} cannot be read: {error}")),
        }
    }

    fn report(&self, report: &Report) -> Result<(), Failure> {
        let origin = report.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        let kinds = report.kinds.iter().map(|(kind, count)| (kind.to_string(), *count));
        if self.json {
            return output::json(&json!({
                "holds": true,
                "log": origin,
                "entries": report.entries,
                "leaf": report.leaf.hex(),
                "kinds": kinds.collect::<std::collections::BTreeMap<_, _>>(),
                "open": report.open,
            }));
        }
        output::line(&paint(Paint::Good, &format!("the log `{origin}` holds")));
        output::line(&format!(
            "  {} entries, none missing, each following the one before",
            report.entries
        ));
        for (kind, count) in kinds {
            output::line(&format!("    {count:>9} {kind}"));
        }
        if let Some((first, last)) = report.span {
            output::line(&format!("  from {} to {}", timestamp_text(first), timestamp_text(last)));
        }
        output::line(
            "  every decision was made by the snapshot then active; its contents are here, unchanged",
        );
        output::line("  every outcome belongs to one decision, and no decision has two");
        match report.open.len() {
            0 => output::line("  every call that the gateway sent has its outcome"),
            n => output::line(&format!(
                "  {n} calls have no outcome yet: they were under way, or their process had just ended"
            )),
        }
        output::line("  the log names the key that was given as its own");
        output::line(&format!("  last leaf {}", report.leaf.hex()));
        output::line(&paint(
            Paint::Dim,
            "  not checked: signatures, which this version does not write; compare the last leaf with a copy that you trust",
        ));
        Ok(())
    }
}
