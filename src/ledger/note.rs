//! Text that keys have signed (C2SP signed-note), and the keys that verify it. Not what the text
//! says, and not the key that signs ([`super::key`]).

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::domain::Digest;

/// The longest note that is read, in bytes.
const NOTE_LIMIT: usize = 64 * 1024;
/// How many signatures may stand on one note.
const SIGNATURE_LIMIT: usize = 64;
/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// What a key signs, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureType {
    /// The text, with Ed25519: a log.
    Ed25519,
    /// The text and the time, with Ed25519 (C2SP tlog-cosignature): a witness.
    Cosignature,
}

impl SignatureType {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A name and a public key: `name+hash+base64(type ‖ key)`, a "vkey".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    kind: SignatureType,
    public: [u8; 32],
}

impl VerifierKey {
    /// The key `public` under `name`.
    ///
    /// # Errors
    /// When the name is empty or holds a space, a `+` or a control character.
    pub fn new(name: &str, kind: SignatureType, public: [u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name(name.to_owned()));
        }
        Ok(Self::named(name, kind, public))
    }

    /// The key under a name that is known to be one.
    pub(super) fn named(name: &str, kind: SignatureType, public: [u8; 32]) -> Self {
        let mut named = format!("{name}\n").into_bytes();
        named.push(kind.byte());
        named.extend_from_slice(&public);
        let [a, b, c, d, ..] = *Digest::of(&named).as_bytes();
        Self { name: name.to_owned(), id: [a, b, c, d], kind, public }
    }

    /// The name: of a log's key its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first bytes of the hash by which signatures name it.
    #[must_use]
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> SignatureType {
        self.kind
    }

    /// Whether `signature` is this key's for `text`. A cosignature's time, in seconds since 1970, is
    /// the first eight of its bytes.
    #[must_use]
    pub fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.public);
        match self.kind {
            SignatureType::Ed25519 => key.verify(text.as_bytes(), signature).is_ok(),
            SignatureType::Cosignature => {
                signature.split_first_chunk().is_some_and(|(time, rest)| {
                    let message = cosigned(text, u64::from_be_bytes(*time));
                    key.verify(message.as_bytes(), rest).is_ok()
                })
            }
        }
    }
}

/// What a witness signs (C2SP tlog-cosignature).
pub(super) fn cosigned(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![self.kind.byte()];
        typed.extend_from_slice(&self.public);
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(typed))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let bad = || NoteError::Key(text.chars().take(200).collect());
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let typed = STANDARD.decode(key).map_err(|_| bad())?;
        let (kind, public) = match typed.split_first() {
            Some((0x01, public)) => (SignatureType::Ed25519, public),
            Some((0x04, public)) => (SignatureType::Cosignature, public),
            _ => return Err(bad()),
        };
        let public = public.try_into().map_err(|_| bad())?;
        let key = Self::new(name, kind, public)?;
        if format!("{:08x}", u32::from_be_bytes(key.id)) == id { Ok(key) } else { Err(bad()) }
    }
}

/// A name may stand between the parts of a signature line.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// What is wrong with a note, or with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The text is no note.
    #[error("not a signed note: {0}")]
    Form(&'static str),
    /// The name cannot stand in a note.
    #[error("`{0}` cannot name a key: want no space, no `+`, no control character")]
    Name(String),
    /// The text is no verifier key.
    #[error("`{0}` is no verifier key: want `name+hash+key`, as `lexgate init` prints it")]
    Key(String),
    /// None of the keys has signed it.
    #[error("none of the given keys has signed the note")]
    Unsigned,
    /// A signature of a known key does not hold.
    #[error("the signature of `{0}` does not hold: the note was changed")]
    Forged(String),
    /// The text of a checkpoint is not one.
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
}

/// A signature on a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The beginning of the key's hash.
    pub key_id: [u8; 4],
    /// What the key made of the text.
    pub bytes: Vec<u8>,
}

impl fmt::Display for NoteSignature {
    /// The line, with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_vec();
        bytes.extend_from_slice(&self.bytes);
        writeln!(f, "{DASH}{} {}", self.name, STANDARD.encode(bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    /// Reads a line without its end.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        const BAD: NoteError = NoteError::Form("a signature line wants `— name base64`");
        let (name, signature) =
            line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or(BAD)?;
        let bytes = STANDARD.decode(signature).map_err(|_| BAD)?;
        match bytes.split_first_chunk() {
            Some((key_id, rest)) if is_name(name) && !rest.is_empty() => {
                Ok(Self { name: name.to_owned(), key_id: *key_id, bytes: rest.to_vec() })
            }
            _ => Err(BAD),
        }
    }
}

/// A text and the signatures on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    /// The signatures, in their order.
    pub signatures: Vec<NoteSignature>,
}

