//! New files for a policy folder, written only where the folder still passes with them.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::{
    app, cases,
    cases::{Case, Outcome, Own},
    cli::{
        ConfigFile, Failure, output,
        output::{Paint, count, paint},
    },
    config,
    domain::JurisdictionCode,
    facts::{FactsAt, Proposal},
    source::SourceFile,
};

/// Where to write, and how to say so.
#[derive(Debug, Args)]
pub(in crate::cli) struct Into {
    /// The policy folder; the configuration's unless given.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A file to be written: its path in the policy folder, and its text.
type Draft = (String, String);

/// A policy folder that is valid as it stands.
pub(in crate::cli) struct Target {
    folder: Folder,
    /// What it says.
    pub(in crate::cli) proposal: Proposal,
    /// Whether the organisation fits it.
    has_organisation: bool,
    json: bool,
}

impl Target {
    pub(in crate::cli) fn open(into: &Into) -> Result<Self, Failure> {
        let folder = Folder::find(into.dir.as_deref(), &into.config)?;
        match app::propose(&folder.dir, folder.organisation.clone()) {
            Ok(proposal) => Ok(Self { folder, proposal, has_organisation: true, json: into.json }),
            // What the organisation lacks may be what is to be written: its licence.
            Err(faults) if faults.0.iter().all(|it| it.file == folder.organisation.path) => {
                output::note(&format!(
                    "`{}` has {} and is ignored here: `lexgate policies check` shows what is wrong",
                    folder.organisation.path,
                    count(faults.0.len(), "fault")
                ));
                let policies = config::read_policies(&folder.dir)?;
                let proposal = Own::new(None, &[]).read(&policies)?;
                Ok(Self { folder, proposal, has_organisation: false, json: into.json })
            }
            Err(faults) => Err(faults.into()),
        }
    }

    pub(in crate::cli) fn refuse_covered(
        &self,
        facts: &FactsAt,
        code: &JurisdictionCode,
    ) -> Result<(), Failure> {
        if !facts.coverage.contains(code) {
            return Ok(());
        }
        let files = config::read_policies(&self.folder.dir)?;
        let pack = covering(&files, facts, code).unwrap_or_else(|| "a pack".to_owned());
        Err(Failure::Usage(format!(
            "`{code}` is covered already, by `{pack}`: add what is missing to that file as a policy of \
             its own, or take the jurisdiction out of its `[[coverage]]` first"
        )))
    }

    /// Writes the drafts, if the folder still passes with them.
    pub(in crate::cli) fn write(&self, drafts: &[Draft]) -> Result<(), Failure> {
        let Self { folder, json, .. } = self;
        for (path, _) in drafts {
            let path = folder.dir.join(path);
            if path.exists() {
                return Err(Failure::Usage(format!(
                    "`{}` is there already: choose another id, or edit that file",
                    path.display()
                )));
            }
        }
        let disagreeing = self.try_out(drafts)?;
        let paths: Vec<_> = drafts.iter().map(|(path, _)| folder.dir.join(path)).collect();
        for (path, (_, text)) in paths.iter().zip(drafts) {
            create(path, text)?;
        }
        if *json {
            return output::json(&json!({ "written": paths, "disagreeing": disagreeing }));
        }
        for path in &paths {
            output::line(&format!("wrote {}", path.display()));
        }
        if !disagreeing.is_empty() {
            let text = format!("\n{} expected otherwise before:", count(disagreeing.len(), "case"));
            output::line(&paint(Paint::Bad, &text));
        }
        for case in &disagreeing {
            output::line(&format!("  {case}"));
        }
        let dir = folder.dir.display();
        output::line(&format!(
            "\nNext: put the law where the files say REPLACE, then `lexgate policies check {dir}` \
             and `lexgate policies test {dir} --coverage`"
        ));
        Ok(())
    }

    /// Judges all cases with the drafts in their places. Gives those that expect otherwise.
    fn try_out(&self, drafts: &[Draft]) -> Result<Vec<String>, Failure> {
        let dir = &self.folder.dir;
        let mut policies = config::read_policies(dir)?;
        let mut cases = super::test::read_cases(dir)?;
        for (path, text) in drafts {
            let file = SourceFile::new(path, text);
            if config::decides(Path::new(path)) { &mut policies } else { &mut cases }.push(file);
        }
        if self.has_organisation {
            Proposal::load(&policies, self.folder.organisation.clone())?;
        }
        let cases = Case::load(&cases)?;
        let own = Own::new(self.folder.own(), &cases);
        let tested = cases::test(&policies, &own, cases, false)?;
        let failed = tested.outcomes.into_iter().filter(|outcome| outcome.failure.is_some());
        let is_new = |outcome: &Outcome| {
            drafts.iter().any(|(path, _)| outcome.place.starts_with(&format!("{path}:")))
        };
        let (new, old): (Vec<_>, Vec<_>) = failed.partition(is_new);
        if let Some(outcome) = new.first() {
            return Err(Failure::Finding(format!(
                "nothing is written: the template does not agree with the policies that are there\n  \
                 case “{}”: {}",
                outcome.name,
                outcome.failure.as_deref().unwrap_or_default()
            )));
        }
        Ok(old.iter().map(|outcome| format!("{}: {}", outcome.place, outcome.name)).collect())
    }
}

/// The policy file that claims to cover a jurisdiction.
fn covering(files: &[SourceFile], facts: &FactsAt, code: &JurisdictionCode) -> Option<String> {
    let tables = files.iter().filter(|file| file.path.starts_with("facts/"));
    let tables = tables.filter_map(|file| file.text.parse::<toml::Table>().ok());
    let mut rows = tables.filter_map(|table| table.get("coverage")?.as_array().cloned()).flatten();
    let has = |row: &toml::Value, key: &str, wanted: &dyn Fn(&str) -> bool| {
        let texts = row.get(key).and_then(toml::Value::as_array);
        texts.is_some_and(|texts| texts.iter().filter_map(toml::Value::as_str).any(wanted))
    };
    let row = rows.find(|row| {
        let holds = |zone: &str| facts.zones.get(zone).is_some_and(|zone| zone.contains(code));
        has(row, "jurisdictions", &|text| text == code.as_str()) || has(row, "zones", &holds)
    });
    Some(row?.get("pack")?.as_str()?.to_owned())
}

/// Writes a file that is not there yet.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::io("write", path, &error))
}
