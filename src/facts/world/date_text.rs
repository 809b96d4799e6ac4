//! Days and instants as people write them: in quotes, or as TOML's own dates. Not what they bound.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// The forms of a day and of an instant, for those who have to write one.
pub const FORMS: &str = "a day, `2026-11-22`, or an instant, `2026-11-22T13:00:00Z` or `2026-11-22T15:00:00+02:00`; what has no offset is UTC";

/// A day or an instant as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateText(String);

impl DateText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instant; the one that an older version read, where the text was active before.
    pub(in crate::facts) fn instant(&self, is_recorded: bool) -> Option<Timestamp> {
        if is_recorded { read_recorded(&self.0) } else { None }.or_else(|| read_instant(&self.0))
    }

    /// The day; of an instant the one on which it falls in UTC, or which an older version read.
    pub(in crate::facts) fn day(&self, is_recorded: bool) -> Option<Date> {
        let day = if is_recorded { self.0.parse().ok() } else { only_day(&self.0) };
        if day.is_some() {
            return day;
        }
        let instant = read_instant(&self.0)?;
        Some(instant.to_zoned(TimeZone::UTC).date())
    }
}

impl From<&str> for DateText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for DateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = DateText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{FORMS}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<DateText, E> {
                Ok(text.into())
            }

            // How the parser of TOML gives an unquoted date.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DateText, A::Error> {
                let read = toml::value::Datetime::deserialize(MapAccessDeserializer::new(map));
                let date = read.map_err(|_| A::Error::custom(format!("expected {FORMS}")))?;
                Ok(DateText(date.to_string()))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// Reads a day, which begins at midnight UTC, or an instant. What no clock reaches is the furthest instant
/// that can be told.
#[must_use]
pub fn read_instant(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // A zone's name in brackets would be passed over, and the hour be another one.
    if text.contains('[') {
        return None;
    }
    if let Ok(instant) = text.parse() {
        return Some(instant);
    }
    let local = text.strip_suffix(['Z', 'z']).unwrap_or(text).parse::<DateTime>().ok()?;
    let furthest = if local.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
    Some(TimeZone::UTC.to_timestamp(local).unwrap_or(furthest))
}

/// Reads what is in the log as versions did that knew no forms without an offset: they took the day of such
/// a text, and passed over the name of a zone.
fn read_recorded(text: &str) -> Option<Timestamp> {
    let midnight = || Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    text.parse().ok().or_else(midnight)
}

/// A day without a time: the parser of days would pass over the time.
fn only_day(text: &str) -> Option<Date> {
    let text = text.trim();
    let has_time = text.contains(['T', 't', ' ', '[', ':']);
    (!has_time).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Row {
        at: toml::Spanned<DateText>,
    }

    fn read(value: &str) -> Result<Option<String>, String> {
        let row: Row = toml::from_str(&format!("at = {value}")).map_err(|e| e.to_string())?;
        assert_eq!(row.at.span(), 5..5 + value.len(), "{value}");
        Ok(read_instant(row.at.get_ref().as_str()).map(|instant| instant.to_string()))
    }

    #[test]
    fn what_was_active_before_means_what_it_meant() {
        for (text, was, is) in [
            ("2026-11-22", "2026-11-22T00:00:00Z", Some("2026-11-22T00:00:00Z")),
            ("2026-11-22T13:00:00", "2026-11-22T00:00:00Z", Some("2026-11-22T13:00:00Z")),
            ("2026-11-22T13:00:00+01:00[Europe/Berlin]", "2026-11-22T12:00:00Z", None),
            ("2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z", Some("2026-11-22T13:00:00Z")),
        ] {
            let date = DateText::from(text);
            let told = |is_recorded| date.instant(is_recorded).map(|instant| instant.to_string());
            assert_eq!(told(true).as_deref(), Some(was), "{text}");
            assert_eq!(told(false).as_deref(), is, "{text}");
        }
    }

    #[test]
    fn a_date_is_read_in_every_form_that_people_write() {
        for (value, want) in [
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("\"2026-11-22\"", "2026-11-22T00:00:00Z"),
            ("2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z"),
            ("2026-11-22 13:00:00Z", "2026-11-22T13:00:00Z"),
            ("2026-11-22T15:00:00+02:00", "2026-11-22T13:00:00Z"),
            ("\"2026-11-22T15:00:00+02:00\"", "2026-11-22T13:00:00Z"),
            // No offset: as a day begins, in UTC.
            ("2026-11-22T13:00:00", "2026-11-22T13:00:00Z"),
            ("2026-11-22 13:00:00", "2026-11-22T13:00:00Z"),
            ("\"2026-11-22T13:00:00\"", "2026-11-22T13:00:00Z"),
            ("\"2026-11-22 13:00\"", "2026-11-22T13:00:00Z"),
            ("2026-11-22T13:00:00.25", "2026-11-22T13:00:00.25Z"),
            ("9999-12-30", "9999-12-30T00:00:00Z"),
        ] {
            assert_eq!(read(value), Ok(Some(want.to_owned())), "{value}");
        }
        for far in ["9999-12-31", "\"9999-12-31\"", "9999-12-31T23:59:59Z"] {
            assert_eq!(read(far), Ok(Some(Timestamp::MAX.to_string())), "{far}");
        }
        for not in [
            "\"soon\"",
            "\"\"",
            "\"22.11.2026\"",
            "\"2026-11\"",
            "\"2026-11-31\"",
            "\"2026-11-22T13:00:00[Europe/Berlin]\"",
            "\"10000-01-01\"",
            "13:00:00",
        ] {
            assert_eq!(read(not), Ok(None), "{not}");
        }
        for other in ["7", "true", "{ day = 22 }", "[2026-11-22]"] {
            assert!(read(other).unwrap_err().contains("a day, `2026-11-22`"), "{other}");
        }
    }

    #[test]
    fn an_instant_falls_on_a_day() {
        for (text, want) in [
            ("2026-11-22", Some("2026-11-22")),
            ("9999-12-31", Some("9999-12-31")),
            ("2026-11-22T23:00:00-02:00", Some("2026-11-23")),
            ("2026-11-22T23:00:00", Some("2026-11-22")),
            ("soon", None),
        ] {
            let day = DateText::from(text).day(false).map(|day| day.to_string());
            assert_eq!(day.as_deref(), want, "{text}");
        }
    }
}
