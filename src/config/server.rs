//! `[server]`: where the service listens, and what one caller may hold of it.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

use super::amount::{Bytes, duration};

/// `[server]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// How long a request may take from its first byte to the end of its headers.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// How long a body may stand still; what arrives faster than 64 KiB a second wins the time back.
    #[serde(deserialize_with = "duration")]
    pub body_timeout: Duration,
    /// How long a connection may be idle between two requests, and a client not read its answer.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How many connections may be open; unset: what the limit of open files allows, 10,000 at most.
    pub max_connections: Option<u32>,
    /// How many of them may come from one address (IPv6: one /64); unset: a quarter.
    pub max_connections_per_address: Option<u32>,
    /// How much room the bodies of requests may take at once, and the answers of backends as much
    /// again; one app at most half of each.
    pub body_budget: Bytes,
    /// The origins of web pages that may call from a browser, such as `https://app.example`; `*` alone for
    /// all of them. None unless some are named.
    #[serde(deserialize_with = "origins")]
    pub cors_origins: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_connections: None,
            max_connections_per_address: None,
            body_budget: Bytes::from_mib(256),
            cors_origins: Vec::new(),
        }
    }
}

/// Reads origins as browsers send them: scheme, host and port, and nothing else.
fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins = Vec::<String>::deserialize(deserializer)?;
    if origins == ["*"] {
        return Ok(origins);
    }
    let is_origin = |text: &str| {
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        !text.contains('*') && url.is_some_and(|url| url.origin().ascii_serialization() == text)
    };
    match origins.iter().find(|text| !is_origin(text)) {
        None => Ok(origins),
        Some(text) => Err(D::Error::custom(format!(
            "`{}` is not the origin of web pages: write scheme, host and port alone, as in `https://app.example`, or `*` alone for all",
            text.chars().take(100).collect::<String>()
        ))),
    }
}

/// `[ledger] readings_per_minute`: more than a person reads, and than a program should.
pub(super) const fn readings_per_minute() -> u32 {
    600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let read = |text: &str| toml::from_str::<ServerConfig>(&format!("cors_origins = {text}"));
        for good in [r#"["https://app.example", "http://localhost:5173"]"#, r#"["*"]"#, "[]"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            r#"["https://app.example/"]"#,
            r#"["app.example"]"#,
            r#"["https://app.example:443"]"#,
            r#"["*", "https://app.example"]"#,
            r#"["https://*.example"]"#,
            r#"["null"]"#,
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("is not the origin of web pages"), "{bad}: {error}");
        }
    }
}
