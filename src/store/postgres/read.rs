//! Questions to Postgres.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::{
    domain::{CountKey, CounterKey, Counts, Digest, Seq, Used},
    ledger::{Edge, Tile, TileId, partial_tiles},
    store::{
        Active, Claimed, Head, StoreError, Stored,
        row::{self, limit_column, seq_column},
    },
};

/// What left, under each of `keys`.
pub(super) async fn exported(
    connection: &mut PgConnection,
    keys: &BTreeSet<CountKey>,
) -> Result<Counts, StoreError> {
    if keys.is_empty() {
        return Ok(Counts::default());
    }
    let rows = sqlx::query(
        "SELECT tenant, origin, wanted.since::bigint, export, sum(subjects)::bigint
         FROM unnest($1::text[], $2::text[], $3::int[]) AS wanted (tenant, origin, since)
         JOIN volumes USING (tenant, origin)
         WHERE day >= wanted.since
         GROUP BY tenant, origin, wanted.since, export",
    )
    .bind(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.origin.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.since).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    row::counts(keys, &rows)
}

/// What the counters say.
pub(super) async fn used(
    connection: &mut PgConnection,
    keys: &BTreeSet<CounterKey>,
) -> Result<Used, StoreError> {
    let rows = sqlx::query(
        "SELECT name, since, used
         FROM unnest($1::text[], $2::bigint[]) AS wanted (name, since)
         JOIN counters USING (name, since)",
    )
    .bind(keys.iter().map(|key| &*key.name).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.since.as_microsecond()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    row::used(&rows)
}

/// How many calls are under way, of those whose calls are limited.
pub(super) async fn under_way(connection: &mut PgConnection) -> Result<Used, StoreError> {
    let rows = sqlx::query(
        "SELECT app, tenant, count(*) FROM open_dispatches WHERE app IS NOT NULL
         GROUP BY app, tenant",
    )
    .fetch_all(connection)
    .await?;
    row::calls_under_way(&rows)
}

pub(super) async fn has_migrations(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}

pub(super) async fn head(connection: &mut PgConnection) -> Result<Head, StoreError> {
    let row =
        sqlx::query("SELECT next, leaf, ts, revision FROM head").fetch_one(connection).await?;
    row::head(&row)
}

pub(super) async fn checkpoint(
    connection: &mut PgConnection,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT checkpoint FROM head WHERE checkpoint <> ''")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn witnessed(connection: &mut PgConnection) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT note FROM witnessed").fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// A tile of leaves that is not kept is the entries' own.
pub(super) async fn tiles(
    connection: &mut PgConnection,
    ids: &[TileId],
) -> Result<Vec<Tile>, StoreError> {
    let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
    let rows = sqlx::query(
        "SELECT level::bigint, n, hashes FROM tiles
         JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (level, n) USING (level, n)",
    )
    .bind(ids.iter().map(|id| i64::from(id.level)).collect::<Vec<_>>())
    .bind(ids.iter().map(|id| number(id.n)).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let mut tiles = rows.iter().map(row::tile).collect::<Result<Vec<_>, _>>()?;
    for id in ids.iter().filter(|id| id.level == 0) {
        if !tiles.iter().any(|tile| tile.id == *id) {
            let (first, last) = row::leaves_of(*id);
            let rows = sqlx::query(
                "SELECT seq, leaf FROM entries WHERE seq BETWEEN $1 AND $2 AND seq < (SELECT next FROM head) ORDER BY seq",
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

pub(super) async fn edge(connection: &mut PgConnection, size: Seq) -> Result<Edge, StoreError> {
    let ids: Vec<_> = partial_tiles(size.get()).filter(|(_, width)| *width > 0).collect();
    let ids: Vec<_> = ids.into_iter().map(|(id, _)| id).collect();
    row::edge(size, tiles(connection, &ids).await?)
}

pub(super) async fn range(
    connection: &mut PgConnection,
    from: Seq,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let rows =
        sqlx::query("SELECT seq, leaf, entry FROM entries WHERE seq >= $1 AND seq < (SELECT next FROM head) ORDER BY seq LIMIT $2")
            .bind(seq_column(from))
            .bind(limit_column(limit))
            .fetch_all(connection)
            .await?;
    row::all_stored(&rows)
}

pub(super) async fn record(
    connection: &mut PgConnection,
    seq: Seq,
) -> Result<Option<Stored>, StoreError> {
    let row = sqlx::query(
        "SELECT seq, leaf, entry FROM entries WHERE seq = $1 AND seq < (SELECT next FROM head)",
    )
    .bind(seq_column(seq))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::stored).transpose()
}

pub(super) async fn record_by_id(
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Stored>, StoreError> {
    let row =
        sqlx::query("SELECT seq, leaf, entry FROM entries WHERE id = $1::uuid AND entry <> '' AND seq < (SELECT next FROM head)")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
    row.as_ref().map(row::stored).transpose()
}

pub(super) async fn outcome_of(
    connection: &mut PgConnection,
    decision: Seq,
) -> Result<Option<Stored>, StoreError> {
    let row = sqlx::query(
        "SELECT seq, leaf, entry FROM entries WHERE about = $1 AND seq < (SELECT next FROM head)",
    )
    .bind(seq_column(decision))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::stored).transpose()
}

pub(super) async fn active(connection: &mut PgConnection) -> Result<Option<Active>, StoreError> {
    let row = sqlx::query(
        "SELECT revision, seq, bundle, facts, organisation, registers FROM activations
         ORDER BY revision DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::active).transpose()
}

pub(super) async fn content(
    connection: &mut PgConnection,
    digest: Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query("SELECT bytes FROM contents WHERE digest = $1")
        .bind(digest.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn idempotent(
    connection: &mut PgConnection,
    scope: &str,
    key: &str,
) -> Result<Option<Claimed>, StoreError> {
    let row = sqlx::query("SELECT request, seq FROM idempotency WHERE scope = $1 AND key = $2")
        .bind(scope)
        .bind(key)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(row::claimed).transpose()
}

pub(super) async fn expired(
    connection: &mut PgConnection,
    now: Timestamp,
    after: Option<Seq>,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let rows = sqlx::query(
        "SELECT e.seq, e.leaf, e.entry
         FROM open_dispatches o
         JOIN entries e ON e.seq = o.seq AND e.seq < (SELECT next FROM head)
         LEFT JOIN leases l ON l.process = o.process
         WHERE (o.process = '00000000-0000-0000-0000-000000000000' OR l.until <= $1) AND o.seq > $2
         ORDER BY e.seq LIMIT $3",
    )
    .bind(now.as_microsecond())
    .bind(after.map_or(-1, seq_column))
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await?;
    row::all_stored(&rows)
}

pub(super) async fn now(connection: &mut PgConnection) -> Result<Timestamp, StoreError> {
    let row =
        sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now")
            .fetch_one(connection)
            .await?;
    Timestamp::from_microsecond(row.try_get("now")?).map_err(|_| StoreError::Corrupt("the time"))
}

pub(super) async fn open_dispatches(connection: &mut PgConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT count(*) FROM open_dispatches").fetch_one(connection).await?;
    row::count(&row)
}

pub(super) async fn writable(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT current_setting('transaction_read_only') = 'off'
             AND has_table_privilege('entries', 'INSERT') AND has_table_privilege('head', 'UPDATE')",
    )
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

/// Whether an entry lies behind the head.
pub(super) async fn reaches_beyond_head(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let row =
        sqlx::query("SELECT coalesce((SELECT max(seq) FROM entries) >= next, false) FROM head")
            .fetch_one(connection)
            .await?;
    Ok(row.try_get(0)?)
}

/// The schemas in which the tables of a ledger lie.
pub(super) async fn schemas_of_ledgers(
    connection: &mut PgConnection,
) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT n.nspname::text FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname = '_sqlx_migrations' AND EXISTS (
             SELECT 1 FROM pg_catalog.pg_class e
             WHERE e.relnamespace = n.oid AND e.relname = 'open_dispatches')",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
