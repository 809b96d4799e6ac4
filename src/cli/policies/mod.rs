//! `lexgate policies`

mod draft;
mod explain;
mod fmt;
mod new;
mod test;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

use super::{
    ConfigFile, Failure,
    output::{self, count},
    watch,
};
use crate::{
    app, config,
    config::Config,
    domain::{Clock, Effect, Revision, SystemClock},
    facts::{Proposal, Snapshot, Upkeep},
    source::{Faults, SourceFile},
};

/// Work on policies.
#[derive(Debug, Subcommand)]
pub(super) enum Policies {
    /// Parse and validate policies and facts, and check every name in them.
    Check(Check),
    /// Judge the cases of the policy folder.
    Test(self::test::Test),
    /// Say what a policy demands, on which dated facts it rests, and which cases show it.
    Explain(self::explain::About),
    /// Lay policies out in Cedar's own style.
    Fmt(self::fmt::Fmt),
    /// Write a template that already passes, to be made into the law that you read.
    #[command(subcommand)]
    New(self::new::New),
}

/// Parse and validate policies and facts, and check every name in them.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The policy folder; the configuration's unless given.
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Also fail where a fact has to be looked at again: its `review_by` is past, or it states none.
    ///
    /// A fact without a source, a day on which it was checked and a confidence is refused always. Facts
    /// that are over need no review. Facts of one file that were read from the same source are one fault.
    #[arg(long)]
    strict_sources: bool,
    /// Check as of this day (UTC), such as 2027-05-22, or this instant, instead of now.
    #[arg(long, value_name = "DATE", value_parser = super::instant)]
    at: Option<Timestamp>,
    /// Print JSON.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Check again after every change of the policy folder, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// What a check found, where there is no fault.
#[derive(Debug)]
struct Checked {
    proposal: Proposal,
    snapshot: Snapshot,
    upkeep: Upkeep,
    /// Files of the folder that are no policies.
    not_taken: Vec<String>,
    /// What this machine's configuration lacks for it to be served.
    lacking: Faults,
}

/// A policy folder, and the organisation whose names its policies may use.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    pub(super) organisation: SourceFile,
    /// The configuration that names it.
    config: Option<Config>,
}

impl Folder {
    /// `dir`, or what the configuration names. The organisation is read where a configuration names
    /// it: whoever writes policies alone needs none.
    pub(super) fn find(dir: Option<&Path>, config: &ConfigFile) -> Result<Self, Faults> {
        let config = config.config.exists().then(|| Config::load(&config.config)).transpose()?;
        let organisation = match &config {
            Some(config) => config::read_file(&config.organisation.file)?,
            None => SourceFile::new("organisation.toml", ""),
        };
        let policies = config.as_ref().map(|config| config.policies.clone());
        let configured = policies.unwrap_or_default().dir;
        Ok(Self { dir: dir.map_or(configured, Path::to_owned), organisation, config })
    }

    /// The organisation, where there is one.
    pub(super) fn own(&self) -> Option<&SourceFile> {
        self.config.as_ref().map(|_| &self.organisation)
    }
}

impl Policies {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Explain(about) => about.run(),
            Self::Fmt(fmt) => fmt.run(),
            Self::New(new) => new.run(),
        }
    }
}

impl Check {
    fn run(&self) -> Result<(), Failure> {
        if self.watch {
            let folder = Folder::find(self.dir.as_deref(), &self.config)?;
            return watch::watch(&folder.dir, || self.once());
        }
        self.once()
    }

    fn once(&self) -> Result<(), Failure> {
        match self.check() {
            Ok(checked) => self.report(&checked),
            Err(faults) if self.json => {
                output::json(&json!({ "valid": false, "faults": faults.0 }))?;
                Err(Failure::Finding(format!("{} found", count(faults.0.len(), "fault"))))
            }
            Err(faults) => Err(faults.into()),
        }
    }

    fn check(&self) -> Result<Checked, Faults> {
        let folder = Folder::find(self.dir.as_deref(), &self.config)?;
        let (proposal, not_taken) = app::propose_folder(&folder.dir, folder.organisation)?;
        app::check_marks(&folder.dir)?;
        let now = self.at.unwrap_or_else(|| SystemClock.now());
        let mut upkeep = proposal.world.upkeep(now.to_zoned(TimeZone::UTC).date());
        for fault in &mut upkeep.faults.0 {
            fault.file = folder.dir.join(&*fault.file).display().to_string().into();
        }
        if self.strict_sources {
            std::mem::take(&mut upkeep.faults).or(())?;
        }
        let snapshot = Snapshot::at(&proposal, now, Revision(0)).map_err(|error| {
            let place = SourceFile::new(crate::policy::SCHEMA_FILE, "");
            Faults::from(place.fault(0..0, super::chain(&error)))
        })?;
        let serves = |config: &Config| app::check_machine(config, &proposal).err();
        let lacking = folder.config.as_ref().and_then(serves).unwrap_or_default();
        Ok(Checked { proposal, snapshot, upkeep, not_taken, lacking })
    }

    fn report(&self, checked: &Checked) -> Result<(), Failure> {
        let Checked { proposal, snapshot, upkeep, not_taken, lacking } = checked;
        let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for rule in proposal.bundle.rules() {
            let (forbids, permits) = files.entry(&rule.file).or_default();
            *match rule.effect {
                Effect::Forbid => forbids,
                Effect::Permit => permits,
            } += 1;
        }
        let facts = &snapshot.facts;
        if self.json {
            return output::json(&json!({
                "valid": true,
                "policies": proposal.bundle.rules().count(),
                "bundle": snapshot.digests.bundle,
                "facts": snapshot.digests.facts,
                "past_review": upkeep.past,
                "without_review_by": upkeep.undated,
                "not_taken": not_taken,
                "lacking": lacking.0,
            }));
        }
        for (file, (forbids, permits)) in &files {
            output::line(&format!(
                "{file:<40} {:>10}  {:>10}",
                count(*forbids, "forbid"),
                count(*permits, "permit")
            ));
        }
        output::line(&format!(
            "{}; {} jurisdictions, {} zones, {} adequacy sets, {} licences hold today",
            output::paint(
                output::Paint::Good,
                &format!("{} are valid", count(proposal.bundle.rules().count(), "policy"))
            ),
            facts.jurisdictions.len(),
            facts.zones.len(),
            facts.adequacy.len(),
            facts.licences.len(),
        ));
        for (n, what) in
            [(upkeep.past, "past `review_by`"), (upkeep.undated, "without `review_by`")]
        {
            if n > 0 {
                let note =
                    format!("note: {} {what}; `--strict-sources` says which", count(n, "fact"));
                output::line(&output::paint(output::Paint::Strong, &note));
            }
        }
        if !not_taken.is_empty() {
            let files = count(not_taken.len(), "file");
            let note = format!("note: not taken, {files}: {}", not_taken.join(", "));
            output::line(&output::paint(output::Paint::Strong, &note));
        }
        if proposal.organisation.apps.is_empty() && !proposal.organisation_file.text.is_empty() {
            let note = "note: the organisation declares no app: no call can be made";
            output::line(&output::paint(output::Paint::Strong, note));
        }
        if !lacking.0.is_empty() {
            let note =
                "note: `lexgate serve` refuses to start on this machine until this is mended:";
            output::line(&output::paint(output::Paint::Strong, note));
            output::line(&lacking.to_string());
        }
        if let Some(until) = snapshot.valid_until {
            output::line(&format!("the next dated fact begins or ends at {until}"));
        }
        Ok(())
    }
}
