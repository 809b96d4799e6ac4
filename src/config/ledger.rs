//! How values of `[ledger]` are read, and what holds without them.

use std::{path::PathBuf, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::ledger::{Origin, SignatureType, VerifierKey};

/// Two clocks that NTP keeps are milliseconds apart; a commit may wait for more than a second.
pub(super) fn max_clock_skew() -> SignedDuration {
    SignedDuration::from_secs(5)
}

pub(super) fn mark_file() -> PathBuf {
    PathBuf::from("data/ledger.mark")
}

pub(super) fn checkpoints_file() -> PathBuf {
    PathBuf::from("data/ledger.checkpoints")
}

pub(super) fn origin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Origin, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

pub(super) fn witness_key<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<VerifierKey, D::Error> {
    let text = String::deserialize(deserializer)?;
    let key: VerifierKey = text.parse().map_err(D::Error::custom)?;
    if key.kind() == SignatureType::Cosignature {
        return Ok(key);
    }
    Err(D::Error::custom(format!("`{text}` is a log's key, not a witness's")))
}

pub(super) fn skew<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    duration(deserializer, 2, 3_600)
}

pub(super) fn witness_within<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let within = duration(deserializer, 2, 86_400)?;
    Duration::try_from(within).map(Some).map_err(D::Error::custom)
}

/// A duration such as `5s`, within bounds in seconds.
fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    least: i64,
    most: i64,
) -> Result<SignedDuration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<SignedDuration>().ok();
    let fits = |duration: &SignedDuration| {
        *duration >= SignedDuration::from_secs(least)
            && *duration <= SignedDuration::from_secs(most)
    };
    parsed.filter(fits).ok_or_else(|| {
        D::Error::custom(format!(
            "`{text}` is not a duration from {least} to {most} seconds, such as `5s`"
        ))
    })
}
