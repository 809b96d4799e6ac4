//! Searches, on either store.

use jiff::SignedDuration;

use super::kit::{Bed, Desk, decision};
use crate::{
    domain::Seq,
    ledger::{Kind, fixture},
    sequencer::Draft,
    store::RecordQuery,
};

super::on_both! {
    records_are_found_by_time_kind_and_place
    records_are_found_by_their_terms
    a_search_keeps_to_its_span_while_others_write
}

/// Genesis, a snapshot, and six decisions a second apart, in positions 2 to 7.
async fn six(bed: &Bed) -> Desk {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    for n in 0..6_u32 {
        desk.clock.advance(SignedDuration::from_secs(1));
        let terms = vec![format!("parity:{}", n % 2), format!("third:{}", n % 3), "nul:\0".into()];
        desk.sequencer.submit(Draft { terms: terms.into(), ..decision(false) }).await.unwrap();
    }
    desk
}

fn all() -> RecordQuery {
    RecordQuery { limit: 100, ..RecordQuery::default() }
}

async fn check(desk: &Desk, query: RecordQuery, want: &[u64]) {
    let found = desk.store.query(&query).await.unwrap();
    let found: Vec<_> = found.iter().map(|stored| stored.seq.get()).collect();
    assert_eq!(found, want, "{query:?}");
}

async fn records_are_found_by_time_kind_and_place(bed: Bed) {
    let desk = six(&bed).await;
    let second = |n| Some(fixture::instant() + SignedDuration::from_secs(n));
    check(&desk, RecordQuery::default(), &[]).await;
    check(&desk, all(), &[0, 1, 2, 3, 4, 5, 6, 7]).await;
    check(&desk, RecordQuery { limit: 2, ..all() }, &[0, 1]).await;
    check(&desk, RecordQuery { after: Some(Seq::new(5)), ..all() }, &[6, 7]).await;
    check(&desk, RecordQuery { after: Some(Seq::new(7)), ..all() }, &[]).await;
    check(&desk, RecordQuery { kind: Some(Kind::BundleActivated), ..all() }, &[1]).await;
    check(&desk, RecordQuery { from: second(5), ..all() }, &[6, 7]).await;
    check(&desk, RecordQuery { from: second(9), ..all() }, &[]).await;
    check(&desk, RecordQuery { to: second(2), ..all() }, &[0, 1, 2]).await;
    check(&desk, RecordQuery { to: second(0), ..all() }, &[]).await;
    check(&desk, RecordQuery { from: second(2), to: second(4), ..all() }, &[3, 4]).await;
    for _ in 0..3 {
        desk.sequencer.submit(decision(false)).await.unwrap();
    }
    check(&desk, RecordQuery { from: second(6), ..all() }, &[7, 8, 9, 10]).await;
    check(&desk, RecordQuery { to: second(6), ..all() }, &[0, 1, 2, 3, 4, 5, 6]).await;
    check(&desk, RecordQuery { from: second(-9), to: second(99), limit: 3, ..all() }, &[0, 1, 2])
        .await;
    let decisions = RecordQuery { kind: Some(Kind::Decision), ..all() };
    check(&desk, decisions, &[2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
}

/// What is written between the questions of a search is not newer than its span begins.
async fn a_search_keeps_to_its_span_while_others_write(bed: Bed) {
    let desk = six(&bed).await;
    let later = Some(fixture::instant() + SignedDuration::from_hours(1));
    let write = async {
        for _ in 0..200 {
            desk.sequencer.submit(decision(false)).await.unwrap();
        }
    };
    let search = async {
        for _ in 0..200 {
            check(&desk, RecordQuery { from: later, ..all() }, &[]).await;
        }
    };
    tokio::join!(write, search);
}

async fn records_are_found_by_their_terms(bed: Bed) {
    let desk = six(&bed).await;
    let words = |words: &[&str]| words.iter().map(|&word| word.into()).collect::<Vec<String>>();
    let having = |terms: &[&str]| RecordQuery { terms: words(terms), ..all() };
    let any_of = |terms: &[&str]| RecordQuery { any_of: words(terms), ..all() };
    check(&desk, having(&["parity:0"]), &[2, 4, 6]).await;
    check(&desk, having(&["parity:0", "third:1"]), &[6]).await;
    check(&desk, having(&["parity:0", "no"]), &[]).await;
    check(&desk, having(&["nul:\u{fffd}"]), &[2, 3, 4, 5, 6, 7]).await;
    check(&desk, any_of(&["third:0", "no"]), &[2, 5]).await;
    check(&desk, any_of(&["third:0", "parity:0"]), &[2, 4, 5, 6]).await;
    check(&desk, any_of(&["no"]), &[]).await;
    let both = RecordQuery { any_of: words(&["third:0"]), ..having(&["parity:0"]) };
    check(&desk, both, &[2]).await;
    let page = RecordQuery { after: Some(Seq::new(2)), limit: 1, ..having(&["parity:0"]) };
    check(&desk, page, &[4]).await;
    let other = RecordQuery { kind: Some(Kind::Outcome), ..having(&["parity:0"]) };
    check(&desk, other, &[]).await;
}
