//! The rules, held against the log, what backends received, and what clients were answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    backends::{DEPLOYMENTS, FIRST_BYTE},
    export::roots,
    load::{Manner, Told},
    story::Story,
    watch::{Entry, Sighting},
};

pub(super) use super::export::Final;

const RECORD: &str = "1 record before call";
const FORBIDDEN: &str = "1 forbidden deployment";
const ANSWERED: &str = "2 answered is recorded";
const ONCE: &str = "2 told once";
const OUTCOME: &str = "3 one outcome";
const TIME: &str = "4 time";
const PROMPT: &str = "7 answered in time";
const VACUOUS: &str = "0 nothing was shown";

/// How long a decision may rest on a snapshot that was replaced, and what a busy machine adds.
const CONFIRMED: Duration = Duration::from_millis(500 + 700);
/// How far an entry's time may be ahead of the true time, and what a busy machine adds, in seconds.
const AHEAD: i64 = 5 + 1;
/// How long a decision may take.
const DECISION: Duration = Duration::from_secs(2);
/// What a busy machine adds to an answer: a debug build reads a changed snapshot for seconds.
const BUSY: Duration = Duration::from_secs(10);
/// How long a call may take: each deployment twice, and the pause between.
const CALL: Duration =
    Duration::from_secs(DECISION.as_secs() + 2 * 3 * (FIRST_BYTE.as_secs() + 1) + 5);

/// Every entry that ever was, by its leaf: of the log that is, the one that was lost, and what was seen.
fn every_entry<'a>(story: &'a Story, done: &'a Final) -> Vec<&'a Entry> {
    let lost = story.loss.iter().flat_map(|loss| &loss.lost);
    let all = done.entries.iter().chain(lost).chain(story.seen.iter().map(|seen| &seen.entry));
    let mut by_leaf = BTreeMap::new();
    for entry in all {
        by_leaf.entry(entry.leaf).or_insert(entry);
    }
    by_leaf.into_values().collect()
}

/// Holds a round against the rules.
pub(super) fn check(story: &Story, done: &Final) {
    let every = every_entry(story, done);
    // A leaf that was seen in two stores counts where it was seen first.
    let mut first: BTreeMap<[u8; 32], &Sighting> = BTreeMap::new();
    for sighting in &story.seen {
        first.entry(sighting.entry.leaf).or_insert(sighting);
    }
    calls_have_records(story, done, &every, &first);
    sent_before_their_outcome(story, &every, &first);
    outcomes(story, done);
    answers(story, done);
    checkpoints(story, done);
    ahead(story, &first);
    if story.sent.is_empty() || !story.told.iter().any(|told| told.record.is_some()) {
        story
            .history
            .finding(VACUOUS, format!("{} calls, none answered or none sent", story.told.len()));
    }
    in_time(story);
}

/// The log's time is not ahead of the true one.
fn ahead(story: &Story, first: &BTreeMap<[u8; 32], &Sighting>) {
    let mut sightings: Vec<_> = first.values().collect();
    sightings.sort_by_key(|sighting| sighting.seen);
    for Sighting { entry, wall, .. } in sightings {
        let ahead = entry.ts.as_second() - wall.as_second();
        if ahead > AHEAD {
            let text = format!("entry {} is {ahead} s ahead of the true time", entry.seq);
            story.history.finding(TIME, text);
        }
    }
}

fn calls_have_records(
    story: &Story,
    done: &Final,
    every: &[&Entry],
    first: &BTreeMap<[u8; 32], &Sighting>,
) {
    let decisions = by_marker(every);
    for sent in &story.sent {
        let at = story.history.at(sent.at);
        let deployment = DEPLOYMENTS[sent.deployment];
        let Some(marker) = sent.marker else {
            // A replica that was killed between the head and the body has sent nothing of a call.
            if sent.body.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(&sent.body).into_owned();
            story
                .history
                .finding(RECORD, format!("{at}: {deployment} got what nobody sent: {text}"));
            continue;
        };
        let Some(decision) = decisions.get(&marker) else {
            let text = format!("{at}: {deployment} got call {marker}, of which there is no record");
            story.history.finding(RECORD, text);
            continue;
        };
        let of = format!("{at}: {deployment} got call {marker}, record {}", decision.seq);
        if decision.body["decision"] != "allow" || decision.body["dispatch"] != true {
            story.history.finding(RECORD, format!("{of}, which does not allow it"));
        }
        let candidates = decision.body["candidates"].as_array().into_iter().flatten();
        let mut of_it = candidates.filter(|candidate| candidate["deployment"] == deployment);
        if !of_it.any(|candidate| candidate["decision"] == "allow") {
            story
                .history
                .finding(FORBIDDEN, format!("{of}, whose decision does not allow it there"));
        }
        if let Some(sighting) = first.get(&decision.leaf).filter(|seen| sent.at < seen.absent) {
            let absent = story.history.at(sighting.absent);
            story.history.finding(RECORD, format!("{of}, which was not there at {absent}"));
        }
        if !story.scene.loses() && !approved_then(done, first, sent.at, deployment) {
            let text = format!("{of}, after it was forbidden there");
            story.history.finding(FORBIDDEN, text);
        }
    }
}

