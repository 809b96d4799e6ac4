//! `lexgate policies test`

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::{
    cases,
    cases::{Case, Missed, Outcome, Own, Tested},
    cli::{
        ConfigFile, Failure, output,
        output::{Paint, count, paint},
        watch,
    },
    config,
    policy::CedarCase,
    source::{Fault, Faults, SourceFile, did_you_mean},
};

/// Where the cases lie in a policy folder.
const FOLDER: &str = "cases";

/// Judge the cases of `cases/*.toml`, each by the law that its author read.
///
/// Every case is a call with an organisation of its own and the answer that it must get. `--coverage`
/// also says which policies decide no case, and which exceptions let none pass. Policies that name an app,
/// a model or an operator of the organisation have cases that call theirs so. `cases/*.json` are
/// tests in Cedar's own form: single requests, which count as cases and show nothing for coverage.
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// The policy folder; the configuration's unless given.
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Only cases whose file or name holds this text.
    #[arg(long, value_name = "TEXT", conflicts_with = "coverage")]
    only: Option<String>,
    /// A further file of tests as `cedar run-tests` reads them, beside `cases/*.json`.
    #[arg(long, value_name = "FILE")]
    cedar_tests: Vec<PathBuf>,
    /// Say what no case shows; that is a finding too.
    #[arg(long)]
    coverage: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Judge again after every change of the policy folder, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

impl Test {
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        if self.watch {
            return watch::watch(&self.find()?.0, || self.once());
        }
        self.once()
    }

    /// The policy folder, and the organisation whose names its policies may use.
    fn find(&self) -> Result<(PathBuf, Option<SourceFile>), Faults> {
        match (Folder::find(self.dir.as_deref(), &self.config), &self.dir) {
            (Ok(folder), _) => Ok((folder.dir.clone(), folder.own().cloned())),
            // Cases bring their own organisations: a configuration that is wrong is not in the way.
            (Err(_), Some(dir)) => Ok((dir.clone(), None)),
            (Err(faults), None) => Err(faults),
        }
    }

    fn once(&self) -> Result<(), Failure> {
        let (dir, organisation) = self.find()?;
        let tested = self.test(&dir, organisation.as_ref())?;
        if tested.outcomes.is_empty() {
            return Err(self.nothing(&dir));
        }
        let failed = tested.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        let unshown = tested
            .missed
            .as_ref()
            .map_or(0, |missed| missed.policies.len() + missed.branches.len());
        if self.json {
            report_json(&tested)?;
        } else {
            report(&tested);
        }
        match (failed, unshown) {
            (0, 0) => Ok(()),
            (0, n) => Err(Failure::Finding(format!("{n} policies and exceptions have no case"))),
            (n, _) => Err(Failure::Finding(format!("{} failed", count(n, "case")))),
        }
    }

    fn test(&self, dir: &Path, organisation: Option<&SourceFile>) -> Result<Tested, Faults> {
        let policies = config::read_policies(dir)?;
        let files = read_cases(dir)?;
        let is_meant = |name: &str, place: &str| {
            self.only.as_ref().is_none_or(|only| name.contains(only) || place.contains(only))
        };
        let mut cases = Case::load(&files)?;
        let own = Own::new(organisation, &cases);
        cases.retain(|case| is_meant(&case.name, &case.place));
        let mut questions = self.read_cedar_tests(dir)?;
        questions.retain(|case| is_meant(&case.name, &case.place));
        let mut tested = cases::test(&policies, &own, cases, self.coverage)?;
        if !questions.is_empty() {
            tested.outcomes.extend(cases::test_cedar(&policies, questions)?);
        }
        Ok(tested)
    }

    /// What to say where no case was judged: that nothing failed would be taken for a proof.
    fn nothing(&self, dir: &Path) -> Failure {
        let folder = dir.join(FOLDER);
        let (Some(only), Ok(files)) = (&self.only, files_of_kind(&folder, "toml")) else {
            let message = format!(
                "there is no case in `{}`: `lexgate policies new` writes a policy with its cases",
                folder.display()
            );
            return Failure::Finding(message);
        };
        let stems = files.iter().filter_map(|path| path.file_stem()?.to_str());
        let stems: Vec<&str> = stems.collect();
        let meant = did_you_mean(only, stems.iter().copied());
        Failure::Finding(format!(
            "no case has `{only}` in its name or in that of its file{meant}\nthe files in `{}` are {}",
            folder.display(),
            stems.join(", ")
        ))
    }

    /// The tests of Cedar's own form: those of the policy folder, and those that were named.
    fn read_cedar_tests(&self, dir: &Path) -> Result<Vec<CedarCase>, Faults> {
        let (mut cases, mut faults) = (Vec::new(), Faults::default());
        let own = files_of_kind(&dir.join(FOLDER), "json")?;
        for path in own.iter().chain(&self.cedar_tests) {
            let read = config::read_file(path).map_err(Faults::from).and_then(|file| {
                CedarCase::load(&file, &|named| {
                    // No test reads what lies outside the folder that it came with.
                    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
                    if Path::new(named).components().all(inside) {
                        let help = format!("`{}` names it for its entities", file.path);
                        return config::read_file(&path.with_file_name(named))
                            .map_err(|fault| fault.help(help));
                    }
                    let message = format!("the entities `{named}` lie outside the test's folder");
                    Err(file.fault(0..0, message).help("put the file beside the test"))
                })
            });
            match read {
                Ok(read) => cases.extend(read),
                Err(found) => faults.0.extend(found.0),
            }
        }
        faults.or(cases)
    }
}

