//! Who lives, what is open, and what is forgotten after a while: beside the ledger, not in it.

use jiff::Timestamp;
use sqlx::PgConnection;
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
