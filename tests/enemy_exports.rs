//! What the verifier does with an export from which something is missing, or that is made to harm whoever
//! verifies it; and with keys that should sign no more.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use lexgate::domain::Digest;
use serde_json::{Value, json};

use crate::{
    enemy_verifier::{HONEST, found},
    forger::{
        ACROSS, ACROSS_OUTCOME, DENIED, FIRST_SNAPSHOT, Forged, HOLD, KEY_CHANGE, KEY_RETIRED,
        REPORTED, SECOND_SNAPSHOT, write,
    },
    harness::{Ran, Service, Store, TempDir},
    ledger::{Exported, decide},
};

#[test]
fn a_removal_that_cannot_be_is_found() {
    found(
        &[
            (
                "a denial of yesterday",
                |log| log.prune(1, &[(DENIED, DENIED)]),
                "entry 17: says that the retention period of entry 6 had ended at 2026-12-01T23:59:30.000000Z: it was written no earlier than 2026-11-30T23:59:35.000000Z, and is kept for 6 months at least, until 2027-05-30T23:59:35.000000Z",
            ),
            (
                "long before it was written",
                |log| {
                    log.prune(200, &[(DENIED, DENIED)]);
                    log.records[17].body["before"] = json!("1999-01-01T00:00:00.000000Z");
                },
                "entry 17: says that the retention period of entry 6 had ended at 1999-01-01",
            ),
            (
                "long after it is said",
                |log| {
                    log.prune(1, &[(DENIED, DENIED)]);
                    log.records[17].body["before"] = json!("2099-01-01T00:00:00.000000Z");
                },
                "entry 17: says that records went whose retention period had ended at 2099-01-01T00:00:00.000000Z, but it was written at 2026-12-01",
            ),
            (
                "everything but the beginning",
                |log| {
                    log.prune(4_000, &[(1, 16)]);
                    log.signers = vec![0];
                },
                "entry 17: says that entry 1 was removed: what lies there must be kept for ever: no snapshot was active yet",
            ),
            (
                "a snapshot among others",
                |log| log.prune(200, &[(ACROSS, ACROSS_OUTCOME)]),
                "entry 10: decided under revision 2, while another snapshot (revision 1) was active",
            ),
            (
                "the last change of keys",
                |log| log.prune(200, &[(KEY_CHANGE, KEY_RETIRED)]),
                "the checkpoint: none of the given keys has signed the note",
            ),
            (
                "what a hold keeps",
                |log| {
                    log.records.remove(HOLD + 1);
                    log.prune(200, &[(DENIED, DENIED)]);
                },
                "entry 16: says that entry 6 was removed, which the legal hold of entry 12 keeps",
            ),
            (
                "what is removed, and stays in the archive: too young",
                |log| {
                    log.prune(1, &[(DENIED, DENIED)]);
                    log.records[DENIED].is_removed = false;
                },
                "the retention period of entry 6 had ended at 2026-12-01T23:59:30.000000Z: it was written at 2026-11-30T23:59:36.000000Z, and is kept for 60 months, until",
            ),
            (
                "what is removed, and stays in the archive: never to go",
                |log| {
                    log.prune(200, &[(ACROSS, ACROSS_OUTCOME)]);
                    log.records[SECOND_SNAPSHOT].is_removed = false;
                },
                "entry 17: says that entry 8 was removed: records of its kind are kept for ever",
            ),
            (
                "nobody says it",
                |log| log.records[REPORTED].is_removed = true,
                "entry 10: is missing",
            ),
            (
                "facts that let everything go",
                |log| {
                    log.prune(200, &[(DENIED, DENIED)]);
                    let facts = log.records[1].body["snapshot"]["facts"].clone();
                    let digest: Digest = serde_json::from_value(facts).unwrap();
                    log.contents.insert(digest, b"{}".to_vec());
                },
                "has been changed",
            ),
        ],
        &[],
    );
}

