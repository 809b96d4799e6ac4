//! What can go wrong with a store.

use std::borrow::Cow;

use crate::ledger::{CanonicalError, Origin};

/// The store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address names no store.
    #[error(
        "`{0}` names no store: want `sqlite://path/to/file.db` or `postgres://user@host/database`"
    )]
    Address(String),
    /// The folder of the `SQLite` file cannot be made.
    #[error("cannot make the folder `{path}`")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The database refused or failed.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables cannot be brought up to date.
    #[error("the store cannot be migrated: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// No answer within the time that the operation has.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The database accepts no writes.
    #[error("the store is read-only")]
    ReadOnly,
    /// A row that this software cannot have written.
    #[error("the store holds a row that cannot be read: {0}")]
    Corrupt(&'static str),
    /// A record cannot be brought into canonical form.
    #[error("a record cannot be sealed: {0}")]
    Sealing(#[from] CanonicalError),
    /// Another log lies in this store.
    #[error("the store holds the log `{found}`, not `{want}`")]
    OtherLog {
        /// The log that is there.
        found: Origin,
        /// The log that was asked for.
        want: Origin,
    },
}

impl StoreError {
    /// Whether the database understood and refused: the same batch would be refused again. Else it
    /// was absent, busy or broken, and may be asked again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        let class = error.code().unwrap_or(Cow::Borrowed(""));
        // SQLSTATE 22 data exception, 23 integrity constraint; SQLite's primary code 19 CONSTRAINT.
        let sqlite = class.parse::<u32>().is_ok_and(|code| code & 0xff == 19);
        !error.kind().eq(&sqlx::error::ErrorKind::Other)
            || (class.len() == 5 && (class.starts_with("22") || class.starts_with("23")))
            || (class.len() < 5 && sqlite)
    }
}

/// A batch was not, or perhaps not, written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Nothing was written.
    #[error("nothing was written: {0}")]
    NotCommitted(#[source] StoreError),
    /// It failed while it was committed: all of it is written, or nothing.
    #[error("perhaps nothing was written: {0}")]
    Ambiguous(#[source] StoreError),
}
