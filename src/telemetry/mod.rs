//! Logs and metrics. They hold no prompt, no secret and no personal value: only what handlers name.

use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// The environment variable that says how much is logged, such as `debug` or `lexgate=debug`.
const FILTER: &str = "LEXGATE_LOG";

/// The bounds of latency histograms, in seconds: from a decision in memory to a slow model.
const SECONDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
    5.0, 30.0, 120.0,
];
/// The bounds of batch sizes.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 128.0, 256.0, 1024.0];

/// Logs JSON lines to standard error.
pub fn log_json() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call changes nothing: the first one holds.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Logs warnings in plain lines to standard error, for commands that a person runs.
pub fn log_plain() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
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
    describe();
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn describe() {
    describe_counter!(
        "lexgate_decisions_total",
        "Decisions recorded, by verdict and by the tier of the route"
    );
    describe_counter!(
        "lexgate_outcomes_total",
        "Outcomes of calls that the gateway sent, by status"
    );
    describe_counter!("lexgate_append_failures_total", "Commits of the ledger that failed");
    describe_histogram!("lexgate_evaluate_seconds", Unit::Seconds, "Judging one call");
    describe_histogram!("lexgate_append_seconds", Unit::Seconds, "Committing one batch of records");
    describe_histogram!(
        "lexgate_dispatch_seconds",
        Unit::Seconds,
        "One attempt at a backend, up to its answer"
    );
    describe_histogram!(
        "lexgate_request_seconds",
        Unit::Seconds,
        "One HTTP request, up to its answer"
    );
    describe_histogram!("lexgate_batch_size", "Records committed at once");
    describe_gauge!(
        "lexgate_deployment_fit",
        "1 while calls may be sent to the deployment; 0 while its breaker is open, it is not well, asked to be left alone, or is out of service"
    );
    describe_gauge!("lexgate_queue_depth", "Records that wait for the ledger");
    describe_gauge!(
        "lexgate_open_dispatches",
        "Calls sent and without an outcome yet, on this store"
    );
}
