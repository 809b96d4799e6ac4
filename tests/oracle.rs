//! The log as another implementation of its formats sees it: `aics-tlog`, in Python, which reads an
//! export as it is and knows nothing but the log's key. `scripts/aics-tlog` installs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lexgate::ledger::{Entry, leaf_of};
use serde_json::{Value, json};

use crate::{
    harness::{Service, Store, TempDir},
    ledger::{Exported, decide},
};

/// Authenticates every tile and every bundle of entries below a folder.
const AUDIT: &str = "
import sys
from aics_tlog.checkpoint import parse_checkpoint
from aics_tlog.note import parse_note
from aics_tlog.remote import HttpTileReader, tile_source_url
from aics_tlog.verified import audit_tiles
reader = HttpTileReader(tile_source_url(sys.argv[1]))
head = parse_checkpoint(parse_note(reader.read_checkpoint()).text)
print(audit_tiles(reader, head.size, head.root))
";

/// The other implementation, with the key under which it verifies.
struct Oracle {
    program: PathBuf,
    key: String,
}

impl Oracle {
    fn knowing(key: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/aics-tlog");
        let ran = Command::new(script).output().expect("scripts/aics-tlog starts");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let program = String::from_utf8(ran.stdout).unwrap();
        Self { program: program.trim_end().into(), key: key.to_owned() }
    }