impl Note {
    /// A note without signatures; `text` ends with a line end.
    #[must_use]
    pub const fn unsigned(text: String) -> Self {
        Self { text, signatures: Vec::new() }
    }

    /// Reads a note. Nothing is verified.
    ///
    /// # Errors
    /// When it does not have the form of one.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_LIMIT {
            return Err(NoteError::Form("longer than 65536 bytes"));
        }
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(NoteError::Form("it holds a control character"));
        }
        let blank = note.rfind("\n\n").ok_or(NoteError::Form("no empty line before signatures"))?;
        let (text, signatures) = note.split_at(blank + 1);
        let lines = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let lines = lines.ok_or(NoteError::Form("it does not end with a line end"))?;
        let signatures = lines.split('\n').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURE_LIMIT {
            return Err(NoteError::Form("more than 64 signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Reads notes that follow each other, with empty lines between them or without: a note ends where its
    /// signatures do.
    ///
    /// # Errors
    /// When one of them does not have the form of one.
    pub fn parse_all(notes: &str) -> Result<Vec<Self>, NoteError> {
        let (mut all, mut note) = (Vec::new(), String::new());
        let (mut is_blank, mut is_signed) = (false, false);
        for line in notes.split_inclusive('\n') {
            let is_signature = line.starts_with(DASH) && (is_blank || is_signed);
            if is_signed && !is_signature {
                all.push(Self::parse(&std::mem::take(&mut note))?);
            }
            is_signed = is_signature;
            is_blank = line == "\n";
            if !(is_blank && note.is_empty()) {
                note.push_str(line);
            }
        }
        if !note.is_empty() {
            all.push(Self::parse(&note)?);
        }
        Ok(all)
    }

    /// What was signed, with its last line end.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Which of `keys` have signed it. Signatures of others are ignored.
    ///
    /// # Errors
    /// When none has, or a signature of one of them does not hold.
    pub fn verify<'a>(&self, keys: &'a [VerifierKey]) -> Result<Vec<&'a VerifierKey>, NoteError> {
        let mut signed = Vec::new();
        for signature in &self.signatures {
            let is_of =
                |key: &&VerifierKey| key.name == signature.name && key.id == signature.key_id;
            let Some(key) = keys.iter().find(is_of) else { continue };
            if !key.verifies(&self.text, &signature.bytes) {
                return Err(NoteError::Forged(key.name.clone()));
            }
            if !signed.contains(&key) {
                signed.push(key);
            }
        }
        if signed.is_empty() { Err(NoteError::Unsigned) } else { Ok(signed) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "lexgate.example/main\n5\nAAAA\n\n\u{2014} lexgate.example/main AAAAAAA=\n";
    const TWO: &str = "lexgate.example/main\n7\nBBBB\n\n\u{2014} lexgate.example/main BBBBBBA=\n\u{2014} witness CCCCCCA=\n";

    #[test]
    fn notes_are_told_apart_however_they_were_appended() {
        let expected = [Note::parse(ONE).unwrap(), Note::parse(TWO).unwrap()];
        for between in ["", "\n", "\n\n\n"] {
            for (before, after) in [("", ""), ("\n", "\n"), ("", "\n\n")] {
                let notes = format!("{before}{ONE}{between}{TWO}{after}");
                assert_eq!(Note::parse_all(&notes).unwrap(), expected, "{notes:?}");
            }
        }
        assert_eq!(Note::parse_all(&ONE.repeat(3)).unwrap().len(), 3);
        assert_eq!(Note::parse_all("").unwrap(), []);
        assert_eq!(Note::parse_all("\n\n").unwrap(), []);
    }

    #[test]
    fn a_text_may_hold_empty_lines_and_what_looks_like_a_signature() {
        let note = "a\n\u{2014} b AAAAAAA=\n\nc\n\n\u{2014} d AAAAAAA=\n";
        let all = Note::parse_all(&note.repeat(2)).unwrap();
        assert_eq!(all, [Note::parse(note).unwrap(), Note::parse(note).unwrap()]);
        assert_eq!(all[0].text(), "a\n\u{2014} b AAAAAAA=\n\nc\n");
    }

    #[test]
    fn what_is_torn_is_not_a_note() {
        for torn in [&TWO[..TWO.len() - 1], &TWO[..TWO.len() - 16], "lexgate.example/main\n7\n"] {
            assert!(Note::parse_all(&format!("{ONE}{torn}")).is_err(), "{torn:?}");
        }
        assert!(Note::parse_all(&format!("{}{TWO}", &ONE[..ONE.len() - 1])).is_err());
    }
}
