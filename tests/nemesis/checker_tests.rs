//! The checker finds each breach. A story in which all is well is altered in one thing at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    backends::Sent,
    checker::{check, check_loss},
    export::{Final, roots},
    history::History,
    load::{Manner, Told},
    plan::Scene,
    story::Story,
    watch::{Entry, Shown, Sighting},
    world::Loss,
};

fn entry(seq: u64, kind: &str, body: Value) -> Entry {
    let leaf = Sha256::digest(format!("{seq} {kind} {body}")).into();
    let ts = jiff::Timestamp::from_second(1_000 + i64::try_from(seq).unwrap()).unwrap();
    Entry { seq, leaf, kind: kind.to_owned(), ts, body }
}

fn decision(seq: u64, marker: u64) -> Entry {
    let allowed = json!({ "deployment": "first@nemesis", "decision": "allow" });
    let denied = json!({ "deployment": "third@nemesis", "decision": "deny" });
    let call = json!({ "data": { "subject_count": marker } });
    let body = json!({
        "decision": "allow", "dispatch": true, "candidates": [allowed, denied], "call": call,
    });
    entry(seq, "decision", body)
}

fn outcome(seq: u64, of: &Entry, attempts: &[&str]) -> Entry {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|n| char::from(b"0123456789abcdef"[usize::from(n)]));
    let leaf: String = of.leaf.iter().flat_map(digits).collect();
    let attempts: Vec<Value> = attempts.iter().map(|id| json!({ "deployment": id })).collect();
    let body = json!({
        "decision": { "seq": of.seq, "leaf": leaf }, "status": "ok", "attempts": attempts,
    });
    entry(seq, "outcome", body)
}

fn activation(seq: u64, organisation: &str) -> Entry {
    entry(seq, "bundle_activated", json!({ "snapshot": { "organisation": organisation } }))
}

fn organisation(approved: bool) -> String {
    format!("[[deployments]]\nid = \"first@nemesis\"\napproved = {approved}\n")
}

const MS: Duration = Duration::from_millis(1);

/// A call that was decided, sent, answered and recorded.
fn well() -> (Story, Final) {
    let history = History::begin();
    let (began, decided) = (history.began, decision(1, 7));
    let entries = vec![
        activation(0, "sha256:approves"),
        decided.clone(),
        outcome(2, &decided, &["first@nemesis"]),
    ];
    let sighting = |(n, entry): (u32, &Entry)| Sighting {
        entry: entry.clone(),
        absent: began + MS * 1_000 * n,
        seen: began + MS * (1_000 * n + 40),
        wall: entry.ts,
    };
    let told = Told {
        marker: 7,
        slot: 0,
        manner: Manner::Whole,
        began: began + MS * 900,
        ended: began + MS * 2_100,
        status: Some(200),
        record: Some((1, None)),
        text: String::new(),
    };
    let sent =
        Sent { deployment: 0, at: began + MS * 1_500, marker: Some(7), body: b"hello".to_vec() };
    let shown = Shown {
        by: "replica 0".to_owned(),
        at: began + MS * 2_500,
        size: 2,
        root: roots(&entries)[2].clone(),
    };
    let story = Story {
        scene: Scene::Postgres,
        history,
        sent: vec![sent],
        told: vec![told],
        seen: (0..).zip(&entries).map(sighting).collect(),
        shown: vec![shown],
        published: BTreeSet::new(),
        stops: vec![Vec::new(), Vec::new()],
        loss: None,
    };
    let contents = [("approves", organisation(true)), ("forbids", organisation(false))];
    let contents = contents.map(|(name, text)| (name.to_owned(), text));
    (story, Final { entries, contents: BTreeMap::from(contents) })
}

fn later(instant: &mut Instant, milliseconds: u32) {
    *instant += MS * milliseconds;
}

/// The rule that finds it, what it is, and how it is done.
type Breach = (&'static str, &'static str, fn(&mut Story, &mut Final));

