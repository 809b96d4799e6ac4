//! What can go wrong with a store.

use std::borrow::Cow;

use super::standing::SettingFault;
use crate::{
    domain::Digest,
    ledger::{CanonicalError, Origin},
};

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
    /// The way to the server can be read or changed by others.
    #[error(
        "`[store] url` names the host `{host}` with `sslmode={mode}`: whoever is between here and there reads the records; remove `sslmode` (`verify-full` then holds, with `sslrootcert=FILE` for a certificate authority of your own), or set `[store] insecure_tls = true`"
    )]
    InsecureTls {
        /// The server.
        host: String,
        /// What was asked for.
        mode: &'static str,
    },
    /// A setting under which no ledger can be kept.
    #[error("{0}")]
    Setting(#[from] SettingFault),
    /// A content is not the one that its digest names.
    #[error(
        "the store's content `{0}` has other bytes than its digest says: somebody has changed it; restore it from a backup or an export"
    )]
    Content(Digest),
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
    /// The log is not the one that this signer has signed.
    #[error("{0}")]
    Mark(#[from] MarkError),
    /// Another log lies in this store.
    #[error("the store holds the log `{found}`, not `{want}`")]
    OtherLog {
        /// The log that is there.
        found: Origin,
        /// The log that was asked for.
        want: Origin,
    },
}

/// The log contradicts what its signer has signed before, or the signer cannot remember it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarkError {
    /// Entries are gone.
    #[error(
        "the store holds {size} entries, but {mark} have been signed: an old backup was restored, or entries were removed. Restore a newer one; if there is none, `lexgate ledger recover` records the loss"
    )]
    RolledBack {
        /// How many entries there are.
        size: u64,
        /// How many have been signed.
        mark: u64,
    },
    /// Entries are others than before.
    #[error(
        "the first {mark} entries in the store are not those that have been signed: history was rewritten. Restore the log; if it cannot be, `lexgate ledger recover` records the fork"
    )]
    Forked {
        /// How many have been signed.
        mark: u64,
    },
    /// Others have gone on with the log, and it is not signed.
    #[error(
        "the store's log has {size} entries, and no key of this process has signed that tree: somebody has written to the store past this service, or this key was retired. Restore the log; if it cannot be, `lexgate ledger recover` records the fork"
    )]
    Unsigned {
        /// How many entries there are.
        size: u64,
    },
    /// The file cannot be read or written.
    #[error(
        "the high-water mark `{path}` cannot be {doing}: {error}; nothing is signed without it"
    )]
    File {
        /// The file.
        path: String,
        /// `read` or `written`.
        doing: &'static str,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "the high-water mark `{path}` holds no checkpoint of this log: restore the file; if it is lost, remove it, and say so to those who rely on the log"
    )]
    Unreadable {
        /// The file.
        path: String,
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
