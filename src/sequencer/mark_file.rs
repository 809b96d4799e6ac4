//! The file in which a signer keeps how far it has gone. Several processes of a machine may share it.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    ledger::{Checkpoint, Note, NoteError, VerifierKey},
    store::MarkError,
};

/// The file has this length always, so that one write replaces what it says.
const LENGTH: usize = 4096;
/// How long the lock of a process that has stopped is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// A signed checkpoint.
pub(super) type Signed = (Checkpoint, Note);

/// The file, open, and what it said when this process looked last.
#[derive(Debug)]
pub(super) struct MarkFile {
    path: PathBuf,
    file: File,
    said: String,
}

/// What became of the file since this process looked last.
#[derive(Debug)]
pub(super) enum Review {
    /// It says what it said.
    Same,
    /// Another process has written this.
    Other(Box<Signed>),
    /// It was removed, replaced, or holds no checkpoint of this log.
    Lost,
}

impl MarkFile {
    /// Opens or makes the file at `path`, and reads it.
    pub(super) fn open(
        path: &Path,
        keys: &[VerifierKey],
    ) -> Result<(Self, Option<Signed>), MarkError> {
        let failed = |error| fault(path, "read", error);
        let file = open(path).map_err(failed)?;
        lock(&file, File::try_lock_shared).map_err(failed)?;
        let said = contents(&file).map_err(failed)?;
        file.unlock().map_err(failed)?;
        let this = Self { path: path.to_owned(), file, said };
        if this.said.is_empty() {
            return Ok((this, None));
        }
        match signed(&this.said, keys) {
            Ok(signed) => Ok((this, Some(signed))),
            Err(_) => Err(MarkError::Unreadable { path: path.display().to_string() }),
        }
    }

    /// Looks at the file again: one reading of four kilobytes where nothing has changed.
    pub(super) fn review(&mut self, keys: &[VerifierKey]) -> Result<Review, MarkError> {
        let there = std::fs::metadata(&self.path);
        let mine = self.file.metadata().map_err(|error| fault(&self.path, "read", error))?;
        if !there.is_ok_and(|there| is_same(&there, &mine)) {
            return Ok(Review::Lost);
        }
        let mut text = contents(&self.file).unwrap_or_default();
        if text == self.said {
            return Ok(Review::Same);
        }
        if signed(&text, keys).is_err() {
            // Perhaps it was just being written.
            let failed = |error| fault(&self.path, "read", error);
            lock(&self.file, File::try_lock_shared).map_err(failed)?;
            text = contents(&self.file).unwrap_or_default();
            self.file.unlock().map_err(failed)?;
        }
        let Ok(signed) = signed(&text, keys) else { return Ok(Review::Lost) };
        self.said = text;
        Ok(Review::Other(Box::new(signed)))
    }

    /// Opens the file again, and makes it where it has gone. Gives what is there.
    pub(super) fn reopen(&mut self, keys: &[VerifierKey]) -> Result<Option<Signed>, MarkError> {
        match Self::open(&self.path, keys) {
            Ok((this, signed)) => {
                *self = this;
                Ok(signed)
            }
            Err(MarkError::Unreadable { .. }) => {
                self.file = open(&self.path).map_err(|error| fault(&self.path, "read", error))?;
                self.said.clear();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes `note` unless another process has gone further.
    pub(super) fn write(&mut self, size: u64, note: &str) -> Result<(), MarkError> {
        let failed = |error| fault(&self.path, "written", error);
        lock(&self.file, File::try_lock).map_err(failed)?;
        let text = contents(&self.file).unwrap_or_default();
        let there = Note::parse(&text).and_then(|note| Checkpoint::read(&note));
        let is_further = there.is_ok_and(|there| there.size >= size);
        let result = if is_further { Ok(()) } else { self.file.write_all_at(&block(note), 0) };
        let unlocked = self.file.unlock();
        result.and(unlocked).map_err(failed)?;
        // What another process wrote is looked at by the next review.
        if !is_further {
            note.clone_into(&mut self.said);
        }
        Ok(())
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the file at `path` say what `checkpoint` says, whatever it said.
///
/// # Errors
/// When it cannot be written.
pub fn reset_mark(path: &Path, checkpoint: &str) -> io::Result<()> {
    open(path)?.write_all_at(&block(checkpoint), 0)
}

/// The checkpoint of a note that one of `keys` has signed.
pub(super) fn signed(text: &str, keys: &[VerifierKey]) -> Result<Signed, NoteError> {
    let note = Note::parse(text)?;
    note.verify(keys)?;
    Ok((Checkpoint::read(&note)?, note))
}

fn fault(path: &Path, doing: &'static str, error: io::Error) -> MarkError {
    MarkError::File { path: path.display().to_string(), doing, error }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes a lock, or gives up: another process may have been stopped while it held it.
fn lock(file: &File, take: fn(&File) -> Result<(), TryLockError>) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match take(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(io::Error::new(ErrorKind::TimedOut, "another process keeps it locked"));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What the file says, without the line ends that fill it.
fn contents(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; LENGTH];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64)? {
            0 => break,
            n => length += n,
        }
    }
    bytes.truncate(length);
    let said = bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    bytes.truncate(said);
    if said > 0 {
        bytes.push(b'\n');
    }
    String::from_utf8(bytes).map_err(|_| io::Error::from(ErrorKind::InvalidData))
}

fn block(note: &str) -> Vec<u8> {
    let mut block = note.as_bytes().to_vec();
    block.resize(LENGTH, b'\n');
    block
}
