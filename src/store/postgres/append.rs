//! Writes to Postgres.
//!
//! A batch is one statement, which changes nothing unless the head is the one that the batch
//! follows. Where no other process appends, the head is known: the statement is all there is. Else
//! the head is locked first, so that no process starves behind faster ones.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{
    personal::is_held_since,
    read,
    session::Session,
    statements::{FENCE, LOCK, SEPARATOR, WRITE, WRITE_BESIDE, WRITE_CALLS},
};
use crate::{
    domain::Seq,
    ledger::{Edge, SeqRange, Tile},
    store::{
        AppendError, Found, Head, Lookups, Row, Seal, Sealed, StoreClock, StoreError, Stored,
        bound::{Taken, Writer, until},
        crash_point,
        row::{self, revision_column, seq_column},
    },
};

/// The head as this process left it; nothing after a failure.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<Left>>);

#[derive(Clone, Debug)]
struct Left {
    head: Locked,
    /// The edge of the tree at that head.
    edge: Edge,
    /// Whether it was found as it had been left the last time: nobody else appends.
    alone: bool,
}

impl Known {
    fn take(&self) -> Option<Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, left: Left) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
    }
}

/// The head and its fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Locked {
    head: Head,
    fence: i64,
}

pub(super) async fn append(
    writer: &Writer<PgConnection, Session>,
    known: &Known,
    batch: &mut dyn Seal,
) -> Result<(), AppendError> {
    let mut connection = writer.take().await.map_err(AppendError::NotCommitted)?;
    let deadline = writer.deadline();
    let last = known.take();
    let sent = match last.as_ref().filter(|last| last.alone) {
        Some(last) => send(&mut connection, batch, last, deadline).await?,
        None => None,
    };
    let left = match sent {
        Some(left) => left,
        None => locked(writer, &mut connection, batch, last, deadline).await?,
    };
    known.set(left);
    connection.give_back();
    Ok(())
}

/// Writes a batch behind `last`, with nothing locked and nothing looked up. Gives the head that it
/// leaves; `None` when nothing was written and the batch has to go the longer way.
async fn send(
    connection: &mut PgConnection,
    batch: &mut dyn Seal,
    last: &Left,
    deadline: Instant,
) -> Result<Option<Left>, AppendError> {
    let Lookups { genesis, leaf, counts, counters, under_way, .. } = batch.lookups();
    // A leaf before the last one is not known here, nor whether others have signed what they left.
    let known = leaf.is_some_and(|seq| seq.get() + 1 == last.head.head.next.get());
    if genesis || !known || under_way || !counts.is_empty() || !counters.is_empty() {
        return Ok(None);
    }
    // What was claimed or reported before makes the statement fail, and so does a time that is not the
    // server's; then it is looked up.
    let sealed = batch
        .seal(&last.head.head, &last.edge, &Found::default())
        .map_err(AppendError::NotCommitted)?;
    // That nothing can be written behind this head may be because it is not the head any more.
    if sealed.rows.is_empty() || sealed.rows.iter().any(|row| row.activation.is_some()) {
        return Ok(None);
    }
    crash_point("sealed");
    match timeout_at(deadline, execute(connection, &sealed, last.head)).await {
        Ok(Ok(true)) => {
            crash_point("committed");
            let head = Locked { head: sealed.head, ..last.head };
            Ok(Some(Left { head, edge: sealed.edge, alone: true }))
        }
        Ok(Ok(false)) => Ok(None),
        Ok(Err(sqlx::Error::Database(error))) if !is_end(&*error) => Ok(None),
        Ok(Err(error)) => Err(AppendError::Ambiguous(error.into())),
        Err(_) => Err(AppendError::Ambiguous(StoreError::TimedOut)),
    }
}

/// Locks the head, then writes. Gives the head that it leaves.
async fn locked(
    writer: &Writer<PgConnection, Session>,
    connection: &mut Taken<'_, PgConnection>,
    batch: &mut dyn Seal,
    last: Option<Left>,
    deadline: Instant,
) -> Result<Left, AppendError> {
    let work = write(writer, connection, batch, last);
    let (found, left) = until(deadline, work).await.map_err(AppendError::NotCommitted)?;
    let changed = left.head != found;
    let end = if changed { "COMMIT" } else { "ROLLBACK" };
    crash_point("written");
    until(deadline, connection.execute(end)).await.map_err(|error| {
        if changed { AppendError::Ambiguous(error) } else { AppendError::NotCommitted(error) }
    })?;
    crash_point("committed");
    Ok(left)
}

pub(super) async fn settle(
    writer: &Writer<PgConnection, Session>,
    id: Uuid,
) -> Result<Option<Stored>, StoreError> {
    let mut connection = writer.take().await?;
    let deadline = writer.deadline();
    until(deadline, lock(writer, &mut connection, FENCE)).await?;
    let stored = until(deadline, read::record_by_id(&mut connection, id)).await?;
    until(deadline, connection.execute("COMMIT")).await?;
    connection.give_back();
    Ok(stored)
}

