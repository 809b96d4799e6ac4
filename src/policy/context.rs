//! The contexts of requests, built from typed values. Their shape is the schema's.

use cedar_policy::{Context, ContextCreationError, RestrictedExpression as Value};

use super::names::{EntityKind, uid};
use crate::domain::{Data, DeploymentId, JurisdictionCode, TenantId};

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
pub fn use_context(
    data: Option<&Data>,
    purpose: Option<&str>,
    audience: &[JurisdictionCode],
) -> Result<Context, Box<ContextCreationError>> {
    let audience = audience
        .iter()
        .map(|code| Value::new_entity_uid(uid(EntityKind::Jurisdiction, code.as_str())));
    let pairs = [
        ("data".to_owned(), data_value(data)?),
        ("purpose".to_owned(), purpose_value(purpose)),
        ("audience".to_owned(), Value::new_set(audience)),
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
