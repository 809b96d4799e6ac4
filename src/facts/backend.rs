//! How a deployment is reached, and how a call chooses among several. Not the reaching (`dispatch`).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::domain::DeploymentId;

/// How a deployment is reached: `[deployments.backend]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendAddress {
    /// The base of its OpenAI-compatible API, such as `http://127.0.0.1:8091/v1`.
    pub base_url: String,
    /// What it calls the model.
    pub model: String,
    /// Other names under which its answers may speak of the same model.
    pub served_as: Vec<String>,
    /// Where its key comes from.
    pub key: Option<KeySource>,
    /// The certificate authority of its TLS certificate, instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// When it is left alone for a while.
    pub breaker: BreakerSettings,
    /// How often it is asked how it is, where the organisation says so.
    pub probe_interval: Option<Duration>,
    /// How many requests may wait in its queue before others are preferred.
    pub max_waiting: Option<u64>,
}

/// Where a backend's key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// The environment variable of this name.
    Environment(String),
    /// `[secrets.NAME]` of the configuration: what this machine's operator allows to be read or run.
    Secret(String),
}

/// How long a backend may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// To begin its answer: up to the first event of a streamed one, up to the headers of any other.
    pub first_byte: Duration,
    /// Between two pieces of its answer.
    pub between_chunks: Duration,
    /// For the whole of one attempt.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // An answer in one piece is written before its first byte is sent.
            first_byte: Duration::from_secs(120),
            between_chunks: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

/// When a backend that fails is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BreakerSettings {
    /// How many failures in a row open the breaker.
    pub failures: u32,
    /// How long it stays open before one call tries again; twice as long after each trial that fails,
    /// up to sixteen times.
    pub cool_down: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, cool_down: Duration::from_secs(5) }
    }
}

/// The organisation's name for several deployments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualModel {
    /// The deployments, in order of preference.
    pub deployments: Vec<DeploymentId>,
    /// How one is chosen among those that the law allows.
    pub strategy: Strategy,
    /// Out of a hundred or any other sum: how often each is tried first. Empty: by the strategy alone.
    pub weights: BTreeMap<DeploymentId, u32>,
}

/// How a deployment is chosen among those that the law allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// In the organisation's order.
    #[default]
    Preference,
    /// The one with the fewest calls under way and waiting.
    LeastLoaded,
    /// The one whose tokens cost least; one without a price comes last.
    Cheapest,
    /// The one that began its latest answers soonest.
    Fastest,
}
