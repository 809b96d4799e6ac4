//! The contexts of requests, built from typed values. Their shape is the schema's.

use cedar_policy::{Context, ContextCreationError, RestrictedExpression as Value};

use super::{
    names::{EntityKind, uid},
    volume::VolumeField,
};
use crate::domain::{Data, DeploymentId, JurisdictionCode, TenantId};

/// What a use request knows beside the app and the deployment.
#[derive(Debug)]
pub struct UseContext<'a> {
    /// The call's data.
    pub data: Option<&'a Data>,
    /// The classes into which the data falls.
    pub classes: &'a [&'a str],
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
    /// The classes into which the data falls.
    pub classes: &'a [&'a str],
    /// The declared purpose.
    pub purpose: Option<&'a str>,
    /// Kinds of instrument in force between the tenant and the operator.
    pub instruments: &'a [String],
    /// The thresholds that the call reaches.
    pub reached: &'a [String],
    /// How many people's data left this year, as far as policies ask.
    pub volume: &'a [(VolumeField, u64)],
    /// Who exports.
    pub tenant: &'a TenantId,
    /// Where it goes.
    pub deployment: &'a DeploymentId,
}

fn data_value(data: Option<&Data>, classes: &[&str]) -> Result<Value, Box<ContextCreationError>> {
    let classified = data.is_some_and(Data::is_classified);
    let personal = data.is_some_and(|data| data.personal);
    let categories = data.into_iter().flat_map(|data| &data.categories);
    let fields = [
        ("classified".to_owned(), Value::new_bool(classified)),
        ("personal".to_owned(), Value::new_bool(personal)),
        ("categories".to_owned(), strings(categories)),
        ("classes".to_owned(), strings(classes)),
    ];
    Ok(Value::new_record(fields).map_err(ContextCreationError::from)?)
}

fn strings<T: ToString>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::new_set(texts.into_iter().map(|text| Value::new_string(text.to_string())))
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
        ("data".to_owned(), data_value(call.data, call.classes)?),
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
    let volume = VolumeField::ALL.map(|field| {
        let found = flow.volume.iter().find(|(asked, _)| *asked == field);
        let number = found.map_or(0, |(_, number)| *number);
        let number = Value::new_long(i64::try_from(number).unwrap_or(i64::MAX));
        (field.as_str().to_owned(), number)
    });
    let volume = Value::new_record(volume).map_err(ContextCreationError::from)?;
    let pairs = [
        ("data".to_owned(), data_value(flow.data, flow.classes)?),
        ("purpose".to_owned(), purpose_value(flow.purpose)),
        ("instruments".to_owned(), strings(flow.instruments)),
        ("reached".to_owned(), strings(flow.reached)),
        ("volume".to_owned(), volume),
        ("tenant".to_owned(), Value::new_entity_uid(uid(EntityKind::Tenant, flow.tenant.as_str()))),
        (
            "deployment".to_owned(),
            Value::new_entity_uid(uid(EntityKind::Deployment, flow.deployment.as_str())),
        ),
    ];
    Ok(Context::from_pairs(pairs)?)
}
