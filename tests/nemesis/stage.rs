//! The stores that the services write to, and what befalls them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection, PgConnection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::task::block_in_place;

use super::{
    cluster::{Cluster, SMALL, Server},
    process::{self, Watchdog},
    proxy::{Link, Proxy},
    watch::{self, Entry},
};
use crate::harness::Site;

/// The database's name.
const LOG: &str = "log";
/// The way to the store that is nobody's but a command's or a second writer's.
pub(super) const OTHERS: usize = 2;
/// The position of a row that no service wrote.
const FOREIGN: u32 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Postgres {
    cluster: Cluster,
    /// Between each replica and the server, and between all others and it.
    pub(super) networks: Vec<Proxy>,
    /// Between the primary and its standby.
    replication: Option<Proxy>,
    promoted: bool,
}

#[derive(Debug)]
pub(super) struct Sqlite {
    folder: PathBuf,
    lock: Option<SqliteConnection>,
    #[expect(dead_code, reason = "it is kept, not read")]
    watchdog: Watchdog,
}

#[derive(Debug)]
pub(super) enum Stage {
    Postgres(Box<Postgres>),
    Sqlite(Sqlite),
}

impl Stage {
    pub(super) async fn postgres(with_standby: bool) -> Self {
        let mut cluster = Cluster::start().await;
        let mut replication = None;
        if with_standby {
            let link = Proxy::to(cluster.primary.port).await;
            cluster.follow(link.port);
            replication = Some(link);
        }
        cluster.primary.sql(&["CREATE DATABASE log TABLESPACE small"]).await;
        let mut networks = Vec::new();
        for _ in 0..=OTHERS {
            networks.push(Proxy::to(cluster.primary.port).await);
        }
        Self::Postgres(Box::new(Postgres { cluster, networks, replication, promoted: false }))
    }

    /// The address for a replica, or for [`OTHERS`].
    pub(super) fn service_url(&self, slot: usize) -> String {
        match self {
            Self::Postgres(stage) => {
                format!("postgres://postgres@127.0.0.1:{}/{LOG}", stage.networks[slot].port)
            }
            Self::Sqlite(_) => format!("sqlite://{SMALL}/lexgate.db"),
        }
    }

    /// Where the store is looked at, past the network.
    pub(super) fn direct_url(&self) -> String {
        match self {
            Self::Postgres(stage) => stage.server().url(LOG),
            Self::Sqlite(stage) => format!("sqlite://{}", stage.file().display()),
        }
    }

    /// The site's folder for a SQLite file becomes a file system that can be filled.
    pub(super) fn sqlite(site: &Arc<Site>) -> Self {
        let folder = site.path(SMALL);
        let watchdog = Watchdog::over(&site.path("."), &folder);
        block_in_place(|| process::mount(&folder));
        Self::Sqlite(Sqlite { folder, lock: None, watchdog })
    }

    fn small(&self) -> PathBuf {
        match self {
            Self::Postgres(stage) => stage.cluster.small(),
            Self::Sqlite(stage) => stage.folder.clone(),
        }
    }

    pub(super) fn fill(&self) {
        block_in_place(|| process::fill(&self.small()));
    }

    pub(super) fn drain(&self) {
        block_in_place(|| process::drain(&self.small()));
    }

    /// Nothing can be written for a while.
    pub(super) async fn pause(&mut self) {
        match self {
            Self::Postgres(stage) => block_in_place(|| stage.server().pause()),
            Self::Sqlite(stage) => stage.lock().await,
        }
    }

    pub(super) async fn resume(&mut self) {
        match self {
            Self::Postgres(stage) => block_in_place(|| stage.server().resume()),
            Self::Sqlite(stage) => {
                if let Some(lock) = stage.lock.take() {
                    let _ = lock.close().await;
                }
            }
        }
    }

    /// How many calls have no outcome.
    pub(super) async fn open_dispatches(&self) -> Result<i64, sqlx::Error> {
        let (url, count) = (self.direct_url(), "SELECT count(*) FROM open_dispatches");
        Ok(if url.starts_with("postgres") {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query(count).fetch_one(&mut connection).await?.get(0)
        } else {
            let mut connection = SqliteConnection::connect(&url).await?;
            sqlx::query(count).fetch_one(&mut connection).await?.get(0)
        })
    }

    /// Keeps a copy of the store as it is.
    pub(super) async fn copy(&self) {
        match self {
            Self::Postgres(stage) => stage.copy().await,
            Self::Sqlite(stage) => stage.backup("lexgate.db", "copy.db"),
        }
    }

    /// Sets the store back to the copy.
    pub(super) async fn set_back(&self) {
        match self {
            Self::Postgres(stage) => stage.set_back().await,
            Self::Sqlite(stage) => {
                stage.backup("lexgate.db", "lost.db");
                stage.backup("copy.db", "lexgate.db");
            }
        }
    }