/// Runs the verifier, which must come to its end.
fn verify_in_time(dir: &Path, key: &str, more: &[&str]) -> Ran {
    let dir = dir.to_owned();
    let mut arguments = vec![
        "verify".to_owned(),
        "export".to_owned(),
        "--key".to_owned(),
        key.to_owned(),
        "--json".to_owned(),
    ];
    arguments.extend(more.iter().map(|one| (*one).to_owned()));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        tell.send(Ran::in_dir(&dir, &arguments))
    });
    told.recv_timeout(Duration::from_secs(300)).expect("the verifier comes to its end")
}

fn fault(ran: &Ran) -> String {
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    answer["fault"].as_str().unwrap().to_owned()
}

#[test]
fn an_export_of_devices_pipes_and_links_ends_in_a_fault() {
    let dir = TempDir::new();
    let export = dir.path().join("export");
    HONEST.export(&export);
    let content = fs::read_dir(export.join("contents")).unwrap().next().unwrap().unwrap();
    let content = format!("contents/{}", content.file_name().to_str().unwrap());
    let key = HONEST.vkey(0);
    for file in ["checkpoint", "tile/entries/000.p/17", "tile/0/000.p/17", &content] {
        let (path, aside) = (export.join(file), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert!(
            fault(&verify_in_time(dir.path(), &key, &[])).contains("is a symbolic link"),
            "{file}"
        );
        fs::remove_file(&path).unwrap();
        symlink(&aside, &path).unwrap();
        assert!(
            fault(&verify_in_time(dir.path(), &key, &[])).contains("is a symbolic link"),
            "{file}"
        );
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(fault(&verify_in_time(dir.path(), &key, &[])).contains("is a pipe"), "{file}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(fault(&verify_in_time(dir.path(), &key, &[])).contains("is a folder"), "{file}");
        fs::remove_dir(&path).unwrap();
        // Long, and takes no place on the disk.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let began = Instant::now();
        assert!(fault(&verify_in_time(dir.path(), &key, &[])).contains("is longer than"), "{file}");
        assert!(began.elapsed() < Duration::from_secs(60), "{file}: it was read");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    for folder in ["tile", "tile/entries", "tile/entries/000.p", "contents"] {
        let (path, aside) = (export.join(folder), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        let said = fault(&verify_in_time(dir.path(), &key, &[]));
        assert!(said.contains("is not a folder"), "{folder}: {said}");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(verify_in_time(dir.path(), &key, &[]).json()["holds"], true);
}

/// Policies that are deeper than any stack, and JSON that is.
#[test]
fn an_export_of_bottomless_policies_ends_in_a_fault() {
    let depth = 200_000;
    let policy = |condition: String| {
        format!(
            "@id(\"deep\")\n@citation(\"none\")\npermit (principal, action, resource) when {{ {condition} }};\n"
        )
    };
    let brackets = policy(format!("{}true{}", "(".repeat(depth), ")".repeat(depth)));
    let chain = policy(vec!["true"; depth].join(" || "));
    let nots = policy(format!("{}true", "!".repeat(depth)));
    for text in [brackets, chain, nots] {
        let mut log = HONEST.clone();
        log.records.truncate(FIRST_SNAPSHOT + 1);
        log.signers = vec![0];
        let pinned: Digest =
            serde_json::from_value(log.records[1].body["snapshot"]["bundle"].clone()).unwrap();
        let mut bundle: Value = serde_json::from_slice(&log.contents[&pinned]).unwrap();
        bundle["deep/deep.cedar"] = json!(text);
        repin(&mut log, "bundle", serde_json::to_vec(&bundle).unwrap());
        assert_eq!(log.verify(&[]).json()["holds"], true, "nobody has to read it");
        // A stack may be deep enough for one of them; what may not be is that nothing is said.
        let ran = log.verify(&["--replay"]);
        if ran.code != Some(0) {
            let said = fault(&ran);
            assert!(said.contains("cannot be read") || said.contains("was ended by"), "{said}");
        }
    }
    for (part, bytes) in [
        ("facts", "[".repeat(depth)),
        ("bundle", "[".repeat(depth)),
        ("organisation", format!("a = {}", "[".repeat(depth))),
    ] {
        let mut log = HONEST.clone();
        log.records.truncate(FIRST_SNAPSHOT + 1);
        log.signers = vec![0];
        repin(&mut log, part, bytes.into_bytes());
        let said = fault(&log.verify(&["--replay"]));
        assert!(
            ["cannot be read", "is not the facts", "was ended by"]
                .iter()
                .any(|part| said.contains(part)),
            "{part}: {said}"
        );
    }
}

fn repin(log: &mut Forged, part: &str, bytes: Vec<u8>) {
    let digest = Digest::of(&bytes);
    log.contents.insert(digest, bytes);
    log.records[FIRST_SNAPSHOT].body["snapshot"][part] = json!(digest);
}

#[tokio::test]
async fn what_was_not_checked_is_named_and_exports_are_their_owners() {
    let service = Service::start(Store::Sqlite).await;
    decide(&service, 3).await;
    let site = &service.site;
    let dir = TempDir::new();
    let export = dir.path().join("export");
    site.run_json(&["export", export.to_str().unwrap(), "--json"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut folders = vec![export.clone()];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    for file in ["lexgate.db", "lexgate.db-wal", "lexgate.db-shm"] {
        assert_eq!(mode(&site.path("data").join(file)), 0o600, "{file}");
    }
    let verify = || verify_in_time(dir.path(), &site.vkey, &[]);
    assert_eq!(verify().json()["unchecked"]["files"], json!([]), "no page that the exporter wrote");
    write(&export.join("verify.html"), b"<script>");
    write(&export.join("contents").join("0".repeat(64)), b"");
    write(&export.join("tile/0/000.p/3"), b"");
    symlink("/dev/zero", export.join("more")).unwrap();
    let others = verify().json()["unchecked"]["files"].clone();
    let zeros = format!("contents/{}", "0".repeat(64));
    assert_eq!(others, json!([zeros, "more", "tile/0/000.p/3", "verify.html"]));
    let ran = Ran::in_dir(dir.path(), &["verify", "export", "--key", &site.vkey]);
    assert!(ran.stdout.contains("not checked: the file `verify.html`"), "{}", ran.stdout);
}

#[tokio::test]
async fn checkpoints_kept_one_after_the_other_are_held_against_the_log() {
    let service = Service::start(Store::Sqlite).await;
    let (site, dir) = (&service.site, TempDir::new());
    let (exported, mut kept) = (Exported::of(site), String::new());
    for _ in 0..2 {
        decide(&service, 2).await;
        exported.again(site);
        kept += &fs::read_to_string(exported.file("checkpoint")).unwrap();
    }
    let path = dir.path().join("kept");
    fs::write(&path, &kept).unwrap();
    let since = ["--since", path.to_str().unwrap()];
    assert_eq!(exported.verify(&site.vkey, &since).json()["since"], json!([4, 6]));
    let torn = kept.replacen("\n6\n", "\n7\n", 1);
    fs::write(&path, torn).unwrap();
    assert!(exported.fault(&site.vkey, &since).contains("entries are missing"));
}

#[tokio::test]
async fn a_key_that_was_superseded_or_retired_signs_nothing_more() {
    let mut service = Service::start(Store::Sqlite).await;
    decide(&service, 1).await;
    let site = service.site.clone();
    assert!(service.terminate().success());
    let (key, former) = (site.path("data/ledger.key"), site.path("data/ledger.key.former"));
    let old = fs::read(&key).unwrap();
    site.run_json(&["keys", "rotate", "--json"]);
    let new = fs::read(&key).unwrap();
    let put = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let refused = |why: &str| {
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    };
    put(&key, &old);
    refused("was superseded by");
    put(&key, &new);
    assert_eq!(fs::read(&former).unwrap(), old, "the former key's file");
    assert_eq!(site.run(&["keys", "retire"]).code, Some(0));
    assert!(!former.exists());
    put(&former, &old);
    refused("was retired in record");
    assert_eq!(
        site.run(&["keys", "retire"]).code,
        Some(0),
        "an attempt that was cut off is finished"
    );
    service = Service::on(site.clone()).await;
    decide(&service, 1).await;
    assert_eq!(service.records_of("key_retired").await.len(), 1);
    let keys = service.get("/v1/audit/keys", "auditor").await.expect(200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    assert_eq!(service.export_and_verify()["retired"].as_array().unwrap().len(), 1);
}
