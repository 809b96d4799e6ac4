//! Names in a search of the ledger. One that nothing knows is a slip, and is refused with what was probably
//! meant: an empty answer would look like a proof of absence. A name that is only in a record passes: apps and
//! policies go, their records stay.

use std::collections::BTreeSet;

use super::{
    Shared,
    audit::Filters,
    problem::{Problem, ProblemKind},
};
use crate::{
    domain::{AppId, FieldFault, JurisdictionCode, ModelId, TenantId, VirtualModelId},
    facts::{Snapshot, TermKind},
    gate::{DEFAULT_DENY, EVALUATION_ERROR, GateError},
    ledger::Kind,
    source::{did_you_mean, nearest},
    store::RecordQuery,
};

/// The kinds of records that this version knows.
const KINDS: &[Kind] = &Kind::KNOWN;
/// As many known names as this are listed where none is near.
const FEW: usize = 14;
/// As many members of a zone as this are named.
const MEMBERS: usize = 3;

/// Refuses a search for a name that nothing knows. `scope` is what the credential is limited to.
pub(super) async fn refuse_unknown(
    shared: &Shared,
    filters: &Filters,
    scope: &[String],
) -> Result<(), Problem> {
    let faults = unknown(shared, filters, &Looking { scope, is_sure: false }, "").await?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(Problem::fields(ProblemKind::MalformedQuery, faults))
}

/// How records are looked at for names that the active snapshot does not know.
pub(super) struct Looking<'a> {
    /// What the credential is limited to; nothing where it may see everything.
    pub(super) scope: &'a [String],
    /// Whether records are searched for a name also where much is not indexed yet, and it passes only where that
    /// takes too long.
    pub(super) is_sure: bool,
}

/// Each name that nothing knows, at its filter behind `prefix`. A credential that is limited to a scope
/// learns nothing of names that occur only outside of it.
pub(super) async fn unknown(
    shared: &Shared,
    filters: &Filters,
    looking: &Looking<'_>,
    prefix: &str,
) -> Result<Vec<FieldFault>, GateError> {
    let judge = shared.gate.keeper().current();
    let is_limited = !looking.scope.is_empty();
    let names = Names { shared, snapshot: judge.snapshot(), is_limited };
    let unsure: Vec<_> =
        filters.names().filter(|(of, name)| !names.known(of).contains(name)).collect();
    let terms: Vec<String> = unsure.iter().map(|(of, name)| format!("{of}:{name}")).collect();
    let occurring = occurring(shared, &terms, looking).await?;
    let is_slip = |of: &str, name: &str, term: &String| match &occurring {
        Some(occurring) => !occurring.contains(term),
        // It was not looked: only what no record can have is surely a slip.
        None => matches!(of, "jurisdiction" | "origin" | "destination") && !names.is_recorded(name),
    };
    let slips = unsure.iter().zip(&terms).filter(|((of, name), term)| is_slip(of, name, term));
    Ok(slips
        .map(|((of, name), _)| FieldFault::new(format!("{prefix}{of}"), names.detail(of, name)))
        .collect())
}

/// Those of `terms` that a record has which is looked at; `None` where looking would take too long. Of a limited
/// credential nothing else is looked at, so that the time of the answer tells nothing of it.
async fn occurring(
    shared: &Shared,
    terms: &[String],
    looking: &Looking<'_>,
) -> Result<Option<Vec<String>>, GateError> {
    if terms.is_empty() {
        return Ok(Some(Vec::new()));
    }
    if looking.scope.is_empty() && !looking.is_sure {
        return shared.gate.occurring(terms).await;
    }
    let mut visible = Vec::new();
    for term in terms {
        let (terms, any_of) = (vec![term.clone()], looking.scope.to_vec());
        let query = RecordQuery { terms, any_of, limit: 1, ..RecordQuery::default() };
        match shared.gate.search(&query).await {
            Ok(found) if found.is_empty() => {}
            Ok(_) => visible.push(term.clone()),
            // A hold must not wait for an index.
            Err(GateError::SlowQuestion { .. }) if looking.is_sure => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(visible))
}

/// What is wrong with the kind `name`.
pub(super) fn unknown_kind(name: &str) -> String {
    let known = || KINDS.iter().map(Kind::as_str);
    let mut meant = did_you_mean(name, known());
    if meant.is_empty() {
        let known: Vec<_> = known().map(|kind| format!("`{kind}`")).collect();
        meant = format!(": want one of {}", known.join(", "));
    }
    format!("unknown kind of record `{}`{meant}", shown(name))
}

/// As much of a name as is repeated.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

struct Names<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    /// Whether the credential may not know every name of the organisation.
    is_limited: bool,
}