/// Does all but the commit. Gives the head that it found and the one that it leaves: the same when
/// there is nothing to commit.
async fn write(
    writer: &Writer<PgConnection, Session>,
    connection: &mut Taken<'_, PgConnection>,
    batch: &mut dyn Seal,
    last: Option<Left>,
) -> Result<(Locked, Left), StoreError> {
    let Held { locked: found, checkpoint, now } = lock(writer, connection, LOCK).await?;
    crash_point("locked");
    let mut before = look_up(connection, &batch.lookups()).await?;
    before.checkpoint = Some(checkpoint);
    before.clock = StoreClock::At(now);
    let (edge, alone) = match last {
        Some(last) if last.head == found => (last.edge, true),
        _ => (read::edge(connection, found.head.next).await?, false),
    };
    let sealed = batch.seal(&found.head, &edge, &before)?;
    if sealed.rows.is_empty() {
        return Ok((found, Left { head: found, edge, alone }));
    }
    crash_point("sealed");
    activate(connection, &sealed).await?;
    if !execute(connection, &sealed, found).await? {
        return Err(StoreError::Corrupt("the head moved while it was locked, or a clock was set"));
    }
    let head = Locked { head: sealed.head, ..found };
    Ok((found, Left { head, edge: sealed.edge, alone }))
}

/// Runs the shortest of the three statements that will do. Whether the head was the expected one.
async fn execute(
    connection: &mut PgConnection,
    sealed: &Sealed,
    expected: Locked,
) -> Result<bool, sqlx::Error> {
    let rows = || sealed.rows.iter();
    let tiles = || sealed.tiles.iter();
    let of_calls =
        |row: &Row| row.dispatched_by.is_some() || row.about.is_some() || row.personal.is_some();
    let more = |row: &Row| {
        row.claim.is_some() || row.volume.as_ref().is_some_and(|volume| !volume.adds.is_empty())
    };
    let more = !sealed.tiles.is_empty() || !sealed.used.is_empty() || rows().any(more);
    let calls = more || rows().any(of_calls);
    let statement = match (calls, more) {
        (_, true) => WRITE_BESIDE,
        (true, false) => WRITE_CALLS,
        (false, false) => WRITE,
    };
    let mut query = sqlx::query(statement)
        .bind(seq_column(sealed.head.next))
        .bind(sealed.head.leaf.as_bytes().as_slice())
        .bind(sealed.head.ts.as_microsecond())
        .bind(revision_column(sealed.head.revision))
        .bind(seq_column(expected.head.next))
        .bind(expected.head.leaf.as_bytes().as_slice())
        .bind(expected.fence)
        .bind(rows().map(|row| seq_column(row.seq)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.id.to_string()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.kind.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.about.map(seq_column)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.leaf.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(rows().map(|row| &*row.entry).collect::<Vec<_>>())
        .bind(rows().map(|row| row.terms.join(SEPARATOR)).collect::<Vec<_>>())
        .bind(&*sealed.checkpoint);
    if calls {
        let opened = || rows().filter_map(|row| Some((seq_column(row.seq), row.opens()?)));
        let kept = || rows().filter_map(|row| Some((row.seq, row.personal.as_deref()?)));
        query = query
            .bind(opened().map(|(seq, _)| seq).collect::<Vec<_>>())
            .bind(opened().map(|(_, (process, ..))| process.to_string()).collect::<Vec<_>>())
            .bind(opened().map(|(_, (_, app, _))| app).collect::<Vec<_>>())
            .bind(opened().map(|(_, (.., tenant))| tenant).collect::<Vec<_>>())
            .bind(kept().map(|(seq, _)| seq_column(seq)).collect::<Vec<_>>())
            .bind(kept().map(|(_, value)| value.key.to_string()).collect::<Vec<_>>())
            .bind(kept().map(|(_, value)| value.sealed.as_slice()).collect::<Vec<_>>());
    }
    if more {
        let claims = || rows().filter_map(|row| Some((row.seq, row.claim.as_deref()?)));
        let exports = sealed.exports();
        query = query
            .bind(claims().map(|(_, claim)| claim.scope.as_str()).collect::<Vec<_>>())
            .bind(claims().map(|(_, claim)| claim.key.as_str()).collect::<Vec<_>>())
            .bind(
                claims().map(|(_, claim)| claim.request.as_bytes().as_slice()).collect::<Vec<_>>(),
            )
            .bind(claims().map(|(seq, _)| seq_column(seq)).collect::<Vec<_>>())
            .bind(tiles().map(|tile| i64::from(tile.id.level)).collect::<Vec<_>>())
            .bind(tiles().map(|tile| seq_column(Seq::new(tile.id.n))).collect::<Vec<_>>())
            .bind(tiles().map(Tile::bytes).collect::<Vec<_>>())
            .bind(exports.iter().map(|row| row.0.to_owned()).collect::<Vec<_>>())
            .bind(exports.iter().map(|row| row.1.to_owned()).collect::<Vec<_>>())
            .bind(exports.iter().map(|row| row.2).collect::<Vec<_>>())
            .bind(exports.iter().map(|row| row.3.clone()).collect::<Vec<_>>())
            .bind(exports.iter().map(|row| row.4).collect::<Vec<_>>())
            .bind(sealed.used.keys().map(|key| &*key.name).collect::<Vec<_>>())
            .bind(sealed.used.keys().map(|key| key.since.as_microsecond()).collect::<Vec<_>>())
            .bind(sealed.used.values().map(ToString::to_string).collect::<Vec<_>>());
    }
    let (here, bound) = sealed.clock_columns();
    let revision = revision_column(expected.head.revision);
    let row = query.bind(here).bind(bound).bind(revision).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)? == 1)
}

