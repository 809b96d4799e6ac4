//! What a call, a decision and their parts are. Pure data and rules: no I/O, no clock, no policy
//! engine, no web framework.

mod call;
mod clock;
mod confidence;
mod decision;
mod digest;
mod end_user;
mod field_fault;
mod ids;
pub(crate) mod json;
mod jurisdiction;
mod money;
pub(crate) mod object;
pub mod passing;
mod patience;
mod quota;
mod volume;

pub use call::{Action, Call, CallRequest, Data, DataRequest};
pub use clock::{Clock, SystemClock};
pub use confidence::Confidence;
pub use decision::{
    Caller, Candidate, Duty, Effect, Evaluation, EvaluationFault, Flow, FlowAction,
    InstrumentInForce, Place, Placement, Reason, Retention, Revision, Route, SnapshotDigests, Tier,
    Verdict,
};
pub use digest::Digest;
pub use end_user::{EndUser, InvalidEndUser};
pub use field_fault::{FieldFault, FieldPlace};
pub use ids::{
    AppId, DecisionId, DeploymentId, InstrumentId, KeyName, LicenceId, ModelId, OperatorId,
    PolicyId, Seq, TenantId, VirtualModelId,
};
pub use jurisdiction::{InvalidJurisdiction, JurisdictionCode, meant as meant_jurisdiction};
pub use money::{Currency, InvalidMoney, Money, parse_amount};
pub use object::Object;
pub use patience::Patience;
pub use quota::{
    CounterKey, Held, Limit, LimitState, Limits, Measure, Period, Quota, Rate, Used, under_way,
};
pub use volume::{
    Asked, CountKey, Counts, Export, Exported, Reached, Threshold, Volume, Window, day_of,
};
