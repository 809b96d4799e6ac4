//! The only writer of the ledger: takes what waits, gives each record its place, commits all of it
//! at once, then answers everyone. Not a judge of what a record says.
//!
//! A decision waits for no timer: a batch is what came in while the one before it was committed. So a
//! single caller waits for one commit, and a thousand share one. Of calls that Lexgate sends, a batch
//! takes a share, so that some are sent while others are committed. Outcomes, for which nobody waits,
//! are held back a moment for a decision to go with.
//!
//! It has a thread of its own: its exchanges with the database do not stand in line behind requests.

mod batch;
mod checkpoints;
mod continuation;
#[cfg(test)]
mod contract;
mod coverage;
mod mark;
mod mark_file;
#[cfg(test)]
mod mark_tests;
mod signed;
#[cfg(test)]
mod tests;
mod timekeeper;
mod worker;

use std::{io, sync::Arc, thread};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    runtime::Builder,
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use crate::store::{Activation, Claim, SealedValue};
use crate::{
    domain::{Clock, Digest, LimitState, Quota, Revision, Seq, Volume},
    ledger::{Checkpoint, GenesisBody, Kind, Note, Origin, Signer},
    store::{Head, Store, StoreError},
};
use batch::Group;
pub use checkpoints::{CheckpointsError, CheckpointsFile};
pub use continuation::{is_in_tree, root_at};
pub use mark::{Mark, MarkSettings, read_mark};
pub use mark_file::reset_mark;
pub use signed::{check_end, proven, signed_tree};
pub use timekeeper::{Pause, check_clocks, long_pause};

/// A record that waits for its place.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its identifier.
    pub id: Uuid,
    /// Its kind.
    pub kind: Kind,
    /// What it says, in canonical form ([`crate::ledger::canonical::to_vec`]).
    pub body: Bytes,
    /// The words by which it is found.
    pub terms: Arc<[String]>,
    /// The snapshot that it rests on, which must still be the active one when it is written.
    pub revision: Option<Revision>,
    /// The instant from which it no longer holds.
    pub valid_until: Option<Timestamp>,
    /// Of an outcome: its decision. Of a late outcome: the outcome to which it adds. Only one record is
    /// about each.
    pub about: Option<Seq>,
    /// Whether it is a decision that this process sends; it stays open until its outcome.
    pub dispatch: bool,
    /// The idempotency key that it answers.
    pub claim: Option<Arc<Claim>>,
    /// The snapshot that becomes active with it.
    pub activation: Option<Arc<Activation>>,
    /// The value that it commits to. An outcome is written without it where the store refuses it,
    /// because its key is gone.
    pub personal: Option<Arc<SealedValue>>,
    /// The counts of people that it rests on, and what it adds to them.
    pub volume: Option<Arc<Volume>>,
    /// The limits to which it is held, and what it uses of them.
    pub quota: Option<Arc<Quota>>,
    /// The wrong time of the entry before it, from which the log's time goes back with it.
    pub corrects: Option<Timestamp>,
}

impl Draft {
    /// A record that rests on nothing and changes nothing but the ledger.
    #[must_use]
    pub fn new(id: Uuid, kind: Kind, body: impl Into<Bytes>) -> Self {
        Self {
            id,
            kind,
            body: body.into(),
            terms: Arc::default(),
            revision: None,
            valid_until: None,
            about: None,
            dispatch: false,
            claim: None,
            activation: None,
            personal: None,
            volume: None,
            quota: None,
            corrects: None,
        }
    }
}

/// A record's place in the ledger. It is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its position.
    pub seq: Seq,
    /// Its leaf hash.
    pub leaf: Digest,
    /// When it was written.
    pub ts: Timestamp,
    /// The whole entry.
    pub entry: Bytes,
    /// How far the limits to which it was held are used, with it.
    pub limits: Arc<[LimitState]>,
}

/// Why a record has no place.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// What it rests on is no longer so: decide again.
    #[error("the snapshot or a count has changed since")]
    Stale,
    /// The idempotency key was used before, for this record.
    #[error("the idempotency key was used for entry {0}")]
    Claimed(Seq),
    /// The decision has an outcome.
    #[error("the decision has an outcome already")]
    AlreadyReported,
    /// A limit has been reached.
    #[error("{0}")]
    Limited(Box<LimitState>),
    /// Too much waits already.
    #[error("too many records wait to be written")]
    QueueFull,
    /// The store cannot write it now. Only after [`StoreError::TimedOut`] may it be written yet.
    #[error("the ledger cannot be written: {0}")]
    Unavailable(#[source] Arc<StoreError>),
    /// The entry would be longer than an entry may be.
    #[error("the entry has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The greatest size.
        limit: usize,
    },
    /// The ledger is being closed.
    #[error("the ledger is being closed")]
    Closed,
}

