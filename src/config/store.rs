//! `[store]`: where the ledger lies.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer};

use super::amount::{self, Bytes};
use crate::domain::Patience;

/// `[store]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite://path` or `postgres://user@host/db`.
    pub url: StoreUrl,
    /// Whether `serve` migrates the store by itself.
    pub migrate: bool,
    /// Whether the way to a store on another machine may be one that others can read or change.
    pub insecure_tls: bool,
    /// Whether a commit must have reached another machine.
    pub require_synchronous_standby: bool,
    /// How long a record may wait for the store before its call is refused.
    #[serde(deserialize_with = "patience")]
    pub patience: Duration,
    /// How much room is left to what closes calls: with less than this on the disk of a `SQLite` store,
    /// nothing else is written.
    pub min_free: Bytes,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl("sqlite://data/lexgate.db".to_owned()),
            migrate: true,
            insecure_tls: false,
            require_synchronous_standby: false,
            patience: Patience::default().append(),
            min_free: Bytes::from_mib(512),
        }
    }
}

fn patience<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    amount::duration_between(deserializer, Patience::SHORTEST, Patience::LONGEST, "100ms to 5s")
}

/// A store's address, which may hold a password and so is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The address, password and all.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("?", |(scheme, _)| scheme);
        write!(f, "{scheme}://…")
    }
}
