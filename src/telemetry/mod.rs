//! Logs, metrics and traces. They hold no prompt, no secret and no personal value: only what handlers name.

mod otlp;
mod table;
mod trace;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{Directive, LevelFilter, Targets},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub use otlp::{Collector, ExportError, Exporting};
pub(crate) use trace::{TARGET, fail};
pub use trace::{Trace, TraceContext};

/// The environment variable that says how much is logged, such as `debug` or `lexgate=debug`.
pub const FILTER: &str = "LEXGATE_LOG";

/// The bounds of latency histograms, in seconds: from a decision in memory to a slow model.
const SECONDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
    5.0, 30.0, 120.0,
];
/// The bounds of batch sizes.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 128.0, 256.0, 1024.0];

/// Logs JSON lines to standard error.
pub fn log_json() {
    // A second call changes nothing: the first one holds.
    let _ = tracing_subscriber::registry().with(json_lines()).try_init();
}

/// Logs JSON lines, and exports spans to `collector`. What it gives back is to be finished at the end.
///
/// # Errors
/// When nothing can be exported.
pub fn log_json_and_export(collector: &Collector) -> Result<Exporting, ExportError> {
    let exporting = Exporting::start(collector)?;
    let spans = tracing_opentelemetry::layer()
        .with_tracer(exporting.tracer())
        .with_context_activation(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO));
    let _ = tracing_subscriber::registry().with(json_lines()).with(spans).try_init();
    Ok(exporting)
}

fn json_lines<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_filter(filter("info"))
}

/// Whether the environment says what is logged in words that are understood: a misspelt level would be read
/// as the name of a part of the program, and nothing be logged at all.
///
/// # Errors
/// A sentence that names the word.
pub fn check_filter(value: Option<&str>) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    let Some(value) = value.filter(|value| !value.trim().is_empty()) else { return Ok(()) };
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_ours = |word: &str| word == "lexgate" || word.starts_with("lexgate::");
    let understood = |word: &str| word.contains(['=', '[']) || is_level(word) || is_ours(word);
    let is_near = |word: &str, level: &&str| {
        strsim::damerau_levenshtein(&word.to_lowercase(), level) <= word.len().div_ceil(3)
    };
    let remedy = |word: &str| match LEVELS.into_iter().find(|level| is_near(word, level)) {
        Some(level) => format!("did you mean `{level}`?"),
        None => "write `info`, `debug` or `lexgate=debug`".to_owned(),
    };
    let words = || value.split(',').map(str::trim);
    if let Some(word) = words().find(|word| !understood(word)) {
        return Err(format!("`{FILTER}` says `{word}`, which is not a level: {}", remedy(word)));
    }
    // With spans and fields in brackets the parser finds what is wrong.
    let pairs = words().filter(|word| !word.contains('[')).filter_map(|word| word.rsplit_once('='));
    for (target, level) in pairs {
        if !is_level(level) && !matches!(level, "0" | "1" | "2" | "3" | "4" | "5") {
            return Err(format!(
                "`{FILTER}` says `{level}`, which is not a level: {}",
                remedy(level)
            ));
        }
        let part = target.split("::").next().unwrap_or_default();
        // A part that there is none of is never logged, and what is not named is not either.
        if (1..=2).contains(&strsim::damerau_levenshtein(part, "lexgate")) {
            return Err(format!(
                "`{FILTER}` names the part `{part}`: did you mean `lexgate={level}`?"
            ));
        }
    }
    let parsed = EnvFilter::builder().parse(value);
    parsed.map(drop).map_err(|error| format!("`{FILTER}` cannot be read: {error}"))
}

/// What is logged: as the environment says, else from `level` on. Never a span that is exported, so that
/// one costs nothing where nobody exports it.
fn filter(level: &str) -> EnvFilter {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(level));
    match format!("{TARGET}=off").parse::<Directive>() {
        Ok(off) => filter.add_directive(off),
        Err(_) => filter,
    }
}

/// Logs warnings in plain lines to standard error, for commands that a person runs.
pub fn log_plain() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter("warn"))
        .with_target(false)
        .with_writer(std::io::stderr)
        .try_init();
}

/// The process's metrics, installed at the first call.
///
/// # Errors
/// When another recorder is installed already.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)?
        .install_recorder()?;
    table::begin();
    Ok(HANDLE.get_or_init(|| handle).clone())
}

#[cfg(test)]
mod tests {
    use super::check_filter;

    #[test]
    fn a_misspelt_level_is_a_fault() {
        for good in [
            "",
            "info",
            "DEBUG",
            "lexgate=debug",
            "warn,sqlx=off",
            "lexgate::gate",
            "off",
            "sqlx=5",
        ] {
            assert_eq!(check_filter(Some(good)), Ok(()), "{good}");
        }
        assert_eq!(check_filter(None), Ok(()));
        for (bad, says) in [
            ("inof", "`inof`, which is not a level: did you mean `info`?"),
            ("info,debgu", "did you mean `debug`?"),
            ("warning", "did you mean `warn`?"),
            ("lexgate=inof", "`inof`, which is not a level: did you mean `info`?"),
            ("lexgate=loud", "write `info`, `debug` or `lexgate=debug`"),
            ("lexgat=debug", "did you mean `lexgate=debug`?"),
            ("lexgate::gate=", "which is not a level"),
        ] {
            let said = check_filter(Some(bad)).unwrap_err();
            assert!(said.contains("LEXGATE_LOG") && said.contains(says), "{bad}: {said}");
        }
    }
}
