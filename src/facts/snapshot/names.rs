//! Whether every name in the policies is one that facts or organisation declare. A policy that misspells a
//! name never matches: a forbid would then be open.

use std::collections::BTreeSet;

use crate::{
    domain::{AppId, ModelId, OperatorId, TenantId, Tier},
    facts::{
        organisation::Organisation,
        world::{Group, TermKind, World, remedy::remedy},
    },
    policy::{Bundle, Comparand, Compared, EntityKind, Rule},
    source::Faults,
};

/// The zone of jurisdictions whose law on personal data some pack implements; made from `[[coverage]]`.
pub(in crate::facts) const COVERED_ZONE: &str = "covered";

/// What models read and write, whether or not one of the organisation's does.
const MODALITIES: [&str; 4] = ["text", "image", "audio", "video"];

/// The organisation's own names, beside those of an organisation: what cases call theirs.
#[derive(Clone, Debug, Default)]
pub struct OwnNames {
    /// Tenants, apps, operators, models and deployments.
    pub entities: BTreeSet<(EntityKind, String)>,
    /// Providers of models.
    pub providers: BTreeSet<String>,
}

/// Who declares the names that are the organisation's own.
pub(in crate::facts) enum Declared<'a> {
    /// This organisation, and these beside it.
    By(&'a Organisation, &'a OwnNames),
    /// It is not known: any name may be one.
    Unread,
}

/// Checks every name in the policies.
pub(in crate::facts) fn check(
    bundle: &Bundle,
    world: &World,
    own: &Declared<'_>,
    faults: &mut Faults,
) {
    let names = Names { world, own };
    for (kind, id, rule) in bundle.entities_named() {
        names.entity(kind, &id, rule, faults);
    }
    for (compared, rule) in bundle.compared() {
        names.compared(&compared, rule, faults);
    }
}

/// The same for what was active before: a text may be on any list.
pub(in crate::facts) fn check_recorded(
    bundle: &Bundle,
    world: &World,
    own: &Declared<'_>,
    faults: &mut Faults,
) {
    let names = Names { world, own };
    for (kind, id, rule) in bundle.entities_named() {
        names.entity(kind, &id, rule, faults);
    }
    for (compared, rule) in bundle.compared() {
        if matches!(compared.with, Comparand::Text(_)) {
            let compared = Compared { attribute: None, ..compared };
            names.compared(&compared, rule, faults);
        }
    }
}

struct Names<'a> {
    world: &'a World,
    own: &'a Declared<'a>,
}

/// A list that a text must be on.
struct List<'a> {
    /// What the list is of.
    what: &'static str,
    /// What to do about a name that is not on it.
    otherwise: &'static str,
    names: Vec<&'a str>,
}

/// Which list the texts of an attribute are on.
enum Lookup<'a> {
    /// This one.
    Found(List<'a>),
    /// The organisation's, which is not known.
    Unread,
    /// None.
    NoList,
}

