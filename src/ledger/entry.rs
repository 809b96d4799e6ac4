//! The envelope around a record, and its hash. Not what a record says (`body`), nor whether a row
//! of entries is whole (`verify`).

use std::{borrow::Cow, fmt, io::Write, str::FromStr, sync::Arc};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    canonical::{self, CanonicalError},
    time::{parse_timestamp, timestamp_text},
};
use crate::domain::{Digest, Seq};

/// The greatest size of an entry in bytes: what the length prefix of an entry bundle can say.
pub const ENTRY_LIMIT: usize = 65_535;

/// The version of the envelope.
const VERSION: u64 = 1;

/// A log's name for itself, as it stands in its entries, checkpoints and keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    /// The name as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot name a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a log: want 1 to 200 visible ASCII characters without `+`, `\"` and `\\`, such as `lexgate.example/main`"
)]
pub struct InvalidOrigin(String);

impl FromStr for Origin {
    type Err = InvalidOrigin;

    /// A key name of C2SP signed-note (no space, no `+`) that needs no escape in JSON.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'+' | b'"' | b'\\');
        if (1..=200).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidOrigin(text.chars().take(64).collect()))
        }
    }
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// Entry 0: who keeps the log.
    Genesis,
    /// A call was judged.
    Decision,
    /// What became of a call.
    Outcome,
    /// What became known of a call after its outcome was written as `unknown`.
    LateOutcome,
    /// A snapshot became the one that decides.
    BundleActivated,
    /// Somebody read the ledger.
    AuditRead,
    /// Another key signs the log.
    KeyChanged,
    /// A key that was superseded signs no more.
    KeyRetired,
    /// The log goes on after entries were lost or rewritten.
    LedgerRecovered,
    /// The log's time went back to the real one after a clock had been wrong.
    ClockCorrected,
    /// Values that records had committed to were destroyed.
    Erasure,
    /// Bodies of records were removed.
    SegmentPruned,
    /// Records are kept beyond their time, or no longer.
    LegalHold,
    /// A known API key tried what it may not.
    Refused,
    /// A kind that this version does not know; made by [`Kind::parse`] only.
    Other(Arc<str>),
}

impl Kind {
    /// Every kind that this version knows.
    pub const KNOWN: [Self; 14] = [
        Self::Genesis,
        Self::Decision,
        Self::Outcome,
        Self::LateOutcome,
        Self::BundleActivated,
        Self::AuditRead,
        Self::KeyChanged,
        Self::KeyRetired,
        Self::LedgerRecovered,
        Self::ClockCorrected,
        Self::Erasure,
        Self::SegmentPruned,
        Self::LegalHold,
        Self::Refused,
    ];

