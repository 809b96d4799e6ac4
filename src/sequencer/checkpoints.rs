//! The file to which checkpoints are appended, by one process or several: what its end says, and one
//! more at it. Where lines of several processes cross, or one was torn by a power cut, the others count.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    continuation::root_at,
    mark_file::{Signed, signed},
    signed::{proven, signed_tree},
};
use crate::{
    ledger::{Checkpoint, Entry, Kind, Note, Origin, RecoveryBody, VerifierKey},
    store::{RecordQuery, Store, StoreError},
};

/// How much of the file's end is read: about a thousand checkpoints.
const TAIL: u64 = 256 << 10;
/// How many recoveries of a log are looked for.
const MOST_RECOVERIES: usize = 1_000;

/// The file of checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointsFile {
    path: PathBuf,
}

impl CheckpointsFile {
    /// The file at `path`, which need not be there.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// The greatest checkpoint of the log `origin` at the file's end that one of `keys` has signed; each
    /// of them, where several were signed of one size. What was lost before the log in `store` was
    /// recovered does not count.
    ///
    /// # Errors
    /// When the file cannot be read, or the store fails.
    pub async fn greatest(
        &self,
        origin: &Origin,
        keys: &[VerifierKey],
        store: &dyn Store,
    ) -> Result<Vec<Signed>, CheckpointsError> {
        let mut found = self.read(0, origin)?;
        let excused = leave_lost(&mut found, origin, keys, store).await?;
        found.sort_by_key(|(checkpoint, _)| std::cmp::Reverse(checkpoint.size));
        let mut greatest: Vec<Signed> = Vec::new();
        for (checkpoint, note) in found {
            match greatest.first() {
                Some((known, _)) if known.size != checkpoint.size => break,
                Some(_) if greatest.iter().any(|(known, _)| *known == checkpoint) => continue,
                _ => {}
            }
            let is_lost = checkpoint.size <= excused
                && root_at(store, checkpoint.size).await? != Some(checkpoint.root);
            if !is_lost && note.verify(keys).is_ok() {
                greatest.push((checkpoint, note));
            }
        }
        Ok(greatest)
    }

    /// What was appended behind the first `length` bytes: the log's checkpoints that one of `keys` has
    /// signed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn since(
        &self,
        length: u64,
        origin: &Origin,
        keys: &[VerifierKey],
    ) -> Result<Vec<Signed>, CheckpointsError> {
        let mut found = self.read(length, origin)?;
        found.dedup_by(|(one, _), (other, _)| one == other);
        found.retain(|(_, note)| note.verify(keys).is_ok());
        Ok(found)
    }

    fn read(&self, from: u64, origin: &Origin) -> Result<Vec<Signed>, CheckpointsError> {
        let text = self.text(from).map_err(|error| CheckpointsError::file(&self.path, error))?;
        let read = |text: String| {
            let note = Note::parse(&text).ok()?;
            Some((Checkpoint::read(&note).ok()?, note))
        };
        Ok(notes(&text, origin).filter_map(read).collect())
    }

    /// Appends a note, in one write, and an empty line. A line that was torn is ended first.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, note: &str) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.append(true).read(true).create(true).mode(0o644).open(&self.path)?;
        let ending = if ends_well(&mut file)? { "" } else { "\n\n" };
        file.write_all(format!("{ending}{note}\n").as_bytes())?;
        file.sync_data()
    }

    /// What the file says at its end, from a position on.
    fn text(&self, from: u64) -> io::Result<String> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL).max(from)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Whether the file is empty, or ends with an empty line.
fn ends_well(file: &mut File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut end = [0; 2];
    if length < 2 {
        return Ok(length == 0);
    }
    file.seek(SeekFrom::Start(length - 2))?;
    file.read_exact(&mut end)?;
    Ok(end == *b"\n\n")
}

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointsError {
    /// It cannot be read.
    #[error("the checkpoints file `{path}` cannot be read: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl CheckpointsError {
    fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.display().to_string(), error }
    }
}

