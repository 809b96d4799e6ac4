//! Which deployments pass on what a call needs passed on. Not what such parts of a request are
//! (`domain::passing`).

use super::Deployment;
use crate::domain::{TenantId, passing::is_reference};

/// No deployment passes on what a call needs passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotPassed {
    /// The field that is not passed on.
    pub field: String,
    /// What can be done.
    pub detail: String,
}

/// Those of `candidates` that pass on all `fields` of a call of `tenant`. `names_one` says whether the call
/// names its deployment: what refers to one provider goes to no other.
///
/// # Errors
/// When there is none, with what can be done.
pub fn passing<'a>(
    candidates: Vec<&'a Deployment>,
    fields: &[String],
    tenant: &TenantId,
    names_one: bool,
) -> Result<Vec<&'a Deployment>, NotPassed> {
    let Some(first) = fields.first() else { return Ok(candidates) };
    if let Some(field) = fields.iter().find(|field| !names_one && is_reference(field)) {
        let detail = format!(
            "`{field}` refers to what lies at one provider: name the deployment that gave it as the \
             model, or leave it out"
        );
        return Err(NotPassed { field: field.clone(), detail });
    }
    let passes = |deployment: &Deployment, field: &String| deployment.passes_on(field, tenant);
    let (all, some): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|deployment| fields.iter().all(|field| passes(deployment, field)));
    if !all.is_empty() {
        return Ok(all);
    }
    let nowhere =
        fields.iter().find(|field| !some.iter().any(|deployment| passes(deployment, field)));
    let Some(field) = nowhere else {
        let detail = format!("no one deployment passes on all of `{}`", fields.join("`, `"));
        return Err(NotPassed { field: first.clone(), detail });
    };
    let key = if is_reference(field) {
        format!(
            ", and `[deployments.backend] tenant = \"{tenant}\"` if its key is that tenant's own"
        )
    } else {
        String::new()
    };
    let detail = format!(
        "no deployment of this model passes `{field}` on: leave it out, or have the organisation file \
         say at a deployment what it reaches{key}:\n[[deployments.passes]]\nfield = \"{field}\"\n\
         reaches = [] # each jurisdiction that it sends to, such as \"US\""
    );
    Err(NotPassed { field: field.clone(), detail })
}