    /// The word in the entry.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Genesis => "genesis",
            Self::Decision => "decision",
            Self::Outcome => "outcome",
            Self::LateOutcome => "late_outcome",
            Self::BundleActivated => "bundle_activated",
            Self::AuditRead => "audit_read",
            Self::KeyChanged => "key_changed",
            Self::KeyRetired => "key_retired",
            Self::LedgerRecovered => "ledger_recovered",
            Self::ClockCorrected => "clock_corrected",
            Self::Erasure => "erasure",
            Self::SegmentPruned => "segment_pruned",
            Self::LegalHold => "legal_hold",
            Self::Refused => "refused",
            Self::Other(word) => word,
        }
    }

    /// Whether it says what became of a call.
    #[must_use]
    pub const fn ends_a_call(&self) -> bool {
        matches!(self, Self::Outcome | Self::LateOutcome)
    }

    /// The kind that `word` stands for; `None` when it is not 1 to 64 of `a`–`z`, `0`–`9` and `_`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        match word {
            "genesis" => Some(Self::Genesis),
            "decision" => Some(Self::Decision),
            "outcome" => Some(Self::Outcome),
            "late_outcome" => Some(Self::LateOutcome),
            "bundle_activated" => Some(Self::BundleActivated),
            "audit_read" => Some(Self::AuditRead),
            "key_changed" => Some(Self::KeyChanged),
            "key_retired" => Some(Self::KeyRetired),
            "ledger_recovered" => Some(Self::LedgerRecovered),
            "clock_corrected" => Some(Self::ClockCorrected),
            "erasure" => Some(Self::Erasure),
            "segment_pruned" => Some(Self::SegmentPruned),
            "legal_hold" => Some(Self::LegalHold),
            "refused" => Some(Self::Refused),
            _ if (1..=64).contains(&word.len()) && word.bytes().all(fits) => {
                Some(Self::Other(word.into()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands around a body.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The record's identifier.
    pub id: Uuid,
    /// What it is about.
    pub kind: &'a Kind,
    /// The log.
    pub log: &'a Origin,
    /// The leaf hash of the entry before it; zeros for entry 0.
    pub prev: Digest,
    /// Its position.
    pub seq: Seq,
    /// When it was written.
    pub ts: Timestamp,
}

/// Puts the envelope around `body`, which must be canonical already ([`canonical::to_vec`]): its
/// bytes are copied, not written anew. Gives the entry and its leaf hash.
#[must_use]
pub fn seal(envelope: &Envelope<'_>, body: &[u8]) -> (Vec<u8>, Digest) {
    let mut entry = Vec::with_capacity(body.len() + 320 + envelope.log.as_str().len());
    entry.extend_from_slice(b"{\"body\":");
    entry.extend_from_slice(body);
    let written = write!(
        entry,
        r#","id":"{}","kind":"{}","log":"{}","prev":"{}","seq":{},"ts":"{}","v":{VERSION}}}"#,
        envelope.id.hyphenated(),
        envelope.kind,
        envelope.log,
        envelope.prev.hex(),
        envelope.seq,
        timestamp_text(envelope.ts),
    );
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    let leaf = leaf_of(&entry);
    (entry, leaf)
}

/// The leaf hash of an entry: SHA-256(0x00 ‖ entry), as in RFC 6962, 2.1.
#[must_use]
pub fn leaf_of(entry: &[u8]) -> Digest {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&[0]);
    hash.update(entry);
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    Digest::from_bytes(out)
}

/// An entry that was read. Its body is still text.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// What the record says.
    pub body: &'a RawValue,
    /// The record's identifier.
    pub id: Uuid,
    /// What it is about.
    pub kind: Kind,
    /// The log.
    pub log: Origin,
    /// The leaf hash of the entry before it.
    pub prev: Digest,
    /// Its position.
    pub seq: Seq,
    /// When it was written.
    pub ts: Timestamp,
}

/// The bytes are not an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Longer than [`ENTRY_LIMIT`].
    #[error("{0} bytes long; an entry has at most {ENTRY_LIMIT}")]
    TooLong(usize),
    /// Not in canonical form.
    #[error("not in canonical form: {0}")]
    Canonical(#[from] CanonicalError),
    /// A field is missing, unknown or of another type.
    #[error("not an entry: {0}")]
    Shape(#[source] serde_json::Error),
    /// An envelope of another version.
    #[error("`v` is {0}; this version reads {VERSION}")]
    Version(u64),
    /// A field's text does not have its form.
    #[error("`{field}` is `{text}`: {want}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says.
        text: String,
        /// What it should look like.
        want: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    seq: Seq,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    v: u64,
}

impl<'a> Entry<'a> {
    /// Reads an entry.
    ///
    /// # Errors
    /// When the bytes are not canonical, or not exactly an envelope of version 1 around an object.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_LIMIT {
            return Err(EntryError::TooLong(bytes.len()));
        }
        canonical::check(bytes)?;
        let wire: Wire<'a> = serde_json::from_slice(bytes).map_err(EntryError::Shape)?;
        if wire.v != VERSION {
            return Err(EntryError::Version(wire.v));
        }
        if !wire.body.get().starts_with('{') {
            return Err(field("body", wire.body.get(), "want an object"));
        }
        Ok(Self {
            body: wire.body,
            id: uuid(&wire.id)
                .ok_or_else(|| field("id", &wire.id, "want a UUID in lower case, with hyphens"))?,
            kind: Kind::parse(&wire.kind).ok_or_else(|| {
                field("kind", &wire.kind, "want 1 to 64 of `a`-`z`, `0`-`9` and `_`")
            })?,
            log: wire
                .log
                .parse()
                .map_err(|_| field("log", &wire.log, "want visible ASCII characters"))?,
            prev: Digest::from_hex(&wire.prev).ok_or_else(|| {
                field("prev", &wire.prev, "want 64 hexadecimal digits in lower case")
            })?,
            seq: wire.seq,
            ts: parse_timestamp(&wire.ts)
                .ok_or_else(|| field("ts", &wire.ts, "want `2026-11-22T13:00:00.000000Z`"))?,
        })
    }
}

