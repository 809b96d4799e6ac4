//! What the verifier says of a log that its own keeper has forged, key in hand, and of an export that is
//! made to harm whoever verifies it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use lexgate::domain::Digest;
use serde_json::{Value, json};

use crate::{
    forger::{
        ACROSS, ACROSS_OUTCOME, ASKED, DENIED, FIRST_SNAPSHOT, FRANKFURT, Forged, HOLD, KEY_CHANGE,
        KEY_RETIRED, READING, REPORTED, RIYADH, SECOND_SNAPSHOT, SENT, SENT_OUTCOME, SINGAPORE,
        with, write,
    },
    harness::{Ran, Service, Store, TempDir},
    ledger::{Exported, decide},
};

static HONEST: LazyLock<Forged> = LazyLock::new(Forged::honest);

/// What is forged, and what the fault says.
type Forgery = (&'static str, fn(&mut Forged), &'static str);

/// Each forgery alone must be found, and named.
fn found(forgeries: &[Forgery], more: &[&str]) {
    for (name, forge, expected) in forgeries {
        let mut log = HONEST.clone();
        forge(&mut log);
        let ran = log.verify(more);
        assert_eq!(ran.code, Some(1), "{name}: {}{}", ran.stdout, ran.stderr);
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
        let fault = answer["fault"].as_str().unwrap();
        assert!(fault.contains(expected), "{name}: {fault}");
    }
}

fn attempt(log: &mut Forged, n: usize) -> &mut Value {
    &mut log.records[SENT_OUTCOME].body["attempts"][n]
}

/// The attempts of the call that was sent, and one more.
fn attempts(log: &Forged, more: &[(&'static str, i64, i64, Option<&'static str>)]) -> Value {
    let mut log = log.clone();
    let about = log.records[SENT].id;
    log.push_outcome(3_000, about, more);
    log.records.last().unwrap().body["attempts"].clone()
}

#[test]
fn an_honest_log_holds_also_when_it_is_judged_again() {
    let report = HONEST.verify(&["--replay"]).json();
    assert_eq!((&report["entries"], &report["replayed"]), (&json!(17), &json!(5)));
    assert_eq!(report["signed_by"], json!([HONEST.vkey(1)]));
    assert_eq!(report["retired"][0], json!({ "record": KEY_RETIRED, "vkey": HONEST.vkey(0) }));
    assert_eq!(
        report["unchecked"],
        json!({ "files": [], "more_files": 0, "outcomes": 0, "records": 0 })
    );
    // The attempt that overlaps with the next snapshot was sent before it, and may be by its word for as
    // long as that took to be known.
    let mut log = HONEST.clone();
    log.records[ACROSS_OUTCOME].body["attempts"][1]["started"] = log.text(9_400);
    assert_eq!(log.verify(&["--replay"]).json()["holds"], true);
    // Both keys may sign until one is retired, and the retired one is not named.
    log.signers = vec![1, 0];
    assert_eq!(log.verify(&[]).json()["signed_by"], json!([HONEST.vkey(1)]));
    log.records.remove(KEY_RETIRED);
    assert_eq!(log.verify(&[]).json()["signed_by"], json!([HONEST.vkey(1), HONEST.vkey(0)]));
    // What is old enough may go, with whatever lies beside it.
    let mut log = HONEST.clone();
    log.prune(200, &[(SENT, READING), (ACROSS, ACROSS)]);
    let report = log.verify(&["--replay"]).json();
    assert_eq!(report["pruned"], json!([{ "record": 17, "count": 5 }]));
    assert_eq!(report["unchecked"]["outcomes"], 1, "its decision is not here");
    let mut archive = log.clone();
    archive.records.iter_mut().for_each(|record| record.is_removed = false);
    assert_eq!(archive.verify(&[]).json()["pruned"], json!([{ "record": 17, "count": 0 }]));
}

