//! What happened in a round and what was found, for those who replay it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// The seconds of a round, line by line, and its findings.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) began: Instant,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    lines: String,
    findings: Vec<Finding>,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) rule: &'static str,
    pub(super) text: String,
}

/// So many findings of one rule are told; the round's file has all.
const EACH: usize = 5;

impl History {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), told: Arc::default() }
    }

    pub(super) fn say(&self, line: impl AsRef<str>) {
        let at = self.began.elapsed().as_secs_f64();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(told.lines, "{at:8.3} {}", line.as_ref()).unwrap();
    }

    pub(super) fn finding(&self, rule: &'static str, text: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.findings.iter().filter(|finding| finding.rule == rule).count();
        writeln!(told.lines, "FINDING {rule}: {text}").unwrap();
        if known < EACH {
            told.findings.push(Finding { rule, text });
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).findings.clone()
    }

    /// Seconds since the round began, as in the lines.
    pub(super) fn at(&self, instant: Instant) -> String {
        format!("{:.3}", instant.saturating_duration_since(self.began).as_secs_f64())
    }

    /// Writes the round down; gives the file.
    pub(super) fn keep(&self, name: &str, logs: &[(&str, String)]) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nemesis");
        fs::create_dir_all(&folder).expect("a folder can be made");
        let mut text = self.told.lock().unwrap_or_else(PoisonError::into_inner).lines.clone();
        for (name, log) in logs {
            writeln!(text, "\n==== replica {name}\n{log}").unwrap();
        }
        let file = folder.join(format!("{name}.txt"));
        fs::write(&file, text).expect("a file can be written");
        file
    }
}

/// What many rounds came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: usize,
    pub(super) actions: BTreeMap<&'static str, usize>,
    pub(super) calls: usize,
    pub(super) answered: usize,
    pub(super) refused: usize,
    pub(super) broken: usize,
    pub(super) at_backends: usize,
    pub(super) records: usize,
    pub(super) findings: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.rounds += other.rounds;
        for (kind, count) in other.actions {
            *self.actions.entry(kind).or_default() += count;
        }
        self.calls += other.calls;
        self.answered += other.answered;
        self.refused += other.refused;
        self.broken += other.broken;
        self.at_backends += other.at_backends;
        self.records += other.records;
        self.findings.extend(other.findings);
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::from("\n");
        let mut row =
            |name: &str, count: usize| writeln!(text, "    {name:<34} {count:>8}").unwrap();
        row("rounds", self.rounds);
        for (kind, count) in &self.actions {
            row(kind, *count);
        }
        row("calls of clients", self.calls);
        row("  answered with a record", self.answered);
        row("  refused", self.refused);
        row("  connection broken", self.broken);
        row("calls at backends", self.at_backends);
        row("records", self.records);
        row("findings", self.findings.len());
        for finding in &self.findings {
            writeln!(text, "{finding}").unwrap();
        }
        text
    }
}