/// Whether a snapshot that may have been the active one at `at` approves the deployment.
fn approved_then(
    done: &Final,
    first: &BTreeMap<[u8; 32], &Sighting>,
    at: Instant,
    deployment: &str,
) -> bool {
    let mut activations: Vec<_> =
        first.values().filter(|seen| seen.entry.kind == "bundle_activated").collect();
    activations.sort_by_key(|seen| seen.entry.seq);
    // The last one that everybody must know, and what came after it and before the call.
    let known = activations.iter().rposition(|seen| seen.seen + CONFIRMED < at).unwrap_or(0);
    activations[known..].iter().filter(|seen| seen.absent <= at).any(|seen| {
        let organisation = seen.entry.body["snapshot"]["organisation"].as_str().unwrap_or_default();
        done.approves(organisation, deployment)
    })
}

fn by_marker<'a>(entries: &[&'a Entry]) -> BTreeMap<u64, &'a Entry> {
    let numbered = |entry: &&'a Entry| entry.marker().map(|marker| (marker, *entry));
    entries.iter().filter_map(numbered).collect()
}

/// No attempt is sent once the log says how the call ended.
fn sent_before_their_outcome(
    story: &Story,
    every: &[&Entry],
    first: &BTreeMap<[u8; 32], &Sighting>,
) {
    let mut ended = BTreeMap::new();
    for entry in every {
        let (Some(decision), Some(seen)) = (entry.decision(), first.get(&entry.leaf)) else {
            continue;
        };
        let leaf = entry.body["decision"]["leaf"].as_str().unwrap_or_default().to_owned();
        ended.insert((decision, leaf), (entry.seq, seen.seen));
    }
    let decisions = by_marker(every);
    for sent in &story.sent {
        let decision = sent.marker.and_then(|marker| decisions.get(&marker));
        let Some(decision) = decision else { continue };
        let Some((seq, seen)) = ended.get(&(decision.seq, hex(&decision.leaf))) else { continue };
        if sent.at > *seen {
            let (at, then) = (story.history.at(sent.at), story.history.at(*seen));
            let deployment = DEPLOYMENTS[sent.deployment];
            let text = format!(
                "{at}: {deployment} got the call of record {}, whose outcome {seq} was there at {then}",
                decision.seq
            );
            story.history.finding(OUTCOME, text);
        }
    }
}

/// Each call that is sent has one outcome, which names every attempt unless it knows nothing.
fn outcomes(story: &Story, done: &Final) {
    let mut found: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
    for entry in &done.entries {
        if let Some(decision) = entry.decision() {
            found.entry(decision).or_default().push(entry);
        }
    }
    let mut sent: BTreeMap<(u64, usize), usize> = BTreeMap::new();
    for call in &story.sent {
        *sent.entry((call.marker.unwrap_or(0), call.deployment)).or_default() += 1;
    }
    for decision in done.entries.iter().filter(|entry| entry.body["dispatch"] == true) {
        let of_it = found.get(&decision.seq).map_or(&[][..], Vec::as_slice);
        let [outcome] = of_it else {
            let text = format!("decision {} has {} outcomes", decision.seq, of_it.len());
            story.history.finding(OUTCOME, text);
            continue;
        };
        if outcome.body["status"] == "unknown" {
            continue;
        }
        let attempts = outcome.body["attempts"].as_array().unwrap();
        for (n, deployment) in DEPLOYMENTS.iter().enumerate() {
            let got = sent.get(&(decision.marker().unwrap_or(0), n)).copied().unwrap_or(0);
            let said =
                attempts.iter().filter(|attempt| attempt["deployment"] == *deployment).count();
            if got > said {
                let text = format!(
                    "{deployment} got the call of record {} {got} times, outcome {} says {said}",
                    decision.seq, outcome.seq
                );
                story.history.finding(OUTCOME, text);
            }
        }
    }
}