#[test]
fn a_call_that_went_where_its_decision_forbids_is_found() {
    found(
        &[
            (
                "a denied candidate",
                |log| attempt(log, 1)["deployment"] = json!(RIYADH),
                "entry 3: the call of decision 2 was sent to `mistral-small@dc-riyadh`, which is not an allowed candidate",
            ),
            (
                "no candidate at all",
                |log| attempt(log, 0)["deployment"] = json!("gpt-oss@cloud"),
                "the call of decision 2 was sent to `gpt-oss@cloud`, which is not an allowed candidate",
            ),
            (
                "passed over, and never allowed",
                |log| {
                    log.records[SENT_OUTCOME].body["skipped"] =
                        json!([{ "deployment": RIYADH, "reason": "full" }])
                },
                "the call of decision 2 passed over `mistral-small@dc-riyadh`",
            ),
            (
                "tried and passed over",
                |log| {
                    log.records[SENT_OUTCOME].body["skipped"] =
                        json!([{ "deployment": SINGAPORE, "reason": "full" }])
                },
                "entry 3: is a `outcome` that contradicts itself: a deployment was tried, and was passed over",
            ),
            (
                "sent before it was recorded",
                |log| attempt(log, 0)["started"] = log.text(-60_000),
                "entry 3: the attempt at `mistral-small@dc-frankfurt` for decision 2 started at 2026-11-30T23:58:30.000000Z, before the decision was recorded at",
            ),
            (
                "sent after its outcome",
                |log| attempt(log, 1)["finished"] = log.text(60_000),
                "after its outcome was recorded at",
            ),
            (
                "ended before it began",
                |log| {
                    (attempt(log, 0)["started"], attempt(log, 0)["finished"]) =
                        (log.text(40_000), log.text(2_000));
                    log.records[SENT_OUTCOME].ts = log.at(3_000);
                },
                "before it started at",
            ),
            (
                "tried on after an answer",
                |log| {
                    log.records[SENT_OUTCOME].body["attempts"] = attempts(
                        log,
                        &[(FRANKFURT, 1_100, 1_500, None), (SINGAPORE, 2_000, 2_900, None)],
                    )
                },
                "after an attempt that did not fail",
            ),
            (
                "tried again and again",
                |log| {
                    let again = (FRANKFURT, 1_100, 1_200, Some("timeout"));
                    log.records[SENT_OUTCOME].body["attempts"] =
                        attempts(log, &[again, again, again, (SINGAPORE, 2_000, 2_900, None)]);
                },
                "one deployment was tried more than twice",
            ),
            (
                "an answer out of nothing",
                |log| log.records[SENT_OUTCOME].body["attempts"] = json!([]),
                "its status is `ok`, and its last attempt is not a success",
            ),
            (
                "sent, though the caller was to",
                |log| {
                    let about = log.records[ASKED].id;
                    log.push_outcome(20_000, about, &[(FRANKFURT, 19_100, 19_500, None)]);
                },
                "entry 17: is the outcome of decision 4: Lexgate says what became of a call that it was not to send",
            ),
            (
                "reported, though Lexgate was to send it",
                |log| {
                    let outcome = &mut log.records[SENT_OUTCOME].body;
                    (outcome["status"], outcome["reported"]) = (json!("reported"), json!("ok"));
                    outcome["attempts"] = json!([]);
                },
                "entry 3: is the outcome of decision 2: a caller reports it",
            ),
            (
                "an outcome of a denial",
                |log| {
                    let about = log.records[DENIED].id;
                    log.push_outcome(20_000, about, &[(RIYADH, 19_100, 19_500, None)]);
                },
                "entry 17: is the outcome of decision 6, which was a denial",
            ),
        ],
        &[],
    );
}

#[test]
fn a_call_that_was_sent_by_a_snapshot_of_the_past_is_found() {
    let sent = |log: &mut Forged, millis: i64| {
        let at = log.text(millis);
        log.records[ACROSS_OUTCOME].body["attempts"][1]["started"] = at;
    };
    for (millis, expected) in [(9_500, false), (9_499, true)] {
        let mut log = HONEST.clone();
        sent(&mut log, millis);
        let ran = log.verify(&["--replay"]);
        assert_eq!(ran.code == Some(0), expected, "{millis}: {}", ran.stdout);
        assert_eq!(ran.stdout.contains("entry 9: the attempt at `qwen3-32b@meridian-sg` for decision 7 was sent at 2026-11-30T23:59:39.500000Z, when revision 2 did not allow it"), !expected, "{}", ran.stdout);
        assert_eq!(log.verify(&[]).code, Some(0), "only the policies tell");
    }
    // The clauses end at midnight, and no other snapshot is active.
    let mut log = HONEST.clone();
    log.records.truncate(SENT + 1);
    let about = log.records[SENT].id;
    log.push_outcome(
        33_000,
        about,
        &[(FRANKFURT, 1_100, 29_000, Some("timeout")), (SINGAPORE, 30_000, 31_000, None)],
    );
    log.signers = vec![0];
    let ran = log.verify(&["--replay"]);
    assert!(ran.stdout.contains("entry 3: the attempt at `qwen3-32b@meridian-sg` for decision 2 was sent at 2026-12-01T00:00:00.000000Z, when no snapshot was valid"), "{}", ran.stdout);
    let started = log.text(29_999);
    log.records[SENT_OUTCOME].body["attempts"][1]["started"] = started;
    assert_eq!(log.verify(&["--replay"]).json()["holds"], true);
}

