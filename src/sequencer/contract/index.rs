//! The index of terms, on either store: whatever of the log is indexed, a search finds the same.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::kit::{Bed, Desk, Kept, decision, outcome};
use crate::{
    domain::Seq,
    ledger::{DecisionBody, Entry, Kind, SeqRange, fixture},
    sequencer::Draft,
    store::{Indexing, RecordQuery},
};

super::on_both! {
    what_is_indexed_is_found_as_before
    what_an_older_version_wrote_is_found_by_newer_words
    removed_bodies_are_forgotten
    a_log_whose_time_was_corrected_is_searched_by_time
    nothing_but_a_removal_changes_the_index
    what_cannot_be_undone_rests_on_no_index
    a_word_that_only_a_block_has_holds_its_record
    a_forged_block_shows_nothing_and_ends_no_page
    words_of_an_older_version_last_longer_than_their_decision
}

/// More than two blocks.
const MANY: u64 = 2 * 4096 + 300;

/// The words of the `n`th record: a rare one, two that never meet, one that begins late, and its own.
fn words(n: u64) -> Vec<String> {
    let mut words = vec![format!("half:{}", n % 2), format!("own:{n}"), "key:desk".to_owned()];
    words.extend((n % 1000 == 7).then(|| "rare:7".to_owned()));
    words.extend((n > 5000).then(|| "late:1".to_owned()));
    words
}

/// A log of `MANY` records, a millisecond apart, none of them indexed.
async fn filled(bed: &Bed) -> Desk {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let mut next = desk.store.head().await.unwrap().unwrap().next.get();
    while next < MANY {
        desk.clock.advance(SignedDuration::from_millis(256));
        let drafts: Vec<Draft> = (next..(next + 256).min(MANY))
            .map(|n| Draft { terms: words(n).into(), ..decision(false) })
            .collect();
        next += drafts.len() as u64;
        for receipt in desk.sequencer.submit_all(drafts).await.unwrap() {
            receipt.unwrap();
        }
    }
    desk
}

async fn find(desk: &Desk, query: &RecordQuery) -> Vec<u64> {
    let found = desk.store.query(query).await.unwrap();
    found.iter().map(|stored| stored.seq.get()).collect()
}

/// What a search finds, by looking at each record.
fn expected(query: &RecordQuery, gone: &BTreeSet<u64>) -> Vec<u64> {
    let matches = |n: &u64| {
        let words = words(*n);
        *n > 1
            && !gone.contains(n)
            && query.after.is_none_or(|after| *n > after.get())
            && query.before.is_none_or(|before| *n < before.get())
            && query.terms.iter().all(|term| words.contains(term))
            && (query.any_of.is_empty() || query.any_of.iter().any(|term| words.contains(term)))
    };
    let all = (0..MANY).filter(matches);
    if query.newest_first {
        return all.rev().take(query.limit).collect();
    }
    all.take(query.limit).collect()
}

fn questions() -> Vec<RecordQuery> {
    let having = |terms: &str| RecordQuery {
        kind: Some(Kind::Decision),
        terms: terms.split_whitespace().map(str::to_owned).collect(),
        limit: 40,
        ..RecordQuery::default()
    };
    let mut questions = Vec::new();
    for terms in [
        "",
        "half:1",
        "half:1 half:0",
        "half:1 rare:7",
        "half:0 rare:7",
        "late:1 half:0",
        "own:4097",
        "own:8200 late:1",
        "none:1",
    ] {
        let question = having(terms);
        let among = vec!["rare:7".to_owned(), "own:6000".to_owned()];
        let within = (Some(Seq::new(4090)), Some(Seq::new(4100)));
        questions.push(RecordQuery { any_of: among, ..question.clone() });
        questions.push(RecordQuery { after: within.0, before: within.1, ..question.clone() });
        questions.push(RecordQuery { after: Some(Seq::new(5001)), ..question.clone() });
        questions.push(RecordQuery { limit: 20_000, ..question.clone() });
        questions.push(question);
    }
    let newest = |question: &RecordQuery| RecordQuery { newest_first: true, ..question.clone() };
    let newest: Vec<_> = questions.iter().map(newest).collect();
    questions.into_iter().chain(newest).collect()
}

