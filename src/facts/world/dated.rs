//! When a fact holds, and where it comes from.

use std::{collections::BTreeMap, ops::Range};

use jiff::{Timestamp, civil::Date};
use serde::Deserialize;
use toml::Spanned;

use super::date_text::{DateText, FORMS};
use crate::{
    domain::Confidence,
    source::{Fault, Faults, SourceFile},
};

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
    /// The last day on which it can be relied on without another look, where somebody said so.
    pub review_by: Option<Date>,
    /// The file that states it.
    pub(in crate::facts) file: SourceFile,
    /// The bytes of that file which do.
    pub(in crate::facts) span: Range<usize>,
}

/// By when to look again: one day, or one for each confidence.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "want a day (`\"2027-11-22\"`), or one for each confidence (`{ primary = \"2027-11-22\", general = \"2027-05-22\" }`)"
)]
pub(in crate::facts) enum ReviewBy {
    Day(DateText),
    ByConfidence(BTreeMap<Confidence, DateText>),
}

impl ReviewBy {
    fn of(&self, confidence: Confidence) -> Option<&DateText> {
        match self {
            Self::Day(day) => Some(day),
            Self::ByConfidence(days) => days.get(&confidence),
        }
    }
}

/// A file's `[defaults]`, or one fact's own words, about validity and source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::facts) struct Provenance {
    valid_from: Option<Spanned<DateText>>,
    valid_until: Option<Spanned<DateText>>,
    source: Option<String>,
    checked: Option<Spanned<DateText>>,
    confidence: Option<Confidence>,
    review_by: Option<Spanned<ReviewBy>>,
}

impl Provenance {
    /// The six keys as a fact states them.
    pub(in crate::facts) fn new(
        valid_from: Option<Spanned<DateText>>,
        valid_until: Option<Spanned<DateText>>,
        source: Option<String>,
        checked: Option<Spanned<DateText>>,
        confidence: Option<Confidence>,
        review_by: Option<Spanned<ReviewBy>>,
    ) -> Self {
        Self { valid_from, valid_until, source, checked, confidence, review_by }
    }

    /// `fact` with this provenance, and the file's defaults where it says nothing.
    pub(in crate::facts) fn date<T>(
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
            let until = end(until, file)?;
            if until.is_some_and(|until| until <= from) {
                return Err(file
                    .fault(span.clone(), "the fact ends before it begins")
                    .help("`valid_until` is the first moment at which it no longer holds"));
            }
            let confidence = self.confidence.or(defaults.confidence);
            let confidence = confidence.ok_or_else(|| missing("confidence"))?;
            let checked = date(checked.ok_or_else(|| missing("checked"))?, file)?;
            let review = self.review_by.as_ref().or(defaults.review_by.as_ref());
            let review_by = review.map(|by| review_day(by, confidence, checked, file));
            Ok(Dated {
                fact,
                valid: Validity { from, until },
                source: self
                    .source
                    .or_else(|| defaults.source.clone())
                    .filter(|source| !source.trim().is_empty())
                    .ok_or_else(|| missing("source"))?,
                checked,
                confidence,
                review_by: review_by.transpose()?.flatten(),
                file: file.clone(),
                span: span.clone(),
            })
        };
        read().map_err(|fault| faults.0.push(fault)).ok()
    }
}

fn date(text: &Spanned<DateText>, file: &SourceFile) -> Result<Date, Fault> {
    day(text.get_ref(), text.span(), file)
}

fn day(text: &DateText, span: Range<usize>, file: &SourceFile) -> Result<Date, Fault> {
    text.day(file.is_recorded).ok_or_else(|| {
        file.fault(span, format!("`{text}` is not a date")).help("write it as `2026-11-22`")
    })
}

fn review_day(
    by: &Spanned<ReviewBy>,
    confidence: Confidence,
    checked: Date,
    file: &SourceFile,
) -> Result<Option<Date>, Fault> {
    let Some(text) = by.get_ref().of(confidence) else { return Ok(None) };
    let review_by = day(text, by.span(), file)?;
    if review_by <= checked {
        let message = format!("`review_by` {review_by} is not after `checked`");
        let fault = file.fault(by.span(), message);
        return Err(
            fault.help("`checked` is when somebody last looked, `review_by` by when to look again")
        );
    }
    Ok(Some(review_by))
}

/// Reads a day, which begins at midnight UTC, or an instant.
///
/// # Errors
/// A fault at the text's place.
pub fn instant(text: &Spanned<DateText>, file: &SourceFile) -> Result<Timestamp, Fault> {
    text.get_ref().instant(file.is_recorded).ok_or_else(|| {
        file.fault(text.span(), format!("`{}` is neither a date nor an instant", text.get_ref()))
            .help(format!("write {FORMS}"))
    })
}

/// Reads the end of a validity. The last days that can be written, such as `9999-12-31`, mean that there
/// is none.
pub(in crate::facts) fn end(
    text: Option<&Spanned<DateText>>,
    file: &SourceFile,
) -> Result<Option<Timestamp>, Fault> {
    let until = text.map(|text| instant(text, file)).transpose()?;
    Ok(until.filter(|until| *until < Timestamp::MAX))
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
