//! What a log says of its whole tree (C2SP tlog-checkpoint), and one entry's place in it as text
//! (C2SP tlog-proof). Not the tree itself.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    entry::Origin,
    note::{Note, NoteError},
    tile::decimal,
};
use crate::domain::Digest;

/// The first line of a proof.
const PROOF: &str = "c2sp.org/tlog-proof@v1";
/// The longest inclusion proof: a tree has less than 2^63 leaves.
const LONGEST_PROOF: usize = 63;

/// A log's name, how many entries it has, and the root over their leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// How many entries.
    pub size: u64,
    /// The root of their tree.
    pub root: Digest,
}

impl Checkpoint {
    /// The checkpoint that a note holds. What other lines say is not read.
    ///
    /// # Errors
    /// When the note's text is no checkpoint.
    pub fn read(note: &Note) -> Result<Self, NoteError> {
        let mut lines = note.text().split('\n');
        let mut line = |error| lines.next().ok_or(NoteError::Checkpoint(error));
        let origin = line("no origin")?
            .parse()
            .map_err(|_| NoteError::Checkpoint("its first line wants the log's origin"))?;
        let size = decimal(line("no size")?)
            .ok_or(NoteError::Checkpoint("its second line wants the number of entries"))?;
        let root = read_hash(line("no root")?)
            .ok_or(NoteError::Checkpoint("its third line wants the root in base64"))?;
        Ok(Self { origin, size, root })
    }
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }
}

/// A hash as text formats write it: base64.
#[must_use]
pub fn hash_text(hash: &Digest) -> String {
    STANDARD.encode(hash.as_bytes())
}

/// Reads what [`hash_text`] writes.
#[must_use]
pub fn read_hash(text: &str) -> Option<Digest> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

/// An entry's place in a log, with the checkpoint that fixes it: all that is needed to verify it
/// without the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's position.
    pub index: u64,
    /// The hashes from its leaf's sibling up.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint.
    pub checkpoint: Note,
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{PROOF}\nindex {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", hash_text(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for TlogProof {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Form;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(bad("a proof has an empty line before its checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(PROOF) {
            return Err(bad("a proof begins with `c2sp.org/tlog-proof@v1`"));
        }
        let mut line = lines.next();
        if line.is_some_and(|line| line.starts_with("extra ")) {
            line = lines.next();
        }
        let index = line.and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(bad("a proof wants a line `index <position>`"))?;
        let hashes: Option<Vec<_>> = lines.map(read_hash).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= LONGEST_PROOF);
        Ok(Self {
            index,
            hashes: hashes.ok_or(bad("the lines of a proof want a hash each, in base64"))?,
            checkpoint: Note::parse(checkpoint)?,
        })
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
