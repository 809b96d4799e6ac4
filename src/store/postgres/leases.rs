//! Who lives, what is open, and what is forgotten after a while: beside the ledger, not in it.

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::{
    domain::Seq,
    store::{StoreError, counted_since, row::seq_column},
};

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
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM counters WHERE since < $1")
        .bind(counted_since(before).as_microsecond())
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

/// Gives each process that has a call under way and no lease one until `until`. Gives how many there were.
pub(super) async fn grant_missing_leases(
    connection: &mut PgConnection,
    until: Timestamp,
) -> Result<u64, StoreError> {
    let granted = sqlx::query(
        "INSERT INTO leases (process, until)
         SELECT DISTINCT o.process, $1::bigint FROM open_dispatches o
         WHERE o.process <> $2::uuid
           AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.process = o.process)
         ON CONFLICT (process) DO NOTHING",
    )
    .bind(until.as_microsecond())
    .bind(Uuid::nil().to_string())
    .execute(connection)
    .await?;
    Ok(granted.rows_affected())
}

pub(super) async fn release_lease(
    connection: &mut PgConnection,
    process: Uuid,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE leases SET until = 0 WHERE process = $1::uuid")
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

/// Commits a lease of nobody that ran out long ago: whether a row can be written.
pub(super) async fn touch(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO leases (process, until) VALUES ($1::uuid, 0)
         ON CONFLICT (process) DO UPDATE SET until = 1 - leases.until",
    )
    .bind(Uuid::max().to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Commits `rows` leases that ran out long ago, and deletes them. What is left by one that was cut off in
/// between is pruned as other leases are.
pub(super) async fn write_and_forget(
    connection: &mut PgConnection,
    rows: i64,
) -> Result<(), StoreError> {
    let written = sqlx::query(
        "INSERT INTO leases (process, until)
         SELECT gen_random_uuid(), 0 FROM generate_series(1, $1) RETURNING process::text",
    )
    .bind(rows)
    .fetch_all(&mut *connection)
    .await?;
    let written = written.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    sqlx::query("DELETE FROM leases WHERE process = ANY ($1::uuid[])")
        .bind(written)
        .execute(connection)
        .await?;
    Ok(())
}
