//! The contexts of requests, built from typed values. Their shape is the schema's.

use cedar_policy::{Context, ContextCreationError, RestrictedExpression as Value};

use super::names::{EntityKind, uid};
use crate::domain::{Data, DeploymentId, JurisdictionCode, TenantId};

/// What a use request knows beside the app and the deployment.
#[derive(Debug)]
pub struct UseContext<'a> {
    /// The call's data.
    pub data: Option<&'a Data>,
    /// The declared purpose.
    pub purpose: Option<&'a str>,
    /// Where the answer is used.
    pub audience: &'a [JurisdictionCode],
    /// Every zone that holds one of these places.
    pub audience_zones: &'a [&'a str],
}

/// What a flow request knows beside its two jurisdictions.
#[derive(Debug)]
pub struct FlowContext<'a> {
    /// The call's data.
    pub data: Option<&'a Data>,
    /// The declared purpose.
    pub purpose: Option<&'a str>,
    /// Kinds of instrument in force between the tenant and the operator.
    pub instruments: &'a [String],
    /// Who exports.
    pub tenant: &'a TenantId,
    /// Where it goes.
    pub deployment: &'a DeploymentId,
}

fn data_value(data: Option<&Data>) -> Result<Value, Box<ContextCreationError>> {
    let classified = data.is_some_and(Data::is_classified);
    let personal = data.is_some_and(|data| data.personal);
    let categories = data.into_iter().flat_map(|data| &data.categories);
    let fields = [
        ("classified".to_owned(), Value::new_bool(classified)),
        ("personal".to_owned(), Value::new_bool(personal)),
        ("categories".to_owned(), strings(categories)),
    ];
    Ok(Value::new_record(fields).map_err(ContextCreationError::from)?)
}

fn strings<'a>(texts: impl IntoIterator<Item = &'a String>) -> Value {
    Value::new_set(texts.into_iter().map(|text| Value::new_string(text.clone())))
}

fn purpose_value(purpose: Option<&str>) -> Value {
    Value::new_string(purpose.unwrap_or_default().to_owned())
}

/// The context of a use request.
///
/// # Errors
/// When Cedar refuses a value, which typed values do not give cause for.
pub fn use_context(call: &UseContext<'_>) -> Result<Context, Box<ContextCreationError>> {
    let entities = |kind, ids: &mut dyn Iterator<Item = &str>| {
        Value::new_set(ids.map(|id| Value::new_entity_uid(uid(kind, id))))
    };
    let audience = &mut call.audience.iter().map(JurisdictionCode::as_str);
    let zones = &mut call.audience_zones.iter().copied();
    let pairs = [
        ("data".to_owned(), data_value(call.data)?),
        ("purpose".to_owned(), purpose_value(call.purpose)),
        ("audience".to_owned(), entities(EntityKind::Jurisdiction, audience)),
        ("audienceZones".to_owned(), entities(EntityKind::Zone, zones)),
    ];
    Ok(Context::from_pairs(pairs)?)
}

/// The context of a flow request.
///
/// # Errors
/// When Cedar refuses a value, which typed values do not give cause for.
pub fn flow_context(flow: &FlowContext<'_>) -> Result<Context, Box<ContextCreationError>> {
    let subjects = flow.data.map_or(0, |data| data.subject_count);
    let subjects = i64::try_from(subjects).unwrap_or(i64::MAX);
    let sensitive =
        if flow.data.is_some_and(|data| data.categories.is_empty()) { 0 } else { subjects };
    let volume = [
        ("subjects".to_owned(), Value::new_long(subjects)),
        ("sensitiveSubjects".to_owned(), Value::new_long(sensitive)),
    ];
    let volume = Value::new_record(volume).map_err(ContextCreationError::from)?;
    let pairs = [
        ("data".to_owned(), data_value(flow.data)?),
        ("purpose".to_owned(), purpose_value(flow.purpose)),
        ("instruments".to_owned(), strings(flow.instruments)),
        ("volume".to_owned(), volume),
        ("tenant".to_owned(), Value::new_entity_uid(uid(EntityKind::Tenant, flow.tenant.as_str()))),
        (
            "deployment".to_owned(),
            Value::new_entity_uid(uid(EntityKind::Deployment, flow.deployment.as_str())),
        ),
    ];
    Ok(Context::from_pairs(pairs)?)
}