impl Names<'_> {
    fn entity(&self, kind: EntityKind, id: &str, rule: &Rule, faults: &mut Faults) {
        let Some((known, file)) = self.entities(kind) else { return };
        if known.contains(&id) {
            return;
        }
        let name = format!("{kind:?}::\"{id}\"");
        let message = format!("policy `{}` names {name}, which nothing declares", rule.id);
        let help = remedy(id, known.into_iter(), &format!("declare it in {file}"));
        faults.0.push(rule.fault_at(&name, message).help(help));
    }

    /// The ids of a kind, and the file that declares them; `None` where any may be one.
    fn entities(&self, kind: EntityKind) -> Option<(Vec<&str>, &'static str)> {
        let world = self.world;
        Some(match kind {
            EntityKind::Zone => {
                (world.group_ids(Group::Zone).chain([COVERED_ZONE]).collect(), "`facts/zones.toml`")
            }
            EntityKind::Adequacy => {
                (world.group_ids(Group::Adequacy).collect(), "`facts/adequacy.toml`")
            }
            EntityKind::Jurisdiction => (world.codes().collect(), "`facts/jurisdictions.toml`"),
            EntityKind::License => (
                world.licence_ids().collect(),
                "`facts/licences.toml`, or let `lexgate policies new licence` write it",
            ),
            _ => (self.own_ids(kind)?, "the organisation file"),
        })
    }

    fn own_ids(&self, kind: EntityKind) -> Option<Vec<&str>> {
        let Declared::By(organisation, beside) = self.own else { return None };
        let mut ids: Vec<&str> = match kind {
            EntityKind::Tenant => organisation.tenants.keys().map(TenantId::as_str).collect(),
            EntityKind::App => organisation.apps.keys().map(AppId::as_str).collect(),
            EntityKind::Operator => organisation.operators.keys().map(OperatorId::as_str).collect(),
            EntityKind::Model => organisation.models.keys().map(ModelId::as_str).collect(),
            _ => organisation.deployments.iter().map(|row| row.id.as_str()).collect(),
        };
        let of_kind = beside.entities.iter().filter(|(other, _)| *other == kind);
        ids.extend(of_kind.map(|(_, id)| id.as_str()));
        Some(ids)
    }

    fn compared(&self, compared: &Compared, rule: &Rule, faults: &mut Faults) {
        let list = match compared.attribute.as_deref().map(|attribute| self.list(attribute)) {
            Some(Lookup::Found(list)) => list,
            Some(Lookup::Unread) => return,
            Some(Lookup::NoList) | None => match self.anything() {
                Some(list) => list,
                None => return,
            },
        };
        if list.names.iter().any(|name| compared.with.matches(name)) {
            return;
        }
        let List { what, otherwise, names } = list;
        let written = compared.with.to_string();
        let message = match &compared.with {
            Comparand::Text(text) if self.world.knows_term(None, text) => {
                format!("policy `{}` compares a {what} with {written}, which is not one", rule.id)
            }
            Comparand::Text(_) => {
                format!("policy `{}` names {written}, which nothing declares", rule.id)
            }
            Comparand::Pattern(_) => {
                format!("policy `{}` has the pattern {written}, which matches no {what}", rule.id)
            }
        };
        let help = remedy(&compared.with.letters(), names.into_iter(), otherwise);
        faults.0.push(rule.fault_at(&written, message).help(help));
    }

    /// The list that the texts of an attribute are on.
    fn list(&self, attribute: &str) -> Lookup<'_> {
        let term = |kind: TermKind| List {
            what: kind.noun(),
            otherwise: "declare it in `facts/vocabulary.toml`",
            names: self.world.term_ids(Some(kind)).collect(),
        };
        let counted =
            |what, names| List { what, otherwise: "declare it in `facts/volumes.toml`", names };
        Lookup::Found(match attribute {
            "purpose" | "excludedPurposes" => term(TermKind::Purpose),
            "categories" => term(TermKind::Category),
            "instruments" => term(TermKind::Instrument),
            "certifications" => term(TermKind::Certification),
            "safeguards" => term(TermKind::Safeguard),
            "classes" => counted("class of data", self.world.class_ids().collect()),
            "reached" => counted("threshold", self.world.threshold_ids().collect()),
            "tier" => {
                let otherwise = "write `on_device`, `hybrid_gpu` or `remote`";
                List { what: "tier", otherwise, names: tiers().into() }
            }
            "provider" | "modalities" => {
                let Some(names) = self.of_models(attribute) else { return Lookup::Unread };
                let what = if attribute == "provider" { "provider" } else { "modality" };
                List {
                    what,
                    otherwise: "name it in a `[[models]]` of the organisation file",
                    names,
                }
            }
            _ => return Lookup::NoList,
        })
    }

    /// The providers or modalities of the organisation's models.
    fn of_models(&self, attribute: &str) -> Option<Vec<&str>> {
        let Declared::By(organisation, beside) = self.own else { return None };
        let models = organisation.models.values();
        if attribute == "provider" {
            let providers = models.map(|model| model.provider.as_str());
            return Some(providers.chain(beside.providers.iter().map(String::as_str)).collect());
        }
        let modalities = models.flat_map(|model| model.modalities.iter().map(String::as_str));
        Some(modalities.chain(MODALITIES).collect())
    }

    /// Every list at once, for what is compared with no attribute that has one.
    fn anything(&self) -> Option<List<'_>> {
        let mut names: Vec<&str> = self.world.term_ids(None).collect();
        names.extend(self.world.class_ids().chain(self.world.threshold_ids()).chain(tiers()));
        names.extend(self.of_models("provider")?);
        names.extend(self.of_models("modalities")?);
        Some(List { what: "term", otherwise: "declare it in `facts/vocabulary.toml`", names })
    }
}

fn tiers() -> [&'static str; 3] {
    [Tier::OnDevice, Tier::HybridGpu, Tier::Remote].map(Tier::as_str)
}