impl<'a> Names<'a> {
    /// The names of a kind that the configuration and the active snapshot know, as far as the credential
    /// may know them.
    fn known(&self, of: &str) -> BTreeSet<&'a str> {
        let Snapshot { facts, organisation, engine, .. } = self.snapshot;
        let terms = |kind: TermKind| -> BTreeSet<&'a str> {
            facts.terms.get(&kind).into_iter().flatten().map(String::as_str).collect()
        };
        let mut known: BTreeSet<&'a str> = match of {
            "kind" => KINDS.iter().map(Kind::as_str).collect(),
            "policy" => {
                let rules = engine.bundle().rules().map(|rule| rule.id.as_str());
                rules.chain([DEFAULT_DENY, EVALUATION_ERROR]).collect()
            }
            "category" => terms(TermKind::Category),
            "purpose" => terms(TermKind::Purpose),
            "instrument" => terms(TermKind::Instrument),
            "jurisdiction" | "origin" | "destination" => {
                facts.jurisdictions.keys().map(JurisdictionCode::as_str).collect()
            }
            _ => BTreeSet::new(),
        };
        if self.is_limited {
            return known;
        }
        match of {
            "instrument" => known.extend(organisation.instruments.iter().map(|i| i.id.as_str())),
            "deployment" => known.extend(organisation.deployments.iter().map(|d| d.id.as_str())),
            "model" => {
                known.extend(organisation.models.keys().map(ModelId::as_str));
                known.extend(organisation.virtual_models.keys().map(VirtualModelId::as_str));
            }
            "app" => known.extend(organisation.apps.keys().map(AppId::as_str)),
            "tenant" => known.extend(organisation.tenants.keys().map(TenantId::as_str)),
            "key" => known.extend(self.shared.keys.names()),
            _ => {}
        }
        known
    }

    /// Whether a record can have this place. It must be a code, and no part of a country without a law of its
    /// own, because records name the country instead.
    fn is_recorded(&self, name: &str) -> bool {
        let Ok(code) = name.parse::<JurisdictionCode>() else { return false };
        self.snapshot.facts.place(code.clone()).map_or(true, |place| place == code)
    }

    /// What is wrong with `name`, and what was meant.
    fn detail(&self, of: &str, name: &str) -> String {
        let meant = match of {
            "kind" => return unknown_kind(name),
            "jurisdiction" | "origin" | "destination" => self.place(name),
            _ => self.like(of, name),
        };
        let noun = match of {
            "key" => "API key",
            "origin" | "destination" => "jurisdiction",
            other => other,
        };
        let knows = if self.is_limited {
            "nothing that this API key may read"
        } else {
            "neither the active snapshot nor any record"
        };
        format!("{knows} has the {noun} `{}`{meant}", shown(name))
    }

    fn like(&self, of: &str, name: &str) -> String {
        let known = self.known(of);
        let meant = did_you_mean(name, known.iter().copied());
        if meant.is_empty() && (1..=FEW).contains(&known.len()) {
            let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            return format!(": want one of {}", known.join(", "));
        }
        meant
    }

    /// A place that is the name of a zone, or of a country, or nearly so.
    fn place(&self, name: &str) -> String {
        let facts = &self.snapshot.facts;
        let code = name.parse::<JurisdictionCode>().ok();
        if let Some(country) = code.clone().and_then(|code| facts.place(code).ok())
            && Some(&country) != code.as_ref()
        {
            return format!("; records name only its country: write `{country}`");
        }
        let zone = facts.zones.iter().find(|(zone, _)| zone.eq_ignore_ascii_case(name));
        if let Some((_, members)) = zone {
            let some: Vec<_> =
                members.iter().take(MEMBERS).map(|code| format!("`{code}`")).collect();
            return format!(
                ", which is a zone: name one of its jurisdictions, such as {}",
                some.join(", ")
            );
        }
        let codes = || facts.jurisdictions.keys().map(JurisdictionCode::as_str);
        // `nearest` gives no name that is the same to the letter.
        let names = || facts.jurisdictions.values().map(|row| &*row.name);
        let like = names().find(|known| *known == name).or_else(|| nearest(name, names()));
        let by_name =
            like.and_then(|like| facts.jurisdictions.iter().find(|(_, row)| row.name == like));
        match (nearest(name, codes()), by_name) {
            (Some(code), _) => format!(": did you mean `{code}`?"),
            (None, Some((code, row))) => format!(": did you mean `{code}` ({})?", row.name),
            (None, None) => ": want an ISO 3166 code such as `DE` or `CA-QC`".to_owned(),
        }
    }
}
