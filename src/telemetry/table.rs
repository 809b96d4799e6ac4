//! Every metric: its name, its kind, what it says, and which of its series are there before anything has
//! happened. Whoever watches a counter for its first step must have seen it stand at zero.
//!
//! The series that carry names of the active snapshot are opened by the gate (`gate/series.rs`), those with
//! operations of the API by `http`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Bytes,
    Seconds,
    Sizes,
}

/// The labels of one series.
type Labels = &'static [(&'static str, &'static str)];

/// One metric.
struct Metric {
    name: &'static str,
    kind: Kind,
    says: &'static str,
    /// The series that are there from the start.
    opened: &'static [Labels],
}

/// The only series of a metric without labels.
const ALONE: &[Labels] = &[&[]];
/// Those of a metric whose labels are known later, or whose first value is.
const LATER: &[Labels] = &[];

const fn metric(
    name: &'static str,
    kind: Kind,
    opened: &'static [Labels],
    says: &'static str,
) -> Metric {
    Metric { name, kind, says, opened }
}

const METRICS: [Metric; 34] = [
    metric(
        "lexgate_decisions_total",
        Kind::Counter,
        &[
            &[("decision", "allow"), ("tier", "on_device")],
            &[("decision", "allow"), ("tier", "hybrid_gpu")],
            &[("decision", "allow"), ("tier", "remote")],
            &[("decision", "deny"), ("tier", "none")],
        ],
        "Decisions recorded, by verdict and by the tier of the route",
    ),
    metric(
        "lexgate_app_decisions_total",
        Kind::Counter,
        LATER,
        "Decisions recorded, by app and verdict",
    ),
    metric(
        "lexgate_deciding_policies_total",
        Kind::Counter,
        LATER,
        "How often a policy decided, by app and verdict; a decision counts once for each of its policies",
    ),
    metric(
        "lexgate_outcomes_total",
        Kind::Counter,
        &[
            &[("status", "ok")],
            &[("status", "upstream_error")],
            &[("status", "timeout")],
            &[("status", "client_disconnected")],
            &[("status", "reported")],
            &[("status", "unknown")],
        ],
        "Outcomes written by this process, by status",
    ),
    metric(
        "lexgate_http_requests_total",
        Kind::Counter,
        LATER,
        "Requests answered, by operation of the API and HTTP status",
    ),
    metric("lexgate_ready", Kind::Gauge, LATER, "1 while the check of /readyz is well, else 0"),
    metric(
        "lexgate_append_failures_total",
        Kind::Counter,
        ALONE,
        "Commits of the ledger that failed",
    ),
    metric(
        "lexgate_unauthenticated_total",
        Kind::Counter,
        ALONE,
        "Requests without an API key, or with one that is not known",
    ),
    metric(
        "lexgate_refused_total",
        Kind::Counter,
        LATER,
        "Requests that known API keys are not permitted to make, by operation",
    ),
    metric(
        "lexgate_signing_halted",
        Kind::Gauge,
        ALONE,
        "1 once this process has seen the log set back or rewritten, and signs nothing any more",
    ),
    metric(
        "lexgate_publish_failures_total",
        Kind::Counter,
        ALONE,
        "Checkpoints that could not be appended to their file or were not cosigned",
    ),
    metric("lexgate_evaluate_seconds", Kind::Seconds, ALONE, "Judging one call"),
    metric("lexgate_append_seconds", Kind::Seconds, ALONE, "Committing one batch of records"),
    metric("lexgate_batch_size", Kind::Sizes, ALONE, "Records committed at once"),
    metric("lexgate_queue_depth", Kind::Gauge, ALONE, "Records that wait for the ledger"),
    metric(
        "lexgate_open_dispatches",
        Kind::Gauge,
        LATER,
        "Calls sent and without an outcome yet, on this store",
    ),
    metric(
        "lexgate_dispatch_seconds",
        Kind::Seconds,
        ALONE,
        "One attempt at a backend, up to its answer",
    ),
    metric("lexgate_request_seconds", Kind::Seconds, ALONE, "One HTTP request, up to its answer"),
    metric(
        "lexgate_attempts_total",
        Kind::Counter,
        LATER,
        "Attempts at a deployment that ended, by its HTTP status and by why they failed",
    ),
    metric(
        "lexgate_attempt_seconds",
        Kind::Seconds,
        LATER,
        "One attempt at a deployment, up to the first byte of its answer",
    ),
    metric(
        "lexgate_tokens_total",
        Kind::Counter,
        LATER,
        "Tokens that a deployment says it read (input) and wrote (output)",
    ),
    metric(
        "lexgate_deployment_fit",
        Kind::Gauge,
        LATER,
        "1 while calls may be sent to the deployment; 0 while its breaker is open, it is not well, asked to be left alone, or is out of service",
    ),
    metric(
        "lexgate_breakers_open",
        Kind::Gauge,
        LATER,
        "Apps that a deployment's breaker, or its Retry-After, keeps away",
    ),
    metric("lexgate_in_flight", Kind::Gauge, LATER, "Attempts at a deployment that have not ended"),
    metric(
        "lexgate_unclosable_dispatches_total",
        Kind::Counter,
        ALONE,
        "Rows of open dispatches that cannot be closed",
    ),
    metric(
        "lexgate_limited_total",
        Kind::Counter,
        &[
            &[("measure", "requests")],
            &[("measure", "tokens")],
            &[("measure", "money")],
            &[("measure", "concurrent")],
        ],
        "Calls that a limit did not let through",
    ),
    metric("lexgate_connections", Kind::Gauge, ALONE, "Connections of clients that are open"),
    metric(
        "lexgate_connections_cut_total",
        Kind::Counter,
        &[&[("why", "room")], &[("why", "unread")]],
        "Connections that were cut off: to make room for another, or because their client does not read",
    ),
    metric(
        "lexgate_connections_refused_total",
        Kind::Counter,
        ALONE,
        "Connections for which there was no room",
    ),
    metric(
        "lexgate_bodies_refused_total",
        Kind::Counter,
        ALONE,
        "Requests whose bodies found no room beside those under way",
    ),
    metric(
        "lexgate_store_free_bytes",
        Kind::Bytes,
        LATER,
        "What is free on the disk of an SQLite store",
    ),
    metric(
        "lexgate_late_outcomes_total",
        Kind::Counter,
        ALONE,
        "Records of what is known of a call whose outcome another process had written as unknown",
    ),
    metric(
        "lexgate_revision",
        Kind::Gauge,
        LATER,
        "The number of the snapshot that decides in this process",
    ),
    metric("lexgate_info", Kind::Gauge, LATER, "1, with the version of this process"),
];

/// Describes all metrics, and opens the series that are there from the start.
pub(super) fn begin() {
    for Metric { name, kind, says, opened } in &METRICS {
        let (name, says) = (*name, *says);
        match kind {
            Kind::Counter => describe_counter!(name, says),
            Kind::Gauge => describe_gauge!(name, says),
            Kind::Bytes => describe_gauge!(name, Unit::Bytes, says),
            Kind::Seconds => describe_histogram!(name, Unit::Seconds, says),
            Kind::Sizes => describe_histogram!(name, says),
        }
        for labels in *opened {
            match kind {
                Kind::Counter => metrics::counter!(name, *labels).increment(0),
                Kind::Gauge | Kind::Bytes => metrics::gauge!(name, *labels).set(0.0),
                Kind::Seconds | Kind::Sizes => drop(metrics::histogram!(name, *labels)),
            }
        }
    }
    metrics::gauge!("lexgate_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_measured() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for Metric { name, kind, says, .. } in &METRICS {
            assert!(name.starts_with("lexgate_") && !says.ends_with('.'), "{name}: {says}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), *kind == Kind::Seconds, "{name}");
            assert_eq!(name.ends_with("_bytes"), *kind == Kind::Bytes, "{name}");
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
