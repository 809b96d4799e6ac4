//! The ledger in a file of `SQLite`: nothing to install, one machine. The file's lock decides who
//! appends.

mod append;
mod index;
mod leases;
mod personal;
mod read;
mod session;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrate,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use uuid::Uuid;

use super::{
    Active, AddressError, AppendError, Claimed, Head, MATCHED_AT_ONCE, Patience, ROWS_OF_A_BATCH,
    RecordQuery, Seal, Store, StoreError, Stored,
    bound::{BLOCK_OPERATION, Borrowed, MIGRATION, OPERATION, Writer, within},
    held_against,
    index::{Index as _, Indexing, matching, next_block, occurring, search},
    index_for_a_while, migrations,
    standing::{Admission, Standing},
};
use crate::{
    domain::{CountKey, Counts, Digest, Seq},
    ledger::{SeqRange, StoreSettings, Tile, TileId},
};
use session::Session;

/// How many connections read.
const READERS: u32 = 4;
/// How long a writer waits for another process; less than an append may take.
const BUSY: Duration = Duration::from_secs(1);

/// How often the write-ahead log is to be emptied before that is left for later, and after which pause.
const EMPTYINGS: (u32, Duration) = (10, Duration::from_millis(100));

pub(super) struct SqliteStore {
    options: SqliteConnectOptions,
    session: Session,
    standing: Arc<Standing>,
    writer: Writer<SqliteConnection, Session>,
    pool: SqlitePool,
    /// Whether the write-ahead log may still hold what was erased.
    must_empty: AtomicBool,
    /// Where the file lies.
    folder: PathBuf,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    pub(super) async fn open(url: &str, patience: Patience) -> Result<Self, StoreError> {
        let parsed = SqliteConnectOptions::from_str(url)?;
        let file = parsed.get_filename().to_owned();
        // Each connection would have a memory of its own.
        if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
            return Err(AddressError::Memory.into());
        }
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        if let Some(folder) = folder {
            tokio::fs::create_dir_all(folder).await.map_err(|error| StoreError::Folder {
                path: folder.display().to_string(),
                error,
            })?;
        }
        // The files beside it get the same rights. Where it cannot be made, SQLite says why.
        let mut made = tokio::fs::OpenOptions::new();
        let _ = made.write(true).create_new(true).mode(0o600).open(&file).await;
        let options = parsed
            // It is there by now. One that is gone later must not be made anew, empty.
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            // What is erased or pruned leaves no bytes behind.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let standing = Arc::new(Standing::new(patience));
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        let session = Session::new(file, standing.clone())?;
        let (admission, takes) = (session.clone(), standing.clone());
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(patience.connect())
            .before_acquire(move |_, about| {
                let takes = takes.takes(about.age);
                Box::pin(async move { Ok(takes) })
            })
            .after_connect(move |connection, _| {
                let admission = admission.clone();
                Box::pin(async move {
                    let refused = |error: StoreError| sqlx::Error::Configuration(Box::new(error));
                    admission.admit(connection).await.map_err(refused)
                })
            })
            .connect_lazy_with(options.clone().pragma("query_only", "ON"));
        let writer = Writer::new(options.clone(), session.clone(), standing.clone());
        let must_empty = AtomicBool::new(false);
        Ok(Self { options, session, standing, writer, pool, must_empty, folder })
    }

    async fn connection(&self) -> Result<Borrowed<Sqlite>, StoreError> {
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

    /// A connection, whatever is known of the file.
    async fn any_connection(&self) -> Result<Borrowed<Sqlite>, StoreError> {
        let borrowed = Borrowed::from(&self.pool).await;
        // The pool says only that it has none.
        borrowed.map_err(|error| {
            self.standing.fault().map_or_else(|| self.standing.unreachable(error), StoreError::from)
        })
    }

    /// Takes what was erased out of the write-ahead log. Somebody who reads may be in the way: then it is
    /// tried again for a while, and later with each examination.
    async fn empty_log(&self) -> Result<(), StoreError> {
        self.must_empty.store(true, Ordering::Relaxed);
        // A connection of its own, which waits for nobody: appends would wait for it.
        let options = self.options.clone().busy_timeout(Duration::ZERO);
        let mut connection = within(self.standing.patience.connect(), options.connect()).await?;
        let (times, pause) = EMPTYINGS;
        let mut is_empty = false;
        for _ in 0..times {
            // Nobody writes meanwhile, neither here nor in another process.
            let writer = self.writer.take().await?;
            is_empty = within(OPERATION, personal::checkpoint(&mut connection)).await?;
            writer.give_back();
            if is_empty {
                self.must_empty.store(false, Ordering::Relaxed);
                break;
            }
            tokio::time::sleep(pause).await;
        }
        if !is_empty {
            tracing::warn!(
                "the write-ahead log of the store still holds erased bytes, because somebody reads; emptying it is tried again"
            );
        }
        within(self.standing.patience.connect(), connection.close()).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn patience(&self) -> Patience {
        self.standing.patience
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrator = migrations::migrator(migrations::SQLITE).await?;
        let (mut connection, _) = self.writer.connect().await?;
        let migration = async {
            let _turn = self.session.turn().await?;
            // Two processes may start at once; SQLite knows no other lock.
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            migrator.run_direct(&mut *transaction).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(())
        };
        within(MIGRATION, migration).await?;
        within(self.standing.patience.connect(), connection.close()).await?;
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
        Ok(migrations::is_complete(migrations::SQLITE, &applied).await?)
    }

    async fn append(&self, batch: &mut dyn Seal) -> Result<(), AppendError> {
        let appended = append::append(&self.writer, batch).await;
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

    async fn remove_bodies(&self, range: SeqRange, as_of: Seq) -> Result<Option<u64>, StoreError> {
        let mut connection = self.writer.take().await?;
        let removal = append::remove_bodies(&mut connection, range, as_of);
        let removed = within(MIGRATION, removal).await?;
        connection.give_back();
        if removed.is_some_and(|removed| removed > 0) {
            self.empty_log().await?;
        }
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
        let block = within(BLOCK_OPERATION, next_block(connection.get()?)).await?;
        connection.give_back();
        let Some(block) = block else { return Ok(Indexing::UpToDate) };
        let mut writer = self.writer.take().await?;
        let indexed = within(OPERATION, index::keep(&mut writer, block)).await?;
        writer.give_back();
        Ok(indexed)
    }

    async fn clear_former_index(&self) -> Result<bool, StoreError> {
        let mut writer = self.writer.take().await?;
        let cleared = within(OPERATION, index::clear_former(&mut writer)).await?;
        writer.give_back();
        Ok(cleared)
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

    async fn grant_missing_leases(&self, until: Timestamp) -> Result<u64, StoreError> {
        let mut connection = self.writer.take().await?;
        let granted =
            within(OPERATION, leases::grant_missing_leases(&mut connection, until)).await?;
        connection.give_back();
        Ok(granted)
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
        true
    }

    async fn writable(&self) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, leases::touch(&mut connection)).await?;
        if self.standing.append_failed() {
            let written = leases::write_and_forget(&mut connection, ROWS_OF_A_BATCH);
            within(OPERATION, written).await?;
            self.standing.written();
        }
        connection.give_back();
        Ok(())
    }

    async fn examine(&self) -> Result<StoreSettings, StoreError> {
        self.session.examine_file()?;
        let mut connection = self.any_connection().await?;
        let found = within(OPERATION, self.session.examine(connection.get()?)).await?;
        connection.give_back();
        self.look_beyond_head().await?;
        if self.must_empty.load(Ordering::Relaxed) {
            self.empty_log().await?;
        }
        Ok(found)
    }

    async fn free(&self) -> Result<Option<u64>, StoreError> {
        let folder = self.folder.clone();
        // A disk that does not answer holds up nobody else.
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder));
        let asked = within(OPERATION, async { Ok::<_, StoreError>(asked.await) }).await?;
        let disk = asked.map_err(|_| StoreError::TimedOut)?.map_err(|error| {
            StoreError::Folder { path: self.folder.display().to_string(), error: error.into() }
        })?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    fn searches(&self) -> usize {
        READERS as usize / 2
    }
}
