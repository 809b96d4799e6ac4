//! What identifies persons, and what calls said: read by the auditor who may, erased when the person asks.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{Path, State};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::{REMOVED, find, is_removed, reading},
    auth::{AsAuditor, AsOfficer},
    body::Params,
    examples,
    holds::check_reason,
    problem::{Problem, ProblemKind, problems},
};
use crate::{
    domain::{Digest, EndUser, FieldFault, Seq, TenantId},
    gate::{Erasure, GateError, Opened, OpenedContent},
};

problems! { ReadProblems: Unauthenticated, Forbidden, NotFound, Gone, LimitReached, QueueFull,
LedgerUnavailable, Overloaded, StorageLow, Timeout, Internal }
problems! { EraseProblems: MalformedQuery, Unauthenticated, Forbidden, NotFound, LegalHold,
InvalidRequest, QueueFull, LedgerUnavailable, Timeout, Internal }

/// The endpoints of personal values.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(erase))
}

/// What a record commits to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RecordValues)]
enum Values {
    /// Of a decision.
    Decision(DecisionValues),
    /// Of an outcome.
    Outcome(OutcomeValues),
}

/// Whom a decision is about.
#[derive(Debug, Serialize, ToSchema)]
struct DecisionValues {
    /// The record.
    seq: Seq,
    /// The end user, as the caller named them.
    end_user: String,
    /// 32 bytes, 64 hexadecimal digits.
    salt: String,
    /// What stands in the record: SHA-256 of `lexgate/commit/v1`, a zero byte, the salt and the name.
    user_commitment: String,
}

/// What a call said, and what it was answered.
#[derive(Debug, Serialize, ToSchema)]
struct OutcomeValues {
    /// The record.
    seq: Seq,
    /// The body of the request, as the client sent it.
    #[schema(required = true)]
    input: Option<ContentValue>,
    /// The body of the answer, as it was handed to the client: of a stream every event, without the
    /// comment `: keepalive`. `null` where no backend's answer was handed on.
    #[schema(required = true)]
    output: Option<ContentValue>,
}

/// Content, or what makes its commitment again for whoever has it.
#[derive(Debug, Serialize, ToSchema)]
struct ContentValue {
    /// 32 bytes, 64 hexadecimal digits.
    salt: String,
    /// What stands in the record: SHA-256 of `lexgate/commit/v1`, a zero byte, the salt and the content.
    commitment: String,
    /// Whether the content is kept: the app's `content` is `sealed`, and it has at most 1 MiB.
    kept: bool,
    /// The content, where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// How the content is written here, where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<Encoding>,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
enum Encoding {
    /// As they are: they are UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// In base64 (RFC 4648, section 4): they are not.
    #[serde(rename = "base64")]
    Base64,
}

impl From<OpenedContent> for ContentValue {
    fn from(opened: OpenedContent) -> Self {
        let kept = opened.content.is_some();
        let written = opened.content.map(|content| match String::from_utf8(content) {
            Ok(text) => (text, Encoding::Utf8),
            Err(error) => (BASE64_STANDARD.encode(error.as_bytes()), Encoding::Base64),
        });
        let (content, encoding) = written.unzip();
        let salt = Digest::from_bytes(opened.salt).hex();
        Self { salt, commitment: opened.commitment.hex(), kept, content, encoding }
    }
}

/// Read what a record commits to.
///
/// Of a decision: whom it is about. Of an outcome: what the call said and what it was answered, as far as
/// the app's `content` has it kept. For auditors whose credential says `personal_values = true`. The
/// reading is recorded. With the salt and the value, anybody can see that the record's commitment is to it.
#[utoipa::path(
    get, path = "/v1/audit/records/{seq}/values", tag = "audit", operation_id = "readValues",
    security(("api_key" = [])),
    params(("seq" = u64, Path, description = "The record's position", example = 0)),
    responses((status = 200, description = "What the record commits to", body = Values,
        examples(
            ("decision" = (summary = "Of a decision", value = json!(examples::values()))),
            ("outcome" = (summary = "Of an outcome", value = json!(examples::content()))),
        )), ReadProblems),
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
            Err(Problem::new(ProblemKind::NotFound, "the record commits to nothing"))
        }
        Opened::Erased(Some(record)) => Err(Problem::new(
            ProblemKind::Gone,
            format!("the value was erased, as record {record} says"),
        )),
        Opened::Erased(None) => {
            Err(Problem::new(ProblemKind::Gone, "the value is being erased: its key is destroyed"))
        }
        Opened::NeverKept => Err(Problem::new(
            ProblemKind::Gone,
            "the value was never kept: its person was erased while the call was under way",
        )),
        Opened::Value { end_user, salt, commitment } => {
            let salt = Digest::from_bytes(salt).hex();
            let user_commitment = commitment.hex();
            let values = DecisionValues { seq: wanted, end_user, salt, user_commitment };
            Ok(axum::Json(Values::Decision(values)))
        }
        Opened::Content { input, output } => {
            let (input, output) = (input.map(Into::into), output.map(Into::into));
            Ok(axum::Json(Values::Outcome(OutcomeValues { seq: wanted, input, output })))
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
    /// Why a legal hold on their records does not keep them: 1 to 1,000 characters, which the record of the
    /// erasure repeats. Without it, such a hold does.
    #[param(value_type = Option<String>, example = "order of the court of 2026-11-30")]
    despite_hold: Option<String>,
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
/// key. The name is brought into the form that calls give it; 404 says that nothing is kept of such a
/// person, also when all is erased already. A legal hold on one of their records is a 409 that names it.
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
    if let Some(fault) =
        whose.despite_hold.as_deref().and_then(|reason| check_reason(reason, "despite_hold"))
    {
        return Err(Problem::fields(ProblemKind::MalformedQuery, vec![fault]));
    }
    let valid = EndUser::parse(&user);
    let erasure =
        Erasure { officer: officer.key, tenant, end_user: user, despite_hold: whose.despite_hold };
    let erased = match (shared.gate.erase(&erasure).await, valid) {
        // Nobody of this name can have called; a version before this one may have sealed them.
        (Err(GateError::NoSuchPerson), Err(error)) => {
            let fault = FieldFault::parameter("end_user", error.to_string());
            return Err(Problem::fields(ProblemKind::InvalidRequest, vec![fault]));
        }
        (erased, _) => erased?,
    };
    Ok(axum::Json(ErasedAnswer { values: erased.values, records: erased.records }))
}
