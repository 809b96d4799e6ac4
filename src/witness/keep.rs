//! What a witness remembers of a log, and what it cosigns: only a tree that goes on from the last one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    domain::Digest,
    ledger::{Checkpoint, Note, SignatureType, SigningKey, VerifierKey, is_consistent, read_hash},
};

/// The longest consistency proof.
const LONGEST_PROOF: usize = 63;

/// Why a witness does not cosign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request does not have the form of one.
    #[error("{0}")]
    Malformed(&'static str),
    /// Not one of the logs that the witness knows.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// No key of the log has signed the checkpoint.
    #[error("no known key of the log has signed the checkpoint")]
    Unsigned,
    /// The witness has seen a tree of another size last.
    #[error("the last checkpoint that was cosigned has {0} entries")]
    OtherSize(u64),
    /// Another tree of the size that the witness has seen.
    #[error("another tree of {0} entries was cosigned before: the log has two histories")]
    Forked(u64),
    /// The proof does not show that the log only grew.
    #[error("the proof does not show that the log goes on from the tree of {0} entries")]
    Inconsistent(u64),
    /// What was seen cannot be remembered, so it is not cosigned.
    #[error("the witness cannot keep what it has seen: {0}")]
    Storage(#[from] io::Error),
}

/// A witness of some logs.
#[derive(Debug)]
pub struct Witness {
    key: SigningKey,
    verifier: VerifierKey,
    logs: Vec<VerifierKey>,
    dir: PathBuf,
    /// Held from looking up what was seen until the new checkpoint is kept.
    turn: Mutex<()>,
}

impl Witness {
    /// A witness that signs with `key` as `name`, knows `logs` by their keys, and keeps what it has
    /// seen in the folder `dir`.
    ///
    /// # Errors
    /// When the name cannot stand in a note.
    pub fn new(
        key: SigningKey,
        name: &str,
        logs: Vec<VerifierKey>,
        dir: &Path,
    ) -> Result<Self, crate::ledger::NoteError> {
        let verifier = key.verifier(name, SignatureType::Cosignature)?;
        Ok(Self { key, verifier, logs, dir: dir.to_owned(), turn: Mutex::default() })
    }

    /// The key by which others verify its cosignatures.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Answers the request `add-checkpoint`: gives the signature line, at `time` (seconds since 1970).
    ///
    /// # Errors
    /// Why the checkpoint is not cosigned.
    pub fn add_checkpoint(&self, request: &str, time: u64) -> Result<String, Refusal> {
        let (old, proof, note) = parse(request)?;
        let checkpoint = Checkpoint::read(&note)
            .map_err(|_| Refusal::Malformed("what is submitted is no checkpoint"))?;
        let origin = checkpoint.origin.as_str();
        let keys: Vec<_> = self.logs.iter().filter(|key| key.name() == origin).cloned().collect();
        if keys.is_empty() {
            return Err(Refusal::UnknownLog);
        }
        note.verify(&keys).map_err(|_| Refusal::Unsigned)?;
        if old > checkpoint.size {
            return Err(Refusal::Malformed("the old size is beyond the checkpoint's"));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = self.lock()?;
        let seen = self.seen(origin)?;
        let (size, root) = seen.unwrap_or((0, crate::ledger::empty_root()));
        if old != size {
            return Err(Refusal::OtherSize(size));
        }
        let new = (checkpoint.size, checkpoint.root);
        if new.0 == size && new.1 != root {
            return Err(Refusal::Forked(size));
        }
        if !is_consistent((size, root), new, &proof) {
            return Err(Refusal::Inconsistent(size));
        }
        self.keep(origin, &note)?;
        lock.unlock()?;
        Ok(self.key.cosign(&self.verifier, note.text(), time).to_string())
    }

    /// Another process may keep the same folder.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        let file = File::create(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    fn path(&self, origin: &str) -> PathBuf {
        self.dir.join(Digest::of(origin.as_bytes()).hex())
    }

    /// The last tree of a log that was cosigned.
    fn seen(&self, origin: &str) -> io::Result<Option<(u64, Digest)>> {
        let text = match fs::read_to_string(self.path(origin)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let checkpoint = Note::parse(&text).and_then(|note| Checkpoint::read(&note));
        // Never taken for nothing: then any history could be told anew.
        let checkpoint =
            checkpoint.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((checkpoint.size, checkpoint.root)))
    }

    fn keep(&self, origin: &str, note: &Note) -> io::Result<()> {
        let path = self.path(origin);
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(note.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.dir)?.sync_all()
    }
}

fn parse(request: &str) -> Result<(u64, Vec<Digest>, Note), Refusal> {
    let bad = Refusal::Malformed;
    let (head, checkpoint) =
        request.split_once("\n\n").ok_or(bad("want an empty line before the checkpoint"))?;
    let mut lines = head.split('\n');
    let old = lines.next().and_then(|line| line.strip_prefix("old "));
    let old = old.and_then(|size| size.parse::<u64>().ok().filter(|n| n.to_string() == size));
    let old = old.ok_or(bad("want `old <size>` in the first line"))?;
    let proof: Option<Vec<_>> = lines.map(read_hash).collect();
    let proof = proof.filter(|proof| proof.len() <= LONGEST_PROOF);
    let proof = proof.ok_or(bad("want up to 63 lines with a hash in base64 each"))?;
    let note = Note::parse(checkpoint);
    Ok((old, proof, note.map_err(|_| bad("what is submitted is no signed note"))?))
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