/// Every `step`th question: those at what is not indexed take long.
async fn check(desk: &Desk, gone: &BTreeSet<u64>, step: usize) {
    for question in questions().into_iter().step_by(step) {
        assert_eq!(find(desk, &question).await, expected(&question, gone), "{question:?}");
    }
}

async fn what_is_indexed_is_found_as_before(bed: Bed) {
    let desk = filled(&bed).await;
    let gone = BTreeSet::new();
    assert_eq!(desk.store.unindexed().await.unwrap(), MANY);
    assert_eq!(
        desk.store.occurring(&["own:5".to_owned()]).await.unwrap(),
        None,
        "too much to look"
    );
    check(&desk, &gone, 7).await;
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    check(&desk, &gone, 4).await;
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::UpToDate);
    assert_eq!(desk.store.unindexed().await.unwrap(), 300);
    check(&desk, &gone, 1).await;

    let terms = ["own:5", "own:8400", "none:1", "kind:genesis"].map(str::to_owned);
    let occurring = desk.store.occurring(&terms).await.unwrap();
    assert_eq!(occurring.unwrap(), ["kind:genesis", "own:5", "own:8400"]);

    // A cursor holds while the log grows.
    let page = RecordQuery { newest_first: true, limit: 3, ..RecordQuery::default() };
    let first = find(&desk, &page).await;
    assert_eq!(first, [MANY - 1, MANY - 2, MANY - 3]);
    desk.sequencer.submit(decision(false)).await.unwrap();
    let next = RecordQuery { before: Some(Seq::new(MANY - 3)), ..page };
    assert_eq!(find(&desk, &next).await, [MANY - 4, MANY - 5, MANY - 6]);
}

async fn what_an_older_version_wrote_is_found_by_newer_words(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let decided = desk.sequencer.submit(decision(true)).await.unwrap();
    let ended = desk.sequencer.submit(outcome(&decided)).await.unwrap();
    // What the former version left beside them: fewer words, or none.
    bed.execute(match bed.kept() {
        Kept::Sqlite => "DROP TRIGGER entries_no_update; UPDATE entries SET terms = NULL",
        Kept::Postgres => {
            "ALTER TABLE entries DISABLE TRIGGER USER;
             UPDATE entries SET terms = '{tenant:acme}' WHERE kind IN ('decision', 'outcome')"
        }
    })
    .await
    .unwrap();
    let both = [decided.seq.get(), ended.seq.get()];
    let entry = Entry::parse(&decided.entry).unwrap();
    let body: DecisionBody = serde_json::from_str(entry.body.get()).unwrap();
    let purpose = format!("purpose:{}", body.call.purpose.unwrap());
    let (id, limit) = (Some(entry.id), 9);
    let has =
        |term: &str| RecordQuery { terms: vec![term.to_owned()], limit, ..RecordQuery::default() };
    let check = async || {
        for term in ["key:support-copilot", "origin:DE", "tenant:acme", &purpose] {
            assert_eq!(find(&desk, &has(term)).await, both, "{term}");
        }
        assert_eq!(find(&desk, &has("destination:DE")).await, both);
        assert_eq!(find(&desk, &has("decision:allow")).await, both[..1]);
        assert_eq!(find(&desk, &has("purpose:x:other")).await, [0_u64; 0]);
        let about = RecordQuery { id, limit, ..RecordQuery::default() };
        assert_eq!(find(&desk, &about).await, both, "a decision and its outcome");
        let newest = RecordQuery { newest_first: true, ..about };
        assert_eq!(find(&desk, &newest).await, [both[1], both[0]]);
    };
    check().await;
    let drafts: Vec<Draft> = (0..4096).map(|_| decision(false)).collect();
    for drafts in drafts.chunks(256) {
        for receipt in desk.sequencer.submit_all(drafts.to_vec()).await.unwrap() {
            receipt.unwrap();
        }
    }
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    let first = |term: &str| RecordQuery { limit: 2, ..has(term) };
    assert_eq!(find(&desk, &first("key:support-copilot")).await, both);
    assert_eq!(find(&desk, &first(&purpose)).await, both);
    while desk.store.clear_former_index().await.unwrap() {}
}

