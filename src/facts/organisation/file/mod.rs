//! Reading `organisation.toml`: every name it uses must lead somewhere.

mod aliases;
mod backends;
mod limits;
mod names;
mod passes;
mod rows;

use toml::Spanned;

use super::{App, Deployment, Instrument, Model, Operator, Organisation, Tenant};
use crate::{
    facts::world::{
        TermKind, World,
        date_text::DateText,
        dated::{Validity, end, instant},
    },
    source::{Faults, SourceFile, parse_toml},
};
use rows::File;

impl Organisation {
    /// Reads `file`, whose names must be known to `world` or to the file itself.
    ///
    /// # Errors
    /// Every fault found, with its place and remedy.
    pub fn load(file: &SourceFile, world: &World) -> Result<Self, Faults> {
        Self::read(file, world, false)
    }

    /// Reads a file that was active before: what is known of requests since then is not held against it.
    ///
    /// # Errors
    /// Every fault found, with its place and remedy.
    pub fn recorded(file: &SourceFile, world: &World) -> Result<Self, Faults> {
        Self::read(file, world, true)
    }

    fn read(file: &SourceFile, world: &World, is_recorded: bool) -> Result<Self, Faults> {
        let rows: File = parse_toml(file)?;
        let mut reader = Reader { file, world, is_recorded, faults: Faults::default() };
        let mut organisation = Self { licence_names: world.licence_names(), ..Self::default() };
        reader.parties(&rows, &mut organisation);
        reader.models(&rows, &mut organisation);
        reader.deployments(&rows, &mut organisation);
        reader.virtual_models(&rows, &mut organisation);
        reader.aliases(&rows);
        reader.instruments(&rows, &mut organisation);
        reader.prices(&rows, &mut organisation);
        reader.faults.or(organisation)
    }
}

struct Reader<'a> {
    file: &'a SourceFile,
    world: &'a World,
    is_recorded: bool,
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
                limits: self.limits(&row.limits),
            };
            organisation.tenants.insert(row.id.get_ref().as_str().into(), tenant);
        }
        for row in &rows.apps {
            let tenants = rows.tenants.iter().map(|row| &row.id);
            self.refer("tenant", "[[tenants]]", &row.tenant, tenants);
            let Some(location) = self.jurisdiction(&row.location) else { continue };
            let app = App {
                tenant: row.tenant.get_ref().as_str().into(),
                location,
                hosted_for_end_users: row.hosted_for_end_users,
                claims: self.claims(&row.claims),
                stream_label: row.stream_label.clone(),
                denial_status: self.denial_status(row.denial_status.as_ref()),
                limits: self.limits(&row.limits),
                content: row.content,
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
            let models = rows.models.iter().map(|row| &row.id);
            self.refer("model", "[[models]]", &row.model, models);
            let operators = rows.operators.iter().map(|row| &row.id);
            self.refer("operator", "[[operators]]", &row.operator, operators);
            if let Some(owner) = row.backend.as_ref().and_then(|backend| backend.tenant.as_ref()) {
                let tenants = rows.tenants.iter().map(|row| &row.id);
                self.refer("tenant", "[[tenants]]", owner, tenants);
            }
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
                passes: self.passes(row),
                backend: row.backend.as_ref().and_then(|backend| self.backend(backend)),
            });
        }
    }

    fn instruments(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("instrument", rows.instruments.iter().map(|row| &row.id));
        for row in &rows.instruments {
            self.terms(TermKind::Instrument, std::slice::from_ref(&row.kind));
            let tenants = rows.tenants.iter().map(|row| &row.id);
            self.refer("tenant", "[[tenants]]", &row.exporter, tenants);
            let operators = rows.operators.iter().map(|row| &row.id);
            self.refer("operator", "[[operators]]", &row.recipient, operators);
            let what = format!("instrument `{}`", row.id.get_ref());
            let bounds = (&row.valid_from, row.valid_until.as_ref());
            let Some(valid) = self.validity(&what, bounds) else { continue };
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

    pub(in crate::facts) fn validity(
        &mut self,
        what: &str,
        bounds: (&Spanned<DateText>, Option<&Spanned<DateText>>),
    ) -> Option<Validity> {
        let read = || {
            let from = instant(bounds.0, self.file)?;
            let until = end(bounds.1, self.file)?;
            if until.is_some_and(|until| until <= from) {
                let message = format!("{what} ends before it begins");
                return Err(self
                    .file
                    .fault(bounds.0.span(), message)
                    .help("correct `valid_from` or `valid_until`"));
            }
            Ok(Validity { from, until })
        };
        read().map_err(|fault| self.faults.0.push(fault)).ok()
    }
}
