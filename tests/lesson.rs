//! The lesson on writing policies, run as a reader would run it.

use std::{fmt::Write as _, path::Path, process::Command};

use crate::harness::{Ran, TempDir};

/// A fenced block of a document: its language with what stands behind it, and its text.
pub(crate) fn blocks(document: &str) -> Vec<(&str, String)> {
    let (mut blocks, mut open): (Vec<(&str, String)>, bool) = (Vec::new(), false);
    for line in document.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(_), true) => open = false,
            (Some(language), false) => {
                open = true;
                blocks.push((language, String::new()));
            }
            (None, true) => writeln!(blocks.last_mut().unwrap().1, "{line}").unwrap(),
            (None, false) => {}
        }
    }
    blocks
}

/// Whether the parts of `wanted` between `…` stand in `said`, in order.
pub(crate) fn says(said: &str, wanted: &str) -> Result<(), String> {
    let mut rest = said;
    for part in wanted.split('…').map(|part| part.trim_matches('\n')) {
        let at = rest.find(part).ok_or_else(|| part.to_owned())?;
        rest = &rest[at + part.len()..];
    }
    Ok(())
}

/// An officer who types what the lesson says sees what the lesson shows.
#[test]
fn the_lesson_on_policies_is_true() {
    let dir = TempDir::new();
    Ran::in_dir(dir.path(), &["init", "--json"]).json();
    let program = Path::new(env!("CARGO_BIN_EXE_lexgate")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let document = include_str!("../docs/POLICY-AUTHORING.md");
    let (mut ran, mut shown) = (0, 0);
    let mut said = String::new();
    for (language, text) in blocks(document) {
        if let Some(rest) = language.strip_prefix("sh") {
            let wanted = rest.trim().strip_prefix("exit=").map_or(0, |code| code.parse().unwrap());
            let script = format!("set -e\nexec 2>&1\n{text}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).current_dir(dir.path()).env("PATH", &path);
            let output = shell.output().unwrap();
            said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(wanted), "{text}{said}");
            ran += 1;
        } else if language == "text" {
            if let Err(part) = says(&said, &text) {
                panic!("what is said:\n{said}\nthe lesson shows `{part}`");
            }
            shown += 1;
        }
    }
    assert!(ran > 12 && shown > 12, "{ran} blocks ran and {shown} were compared");
}
