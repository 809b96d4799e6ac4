//! Who lives, what is open, and what is forgotten after a while: beside the ledger, not in it.

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::read;
use crate::{
    domain::Seq,
    store::{StoreError, counted_since},
};

pub(super) async fn prune(
    connection: &mut SqliteConnection,
    before: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM idempotency WHERE ts < ?1")
        .bind(before.as_microsecond())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM leases WHERE until < ?1")
        .bind(before.as_microsecond())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM counters WHERE since < ?1")
        .bind(counted_since(before).as_microsecond())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn renew_lease(
    connection: &mut SqliteConnection,
    process: Uuid,
    until: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO leases (process, until) VALUES (?1, ?2)
         ON CONFLICT (process) DO UPDATE SET until = excluded.until",
    )
    .bind(process.as_bytes().as_slice())
    .bind(until.as_microsecond())
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives each process that has a call under way and no lease one until `until`. Gives how many there were.
pub(super) async fn grant_missing_leases(
    connection: &mut SqliteConnection,
    until: Timestamp,
) -> Result<u64, StoreError> {
    let granted = sqlx::query(
        "INSERT INTO leases (process, until)
         SELECT DISTINCT o.process, ?1 FROM open_dispatches o
         WHERE o.process <> zeroblob(16)
           AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.process = o.process)
         ON CONFLICT (process) DO NOTHING",
    )
    .bind(until.as_microsecond())
    .execute(connection)
    .await?;
    Ok(granted.rows_affected())
}

pub(super) async fn release_lease(
    connection: &mut SqliteConnection,
    process: Uuid,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE leases SET until = 0 WHERE process = ?1")
        .bind(process.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn abandon(
    connection: &mut SqliteConnection,
    decisions: &[Seq],
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE open_dispatches SET process = ?2 WHERE seq IN (SELECT value FROM json_each(?1))",
    )
    .bind(read::json(decisions))
    .bind(Uuid::nil().as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Commits a lease of nobody that ran out long ago: whether a row can be written.
pub(super) async fn touch(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO leases (process, until) VALUES (?1, 0)
         ON CONFLICT (process) DO UPDATE SET until = 1 - leases.until",
    )
    .bind(Uuid::max().as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Commits `rows` leases that ran out long ago, and deletes them. What is left by one that was cut off in
/// between is pruned as other leases are.
pub(super) async fn write_and_forget(
    connection: &mut SqliteConnection,
    rows: i64,
) -> Result<(), StoreError> {
    let written = sqlx::query(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
         INSERT INTO leases (process, until) SELECT randomblob(16), 0 FROM numbers
         RETURNING hex(process)",
    )
    .bind(rows)
    .fetch_all(&mut *connection)
    .await?;
    let written = written.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    sqlx::query("DELETE FROM leases WHERE process IN (SELECT unhex(value) FROM json_each(?1))")
        .bind(read::json(&written))
        .execute(connection)
        .await?;
    Ok(())
}