    /// Its answer: a JSON object, whatever it finds.
    fn ask(&self, command: &str, arguments: &[&str]) -> Value {
        let mut run = Command::new(&self.program);
        run.args([command, "--log-key", &self.key]).args(arguments);
        let ran = run.output().expect("it runs");
        let answer: Value = serde_json::from_slice(&ran.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
        assert_eq!(answer["ok"], ran.status.success(), "{answer}");
        answer
    }

    fn accepts(&self, command: &str, arguments: &[&str]) -> Value {
        let answer = self.ask(command, arguments);
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    /// Why it does not accept something.
    fn refuses(&self, command: &str, arguments: &[&str]) -> String {
        let answer = self.ask(command, arguments);
        assert_eq!(answer["ok"], false, "{answer}");
        answer["error"].as_str().unwrap().to_owned()
    }

    /// What it says of all files of an export.
    fn audit(&self, export: &str) -> String {
        let mut run = Command::new(self.program.with_file_name("python"));
        let ran = run.args(["-c", AUDIT, export]).output().expect("its Python runs");
        String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
    }
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

/// The root that a checkpoint states, in base64.
fn root(checkpoint: &str) -> String {
    fs::read_to_string(checkpoint).unwrap().lines().nth(2).unwrap().to_owned()
}

/// Hashes as the other implementation wants them: a line each.
fn lines(hashes: &Value) -> String {
    let hashes = hashes.as_array().unwrap().iter().map(|hash| hash.as_str().unwrap());
    hashes.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn sqlite_another_implementation_reads_an_export_as_it_is() {
    let service = Service::start(Store::Sqlite).await;
    let oracle = Oracle::knowing(&service.site.vkey);
    decide(&service, 300).await;
    let (old, new) = (Exported::of(&service.site), Exported::of(&service.site));
    decide(&service, 300).await;
    new.again(&service.site);
    let (export, kept) = (text(new.file("")), text(old.file("checkpoint")));

    let note = text(new.file("checkpoint"));
    let origin = "lexgate.example/main";
    let told = oracle.accepts("verify-checkpoint", &["--note", &note, "--origin", origin]);
    assert_eq!((&told["size"], &told["root"]), (&json!(602), &json!(root(&note))));
    let audit = oracle.audit(&export);
    assert!(audit.contains("size=602, tiles=4, bundles=3"), "{audit}");

    let folder = TempDir::new();
    let found = text(folder.path().join("entry"));
    for seq in [0_u64, 1, 255, 256, 511, 601] {
        let index = seq.to_string();
        let asked: [&str; 6] = ["--tiles", &export, "--index", &index, "--entry-out", &found];
        let told = oracle.accepts("verify-inclusion", &asked);
        let entry = fs::read(&found).unwrap();
        assert_eq!(Entry::parse(&entry).unwrap().seq.get(), seq);
        assert_eq!(told["leaf_hash"], leaf_of(&entry).hex());
    }

    let asked: [&str; 4] = ["--tiles", &export, "--old-checkpoint", &kept];
    let told = oracle.accepts("verify-consistency", &asked);
    assert_eq!((&told["old_size"], &told["new_size"]), (&json!(302), &json!(602)));
    let older = text(old.file(""));
    let backwards: [&str; 4] = ["--tiles", &older, "--old-checkpoint", &note];
    let fault = oracle.refuses("verify-consistency", &backwards);
    assert!(fault.contains("is older than the saved one"), "{fault}");

    // Proofs that the service makes. They come as JSON; the other implementation wants lines.
    let proof = text(folder.path().join("proof"));
    let path = "/v1/audit/consistency?from=302&to=602";
    let grown = service.get(path, "auditor").await.expect(200);
    fs::write(&proof, lines(&grown["hashes"])).unwrap();
    let (was, is) = (root(&kept), root(&note));
    let mut asked: [&str; 10] = [
        "--old-size",
        "302",
        "--old-root",
        &was,
        "--new-size",
        "602",
        "--new-root",
        &is,
        "--proof",
        &proof,
    ];
    oracle.accepts("verify-consistency", &asked);
    asked.swap(3, 7);
    oracle.refuses("verify-consistency", &asked);

    let signed = text(folder.path().join("checkpoint"));
    for seq in [0_u64, 256, 601] {
        let path = format!("/v1/audit/records/{seq}/proof");
        let proven = service.get(&path, "auditor").await.expect(200);
        fs::write(&signed, proven["proof"]["checkpoint"].as_str().unwrap()).unwrap();
        fs::write(&proof, lines(&proven["proof"]["hashes"])).unwrap();
        let (leaf, index) = (proven["leaf"].as_str().unwrap(), seq.to_string());
        let mut asked: [&str; 8] =
            ["--leaf-hash", leaf, "--checkpoint", &signed, "--proof", &proof, "--index", &index];
        let told = oracle.accepts("verify-inclusion", &asked);
        assert_eq!(told["checkpoint_verified"], true);
        asked[7] = "2";
        let fault = oracle.refuses("verify-inclusion", &asked);
        assert_eq!(fault, "inclusion proof does not verify");
    }
}

#[tokio::test]
async fn sqlite_another_implementation_refuses_what_was_changed() {
    let service = Service::start(Store::Sqlite).await;
    let oracle = Oracle::knowing(&service.site.vkey);
    decide(&service, 300).await;
    let exported = Exported::of(&service.site);
    let (export, note) = (text(exported.file("")), text(exported.file("checkpoint")));
    oracle.accepts("verify-checkpoint", &["--tiles", &export]);
    let third: [&str; 4] = ["--tiles", &export, "--index", "3"];
    oracle.accepts("verify-inclusion", &third);

    let checkpoint = fs::read(&note).unwrap();
    let changed = |at: usize| {
        let mut bytes = checkpoint.clone();
        bytes[at] ^= 1;
        fs::write(&note, bytes).unwrap();
        oracle.refuses("verify-checkpoint", &["--note", &note])
    };
    let size = checkpoint.windows(5).position(|part| part == b"\n302\n").unwrap();
    let fault = changed(size + 3);
    assert!(fault.contains("failed verification"), "{fault}");
    for at in (0..checkpoint.len()).step_by(checkpoint.len() / 8) {
        changed(at);
    }
    fs::write(&note, &checkpoint).unwrap();

    for (name, fault) in [
        ("tile/0/000", "tile/0/000 does not match its parent"),
        ("tile/0/001.p/46", "the right-edge tiles do not match the root"),
        ("tile/entries/000", "tile/entries/000 does not match its level 0 tile"),
    ] {
        let bytes = fs::read(exported.file(name)).unwrap();
        let mut flipped = bytes.clone();
        flipped[200] ^= 1; // of the entries: within the first one
        fs::write(exported.file(name), flipped).unwrap();
        let told = oracle.refuses("verify-inclusion", &third);
        assert!(told.contains(fault), "{name}: {told}");
        fs::write(exported.file(name), bytes).unwrap();
    }

    let other = Service::setup(Store::Sqlite).prepare().await;
    let stranger = Oracle::knowing(&other.vkey);
    stranger.refuses("verify-checkpoint", &["--note", &note]);
    oracle.accepts("verify-inclusion", &third);
}
