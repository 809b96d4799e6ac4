//! Amounts as people write them: `10s`, `512MiB`. Not what they limit.

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The longest duration that is no slip of the pen.
const DAY: Duration = Duration::from_secs(86_400);

/// A number of bytes, written with its unit: `512MiB`, `64KiB`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(u64);

impl Bytes {
    /// So many mebibytes.
    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => {
                write!(f, "{}GiB", bytes >> 30)
            }
            bytes if bytes >= 1 << 20 => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

/// What is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of bytes: write it as `512MiB`, `64KiB` or `2GiB`")]
pub struct InvalidBytes(String);

impl FromStr for Bytes {
    type Err = InvalidBytes;

    fn from_str(text: &str) -> Result<Self, InvalidBytes> {
        let invalid = || InvalidBytes(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let factor: u64 = match unit.trim() {
            "" if number == 0 => 1,
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(invalid()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A bare `0` in the environment is read as a number.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(u64),
        }
        let text = match Written::deserialize(deserializer) {
            Ok(Written::Text(text)) => text,
            Ok(Written::Number(number)) => number.to_string(),
            Err(_) => String::new(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

/// Reads a duration from 100 milliseconds to a day, such as `10s`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration_between(deserializer, Duration::from_millis(100), DAY, "100ms to a day")
}

/// Reads a duration from `least` to `most`, which `range` says in words.
pub(super) fn duration_between<'de, D: Deserializer<'de>>(
    deserializer: D,
    least: Duration,
    most: Duration,
    range: &str,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<SignedDuration>().ok();
    let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
    parsed.filter(|duration| (least..=most).contains(duration)).ok_or_else(|| {
        D::Error::custom(format!(
            "`{text}` is not a duration from {range}: write it as `10s` or `2m`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("7B", 7),
            ("64KiB", 64 << 10),
            ("512MiB", 512 << 20),
            (" 2 GiB ", 2 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "512", "512MB", "-1MiB", "1.5GiB", "MiB", "99999999999999TiB", "1 Mi B"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        let written = [0, 7, 64 << 10, 512 << 20, 2 << 30].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(written, ["0B", "7B", "64KiB", "512MiB", "2GiB"]);
    }
}
