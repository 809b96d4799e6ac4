//! The organisation's own facts: who calls, what may be called, who runs it, what is signed.

pub(in crate::facts) mod backend;
pub(in crate::facts) mod claims;
mod file;
mod model_names;
pub(in crate::facts) mod passes;
pub(in crate::facts) mod price;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::{
    backend::{BackendAddress, VirtualModel},
    claims::AppClaims,
    price::Price,
};
use super::world::dated::Validity;
use crate::domain::{
    AppId, DeploymentId, Held, InstrumentId, JurisdictionCode, LicenceId, Limits, ModelId,
    OperatorId, Placement, TenantId, Tier, VirtualModelId,
};

/// Everything in `organisation.toml`, with every reference known to lead somewhere.
#[derive(Clone, Debug, Default)]
pub struct Organisation {
    /// Legal entities that call models.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Their applications.
    pub apps: BTreeMap<AppId, App>,
    /// Whoever runs deployments.
    pub operators: BTreeMap<OperatorId, Operator>,
    /// Models, wherever they run.
    pub models: BTreeMap<ModelId, Model>,
    /// The names of the licences that are known.
    pub licence_names: Vec<(LicenceId, String)>,
    /// Deployments, in the file's order.
    pub deployments: Vec<Deployment>,
    /// The organisation's names for several deployments.
    pub virtual_models: BTreeMap<VirtualModelId, VirtualModel>,
    /// Legal instruments, in the file's order.
    pub instruments: Vec<Instrument>,
    /// What deployments cost.
    pub prices: Vec<Price>,
}

/// A legal entity that calls models.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Where it is established.
    pub domicile: JurisdictionCode,
    /// Whether it trades.
    pub commercial: bool,
    /// Users of its products in a month.
    pub monthly_active_users: u64,
    /// Revenue in a month, in US dollars.
    pub monthly_revenue_usd: u64,
    /// Revenue in a year, in US dollars.
    pub annual_revenue_usd: u64,
    /// Licences for which it has agreed separate terms.
    pub side_licences: Vec<LicenceId>,
    /// What it may use, with all its apps.
    pub limits: Limits,
}

/// An application.
#[derive(Clone, Debug)]
pub struct App {
    /// Whose it is.
    pub tenant: TenantId,
    /// Where its calls are made, unless a call says otherwise.
    pub location: JurisdictionCode,
    /// Whether it serves end users as a hosted product.
    pub hosted_for_end_users: bool,
    /// What the organisation says of all its calls.
    pub claims: AppClaims,
    /// What a streamed answer begins with where a duty asks for a label.
    pub stream_label: Option<String>,
    /// The HTTP status with which the gateway denies its calls.
    pub denial_status: u16,
    /// What it may use.
    pub limits: Limits,
    /// What is kept of what its calls say.
    pub content: ContentMode,
}

/// What is kept of what the calls of an app say, and of what they are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentMode {
    /// Nothing, and nothing is committed to.
    None,
    /// Outcomes commit to it; what is kept are the salts of the commitments.
    #[default]
    Commitment,
    /// The same, and the content is kept, sealed.
    Sealed,
}

/// Whoever runs a deployment.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Where it is established.
    pub seat: JurisdictionCode,
    /// Where those that own it are established.
    pub owners: Vec<JurisdictionCode>,
    /// What it is certified for.
    pub certifications: Vec<String>,
}

/// A model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its licence.
    pub license: LicenceId,
    /// Who made it.
    pub provider: String,
    /// What it reads and writes.
    pub modalities: Vec<String>,
}

/// A place of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// Where the call is made, written `@location`.
    Caller,
    /// Always there.
    Fixed(JurisdictionCode),
}

/// One model at one place.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its name.
    pub id: DeploymentId,
    /// The model that it serves.
    pub model: ModelId,
    /// Who runs it.
    pub operator: OperatorId,
    /// Where it runs, seen from the caller.
    pub tier: Tier,
    /// Whether the organisation lets it be used.
    pub approved: bool,
    /// Where inference runs.
    pub process: Vec<Site>,
    /// Where anything is stored.
    pub store: Vec<Site>,
    /// From where staff or support can read plaintext.
    pub access: Vec<Site>,
    /// How long it keeps what it was sent.
    pub retention_hours: u64,
    /// Its protections.
    pub safeguards: Vec<String>,
    /// What it passes on of calls beyond what stays within them.
    pub passes: Vec<Pass>,
    /// How it is reached; without one, callers run inference themselves.
    pub backend: Option<BackendAddress>,
}

