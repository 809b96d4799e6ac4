//! Facts as Cedar entities, in the schema's shape.

use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{
    Entities, Entity, EntityAttrEvaluationError, EntityUid, RestrictedExpression as Value, Schema,
};

use super::{SnapshotError, names::COVERED_ZONE};
use crate::{
    domain::JurisdictionCode,
    facts::{
        organisation::{Deployment, Model, Operator, Organisation, Tenant},
        world::at::{FactsAt, Licence},
    },
    policy::{EntityKind, uid},
};

type Attributes = HashMap<String, Value>;
type Built = Result<Entity, Box<EntityAttrEvaluationError>>;

fn entity(uid: EntityUid, attributes: Attributes, parents: HashSet<EntityUid>) -> Built {
    Entity::new(uid, attributes, parents).map_err(Box::new)
}

/// Every entity that the policies can see, valid against `schema`.
pub(in crate::facts) fn entities(
    facts: &FactsAt,
    organisation: &Organisation,
    schema: &Schema,
) -> Result<Entities, SnapshotError> {
    let zones = facts.zones.keys().map(String::as_str).chain([COVERED_ZONE]);
    let groups = zones
        .map(|id| uid(EntityKind::Zone, id))
        .chain(facts.adequacy.keys().map(|id| uid(EntityKind::Adequacy, id)))
        .map(|uid| Ok(Entity::new_no_attrs(uid, HashSet::new())));
    let licences = facts.licences.iter().map(|(id, licence)| license(id.as_str(), licence));
    let tenants = organisation.tenants.iter().map(|(id, row)| tenant(id.as_str(), row));
    let apps = organisation.apps.iter().map(|(id, app)| {
        let tenant = uid(EntityKind::Tenant, app.tenant.as_str());
        let attributes = Attributes::from([
            ("tenant".to_owned(), Value::new_entity_uid(tenant.clone())),
            ("hostedForEndUsers".to_owned(), Value::new_bool(app.hosted_for_end_users)),
        ]);
        entity(uid(EntityKind::App, id.as_str()), attributes, HashSet::from([tenant]))
    });
    let operators = organisation.operators.iter().map(|(id, row)| operator(id.as_str(), row));
    let models = organisation.models.iter().map(|(id, row)| model(id.as_str(), row));
    let deployments = organisation.deployments.iter().map(deployment);
    let all: Vec<Entity> = groups
        .chain(jurisdictions(facts))
        .chain(licences)
        .chain(tenants)
        .chain(apps)
        .chain(operators)
        .chain(models)
        .chain(deployments)
        .collect::<Result<_, _>>()?;
    Ok(Entities::from_entities(all, Some(schema))?)
}

fn jurisdictions(facts: &FactsAt) -> impl Iterator<Item = Built> {
    let mut parents: BTreeMap<&JurisdictionCode, HashSet<EntityUid>> = BTreeMap::new();
    for (code, jurisdiction) in &facts.jurisdictions {
        let within = jurisdiction.within.iter().map(place);
        parents.entry(code).or_default().extend(within);
    }
    let zones = facts.zones.iter().map(|(id, members)| (uid(EntityKind::Zone, id), members));
    let findings =
        facts.adequacy.iter().map(|(id, members)| (uid(EntityKind::Adequacy, id), members));
    let covered = std::iter::once((uid(EntityKind::Zone, COVERED_ZONE), &facts.coverage));
    for (group, members) in zones.chain(findings).chain(covered) {
        for member in members {
            parents.entry(member).or_default().insert(group.clone());
        }
    }
    parents.into_iter().map(|(code, parents)| Ok(Entity::new_no_attrs(place(code), parents)))
}

fn place(code: &JurisdictionCode) -> EntityUid {
    uid(EntityKind::Jurisdiction, code.as_str())
}

fn places<'a>(codes: impl IntoIterator<Item = &'a JurisdictionCode>) -> Value {
    Value::new_set(codes.into_iter().map(|code| Value::new_entity_uid(place(code))))
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> Value {
    Value::new_set(texts.into_iter().map(|text| Value::new_string(text.clone())))
}

fn number(number: u64) -> Value {
    Value::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn license(id: &str, licence: &Licence) -> Built {
    let mut attributes = Attributes::from([
        ("commercialUse".to_owned(), Value::new_bool(licence.commercial_use)),
        ("outputTraining".to_owned(), Value::new_bool(licence.output_training)),
        ("excludedTerritories".to_owned(), places(&licence.excluded_territories)),
        ("excludedPurposes".to_owned(), texts(&licence.excluded_purposes)),
    ]);
    for (key, limit) in [
        ("monthlyActiveUsersLimit", licence.monthly_active_users_limit),
        ("monthlyRevenueUsdLimit", licence.monthly_revenue_usd_limit),
        ("annualRevenueUsdLimit", licence.annual_revenue_usd_limit),
    ] {
        attributes.extend(limit.map(|limit| (key.to_owned(), number(limit))));
    }
    entity(uid(EntityKind::License, id), attributes, HashSet::new())
}

fn tenant(id: &str, tenant: &Tenant) -> Built {
    let side_licences = tenant
        .side_licences
        .iter()
        .map(|licence| Value::new_entity_uid(uid(EntityKind::License, licence.as_str())));
    let attributes = Attributes::from([
        ("domicile".to_owned(), Value::new_entity_uid(place(&tenant.domicile))),
        ("commercial".to_owned(), Value::new_bool(tenant.commercial)),
        ("monthlyActiveUsers".to_owned(), number(tenant.monthly_active_users)),
        ("monthlyRevenueUsd".to_owned(), number(tenant.monthly_revenue_usd)),
        ("annualRevenueUsd".to_owned(), number(tenant.annual_revenue_usd)),
        ("sideLicences".to_owned(), Value::new_set(side_licences)),
    ]);
    entity(uid(EntityKind::Tenant, id), attributes, HashSet::new())
}

fn operator(id: &str, operator: &Operator) -> Built {
    let attributes = Attributes::from([
        ("seat".to_owned(), Value::new_entity_uid(place(&operator.seat))),
        ("certifications".to_owned(), texts(&operator.certifications)),
    ]);
    entity(uid(EntityKind::Operator, id), attributes, HashSet::new())
}

fn model(id: &str, model: &Model) -> Built {
    let license = uid(EntityKind::License, model.license.as_str());
    let attributes = Attributes::from([
        ("license".to_owned(), Value::new_entity_uid(license)),
        ("provider".to_owned(), Value::new_string(model.provider.clone())),
        ("modalities".to_owned(), texts(&model.modalities)),
    ]);
    entity(uid(EntityKind::Model, id), attributes, HashSet::new())
}

fn deployment(deployment: &Deployment) -> Built {
    let reference = |kind, id: &str| Value::new_entity_uid(uid(kind, id));
    let attributes = Attributes::from([
        ("model".to_owned(), reference(EntityKind::Model, deployment.model.as_str())),
        ("operator".to_owned(), reference(EntityKind::Operator, deployment.operator.as_str())),
        ("tier".to_owned(), Value::new_string(deployment.tier.as_str().to_owned())),
        ("approved".to_owned(), Value::new_bool(deployment.approved)),
        ("retentionHours".to_owned(), number(deployment.retention_hours)),
        ("safeguards".to_owned(), texts(&deployment.safeguards)),
    ]);
    entity(uid(EntityKind::Deployment, deployment.id.as_str()), attributes, HashSet::new())
}
