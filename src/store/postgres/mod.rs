//! The ledger in Postgres: many processes share it, the lock on the row `head` decides who appends.

mod append;
mod index;
mod leases;
mod personal;
mod read;
mod session;
mod statements;
mod tls;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Postgres,
    migrate::Migrate,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Active, AppendError, Claimed, Head, MATCHED_AT_ONCE, Patience, ROWS_OF_A_BATCH, RecordQuery,
    Seal, SettingFault, Store, StoreError, StoreOptions, Stored,
    bound::{BLOCK_OPERATION, Borrowed, MIGRATION, OPERATION, Writer, within},
    held_against,
    index::{Index as _, Indexing, matching, occurring, search},
    index_for_a_while, migrations,
    standing::{Admission, Standing},
};
use crate::{
    domain::{CountKey, Counts, Digest, Seq},
    ledger::{SeqRange, StoreSettings, Tile, TileId},
};
use session::Session;

/// How many connections serve what is not an append.
const READERS: u32 = 8;
/// How long it may take to find out why there is no connection.
const LOOK: Duration = Duration::from_millis(250);
/// How long a migration that gave up waiting for a lock stays back.
const AGAIN: Duration = Duration::from_secs(3);

pub(super) struct PostgresStore {
    /// Whether the server runs on this machine, and so by its clock.
    is_local: bool,
    options: PgConnectOptions,
    session: Session,
    standing: Arc<Standing>,
    writer: Writer<PgConnection, Session>,
    known: append::Known,
    pool: PgPool,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl PostgresStore {
    pub(super) fn open(url: &str, with: StoreOptions) -> Result<Self, StoreError> {
        let options =
            tls::options(url, with)?.application_name("lexgate").disable_statement_logging();
        let standing = Arc::new(Standing::at(tls::address(&options), with.patience));
        let session = Session::new(&options, with, standing.clone())?;
        let bounded = session.options(options.clone());
        // Searches are planned for the blocks that they name.
        let reading = bounded.clone().options([("plan_cache_mode", "force_custom_plan")]);
        let appending = bounded.options([("plan_cache_mode", "force_generic_plan")]);
        let (admission, known) = (session.clone(), standing.clone());
        let admitted = standing.clone();
        let pool = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(with.patience.connect())
            // In place of a ping: as long, and it says more. A server that has been replaced may live on,
            // and would answer with what was there then.
            .test_before_acquire(false)
            .before_acquire(move |connection, about| {
                let known = known.clone();
                Box::pin(async move {
                    let takes = known.takes(about.age);
                    Ok(takes && is_current(connection, &known, about.age).await?)
                })
            })
            .after_connect(move |connection, about| {
                let (admission, known) = (admission.clone(), admitted.clone());
                Box::pin(async move {
                    let refused = |error: StoreError| sqlx::Error::Configuration(Box::new(error));
                    admission.admit(connection).await.map_err(refused)?;
                    if is_current(connection, &known, about.age).await? {
                        return Ok(());
                    }
                    // The pool connects again at once, and would say so each time.
                    tokio::time::sleep(LOOK).await;
                    Err(refused(StoreError::ReadOnly))
                })
            })
            .connect_lazy_with(reading);
        let is_local = tls::runs_here(&options);
        let writer = Writer::new(appending, session.clone(), standing.clone());
        let known = append::Known::default();
        Ok(Self { is_local, options, session, standing, writer, known, pool })
    }

    async fn connection(&self) -> Result<Borrowed<Postgres>, StoreError> {
        self.standing.check()?;
        self.any_connection().await
    }

    /// Refuses while an entry lies behind the head.
    async fn look_beyond_head(&self) -> Result<(), StoreError> {
        let mut connection = self.any_connection().await?;
        let beyond = within(OPERATION, read::reaches_beyond_head(connection.get()?)).await?;
        connection.give_back();
        self.standing.intruded(beyond)
    }

    /// A connection, whatever is known of the server.
    async fn any_connection(&self) -> Result<Borrowed<Postgres>, StoreError> {
        let error = match Borrowed::from(&self.pool).await {
            Ok(borrowed) => return Ok(borrowed),
            Err(error) => error,
        };
        // The pool says only that it has none.
        if let Some(fault) = self.standing.fault() {
            return Err(fault.into());
        }
        Err(self.standing.unreachable(self.cause(error).await))
    }

    /// Why the pool had no connection in time: it tries again and again, and keeps the reason to itself.
    async fn cause(&self, error: StoreError) -> StoreError {
        if !matches!(error, StoreError::TimedOut | StoreError::Database(sqlx::Error::PoolTimedOut))
        {
            return error;
        }
        match timeout(LOOK, tls::reach(&self.options)).await {
            Ok(Err(cause)) => StoreError::Database(sqlx::Error::Io(cause)),
            Ok(Ok(())) if self.standing.is_read_only() => StoreError::ReadOnly,
            Ok(Ok(())) | Err(_) => error,
        }
    }
}

/// Whether the server of a connection of this age takes writes, or may be read all the same.
async fn is_current(
    connection: &mut PgConnection,
    known: &Standing,
    age: Duration,
) -> Result<bool, sqlx::Error> {
    if session::is_read_only(connection).await? {
        return Ok(known.takes_read_only(age));
    }
    known.takes_writes();
    Ok(true)
}

/// A fault where the tables lie in another schema than is searched: new ones would be made beside them.
async fn find_tables(connection: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    let schemas = read::schemas_of_ledgers(connection).await?;
    if schemas.is_empty() || schemas.iter().any(|found| found == schema) {
        return Ok(());
    }
    Err(SettingFault {
        name: "search_path",
        found: schema.to_owned(),
        want: "the tables of a ledger lie in another schema; name it in `[store] url`, as `?options=-c%20search_path%3DNAME`",
    }
    .into())
}

#[async_trait]
impl Store for PostgresStore {
    fn patience(&self) -> Patience {
        self.standing.patience
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrator = migrations::migrator(migrations::POSTGRES).await?;
        // A connection of its own: migrations may take longer than what the others are allowed.
        let session = self.session.unbounded();
        let options = session.options(self.options.clone());
        let patience = self.standing.patience.connect();
        let connected = within(patience, options.connect()).await;
        let mut connection = connected.map_err(|error| self.standing.unreachable(error))?;
        within(patience, session.admit(&mut connection)).await?;
        within(OPERATION, find_tables(&mut connection, &session.schema)).await?;
        let migration = async {
            // A reader that takes long is in the way of what changes a table, and everybody would wait behind
            // it: the migration gives up its place, and tries again.
            while let Err(error) = migrator.run_direct(&mut connection).await {
                if !migrations::is_locked(&error) {
                    return Err(error);
                }
                tracing::warn!(
                    "a migration waits for somebody who reads the tables of the log; it is tried again"
                );
                tokio::time::sleep(AGAIN).await;
            }
            Ok(())
        };
        within(MIGRATION, migration).await?;
        within(patience, connection.close()).await?;
        index_for_a_while(self).await;
        Ok(())
    }

