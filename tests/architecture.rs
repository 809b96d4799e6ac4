//! The shape of the source: imports run one way, each library stays in its place, files are small
//! and say what they are. Reads the text; knows nothing of what the code does.

mod graph;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use graph::Graph;

/// The longest file, in lines: past this it wants to be two.
const LONGEST: usize = 500;

/// Which modules each module may name, beside itself.
const MAY_NAME: [(&str, &[&str]); 17] = [
    ("domain", &["source"]),
    ("source", &[]),
    ("ledger", &["domain"]),
    ("policy", &["domain", "source"]),
    ("facts", &["domain", "source", "policy"]),
    ("store", &["domain", "ledger"]),
    // What a publisher reads of the log, it holds against what was signed.
    ("witness", &["domain", "ledger", "store", "sequencer"]),
    // The address of a backend is a fact of the organisation.
    ("dispatch", &["domain", "source", "ledger", "facts", "telemetry"]),
    ("sequencer", &["domain", "ledger", "store"]),
    (
        "gate",
        &[
            "domain",
            "source",
            "ledger",
            "policy",
            "facts",
            "store",
            "dispatch",
            "sequencer",
            "telemetry",
        ],
    ),
    ("cases", &["domain", "source", "ledger", "policy", "facts", "gate"]),
    // Reads TOML as the facts do, and into the types of whoever uses it.
    ("config", &["domain", "source", "ledger", "facts", "dispatch", "telemetry"]),
    (
        "http",
        &[
            "domain",
            "source",
            "ledger",
            "facts",
            "store",
            "dispatch",
            "gate",
            "config",
            "telemetry",
        ],
    ),
    ("lifecycle", &[]),
    ("telemetry", &[]),
    (
        "app",
        &[
            "domain",
            "source",
            "ledger",
            "policy",
            "facts",
            "store",
            "dispatch",
            "sequencer",
            "gate",
            "config",
            "http",
            "lifecycle",
            "telemetry",
            "witness",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "source",
            "ledger",
            "policy",
            "facts",
            "store",
            "dispatch",
            "sequencer",
            "gate",
            "config",
            "http",
            "lifecycle",
            "telemetry",
            "witness",
            "app",
            "cases",
        ],
    ),
];

/// Circles between the files of a folder that are still to be opened. The list only shrinks.
const CIRCLES: [&str; 2] = [
    "gate: attempt call content counterfactual course decide dispatch erasure holds judge limits memo outcome stream trace vault volume",
    "http: audit decisions examples gateway names openapi proofs tlog vocabulary",
];

/// Where each library may be named: a module, or one file of it.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("axum", &["http", "app", "lifecycle", "witness", "cli/witness.rs"]),
    ("sqlx", &["store", "sequencer/contract/kit.rs", "sequencer/contract/standing.rs"]),
    // Spans go to the collector over the HTTP client that is there, not a second one.
    ("reqwest", &["dispatch", "witness", "telemetry/otlp.rs"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("tracing_opentelemetry", &["telemetry"]),
    // A judge hands contexts from one to the other.
    ("cedar_policy", &["policy", "facts", "gate/judge.rs"]),
];

/// What the ledger must not need: it is what a regulator runs.
const NOT_IN_THE_LEDGER: [&str; 7] =
    ["tokio", "sqlx", "axum", "reqwest", "async_trait", "figment", "async fn"];

/// A file of `src/`.
struct Source {
    /// Its path below `src/`.
    path: String,
    /// Its top-level module.
    module: String,
    text: String,
}

impl Source {
    /// Whether the whole file is for tests.
    fn is_test(&self) -> bool {
        ["tests.rs", "_tests.rs"].iter().any(|end| self.path.ends_with(end))
            || self.path.contains("/contract")
            || self.path.contains("fixture")
    }

    /// The code without comments and without the tests at its end.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
                sources.push(Source { path, module, text });
            }
        }
    }
    assert!(sources.len() > 60, "the source is somewhere else");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The top-level modules that `code` names after `crate::`, alone or in a group.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut name) = (1, String::new());
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => names.extend(first(&std::mem::take(&mut name))),
                    _ if depth == 1 => name.push(character),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            names.extend(first(&name));
        } else {
            names.extend(first(rest));
        }
    }
    names
}

/// The identifier at the beginning of a path.
fn first(path: &str) -> Option<String> {
    let end = |character: char| !character.is_alphanumeric() && character != '_';
    let name = path.trim_start().split(end).next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether `code` names `library` in a path.
fn names_library(code: &str, library: &str) -> bool {
    code.match_indices(&format!("{library}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    })
}

#[test]
fn imports_run_one_way() {
    let may_name: BTreeMap<_, _> = MAY_NAME.into_iter().collect();
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if ["lib", "main"].contains(&source.module.as_str()) {
            continue;
        }
        let allowed = may_name.get(source.module.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("say what `{}` may name", source.module));
        for name in named(&source.code()) {
            if name != source.module && !allowed.contains(&name.as_str()) {
                faults.push(format!("src/{} names `{name}`", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn each_library_stays_in_its_place() {
    let mut faults = Vec::new();
    for source in sources() {
        let code = source.code();
        for (library, places) in LIBRARIES {
            let at_home =
                places.iter().any(|place| source.module == *place || source.path == *place);
            if !at_home && names_library(&code, library) {
                faults.push(format!("src/{} names `{library}`", source.path));
            }
        }
        let stands_alone = source.module == "ledger" && !source.is_test();
        for word in NOT_IN_THE_LEDGER.iter().filter(|_| stands_alone) {
            if code.contains(word) {
                faults.push(format!("src/{} needs `{word}`", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_files_of_a_folder_form_no_circle() {
    let graph = Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let circles = graph.circles(false);
    let new: Vec<_> = circles.iter().filter(|circle| !CIRCLES.contains(&circle.as_str())).collect();
    assert!(new.is_empty(), "these files name each other: {new:#?}");
    let opened: Vec<_> =
        CIRCLES.iter().filter(|circle| !circles.iter().any(|found| found == *circle)).collect();
    assert!(opened.is_empty(), "take these off the list of circles: {opened:#?}");
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut faults = Vec::new();
    for Source { path, text, .. } in sources() {
        if !text.starts_with("//! ") {
            faults.push(format!("src/{path} does not say what it is"));
        }
        let lines = text.lines().count();
        if lines > LONGEST {
            faults.push(format!("src/{path} has {lines} lines"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_reader_of_imports_reads_them() {
    let code =
        "use crate::{\n    domain::{Flow, Verdict},\n    gate::Gate, store,\n};\ncrate::app::x();";
    assert_eq!(named(code), ["app", "domain", "gate", "store"].map(str::to_owned).into());
    assert!(names_library("use sqlx::query;", "sqlx"));
    assert!(!names_library("use my_sqlx::query;", "sqlx"));
}