async fn removed_bodies_are_forgotten(bed: Bed) {
    let desk = filled(&bed).await;
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    let mut gone = BTreeSet::new();
    // Across the end of what is indexed, a single one, and all of a block but for its first.
    for (first, last) in [(4000, 4200), (7, 7), (8193, 8400), (1000, 3000)] {
        let range = SeqRange { first: Seq::new(first), last: Seq::new(last) };
        let removed = desk.store.remove_bodies(range, Seq::new(MANY)).await.unwrap();
        assert_eq!(removed, Some(last - first + 1));
        gone.extend(first..=last);
        check(&desk, &gone, 11).await;
    }
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    check(&desk, &gone, 1).await;
    let terms = ["own:7", "own:4200", "own:3001"].map(str::to_owned);
    assert_eq!(desk.store.occurring(&terms).await.unwrap().unwrap(), ["own:3001"]);
}

async fn a_log_whose_time_was_corrected_is_searched_by_time(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    for _ in 0..4 {
        desk.clock.advance(SignedDuration::from_secs(10));
        desk.sequencer.submit(decision(false)).await.unwrap();
    }
    // As if an operator had corrected the log's time there: it goes back by 25 seconds.
    let back = |seq: u64, seconds: i64| {
        let ts = fixture::instant() + SignedDuration::from_secs(seconds);
        format!("UPDATE entries SET ts = {} WHERE seq = {seq};", ts.as_microsecond())
    };
    let off = match bed.kept() {
        Kept::Sqlite => "DROP TRIGGER entries_no_update;",
        Kept::Postgres => "ALTER TABLE entries DISABLE TRIGGER USER;",
    };
    let corrected = "UPDATE entries SET kind = 'clock_corrected' WHERE seq = 4;";
    bed.execute(&[off, corrected, &back(4, 5), &back(5, 15)].concat()).await.unwrap();
    let at = |seconds: i64| Some(fixture::instant() + SignedDuration::from_secs(seconds));
    let span = |from, to| RecordQuery { from, to, limit: 9, ..RecordQuery::default() };
    assert_eq!(find(&desk, &span(at(0), at(10))).await, [0, 1, 4]);
    assert_eq!(find(&desk, &span(at(10), at(20))).await, [2, 5]);
    assert_eq!(find(&desk, &span(at(16), None)).await, [3]);
    assert_eq!(find(&desk, &span(None, at(6))).await, [0, 1, 4]);
    let newest = RecordQuery { newest_first: true, ..span(at(10), None) };
    assert_eq!(find(&desk, &newest).await, [5, 3, 2]);
}

async fn nothing_but_a_removal_changes_the_index(bed: Bed) {
    let desk = filled(&bed).await;
    desk.store.index_block().await.unwrap();
    for change in [
        "UPDATE term_blocks SET block = block + 1",
        "DELETE FROM term_blocks WHERE term = 'rare:7'",
    ] {
        let refused = bed.execute(change).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{change}: {refused}");
    }
}

async fn what_cannot_be_undone_rests_on_no_index(bed: Bed) {
    let desk = filled(&bed).await;
    let rare = RecordQuery { terms: vec!["rare:7".into()], limit: 9, ..RecordQuery::default() };
    let some: Vec<Seq> = [6, 7, 1007, 4099, 8007].map(Seq::new).into();
    let held: BTreeSet<Seq> = [7, 1007, 8007].map(Seq::new).into();
    for (next, is_whole) in [(4096, true), (8_192_000, false), (4097, false)] {
        // As somebody would who wants a search to find nothing.
        bed.execute(&format!("UPDATE term_progress SET next = {next}")).await.unwrap();
        assert_eq!(desk.store.query(&rare).await.is_ok(), is_whole, "{next}");
        let matching = desk.store.matching(std::slice::from_ref(&rare), &some).await.unwrap();
        assert_eq!(matching, std::slice::from_ref(&held), "{next}");
        let activation =
            RecordQuery { kind: Some(Kind::BundleActivated), limit: 9, ..RecordQuery::default() };
        assert_eq!(find(&desk, &activation).await, [1], "what decides is found: {next}");
    }
    bed.execute("UPDATE term_progress SET next = 0").await.unwrap();
    let late = RecordQuery { after: Some(Seq::new(1006)), ..rare.clone() };
    let other = RecordQuery { kind: Some(Kind::Outcome), ..rare };
    let matching = desk.store.matching(&[late, other], &some).await.unwrap();
    assert_eq!(matching, [[1007, 8007].map(Seq::new).into(), BTreeSet::new()], "each by itself");
}

