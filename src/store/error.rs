//! What can go wrong with a store.

use std::{borrow::Cow, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::AddressError;
use crate::{
    domain::Digest,
    ledger::{CanonicalError, Origin, timestamp_text},
};

/// A setting of the database under which the ledger would lose what it has answered, or read something
/// else than was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store's `{name}` is `{found}`: {want}")]
pub struct SettingFault {
    /// The setting, as the database calls it.
    pub name: &'static str,
    /// What it is.
    pub found: String,
    /// What is wanted, and how it is had.
    pub want: &'static str,
}

/// The store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address names no store.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// The folder of the `SQLite` file, or the file beside it, cannot be made or looked at.
    #[error("cannot make or read `{path}`")]
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
    /// The server gave no connection.
    #[error("the store at `{address}` cannot be reached: {cause}")]
    Unreachable {
        /// Host and port, or the folder of the socket.
        address: String,
        /// Why.
        cause: String,
    },
    /// No answer within the time that the operation has.
    #[error("the store did not answer in time")]
    TimedOut,
    /// A question was not answered within the time that one may take; the store itself works.
    #[error("the question took the store longer than {} s", super::bound::OPERATION.as_secs())]
    SlowQuestion,
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
    /// A clock is wrong, or was.
    #[error("{0}")]
    Clock(#[from] ClockError),
    /// No witness has cosigned the log lately.
    #[error(
        "no witness has cosigned the log for {} s, and `[ledger] require_witness` allows {} s: nothing is decided until one does", .past.as_secs(), .allowed.as_secs_f64()
    )]
    Unwitnessed {
        /// Since when, at least.
        past: Duration,
        /// How long that may be.
        allowed: Duration,
    },
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
        "the store's log has {size} entries, and no key of this process has signed that tree: somebody has written to the store past this service, or this key was retired. Restart a service whose key was changed; else keep the database as it is for those who look into it, and restore the log"
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
    /// The file of checkpoints cannot be read.
    #[error(
        "the checkpoints file `{path}` cannot be read: {error}. It may show that the log was set back, so nothing is signed until it can be read. Let this service read it, or name another file in `[ledger] checkpoints_file`"
    )]
    Published {
        /// The file.
        path: String,
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

/// A time by which nothing may be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClockError {
    /// This machine's clock and the store's differ.
    #[error(
        "this machine's clock is {} the store's: it says `{}`, the store's says `{}`, and `[ledger] max_clock_skew` allows {} s. Set the clock that is wrong, best by NTP on both machines", apart(*.here, *.store), timestamp_text(*.here), timestamp_text(*.store), .bound.as_secs_f64()
    )]
    Apart {
        /// What this machine's clock says.
        here: Timestamp,
        /// What the store's says.
        store: Timestamp,
        /// By how much they may differ.
        bound: SignedDuration,
    },
    /// The clock was set while the process ran.
    #[error(
        "this machine's clock was set from `{}` to `{}`, further than the {} s of `[ledger] max_clock_skew`: set it right; if it is right now, restart the service", timestamp_text(*.expected), timestamp_text(*.here), .bound.as_secs_f64()
    )]
    Jumped {
        /// What it says.
        here: Timestamp,
        /// What it would say, had it not been set.
        expected: Timestamp,
        /// By how much they may differ.
        bound: SignedDuration,
    },
    /// The last entry lies in the future.
    #[error(
        "the ledger's last entry is dated `{}`, and the clock says `{}`: it was written by a wrong clock, or this one is behind. Set the clock right; if it is right, stop every service of this log and run `lexgate ledger correct-time`", timestamp_text(*.log), timestamp_text(*.now)
    )]
    LogAhead {
        /// The last entry's time.
        log: Timestamp,
        /// The time that it is.
        now: Timestamp,
    },
}

/// How far, and on which side.
fn apart(here: Timestamp, store: Timestamp) -> String {
    let by = here.duration_since(store);
    let side = if by.is_negative() { "behind" } else { "ahead of" };
    format!("{:#} {side}", SignedDuration::from_secs(by.abs().as_secs()))
}

impl StoreError {
    /// Whether this process refuses to sign because of what it has seen of the log, its clocks or its
    /// witnesses. The text says nothing of this machine that a client may not know.
    #[must_use]
    pub const fn refuses_to_sign(&self) -> bool {
        matches!(
            self,
            Self::Mark(MarkError::RolledBack { .. } | MarkError::Forked { .. })
                | Self::Clock(_)
                | Self::Unwitnessed { .. }
        )
    }

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

impl StoreError {
    /// What became of a question that was asked of a connection that works.
    pub(super) fn of_question(self) -> Self {
        match self {
            Self::TimedOut => Self::SlowQuestion,
            // 57014: the server's own bound ended it.
            Self::Database(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| code == "57014") =>
            {
                Self::SlowQuestion
            }
            other => other,
        }
    }

    /// Whether there is no room left to write.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        let code = error.code().unwrap_or(Cow::Borrowed(""));
        // SQLSTATE 53100 disk_full; SQLite's primary code 13 FULL.
        code == "53100"
            || (code.len() < 5 && code.parse::<u32>().is_ok_and(|code| code & 0xff == 13))
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
