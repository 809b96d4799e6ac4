//! How far this signer has gone, and what it has seen signed, kept in a file outside the database: a log
//! that was set back, or written anew, is not signed. Once that was seen, nothing is signed any more.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use jiff::SignedDuration;

use super::{
    checkpoints::{CheckpointsError, CheckpointsFile},
    continuation::{Halt, Seen, continuation, root_at},
    coverage::Coverage,
    mark_file::{MarkFile, Review, Signed, signed},
    timekeeper::Timekeeper,
};
use crate::{
    domain::Seq,
    ledger::{Checkpoint, Note, Origin, Signer, VerifierKey},
    store::{Head, MarkError, Store, StoreError},
};

/// What a process holds a log against before it signs.
#[derive(Debug, Default)]
pub struct MarkSettings {
    /// The file of the mark.
    pub path: PathBuf,
    /// The file of checkpoints, which counts beside the mark.
    pub checkpoints: PathBuf,
    /// How far this machine's clock and entries' times may be from the store's.
    pub max_clock_skew: SignedDuration,
    /// How long ago a witness must have cosigned the log, at most, for calls to be decided.
    pub require_witness: Option<Duration>,
}

/// The high-water mark of one signer, and whatever else it holds a log against before it signs. Handles
/// are of one process, which all that read checkpoints share.
#[derive(Clone, Debug, Default)]
pub struct Mark(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The log's name and keys; none for a mark that is not kept.
    log: Option<(Origin, Vec<VerifierKey>)>,
    kept: Mutex<Kept>,
    seen: Mutex<Option<Seen>>,
    halt: OnceLock<Halt>,
    time: Option<Timekeeper>,
    coverage: Option<Coverage>,
    checkpoints: Option<CheckpointsFile>,
}

#[derive(Debug, Default)]
struct Kept {
    file: Option<MarkFile>,
    /// The last note that this process has seen, for a file that is lost.
    note: Option<(u64, Arc<str>)>,
    /// Whether the file does not hold it yet.
    is_owed: bool,
}

impl Mark {
    /// Holds the log in `store` against the mark and against the greatest checkpoint in the file of
    /// checkpoints: either may have been set back. Where there is neither, the log is taken as it is.
    ///
    /// # Errors
    /// When the log is shorter than the mark or another one, or a file cannot be used.
    pub async fn open(
        settings: MarkSettings,
        store: &dyn Store,
        signer: &Signer,
    ) -> Result<Self, StoreError> {
        let (file, known) = known(&settings, store, signer).await?;
        let checkpoints = CheckpointsFile::new(settings.checkpoints);
        let this = Self(Arc::new(Shared {
            log: Some((signer.origin().clone(), signer.verifiers().to_vec())),
            kept: Mutex::new(Kept { file: Some(file), ..Kept::default() }),
            seen: Mutex::default(),
            halt: OnceLock::new(),
            time: Some(Timekeeper::new(settings.max_clock_skew)),
            coverage: settings.require_witness.map(Coverage::new),
            checkpoints: Some(checkpoints),
        }));
        for (checkpoint, note) in known {
            this.follow(store, this.seen(), &checkpoint, &note).await?;
        }
        Ok(this)
    }

    /// A mark that takes the log as it is and is kept in no file, with clocks that are not looked at.
    #[must_use]
    pub fn unkept() -> Self {
        Self::default()
    }

    /// The last tree that was signed and committed, as far as this process has seen.
    pub(super) fn seen(&self) -> Option<Seen> {
        *locked(&self.0.seen)
    }

    /// What holds clocks to a bound, unless they are not looked at.
    pub(super) fn time(&self) -> Option<&Timekeeper> {
        self.0.time.as_ref()
    }

    /// Whether this process may still sign this log.
    ///
    /// # Errors
    /// What it has seen that forbids it.
    pub fn standing(&self) -> Result<(), StoreError> {
        self.0.halt.get().map_or(Ok(()), |halt| Err((*halt).into()))
    }

    /// Whether witnesses have seen the log as lately as the configuration asks for.
    ///
    /// # Errors
    /// When they have not.
    pub fn is_witnessed(&self) -> Result<(), StoreError> {
        self.0.coverage.as_ref().map_or(Ok(()), Coverage::check)
    }

    /// How lately witnesses must have seen the log, where the configuration asks for that.
    #[must_use]
    pub fn requires_witness(&self) -> Option<Duration> {
        self.0.coverage.as_ref().map(Coverage::required)
    }

    /// Says that everything in the log at `instant` has been cosigned.
    pub fn cover(&self, instant: Instant) {
        if let Some(coverage) = &self.0.coverage {
            coverage.cover(instant);
        }
    }