    /// What the store held before it was set back, or before another server took its place.
    pub(super) async fn lost(&self) -> Vec<Entry> {
        match self {
            Self::Postgres(stage) if stage.promoted => {
                let primary = &stage.cluster.primary;
                assert!(
                    primary.up_again(),
                    "the former primary does not start:\n{}",
                    primary.log()
                );
                let all = watch::all(&primary.url(LOG)).await;
                block_in_place(|| primary.kill());
                all
            }
            Self::Postgres(stage) => watch::all(&stage.server().url("lost")).await,
            Self::Sqlite(stage) => {
                watch::all(&format!("sqlite://{}", stage.folder.join("lost.db").display())).await
            }
        }
    }

    pub(super) fn as_postgres(&self) -> Option<&Postgres> {
        match self {
            Self::Postgres(stage) => Some(stage),
            Self::Sqlite(_) => None,
        }
    }

    /// The standby takes the primary's place, with what it has.
    pub(super) fn promote(&mut self) {
        let Self::Postgres(stage) = self else { return };
        let standby = stage.cluster.standby.as_ref().expect("the scene has a standby");
        block_in_place(|| {
            stage.cluster.primary.kill();
            standby.promote();
        });
        for network in &stage.networks {
            network.switch_to(standby.port);
        }
        stage.promoted = true;
        stage.all(Link::Passes);
    }
}

impl Postgres {
    fn server(&self) -> &Server {
        let standby = self.cluster.standby.as_ref().filter(|_| self.promoted);
        standby.unwrap_or(&self.cluster.primary)
    }

    /// Every way to the store.
    pub(super) fn all(&self, link: Link) {
        for network in &self.networks {
            network.set(link);
        }
    }

    pub(super) fn kill(&self) {
        block_in_place(|| self.server().kill());
    }

    /// Starts the server after [`Self::kill`]; a full disk may not let it.
    pub(super) fn up(&self) -> bool {
        self.server().is_running() || self.server().up_again()
    }

    /// The standby gets nothing any more.
    pub(super) fn cut_replication(&self) {
        self.replication.as_ref().expect("the scene has a standby").set(Link::Refuses);
    }

    /// Keeps everybody out while `statements` run.
    async fn alone(&self, statements: &[&str]) {
        self.all(Link::Refuses);
        let out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = 'log' AND pid <> pg_backend_pid()";
        let mut all = vec!["ALTER DATABASE log ALLOW_CONNECTIONS false", out];
        all.extend(statements);
        self.server().sql(&all).await;
        self.all(Link::Passes);
    }

    async fn copy(&self) {
        let copy = "CREATE DATABASE copy TEMPLATE log TABLESPACE small";
        self.alone(&[copy, "ALTER DATABASE log ALLOW_CONNECTIONS true"]).await;
    }

    async fn set_back(&self) {
        self.alone(&[
            "ALTER DATABASE log RENAME TO lost",
            "ALTER DATABASE copy RENAME TO log",
            "ALTER DATABASE lost ALLOW_CONNECTIONS true",
        ])
        .await;
    }

    /// Somebody with the service's own role writes rows.
    pub(super) async fn write_foreign_rows(&self) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.server().url(LOG)).await?;
        let open = format!("INSERT INTO open_dispatches VALUES ({FOREIGN}, gen_random_uuid())");
        sqlx::query(&open).execute(&mut connection).await?;
        let entry = "INSERT INTO entries (seq, id, ts, kind, leaf, entry, terms) \
                     SELECT next, gen_random_uuid(), 0, 'decision', sha256('foreign'), 'foreign', '{}' FROM head";
        // A service may take the place first.
        for _ in 0..100 {
            if sqlx::query(entry).execute(&mut connection).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    /// An administrator takes them out again.
    pub(super) async fn remove_foreign_rows(&self) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.server().url(LOG)).await?;
        let remove = format!(
            "BEGIN; SET LOCAL session_replication_role = replica; \
             DELETE FROM entries WHERE entry = 'foreign'; \
             DELETE FROM open_dispatches WHERE seq = {FOREIGN}; COMMIT"
        );
        sqlx::raw_sql(&remove).execute(&mut connection).await?;
        Ok(())
    }
}

impl Sqlite {
    fn file(&self) -> PathBuf {
        self.folder.join("lexgate.db")
    }

    /// Takes the write lock, and keeps it. A second disturbance of the kind finds it taken, by us.
    async fn lock(&mut self) {
        if self.lock.is_some() {
            return;
        }
        let file = SqliteConnectOptions::new().filename(self.file());
        let file = file.busy_timeout(Duration::from_millis(20));
        let Ok(mut connection) = SqliteConnection::connect_with(&file).await else { return };
        for _ in 0..200 {
            if sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.lock = Some(connection);
    }

    /// SQLite's own way, which waits for those who use the file.
    fn backup(&self, from: &str, to: &str) {
        let script = "import sqlite3, sys\n\
                      to = sqlite3.connect(sys.argv[2], timeout=20)\n\
                      sqlite3.connect(sys.argv[1], timeout=20).backup(to)\n\
                      to.close()";
        let path = |name: &str| -> PathBuf { Path::new(&self.folder).join(name) };
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(path(from)).arg(path(to));
        block_in_place(|| process::run(&mut python));
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        process::unmount(&self.folder);
    }
}
