//! Writes to `SQLite`.

use sqlx::{Connection as _, Executor as _, Row as _, SqliteConnection};
use uuid::Uuid;

use super::{
    index,
    personal::is_held_since,
    read,
    session::{LOCK, Session},
};
use crate::{
    domain::Seq,
    ledger::{SeqRange, Tile},
    store::{
        AppendError, Found, Lookups, Row, Seal, Sealed, StoreClock, StoreError, Stored,
        bound::{Writer, until},
        crash_point,
        row::{self, revision_column, seq_column},
    },
};

pub(super) async fn append(
    writer: &Writer<SqliteConnection, Session>,
    batch: &mut dyn Seal,
) -> Result<(), AppendError> {
    let mut connection = writer.take().await.map_err(AppendError::NotCommitted)?;
    let deadline = writer.deadline();
    let written =
        until(deadline, write(&mut connection, batch)).await.map_err(AppendError::NotCommitted)?;
    let end = if written { "COMMIT" } else { "ROLLBACK" };
    crash_point("written");
    until(deadline, connection.execute(end)).await.map_err(|error| {
        if written { AppendError::Ambiguous(error) } else { AppendError::NotCommitted(error) }
    })?;
    crash_point("committed");
    connection.give_back();
    Ok(())
}

pub(super) async fn settle(
    writer: &Writer<SqliteConnection, Session>,
    id: Uuid,
) -> Result<Option<Stored>, StoreError> {
    let mut connection = writer.take().await?;
    let deadline = writer.deadline();
    until(deadline, connection.execute(LOCK)).await?;
    let stored = until(deadline, read::record_by_id(&mut connection, id)).await?;
    until(deadline, connection.execute("ROLLBACK")).await?;
    connection.give_back();
    Ok(stored)
}

/// Does all but the commit. Whether there is anything to commit.
async fn write(
    connection: &mut SqliteConnection,
    batch: &mut dyn Seal,
) -> Result<bool, StoreError> {
    connection.execute(LOCK).await?;
    crash_point("locked");
    let head = read::head(connection).await?;
    let mut found = look_up(connection, &batch.lookups()).await?;
    found.checkpoint = read::checkpoint(connection).await?;
    let edge = read::edge(connection, head.next).await?;
    let sealed = batch.seal(&head, &edge, &found)?;
    if sealed.rows.is_empty() {
        return Ok(false);
    }
    crash_point("sealed");
    for row in &sealed.rows {
        insert(connection, row).await?;
    }
    insert_tiles(connection, &sealed.tiles).await?;
    activate(connection, &sealed).await?;
    count(connection, &sealed).await?;
    use_up(connection, &sealed).await?;
    finish(connection, &sealed).await?;
    Ok(true)
}

async fn look_up(
    connection: &mut SqliteConnection,
    lookups: &Lookups,
) -> Result<Found, StoreError> {
    let mut found = Found { clock: StoreClock::Own, ..Found::default() };
    if lookups.genesis {
        found.genesis = read::record(connection, Seq::new(0)).await?.map(|stored| stored.entry);
    }
    if let Some(seq) = lookups.leaf {
        found.leaf = read::record(connection, seq).await?.map(|stored| stored.leaf);
    }
    if !lookups.claims.is_empty() {
        let rows = sqlx::query(
            "SELECT i.seq, i.scope, i.key FROM json_each(?1) AS wanted
             JOIN idempotency i ON i.scope = json_extract(wanted.value, '$[0]')
                 AND i.key = json_extract(wanted.value, '$[1]')",
        )
        .bind(read::json(&lookups.claims))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            found.claims.insert((row.try_get(1)?, row.try_get(2)?), row::seq(row, 0)?);
        }
    }
    if !lookups.decisions.is_empty() {
        let rows = sqlx::query(
            "SELECT about FROM entries WHERE about IN (SELECT value FROM json_each(?1)) AND seq < (SELECT next FROM head)",
        )
        .bind(read::json(&lookups.decisions))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            found.reported.insert(row::seq(row, 0)?);
        }
    }
    found.counts = read::exported(connection, &lookups.counts).await?;
    if !lookups.counters.is_empty() {
        found.used = read::used(connection, &lookups.counters).await?;
    }
    if lookups.under_way {
        found.used.extend(read::under_way(connection).await?);
    }
    Ok(found)
}

