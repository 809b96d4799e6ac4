//! What a store does when somebody has been at it.

use std::{fs, path::Path, time::Duration};

use sqlx::{Connection as _, Executor as _, SqliteConnection};

use super::kit::{Bed, Desk, Kept, decision};
use crate::{
    domain::Digest,
    ledger::{SeqRange, fixture},
    store::StoreError,
};

super::on_both! {
    a_store_says_what_it_is
    a_content_is_held_against_its_digest
    entries_behind_the_head_are_found
    a_row_is_written_to_see_whether_one_can_be
}

async fn a_store_says_what_it_is(bed: Bed) {
    let said = bed.migrated().await.examine().await.unwrap();
    let setting = |name: &str| said.settings.get(name).map_or("", String::as_str);
    match said.engine.as_str() {
        "sqlite" => assert_eq!((setting("journal_mode"), setting("synchronous")), ("wal", "full")),
        "postgres" => {
            let durable = ["fsync", "full_page_writes", "synchronous_commit"].map(setting);
            assert_eq!(durable, ["on", "on", "on"]);
        }
        engine => panic!("{engine}"),
    }
    assert!(!said.version.is_empty());
}

async fn a_content_is_held_against_its_digest(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let digest = Digest::of(b"bundle 1");
    assert_eq!(desk.store.content(digest).await.unwrap().unwrap(), b"bundle 1");
    let (unlock, other) = if bed.url.starts_with("sqlite") {
        ("DROP TRIGGER contents_no_update", "x'6f74686572'")
    } else {
        ("ALTER TABLE contents DISABLE TRIGGER append_only", "'other'")
    };
    bed.execute(&format!("{unlock}; UPDATE contents SET bytes = {other}")).await.unwrap();
    let read = desk.store.content(digest).await;
    assert!(matches!(read, Err(StoreError::Content(found)) if found == digest), "{read:?}");
}

async fn entries_behind_the_head_are_found(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    desk.store.examine().await.unwrap();
    bed.execute("UPDATE head SET next = next - 1").await.unwrap();
    let examined = desk.store.examine().await;
    assert!(matches!(examined, Err(StoreError::Corrupt(_))), "{examined:?}");
}

async fn a_row_is_written_to_see_whether_one_can_be(bed: Bed) {
    let store = bed.migrated().await;
    for _ in 0..3 {
        store.writable().await.unwrap();
    }
    // Nothing that is written so lives.
    store.prune(fixture::instant()).await.unwrap();
    bed.execute("DROP TABLE leases").await.unwrap();
    assert!(store.writable().await.is_err());
}

#[tokio::test]
async fn what_is_erased_leaves_the_write_ahead_log() {
    let bed = Bed::new(Kept::Sqlite).await;
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let seq = desk.insist(decision(false)).await.seq;
    let path = bed.url.trim_start_matches("sqlite://").to_owned();
    let log = || fs::metadata(format!("{path}-wal")).map_or(0, |found| found.len());
    // Somebody reads what was there before.
    let mut reader = SqliteConnection::connect(&bed.url).await.unwrap();
    reader.execute("BEGIN; SELECT count(*) FROM entries").await.unwrap();
    let range = SeqRange { first: seq, last: seq };
    assert_eq!(desk.store.remove_bodies(range, seq).await.unwrap(), Some(1));
    assert!(log() > 0, "the reader was not in the way");
    reader.execute("ROLLBACK").await.unwrap();
    desk.store.examine().await.unwrap();
    assert_eq!(log(), 0, "what was removed is still there");
}

#[tokio::test]
async fn a_file_that_is_replaced_is_not_written_to() {
    let bed = Bed::new(Kept::Sqlite).await;
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let path = bed.url.trim_start_matches("sqlite://");
    let aside = format!("{path}.aside");
    fs::rename(path, &aside).unwrap();
    let gone = desk.store.examine().await.unwrap_err().to_string();
    assert!(gone.contains("`file` is `gone`"), "{gone}");
    fs::copy(&aside, path).unwrap();
    let other = desk.store.examine().await.unwrap_err().to_string();
    assert!(other.contains("`file` is `another one`"), "{other}");
    assert!(desk.sequencer.submit(decision(false)).await.is_err());
    fs::remove_file(path).unwrap();
    fs::rename(&aside, path).unwrap();
    assert!(Path::new(path).exists());
    tokio::time::sleep(Duration::from_millis(5)).await;
    desk.store.examine().await.unwrap();
    desk.insist(decision(false)).await;
    desk.verified().await;
}
