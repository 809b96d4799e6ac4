//! The tables of `organisation.toml` as they are typed, each text with its place. Not what they mean.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::{
    domain::Tier,
    facts::{
        organisation::{
            ContentMode,
            backend::{Api, Strategy},
            claims::ClaimName,
        },
        world::date_text::DateText,
    },
};

/// A text with its place.
pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) tenants: Vec<TenantRow>,
    #[serde(default)]
    pub(super) apps: Vec<AppRow>,
    #[serde(default)]
    pub(super) operators: Vec<OperatorRow>,
    #[serde(default)]
    pub(super) models: Vec<ModelRow>,
    #[serde(default)]
    pub(super) deployments: Vec<DeploymentRow>,
    #[serde(default)]
    pub(super) virtual_models: Vec<VirtualModelRow>,
    #[serde(default)]
    pub(super) instruments: Vec<InstrumentRow>,
    #[serde(default)]
    pub(super) prices: Vec<PriceRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRow {
    pub(super) id: Text,
    pub(super) domicile: Text,
    pub(super) commercial: bool,
    pub(super) monthly_active_users: u64,
    pub(super) monthly_revenue_usd: u64,
    pub(super) annual_revenue_usd: u64,
    #[serde(default)]
    pub(super) side_licences: Vec<Text>,
    #[serde(default)]
    pub(super) limits: LimitsRow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppRow {
    pub(super) id: Text,
    pub(super) tenant: Text,
    pub(super) location: Text,
    #[serde(default)]
    pub(super) hosted_for_end_users: bool,
    #[serde(default)]
    pub(super) claims: ClaimsRow,
    pub(super) stream_label: Option<String>,
    pub(super) denial_status: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) limits: LimitsRow,
    #[serde(default)]
    pub(super) content: ContentMode,
}

/// `[apps.claims]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimsRow {
    #[serde(default)]
    pub(super) defaults: DefaultsRow,
    #[serde(default)]
    pub(super) required: Vec<ClaimName>,
}

/// `[apps.claims.defaults]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsRow {
    pub(super) personal: Option<bool>,
    pub(super) data: Option<Vec<Text>>,
    pub(super) subjects: Option<Vec<Text>>,
    pub(super) subject_count: Option<u64>,
    pub(super) purpose: Option<Text>,
    pub(super) audience: Option<Vec<Text>>,
    pub(super) location: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorRow {
    pub(super) id: Text,
    pub(super) seat: Text,
    #[serde(default)]
    pub(super) owners: Vec<Text>,
    #[serde(default)]
    pub(super) certifications: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelRow {
    pub(super) id: Text,
    pub(super) license: Text,
    pub(super) provider: String,
    #[serde(default)]
    pub(super) modalities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeploymentRow {
    pub(super) id: Text,
    pub(super) model: Text,
    pub(super) operator: Text,
    pub(super) tier: Tier,
    #[serde(default)]
    pub(super) approved: bool,
    pub(super) process: Spanned<Vec<Text>>,
    pub(super) store: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) access: Vec<Text>,
    #[serde(default)]
    pub(super) retention_hours: u64,
    #[serde(default)]
    pub(super) safeguards: Vec<Text>,
    #[serde(default)]
    pub(super) passes: Vec<PassRow>,
    pub(super) backend: Option<BackendRow>,
}

/// `[[deployments.passes]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassRow {
    pub(super) field: Text,
    pub(super) reaches: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendRow {
    pub(super) base_url: Text,
    pub(super) model: String,
    #[serde(default)]
    pub(super) served_as: Vec<Text>,
    pub(super) api: Option<Api>,
    pub(super) usage_in_streams: Option<bool>,
    pub(super) api_key_env: Option<Text>,
    pub(super) api_key: Option<Text>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connect_timeout: Option<Text>,
    pub(super) first_byte_timeout: Option<Text>,
    pub(super) answer_timeout: Option<Text>,
    pub(super) chunk_timeout: Option<Text>,
    pub(super) total_timeout: Option<Text>,
    pub(super) probe_interval: Option<Text>,
    pub(super) breaker_failures: Option<Spanned<u32>>,
    pub(super) breaker_cool_down: Option<Text>,
    pub(super) max_waiting: Option<u64>,
    pub(super) tenant: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtualModelRow {
    pub(super) id: Text,
    #[serde(default)]
    pub(super) aliases: Vec<Text>,
    pub(super) deployments: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) strategy: Strategy,
    #[serde(default)]
    pub(super) weights: BTreeMap<Text, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstrumentRow {
    pub(super) id: Text,
    pub(super) kind: Text,
    pub(super) exporter: Text,
    pub(super) recipient: Text,
    pub(super) valid_from: Spanned<DateText>,
    pub(super) valid_until: Option<Spanned<DateText>>,
    pub(super) reference: String,
}

/// `[apps.limits]` and `[tenants.limits]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsRow {
    pub(super) concurrent: Option<Spanned<u64>>,
    #[serde(default)]
    pub(super) requests: CountsRow,
    #[serde(default)]
    pub(super) tokens: CountsRow,
    pub(super) money: Option<MoneyRow>,
}

/// A number for each while.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountsRow {
    pub(super) minute: Option<Spanned<u64>>,
    pub(super) hour: Option<Spanned<u64>>,
    pub(super) day: Option<Spanned<u64>>,
    pub(super) month: Option<Spanned<u64>>,
}

/// An amount for each while.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MoneyRow {
    pub(super) currency: Text,
    pub(super) minute: Option<Text>,
    pub(super) hour: Option<Text>,
    pub(super) day: Option<Text>,
    pub(super) month: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceRow {
    pub(super) deployment: Text,
    pub(super) currency: Text,
    pub(super) input_per_million: Text,
    pub(super) output_per_million: Text,
    pub(super) valid_from: Spanned<DateText>,
    pub(super) valid_until: Option<Spanned<DateText>>,
    pub(super) reference: String,
}
