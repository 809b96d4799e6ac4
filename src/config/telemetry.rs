//! `[telemetry]`: where spans go, by the configuration, else by OpenTelemetry's own variables.

use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    source::{Faults, SourceFile},
    telemetry::Collector,
};

/// The path of traces below a collector's address (OTLP specification, OTLP/HTTP request).
const TRACES: &str = "/v1/traces";

/// `[telemetry]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The collector's address: `http://127.0.0.1:4318`. Unset: `OTEL_EXPORTER_OTLP_ENDPOINT`, or
    /// nothing is exported.
    #[serde(deserialize_with = "endpoint")]
    pub otlp_endpoint: Option<String>,
    /// Of the traces that begin here, how many are kept: 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sample_ratio: Option<f64>,
}

impl TelemetryConfig {
    /// The collector, if there is one. `env` reads variables; the configuration wins over them.
    ///
    /// # Errors
    /// A fault for each variable that says what cannot be.
    pub fn collector(
        &self,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Collector>, Faults> {
        // By OpenTelemetry's specification an empty variable is an unset one.
        let env = |name: &'static str| {
            let value = env(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty()).map(|value| (name, value))
        };
        if env("OTEL_SDK_DISABLED").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let mut faults = Faults::default();
        let mut fault = |name: &str, message: String, help: &str| {
            faults.0.push(SourceFile::new(name, "").fault(0..0, message).help(help));
        };
        if let Some((name, value)) = env("OTEL_TRACES_EXPORTER") {
            let exporters: Vec<_> = value.split(',').map(|it| it.trim().to_lowercase()).collect();
            if exporters.iter().any(|exporter| exporter != "otlp" && exporter != "none") {
                let message = "the value names an exporter that Lexgate does not have".to_owned();
                fault(name, message, "write `otlp`, or `none` for no spans");
                return faults.or(None);
            }
            // As `OTEL_SDK_DISABLED`: who says that nothing is to leave is not overruled by an address.
            if exporters.iter().all(|exporter| exporter == "none") {
                return Ok(None);
            }
        }
        let below = |base: &str| format!("{}{TRACES}", base.trim_end_matches('/'));
        let whole = env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let base = env("OTEL_EXPORTER_OTLP_ENDPOINT");
        let url = match (&self.otlp_endpoint, whole, base) {
            (Some(endpoint), ..) => below(endpoint),
            (None, None, None) => return Ok(None),
            (None, whole, base) => {
                let is_whole = whole.is_some();
                let (name, url) = whole.or(base).unwrap_or_default();
                if let Err(message) = check(&url) {
                    fault(name, message, ADDRESS);
                }
                // A variable that asks for another protocol gives the address of another service.
                let protocol = env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                    .or_else(|| env("OTEL_EXPORTER_OTLP_PROTOCOL"));
                if let Some((name, _)) = protocol.filter(|(_, it)| it != "http/protobuf") {
                    let message = "the value is not a protocol that is spoken here".to_owned();
                    fault(name, message, "write `http/protobuf`, and the address of that service");
                }
                if is_whole { url } else { below(&url) }
            }
        };
        let compression = env("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION")
            .or_else(|| env("OTEL_EXPORTER_OTLP_COMPRESSION"));
        if let Some((name, _)) = compression.filter(|(_, it)| it != "none") {
            let message = "spans cannot be compressed".to_owned();
            fault(name, message, "write `none`, or leave it out");
        }
        faults.or(Some(Collector { url, sample_ratio: self.sample_ratio }))
    }
}

/// What to do about an address that is none.
const ADDRESS: &str = "write `http://` or `https://`, a host and a port; a key belongs in `OTEL_EXPORTER_OTLP_HEADERS`";

fn check(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#".contains(&byte));
    if host.is_some_and(|host| !host.is_empty()) && is_plain {
        return Ok(());
    }
    // What is written there may be a password.
    Err("the value is not the address of a collector".to_owned())
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = String::deserialize(deserializer)?;
    check(&url).map_err(|message| D::Error::custom(format!("{message}: {ADDRESS}")))?;
    Ok(Some(url))
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&ratio) {
        return Ok(Some(ratio));
    }
    Err(D::Error::custom("the value is not a ratio: want a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(endpoint: Option<&str>, env: &[(&str, &str)]) -> Result<Option<String>, String> {
        let config = TelemetryConfig {
            otlp_endpoint: endpoint.map(str::to_owned),
            ..TelemetryConfig::default()
        };
        let env = |name: &str| {
            let found = env.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = config.collector(env);
        let found = found.map(|collector| collector.map(|collector| collector.url));
        found.map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_configuration_wins_over_opentelemetry_s_variables() {
        let found = |endpoint, env: &[(&str, &str)]| collector(endpoint, env).unwrap();
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://whole:4318/t");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert_eq!(found(None, &[]), None);
        assert_eq!(found(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        assert_eq!(found(None, &[base]).unwrap(), "http://base:4318/v1/traces");
        assert_eq!(found(None, &[base, whole]).unwrap(), "http://whole:4318/t");
        let file = Some("https://file/otlp");
        assert_eq!(found(file, &[base, whole, grpc]).unwrap(), "https://file/otlp/v1/traces");
        assert_eq!(found(file, &[("OTEL_SDK_DISABLED", "TRUE")]), None);
        for none in ["none", " None ", "none,none"] {
            assert_eq!(found(file, &[("OTEL_TRACES_EXPORTER", none)]), None, "{none}");
            assert_eq!(found(None, &[base, ("OTEL_TRACES_EXPORTER", none)]), None, "{none}");
        }
        for otlp in ["otlp", "OTLP", "none,otlp", ""] {
            let found = found(None, &[base, ("OTEL_TRACES_EXPORTER", otlp)]);
            assert_eq!(found.unwrap(), "http://base:4318/v1/traces", "{otlp}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_is_named_with_its_remedy() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318");
        for (env, name, part) in [
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "base:4318")],
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "write `http://`",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:secret@base")],
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "OTEL_EXPORTER_OTLP_HEADERS",
            ),
            (
                vec![base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/protobuf",
            ),
            (vec![base, ("OTEL_TRACES_EXPORTER", "jaeger")], "OTEL_TRACES_EXPORTER", "`otlp`"),
            (vec![("OTEL_TRACES_EXPORTER", "otlp,console")], "OTEL_TRACES_EXPORTER", "`none`"),
            (
                vec![base, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")],
                "OTEL_EXPORTER_OTLP_COMPRESSION",
                "`none`",
            ),
        ] {
            let said = collector(None, &env).unwrap_err();
            assert!(said.starts_with(name) && said.contains(part), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