/// What may be a note in `text`: from each line that is the log's name up to the next one.
fn notes(text: &str, origin: &Origin) -> impl Iterator<Item = String> {
    let name = format!("{origin}\n");
    let mut parts: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        if line == name {
            parts.push(line.to_owned());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts.into_iter().map(|part| format!("{}\n", part.trim_end_matches('\n')))
}

/// Takes away what was published before the log was recovered. Where a recovery was not published here,
/// gives the size up to which what contradicts the log may be what was lost. A recovery counts if it is in
/// the signed tree and what it calls lost was signed: a row alone excuses nothing.
async fn leave_lost(
    found: &mut Vec<Signed>,
    origin: &Origin,
    keys: &[VerifierKey],
    store: &dyn Store,
) -> Result<u64, StoreError> {
    if found.is_empty() {
        return Ok(0);
    }
    let query = RecordQuery {
        kind: Some(Kind::LedgerRecovered),
        limit: MOST_RECOVERIES,
        ..RecordQuery::default()
    };
    let recoveries = store.query(&query).await?;
    let tree = if recoveries.is_empty() { None } else { signed_tree(store, origin, keys).await? };
    let Some(tree) = tree else { return Ok(0) };
    let mut excused = 0;
    for stored in recoveries.iter().rev() {
        let entry = proven(store, &tree, stored, &Kind::LedgerRecovered).await?;
        let Some(lost) = entry.and_then(|entry| lost(&entry, keys)) else { continue };
        let size = stored.seq.get() + 1;
        let root = root_at(store, size).await?;
        let is_it = |(checkpoint, note): &Signed| {
            checkpoint.size == size && Some(checkpoint.root) == root && note.verify(keys).is_ok()
        };
        if let Some(at) = found.iter().position(is_it) {
            found.drain(..at);
            break;
        }
        excused = excused.max(lost.size);
    }
    Ok(excused)
}

/// What a record of a recovery calls lost, if one of `keys` has signed that.
fn lost(entry: &Entry<'_>, keys: &[VerifierKey]) -> Option<Checkpoint> {
    let body: RecoveryBody = serde_json::from_str(entry.body.get()).ok()?;
    let (lost, _) = signed(&body.lost, keys).ok()?;
    (lost.origin == entry.log).then_some(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fixture;

    #[test]
    fn notes_are_found_between_torn_and_crossing_lines() {
        let note =
            |size| fixture::signer().checkpoint(size, crate::ledger::empty_root()).to_string();
        let torn = note(7);
        let torn = &torn[..torn.len() / 2];
        let text = format!("half a line\n{}\n{}\n{torn}\n\n{}", note(1), note(3), note(2));
        let sizes: Vec<_> = notes(&text, &fixture::origin())
            .filter_map(|text| Note::parse(&text).ok())
            .map(|note| Checkpoint::read(&note).unwrap().size)
            .collect();
        assert_eq!(sizes, [1, 3, 2]);
        let glued = format!("{torn}{}", note(9));
        assert_eq!(notes(&glued, &fixture::origin()).count(), 1, "the line was not ended first");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_note() {
        let name = format!("lexgate-checkpoints-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = CheckpointsFile::new(path.clone());
        let note =
            |size| fixture::signer().checkpoint(size, crate::ledger::empty_root()).to_string();
        file.append(&note(1)).unwrap();
        std::fs::write(&path, format!("{}\n{}", note(1), &note(2)[..40])).unwrap();
        file.append(&note(3)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (signer, origin) = (fixture::signer(), fixture::origin());
        let sizes = notes(&text, &origin).filter_map(|note| signed(&note, signer.verifiers()).ok());
        assert_eq!(sizes.map(|(checkpoint, _)| checkpoint.size).collect::<Vec<_>>(), [1, 3]);
        std::fs::remove_file(path).unwrap();
    }
}