    async fn is_migrated(&self) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        if !within(OPERATION, read::has_migrations(connection.get()?)).await? {
            connection.give_back();
            return Ok(false);
        }
        let applied = within(OPERATION, connection.get()?.list_applied_migrations()).await?;
        connection.give_back();
        Ok(migrations::is_complete(migrations::POSTGRES, &applied).await?)
    }

    async fn append(&self, batch: &mut dyn Seal) -> Result<(), AppendError> {
        let appended = append::append(&self.writer, &self.known, batch).await;
        self.standing.appended(&appended);
        match appended {
            // Where the next place is taken, all is refused that is written: not for a reason of its own.
            Err(AppendError::NotCommitted(error)) if error.is_refusal() => {
                let taken = self.look_beyond_head().await.err();
                Err(AppendError::NotCommitted(taken.unwrap_or(error)))
            }
            appended => appended,
        }
    }

    async fn settle(&self, id: Uuid) -> Result<Option<Stored>, StoreError> {
        append::settle(&self.writer, id).await
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        let mut connection = self.connection().await?;
        let head = within(OPERATION, read::head(connection.get()?)).await?;
        connection.give_back();
        Ok((head.next > Seq::new(0)).then_some(head))
    }

    async fn range(&self, from: Seq, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::range(connection.get()?, from, limit)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::checkpoint(connection.get()?)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn witnessed(&self) -> Result<Option<String>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::witnessed(connection.get()?)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn keep_witnessed(&self, size: u64, note: &str) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, append::keep_witnessed(connection.get()?, size, note)).await?;
        connection.give_back();
        Ok(())
    }

    async fn tiles(&self, ids: &[TileId]) -> Result<Vec<Tile>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::tiles(connection.get()?, ids)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn remove_bodies(&self, range: SeqRange, as_of: Seq) -> Result<Option<u64>, StoreError> {
        let mut connection = self.connection().await?;
        let removal = append::remove_bodies(connection.get()?, range, as_of);
        let removed = within(MIGRATION, removal).await?;
        connection.give_back();
        Ok(removed)
    }

    async fn record(&self, seq: Seq) -> Result<Option<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::record(connection.get()?, seq)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn record_by_id(&self, id: Uuid) -> Result<Option<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::record_by_id(connection.get()?, id)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn outcome_of(&self, decision: Seq) -> Result<Option<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::outcome_of(connection.get()?, decision)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn query(&self, query: &RecordQuery) -> Result<Vec<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, search(connection.get()?, query)).await;
        let found = found.map_err(StoreError::of_question)?;
        connection.give_back();
        Ok(found)
    }

    async fn matching(
        &self,
        queries: &[RecordQuery],
        seqs: &[Seq],
    ) -> Result<Vec<BTreeSet<Seq>>, StoreError> {
        let mut found = vec![BTreeSet::new(); queries.len()];
        // Each part within the time of one operation.
        for some in seqs.chunks(MATCHED_AT_ONCE) {
            let some: Vec<u64> = some.iter().map(|seq| seq.get()).collect();
            let mut connection = self.connection().await?;
            let matching = within(OPERATION, matching(connection.get()?, queries, &some)).await?;
            connection.give_back();
            for (found, matching) in found.iter_mut().zip(matching) {
                found.extend(matching.into_iter().map(Seq::new));
            }
        }
        Ok(found)
    }

    async fn occurring(&self, terms: &[String]) -> Result<Option<Vec<String>>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, occurring(connection.get()?, terms)).await;
        let found = found.map_err(StoreError::of_question)?;
        connection.give_back();
        Ok(found)
    }

    async fn unindexed(&self) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, connection.get()?.progress()).await?;
        connection.give_back();
        Ok(found.head.saturating_sub(found.next))
    }

    async fn index_block(&self) -> Result<Indexing, StoreError> {
        let mut connection = self.connection().await?;
        let indexed = within(BLOCK_OPERATION, index::index_block(connection.get()?)).await?;
        connection.give_back();
        Ok(indexed)
    }

    async fn active(&self) -> Result<Option<Active>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::active(connection.get()?)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn content(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::content(connection.get()?, digest)).await?;
        connection.give_back();
        held_against(digest, found)
    }

    async fn exported(&self, keys: &BTreeSet<CountKey>) -> Result<Counts, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::exported(connection.get()?, keys)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn idempotent(&self, scope: &str, key: &str) -> Result<Option<Claimed>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::idempotent(connection.get()?, scope, key)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn prune(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, leases::prune(connection.get()?, before)).await?;
        connection.give_back();
        Ok(())
    }

    async fn renew_lease(&self, process: Uuid, until: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, leases::renew_lease(connection.get()?, process, until)).await?;
        connection.give_back();
        Ok(())
    }

    async fn grant_missing_leases(&self, until: Timestamp) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let granted =
            within(OPERATION, leases::grant_missing_leases(connection.get()?, until)).await?;
        connection.give_back();
        Ok(granted)
    }

    async fn release_lease(&self, process: Uuid) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, leases::release_lease(connection.get()?, process)).await?;
        connection.give_back();
        Ok(())
    }

    async fn abandon(&self, decisions: &[Seq]) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, leases::abandon(connection.get()?, decisions)).await?;
        connection.give_back();
        Ok(())
    }

    async fn expired_dispatches(
        &self,
        now: Timestamp,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::expired(connection.get()?, now, after, limit)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn open_dispatches(&self) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let open = within(OPERATION, read::open_dispatches(connection.get()?)).await?;
        connection.give_back();
        Ok(open)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let mut connection = self.connection().await?;
        let now = within(OPERATION, read::now(connection.get()?)).await?;
        connection.give_back();
        Ok(now)
    }

    fn shares_clock(&self) -> bool {
        self.is_local
    }

    async fn writable(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        if !within(OPERATION, read::writable(connection.get()?)).await? {
            connection.give_back();
            return Err(StoreError::ReadOnly);
        }
        within(OPERATION, leases::touch(connection.get()?)).await?;
        if self.standing.append_failed() {
            let written = leases::write_and_forget(connection.get()?, ROWS_OF_A_BATCH);
            within(OPERATION, written).await?;
            self.standing.written();
        }
        connection.give_back();
        Ok(())
    }

    async fn examine(&self) -> Result<StoreSettings, StoreError> {
        let mut connection = self.any_connection().await?;
        let found = within(OPERATION, self.session.examine(connection.get()?)).await?;
        connection.give_back();
        self.look_beyond_head().await?;
        Ok(found)
    }

    fn searches(&self) -> usize {
        READERS as usize / 2
    }
}
