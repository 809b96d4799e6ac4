//! What identifies persons: read by the auditor who may, erased when the person asks.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::{REMOVED, find, is_removed, reading},
    auth::{AsAuditor, AsOfficer},
    body::Params,
    examples,
    problem::{Problem, ProblemKind, problems},
};
use crate::{
    domain::{FieldFault, Seq, TenantId},
    gate::Opened,
};

problems! { ReadProblems: Unauthenticated, Forbidden, NotFound, Gone, QueueFull, LedgerUnavailable,
Timeout, Internal }
problems! { EraseProblems: MalformedQuery, Unauthenticated, Forbidden, QueueFull, LedgerUnavailable,
Timeout, Internal }

/// The endpoints of personal values.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(erase))
}

/// What a record commits to.
#[derive(Debug, Serialize, ToSchema)]
struct Values {
    /// The record.
    seq: Seq,
    /// The end user, as the caller named them.
    end_user: String,
    /// 32 bytes, 64 hexadecimal digits.
    salt: String,
    /// What stands in the record: SHA-256 of `lexgate/commit/v1`, a zero byte, the salt and the name.
    user_commitment: String,
}

/// Read whom a record is about.
///
/// For auditors whose credential says `personal_values = true`. The reading is recorded. With the salt,
/// anybody can see that the record's commitment is to this name.
#[utoipa::path(
    get, path = "/v1/audit/records/{seq}/values", tag = "audit", operation_id = "readValues",
    security(("api_key" = [])),
    params(("seq" = u64, Path, description = "The record's position", example = 42)),
    responses((status = 200, description = "What the record commits to", body = Values,
        example = json!(examples::values())), ReadProblems),
)]
async fn read(
    State(shared): State<Arc<Shared>>,
    auditor: AsAuditor,
    Path(seq): Path<String>,
) -> Result<axum::Json<Values>, Problem> {
    if !auditor.personal_values {
        let detail = "this API key is not `personal_values = true`";
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    let missing = || Problem::new(ProblemKind::NotFound, format!("there is no record {seq}"));
    let wanted = Seq::new(seq.parse().map_err(|_| missing())?);
    let asked = BTreeMap::from([("seq".to_owned(), wanted.to_string())]);
    shared.gate.record_reading(reading(&auditor, "readValues", asked)).await?;
    if find(&shared, &auditor, wanted).await?.is_none() {
        let is_removed = is_removed(&shared, &auditor, wanted).await?;
        return Err(if is_removed { Problem::new(ProblemKind::Gone, REMOVED) } else { missing() });
    }
    match shared.gate.open_value(wanted).await? {
        Opened::Nothing => {
            Err(Problem::new(ProblemKind::NotFound, "the record commits to no end user"))
        }
        Opened::Erased(Some(record)) => Err(Problem::new(
            ProblemKind::Gone,
            format!("the value was erased, as record {record} says"),
        )),
        Opened::Erased(None) => {
            Err(Problem::new(ProblemKind::Gone, "the value is being erased: its key is destroyed"))
        }
        Opened::Value { end_user, salt, commitment } => {
            let mut hex = String::new();
            for byte in salt {
                let _ = write!(hex, "{byte:02x}");
            }
            let user_commitment = commitment.hex();
            Ok(axum::Json(Values { seq: wanted, end_user, salt: hex, user_commitment }))
        }
    }
}

/// Whose end user is to be erased.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The tenant whose apps named them; not needed when the organisation has one tenant.
    #[param(value_type = Option<String>, example = "acme")]
    tenant: Option<String>,
}

/// What an erasure came to.
#[derive(Debug, Serialize, ToSchema)]
struct ErasedAnswer {
    /// How many records can no longer be traced to them.
    values: u64,
    /// The records that say so, without naming them; none when nothing was kept of them.
    records: Vec<Seq>,
}

/// Erase an end user.
///
/// Destroys the key and the values by which records can be traced to them. The records stay, and so
/// does the proof that they are whole. Takes some seconds. What they do afterwards is kept under a new
/// key. Asking again is harmless.
#[utoipa::path(
    delete, path = "/v1/subjects/{end_user}", tag = "registers", operation_id = "eraseSubject",
    security(("api_key" = [])),
    params(("end_user" = String, Path, description = "The `end_user` of their calls",
        example = "u-1842"), Whose),
    responses((status = 200, description = "They are erased", body = ErasedAnswer,
        example = json!({"values": 3, "records": [57]})), EraseProblems),
)]
async fn erase(
    State(shared): State<Arc<Shared>>,
    officer: AsOfficer,
    Path(user): Path<String>,
    Params(whose): Params<Whose>,
) -> Result<axum::Json<ErasedAnswer>, Problem> {
    let judge = shared.gate.keeper().current();
    let tenants = &judge.snapshot().organisation.tenants;
    let tenant = match &whose.tenant {
        Some(tenant) => shared.gate.known_tenant(tenant).await?,
        None if tenants.len() == 1 => tenants.keys().next().cloned(),
        None => None,
    };
    let tenant = tenant.ok_or_else(|| {
        let names: Vec<_> = tenants.keys().map(TenantId::as_str).collect();
        let fault = FieldFault::new("tenant", format!("want one of: {}", names.join(", ")));
        Problem::fields(ProblemKind::MalformedQuery, vec![fault])
    })?;
    let erased = shared.gate.erase(&officer.key, &tenant, &user).await?;
    Ok(axum::Json(ErasedAnswer { values: erased.values, records: erased.records }))
}