/// What a sequencer needs to know.
#[derive(Clone, Debug)]
pub struct SequencerSettings {
    /// The log.
    pub origin: Origin,
    /// This process: whose dispatches are open.
    pub process: Uuid,
    /// How many records may wait.
    pub queue: usize,
    /// How many places may be kept for records that are still to come ([`Sequencer::reserve`]).
    pub reserved: usize,
    /// How many records are committed at once.
    pub max_batch: usize,
    /// What signs the checkpoints.
    pub signer: Arc<Signer>,
    /// Entry 0, should the log be empty.
    pub genesis: GenesisBody,
}

/// A handle to the writer of the ledger. It ends when the last handle is dropped or
/// [`Sequencer::close`] is called, after it has written what it accepted.
#[derive(Clone, Debug)]
pub struct Sequencer {
    origin: Origin,
    signer: Arc<Signer>,
    queue: mpsc::Sender<Group>,
    room: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    size: usize,
    closing: CancellationToken,
    store: Arc<dyn Store>,
    mark: Mark,
    clock: Arc<dyn Clock>,
}

/// A place in the queue that is kept for one record: it can come late, and finds room.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

impl Sequencer {
    /// Starts the writer; `tracker` sees it end.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(
        store: Arc<dyn Store>,
        settings: SequencerSettings,
        mark: Mark,
        clock: Arc<dyn Clock>,
        tracker: &TaskTracker,
    ) -> io::Result<Self> {
        let size = settings.queue.clamp(1, Semaphore::MAX_PERMITS);
        let places = settings.reserved.clamp(1, Semaphore::MAX_PERMITS - size);
        let (queue, waiting) = mpsc::channel(size + places);
        let closing = CancellationToken::new();
        let room = Arc::new(Semaphore::new(size));
        let (origin, signer) = (settings.origin.clone(), settings.signer.clone());
        let reserved = Arc::new(Semaphore::new(places));
        let handle = Self {
            origin,
            signer,
            queue,
            room: room.clone(),
            reserved,
            size,
            closing: closing.clone(),
            store: store.clone(),
            mark: mark.clone(),
            clock: clock.clone(),
        };
        let worker = worker::Worker::new(store, settings, mark, clock, waiting, room, closing);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            runtime.block_on(worker.run());
            let _ = ended.send(());
        })?;
        tracker.spawn(end);
        Ok(handle)
    }

    /// Writes a record; waits as long as the store's patience says. A record whose caller no longer waits is not
    /// written, unless it is an outcome.
    ///
    /// # Errors
    /// Why it was not, or perhaps not, written.
    pub async fn submit(&self, draft: Draft) -> Result<Receipt, SubmitError> {
        let mut answers = self.submit_all(vec![draft]).await?;
        answers.pop().unwrap_or(Err(SubmitError::Closed))
    }

    /// Writes several records in one commit. Each is answered by itself, in order.
    ///
    /// # Errors
    /// When none was, or perhaps none was, written.
    pub async fn submit_all(
        &self,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Result<Receipt, SubmitError>>, SubmitError> {
        self.submit_group(drafts, false).await
    }

    /// Writes several records in one commit: all of them, or none.
    ///
    /// # Errors
    /// Why none was, or perhaps none was, written.
    pub async fn submit_whole(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, SubmitError> {
        self.submit_group(drafts, true).await?.into_iter().collect()
    }

    async fn submit_group(
        &self,
        drafts: Vec<Draft>,
        whole: bool,
    ) -> Result<Vec<Result<Receipt, SubmitError>>, SubmitError> {
        self.standing().map_err(|error| SubmitError::Unavailable(Arc::new(error)))?;
        let places = u32::try_from(drafts.len()).map_err(|_| SubmitError::QueueFull)?;
        let room =
            self.room.clone().try_acquire_many_owned(places).map_err(|error| match error {
                TryAcquireError::NoPermits => SubmitError::QueueFull,
                TryAcquireError::Closed => SubmitError::Closed,
            })?;
        let deadline = Instant::now() + self.store.patience().append();
        let mut answers = self.send(drafts, Some(deadline), room, whole)?;
        match timeout_at(deadline, &mut answers).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) => Err(SubmitError::Closed),
            Err(_) => {
                // An answer of the last moment is taken: the worker knows it to be handed over.
                answers.close();
                let late = Arc::new(StoreError::TimedOut);
                answers.try_recv().map_err(|_| SubmitError::Unavailable(late))
            }
        }
    }

    /// Keeps a place for a record that must not be lost, such as the outcome of a call that is about to
    /// be sent.
    ///
    /// # Errors
    /// When too many are kept already: nothing may begin then whose end must be recorded.
    pub fn reserve(&self) -> Result<Reserved, SubmitError> {
        if self.closing.is_cancelled() {
            return Err(SubmitError::Closed);
        }
        let place = self.reserved.clone().try_acquire_owned();
        place.map(Reserved).map_err(|_| SubmitError::QueueFull)
    }

    /// Writes a record in the place that was kept for it: waits for a store that is away to come back.
    /// Also when the caller stops waiting, it is written.
    ///
    /// # Errors
    /// When it is refused, or the ledger is closed before it could be written.
    pub async fn submit_reserved(
        &self,
        place: Reserved,
        draft: Draft,
    ) -> Result<Receipt, SubmitError> {
        let answers = self.send(vec![draft], None, place.0, false)?;
        let mut answers = answers.await.map_err(|_| SubmitError::Closed)?;
        answers.pop().unwrap_or(Err(SubmitError::Closed))
    }

    /// Whether this process may sign and send: it has seen nothing that forbids it, and its clock was not
    /// set. Asks nobody, and takes no time.
    ///
    /// # Errors
    /// What forbids it. A log that was set back or rewritten forbids it for good.
    pub fn standing(&self) -> Result<(), StoreError> {
        self.mark.standing()?;
        if let Some(time) = self.mark.time().filter(|_| self.store.shares_clock()) {
            time.unset(&*self.clock)?;
        }
        Ok(())
    }

    /// The same, and whether calls may be decided: witnesses have seen the log as lately as was asked for.
    ///
    /// # Errors
    /// What forbids it.
    pub fn may_decide(&self) -> Result<(), StoreError> {
        self.standing()?;
        self.mark.is_witnessed()
    }

    /// The same, asking the store too: whether its head goes on from what was seen, and its clock agrees.
    ///
    /// # Errors
    /// What forbids it, or the store fails.
    pub async fn is_ready(&self) -> Result<(), StoreError> {
        self.may_decide()?;
        self.mark.pay()?;
        let head = self.mark.read_head(&*self.store).await?;
        match self.mark.time() {
            Some(time) => time.check(&*self.clock, &*self.store, head.as_ref()).await,
            None => Ok(()),
        }
    }

    /// What the next entry follows; `None` while the log is empty.
    ///
    /// # Errors
    /// When it does not go on from what this process has seen, or is dated after the time that it is; or
    /// the store fails.
    pub async fn head(&self) -> Result<Option<Head>, StoreError> {
        let head = self.mark.read_head(&*self.store).await?;
        if let (Some(time), Some(head)) = (self.mark.time(), &head) {
            // This clock may be behind the store's by the bound, and the entry ahead of it by as much.
            let now = self.clock.now().checked_add(time.bound()).unwrap_or(Timestamp::MAX);
            time.is_past(head.ts, now)?;
        }
        Ok(head)
    }

    /// The signed checkpoint of all that is written; `None` while the log is empty.
    ///
    /// # Errors
    /// When it does not go on from what this process has seen, or the store fails.
    pub async fn checkpoint(&self) -> Result<Option<(Checkpoint, Note)>, StoreError> {
        self.mark.read(&*self.store).await
    }

    /// The log that it writes.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What signs the log that it writes.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// How many records wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        taken(self.size, &self.room)
    }

    /// Accepts nothing more. What was accepted is written; then the task ends.
    pub fn close(&self) {
        self.room.close();
        self.closing.cancel();
    }

    fn send(
        &self,
        drafts: Vec<Draft>,
        deadline: Option<Instant>,
        room: OwnedSemaphorePermit,
        whole: bool,
    ) -> Result<oneshot::Receiver<Vec<Result<Receipt, SubmitError>>>, SubmitError> {
        let (reply, answers) = oneshot::channel();
        let mut group = Group::new(drafts, reply, deadline, room);
        group.whole = whole;
        // There are as many places in the channel as in the room and kept: it cannot be full.
        self.queue.try_send(group).map_err(|_| SubmitError::Closed)?;
        metrics::gauge!("lexgate_queue_depth").set(f64_of(self.depth()));
        Ok(answers)
    }
}

/// How many of `size` places are taken: by records that wait, and by those for which one is kept.
fn taken(size: usize, room: &Semaphore) -> usize {
    size.saturating_sub(room.available_permits())
}

/// A count as a metric.
fn f64_of(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
