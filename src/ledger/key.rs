//! The Ed25519 keys that sign: a log's its checkpoints, a witness's what it has seen of others. Not
//! how a signature is verified ([`super::note`]).

use std::fmt;

use ring::{
    rand::SecureRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

use super::{
    checkpoint::Checkpoint,
    entry::Origin,
    note::{Note, NoteError, NoteSignature, SignatureType, VerifierKey, cosigned},
};
use crate::domain::Digest;

/// The key cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not such a key.
    #[error("not an Ed25519 key in PKCS#8 (DER): {0}")]
    Rejected(String),
    /// The machine gives no randomness.
    #[error("no randomness to make a key from")]
    NoRandomness,
}

/// The key that signs the log's checkpoints.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads a key from PKCS#8, with its public half (version 2) or without (version 1, as
    /// `openssl genpkey` writes it).
    ///
    /// # Errors
    /// When the bytes are no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(Self)
            .map_err(|error| KeyError::Rejected(error.to_string()))
    }

    /// Makes a new key; gives its PKCS#8 bytes, which are a secret.
    ///
    /// # Errors
    /// When `rng` fails.
    pub fn generate(rng: &dyn SecureRandom) -> Result<Vec<u8>, KeyError> {
        let key = Ed25519KeyPair::generate_pkcs8(rng).map_err(|_| KeyError::NoRandomness)?;
        Ok(key.as_ref().to_vec())
    }

    /// The key by which others verify what this one signs as `kind` under `name`.
    ///
    /// # Errors
    /// When the name cannot stand in a note.
    pub fn verifier(&self, name: &str, kind: SignatureType) -> Result<VerifierKey, NoteError> {
        VerifierKey::new(name, kind, self.public())
    }

    /// The key by which others verify the checkpoints of the log `origin`.
    #[must_use]
    pub fn log_verifier(&self, origin: &Origin) -> VerifierKey {
        VerifierKey::named(origin.as_str(), SignatureType::Ed25519, self.public())
    }

    fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        for (to, from) in public.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        public
    }

    /// Signs `text` as the log whose key `verifier` is.
    #[must_use]
    pub fn sign(&self, verifier: &VerifierKey, text: &str) -> NoteSignature {
        let bytes = self.0.sign(text.as_bytes()).as_ref().to_vec();
        NoteSignature { name: verifier.name().to_owned(), key_id: verifier.id(), bytes }
    }

    /// Signs the checkpoint `text`, seen at `time` (seconds since 1970), as the witness whose key
    /// `verifier` is.
    #[must_use]
    pub fn cosign(&self, verifier: &VerifierKey, text: &str, time: u64) -> NoteSignature {
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.0.sign(cosigned(text, time).as_bytes()).as_ref());
        NoteSignature { name: verifier.name().to_owned(), key_id: verifier.id(), bytes }
    }
}

/// The keys that sign a log's checkpoints: one, or while keys are changed the old one beside the new.
#[derive(Debug)]
pub struct Signer {
    origin: Origin,
    keys: Vec<SigningKey>,
    verifiers: Vec<VerifierKey>,
}

impl Signer {
    /// The keys of the log `origin`, the one that is to last first.
    #[must_use]
    pub fn new(origin: Origin, keys: Vec<SigningKey>) -> Self {
        let verifiers = keys.iter().map(|key| key.log_verifier(&origin)).collect();
        Self { origin, keys, verifiers }
    }

    /// The log.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The keys by which others verify.
    #[must_use]
    pub fn verifiers(&self) -> &[VerifierKey] {
        &self.verifiers
    }

    /// Signs the tree of `size` entries with this root.
    #[must_use]
    pub fn checkpoint(&self, size: u64, root: Digest) -> Note {
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let mut note = Note::unsigned(checkpoint.to_string());
        let keys = self.keys.iter().zip(&self.verifiers);
        let signatures = keys.map(|(key, verifier)| key.sign(verifier, note.text())).collect();
        note.signatures = signatures;
        note
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_can_be_read_and_is_never_printed() {
        let der = SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { .. }");
        let verifier = key.verifier("a", SignatureType::Ed25519).unwrap();
        assert!(verifier.to_string().starts_with("a+"));
        assert!(SigningKey::from_pkcs8(&der[1..]).is_err());
    }
}
