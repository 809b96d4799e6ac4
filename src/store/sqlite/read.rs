//! Questions to `SQLite`. Lists are handed over as JSON texts.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use crate::{
    domain::{CountKey, CounterKey, Counts, Digest, Seq, Used},
    ledger::{Edge, Tile, TileId, partial_tiles},
    store::{
        Active, Claimed, Head, StoreError, Stored,
        row::{self, limit_column, seq_column},
    },
};

/// A list as `json_each` reads it.
pub(super) fn json<T: Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

/// What left, under each of `keys`.
pub(super) async fn exported(
    connection: &mut SqliteConnection,
    keys: &BTreeSet<CountKey>,
) -> Result<Counts, StoreError> {
    if keys.is_empty() {
        return Ok(Counts::default());
    }
    let wanted: Vec<_> = keys.iter().map(|key| (&key.tenant, &key.origin, key.since)).collect();
    let rows = sqlx::query(
        "SELECT tenant, origin, json_extract(wanted.value, '$[2]') AS since, export, sum(subjects)
         FROM json_each(?1) AS wanted
         JOIN volumes ON tenant = json_extract(wanted.value, '$[0]')
             AND origin = json_extract(wanted.value, '$[1]')
             AND day >= json_extract(wanted.value, '$[2]')
         GROUP BY tenant, origin, since, export",
    )
    .bind(json(&wanted))
    .fetch_all(connection)
    .await?;
    row::counts(keys, &rows)
}

/// What the counters say.
pub(super) async fn used(
    connection: &mut SqliteConnection,
    keys: &BTreeSet<CounterKey>,
) -> Result<Used, StoreError> {
    let wanted: Vec<_> = keys.iter().map(|key| (&*key.name, key.since.as_microsecond())).collect();
    let rows = sqlx::query(
        "SELECT name, since, used FROM json_each(?1) AS wanted
         JOIN counters ON name = json_extract(wanted.value, '$[0]')
             AND since = json_extract(wanted.value, '$[1]')",
    )
    .bind(json(&wanted))
    .fetch_all(connection)
    .await?;
    row::used(&rows)
}

/// How many calls are under way, of those whose calls are limited.
pub(super) async fn under_way(connection: &mut SqliteConnection) -> Result<Used, StoreError> {
    let rows = sqlx::query(
        "SELECT app, tenant, count(*) FROM open_dispatches WHERE app IS NOT NULL
         GROUP BY app, tenant",
    )
    .fetch_all(connection)
    .await?;
    row::calls_under_way(&rows)
}

pub(super) async fn has_migrations(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
        .fetch_one(connection)
        .await?;
    Ok(row::count(&row)? > 0)
}

pub(super) async fn head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let row =
        sqlx::query("SELECT next, leaf, ts, revision FROM head").fetch_one(connection).await?;
    row::head(&row)
}

pub(super) async fn checkpoint(
    connection: &mut SqliteConnection,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT checkpoint FROM head WHERE checkpoint <> ''")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn witnessed(
    connection: &mut SqliteConnection,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT note FROM witnessed").fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// A tile of leaves that is not kept is the entries' own.
pub(super) async fn tiles(
    connection: &mut SqliteConnection,
    ids: &[TileId],
) -> Result<Vec<Tile>, StoreError> {
    let wanted: Vec<_> = ids.iter().map(|id| (id.level, id.n)).collect();
    let rows = sqlx::query(
        "SELECT level, n, hashes FROM json_each(?1) AS wanted
         JOIN tiles ON level = json_extract(wanted.value, '$[0]')
             AND n = json_extract(wanted.value, '$[1]')",
    )
    .bind(json(&wanted))
    .fetch_all(&mut *connection)
    .await?;
    let mut tiles = rows.iter().map(row::tile).collect::<Result<Vec<_>, _>>()?;
    for id in ids.iter().filter(|id| id.level == 0) {
        if !tiles.iter().any(|tile| tile.id == *id) {
            let (first, last) = row::leaves_of(*id);
            let rows = sqlx::query(
                "SELECT seq, leaf FROM entries WHERE seq BETWEEN ?1 AND ?2 AND seq < (SELECT next FROM head) ORDER BY seq",
            )
            .bind(first)
            .bind(last)
            .fetch_all(&mut *connection)
            .await?;
            tiles.extend(row::leaf_tiles(&rows)?);
        }
    }
    Ok(tiles)
}

pub(super) async fn edge(connection: &mut SqliteConnection, size: Seq) -> Result<Edge, StoreError> {
    let ids: Vec<_> = partial_tiles(size.get()).filter(|(_, width)| *width > 0).collect();
    let ids: Vec<_> = ids.into_iter().map(|(id, _)| id).collect();
    row::edge(size, tiles(connection, &ids).await?)
}

pub(super) async fn range(
    connection: &mut SqliteConnection,
    from: Seq,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let rows =
        sqlx::query("SELECT seq, leaf, entry FROM entries WHERE seq >= ?1 AND seq < (SELECT next FROM head) ORDER BY seq LIMIT ?2")
            .bind(seq_column(from))
            .bind(limit_column(limit))
            .fetch_all(connection)
            .await?;
    row::all_stored(&rows)
}

pub(super) async fn record(
    connection: &mut SqliteConnection,
    seq: Seq,
) -> Result<Option<Stored>, StoreError> {
    let row = sqlx::query(
        "SELECT seq, leaf, entry FROM entries WHERE seq = ?1 AND seq < (SELECT next FROM head)",
    )
    .bind(seq_column(seq))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::stored).transpose()
}