/// The files of cases, in the order of their names.
pub(in crate::cli) fn read_cases(dir: &Path) -> Result<Vec<SourceFile>, Faults> {
    let paths = files_of_kind(&dir.join(FOLDER), "toml")?;
    let files = paths.iter().map(|path| config::read_file(path));
    Ok(files.collect::<Result<Vec<_>, _>>()?)
}

fn files_of_kind(folder: &Path, kind: &str) -> Result<Vec<PathBuf>, Fault> {
    let place = SourceFile::new(&folder.display().to_string(), "");
    let unreadable = |error: std::io::Error| {
        let fault = place.fault(0..0, format!("cannot be read: {error}"));
        fault.help("cases lie in `cases/*.toml` of the policy folder")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|is| is == kind) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn report(tested: &Tested) {
    let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for outcome in &tested.outcomes {
        let file = outcome.place.rsplit_once(':').map_or("", |(file, _)| file);
        let (passed, failed) = files.entry(file).or_default();
        *(if outcome.failure.is_some() { failed } else { passed }) += 1;
    }
    for (file, (passed, failed)) in &files {
        let failed = match failed {
            0 => String::new(),
            n => paint(Paint::Bad, &format!("  {n} failed")),
        };
        output::line(&format!("{file:<56} {passed:>4} passed{failed}"));
    }
    for outcome in &tested.outcomes {
        if let Some(failure) = &outcome.failure {
            let text = format!("\n{}: {}", outcome.place, outcome.name);
            output::line(&paint(Paint::Bad, &text));
            output::line(&format!("      {failure}"));
            if let Some(source) = &outcome.source {
                output::line(&format!("      says: {source}"));
            }
        }
    }
    let failed = tested.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let total = tested.outcomes.len();
    let paint_of = if failed == 0 { Paint::Good } else { Paint::Bad };
    output::line(&paint(paint_of, &format!("\n{} of {total} cases passed", total - failed)));
    if let Some(missed) = &tested.missed {
        report_missed(missed, tested.points);
    }
}

fn report_missed(missed: &Missed, points: usize) {
    let unshown = missed.policies.len() + missed.branches.len();
    let shown = points - unshown;
    let paint_of = if unshown == 0 { Paint::Good } else { Paint::Bad };
    let text = format!("{shown} of {points} policies and exceptions are shown by a case");
    output::line(&paint(paint_of, &text));
    for policy in &missed.policies {
        output::line(&format!("  {policy} decides no case"));
    }
    for (policy, text) in &missed.branches {
        output::line(&format!("  {policy}: no case passes by `{text}`"));
    }
}

fn report_json(tested: &Tested) -> Result<(), Failure> {
    let cases: Vec<_> = tested
        .outcomes
        .iter()
        .map(|outcome| {
            let Outcome { place, name, failure, .. } = outcome;
            json!({ "place": place, "name": name, "failure": failure })
        })
        .collect();
    let missed = tested.missed.as_ref().map(|missed| {
        let branches: Vec<_> = missed
            .branches
            .iter()
            .map(|(policy, text)| json!({ "policy": policy, "unless": text }))
            .collect();
        json!({ "policies": missed.policies, "exceptions": branches, "of": tested.points })
    });
    output::json(&json!({ "cases": cases, "missed": missed }))
}
