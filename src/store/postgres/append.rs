//! Writes to Postgres.

use jiff::Timestamp;
use sqlx::{Executor as _, PgConnection, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::{copy, read};
use crate::{
    domain::Seq,
    store::{
        AppendError, Found, Head, Lookups, Seal, Sealed, StoreError, Stored,
        bound::{APPEND, Taken, Writer, until},
        row::{self, revision_column, seq_column},
    },
};

/// Begins the transaction and locks the head, in one exchange.
const LOCK: &str = "BEGIN; SELECT next, leaf, ts, revision FROM head FOR UPDATE";

/// What stands beside the entries, in one exchange.
const BESIDE: &str = "
WITH opened AS (
    INSERT INTO open_dispatches (seq, process)
    SELECT seq, process::uuid FROM unnest($2::bigint[], $3::text[]) AS new (seq, process)
), closed AS (
    DELETE FROM open_dispatches WHERE seq = ANY ($4::bigint[])
)
INSERT INTO idempotency (scope, key, request, seq, ts)
SELECT scope, key, request, seq, $1
FROM unnest($5::text[], $6::text[], $7::bytea[], $8::bigint[]) AS new (scope, key, request, seq)";

pub(super) async fn append(
    writer: &Writer<PgConnection>,
    batch: &mut dyn Seal,
) -> Result<(), AppendError> {
    let mut connection = writer.take().await.map_err(AppendError::NotCommitted)?;
    let deadline = Instant::now() + APPEND;
    let written = until(deadline, write(writer, &mut connection, batch))
        .await
        .map_err(AppendError::NotCommitted)?;
    let end = written.as_ref().map_or_else(|| "ROLLBACK".to_owned(), commit);
    until(deadline, connection.execute(end.as_str())).await.map_err(|error| match written {
        Some(_) => AppendError::Ambiguous(error),
        None => AppendError::NotCommitted(error),
    })?;
    connection.give_back();
    Ok(())
}

/// Moves the head and commits, in one exchange. Numbers and hexadecimal digits need no quoting.
fn commit(head: &Head) -> String {
    format!(
        "UPDATE head SET next = {}, leaf = '\\x{}', ts = {}, revision = {}; COMMIT",
        seq_column(head.next),
        head.leaf.hex(),
        head.ts.as_microsecond(),
        revision_column(head.revision),
    )
}

pub(super) async fn settle(
    writer: &Writer<PgConnection>,
    id: Uuid,
) -> Result<Option<Stored>, StoreError> {
    let mut connection = writer.take().await?;
    let deadline = Instant::now() + APPEND;
    until(deadline, lock(writer, &mut connection)).await?;
    let stored = until(deadline, read::record_by_id(&mut connection, id)).await?;
    until(deadline, connection.execute("ROLLBACK")).await?;
    connection.give_back();
    Ok(stored)
}

/// Writes all but the head. Gives the head that is to be committed, if there is anything to commit.
async fn write(
    writer: &Writer<PgConnection>,
    connection: &mut Taken<'_, PgConnection>,
    batch: &mut dyn Seal,
) -> Result<Option<Head>, StoreError> {
    let head = lock(writer, connection).await?;
    let found = look_up(connection, &batch.lookups()).await?;
    let sealed = batch.seal(&head, &found)?;
    if sealed.rows.is_empty() {
        return Ok(None);
    }
    let mut copying = connection.copy_in_raw(copy::COPY).await?;
    copying.send(copy::encode(&sealed.rows)).await?;
    copying.finish().await?;
    activate(connection, &sealed).await?;
    write_beside(connection, &sealed).await?;
    Ok(Some(sealed.head))
}

/// Whether the connection was closed while it stood idle; nothing was asked of it then.
fn is_closed(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // 57P01 to 57P05: shut down, crashed, not yet started, idle for too long.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

/// Begins a transaction that holds the head's lock.
async fn lock(
    writer: &Writer<PgConnection>,
    connection: &mut Taken<'_, PgConnection>,
) -> Result<Head, StoreError> {
    let row = match connection.fetch_one(LOCK).await {
        Err(error) if connection.used() && is_closed(&error) => {
            connection.replace(writer.connect().await?);
            connection.fetch_one(LOCK).await?
        }
        answer => answer?,
    };
    row::head(&row)
}

async fn look_up(connection: &mut PgConnection, lookups: &Lookups) -> Result<Found, StoreError> {
    let mut found = Found::default();
    if lookups.genesis {
        found.genesis = read::record(connection, Seq::new(0)).await?.map(|stored| stored.entry);
    }
    if !lookups.claims.is_empty() {
        let (scopes, keys): (Vec<_>, Vec<_>) =
            lookups.claims.iter().map(|(scope, key)| (scope.as_str(), key.as_str())).unzip();
        let rows = sqlx::query(
            "SELECT seq, scope, key FROM idempotency
             WHERE (scope, key) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
        )
        .bind(scopes)
        .bind(keys)
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            found.claims.insert((row.try_get(1)?, row.try_get(2)?), row::seq(row, 0)?);
        }
    }
    if !lookups.decisions.is_empty() {
        let rows = sqlx::query("SELECT about FROM entries WHERE about = ANY ($1)")
            .bind(lookups.decisions.iter().copied().map(seq_column).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        for row in &rows {
            found.reported.insert(row::seq(row, 0)?);
        }
    }
    Ok(found)
}

async fn activate(connection: &mut PgConnection, sealed: &Sealed) -> Result<(), StoreError> {
    for row in &sealed.rows {
        let Some(activation) = &row.activation else {
            continue;
        };
        for (digest, kind, bytes) in &activation.contents {
            sqlx::query(
                "INSERT INTO contents (digest, kind, bytes) VALUES ($1, $2, $3)
                 ON CONFLICT DO NOTHING",
            )
            .bind(digest.as_bytes().as_slice())
            .bind(*kind)
            .bind(bytes)
            .execute(&mut *connection)
            .await?;
        }
        sqlx::query(
            "INSERT INTO activations (revision, seq, bundle, facts, organisation, registers)
             VALUES ($1, $2, $3, $4, $5, $6)",
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

/// Writes what the rows open, close and claim, where they do.
async fn write_beside(connection: &mut PgConnection, sealed: &Sealed) -> Result<(), StoreError> {
    let rows = &sealed.rows;
    let (opened, processes): (Vec<_>, Vec<_>) = rows
        .iter()
        .filter_map(|row| Some((seq_column(row.seq), row.dispatched_by?.to_string())))
        .unzip();
    let closed: Vec<_> = rows.iter().filter_map(|row| row.about.map(seq_column)).collect();
    let claims = || rows.iter().filter_map(|row| Some((row.seq, row.claim.as_deref()?)));
    if opened.is_empty() && closed.is_empty() && claims().next().is_none() {
        return Ok(());
    }
    sqlx::query(BESIDE)
        .bind(sealed.head.ts.as_microsecond())
        .bind(opened)
        .bind(processes)
        .bind(closed)
        .bind(claims().map(|(_, claim)| claim.scope.as_str()).collect::<Vec<_>>())
        .bind(claims().map(|(_, claim)| claim.key.as_str()).collect::<Vec<_>>())
        .bind(claims().map(|(_, claim)| claim.request.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(claims().map(|(seq, _)| seq_column(seq)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn prune(
    connection: &mut PgConnection,
    before: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM idempotency WHERE ts < $1")
        .bind(before.as_microsecond())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM leases WHERE until < $1")
        .bind(before.as_microsecond())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn renew_lease(
    connection: &mut PgConnection,
    process: Uuid,
    until: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO leases (process, until) VALUES ($1::uuid, $2)
         ON CONFLICT (process) DO UPDATE SET until = excluded.until",
    )
    .bind(process.to_string())
    .bind(until.as_microsecond())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn release_lease(
    connection: &mut PgConnection,
    process: Uuid,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM leases WHERE process = $1::uuid")
        .bind(process.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn abandon(
    connection: &mut PgConnection,
    decisions: &[Seq],
) -> Result<(), StoreError> {
    sqlx::query("UPDATE open_dispatches SET process = $2::uuid WHERE seq = ANY ($1)")
        .bind(decisions.iter().copied().map(seq_column).collect::<Vec<_>>())
        .bind(Uuid::nil().to_string())
        .execute(connection)
        .await?;
    Ok(())
}