async fn insert(connection: &mut SqliteConnection, row: &Row) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO entries (seq, id, ts, kind, about, leaf, entry, terms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(seq_column(row.seq))
    .bind(row.id.as_bytes().as_slice())
    .bind(row.ts.as_microsecond())
    .bind(row.kind.as_str())
    .bind(row.about.map(seq_column))
    .bind(row.leaf.as_bytes().as_slice())
    .bind(row.entry.as_ref())
    .bind(row.terms.join(index::SEPARATOR))
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_tiles(connection: &mut SqliteConnection, tiles: &[Tile]) -> Result<(), StoreError> {
    for tile in tiles {
        sqlx::query(
            "INSERT INTO tiles (level, n, hashes) VALUES (?1, ?2, ?3)
             ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes",
        )
        .bind(i64::from(tile.id.level))
        .bind(seq_column(Seq::new(tile.id.n)))
        .bind(tile.bytes())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn activate(connection: &mut SqliteConnection, sealed: &Sealed) -> Result<(), StoreError> {
    for row in &sealed.rows {
        let Some(activation) = &row.activation else {
            continue;
        };
        for (digest, kind, bytes) in &activation.contents {
            sqlx::query(
                "INSERT INTO contents (digest, kind, bytes) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
            )
            .bind(digest.as_bytes().as_slice())
            .bind(*kind)
            .bind(bytes.as_slice())
            .execute(&mut *connection)
            .await?;
        }
        sqlx::query(
            "INSERT INTO activations (revision, seq, bundle, facts, organisation, registers)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(revision_column(activation.revision()))
        .bind(seq_column(row.seq))
        .bind(activation.bundle.as_bytes().as_slice())
        .bind(activation.facts.as_bytes().as_slice())
        .bind(activation.organisation.as_bytes().as_slice())
        .bind(activation.registers.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn count(connection: &mut SqliteConnection, sealed: &Sealed) -> Result<(), StoreError> {
    for (tenant, origin, day, export, subjects) in sealed.exports() {
        sqlx::query(
            "INSERT INTO volumes (tenant, origin, day, export, subjects) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (tenant, origin, day, export) DO UPDATE
             SET subjects = volumes.subjects + excluded.subjects",
        )
        .bind(tenant)
        .bind(origin)
        .bind(day)
        .bind(export)
        .bind(subjects)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn use_up(connection: &mut SqliteConnection, sealed: &Sealed) -> Result<(), StoreError> {
    for (key, used) in &sealed.used {
        sqlx::query(
            "INSERT INTO counters (name, since, used) VALUES (?1, ?2, ?3)
             ON CONFLICT (name, since) DO UPDATE SET used = excluded.used",
        )
        .bind(&*key.name)
        .bind(key.since.as_microsecond())
        .bind(used.to_string())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn finish(connection: &mut SqliteConnection, sealed: &Sealed) -> Result<(), StoreError> {
    for row in &sealed.rows {
        if let Some((process, app, tenant)) = row.opens() {
            sqlx::query(
                "INSERT INTO open_dispatches (seq, process, app, tenant) VALUES (?1, ?2, ?3, ?4)",
            )
            .bind(seq_column(row.seq))
            .bind(process.as_bytes().as_slice())
            .bind(app)
            .bind(tenant)
            .execute(&mut *connection)
            .await?;
        }
        if let Some(decision) = row.about {
            sqlx::query("DELETE FROM open_dispatches WHERE seq = ?1")
                .bind(seq_column(decision))
                .execute(&mut *connection)
                .await?;
        }
        if let Some(value) = &row.personal {
            sqlx::query("INSERT INTO personal_values (seq, key, sealed) VALUES (?1, ?2, ?3)")
                .bind(seq_column(row.seq))
                .bind(value.key.as_bytes().as_slice())
                .bind(value.sealed.as_slice())
                .execute(&mut *connection)
                .await?;
        }
        if let Some(claim) = &row.claim {
            sqlx::query(
                "INSERT INTO idempotency (scope, key, request, seq, ts)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(claim.scope.as_str())
            .bind(claim.key.as_str())
            .bind(claim.request.as_bytes().as_slice())
            .bind(seq_column(row.seq))
            .bind(row.ts.as_microsecond())
            .execute(&mut *connection)
            .await?;
        }
    }
    let head = &sealed.head;
    let done = sqlx::query(
        "UPDATE head SET next = ?1, leaf = ?2, ts = ?3, revision = ?4, checkpoint = ?5",
    )
    .bind(seq_column(head.next))
    .bind(head.leaf.as_bytes().as_slice())
    .bind(head.ts.as_microsecond())
    .bind(revision_column(head.revision))
    .bind(&*sealed.checkpoint)
    .execute(connection)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Corrupt("no head")) }
}

pub(super) async fn keep_witnessed(
    connection: &mut SqliteConnection,
    size: u64,
    note: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO witnessed (one, size, note) VALUES (1, ?1, ?2)
         ON CONFLICT (one) DO UPDATE SET size = excluded.size, note = excluded.note
         WHERE witnessed.size <= excluded.size",
    )
    .bind(seq_column(Seq::new(size)))
    .bind(note)
    .execute(connection)
    .await?;
    Ok(())
}

/// What older versions kept. It is by term, and there are few of them: each is looked up, instead of looking
/// at all.
const FORMER_TERMS_GO: &str = "
WITH RECURSIVE every (term) AS (
    SELECT min(term) FROM former_entry_terms
    UNION ALL
    SELECT (SELECT min(term) FROM former_entry_terms WHERE term > every.term) FROM every
    WHERE every.term IS NOT NULL
)
DELETE FROM former_entry_terms WHERE term IN (SELECT term FROM every) AND seq BETWEEN ?1 AND ?2";

/// Removes bodies, in a transaction that says so.
pub(super) async fn remove_bodies(
    connection: &mut SqliteConnection,
    range: SeqRange,
    as_of: Seq,
) -> Result<Option<u64>, StoreError> {
    let mut transaction = connection.begin_with(LOCK).await?;
    if is_held_since(&mut transaction, as_of).await? {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.execute("INSERT INTO pruning (one) VALUES (1)").await?;
    let (first, last) = (seq_column(range.first), seq_column(range.last));
    let removed = sqlx::query(
        "UPDATE entries SET entry = x'', terms = NULL
         WHERE seq BETWEEN ?1 AND ?2 AND length(entry) > 0",
    )
    .bind(first)
    .bind(last)
    .execute(&mut *transaction)
    .await?;
    if removed.rows_affected() > 0 {
        index::forget(&mut transaction, range).await?;
        for beside in [FORMER_TERMS_GO, "DELETE FROM personal_values WHERE seq BETWEEN ?1 AND ?2"] {
            sqlx::query(beside).bind(first).bind(last).execute(&mut *transaction).await?;
        }
    }
    transaction.execute("DELETE FROM pruning").await?;
    transaction.commit().await?;
    Ok(Some(removed.rows_affected()))
}
