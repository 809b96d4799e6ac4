//! How far this signer has gone, kept in a file outside the database: a log that was set back, or
//! written anew, is not signed.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    domain::{Digest, Seq},
    ledger::{Checkpoint, Note, Plan, Signer},
    store::{Found, Head, MarkError, Store, StoreError},
};

/// The file has this length always, so that one write replaces what it says.
const LENGTH: usize = 4096;

/// The last tree that was signed and committed, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many entries.
    pub(super) size: Seq,
    /// The leaf of the last one, which is chained to all before it.
    pub(super) leaf: Digest,
}

impl Seen {
    /// The entry that shows whether a log goes on from here.
    pub(super) fn last(self) -> Option<Seq> {
        self.size.get().checked_sub(1).map(Seq::new)
    }

    /// Whether the log with this head goes on from here.
    pub(super) fn check(self, head: &Head, found: &Found) -> Result<(), MarkError> {
        let mark = self.size.get();
        if head.next < self.size {
            return Err(MarkError::RolledBack { size: head.next.get(), mark });
        }
        let same = if head.next == self.size { Some(head.leaf) } else { found.leaf };
        if same == Some(self.leaf) { Ok(()) } else { Err(MarkError::Forked { mark }) }
    }
}

/// The high-water mark of one signer. Several processes on a machine may share the file.
#[derive(Debug, Default)]
pub struct Mark {
    kept: Option<(PathBuf, File)>,
    seen: Option<Seen>,
    /// What could not be written to the file yet.
    owed: Option<(u64, Arc<str>)>,
}

impl Mark {
    /// Reads the mark at `path` and holds the log in `store` against it. A file that is not there
    /// is made; the log is then taken as it is.
    ///
    /// # Errors
    /// When the log is shorter than the mark or another one, or the file cannot be used.
    pub async fn open(path: &Path, store: &dyn Store, signer: &Signer) -> Result<Self, StoreError> {
        let (file, kept) = read(path, signer)?;
        let head = store.head().await?;
        let size = head.map_or(0, |head| head.next.get());
        let mut mark = Self { kept: Some((path.to_owned(), file)), seen: None, owed: None };
        let Some((checkpoint, _)) = kept else {
            if size > 0 {
                tracing::warn!(
                    path = %path.display(), size,
                    "there is no high-water mark: the log is taken as it is"
                );
            }
            return Ok(mark);
        };
        if size < checkpoint.size {
            return Err(MarkError::RolledBack { size, mark: checkpoint.size }.into());
        }
        if root_at(store, checkpoint.size).await? != Some(checkpoint.root) {
            return Err(MarkError::Forked { mark: checkpoint.size }.into());
        }
        let Some(last) = checkpoint.size.checked_sub(1).map(Seq::new) else { return Ok(mark) };
        let leaf = match head {
            Some(head) if head.next.get() == checkpoint.size => head.leaf,
            _ => store.record(last).await?.map_or(checkpoint.root, |stored| stored.leaf),
        };
        mark.seen = Some(Seen { size: Seq::new(checkpoint.size), leaf });
        Ok(mark)
    }

    /// A mark that takes the log as it is and is not kept in a file.
    #[must_use]
    pub fn unkept() -> Self {
        Self::default()
    }

    /// The last tree that was signed and committed.
    pub(super) const fn seen(&self) -> Option<Seen> {
        self.seen
    }

    /// Writes what could not be written before. Nothing may be signed until that is done.
    pub(super) fn pay(&mut self) -> Result<(), MarkError> {
        let (Some((size, note)), Some((path, file))) = (&self.owed, &self.kept) else {
            return Ok(());
        };
        write(file, *size, note).map_err(|error| MarkError::File {
            path: path.display().to_string(),
            doing: "written",
            error,
        })?;
        self.owed = None;
        Ok(())
    }

    /// Goes on to a tree that is durable.
    pub(super) fn advance(&mut self, seen: Seen, checkpoint: Arc<str>) {
        self.seen = Some(seen);
        self.owed = Some((seen.size.get(), checkpoint));
        if let Err(error) = self.pay() {
            tracing::error!(%error, "the ledger takes no more records until this is mended");
        }
    }
}

/// The checkpoint that the file at `path` holds, with its note, if it holds one.
///
/// # Errors
/// When the file cannot be used, or was not signed by `signer`.
pub fn read_mark(path: &Path, signer: &Signer) -> Result<Option<(Checkpoint, Note)>, MarkError> {
    Ok(read(path, signer)?.1)
}

/// Makes the file at `path` say what `checkpoint` says, whatever it said.
///
/// # Errors
/// When it cannot be written.
pub fn reset_mark(path: &Path, checkpoint: &str) -> io::Result<()> {
    open(path)?.write_all_at(&block(checkpoint), 0)
}

/// The root over the first `size` leaves of the log in `store`, if it has so many.
///
/// # Errors
/// When the store fails.
pub async fn root_at(store: &dyn Store, size: u64) -> Result<Option<Digest>, StoreError> {
    if size == 0 {
        return Ok(Some(crate::ledger::empty_root()));
    }
    let plan = Plan::root(size);
    let ids: Vec<_> = plan.tiles().into_iter().collect();
    let tiles = store.tiles(&ids).await?.into_iter().map(|tile| (tile.id, tile.hashes));
    Ok(plan.make(&tiles.collect()).and_then(|roots| roots.first().copied()))
}

type Kept = Option<(Checkpoint, Note)>;

fn read(path: &Path, signer: &Signer) -> Result<(File, Kept), MarkError> {
    let failed = |error| MarkError::File { path: path.display().to_string(), doing: "read", error };
    let file = open(path).map_err(failed)?;
    file.lock_shared().map_err(failed)?;
    let note = contents(&file).map_err(failed)?;
    file.unlock().map_err(failed)?;
    if note.is_empty() {
        return Ok((file, None));
    }
    let checkpoint = Note::parse(&note).and_then(|note| {
        note.verify(signer.verifiers())?;
        Ok((Checkpoint::read(&note)?, note))
    });
    match checkpoint {
        Ok(kept) => Ok((file, Some(kept))),
        Err(_) => Err(MarkError::Unreadable { path: path.display().to_string() }),
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
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

/// Writes `note` unless another process has gone further.
fn write(file: &File, size: u64, note: &str) -> io::Result<()> {
    file.lock()?;
    let there =
        contents(file).ok().and_then(|text| Checkpoint::read(&Note::parse(&text).ok()?).ok());
    let result = match there {
        Some(there) if there.size >= size => Ok(()),
        _ => file.write_all_at(&block(note), 0),
    };
    file.unlock()?;
    result
}
