//! How a deployment is reached, and how a call chooses among several. Not the reaching (`dispatch`).

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use serde::Deserialize;
use url::{Host, Origin, Url};

use crate::domain::{DeploymentId, TenantId};

/// How a deployment is reached: `[deployments.backend]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendAddress {
    /// The base of its OpenAI-compatible API, such as `http://127.0.0.1:8091/v1`.
    pub base_url: BaseUrl,
    /// What it calls the model.
    pub model: String,
    /// Other names under which its answers may speak of the same model.
    pub served_as: Vec<String>,
    /// Whose API it is, where the organisation says so.
    pub api: Option<Api>,
    /// Whether it is asked for usage in a stream whose caller did not ask.
    pub usage_in_streams: bool,
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
    /// The tenant whose own the key is: its calls alone may refer to what lies at the provider.
    pub tenant: Option<TenantId>,
    /// How many requests may wait in its queue before others are preferred.
    pub max_waiting: Option<u64>,
}

/// `http://` or `https://`, a host, perhaps a port and a path. No key, no query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(Url);

/// Where clouds tell a machine its credentials, beside the link-local addresses.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "metadata.goog"];

/// The text is no base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write `http://` or `https://`, a host and a path, without `?` and `#`; a key belongs in the environment variable that `api_key_env` names"
)]
pub struct InvalidBaseUrl;

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBaseUrl> {
        // A browser would read a host out of much that names none: `http:///v1`, `http:gpu/v1`.
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let rest = rest.filter(|rest| !rest.starts_with('/')).ok_or(InvalidBaseUrl)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || "\\?#".contains(c);
        let of_a_host = |c: char| c.is_alphanumeric() || "-._:[]".contains(c);
        let host = rest.split('/').next().unwrap_or_default();
        if rest.contains(odd) || !host.chars().all(of_a_host) {
            return Err(InvalidBaseUrl);
        }
        Url::parse(text.trim_end_matches('/')).map(Self).map_err(|_| InvalidBaseUrl)
    }
}

impl BaseUrl {
    /// As text, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The URL of what lies below it at `path`, which begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&[self.0.path().trim_end_matches('/'), path].concat());
        url
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.origin()
    }

    /// The host, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Whether it is an address at which clouds tell a machine its credentials, or another one that no
    /// router passes on: no model server is there.
    #[must_use]
    pub fn is_of_the_link(&self) -> bool {
        match self.0.host() {
            Some(Host::Ipv4(address)) => address.is_link_local() || address == ALIBABA_METADATA,
            Some(Host::Ipv6(address)) => {
                address.is_unicast_link_local()
                    || address == AWS_METADATA
                    || address.to_ipv4_mapped().is_some_and(|address| {
                        address.is_link_local() || address == ALIBABA_METADATA
                    })
            }
            Some(Host::Domain(name)) => {
                METADATA_NAMES.contains(&name.trim_end_matches('.').to_ascii_lowercase().as_str())
            }
            None => false,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.port_or_known_default()
    }
}

/// Whose API a backend has: where it looks for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `Authorization: Bearer`.
    #[serde(rename = "openai")]
    OpenAi,
    /// `x-api-key`, with `anthropic-version`.
    Anthropic,
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
    /// To begin a streamed answer: up to its first event.
    pub first_byte: Duration,
    /// To begin any other answer, which is written before its first byte is sent.
    pub answer: Duration,
    /// Between two pieces of its answer.
    pub between_chunks: Duration,
    /// For the whole of one attempt.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(120),
            answer: Duration::from_secs(600),
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
    /// Other names under which callers ask for it: whole, or their beginning with a `*` behind it.
    pub aliases: Vec<String>,
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

#[cfg(test)]
mod tests {
    use super::BaseUrl;

    #[test]
    fn a_base_url_is_taken_apart_and_put_together() {
        for (text, written, host, port, joined) in [
            ("http://127.0.0.1:8091/v1", "http://127.0.0.1:8091/v1", "127.0.0.1", 8091, "/v1/m"),
            ("https://api.example/v1/", "https://api.example/v1", "api.example", 443, "/v1/m"),
            ("http://gpu", "http://gpu", "gpu", 80, "/m"),
            ("http://gpu/@a/v1", "http://gpu/@a/v1", "gpu", 80, "/@a/v1/m"),
            ("http://[::1]/a/b//", "http://[::1]/a/b", "[::1]", 80, "/a/b/m"),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!(
                (url.as_str(), url.host(), url.port()),
                (written, host, Some(port)),
                "{text}"
            );
            assert_eq!(url.join("/m").path(), joined, "{text}");
        }
    }

    #[test]
    fn no_model_is_where_clouds_keep_credentials() {
        for text in [
            "http://169.254.169.254/latest/meta-data",
            "http://2852039166/latest",
            "http://0xa9fea9fe/latest",
            "http://100.100.100.200/v1",
            "http://[fe80::1]/v1",
            "http://[fd00:ec2::254]/v1",
            "http://[::ffff:169.254.169.254]/v1",
            "http://Metadata.Google.Internal./v1",
        ] {
            assert!(text.parse::<BaseUrl>().unwrap().is_of_the_link(), "{text}");
        }
        for text in
            ["http://127.0.0.1:8091/v1", "http://gpu/v1", "http://10.0.0.7/v1", "http://[::1]/v1"]
        {
            assert!(!text.parse::<BaseUrl>().unwrap().is_of_the_link(), "{text}");
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for text in [
            "",
            "/v1",
            "127.0.0.1:8091/v1",
            "ftp://gpu/v1",
            "http://",
            "http:///v1",
            "http:gpu/v1",
            "https:/gpu/v1",
            "http:\\\\gpu/v1",
            "http://gp\tu/v1",
            " http://gpu/v1",
            "http://${HOST}/v1",
            "http://[::1/v1",
            "http://gpu:99999/v1",
            "http://user@gpu/v1",
            "http://:pass@gpu/v1",
            "http://@gpu/v1",
            "https://gpu/v1?api-version=1",
            "https://gpu/v1#top",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }
}
