//! What the gate says of a call, and why.
//!
//! Fields of recorded types stand in alphabetical order: their JSON is then canonical (RFC 8785)
//! as it is written.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AppId, Confidence, DeploymentId, Digest, InstrumentId, JurisdictionCode, KeyName, ModelId,
    OperatorId, PolicyId, TenantId,
};

/// Whether something is allowed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may happen.
    Allow,
    /// It may not.
    Deny,
}

impl Verdict {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a policy does when it matches.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It allows, unless another forbids.
    Permit,
    /// It denies, whatever others say.
    Forbid,
}

/// Where a deployment runs, seen from the caller.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// On the caller's own machine.
    OnDevice,
    /// In a data centre that the organisation runs or rents.
    HybridGpu,
    /// At a provider.
    Remote,
}

impl Tier {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnDevice => "on_device",
            Self::HybridGpu => "hybrid_gpu",
            Self::Remote => "remote",
        }
    }
}

/// How data, or power over it, reaches a jurisdiction.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FlowAction {
    /// Inference runs there.
    Process,
    /// Something is stored there.
    Store,
    /// Staff or support there can read plaintext.
    Access,
    /// The operator has its seat there.
    Operate,
    /// An owner of the operator has its seat there.
    Own,
}

impl FlowAction {
    /// Every way, in the order in which they are judged.
    pub const ALL: [Self; 5] = [Self::Process, Self::Store, Self::Access, Self::Operate, Self::Own];

    /// The word of the contract, which is also the Cedar action's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Store => "store",
            Self::Access => "access",
            Self::Operate => "operate",
            Self::Own => "own",
        }
    }
}

/// Data that one jurisdiction's law protects, reaching another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// How.
    pub action: FlowAction,
    /// The jurisdiction whose law protects the data.
    pub from: JurisdictionCode,
    /// The jurisdiction that it reaches.
    pub to: JurisdictionCode,
}

/// The jurisdictions that a deployment's use touches, for one call.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    /// From where staff or support can read plaintext.
    pub access: Vec<JurisdictionCode>,
    /// The seat of the operator.
    pub operate: Vec<JurisdictionCode>,
    /// The seats of the operator's owners.
    pub own: Vec<JurisdictionCode>,
    /// Where inference runs.
    pub process: Vec<JurisdictionCode>,
    /// Where anything is stored.
    pub store: Vec<JurisdictionCode>,
}

impl Placement {
    /// The jurisdictions that `action` reaches.
    #[must_use]
    pub fn of(&self, action: FlowAction) -> &[JurisdictionCode] {
        match action {
            FlowAction::Process => &self.process,
            FlowAction::Store => &self.store,
            FlowAction::Access => &self.access,
            FlowAction::Operate => &self.operate,
            FlowAction::Own => &self.own,
        }
    }
}

/// One deployment that could serve the call, and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Whether the call may go there.
    pub decision: Verdict,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The duty policies that hold there, when the call may go there.
    pub duties: Vec<PolicyId>,
    /// The jurisdictions that it touches.
    pub placement: Placement,
    /// The policies that decided.
    pub policies: Vec<PolicyId>,
    /// Where it runs, seen from the caller.
    pub tier: Tier,
}

/// Why: one policy that decided, with everywhere that it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// What to do about it.
    pub advice: Option<String>,
    /// The law, licence or rule that the policy implements.
    pub citation: String,
    /// How sure the least sure fact is on which the policy rested: the coverage of its pack, the zones
    /// and findings that it looked at for these flows, the classes and thresholds that it asks for, the
    /// licence. A policy that rests on no fact is `primary`. Absent from records that were made before
    /// this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// What the policy does.
    pub effect: Effect,
    /// The facts among them that are general knowledge: nobody read a source for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["GB in jp-appi-28"]))]
    pub general_facts: Vec<String>,
    /// Each deployment and flow for which it decided.
    pub places: Vec<Place>,
    /// Its `@id`, `default-deny` where no permit matched, `evaluation-error` where a policy failed.
    pub policy: PolicyId,
}

/// A deployment, and the flow to it where a flow was judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The flow; `null` when the use itself was judged.
    pub flow: Option<Flow>,
}

/// Something that an allowed caller must do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Duty {
    /// The law or licence that demands it.
    pub citation: String,
    /// What to do.
    pub duty: String,
    /// The duty policy's `@id`.
    pub policy: PolicyId,
}

/// A legal instrument that was in force for a candidate when it was judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct InstrumentInForce {
    /// The instrument.
    pub id: InstrumentId,
    /// Its kind, such as `eu-scc`.
    pub kind: String,
}

/// A policy that failed while it was evaluated; the candidate is denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationFault {
    /// Where.
    pub at: Place,
    /// What the policy engine said.
    pub message: String,
    /// The policy.
    pub policy: PolicyId,
}

/// Where an allowed call goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Where inference runs.
    pub jurisdictions: Vec<JurisdictionCode>,
    /// The model.
    pub model: ModelId,
    /// Who runs it.
    pub operator: OperatorId,
    /// Where it runs, seen from the caller.
    pub tier: Tier,
}

/// How long a record is kept, by the law that wants it longest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The law, as `facts/retention.toml` names it.
    pub class: String,
    /// For how many months from the record on; `null` for ever.
    pub months: Option<u32>,
}

/// How often the active snapshot has changed. Each number stands for one snapshot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct Revision(pub u64);

/// What identifies a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotDigests {
    /// Policies, schema and dated facts, as they were written.
    #[schema(value_type = String)]
    pub bundle: Digest,
    /// The world facts valid at the time.
    #[schema(value_type = String)]
    pub facts: Digest,
    /// The organisation's own facts, as they were written.
    #[schema(value_type = String)]
    pub organisation: Digest,
    /// The instruments in force at the time.
    #[schema(value_type = String)]
    pub registers: Digest,
    /// The snapshot's number.
    pub revision: Revision,
}

/// What the policies say of one call: the whole answer but its place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Allow when any candidate is allowed.
    pub decision: Verdict,
    /// Where the call goes when it is allowed.
    pub route: Option<Route>,
    /// Every deployment considered, in the organisation's order.
    pub candidates: Vec<Candidate>,
    /// The policies that decided.
    pub reasons: Vec<Reason>,
    /// What the caller must do, when allowed.
    pub duties: Vec<Duty>,
    /// The instruments that were in force.
    pub instruments: Vec<InstrumentInForce>,
    /// Policies that failed.
    pub errors: Vec<EvaluationFault>,
    /// How long the record of it is kept.
    pub retention: Retention,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Caller {
    /// The application.
    pub app: AppId,
    /// How the caller was recognised.
    pub authenticated: String,
    /// The API key's name.
    pub key: KeyName,
    /// The application's tenant.
    pub tenant: TenantId,
}
