//! The ledger in Postgres: many processes share it, the lock on the row `head` decides who appends.

mod append;
mod leases;
mod personal;
mod read;
mod statements;

use std::{collections::BTreeSet, fmt, str::FromStr};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Postgres,
    migrate::Migrate,
    postgres::{PgConnectOptions, PgPoolOptions},
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

/// How many connections serve what is not an append.
const READERS: u32 = 8;

pub(super) struct PostgresStore {
    /// Whether the server runs on this machine, and so by its clock.
    is_local: bool,
    options: PgConnectOptions,
    writer: Writer<PgConnection>,
    known: append::Known,
    pool: PgPool,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl PostgresStore {
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("lexgate")
            .disable_statement_logging();
        // A replica that hangs or is cut off must not keep the head's lock from the others.
        let bounded = options.clone().options([
            ("statement_timeout", "5s"),
            ("lock_timeout", "1s"),
            ("idle_in_transaction_session_timeout", "10s"),
            // Searches are planned for the terms that they name.
            ("plan_cache_mode", "force_custom_plan"),
        ]);
        let appending = bounded.clone().options([("plan_cache_mode", "force_generic_plan")]);
        let pool = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(CONNECT)
            .connect_lazy_with(bounded);
        let is_local = runs_here(&options);
        Ok(Self {
            is_local,
            options,
            writer: Writer::new(appending),
            known: append::Known::default(),
            pool,
        })
    }

    async fn connection(&self) -> Result<Borrowed<Postgres>, StoreError> {
        Borrowed::from(&self.pool).await
    }
}

/// Whether the address is a socket's, or one that leads nowhere but to this machine.
fn runs_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(is_loopback)
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let migrator = migrations::migrator(migrations::POSTGRES).await?;
        // A connection of its own: migrations may take longer than what the others are allowed.
        let mut connection = within(CONNECT, self.options.connect()).await?;
        within(MIGRATION, migrator.run_direct(&mut connection)).await?;
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
        Ok(migrations::is_complete(migrations::POSTGRES, &applied).await?)
    }

    async fn append(&self, batch: &mut dyn Seal) -> Result<(), AppendError> {
        append::append(&self.writer, &self.known, batch).await
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

    async fn remove_bodies(&self, range: SeqRange) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let removed = within(MIGRATION, append::remove_bodies(connection.get()?, range)).await?;
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
        self.is_local
    }

    async fn writable(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let writable = within(OPERATION, read::writable(connection.get()?)).await?;
        connection.give_back();
        if writable { Ok(()) } else { Err(StoreError::ReadOnly) }
    }
}
