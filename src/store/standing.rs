//! Whether a database is one that a ledger may rest on: what was asked of it last, and since when its
//! connections may be used. Not what is asked, which each database knows of itself.

use std::{
    fs::{File, TryLockError},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{AppendError, BEYOND_HEAD, Patience, SettingFault, StoreError};

/// How often it is looked whether another process has ended its turn.
const PAUSE: Duration = Duration::from_millis(2);
/// For how long a new connection to a server that takes no writes is used: the address may lead to another
/// server by then.
const AGAIN: Duration = Duration::from_secs(1);

/// What a new connection must pass before it is used, and what a writer waits for.
pub(super) trait Admission<C>: Send + Sync {
    /// Sets what can be set, and reads everything back.
    fn admit(&self, connection: &mut C) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Waits until no other process writes, where the database does not see to that by itself.
    fn turn(&self) -> impl Future<Output = Result<Turn, StoreError>> + Send {
        async { Ok(Turn::default()) }
    }
}

/// That no other process writes, for as long as it is kept.
#[derive(Debug, Default)]
pub(super) struct Turn(Option<Arc<File>>);

impl Turn {
    /// Waits for the lock on `file`, until `patience` is over.
    pub(super) async fn on(file: &Arc<File>, patience: Duration) -> Result<Self, StoreError> {
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(Some(file.clone()))),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => return Err(StoreError::TimedOut),
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::Database(sqlx::Error::Io(error)));
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = file.unlock()
        {
            tracing::warn!(%error, "the lock beside the store could not be given back");
        }
    }
}

/// What is known of the database. Shared by all of its connections.
#[derive(Debug)]
pub(super) struct Standing {
    /// How long it is waited for.
    pub(super) patience: Patience,
    /// Where it is, without user and password; empty for a file.
    address: String,
    fault: Mutex<Option<SettingFault>>,
    /// Whether the tables hold what no commit of a sequencer can have left.
    is_intruded: AtomicBool,
    /// Connections made before are not used any more.
    since: Mutex<Instant>,
    /// Whether the last append failed, for a reason that may fail the next one too.
    append_failed: AtomicBool,
    /// Whether this process has appended.
    has_written: AtomicBool,
    /// Whether the server that answered last takes no writes.
    is_read_only: AtomicBool,
}

impl Standing {
    /// Nothing is known yet.
    pub(super) fn new(patience: Patience) -> Self {
        Self::at(String::new(), patience)
    }

    /// The same of a server, whose address says where it is.
    pub(super) fn at(address: String, patience: Patience) -> Self {
        let (fault, since) = (Mutex::default(), Mutex::new(Instant::now()));
        let [append_failed, has_written, is_read_only, is_intruded] =
            [const { AtomicBool::new(false) }; 4];
        Self {
            patience,
            address,
            fault,
            is_intruded,
            since,
            append_failed,
            has_written,
            is_read_only,
        }
    }

    /// What is said of a connection that could not be had: of a server, which one, and why.
    pub(super) fn unreachable(&self, error: StoreError) -> StoreError {
        let cause = match error {
            StoreError::Database(sqlx::Error::PoolTimedOut) if self.address.is_empty() => {
                return StoreError::TimedOut;
            }
            error if self.address.is_empty() => return error,
            StoreError::TimedOut | StoreError::Database(sqlx::Error::PoolTimedOut) => {
                format!("no connection within {:?}", self.patience.connect())
            }
            StoreError::Database(sqlx::Error::Io(error)) => error.to_string(),
            StoreError::Database(error) => error.to_string(),
            error => return error,
        };
        StoreError::Unreachable { address: self.address.clone(), cause }
    }

    /// The fault for which nothing is read or written.
    pub(super) fn fault(&self) -> Option<SettingFault> {
        lock(&self.fault).clone()
    }

