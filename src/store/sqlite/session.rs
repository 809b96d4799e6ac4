//! What the ledger relies on in a connection to `SQLite`, read back: a file system may not allow what was
//! asked for, and says nothing.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use sqlx::{Row as _, SqliteConnection};

use crate::{
    ledger::StoreSettings,
    store::{
        SettingFault, StoreError,
        standing::{Admission, Standing, Turn},
    },
};

/// Begins a transaction that holds the write lock.
pub(super) const LOCK: &str = "BEGIN IMMEDIATE";

/// Each setting, the only value under which the ledger works, and how it is had. `synchronous` 2 is
/// `FULL`: a commit is on the disk when it is answered.
const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "journal_mode",
        "wal",
        "the file system keeps no write-ahead log; put the database on a local disk",
    ),
    (
        "synchronous",
        "2",
        "a commit must be on the disk when it is answered; remove what lowers it from `[store] url`",
    ),
    (
        "foreign_keys",
        "1",
        "a value would outlive its key; remove what turns them off from `[store] url`",
    ),
    (
        "secure_delete",
        "1",
        "what is erased would stay in the file; remove what turns it off from `[store] url`",
    ),
    (
        "ignore_check_constraints",
        "0",
        "rows would not be checked; remove what sets it from `[store] url`",
    ),
];

/// How connections are to be, and which file they are to.
#[derive(Clone, Debug)]
pub(super) struct Session {
    file: PathBuf,
    /// Device and inode of the file that was opened first.
    opened: Arc<OnceLock<(u64, u64)>>,
    standing: Arc<Standing>,
    /// Whose lock means that no other process writes or empties the write-ahead log: `SQLite` before 3.51.3
    /// may lose pages when two connections do so at once (its "WAL-reset bug").
    lock: Arc<File>,
}

impl Session {
    /// # Errors
    /// When the file beside the database, whose lock is its writers' turn, cannot be made.
    pub(super) fn new(file: PathBuf, standing: Arc<Standing>) -> Result<Self, StoreError> {
        let mut beside = OsString::from(&file);
        beside.push("-lock");
        let mut options = File::options();
        let lock = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(&beside).map_err(|error| StoreError::Folder {
            path: PathBuf::from(beside).display().to_string(),
            error,
        })?;
        Ok(Self { file, opened: Arc::default(), standing, lock: Arc::new(lock) })
    }

    /// Device and inode of what is at the path now.
    fn identity(&self) -> Option<(u64, u64)> {
        std::fs::metadata(&self.file).ok().map(|found| (found.dev(), found.ino()))
    }

    /// Who removes or replaces the file takes away what is answered from now on.
    fn check_file(&self) -> Result<(), SettingFault> {
        match (self.opened.get(), self.identity()) {
            (Some(opened), Some(found)) if *opened == found => Ok(()),
            (None, _) => Ok(()),
            (Some(_), found) => Err(SettingFault {
                name: "file",
                found: if found.is_some() { "another one" } else { "gone" }.to_owned(),
                want: "it was removed or replaced while the service runs; put it back, or stop the service, restore the database, and start again",
            }),
        }
    }

    async fn read_back(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        for (name, want, remedy) in SETTINGS {
            let row = sqlx::query(&format!("PRAGMA {name}")).fetch_one(&mut *connection).await?;
            // Some are numbers, some are words.
            let found: String = row.try_get_unchecked(0)?;
            if found != *want {
                return Err(SettingFault { name, found, want: remedy }.into());
            }
        }
        Ok(())
    }

    /// Whether the file is still the one that was opened, and remembers what was found.
    pub(super) fn examine_file(&self) -> Result<(), StoreError> {
        self.check_file().map_err(|fault| {
            self.standing.found(Err(&fault));
            fault.into()
        })
    }

    /// Asks for everything again, and remembers what was found.
    pub(super) async fn examine(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<StoreSettings, StoreError> {
        let examined = match self.check_file() {
            Ok(()) => self.read_back(connection).await,
            Err(fault) => Err(fault.into()),
        };
        match &examined {
            Ok(()) => self.standing.found(Ok(())),
            Err(StoreError::Setting(fault)) => self.standing.found(Err(fault)),
            Err(_) => {}
        }
        examined?;
        let row = sqlx::query("SELECT sqlite_version()").fetch_one(connection).await?;
        let settings = [("journal_mode", "wal"), ("synchronous", "full")];
        Ok(StoreSettings {
            engine: "sqlite".to_owned(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            version: row.try_get(0)?,
        })
    }
}

impl Admission<SqliteConnection> for Session {
    async fn admit(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        if let Some(found) = self.identity() {
            let _ = self.opened.set(found);
        }
        let read = match self.check_file() {
            Ok(()) => self.read_back(connection).await,
            Err(fault) => Err(fault.into()),
        };
        if let Err(StoreError::Setting(fault)) = &read {
            self.standing.found(Err(fault));
        }
        read
    }

    async fn turn(&self) -> Result<Turn, StoreError> {
        Turn::on(&self.lock, self.standing.patience.connect()).await
    }
}