/// A part of calls that a deployment passes on although it does not stay within the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Which, such as `tools.web_search`.
    pub field: String,
    /// The jurisdictions that the call reaches by it, beside those of the deployment.
    pub reaches: Vec<JurisdictionCode>,
    /// Whether it refers to what lies at the provider.
    pub is_reference: bool,
}

impl Deployment {
    /// Whether it passes on `field` of a call of `tenant`.
    #[must_use]
    pub fn passes_on(&self, field: &str, tenant: &TenantId) -> bool {
        let owner = self.backend.as_ref().and_then(|backend| backend.tenant.as_ref());
        let may = |pass: &Pass| !pass.is_reference || owner == Some(tenant);
        self.passes.iter().any(|pass| pass.field == field && may(pass))
    }
}

/// A legal instrument between an exporter and a recipient.
#[derive(Clone, Debug, Serialize)]
pub struct Instrument {
    /// Who exports.
    pub exporter: TenantId,
    /// Its name.
    pub id: InstrumentId,
    /// What it is, such as `eu-scc`.
    pub kind: String,
    /// Who receives.
    pub recipient: OperatorId,
    /// Where the paper lies.
    pub reference: String,
    /// When it holds.
    #[serde(skip)]
    pub valid: Validity,
}

impl Organisation {
    /// The deployment with this id.
    #[must_use]
    pub fn deployment(&self, id: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.id.as_str() == id)
    }

    /// The deployments behind a virtual model, one of its aliases, a model or a deployment id, in order of
    /// preference.
    #[must_use]
    pub fn deployments_of(&self, name: &str) -> Vec<&Deployment> {
        if let Some((_, virtual_model)) = self.virtual_model(name) {
            let ids = &virtual_model.deployments;
            return ids.iter().filter_map(|id| self.deployment(id.as_str())).collect();
        }
        let serves = |deployment: &&Deployment| {
            deployment.model.as_str() == name || deployment.id.as_str() == name
        };
        self.deployments.iter().filter(serves).collect()
    }

    /// What `deployment` costs at `instant`.
    #[must_use]
    pub fn price_at(&self, deployment: &DeploymentId, instant: Timestamp) -> Option<&Price> {
        self.prices
            .iter()
            .find(|price| price.deployment == *deployment && price.valid.holds_at(instant))
    }

    /// The limits of an app and of its tenant.
    #[must_use]
    pub fn limits_of(&self, app: &AppId, tenant: &TenantId) -> Vec<(Held, &Limits)> {
        let of_app = self.apps.get(app).map(|row| (Held::App(app.clone()), &row.limits));
        let of_tenant =
            self.tenants.get(tenant).map(|row| (Held::Tenant(tenant.clone()), &row.limits));
        let limits = of_app.into_iter().chain(of_tenant);
        limits.filter(|(_, limits)| **limits != Limits::default()).collect()
    }

    /// The instruments that hold at `instant`.
    pub fn instruments_at(&self, instant: Timestamp) -> impl Iterator<Item = &Instrument> {
        self.instruments.iter().filter(move |instrument| instrument.valid.holds_at(instant))
    }

    /// The first instant after `instant` at which an instrument begins or ends.
    #[must_use]
    pub fn next_change(&self, instant: Timestamp) -> Option<Timestamp> {
        let boundaries = self.instruments.iter().flat_map(|row| row.valid.boundaries());
        boundaries.filter(|boundary| *boundary > instant).min()
    }

    /// The jurisdictions that `deployment` touches when it is called from `location` and passes on `fields`
    /// of the call.
    #[must_use]
    pub fn placement(
        &self,
        deployment: &Deployment,
        location: &JurisdictionCode,
        fields: &[String],
    ) -> Placement {
        let resolve = |sites: &[Site]| {
            let mut places: Vec<JurisdictionCode> = sites
                .iter()
                .map(|site| match site {
                    Site::Caller => location.clone(),
                    Site::Fixed(code) => code.clone(),
                })
                .collect();
            places.sort();
            places.dedup();
            places
        };
        let mut process = resolve(&deployment.process);
        let used = deployment.passes.iter().filter(|pass| fields.contains(&pass.field));
        process.extend(used.flat_map(|pass| pass.reaches.iter().cloned()));
        process.sort();
        process.dedup();
        let operator = self.operators.get(&deployment.operator);
        Placement {
            access: resolve(&deployment.access),
            operate: operator.map(|operator| operator.seat.clone()).into_iter().collect(),
            own: operator.map(|operator| operator.owners.clone()).unwrap_or_default(),
            process,
            store: resolve(&deployment.store),
        }
    }
}