    /// The file of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> Option<&CheckpointsFile> {
        self.0.checkpoints.as_ref()
    }

    /// Signs nothing from here on.
    pub(super) fn stop(&self, halt: Halt) -> StoreError {
        if self.0.halt.set(halt).is_ok() {
            metrics::gauge!("lexgate_signing_halted").set(1.0);
            let error = StoreError::from(halt);
            tracing::error!(%error, "nothing is signed any more, and no call is decided");
        }
        halt.into()
    }

    /// The store's checkpoint, if it goes on from what this process has seen; this process has seen it
    /// from then on.
    ///
    /// # Errors
    /// When it does not go on from there, which stops all signing, is not signed by the log's key, or the
    /// store fails.
    pub async fn read(&self, store: &dyn Store) -> Result<Option<Signed>, StoreError> {
        self.standing()?;
        // Asked for before the store is: what this process commits meanwhile is no part of the answer.
        let before = self.seen();
        let Some(text) = store.checkpoint().await? else {
            return match before.filter(|seen| seen.size > Seq::new(0)) {
                Some(seen) => Err(self.stop(Halt::RolledBack { size: 0, mark: seen.size.get() })),
                None => Ok(None),
            };
        };
        let keys = self.0.log.as_ref().map(|(_, keys)| keys);
        let corrupt = StoreError::Corrupt("the checkpoint is not signed by this log's key");
        let (checkpoint, note) = if let Some(keys) = keys {
            signed(&text, keys).map_err(|_| corrupt)?
        } else {
            let note = Note::parse(&text).map_err(|_| corrupt)?;
            let corrupt = StoreError::Corrupt("the checkpoint is not one");
            (Checkpoint::read(&note).map_err(|_| corrupt)?, note)
        };
        self.hold(store, before, &checkpoint, &note).await?;
        Ok(Some((checkpoint, note)))
    }

    /// The store's head, if it may follow what this process has seen.
    ///
    /// # Errors
    /// When it does not, which stops all signing, or the store fails.
    pub(super) async fn read_head(&self, store: &dyn Store) -> Result<Option<Head>, StoreError> {
        self.standing()?;
        let before = self.seen();
        let head = store.head().await?;
        let Some(seen) = before.filter(|seen| seen.size > Seq::new(0)) else { return Ok(head) };
        let checked = match &head {
            Some(head) => seen.check_head(head),
            None => Err(Halt::RolledBack { size: 0, mark: seen.size.get() }),
        };
        checked.map_err(|halt| self.stop(halt))?;
        Ok(head)
    }

    /// Holds the log against what others have published: in the file of checkpoints, behind its first
    /// `known` bytes, or else at its end. Gives how long the file was.
    ///
    /// # Errors
    /// When the log does not go on from there, which stops all signing, or a store or a file fails.
    pub async fn hold_against_published(
        &self,
        store: &dyn Store,
        known: Option<u64>,
    ) -> Result<u64, CheckpointsError> {
        let (Some(file), Some((origin, keys))) = (&self.0.checkpoints, &self.0.log) else {
            return Ok(0);
        };
        let (length, before) = (file.length(), self.seen());
        let found = match known.filter(|known| *known <= length) {
            Some(known) if known == length => Vec::new(),
            Some(known) => file.since(known, origin, keys)?,
            None => file.greatest(origin, keys, store).await?,
        };
        for (checkpoint, note) in found {
            self.follow(store, before, &checkpoint, &note).await?;
        }
        Ok(length)
    }

    /// Looks at the file again, before something is signed. What another process of this machine has
    /// signed meanwhile must be what the store goes on from; it is given back, to be held against that.
    pub(super) fn review(&self) -> Result<Option<Box<Signed>>, MarkError> {
        let Some((_, keys)) = &self.0.log else { return Ok(None) };
        let seen = self.seen();
        let mut kept = locked(&self.0.kept);
        let Some(file) = &mut kept.file else { return Ok(None) };
        let other = match file.review(keys)? {
            Review::Same => None,
            Review::Other(other) => Some(other),
            Review::Lost => {
                tracing::warn!(
                    path = %file.path().display(),
                    "the high-water mark was removed or replaced while the service ran: it is written anew"
                );
                let other = file.reopen(keys)?.map(Box::new);
                kept.is_owed = true;
                other
            }
        };
        match (other, seen) {
            (Some(other), Some(seen)) if other.0.size < seen.size.get() => {
                kept.is_owed = true;
                Ok(None)
            }
            (other, _) => Ok(other),
        }
    }

    /// Holds the log against a tree that was signed by whomever, and that it may have gone on from.
    pub(super) async fn follow(
        &self,
        store: &dyn Store,
        before: Option<Seen>,
        checkpoint: &Checkpoint,
        note: &Note,
    ) -> Result<(), StoreError> {
        match before {
            Some(seen) if checkpoint.size < seen.size.get() => {
                let is_of_it = root_at(store, checkpoint.size).await? == Some(checkpoint.root);
                if is_of_it {
                    Ok(())
                } else {
                    Err(self.stop(Halt::Forked { mark: checkpoint.size }))
                }
            }
            before => self.hold(store, before, checkpoint, note).await,
        }
    }

    /// Goes on to `checkpoint`, if it goes on from `before` and is the store's.
    async fn hold(
        &self,
        store: &dyn Store,
        before: Option<Seen>,
        checkpoint: &Checkpoint,
        note: &Note,
    ) -> Result<(), StoreError> {
        let (size, mark) = (checkpoint.size, before.map_or(0, |seen| seen.size.get()));
        if size < mark {
            return Err(self.stop(Halt::RolledBack { size, mark }));
        }
        if let Some(seen) = before.filter(|_| size == mark) {
            let is_it = seen.root == checkpoint.root;
            return if is_it { Ok(()) } else { Err(self.stop(Halt::Forked { mark })) };
        }
        if let Some(seen) = continuation(store, before, checkpoint).await? {
            return self.advance(seen, &note.to_string());
        }
        let head = store.head().await?.map_or(0, |head| head.next.get());
        let halt = if head < size {
            Halt::RolledBack { size: head, mark: size }
        } else {
            Halt::Forked { mark: if mark == 0 { size } else { mark } }
        };
        Err(self.stop(halt))
    }

    /// Writes what could not be written before. Nothing may be signed until that is done.
    pub(super) fn pay(&self) -> Result<(), MarkError> {
        locked(&self.0.kept).pay()
    }

    /// Goes on to a tree that is durable.
    pub(super) fn advance(&self, new: Seen, note: &str) -> Result<(), StoreError> {
        {
            let mut seen = locked(&self.0.seen);
            match *seen {
                Some(known) if known.size > new.size => return Ok(()),
                Some(known) if known.size == new.size && known.root != new.root => {
                    drop(seen);
                    return Err(self.stop(Halt::Forked { mark: new.size.get() }));
                }
                Some(known) if known.size == new.size => return Ok(()),
                _ => *seen = Some(new),
            }
        }
        let mut kept = locked(&self.0.kept);
        if kept.note.as_ref().is_none_or(|(size, _)| *size < new.size.get()) {
            kept.note = Some((new.size.get(), note.into()));
            kept.is_owed = true;
        }
        if let Err(error) = kept.pay() {
            tracing::error!(%error, "the ledger takes no more records until this is mended");
        }
        Ok(())
    }
}