fn field(field: &'static str, text: &str, want: &'static str) -> EntryError {
    EntryError::Field { field, text: text.chars().take(80).collect(), want }
}

/// A UUID in its one lower-case form.
fn uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().to_string() == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> String {
        let origin: Origin = "lexgate.example/main".parse().unwrap();
        let envelope = Envelope {
            id: Uuid::from_u128(7),
            kind: &Kind::Other("later_kind".into()),
            log: &origin,
            prev: Digest::from_bytes([0xab; 32]),
            seq: Seq::new(41),
            ts: "2026-11-22T13:00:00Z".parse().unwrap(),
        };
        String::from_utf8(seal(&envelope, br#"{"a":1}"#).0).unwrap()
    }

    #[test]
    fn an_entry_is_written_and_read_in_one_form() {
        let text = sealed();
        assert_eq!(
            text,
            format!(
                r#"{{"body":{{"a":1}},"id":"00000000-0000-0000-0000-000000000007","kind":"later_kind","log":"lexgate.example/main","prev":"{}","seq":41,"ts":"2026-11-22T13:00:00.000000Z","v":1}}"#,
                "ab".repeat(32)
            )
        );
        let entry = Entry::parse(text.as_bytes()).unwrap();
        assert_eq!(entry.body.get(), r#"{"a":1}"#);
        assert_eq!((entry.seq.get(), entry.kind.as_str()), (41, "later_kind"));
    }

    #[test]
    fn the_leaf_is_the_hash_of_rfc_6962() {
        // RFC 6962's leaf of an empty entry: SHA-256 of one zero byte.
        assert_eq!(
            leaf_of(b"").hex(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    #[test]
    fn another_form_of_any_field_is_refused() {
        for (from, to, want) in [
            (r#""v":1"#, r#""v":2"#, "`v` is 2"),
            ("later_kind", "Audit", "`kind`"),
            ("00000000-0000-0000-0000-000000000007", "7", "`id`"),
            ("-000000000007", "-00000000000A", "`id`"),
            ("00.000000Z", "00.000Z", "`ts`"),
            ("abab\"", "ab\"", "`prev`"),
            ("lexgate.example/main", "lexgate example", "`log`"),
            (r#"{"a":1}"#, "1", "`body`"),
            (r#""seq":41"#, r#""seq":-1"#, "not an entry"),
            (r#","v":1"#, r#","v":1,"w":1"#, "not an entry"),
            (r#""seq":41,"#, "", "not an entry"),
            (r#""seq":41"#, r#""seq": 41"#, "canonical"),
        ] {
            let text = sealed().replace(from, to);
            let error = Entry::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{to}: {error}");
        }
        let long = format!("\"{}\"", "a".repeat(ENTRY_LIMIT));
        assert!(matches!(Entry::parse(long.as_bytes()), Err(EntryError::TooLong(65_537))));
    }

    #[test]
    fn origin_is_a_key_name() {
        assert!("lexgate.example/main".parse::<Origin>().is_ok());
        for bad in ["", "a b", "a+b", "a\"b", "a\\b", "ä", "a\n"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