/// What was answered is where the answer said.
fn answers(story: &Story, done: &Final) {
    let since = story.loss.as_ref().and_then(|loss| loss.recovered);
    for told in &story.told {
        if since.is_none_or(|since| told.began > since) {
            answer_is_in(story, told, &done.entries);
        }
    }
}

fn answer_is_in(story: &Story, told: &Told, log: &[Entry]) {
    let at = story.history.at(told.ended);
    let Some((seq, leaf)) = &told.record else {
        if told.status == Some(200) {
            let text = format!("{at}: call {} was answered without a record", told.marker);
            story.history.finding(ANSWERED, text);
        }
        return;
    };
    let entry = usize::try_from(*seq).ok().and_then(|seq| log.get(seq));
    let is_it = entry.is_some_and(|entry| {
        let same = leaf.as_ref().is_none_or(|leaf| *leaf == hex(&entry.leaf));
        entry.marker() == Some(told.marker) && same
    });
    if !is_it {
        let text =
            format!("{at}: call {} was answered with record {seq}, which is not it", told.marker);
        story.history.finding(ANSWERED, text);
    }
}

/// Every checkpoint that a replica showed or published is one of this log.
fn checkpoints(story: &Story, done: &Final) {
    let since = story.loss.as_ref().and_then(|loss| loss.recovered);
    let roots = roots(&done.entries);
    for shown in &story.shown {
        if since.is_none_or(|since| shown.at > since) {
            is_of(story, &roots, &shown.by, shown.size, &shown.root);
        }
    }
    let before = story.loss.as_ref().map_or_else(BTreeSet::new, |loss| loss.published.clone());
    for published in &story.published {
        let (by, size, root) = published;
        if !before.contains(published) {
            is_of(story, &roots, by, *size, root);
        }
    }
}

fn is_of(story: &Story, roots: &[String], by: &str, size: u64, root: &str) {
    let known = usize::try_from(size).ok().and_then(|size| roots.get(size));
    if known.is_none_or(|known| known != root) {
        let text = format!(
            "{by}: a checkpoint of {size} entries with the root {root}, which the log never had"
        );
        story.history.finding(ONCE, text);
    }
}

/// After a loss, and before an operator has said that the log is to go on without it.
pub(super) fn check_loss(story: &Story) {
    let Some(loss) = &story.loss else { return };
    for told in &story.told {
        if let Some((seq, _)) = told.record.as_ref().filter(|_| told.began > loss.visible) {
            let (at, slot) = (story.history.at(told.ended), told.slot);
            let text = format!(
                "{at}: replica {slot} answered with record {seq} after the log was set back"
            );
            story.history.finding(ONCE, text);
        } else {
            answer_is_in(story, told, &loss.lost);
        }
    }
    let roots = roots(&loss.lost);
    for (by, size, root) in &story.published {
        is_of(story, &roots, by, *size, root);
    }
    for shown in &story.shown {
        is_of(story, &roots, &shown.by, shown.size, &shown.root);
    }
}

/// Answers come in time, and say what they may say.
fn in_time(story: &Story) {
    for told in &story.told {
        let Some(status) = told.status else { continue };
        let at = story.history.at(told.began);
        let of = format!("{at}: {:?} {} at replica {}", told.manner, told.marker, told.slot);
        if ![200, 429, 502, 503, 504].contains(&status) {
            story.history.finding(PROMPT, format!("{of} was answered {status}: {}", told.text));
        }
        let stood: Duration = story.stops[told.slot]
            .iter()
            .map(|(from, until)| {
                let until = until.unwrap_or(told.ended).min(told.ended);
                until.saturating_duration_since((*from).max(told.began))
            })
            .sum();
        let bound = if told.manner == Manner::Decide { DECISION } else { CALL };
        let took = told.ended - told.began;
        if took > bound + BUSY + stood {
            let text =
                format!("{of} was answered {status} after {took:?}, of which it stood {stood:?}");
            story.history.finding(PROMPT, text);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
