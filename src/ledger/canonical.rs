//! The one form in which an entry may be written: RFC 8785 (JCS), restricted to what every reader
//! agrees on. Not a canonicaliser: recorded types already write themselves in this form, and a text
//! in any other form is refused, never repaired.
//!
//! The restriction: integers only, none beyond 2^53 − 1 either way, no key twice, bounded nesting.

use std::{cmp::Ordering, ops::Range};

use serde::Serialize;

/// The deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 64;

/// The greatest magnitude of an integer: 2^53 − 1, the last one that every JSON reader keeps.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A text is not in canonical form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// The value cannot be written as JSON at all.
    #[error("cannot be written as JSON")]
    Serialize(#[source] serde_json::Error),
    /// The text departs from the form.
    #[error("byte {at}: {flaw}")]
    Form {
        /// Offset of the first byte that is wrong.
        at: usize,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// How a text departs from canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The bytes are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The text ends within a value.
    #[error("the text ends too early")]
    Truncated,
    /// Something follows the value.
    #[error("something follows the value")]
    Trailing,
    /// No token of JSON may stand here.
    #[error("want {0}")]
    Want(&'static str),
    /// White space between tokens.
    #[error("white space between tokens")]
    WhiteSpace,
    /// A number with a fraction or an exponent.
    #[error("a fraction or an exponent; such numbers are written as strings")]
    Float,
    /// `01`, `-0`.
    #[error("a number that is not in its shortest form")]
    NumberForm,
    /// An integer beyond 2^53 − 1.
    #[error("an integer beyond 2^53 - 1; such numbers are written as strings")]
    IntegerRange,
    /// An escape where none is needed, or in another form than JCS writes.
    #[error("an escape that JCS does not write")]
    Escape,
    /// A control character that is not escaped.
    #[error("a control character that is not escaped")]
    Control,
    /// A key that sorts before the one in front of it, by UTF-16 code units.
    #[error("keys out of order")]
    KeyOrder,
    /// A key that the object already has.
    #[error("a key that the object already has")]
    DuplicateKey,
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// Writes `value` as JSON and makes sure that the text is canonical.
///
/// # Errors
/// When the value cannot be written, or its text is not canonical: a type whose fields do not stand
/// in alphabetical order, a float, too great an integer.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let text = serde_json::to_vec(value).map_err(CanonicalError::Serialize)?;
    check(&text)?;
    Ok(text)
}

/// Makes sure that `text` is one JSON value in canonical form.
///
/// # Errors
/// The first place where it is not.
pub fn check(text: &[u8]) -> Result<(), CanonicalError> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(CanonicalError::Form { at: error.valid_up_to(), flaw: Flaw::NotUtf8 });
    }
    let mut scanner = Scanner { text, at: 0 };
    scanner.value(0)?;
    if scanner.at == text.len() { Ok(()) } else { scanner.fail(Flaw::Trailing) }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn fail<T>(&self, flaw: Flaw) -> Result<T, CanonicalError> {
        Err(CanonicalError::Form { at: self.at, flaw })
    }

    /// Fails at the present byte, which is none of `wanted`.
    fn fail_wanting<T>(&self, wanted: &'static str) -> Result<T, CanonicalError> {
        self.fail(match self.peek() {
            None => Flaw::Truncated,
            Some(b' ' | b'\t' | b'\n' | b'\r') => Flaw::WhiteSpace,
            Some(_) => Flaw::Want(wanted),
        })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Passes over `byte` if it stands here.
    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => self.fail_wanting("a value"),
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), CanonicalError> {
        for byte in word {
            if !self.take(*byte) {
                return self.fail_wanting("`true`, `false` or `null`");
            }
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.enter(depth)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.fail_wanting("`,` or `]`");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.enter(depth)?;
        if self.take(b'}') {
            return Ok(());
        }
        let mut last: Option<Range<usize>> = None;
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return self.fail_wanting("a key");
            }
            let key = self.string()?;
            if let Some(last) = last.replace(key.clone()) {
                let flaw = match self.order(&last, &key) {
                    Ordering::Less => None,
                    Ordering::Equal => Some(Flaw::DuplicateKey),
                    Ordering::Greater => Some(Flaw::KeyOrder),
                };
                if let Some(flaw) = flaw {
                    return Err(CanonicalError::Form { at: start, flaw });
                }
            }
            if !self.take(b':') {
                return self.fail_wanting("`:`");
            }
            self.value(depth + 1)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.fail_wanting("`,` or `}`");
            }
        }
    }

    /// Passes over an opening bracket.
    fn enter(&mut self, depth: usize) -> Result<(), CanonicalError> {
        if depth >= MAX_DEPTH {
            return self.fail(Flaw::TooDeep);
        }
        self.at += 1;
        Ok(())
    }

    fn integer(&mut self) -> Result<(), CanonicalError> {
        let start = self.at;
        let negative = self.take(b'-');
        let digits = self.at;
        let mut magnitude: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            magnitude = magnitude.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let length = self.at - digits;
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return self.fail(Flaw::Float);
        }
        let padded = length > 1 && self.text.get(digits) == Some(&b'0');
        let flaw = if length == 0 {
            return self.fail_wanting("a digit");
        } else if padded || (negative && magnitude == 0) {
            Flaw::NumberForm
        } else if magnitude > MAX_INTEGER {
            Flaw::IntegerRange
        } else {
            return Ok(());
        };
        Err(CanonicalError::Form { at: start, flaw })
    }

    /// Passes over a string; gives where it stands, quotes included.
    fn string(&mut self) -> Result<Range<usize>, CanonicalError> {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            self.at += plain.unwrap_or(rest.len());
            match self.peek() {
                None => return self.fail(Flaw::Truncated),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail(Flaw::Control),
            }
        }
    }

    fn escape(&mut self) -> Result<(), CanonicalError> {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let length = match rest {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            // Only control characters without a short form, in lower case.
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..]
            | [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return self.fail(Flaw::Escape),
        };
        self.at += length;
        Ok(())
    }

    /// How two keys sort: by UTF-16 code units (RFC 8785, 3.2.3).
    fn order(&self, left: &Range<usize>, right: &Range<usize>) -> Ordering {
        let left = self.text.get(left.clone()).unwrap_or_default();
        let right = self.text.get(right.clone()).unwrap_or_default();
        let plain = |key: &[u8]| key.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
        if plain(left) && plain(right) {
            inner(left).cmp(inner(right))
        } else {
            units(left).cmp(&units(right))
        }
    }
}

/// The bytes between a string's quotes.
fn inner(quoted: &[u8]) -> &[u8] {
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
}

/// The UTF-16 code units that a quoted string stands for.
fn units(quoted: &[u8]) -> Vec<u16> {
    let text: String = serde_json::from_slice(quoted).unwrap_or_default();
    text.encode_utf16().collect()
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