async fn words_of_an_older_version_last_longer_than_their_decision(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let decided = desk.sequencer.submit(decision(true)).await.unwrap();
    let ended = desk.sequencer.submit(outcome(&decided)).await.unwrap();
    let seq = ended.seq.get();
    if bed.kept() == Kept::Sqlite {
        let former = format!(
            "DROP TRIGGER entries_no_update; UPDATE entries SET terms = NULL;
             INSERT INTO former_entry_terms VALUES ('tenant:former', {seq}), ('zone:x', 0)"
        );
        bed.execute(&former).await.unwrap();
    } else {
        let former = format!(
            "ALTER TABLE entries DISABLE TRIGGER USER;
             UPDATE entries SET terms = '{{tenant:former}}' WHERE seq = {seq}"
        );
        bed.execute(&former).await.unwrap();
    }
    let range = SeqRange { first: decided.seq, last: decided.seq };
    assert_eq!(desk.store.remove_bodies(range, Seq::new(9)).await.unwrap(), Some(1));
    let query = RecordQuery {
        terms: vec!["tenant:former".into()],
        any_of: vec!["tenant:former".into()],
        limit: 9,
        ..RecordQuery::default()
    };
    // As a hold asks, which nobody is limited in.
    let former = RecordQuery { any_of: Vec::new(), ..query.clone() };
    let found = async || {
        assert_eq!(find(&desk, &query).await, [seq]);
        let queries = [query.clone(), former.clone()];
        let matching = desk.store.matching(&queries, &[decided.seq, ended.seq]).await.unwrap();
        assert_eq!(matching, [[ended.seq].into(), [ended.seq].into()]);
    };
    found().await;
    while desk.store.clear_former_index().await.unwrap() {}
    found().await;
    let drafts: Vec<Draft> = (0..4096).map(|_| decision(false)).collect();
    for drafts in drafts.chunks(256) {
        for receipt in desk.sequencer.submit_all(drafts.to_vec()).await.unwrap() {
            receipt.unwrap();
        }
    }
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    while desk.store.clear_former_index().await.unwrap() {}
    found().await;
}

async fn a_word_that_only_a_block_has_holds_its_record(bed: Bed) {
    let desk = filled(&bed).await;
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    // As of an outcome whose decision has gone: neither it nor what is beside it has the word any more.
    let five = if bed.kept() == Kept::Sqlite { "x'0005'" } else { r"'\x0005'" };
    let word = format!("INSERT INTO term_blocks VALUES ('purpose:gone', 0, {five})");
    bed.execute(&word).await.unwrap();
    let query =
        RecordQuery { terms: vec!["purpose:gone".into()], limit: 9, ..RecordQuery::default() };
    assert_eq!(find(&desk, &query).await, [5]);
    let some = [4, 5, 6].map(Seq::new);
    assert_eq!(desk.store.matching(&[query], &some).await.unwrap(), [[Seq::new(5)].into()]);
}

async fn a_forged_block_shows_nothing_and_ends_no_page(bed: Bed) {
    let desk = filled(&bed).await;
    assert_eq!(desk.store.index_block().await.unwrap(), Indexing::Indexed);
    if bed.kept() == Kept::Sqlite {
        return; // it has no role that could
    }
    let all = "ff".repeat(512);
    let forged = format!(r"INSERT INTO term_blocks VALUES ('place:x', 0, '\x{all}')");
    bed.execute(&forged).await.unwrap();
    let limited = |any: &[&str], newest_first| RecordQuery {
        any_of: any.iter().map(|word| (*word).to_owned()).collect(),
        newest_first,
        limit: 40,
        ..RecordQuery::default()
    };
    assert_eq!(find(&desk, &limited(&["place:x"], false)).await, [0_u64; 0]);
    let some: Vec<u64> = (5001..5041).collect();
    assert_eq!(find(&desk, &limited(&["place:x", "late:1"], false)).await, some, "a whole page");
    let newest: Vec<u64> = (MANY - 40..MANY).rev().collect();
    assert_eq!(find(&desk, &limited(&["place:x", "late:1"], true)).await, newest);
}
