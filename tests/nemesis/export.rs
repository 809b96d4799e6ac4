//! The log at the end of a round, read out of an export with nothing of Lexgate's: the layout and the
//! tree as RFC 6962 and C2SP tlog-tiles have them.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{history::History, watch::Entry, world::World};
use crate::harness::TempDir;

const RULE: &str = "5 export";
/// The width of a full bundle.
const WIDTH: usize = 256;

/// What a round left.
#[derive(Debug, Default)]
pub(super) struct Final {
    pub(super) entries: Vec<Entry>,
    /// Every organisation file that was active, by its digest.
    pub(super) contents: BTreeMap<String, String>,
}

impl Final {
    /// Exports the log, verifies the export with all that there is, and reads it.
    pub(super) fn export(world: &World) -> Self {
        let dir = TempDir::new();
        let path = dir.path().to_str().expect("a temporary folder's name is text");
        let (site, history) = (&world.site, &world.history);
        let export = || site.run(&["export", path, "--json"]);
        // What the round broke is mended a moment before; a fault that stays is a finding.
        let mut exported = export();
        for _ in 0..5 {
            if exported.code == Some(0) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_secs(2));
            exported = export();
        }
        if exported.code != Some(0) {
            history.finding(RULE, format!("`lexgate export` fails: {}", exported.stderr));
            return Self::default();
        }
        let verify = ["verify", path, "--key", &site.vkey, "--replay", "--json"];
        let ran = site.run(&verify);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        if ran.code != Some(0) || report["holds"] != true {
            history
                .finding(RULE, format!("`lexgate verify --replay`: {}{}", ran.stdout, ran.stderr));
        }
        documented_verifier(dir.path(), &site.vkey, history);
        let done = Self::read(dir.path());
        history.say(format!("{} entries in the export", done.entries.len()));
        done
    }

    fn read(dir: &Path) -> Self {
        let note = fs::read_to_string(dir.join("checkpoint")).expect("an export has a checkpoint");
        let (size, _) = super::watch::checkpoint(&note).expect("a checkpoint has a size");
        let size = usize::try_from(size).unwrap();
        let mut entries = Vec::new();
        for n in 0..size.div_ceil(WIDTH) {
            assert!(n < 1_000, "a round is short");
            let width = WIDTH.min(size - n * WIDTH);
            let name = if width < WIDTH { format!("{n:03}.p/{width}") } else { format!("{n:03}") };
            let bundle = fs::read(dir.join("tile/entries").join(&name)).expect("a bundle");
            let leaves = fs::read(dir.join("tile/0").join(&name)).expect("a tile");
            let mut rest = bundle.as_slice();
            for leaf in leaves.chunks(32) {
                let (length, more) = rest.split_at(2);
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                let (bytes, more) = more.split_at(length);
                rest = more;
                let seq = entries.len() as u64;
                entries.push(Entry::parse(seq, leaf, bytes).expect("an exported entry"));
            }
        }
        let files = fs::read_dir(dir.join("contents")).into_iter().flatten().flatten();
        let content = |file: fs::DirEntry| {
            let name = file.file_name().into_string().ok()?;
            Some((name, fs::read_to_string(file.path()).ok()?))
        };
        Self { entries, contents: files.filter_map(content).collect() }
    }

    /// Whether the organisation with this digest approves a deployment.
    pub(super) fn approves(&self, organisation: &str, deployment: &str) -> bool {
        let name = organisation.trim_start_matches("sha256:");
        // Without an export nothing can be said, and that is a finding already.
        let Some(text) = self.contents.get(name) else { return self.contents.is_empty() };
        let (_, table) = text.split_once(&format!("id = \"{deployment}\"")).unwrap_or_default();
        let line = table.lines().find(|line| line.starts_with("approved = "));
        line == Some("approved = true")
    }
}

/// The script of docs/LEDGER.md, which shares no code with the service.
fn documented_verifier(dir: &Path, vkey: &str, history: &History) {
    let doc = include_str!("../../docs/LEDGER.md");
    let script = doc.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let run = Command::new("python3").args(["-c", script]).arg(dir).arg(vkey).output();
    let run = run.expect("python3");
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        history.finding(RULE, format!("the script of docs/LEDGER.md: {said}"));
    }
}

/// The roots of the trees of the first 0, 1, 2, … leaves, in base64 (RFC 6962, 2.1).
pub(super) fn roots(entries: &[Entry]) -> Vec<String> {
    let node = |left: &[u8; 32], right: &[u8; 32]| -> [u8; 32] {
        Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
    };
    let mut peaks: Vec<(u32, [u8; 32])> = Vec::new();
    let mut roots = vec![STANDARD.encode(Sha256::digest([]))];
    for entry in entries {
        let (mut height, mut hash) = (0, entry.leaf);
        while let Some((_, left)) = peaks.pop_if(|(peak, _)| *peak == height) {
            (height, hash) = (height + 1, node(&left, &hash));
        }
        peaks.push((height, hash));
        let mut later = peaks.iter().rev().map(|(_, hash)| *hash);
        let last = later.next().unwrap();
        roots.push(STANDARD.encode(later.fold(last, |right, left| node(&left, &right))));
    }
    roots
}

/// The tree by its definition, which halves: what [`roots`] must agree with.
#[test]
fn the_tree_of_the_checker_is_that_of_the_rfc() {
    fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                let hash = Sha256::new().chain_update([1]).chain_update(root(left));
                hash.chain_update(root(right)).finalize().into()
            }
        }
    }
    let entry = |n: u8| Entry {
        seq: n.into(),
        leaf: Sha256::digest([n]).into(),
        kind: String::new(),
        ts: jiff::Timestamp::UNIX_EPOCH,
        body: Value::Null,
    };
    let entries: Vec<Entry> = (0..40).map(entry).collect();
    let leaves: Vec<[u8; 32]> = entries.iter().map(|entry| entry.leaf).collect();
    for (size, found) in roots(&entries).into_iter().enumerate() {
        assert_eq!(found, STANDARD.encode(root(&leaves[..size])), "{size}");
    }
}