#[test]
fn a_decision_that_no_snapshot_makes_is_found() {
    found(
        &[
            (
                "a deployment is placed elsewhere",
                |log| log.records[SENT].body["candidates"][2]["placement"]["store"] = json!(["DE"]),
                "entry 2: the decision is the same, but not its candidates",
            ),
            (
                "a denial turned into an allow",
                |log| {
                    let mut body = log.records[ASKED].body.clone();
                    body["call"] = log.records[DENIED].body["call"].clone();
                    let candidate =
                        with(body["candidates"][0].clone(), "deployment", json!(RIYADH));
                    body["candidates"] = json!([candidate]);
                    body["route"]["deployment"] = json!(RIYADH);
                    log.records[DENIED].body = body;
                },
                "entry 6: was `allow`, is `deny`",
            ),
            (
                "after a fact had changed",
                |log| {
                    log.records.truncate(READING);
                    log.records[ASKED].ts = log.at(30_000);
                    log.signers = vec![0];
                },
                "entry 4: was decided at 2026-12-01T00:00:00.000000Z by the snapshot of entry 1, which was valid until 2026-12-01T00:00:00.000000Z",
            ),
            (
                "instruments that nobody has",
                |log| {
                    let forged = b"[]".to_vec();
                    let digest = Digest::of(&forged);
                    log.contents.insert(digest, forged);
                    for record in &mut log.records[..SECOND_SNAPSHOT] {
                        if record.body.get("snapshot").is_some() {
                            record.body["snapshot"]["registers"] = json!(digest);
                        }
                    }
                },
                "entry 1: activates facts or instruments that its files do not amount to",
            ),
            (
                "a snapshot before its time",
                |log| {
                    for record in &mut log.records {
                        record.ts -= jiff::SignedDuration::from_hours(24 * 400);
                    }
                },
                "entry 1: activates facts or instruments that its files do not amount to",
            ),
        ],
        &["--replay"],
    );
}

#[test]
fn a_decision_that_contradicts_itself_is_found() {
    found(
        &[
            (
                "a denial that is sent",
                |log| log.records[DENIED].body["dispatch"] = json!(true),
                "entry 6: is a `decision` that contradicts itself: it denies a call and says that Lexgate sends it",
            ),
            (
                "an allow of nothing",
                |log| {
                    for candidate in log.records[SENT].body["candidates"].as_array_mut().unwrap() {
                        (candidate["decision"], candidate["duties"]) = (json!("deny"), json!([]));
                    }
                },
                "it allows a call for which no candidate is allowed",
            ),
            (
                "a denial of what is allowed",
                |log| log.records[ASKED].body["decision"] = json!("deny"),
                "it denies a call for which a candidate is allowed",
            ),
            (
                "a route to what is denied",
                |log| log.records[SENT].body["route"]["deployment"] = json!(RIYADH),
                "its route is not one of its allowed candidates",
            ),
            (
                "a route to another place",
                |log| log.records[SENT].body["route"]["jurisdictions"] = json!(["US"]),
                "its route is placed elsewhere",
            ),
            (
                "an allow without a route",
                |log| log.records[SENT].body["route"] = Value::Null,
                "it allows a call and has no route",
            ),
            (
                "a denial with a route",
                |log| log.records[DENIED].body["route"] = log.records[SENT].body["route"].clone(),
                "it denies a call and has a route",
            ),
            (
                "a candidate twice",
                |log| {
                    let candidates = log.records[SENT].body["candidates"].as_array_mut().unwrap();
                    candidates.push(candidates[0].clone());
                },
                "a deployment appears twice among its candidates",
            ),
        ],
        &[],
    );
}