    /// Refuses while there is one.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_intruded.load(Ordering::Relaxed) {
            return Err(StoreError::Corrupt(BEYOND_HEAD));
        }
        self.fault().map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// Takes whether an entry lies behind the head: then nothing is read, written or sent, since nobody knows
    /// what else was written past this service.
    pub(super) fn intruded(&self, is_intruded: bool) -> Result<(), StoreError> {
        if self.is_intruded.swap(is_intruded, Ordering::Relaxed) != is_intruded && is_intruded {
            tracing::error!("{BEYOND_HEAD}");
        }
        if is_intruded { Err(StoreError::Corrupt(BEYOND_HEAD)) } else { Ok(()) }
    }

    /// Takes what was found. Whoever was connected before connects anew where it has changed: a session
    /// may have begun under the old settings.
    pub(super) fn found(&self, found: Result<(), &SettingFault>) {
        let found = found.err().cloned();
        let mut fault = lock(&self.fault);
        if *fault != found {
            *fault = found;
            drop(fault);
            self.renew();
        }
    }

    /// Connections made until now are not used any more.
    pub(super) fn renew(&self) {
        *lock(&self.since) = Instant::now();
    }

    /// Whether a connection of this age may be used.
    pub(super) fn takes(&self, age: Duration) -> bool {
        Instant::now().checked_sub(age).is_some_and(|made| made >= *lock(&self.since))
    }

    /// Whether a connection of this age may be used although its server takes no writes. Another server may
    /// have taken its place, to which a new connection leads: all others are made anew too. Where this process
    /// has written, it was to another server or before, and what is there may be old: that would look like a
    /// log that was set back.
    pub(super) fn takes_read_only(&self, age: Duration) -> bool {
        self.is_read_only.store(true, Ordering::Relaxed);
        if age >= AGAIN {
            self.renew();
        }
        age < AGAIN && !self.has_written.load(Ordering::Relaxed)
    }

    /// A server takes writes.
    pub(super) fn takes_writes(&self) {
        self.is_read_only.store(false, Ordering::Relaxed);
    }

    /// Whether the server that answered last takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only.load(Ordering::Relaxed)
    }

    /// Remembers how an append ended.
    pub(super) fn appended<T>(&self, result: &Result<T, AppendError>) {
        match result {
            Ok(_) => {
                self.append_failed.store(false, Ordering::Relaxed);
                self.has_written.store(true, Ordering::Relaxed);
            }
            Err(AppendError::NotCommitted(error)) if error.is_refusal() => {}
            Err(_) => self.append_failed.store(true, Ordering::Relaxed),
        }
    }

    /// Whether the last append failed, and no write has succeeded since.
    pub(super) fn append_failed(&self) -> bool {
        self.append_failed.load(Ordering::Relaxed)
    }

    /// A write as large as a batch has succeeded.
    pub(super) fn written(&self) {
        self.append_failed.store(false, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(found: &str) -> SettingFault {
        SettingFault { name: "fsync", found: found.to_owned(), want: "set it to `on`" }
    }

    #[test]
    fn a_fault_refuses_until_it_is_mended() {
        let standing = Standing::new(Patience::default());
        assert!(standing.check().is_ok());
        standing.found(Err(&fault("off")));
        let refused = standing.check().unwrap_err().to_string();
        assert_eq!(refused, "the store's `fsync` is `off`: set it to `on`");
        standing.found(Ok(()));
        assert!(standing.check().is_ok());
    }

    #[test]
    fn a_server_that_takes_no_writes_is_looked_for_anew() {
        let standing = Standing::new(Patience::default());
        assert!(standing.takes_read_only(Duration::from_millis(10)), "it was just found so");
        std::thread::sleep(Duration::from_millis(2));
        assert!(!standing.takes_read_only(Duration::from_secs(2)));
        assert!(
            !standing.takes(Duration::from_millis(1)),
            "nor are those used that were not asked"
        );
        assert!(standing.takes(Duration::ZERO));
        assert!(standing.is_read_only());
        standing.takes_writes();
        assert!(!standing.is_read_only());
        // Who has written reads from no server that may be behind it.
        standing.appended(&Ok(()));
        assert!(!standing.takes_read_only(Duration::ZERO));
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_named() {
        let standing = Standing::at("db.internal:5432".to_owned(), Patience::default());
        let refused = std::io::Error::other("Connection refused");
        let refused = StoreError::Database(sqlx::Error::Io(refused));
        assert_eq!(
            standing.unreachable(refused).to_string(),
            "the store at `db.internal:5432` cannot be reached: Connection refused"
        );
        let late = standing.unreachable(StoreError::Database(sqlx::Error::PoolTimedOut));
        assert_eq!(
            late.to_string(),
            "the store at `db.internal:5432` cannot be reached: no connection within 1s"
        );
        let file = Standing::new(Patience::default());
        let late = file.unreachable(StoreError::Database(sqlx::Error::PoolTimedOut)).to_string();
        assert_eq!(late, "the store did not answer in time");
    }

    #[test]
    fn sessions_end_with_what_they_began_under() {
        let standing = Standing::new(Patience::default());
        let before = Instant::now();
        assert!(standing.takes(Duration::ZERO));
        std::thread::sleep(Duration::from_millis(2));
        standing.found(Err(&fault("off")));
        assert!(!standing.takes(before.elapsed()), "it began before");
        assert!(standing.takes(Duration::ZERO));
        // The same fault again ends nothing.
        let since = Instant::now();
        standing.found(Err(&fault("off")));
        assert!(standing.takes(since.elapsed()));
    }
}
