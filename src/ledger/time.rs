//! How the ledger writes an instant: `2026-11-22T13:00:00.000000Z`, always UTC, always six digits.
//! Use as `#[serde(with = …)]`. Not a clock.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// The instant as the ledger writes it; what is finer than a microsecond is cut off.
#[must_use]
pub fn timestamp_text(instant: Timestamp) -> String {
    format!("{:.6}", to_micros(instant))
}

/// Reads what [`timestamp_text`] writes, and nothing else.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let instant = text.parse().ok()?;
    (timestamp_text(instant) == text).then_some(instant)
}

/// The instant without what is finer than a microsecond.
#[must_use]
pub fn to_micros(instant: Timestamp) -> Timestamp {
    let micros = instant.as_nanosecond().div_euclid(1_000);
    i64::try_from(micros).ok().and_then(|n| Timestamp::from_microsecond(n).ok()).unwrap_or(instant)
}

/// Writes an instant.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(instant: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp_text(*instant))
}

/// Reads an instant.
///
/// # Errors
/// When it is not written exactly so.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = <Cow<'de, str>>::deserialize(deserializer)?;
    parse_timestamp(&text).ok_or_else(|| D::Error::custom("want `2026-11-22T13:00:00.000000Z`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_has_six_digits_and_no_other_form() {
        let instant: Timestamp = "2026-11-22T13:00:00.123456789Z".parse().unwrap();
        assert_eq!(timestamp_text(instant), "2026-11-22T13:00:00.123456Z");
        let whole: Timestamp = "2026-11-22T13:00:00Z".parse().unwrap();
        assert_eq!(timestamp_text(whole), "2026-11-22T13:00:00.000000Z");
        assert_eq!(parse_timestamp("2026-11-22T13:00:00.000000Z"), Some(whole));
        for bad in [
            "2026-11-22T13:00:00Z",
            "2026-11-22T13:00:00.000Z",
            "2026-11-22T13:00:00.0000000Z",
            "2026-11-22T13:00:00.000000+00:00",
            "2026-11-22t13:00:00.000000z",
            "2026-11-22 13:00:00.000000Z",
            "2026-11-22T13:00:60.000000Z",
            "2026-11-22T13:00:00.000000Z ",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_instant_before_1970_is_cut_downwards() {
        let instant: Timestamp = "1969-12-31T23:59:59.9999995Z".parse().unwrap();
        assert_eq!(timestamp_text(instant), "1969-12-31T23:59:59.999999Z");
    }
}
