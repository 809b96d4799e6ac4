//! The ledger in a file of `SQLite`: nothing to install, one machine. The file's lock decides who
//! appends.

mod append;
mod leases;
mod personal;
mod read;

use std::{collections::BTreeSet, fmt, path::Path, str::FromStr, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrate,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use uuid::Uuid;

use super::{
    Active, AppendError, Claimed, Head, RecordQuery, Seal, Store, StoreError, Stored,
    bound::{Borrowed, CONNECT, MIGRATION, OPERATION, Writer, within},
    migrations,
};
use crate::{
    domain::{CountKey, Counts, Digest, Seq},
    ledger::{SeqRange, Tile, TileId},
};

/// How many connections read.
const READERS: u32 = 4;
/// How long a writer waits for another process; less than an append may take.
const BUSY: Duration = Duration::from_secs(1);

pub(super) struct SqliteStore {
    options: SqliteConnectOptions,
    writer: Writer<SqliteConnection>,
    pool: SqlitePool,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let parsed = SqliteConnectOptions::from_str(url)?;
        let file = parsed.get_filename().to_owned();
        // Each connection would have a memory of its own.
        if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
            return Err(StoreError::Address(url.to_owned()));
        }
        if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
            tokio::fs::create_dir_all(folder).await.map_err(|error| StoreError::Folder {
                path: folder.display().to_string(),
                error,
            })?;
        }
        let options = parsed
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            // What is erased or pruned leaves no bytes behind.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(CONNECT)
            .connect_lazy_with(options.clone().pragma("query_only", "ON"));
        Ok(Self { writer: Writer::new(options.clone()), options, pool })
    }

    async fn connection(&self) -> Result<Borrowed<Sqlite>, StoreError> {
        Borrowed::from(&self.pool).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let migrator = migrations::migrator(migrations::SQLITE).await?;
        let mut connection = within(CONNECT, self.options.connect()).await?;
        let migration = async {
            // Two processes may start at once; SQLite knows no other lock.
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            migrator.run_direct(&mut *transaction).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(())
        };
        within(MIGRATION, migration).await?;
        within(CONNECT, connection.close()).await
    }

    async fn is_migrated(&self) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        if !within(OPERATION, read::has_migrations(connection.get()?)).await? {
            connection.give_back();
            return Ok(false);
        }
        let applied = within(OPERATION, connection.get()?.list_applied_migrations()).await?;
        connection.give_back();
        Ok(migrations::is_complete(migrations::SQLITE, &applied).await?)
    }

    async fn append(&self, batch: &mut dyn Seal) -> Result<(), AppendError> {
        append::append(&self.writer, batch).await
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
        let mut connection = self.writer.take().await?;
        within(OPERATION, append::keep_witnessed(&mut connection, size, note)).await?;
        connection.give_back();
        Ok(())
    }

    async fn tiles(&self, ids: &[TileId]) -> Result<Vec<Tile>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::tiles(connection.get()?, ids)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn remove_bodies(&self, range: SeqRange) -> Result<u64, StoreError> {
        let mut connection = self.writer.take().await?;
        let removed = within(MIGRATION, append::remove_bodies(&mut connection, range)).await?;
        if removed > 0 {
            within(OPERATION, personal::checkpoint(&mut connection)).await?;
        }
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
        let found = within(OPERATION, read::query(connection.get()?, query)).await?;
        connection.give_back();
        Ok(found)
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
        Ok(found)
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
        let mut connection = self.writer.take().await?;
        within(OPERATION, leases::prune(&mut connection, before)).await?;
        connection.give_back();
        Ok(())
    }

    async fn renew_lease(&self, process: Uuid, until: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, leases::renew_lease(&mut connection, process, until)).await?;
        connection.give_back();
        Ok(())
    }

    async fn release_lease(&self, process: Uuid) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, leases::release_lease(&mut connection, process)).await?;
        connection.give_back();
        Ok(())
    }

    async fn abandon(&self, decisions: &[Seq]) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, leases::abandon(&mut connection, decisions)).await?;
        connection.give_back();
        Ok(())
    }

    async fn expired_dispatches(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, read::expired(connection.get()?, now, limit)).await?;
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
        true
    }

    async fn writable(&self) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, append::try_lock(&mut connection)).await?;
        connection.give_back();
        Ok(())
    }
}