pub(super) async fn record_by_id(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<Option<Stored>, StoreError> {
    let row =
        sqlx::query("SELECT seq, leaf, entry FROM entries WHERE id = ?1 AND length(entry) > 0 AND seq < (SELECT next FROM head)")
            .bind(id.as_bytes().to_vec())
            .fetch_optional(connection)
            .await?;
    row.as_ref().map(row::stored).transpose()
}

pub(super) async fn outcome_of(
    connection: &mut SqliteConnection,
    decision: Seq,
) -> Result<Option<Stored>, StoreError> {
    let row = sqlx::query(
        "SELECT seq, leaf, entry FROM entries WHERE about = ?1 AND seq < (SELECT next FROM head)",
    )
    .bind(seq_column(decision))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::stored).transpose()
}

pub(super) async fn active(
    connection: &mut SqliteConnection,
) -> Result<Option<Active>, StoreError> {
    let row = sqlx::query(
        "SELECT revision, seq, bundle, facts, organisation, registers FROM activations
         ORDER BY revision DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::active).transpose()
}

pub(super) async fn content(
    connection: &mut SqliteConnection,
    digest: Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query("SELECT bytes FROM contents WHERE digest = ?1")
        .bind(digest.as_bytes().to_vec())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn idempotent(
    connection: &mut SqliteConnection,
    scope: &str,
    key: &str,
) -> Result<Option<Claimed>, StoreError> {
    let row = sqlx::query("SELECT request, seq FROM idempotency WHERE scope = ?1 AND key = ?2")
        .bind(scope)
        .bind(key)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(row::claimed).transpose()
}

pub(super) async fn expired(
    connection: &mut SqliteConnection,
    now: Timestamp,
    after: Option<Seq>,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let rows = sqlx::query(
        "SELECT e.seq, e.leaf, e.entry
         FROM open_dispatches o
         JOIN entries e ON e.seq = o.seq AND e.seq < (SELECT next FROM head)
         LEFT JOIN leases l ON l.process = o.process
         WHERE (o.process = zeroblob(16) OR l.until <= ?1) AND o.seq > ?2
         ORDER BY e.seq LIMIT ?3",
    )
    .bind(now.as_microsecond())
    .bind(after.map_or(-1, seq_column))
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await?;
    row::all_stored(&rows)
}

pub(super) async fn now(connection: &mut SqliteConnection) -> Result<Timestamp, StoreError> {
    let row = sqlx::query("SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now")
        .fetch_one(connection)
        .await?;
    Timestamp::from_microsecond(row.try_get("now")?).map_err(|_| StoreError::Corrupt("the time"))
}

pub(super) async fn open_dispatches(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT count(*) FROM open_dispatches").fetch_one(connection).await?;
    row::count(&row)
}

/// Whether an entry lies behind the head.
pub(super) async fn reaches_beyond_head(
    connection: &mut SqliteConnection,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT coalesce((SELECT max(seq) FROM entries) >= next, 0) FROM head")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}
