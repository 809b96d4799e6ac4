//! The ledger's bytes: entries, their chain, and what makes a copy of it trustworthy. Pure: no
//! database, no clock, no async; an auditor can read and run this folder alone.

mod body;
pub mod canonical;
pub mod checkpoint;
mod commitment;
pub mod entry;
mod fault;
#[cfg(test)]
pub(crate) mod fixture;
pub mod key;
pub mod late;
pub mod note;
pub mod outcome;
mod proof;
mod retention;
mod terms;
pub mod tile;
pub mod time;
pub mod tree;
#[cfg(test)]
mod vectors_tests;
pub mod verify;

pub use body::{
    ActivationBody, AuditReadBody, ClockCorrectedBody, DecisionBody, DespiteHold, Engine,
    ErasureBody, GenesisBody, KeyChangeBody, KeyRetiredBody, LegalHoldBody, PrunedBody,
    RecoveryBody, RefusedBody, SeqRange, StoreSettings, TreeHead,
};
pub use canonical::CanonicalError;
pub use checkpoint::{Checkpoint, TlogProof, hash_text, read_hash};
pub use commitment::{Commitment, Committing};
pub use entry::{
    ENTRY_LIMIT, Entry, EntryError, Envelope, InvalidOrigin, Kind, Origin, leaf_of, seal,
};
pub use fault::{ChainFault, Finding};
pub use key::{KeyError, Signer, SigningKey};
pub use late::LateOutcomeBody;
pub use note::{Note, NoteError, NoteSignature, SignatureType, VerifierKey};
pub use outcome::{
    Attempt, AttemptFailure, DecisionRef, OutcomeBody, OutcomeStatus, ReportedStatus, SkipReason,
    Skipped, TokenCount,
};
pub use proof::{Plan, Tiles, is_consistent, root_of_inclusion};
pub use retention::kept_until;
pub use terms::{DerivedTerms, key_term};
pub use tile::{
    BundleError, InvalidTilePath, TILE_WIDTH, Tile, TileId, TilePath, read_bundle, read_tile,
    write_bundle,
};
pub use time::{parse_timestamp, timestamp_text, to_micros};
pub use tree::{Edge, empty_root, node_of, partial_tiles};
pub use verify::{
    CLOCKS, CONFIRMED, Examined, Examiner, Past, Report, SentAttempt, Shortest, Verifier,
    endorsement,
};

/// A leaf hash as 64 hexadecimal digits, without the prefix of other digests.
pub mod leaf_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::domain::Digest;

    /// Writes 64 hexadecimal digits.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(leaf: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&leaf.hex())
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// When there are not 64, or others.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Digest::from_hex(&text).ok_or_else(|| D::Error::custom("want 64 hexadecimal digits"))
    }
}
