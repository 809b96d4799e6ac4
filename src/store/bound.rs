//! Connections that are given back only after a success, and operations that end in time.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant as Moment},
};

use sqlx::{ConnectOptions, Connection, Database, Pool, pool::PoolConnection};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout, timeout_at},
};

use super::{
    StoreError,
    standing::{Admission, Standing, Turn},
};

/// How long any other operation may take.
pub(super) const OPERATION: Duration = Duration::from_secs(5);
/// How long a migration may take.
pub(super) const MIGRATION: Duration = Duration::from_secs(120);

/// The operation's answer, or an error when there is none in time.
pub(super) async fn within<T, E: Into<StoreError>>(
    limit: Duration,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    timeout(limit, operation).await.map_err(|_| StoreError::TimedOut)?.map_err(Into::into)
}

/// The same, until an instant.
pub(super) async fn until<T, E: Into<StoreError>>(
    deadline: Instant,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    timeout_at(deadline, operation).await.map_err(|_| StoreError::TimedOut)?.map_err(Into::into)
}

/// A pooled connection that is thrown away unless it is given back: after a failure or a timeout
/// nobody knows in which state it is, and the pool would wait for it without end.
pub(super) struct Borrowed<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Borrowed<DB> {
    pub(super) async fn from(pool: &Pool<DB>) -> Result<Self, StoreError> {
        Ok(Self(Some(within(pool.options().get_acquire_timeout(), pool.acquire()).await?)))
    }

    /// The connection, for one operation.
    pub(super) fn get(&mut self) -> Result<&mut DB::Connection, StoreError> {
        self.0.as_deref_mut().ok_or(StoreError::Corrupt("a connection was given back twice"))
    }

    /// Gives the connection back: all went well.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<DB: Database> Drop for Borrowed<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// The one connection that appends. No pool: it is used by one batch at a time, and asks nothing of
/// the database between two of them.
pub(super) struct Writer<C: Connection, A> {
    options: C::Options,
    admission: A,
    standing: Arc<Standing>,
    slot: Mutex<Option<(C, Moment)>>,
}

impl<C: Connection, A> fmt::Debug for Writer<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<C: Connection, A: Admission<C>> Writer<C, A> {
    pub(super) fn new(options: C::Options, admission: A, standing: Arc<Standing>) -> Self {
        Self { options, admission, standing, slot: Mutex::new(None) }
    }

    /// When an append that begins now must have been confirmed.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.standing.patience.append()
    }

    /// The connection, new if there is none that may be used.
    pub(super) async fn take(&self) -> Result<Taken<'_, C>, StoreError> {
        self.standing.check()?;
        let patience = self.standing.patience.connect();
        let slot = timeout(patience, self.slot.lock()).await;
        let mut slot = slot.map_err(|_| StoreError::TimedOut)?;
        let turn = self.admission.turn().await?;
        let known = slot.take().filter(|(_, made)| self.standing.takes(made.elapsed()));
        let used = known.is_some();
        let (connection, made) = match known {
            Some(known) => known,
            None => self.connect().await?,
        };
        Ok(Taken { connection, made, used, turn, slot })
    }

    /// A new connection, and when it was made.
    pub(super) async fn connect(&self) -> Result<(C, Moment), StoreError> {
        let made = Moment::now();
        let connected = async {
            let mut connection = self.options.connect().await?;
            self.admission.admit(&mut connection).await?;
            Ok::<_, StoreError>(connection)
        };
        let connected = within(self.standing.patience.connect(), connected).await;
        Ok((connected.map_err(|error| self.standing.unreachable(error))?, made))
    }
}

/// The writer's connection. It is thrown away unless it is given back.
pub(super) struct Taken<'a, C> {
    connection: C,
    made: Moment,
    used: bool,
    /// Given back before the next writer of this process comes, whose turn it would end too: both are by one
    /// file. Fields are dropped in this order.
    #[expect(dead_code, reason = "it is kept, not read")]
    turn: Turn,
    slot: MutexGuard<'a, Option<(C, Moment)>>,
}

impl<C> Taken<'_, C> {
    /// Whether it stood idle before, so that the database may have closed it since.
    pub(super) fn used(&self) -> bool {
        self.used
    }

    /// Puts a new connection in the place of a stale one.
    pub(super) fn replace(&mut self, (connection, made): (C, Moment)) {
        self.connection = connection;
        self.made = made;
        self.used = false;
    }

    /// Gives the connection back: all went well.
    pub(super) fn give_back(mut self) {
        *self.slot = Some((self.connection, self.made));
    }
}

impl<C> Deref for Taken<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> DerefMut for Taken<'_, C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}
