//! Reading `organisation.toml`: every name it uses must lead somewhere.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::{
    dated::{Validity, instant},
    licence_id::advice,
    organisation::{
        App, BackendAddress, Deployment, Instrument, Model, Operator, Organisation, Site, Tenant,
    },
    toml_file,
    world::{TermKind, World},
};
use crate::domain::{Faults, JurisdictionCode, SourceFile, Tier};

type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenants: Vec<TenantRow>,
    #[serde(default)]
    apps: Vec<AppRow>,
    #[serde(default)]
    operators: Vec<OperatorRow>,
    #[serde(default)]
    models: Vec<ModelRow>,
    #[serde(default)]
    deployments: Vec<DeploymentRow>,
    #[serde(default)]
    virtual_models: Vec<VirtualModelRow>,
    #[serde(default)]
    instruments: Vec<InstrumentRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantRow {
    id: Text,
    domicile: Text,
    commercial: bool,
    monthly_active_users: u64,
    monthly_revenue_usd: u64,
    annual_revenue_usd: u64,
    #[serde(default)]
    side_licences: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppRow {
    id: Text,
    tenant: Text,
    location: Text,
    #[serde(default)]
    hosted_for_end_users: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorRow {
    id: Text,
    seat: Text,
    #[serde(default)]
    owners: Vec<Text>,
    #[serde(default)]
    certifications: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRow {
    id: Text,
    license: Text,
    provider: String,
    #[serde(default)]
    modalities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeploymentRow {
    id: Text,
    model: Text,
    operator: Text,
    tier: Tier,
    #[serde(default)]
    approved: bool,
    process: Spanned<Vec<Text>>,
    store: Spanned<Vec<Text>>,
    #[serde(default)]
    access: Vec<Text>,
    #[serde(default)]
    retention_hours: u64,
    #[serde(default)]
    safeguards: Vec<Text>,
    backend: Option<BackendRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendRow {
    base_url: Text,
    model: String,
    api_key_env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VirtualModelRow {
    id: Text,
    deployments: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstrumentRow {
    id: Text,
    kind: Text,
    exporter: Text,
    recipient: Text,
    valid_from: Text,
    valid_until: Option<Text>,
    reference: String,
}

impl Organisation {
    /// Reads `file`, whose names must be known to `world` or to the file itself.
    ///
    /// # Errors
    /// Every fault found, with its place and remedy.
    pub fn load(file: &SourceFile, world: &World) -> Result<Self, Faults> {
        let rows: File = toml_file::parse(file)?;
        let mut reader = Reader { file, world, faults: Faults::default() };
        let mut organisation = Self::default();
        reader.parties(&rows, &mut organisation);
        reader.models(&rows, &mut organisation);
        reader.deployments(&rows, &mut organisation);
        reader.virtual_models(&rows, &mut organisation);
        reader.instruments(&rows, &mut organisation);
        reader.faults.or(organisation)
    }
}

struct Reader<'a> {
    file: &'a SourceFile,
    world: &'a World,
    faults: Faults,
}

impl Reader<'_> {
    fn parties(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("tenant", rows.tenants.iter().map(|row| &row.id));
        self.unique("app", rows.apps.iter().map(|row| &row.id));
        self.unique("operator", rows.operators.iter().map(|row| &row.id));
        for row in &rows.tenants {
            let Some(domicile) = self.jurisdiction(&row.domicile) else { continue };
            for licence in &row.side_licences {
                self.licence(licence);
            }
            let tenant = Tenant {
                domicile,
                commercial: row.commercial,
                monthly_active_users: row.monthly_active_users,
                monthly_revenue_usd: row.monthly_revenue_usd,
                annual_revenue_usd: row.annual_revenue_usd,
                side_licences: row
                    .side_licences
                    .iter()
                    .map(|id| id.get_ref().as_str().into())
                    .collect(),
            };
            organisation.tenants.insert(row.id.get_ref().as_str().into(), tenant);
        }
        for row in &rows.apps {
            let known =
                rows.tenants.iter().any(|tenant| tenant.id.get_ref() == row.tenant.get_ref());
            self.refer("tenant", "[[tenants]]", &row.tenant, known);
            let Some(location) = self.jurisdiction(&row.location) else { continue };
            let app = App {
                tenant: row.tenant.get_ref().as_str().into(),
                location,
                hosted_for_end_users: row.hosted_for_end_users,
            };
            organisation.apps.insert(row.id.get_ref().as_str().into(), app);
        }
        for row in &rows.operators {
            self.terms(TermKind::Certification, &row.certifications);
            let owners = self.jurisdictions(&row.owners);
            let Some(seat) = self.jurisdiction(&row.seat) else { continue };
            let certifications =
                row.certifications.iter().map(|text| text.get_ref().clone()).collect();
            let operator = Operator { seat, owners, certifications };
            organisation.operators.insert(row.id.get_ref().as_str().into(), operator);
        }
    }

    fn models(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("model", rows.models.iter().map(|row| &row.id));
        for row in &rows.models {
            self.licence(&row.license);
            let model = Model {
                license: row.license.get_ref().as_str().into(),
                provider: row.provider.clone(),
                modalities: row.modalities.clone(),
            };
            organisation.models.insert(row.id.get_ref().as_str().into(), model);
        }
    }

    fn deployments(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("deployment", rows.deployments.iter().map(|row| &row.id));
        for row in &rows.deployments {
            let known = rows.models.iter().any(|model| model.id.get_ref() == row.model.get_ref());
            self.refer("model", "[[models]]", &row.model, known);
            let known = rows
                .operators
                .iter()
                .any(|operator| operator.id.get_ref() == row.operator.get_ref());
            self.refer("operator", "[[operators]]", &row.operator, known);
            self.terms(TermKind::Safeguard, &row.safeguards);
            for (what, sites) in [("processes", &row.process), ("stores", &row.store)] {
                if sites.get_ref().is_empty() {
                    let message =
                        format!("deployment `{}` {what} in no declared place", row.id.get_ref());
                    self.faults.0.push(self.file.fault(sites.span(), message).help(
                        "name each jurisdiction (`[\"DE\"]`), or `\"@location\"` where the call is made; memory and logs count",
                    ));
                }
            }
            organisation.deployments.push(Deployment {
                id: row.id.get_ref().as_str().into(),
                model: row.model.get_ref().as_str().into(),
                operator: row.operator.get_ref().as_str().into(),
                tier: row.tier,
                approved: row.approved,
                process: self.sites(row.process.get_ref()),
                store: self.sites(row.store.get_ref()),
                access: self.sites(&row.access),
                retention_hours: row.retention_hours,
                safeguards: row.safeguards.iter().map(|text| text.get_ref().clone()).collect(),
                backend: row.backend.as_ref().map(|backend| self.backend(backend)),
            });
        }
    }

    fn backend(&mut self, row: &BackendRow) -> BackendAddress {
        let url = row.base_url.get_ref();
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
        if host.is_none_or(|host| host.is_empty() || host.contains('@')) {
            let message = format!("`{url}` is not the base URL of a backend");
            self.faults.0.push(self.file.fault(row.base_url.span(), message).help(
                "write `http://` or `https://`, a host and a path; a key belongs in the environment variable that `api_key_env` names",
            ));
        }
        BackendAddress {
            base_url: url.trim_end_matches('/').to_owned(),
            model: row.model.clone(),
            api_key_env: row.api_key_env.clone(),
        }
    }

    fn virtual_models(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("virtual model", rows.virtual_models.iter().map(|row| &row.id));
        for row in &rows.virtual_models {
            let id = row.id.get_ref();
            let taken = rows.models.iter().any(|model| model.id.get_ref() == id)
                || rows.deployments.iter().any(|deployment| deployment.id.get_ref() == id);
            if taken {
                let message =
                    format!("virtual model `{id}` has the name of a model or a deployment");
                self.faults
                    .0
                    .push(self.file.fault(row.id.span(), message).help("choose another name"));
            }
            if row.deployments.get_ref().is_empty() {
                let message = format!("virtual model `{id}` has no deployment");
                self.faults.0.push(
                    self.file.fault(row.deployments.span(), message).help("name at least one"),
                );
            }
            for deployment in row.deployments.get_ref() {
                let known =
                    rows.deployments.iter().any(|row| row.id.get_ref() == deployment.get_ref());
                self.refer("deployment", "[[deployments]]", deployment, known);
            }
            let deployments =
                row.deployments.get_ref().iter().map(|id| id.get_ref().as_str().into());
            organisation.virtual_models.insert(id.as_str().into(), deployments.collect());
        }
    }

    fn instruments(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("instrument", rows.instruments.iter().map(|row| &row.id));
        for row in &rows.instruments {
            self.terms(TermKind::Instrument, std::slice::from_ref(&row.kind));
            let known =
                rows.tenants.iter().any(|tenant| tenant.id.get_ref() == row.exporter.get_ref());
            self.refer("tenant", "[[tenants]]", &row.exporter, known);
            let known = rows
                .operators
                .iter()
                .any(|operator| operator.id.get_ref() == row.recipient.get_ref());
            self.refer("operator", "[[operators]]", &row.recipient, known);
            let Some(valid) = self.validity(row) else { continue };
            organisation.instruments.push(Instrument {
                exporter: row.exporter.get_ref().as_str().into(),
                id: row.id.get_ref().as_str().into(),
                kind: row.kind.get_ref().clone(),
                recipient: row.recipient.get_ref().as_str().into(),
                reference: row.reference.clone(),
                valid,
            });
        }
    }

    fn validity(&mut self, row: &InstrumentRow) -> Option<Validity> {
        let read = || {
            let from = instant(&row.valid_from, self.file)?;
            let until =
                row.valid_until.as_ref().map(|until| instant(until, self.file)).transpose()?;
            if until.is_some_and(|until| until <= from) {
                let message = format!("instrument `{}` ends before it begins", row.id.get_ref());
                return Err(self
                    .file
                    .fault(row.id.span(), message)
                    .help("correct `valid_from` or `valid_until`"));
            }
            Ok(Validity { from, until })
        };
        read().map_err(|fault| self.faults.0.push(fault)).ok()
    }

    fn unique<'t>(&mut self, what: &str, ids: impl Iterator<Item = &'t Text>) {
        let mut seen = BTreeSet::new();
        for id in ids {
            let text = id.get_ref();
            if text.trim().is_empty() || text.len() > 128 {
                let message = format!("the {what}'s id is empty or longer than 128 bytes");
                self.faults
                    .0
                    .push(self.file.fault(id.span(), message).help("give it a short name"));
            }
            if !seen.insert(text) {
                let message = format!("{what} `{text}` is declared twice");
                self.faults.0.push(self.file.fault(id.span(), message).help("keep one"));
            }
        }
    }

    fn refer(&mut self, what: &str, table: &str, id: &Text, known: bool) {
        if !known {
            let message = format!("unknown {what} `{}`", id.get_ref());
            self.faults.0.push(
                self.file
                    .fault(id.span(), message)
                    .help(format!("correct it, or declare it in a `{table}`")),
            );
        }
    }

    fn licence(&mut self, id: &Text) {
        if !self.world.knows_licence(id.get_ref()) {
            let message = format!("unknown licence `{}`", id.get_ref());
            let otherwise = "add its terms to `facts/licences.toml`";
            let help = advice(id.get_ref(), self.world.licence_ids(), otherwise);
            self.faults.0.push(self.file.fault(id.span(), message).help(help));
        }
    }

    fn terms(&mut self, kind: TermKind, texts: &[Text]) {
        for text in texts.iter().filter(|text| !self.world.knows_term(Some(kind), text.get_ref())) {
            let message = format!("unknown {} `{}`", kind.noun(), text.get_ref());
            self.faults.0.push(
                self.file
                    .fault(text.span(), message)
                    .help("correct it, or add it to `facts/vocabulary.toml`"),
            );
        }
    }

    fn jurisdiction(&mut self, text: &Text) -> Option<JurisdictionCode> {
        let fault = match text.get_ref().parse::<JurisdictionCode>() {
            Ok(code) if self.world.knows_jurisdiction(code.as_str()) => return Some(code),
            Ok(code) => self
                .file
                .fault(text.span(), format!("unknown jurisdiction `{code}`"))
                .help("correct the code, or add it to `facts/jurisdictions.toml`"),
            Err(error) => self.file.fault(text.span(), error.to_string()),
        };
        self.faults.0.push(fault);
        None
    }

    fn jurisdictions(&mut self, texts: &[Text]) -> Vec<JurisdictionCode> {
        let mut codes: Vec<_> = texts.iter().filter_map(|text| self.jurisdiction(text)).collect();
        codes.sort();
        codes.dedup();
        codes
    }

    fn sites(&mut self, texts: &[Text]) -> Vec<Site> {
        let mut sites = Vec::new();
        for text in texts {
            if text.get_ref() == "@location" {
                sites.push(Site::Caller);
            } else {
                sites.extend(self.jurisdiction(text).map(Site::Fixed));
            }
        }
        sites
    }
}
