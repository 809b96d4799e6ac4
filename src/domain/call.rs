//! A proposed call: as it is asked, and as it stands once every name in it is known.
//!
//! Fields of recorded types stand in alphabetical order: their JSON is then canonical (RFC 8785)
//! as it is written.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeploymentId, EndUser, JurisdictionCode};

/// What the model is to do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Answer a prompt.
    Infer,
    /// Turn text into vectors.
    Embed,
    /// Train the model further.
    FineTune,
    /// Train another model on this one's answers.
    Distil,
}

/// A proposed call, as the caller describes it. Tenant and app come from the credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// What the model is to do.
    pub action: Action,
    /// A model, or a virtual model of the organisation. This or `deployment` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// One deployment, where the caller insists on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// What the data is. A call that says nothing about its data is denied.
    #[serde(
        default,
        deserialize_with = "super::object::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub data: Option<DataRequest>,
    /// The parts of the request that need a pass, such as `tools.web_search`: only deployments whose
    /// `[[deployments.passes]]` name them all are considered, and what those reach is judged. The gateway
    /// finds them by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64, example = json!(["tools.web_search"]))]
    pub passes: Vec<String>,
    /// What the call sends beside text, or asks for, where not every deployment of its model takes it:
    /// `image`, `audio`, `text` of a model that writes vectors. Only deployments whose model names it among
    /// its `modalities`, or names none, are considered. The gateway finds them by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["image"]))]
    pub modalities: Vec<String>,
    /// A purpose of the W3C DPV vocabulary, such as `dpv:ServiceProvision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Jurisdictions in which the answer is used. Defaults to `data.subjects`, else to the
    /// tenant's domicile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<JurisdictionCode>>, max_items = 64)]
    pub audience: Option<Vec<String>>,
    /// Where the call is made. Defaults to the app's location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<JurisdictionCode>)]
    pub location: Option<String>,
    /// The person on whose behalf the call is made. Never written to the ledger. White space around the
    /// name is left out, and the rest composed (Unicode NFC); an empty name, and one with control
    /// characters, is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256)]
    pub end_user: Option<EndUser>,
}

/// What the caller says about the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataRequest {
    /// Whether the data relates to identifiable people. Pseudonymised data does.
    pub personal: bool,
    /// Categories: W3C DPV terms (`dpv-pd:Health`) or `x:` terms of a regime pack.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub categories: Vec<String>,
    /// The jurisdictions of the people the data is about.
    #[serde(default)]
    #[schema(value_type = Vec<JurisdictionCode>, max_items = 64)]
    pub subjects: Vec<String>,
    /// How many people the data is about. Defaults to 1 for personal data, else to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub subject_count: Option<u64>,
    /// The jurisdiction in which the data is held, where its law protects it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<JurisdictionCode>)]
    pub location: Option<String>,
}

impl DataRequest {
    /// How many people it is about.
    #[must_use]
    pub fn people(&self) -> u64 {
        self.subject_count.unwrap_or(u64::from(self.personal))
    }
}

/// A call whose every name is known to the snapshot that judges it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What the model is to do.
    pub action: Action,
    /// The name that was asked for, where it is an alias of `model`. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_model: Option<String>,
    /// Jurisdictions in which the answer is used.
    pub audience: Vec<JurisdictionCode>,
    /// What the data is; `null` when the caller declared nothing.
    pub data: Option<Data>,
    /// The deployment that the caller insisted on.
    pub deployment: Option<DeploymentId>,
    /// Where the call is made.
    pub location: JurisdictionCode,
    /// What must be among the modalities of a model, sorted, each once. Absent when nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modalities: Vec<String>,
    /// The model that was asked for: a model or a virtual model.
    pub model: Option<String>,
    /// The parts of the request that need a pass, sorted, each once. Absent when none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<String>,
    /// The declared purpose.
    pub purpose: Option<String>,
}

impl From<&Call> for CallRequest {
    /// The question that resolves to `call`.
    fn from(call: &Call) -> Self {
        let texts =
            |codes: &[JurisdictionCode]| codes.iter().map(ToString::to_string).collect::<Vec<_>>();
        Self {
            action: call.action,
            model: call.asked_model.clone().or_else(|| call.model.clone()),
            deployment: call.deployment.as_ref().map(ToString::to_string),
            data: call.data.as_ref().map(|data| DataRequest {
                personal: data.personal,
                categories: data.categories.clone(),
                subjects: texts(&data.subjects),
                subject_count: Some(data.subject_count),
                location: data.location.as_ref().map(ToString::to_string),
            }),
            purpose: call.purpose.clone(),
            audience: Some(texts(&call.audience)),
            location: Some(call.location.to_string()),
            passes: call.passes.clone(),
            modalities: call.modalities.clone(),
            end_user: None,
        }
    }
}

/// What the data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Categories, sorted, each once.
    pub categories: Vec<String>,
    /// The jurisdiction in which the data is held.
    pub location: Option<JurisdictionCode>,
    /// Whether it relates to identifiable people.
    pub personal: bool,
    /// How many people it is about.
    pub subject_count: u64,
    /// The jurisdictions of the people it is about, sorted, each once.
    pub subjects: Vec<JurisdictionCode>,
}

impl Data {
    /// Whether enough was said for a law to be found: data about people, or in a category, needs
    /// a jurisdiction whose law protects it.
    #[must_use]
    pub fn is_classified(&self) -> bool {
        let nothing_to_protect = !self.personal && self.categories.is_empty();
        nothing_to_protect || self.origins().next().is_some()
    }

    /// The jurisdictions whose laws protect the data, each once.
    pub fn origins(&self) -> impl Iterator<Item = &JurisdictionCode> {
        let held = self.location.as_ref().filter(|place| !self.subjects.contains(place));
        self.subjects.iter().chain(held)
    }
}