#[test]
fn a_record_in_the_wrong_place_is_found() {
    found(
        &[
            (
                "an outcome before its decision",
                |log| {
                    log.records.swap(SENT, SENT_OUTCOME);
                    let ts = log.records[SENT_OUTCOME].ts;
                    log.records[SENT].ts = ts;
                },
                "entry 2: is the outcome of entry 3, which is not a decision before it",
            ),
            (
                "a second outcome",
                |log| {
                    let (id, ts) = (500, log.at(20_000));
                    let again = log.records[SENT_OUTCOME].clone();
                    log.records.push(crate::forger::Record { id, ts, ..again });
                },
                "entry 17: is a second outcome of decision 2",
            ),
            (
                "a revision twice",
                |log| {
                    let snapshot = log.records[FIRST_SNAPSHOT].body.clone();
                    log.records[SECOND_SNAPSHOT].body = snapshot;
                },
                "entry 8: activates revision 1 after revision 1",
            ),
            (
                "a revision left out",
                |log| log.records[SECOND_SNAPSHOT].body["snapshot"]["revision"] = json!(3),
                "entry 8: activates revision 3 after revision 1",
            ),
            (
                "a revision that was not active",
                |log| {
                    log.records[ACROSS].body["snapshot"] =
                        log.records[SECOND_SNAPSHOT].body["snapshot"].clone()
                },
                "entry 7: decided under revision 2, while another snapshot (revision 1) was active",
            ),
            (
                "a reading moved with its time",
                |log| {
                    let reading = log.records.remove(READING);
                    log.records.push(reading);
                },
                "entry 16: was written at 2026-11-30T23:59:35.000000Z, before the entry in front of it",
            ),
            (
                "one identifier twice",
                |log| log.records[READING].id = log.records[DENIED].id,
                "the entries 5 and 6 have the same `id`, 00000000-0000-0000-0000-000000000007",
            ),
            (
                "an outcome that goes before its decision",
                |log| log.records[SENT_OUTCOME].body["retention"]["months"] = json!(1),
                "entry 3: is kept for 1 months (`eu-ai-act-26-6`), but its decision 2 is kept for 6 months",
            ),
            (
                "an erasure of nothing",
                |log| {
                    log.push("erasure", 20_000, json!({ "erased": [2], "key": "officer" }));
                },
                "entry 17: says that the values of entry 2 were erased, which held none",
            ),
            (
                "a hold lifted that never was",
                |log| log.records[HOLD + 1].body["id"] = json!("case-2"),
                "entry 13: says that the legal hold `case-2` was lifted, but it was never set",
            ),
            (
                "another log's beginning",
                |log| log.records[0].body["origin"] = json!("lexgate.example/other"),
                "entry 0: belongs to the log `lexgate.example/other`",
            ),
            (
                "two beginnings",
                |log| {
                    let (id, ts) = (500, log.at(20_000));
                    log.records.push(crate::forger::Record { id, ts, ..log.records[0].clone() });
                },
                "a log has one `genesis` entry, its first",
            ),
        ],
        &[],
    );
}

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

#[test]
fn a_log_that_its_newest_key_has_not_signed_is_found() {
    found(
        &[
            (
                "the retired key alone",
                |log| log.signers = vec![0],
                "the checkpoint is not signed by `lexgate.example/main+",
            ),
            (
                "the former key alone",
                |log| {
                    log.records.remove(KEY_RETIRED);
                    log.signers = vec![0];
                },
                "the log's key since entry 14, but by a former one",
            ),
            ("a stranger's key", |log| log.signers = vec![2], "none of the given keys has signed"),
            (
                "a key without endorsement",
                |log| {
                    log.push_key_change(20_000, 0, 2);
                    let change = log.records.pop().unwrap().body;
                    let body = with(change, "former", json!(log.vkey(1)));
                    log.push("key_changed", 20_000, body);
                    log.signers = vec![2];
                },
                "entry 17: names another key for the log: the former key has not signed the endorsement",
            ),
            (
                "a retired key endorses",
                |log| {
                    log.push_key_change(20_000, 0, 2);
                    log.signers = vec![2];
                },
                "entry 17: names another key for the log: the former key is not the log's newest",
            ),
            (
                "a retired key comes back",
                |log| {
                    log.push_key_change(20_000, 1, 0);
                    log.signers = vec![0];
                },
                "entry 17: names another key for the log: the key has signed the log before",
            ),
            (
                "the newest key is retired",
                |log| log.records[KEY_RETIRED].body["retired"] = json!(log.vkey(1)),
                "entry 15: says that a key was retired: it is the log's newest key",
            ),
            (
                "a stranger's key is retired",
                |log| log.records[KEY_RETIRED].body["retired"] = json!(log.vkey(2)),
                "entry 15: says that a key was retired: it is not a key of the log",
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
    arguments.extend(more.iter().map(ToString::to_string));
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