impl Kept {
    fn pay(&mut self) -> Result<(), MarkError> {
        if let (true, Some((size, note)), Some(file)) = (self.is_owed, &self.note, &mut self.file) {
            file.write(*size, note)?;
        }
        self.is_owed = false;
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file of the mark, and how far the log was signed: by the mark, and by the file of checkpoints.
async fn known(
    settings: &MarkSettings,
    store: &dyn Store,
    signer: &Signer,
) -> Result<(MarkFile, Vec<Signed>), StoreError> {
    let (file, mark) = MarkFile::open(&settings.path, signer.verifiers())?;
    let checkpoints = CheckpointsFile::new(settings.checkpoints.clone());
    let found = checkpoints.greatest(signer.origin(), signer.verifiers(), store).await;
    let found = found.map_err(|error| match error {
        CheckpointsError::Store(error) => error,
        CheckpointsError::File { path, error } => MarkError::Published { path, error }.into(),
    })?;
    let is_begun = store.head().await?.is_some();
    let (path, file_of) = (settings.path.display(), settings.checkpoints.display());
    let published = found.first().map(|(checkpoint, _)| checkpoint.size);
    match (mark.as_ref().map(|(checkpoint, _)| checkpoint.size), published) {
        (None, Some(published)) => tracing::warn!(
            %path, checkpoints = %file_of, published,
            "there is no high-water mark: the log is held against the checkpoints file"
        ),
        (None, None) if is_begun => tracing::warn!(
            %path,
            "there is no high-water mark, and no checkpoint was published here: the log is taken as it is"
        ),
        (Some(mark), Some(published)) if mark < published => tracing::warn!(
            %path, mark, checkpoints = %file_of, published,
            "the high-water mark is behind the checkpoints file: the log is held against both"
        ),
        _ => {}
    }
    Ok((file, mark.into_iter().chain(found).collect()))
}

/// The greatest tree that was signed, by the mark or by the file of checkpoints, and that the log in
/// `store` does not go on from; the greatest of all where it goes on from each.
///
/// # Errors
/// When a file cannot be used, was not signed by `signer`, or the store fails.
pub async fn read_mark(
    settings: &MarkSettings,
    store: &dyn Store,
    signer: &Signer,
) -> Result<Option<Signed>, StoreError> {
    let mut greatest: Option<((bool, u64), Signed)> = None;
    for signed in known(settings, store, signer).await?.1 {
        let Checkpoint { size, root, .. } = signed.0;
        let rank = (root_at(store, size).await? != Some(root), size);
        if greatest.as_ref().is_none_or(|(known, _)| *known < rank) {
            greatest = Some((rank, signed));
        }
    }
    Ok(greatest.map(|(_, signed)| signed))
}
