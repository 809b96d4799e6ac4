//! The log's Ed25519 key and the name under which others verify it (C2SP signed-note). Not the
//! signing of checkpoints.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SecureRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

use super::entry::Origin;
use crate::domain::Digest;

/// The signature type of Ed25519 in a signed note.
const ED25519: u8 = 0x01;

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

    /// The verifier key: `origin+keyid+base64(0x01 ‖ public key)`.
    #[must_use]
    pub fn vkey(&self, origin: &Origin) -> String {
        let mut typed = vec![ED25519];
        typed.extend_from_slice(self.0.public_key().as_ref());
        let mut named = format!("{origin}\n").into_bytes();
        named.extend_from_slice(&typed);
        let key_id: String = Digest::of(&named).hex().chars().take(8).collect();
        format!("{origin}+{key_id}+{}", STANDARD.encode(typed))
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

    /// The key of the Go package golang.org/x/mod/sumdb/note's example: seed and vkey.
    const SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn vkey_is_that_of_the_reference_implementation() {
        let seed = STANDARD.decode(SEED).unwrap();
        // PKCS#8 version 1 around the 32 bytes (RFC 8410, 7).
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend_from_slice(&seed[1..]);
        let key = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!(key.vkey(&"PeterNeumann".parse().unwrap()), VKEY);
    }

    #[test]
    fn a_key_that_was_made_can_be_read_and_is_never_printed() {
        let der = SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { .. }");
        assert!(key.vkey(&"a".parse().unwrap()).starts_with("a+"));
        assert!(SigningKey::from_pkcs8(&der[1..]).is_err());
    }
}
