//! The policies: Cedar loaded, validated, sliced and evaluated. Not what is known of the world or
//! of the organisation (`facts`), nor which questions a call raises (`gate`).

mod bundle;
mod cedar_case;
mod compared;
mod context;
#[cfg(test)]
mod context_tests;
mod deep;
mod engine;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod failing_tests;
mod format;
mod json;
mod limits;
#[cfg(test)]
mod limits_tests;
mod mentions;
mod names;
mod probe;
mod reads;
mod rule;
mod scope;
mod slice;
mod volume;

pub use bundle::{Bundle, BundleError, SCHEMA_FILE, policy_ids};
pub use cedar_case::CedarCase;
pub use compared::{Comparand, Compared};
pub use context::{FlowContext, UseContext, flow_context, use_context};
pub use deep::on_deep_stack;
pub use engine::{Engine, RuleSet};
pub use format::format;
pub use limits::{DEEPEST, MOST_TERMS};
pub use mentions::Mentions;
pub use names::{EntityKind, action_uid, flow_uid, uid};
pub use probe::{Probe, is_probe, permit_all, probes};
pub use rule::Rule;
pub use slice::{Judgement, Part, Slice};
pub use volume::{Bounds, VolumeField};

/// The policy named in the reasons of a request that no permit matched.
pub const DEFAULT_DENY: &str = "default-deny";
/// The policy named in the reasons of a request during which a policy failed.
pub const EVALUATION_ERROR: &str = "evaluation-error";
/// The policy named in the reasons of a call that says too little about its data, where no policy
/// of the bundle denies it already.
pub const UNDECLARED_DATA: &str = "undeclared-data";
/// The policy engine's name, as it stands in records.
pub const ENGINE_NAME: &str = "cedar-policy";

/// The policy engine's version, as it stands in records.
#[must_use]
pub fn engine_version() -> String {
    cedar_policy::get_sdk_version().to_string()
}
