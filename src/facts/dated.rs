//! When a fact holds, and where it comes from.

use std::ops::Range;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Deserialize;
use toml::Spanned;

use crate::domain::{Confidence, Fault, Faults, SourceFile};

/// The instants at which a fact holds: from the first, up to and without the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant at which it no longer holds.
    pub until: Option<Timestamp>,
}

impl Validity {
    /// Whether `instant` lies within.
    #[must_use]
    pub fn holds_at(&self, instant: Timestamp) -> bool {
        self.from <= instant && self.until.is_none_or(|until| instant < until)
    }

    /// Whether some instant lies within both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.until.is_none_or(|until| other.from < until)
            && other.until.is_none_or(|until| self.from < until)
    }

    /// The beginning and the end, where there is one.
    pub fn boundaries(&self) -> impl Iterator<Item = Timestamp> {
        [Some(self.from), self.until].into_iter().flatten()
    }
}

/// A fact with its validity and its source.
#[derive(Clone, Debug)]
pub struct Dated<T> {
    /// What is the case.
    pub fact: T,
    /// When.
    pub valid: Validity,
    /// Who says so.
    pub source: String,
    /// The day on which somebody last looked.
    pub checked: Date,
    /// How sure it is.
    pub confidence: Confidence,
    /// The bytes of its file that state it.
    pub(super) span: Range<usize>,
}

/// A file's `[defaults]`, or one fact's own words, about validity and source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provenance {
    valid_from: Option<Spanned<String>>,
    valid_until: Option<Spanned<String>>,
    source: Option<String>,
    checked: Option<Spanned<String>>,
    confidence: Option<Confidence>,
}

impl Provenance {
    /// The five keys as a fact states them.
    pub(super) fn new(
        valid_from: Option<Spanned<String>>,
        valid_until: Option<Spanned<String>>,
        source: Option<String>,
        checked: Option<Spanned<String>>,
        confidence: Option<Confidence>,
    ) -> Self {
        Self { valid_from, valid_until, source, checked, confidence }
    }

    /// `fact` with this provenance, and the file's defaults where it says nothing.
    pub(super) fn date<T>(
        self,
        fact: T,
        span: Range<usize>,
        defaults: &Self,
        file: &SourceFile,
        faults: &mut Faults,
    ) -> Option<Dated<T>> {
        let missing = |key: &str| {
            file.fault(span.clone(), format!("the fact has no `{key}`"))
                .help(format!("add `{key}` to it, or to the file's `[defaults]`"))
        };
        let from = self.valid_from.as_ref().or(defaults.valid_from.as_ref());
        let until = self.valid_until.as_ref().or(defaults.valid_until.as_ref());
        let checked = self.checked.as_ref().or(defaults.checked.as_ref());
        let read = || {
            let from = instant(from.ok_or_else(|| missing("valid_from"))?, file)?;
            let until = until.map(|until| instant(until, file)).transpose()?;
            if until.is_some_and(|until| until <= from) {
                return Err(file
                    .fault(span.clone(), "the fact ends before it begins")
                    .help("`valid_until` is the first moment at which it no longer holds"));
            }
            Ok(Dated {
                fact,
                valid: Validity { from, until },
                source: self
                    .source
                    .or_else(|| defaults.source.clone())
                    .filter(|source| !source.trim().is_empty())
                    .ok_or_else(|| missing("source"))?,
                checked: date(checked.ok_or_else(|| missing("checked"))?, file)?,
                confidence: self
                    .confidence
                    .or(defaults.confidence)
                    .ok_or_else(|| missing("confidence"))?,
                span: span.clone(),
            })
        };
        read().map_err(|fault| faults.0.push(fault)).ok()
    }
}

fn date(text: &Spanned<String>, file: &SourceFile) -> Result<Date, Fault> {
    text.get_ref().parse().map_err(|_| {
        file.fault(text.span(), format!("`{}` is not a date", text.get_ref()))
            .help("write it as `2026-11-22`")
    })
}

/// Reads a day, which begins at midnight UTC, or an instant.
///
/// # Errors
/// A fault at the text's place.
pub fn instant(text: &Spanned<String>, file: &SourceFile) -> Result<Timestamp, Fault> {
    if let Ok(instant) = text.get_ref().parse::<Timestamp>() {
        return Ok(instant);
    }
    let midnight = text.get_ref().parse::<Date>().ok();
    let midnight = midnight.and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    midnight.map(|midnight| midnight.timestamp()).ok_or_else(|| {
        file.fault(text.span(), format!("`{}` is neither a date nor an instant", text.get_ref()))
            .help("write `2026-11-22`, or `2026-11-22T13:00:00Z`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validity(from: &str, until: Option<&str>) -> Validity {
        Validity { from: from.parse().unwrap(), until: until.map(|u| u.parse().unwrap()) }
    }

    #[test]
    fn validity_is_half_open() {
        let march = validity("2026-03-01T00:00:00Z", Some("2026-04-01T00:00:00Z"));
        assert!(march.holds_at("2026-03-01T00:00:00Z".parse().unwrap()));
        assert!(!march.holds_at("2026-04-01T00:00:00Z".parse().unwrap()));
        assert!(!march.overlaps(&validity("2026-04-01T00:00:00Z", None)));
        assert!(march.overlaps(&validity("2026-03-31T23:59:59Z", None)));
    }
}
