//! Reading `cases/*.toml`. Each case brings an organisation of its own: one tenant, one app, one
//! operator, one model, one deployment.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use crate::{
    domain::{Action, CallRequest, DataRequest, Export, JurisdictionCode, Tier, Verdict},
    facts::{DateText, parse_instant},
    source::{Fault, Faults, SourceFile, parse_toml},
};

/// The instant at which a case that names none is judged.
const TODAY: &str = "2026-11-22";
/// Where whatever names no place is.
const PLACE: &str = "SG";

#[cfg(test)]
#[path = "follow_tests.rs"]
mod follow_tests;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default)]
    case: Vec<Spanned<CaseRow>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseRow {
    name: String,
    given: Given,
    expect: Verdict,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    duties: Option<Vec<String>>,
    source: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    action: Action,
    #[serde(default)]
    data: Option<DataRequest>,
    #[serde(default)]
    purpose: Option<String>,
    #[serde(default)]
    audience: Option<Vec<String>>,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    pub(super) tenant: Tenant,
    #[serde(default)]
    pub(super) app: App,
    #[serde(default)]
    instruments: Vec<Instrument>,
    #[serde(default)]
    at: Option<Spanned<DateText>>,
    /// Findings that somebody may make one day: members of sets that `facts/adequacy.toml` has.
    #[serde(default)]
    adequacy: BTreeMap<String, Vec<String>>,
    /// The same for zones.
    #[serde(default)]
    zones: BTreeMap<String, Vec<String>>,
    /// What the tenant exported before.
    #[serde(default)]
    exported: Vec<Spanned<Earlier>>,
    pub(super) candidate: Candidate,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Earlier {
    from: JurisdictionCode,
    to: Vec<JurisdictionCode>,
    subjects: u32,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default = "yes")]
    personal: bool,
    /// The operator's seat and its owners.
    #[serde(default)]
    exposed_to: Vec<JurisdictionCode>,
    at: Option<Spanned<DateText>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tenant {
    /// Its name, where a policy names it.
    pub(super) id: Option<String>,
    domicile: String,
    commercial: bool,
    monthly_active_users: u64,
    monthly_revenue_usd: u64,
    annual_revenue_usd: u64,
    side_licences: Vec<String>,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            id: None,
            domicile: PLACE.to_owned(),
            commercial: true,
            monthly_active_users: 0,
            monthly_revenue_usd: 0,
            annual_revenue_usd: 0,
            side_licences: Vec::new(),
        }
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct App {
    /// Its name, where a policy names it.
    pub(super) id: Option<String>,
    hosted_for_end_users: bool,
}

/// By its kind alone: in force between the tenant and the operator.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Instrument {
    Kind(String),
    Row(InstrumentRow),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstrumentRow {
    kind: String,
    #[serde(default = "long_ago")]
    valid_from: DateText,
    #[serde(default)]
    valid_until: Option<DateText>,
    /// With somebody else: `false`.
    #[serde(default = "yes")]
    with_operator: bool,
}

fn long_ago() -> DateText {
    "2000-01-01".into()
}