const BREACHES: [Breach; 19] = [
    ("0", "nothing was sent", |story, _| story.sent.clear()),
    ("1", "no record", |story, done| {
        done.entries.remove(1);
        story.seen.remove(1);
    }),
    ("1", "a body that is nobody's", |story, _| story.sent[0].marker = None),
    ("1", "a denial was sent", |_, done| done.entries[1].body["decision"] = json!("deny")),
    ("1", "what was not to be sent was", |_, done| done.entries[1].body["dispatch"] = json!(false)),
    ("1", "sent to a deployment that the decision denies", |story, _| story.sent[0].deployment = 2),
    ("1", "sent before it was there", |story, _| {
        story.sent[0].at = story.seen[1].absent.checked_sub(MS).unwrap();
    }),
    ("1", "sent after it was forbidden", |story, done| {
        let forbids = activation(3, "sha256:forbids");
        let (absent, seen) = (story.history.began, story.history.began + MS * 10);
        story.seen.push(Sighting { entry: forbids.clone(), absent, seen, wall: forbids.ts });
        done.entries.push(forbids);
    }),
    ("2", "answered with another record", |story, _| story.told[0].record = Some((2, None))),
    ("2", "answered with another leaf", |story, _| {
        story.told[0].record = Some((1, Some("00".to_owned())));
    }),
    ("2", "answered without a record", |story, _| story.told[0].record = None),
    ("2", "another tree was shown", |story, _| story.shown[0].size = 1),
    ("2", "another tree was published", |story, _| {
        story.published.insert(("file".to_owned(), 3, "another".to_owned()));
    }),
    ("3", "no outcome", |_, done| drop(done.entries.pop())),
    ("3", "two outcomes", |_, done| {
        let second = outcome(3, &done.entries[1], &["first@nemesis"]);
        done.entries.push(second);
    }),
    ("3", "sent after its outcome", |story, _| later(&mut story.sent[0].at, 1_000)),
    ("3", "an attempt that is not in the outcome", |story, _| {
        let again = story.sent[0].clone();
        story.sent.push(again);
    }),
    ("4", "an entry that is ahead", |story, _| {
        story.seen[1].wall = story.seen[1].entry.ts - jiff::SignedDuration::from_secs(7);
    }),
    ("7", "an answer that took too long", |story, _| {
        later(&mut story.told[0].ended, 60_000);
    }),
];

#[test]
fn a_story_in_which_all_is_well_has_no_finding() {
    let (story, done) = well();
    check(&story, &done);
    assert_eq!(story.history.findings().len(), 0, "{:?}", story.history.findings());
}

#[test]
fn each_breach_is_found() {
    for (rule, what, breach) in BREACHES {
        let (mut story, mut done) = well();
        breach(&mut story, &mut done);
        check(&story, &done);
        let found = story.history.findings();
        assert!(found.iter().any(|finding| finding.rule.starts_with(rule)), "{what}: {found:?}");
    }
}

/// What a process may do only while it stands still is no breach.
#[test]
fn a_pause_excuses_a_late_answer_and_nothing_else() {
    let (mut story, done) = well();
    later(&mut story.told[0].ended, 60_000);
    story.stops[0].push((story.told[0].began, Some(story.told[0].began + MS * 59_000)));
    check(&story, &done);
    assert_eq!(story.history.findings().len(), 0, "{:?}", story.history.findings());
    later(&mut story.sent[0].at, 2_000);
    check(&story, &done);
    assert_eq!(story.history.findings()[0].rule, "3 one outcome");
}

#[test]
fn a_log_that_is_told_anew_is_found() {
    let lost = |story: &Story, done: &Final, after: u32| Loss {
        visible: story.history.began + MS * after,
        lost: done.entries.clone(),
        recovered: None,
        published: BTreeSet::new(),
    };
    // What was answered before the loss, and is in what was lost.
    let (mut story, done) = well();
    story.loss = Some(lost(&story, &done, 3_000));
    check_loss(&story);
    assert_eq!(story.history.findings().len(), 0, "{:?}", story.history.findings());
    // An answer after it.
    story.loss = Some(lost(&story, &done, 500));
    check_loss(&story);
    assert_eq!(story.history.findings()[0].rule, "2 told once");
    // A tree of another past.
    let (mut story, done) = well();
    story.loss = Some(lost(&story, &done, 3_000));
    story.shown[0].root = "another".to_owned();
    check_loss(&story);
    assert_eq!(story.history.findings()[0].rule, "2 told once");
}
