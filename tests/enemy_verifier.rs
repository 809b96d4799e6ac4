//! What the verifier says of a log that its own keeper has forged, key in hand.

use std::sync::LazyLock;

use lexgate::domain::Digest;
use serde_json::{Value, json};

use crate::forger::{
    ACROSS, ACROSS_OUTCOME, ASKED, DENIED, FIRST_SNAPSHOT, FRANKFURT, Forged, HOLD, KEY_RETIRED,
    READING, RIYADH, Record, SECOND_SNAPSHOT, SENT, SENT_OUTCOME, SINGAPORE, with,
};

pub(crate) static HONEST: LazyLock<Forged> = LazyLock::new(Forged::honest);

/// What is forged, and what the fault says.
pub(crate) type Forgery = (&'static str, fn(&mut Forged), &'static str);

/// Each forgery alone must be found, and named.
pub(crate) fn found(forgeries: &[Forgery], more: &[&str]) {
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

/// Calls that were not sent as their decisions say.
const UNLAWFUL: &[Forgery] = &[
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
                json!([{ "deployment": RIYADH, "reason": "full" }]);
        },
        "the call of decision 2 passed over `mistral-small@dc-riyadh`",
    ),
    (
        "tried and passed over",
        |log| {
            log.records[SENT_OUTCOME].body["skipped"] =
                json!([{ "deployment": SINGAPORE, "reason": "full" }]);
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
            log.records[SENT_OUTCOME].body["attempts"] =
                attempts(log, &[(FRANKFURT, 1_100, 1_500, None), (SINGAPORE, 2_000, 2_900, None)]);
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
];

#[test]
fn a_call_that_went_where_its_decision_forbids_is_found() {
    found(UNLAWFUL, &[]);
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
                    log.records.push(Record { id, ts, ..again });
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
                        log.records[SECOND_SNAPSHOT].body["snapshot"].clone();
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
                    log.records.push(Record { id, ts, ..log.records[0].clone() });
                },
                "a log has one `genesis` entry, its first",
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
