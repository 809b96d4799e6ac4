//! Commitments: how a value that the log must not hold, such as who a person is or what a call said,
//! stands in it all the same. Whoever has the salt and the value can show that they are the ones; whoever
//! has neither learns nothing.

use std::fmt;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{PartialSchema, ToSchema, openapi};

use super::leaf_hex;
use crate::domain::Digest;

/// What stands in front of the salt: no other hash of the ledger's begins so.
const DOMAIN: &[u8] = b"lexgate/commit/v1\0";

/// The commitment's field in a decision's body. It is the last one.
const FIELD: &[u8] = b",\"user_commitment\":\"";

/// `SHA-256("lexgate/commit/v1" ‖ 0x00 ‖ salt ‖ value)`, in JSON 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commitment(Digest);

impl Commitment {
    /// The commitment to `value` under a random salt.
    #[must_use]
    pub fn to(value: &[u8], salt: &[u8; 32]) -> Self {
        let mut committing = Committing::under(salt);
        committing.add(value);
        committing.end()
    }

    /// Its 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// A decision's body with this commitment in it; `body` is canonical, and so is the answer.
    #[must_use]
    pub fn put_into(&self, body: &[u8]) -> Vec<u8> {
        let open = body.strip_suffix(b"}").unwrap_or(body);
        [open, FIELD, self.hex().as_bytes(), b"\"}"].concat()
    }
}

/// A commitment to a value that comes in pieces.
#[derive(Clone)]
pub struct Committing(Context);

impl Committing {
    /// Begins a commitment under a random salt.
    #[must_use]
    pub fn under(salt: &[u8; 32]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(DOMAIN);
        context.update(salt);
        Self(context)
    }

    /// Takes the next piece of the value.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The commitment to all that came.
    #[must_use]
    pub fn end(self) -> Commitment {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Commitment(Digest::from_bytes(bytes))
    }
}

impl fmt::Debug for Committing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Committing")
    }
}

/// A decision's body up to the commitment at its end, if it has one.
pub(super) fn before_commitment(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_suffix(b"\"}")?;
    let (rest, hex) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    let is_hex = hex.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    rest.strip_suffix(FIELD).filter(|_| is_hex)
}

impl Serialize for Commitment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        leaf_hex::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Commitment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        leaf_hex::deserialize(deserializer).map(Self)
    }
}

impl PartialSchema for Commitment {
    fn schema() -> openapi::RefOr<openapi::schema::Schema> {
        String::schema()
    }
}

impl ToSchema for Commitment {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::canonical;

    #[test]
    fn a_commitment_is_the_hash_that_the_documents_say() {
        // { printf 'lexgate/commit/v1\0'; head -c32 /dev/zero; printf u-1842; } | sha256sum
        assert_eq!(
            Commitment::to(b"u-1842", &[0; 32]).hex(),
            "53237e8b0726d398f3d03519537e5aab09f212f1e3675ff1cb9e5e32b8b2eb21"
        );
        assert_ne!(Commitment::to(b"u-1842", &[0; 32]), Commitment::to(b"u-1842", &[1; 32]));
        let mut in_pieces = Committing::under(&[0; 32]);
        for piece in [&b"u-"[..], b"", b"1842"] {
            in_pieces.add(piece);
        }
        assert_eq!(in_pieces.end(), Commitment::to(b"u-1842", &[0; 32]));
    }

    #[test]
    fn it_is_put_at_the_end_and_found_there() {
        let commitment = Commitment::to(b"u-1842", &[7; 32]);
        let body = br#"{"call":{},"snapshot":{}}"#;
        let with = commitment.put_into(body);
        assert!(canonical::check(&with).is_ok());
        assert_eq!(before_commitment(&with), Some(&br#"{"call":{},"snapshot":{}"#[..]));
        assert_eq!(before_commitment(body), None);
        let upper = String::from_utf8(with).unwrap().to_uppercase();
        assert_eq!(before_commitment(upper.as_bytes()), None);
        assert_eq!(before_commitment(b""), None);
    }
}