/// Whether the connection was closed while it stood idle; nothing was asked of it then.
fn is_closed(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => is_end(&**error),
        _ => false,
    }
}

/// 25006: the server has become a standby, or was set read-only. Another may have taken its place.
fn is_read_only(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("25006"))
}

/// 57P01 to 57P05: shut down, crashed, not yet started, idle for too long.
fn is_end(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("57P"))
}

/// What is there once the head's lock is held.
struct Held {
    locked: Locked,
    /// The checkpoint that was signed with the head.
    checkpoint: String,
    /// The server's time.
    now: Timestamp,
}

/// Begins a transaction that holds the head's lock.
async fn lock(
    writer: &Writer<PgConnection, Session>,
    connection: &mut Taken<'_, PgConnection>,
    statement: &'static str,
) -> Result<Held, StoreError> {
    let row = match connection.fetch_one(statement).await {
        Err(error) if connection.used() && (is_closed(&error) || is_read_only(&error)) => {
            connection.replace(writer.connect().await?);
            connection.fetch_one(statement).await?
        }
        answer => answer?,
    };
    let now = Timestamp::from_microsecond(row.try_get(5)?)
        .map_err(|_| StoreError::Corrupt("an instant beyond the calendar"))?;
    let locked = Locked { head: row::head(&row)?, fence: row.try_get(4)? };
    Ok(Held { locked, checkpoint: row.try_get(6)?, now })
}

async fn look_up(connection: &mut PgConnection, lookups: &Lookups) -> Result<Found, StoreError> {
    let mut found = Found::default();
    if lookups.genesis {
        found.genesis = read::record(connection, Seq::new(0)).await?.map(|stored| stored.entry);
    }
    if let Some(seq) = lookups.leaf {
        found.leaf = read::record(connection, seq).await?.map(|stored| stored.leaf);
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
        let rows = sqlx::query(
            "SELECT about FROM entries WHERE about = ANY ($1) AND seq < (SELECT next FROM head)",
        )
        .bind(lookups.decisions.iter().copied().map(seq_column).collect::<Vec<_>>())
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

pub(super) async fn keep_witnessed(
    connection: &mut PgConnection,
    size: u64,
    note: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO witnessed (size, note) VALUES ($1, $2)
         ON CONFLICT (one) DO UPDATE SET size = excluded.size, note = excluded.note
         WHERE witnessed.size <= excluded.size",
    )
    .bind(seq_column(Seq::new(size)))
    .bind(note)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes bodies, in a transaction that says so.
pub(super) async fn remove_bodies(
    connection: &mut PgConnection,
    range: SeqRange,
    as_of: Seq,
) -> Result<Option<u64>, StoreError> {
    let mut transaction = connection.begin().await?;
    transaction.execute("SET LOCAL lexgate.prune = 'on'").await?;
    let removed = sqlx::query(
        "UPDATE entries SET entry = '', terms = '{}'
         WHERE seq BETWEEN $1 AND $2 AND entry <> ''",
    )
    .bind(seq_column(range.first))
    .bind(seq_column(range.last))
    .execute(&mut *transaction)
    .await?;
    if removed.rows_affected() > 0 {
        sqlx::query("DELETE FROM personal_values WHERE seq BETWEEN $1 AND $2")
            .bind(seq_column(range.first))
            .bind(seq_column(range.last))
            .execute(&mut *transaction)
            .await?;
    }
    // Last, so that nobody who appends waits for the removal; from here on no hold comes before it.
    transaction.execute("SELECT next FROM head FOR UPDATE").await?;
    if is_held_since(&mut transaction, as_of).await? {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    Ok(Some(removed.rows_affected()))
}