fn yes() -> bool {
    true
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidate {
    /// The deployment's name, where a policy names it.
    pub(super) id: Option<String>,
    /// The same of its model.
    pub(super) model: Option<String>,
    /// Who made the model, where a policy asks.
    pub(super) provider: Option<String>,
    tier: Tier,
    process: Vec<String>,
    store: Vec<String>,
    #[serde(default)]
    access: Vec<String>,
    pub(super) operator: Operator,
    #[serde(default = "apache")]
    licence: String,
    #[serde(default)]
    modalities: Vec<String>,
    #[serde(default = "yes")]
    approved: bool,
    #[serde(default)]
    retention_hours: u64,
    #[serde(default)]
    safeguards: Vec<String>,
}

fn apache() -> String {
    "Apache-2.0".to_owned()
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Operator {
    /// Its name, where a policy names it.
    pub(super) id: Option<String>,
    seat: String,
    #[serde(default)]
    owners: Vec<String>,
    #[serde(default)]
    certifications: Vec<String>,
}

/// A call, and the answer that it must get.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The file and the line of it.
    pub place: String,
    /// The answer.
    pub expect: Verdict,
    /// The policies that must be among those that decide.
    pub policies: Vec<String>,
    /// The duties that must come with it, and no others; `None` when the case is not about duties.
    pub duties: Option<Vec<String>>,
    /// Where the law says so.
    pub source: String,
    pub(super) at: Timestamp,
    pub(super) call: CallRequest,
    /// What left before, and when.
    pub(super) exported: Vec<(Timestamp, JurisdictionCode, Export, i64)>,
    pub(super) given: std::sync::Arc<Given>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

impl Earlier {
    fn read(
        &self,
        now: Timestamp,
        file: &SourceFile,
    ) -> Result<(Timestamp, JurisdictionCode, Export, i64), Fault> {
        let at = self.at.as_ref().map_or(Ok(now), |at| parse_instant(at, file))?;
        let sorted = |places: &[JurisdictionCode]| {
            let mut places = places.to_vec();
            places.sort();
            places
        };
        let export = Export {
            categories: self.categories.clone(),
            exposed_to: sorted(&self.exposed_to),
            personal: self.personal,
            to: sorted(&self.to),
        };
        Ok((at, self.from.clone(), export, i64::from(self.subjects)))
    }
}

impl Case {
    /// Reads the cases of all files.
    ///
    /// # Errors
    /// Every fault found.
    pub fn load(files: &[SourceFile]) -> Result<Vec<Self>, Faults> {
        let (mut cases, mut faults) = (Vec::new(), Faults::default());
        for file in files {
            match parse_toml::<CaseFile>(file) {
                Ok(read) => {
                    for row in read.case {
                        match Self::read(file, row) {
                            Ok(case) => cases.push(case),
                            Err(found) => faults.0.extend(found.0),
                        }
                    }
                }
                Err(fault) => faults.0.push(fault),
            }
        }
        faults.or(cases)
    }

    fn read(file: &SourceFile, row: Spanned<CaseRow>) -> Result<Self, Faults> {
        let line = file.fault(row.span(), "").line;
        let place = format!("{}:{line}", file.path);
        let CaseRow { name, given, expect, policies, duties, source } = row.into_inner();
        let today = || Spanned::new(0..0, DateText::from(TODAY));
        let at = match &given.at {
            Some(at) => parse_instant(at, file)?,
            None => parse_instant(&today(), file)?,
        };
        let exported = given.exported.iter().map(|row| row.get_ref().read(at, file));
        let exported = exported.collect::<Result<Vec<_>, _>>()?;
        let call = CallRequest {
            passes: Vec::new(),
            modalities: Vec::new(),
            action: given.action,
            model: None,
            deployment: None,
            data: given.data.clone(),
            purpose: given.purpose.clone(),
            audience: given.audience.clone(),
            location: given.location.clone(),
            end_user: None,
        };
        let given = given.into();
        Ok(Self { name, place, expect, policies, duties, source, at, call, exported, given })
    }

    /// The facts that hold in this case beside those of the world, as a file of facts; empty when none.
    pub(super) fn facts(&self) -> String {
        let mut text = String::new();
        let rows =
            [("finding", "set", &self.given.adequacy), ("membership", "zone", &self.given.zones)];
        for (table, key, sets) in rows {
            for (id, members) in sets {
                let (id, members) =
                    (toml::Value::from(id.as_str()), toml::Value::from(members.clone()));
                let _ = writeln!(text, "[[{table}]]\n{key} = {id}\nmembers = {members}");
                text.push_str("valid_from = \"2000-01-01\"\nsource = \"a case\"\n");
                text.push_str("checked = \"2026-11-22\"\nconfidence = \"general\"\n");
            }
        }
        text
    }

    /// The organisation of the case, every name ending in its number.
    pub(super) fn organisation(&self, n: usize) -> String {
        let Given { tenant, app, instruments, candidate, location, .. } = &*self.given;
        let operator = &candidate.operator;
        let mut text = String::new();
        let mut table = |name: &str, rows: &[(&str, toml::Value)]| {
            let _ = writeln!(text, "[[{name}]]");
            for (key, value) in rows {
                let _ = writeln!(text, "{key} = {value}");
            }
        };
        let list = |texts: &[String]| toml::Value::from(texts.to_vec());
        let ids = self.ids(n);
        let id = |id: &str| toml::Value::from(id);
        let stranger = format!("stranger-{n}");
        let number = |number: u64| toml::Value::from(i64::try_from(number).unwrap_or(i64::MAX));
        table(
            "tenants",
            &[
                ("id", id(&ids.tenant)),
                ("domicile", tenant.domicile.clone().into()),
                ("commercial", tenant.commercial.into()),
                ("monthly_active_users", number(tenant.monthly_active_users)),
                ("monthly_revenue_usd", number(tenant.monthly_revenue_usd)),
                ("annual_revenue_usd", number(tenant.annual_revenue_usd)),
                ("side_licences", list(&tenant.side_licences)),
            ],
        );
        table(
            "apps",
            &[
                ("id", id(&ids.app)),
                ("tenant", id(&ids.tenant)),
                ("location", location.clone().unwrap_or_else(|| PLACE.to_owned()).into()),
                ("hosted_for_end_users", app.hosted_for_end_users.into()),
            ],
        );
        table(
            "operators",
            &[
                ("id", id(&ids.operator)),
                ("seat", operator.seat.clone().into()),
                ("owners", list(&operator.owners)),
                ("certifications", list(&operator.certifications)),
            ],
        );
        table("operators", &[("id", id(&stranger)), ("seat", operator.seat.clone().into())]);
        table(
            "models",
            &[
                ("id", id(&ids.model)),
                ("license", candidate.licence.clone().into()),
                ("provider", candidate.provider.as_deref().unwrap_or("a case").into()),
                ("modalities", list(&candidate.modalities)),
            ],
        );
        table(
            "deployments",
            &[
                ("id", id(&ids.deployment)),
                ("model", id(&ids.model)),
                ("operator", id(&ids.operator)),
                ("tier", candidate.tier.as_str().into()),
                ("approved", candidate.approved.into()),
                ("process", list(&candidate.process)),
                ("store", list(&candidate.store)),
                ("access", list(&candidate.access)),
                ("retention_hours", number(candidate.retention_hours)),
                ("safeguards", list(&candidate.safeguards)),
            ],
        );
        for (m, instrument) in instruments.iter().enumerate() {
            let row = match instrument {
                Instrument::Kind(kind) => &InstrumentRow {
                    kind: kind.clone(),
                    valid_from: long_ago(),
                    valid_until: None,
                    with_operator: true,
                },
                Instrument::Row(row) => row,
            };
            let recipient = if row.with_operator { &ids.operator } else { &stranger };
            let mut rows = vec![
                ("id", format!("instrument-{n}-{m}").into()),
                ("kind", row.kind.clone().into()),
                ("exporter", id(&ids.tenant)),
                ("recipient", id(recipient)),
                ("valid_from", row.valid_from.as_str().into()),
                ("reference", "a case".into()),
            ];
            rows.extend(row.valid_until.iter().map(|until| ("valid_until", until.as_str().into())));
            table("instruments", &rows);
        }
        text
    }
}
