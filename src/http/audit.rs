//! The ledger for regulators: find records, read one. Each reading is itself recorded.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{Path, State};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Shared,
    auth::AsAuditor,
    body::Params,
    examples, names,
    problem::{Problem, ProblemKind, problems},
};
use crate::{
    domain::{FieldFault, Seq, Tier, Verdict},
    gate::{GateError, Reading},
    ledger::{Kind, parse_timestamp},
    store::{RecordQuery, Stored},
};

/// The most records of a page.
const MAX_PAGE: usize = 1000;
/// The longest name that is searched for.
const LONGEST: usize = 256;
/// The records of a page unless the query says otherwise.
const PAGE: usize = 100;
/// The word for the order in which the newest record comes first.
const NEWEST_FIRST: &str = "desc";

problems! { ListProblems: MalformedQuery, Unauthenticated, Forbidden, LimitReached, QueueFull,
LedgerUnavailable, Overloaded, StorageLow, Timeout, SlowQuery, Internal }
problems! { RecordProblems: Unauthenticated, Forbidden, NotFound, LimitReached, QueueFull,
LedgerUnavailable, Overloaded, StorageLow, Timeout, SlowQuery, Internal }

/// The audit endpoints.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// Which records are wanted. All conditions must hold.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Written at this instant (RFC 3339) or later.
    #[param(example = "2026-11-01T00:00:00Z")]
    from: Option<String>,
    /// Written before this instant (RFC 3339).
    to: Option<String>,
    /// `genesis`, `decision`, `outcome`, `late_outcome`, `bundle_activated`, `audit_read`, `key_changed`,
    /// `key_retired`, `ledger_recovered`, `clock_corrected`, `erasure`, `segment_pruned`, `legal_hold`,
    /// `refused`.
    kind: Option<String>,
    /// `allow` or `deny`.
    decision: Option<String>,
    /// Of this tenant.
    tenant: Option<String>,
    /// Of this app.
    app: Option<String>,
    /// Asking for this model or virtual model, or sent to it.
    model: Option<String>,
    /// Sent to this deployment; for a denial: considered for it.
    deployment: Option<String>,
    /// `on_device`, `hybrid_gpu` or `remote`: where it was sent; for a denial: considered for it.
    tier: Option<String>,
    /// Having this jurisdiction, or a part of it, as an origin or a destination.
    #[param(example = "SG")]
    jurisdiction: Option<String>,
    /// Decided by this policy.
    policy: Option<String>,
    /// About data of this category.
    category: Option<String>,
    /// About data whose subjects, or which itself, are in this jurisdiction or a part of it.
    origin: Option<String>,
    /// Sent to where this jurisdiction, or a part of it, processes, stores, has access, operates or owns;
    /// for a denial: considered for it.
    destination: Option<String>,
    /// Decided while an instrument of this kind, or with this name, was in force.
    instrument: Option<String>,
    /// For this purpose.
    purpose: Option<String>,
    /// Of this API key, by its name: it called, read, or was refused.
    key: Option<String>,
    /// The record with this identifier, and the outcome of a decision that has it.
    #[param(value_type = Option<uuid::Uuid>)]
    id: Option<String>,
    /// `asc`, oldest first, or `desc`, newest first; `asc` when absent.
    order: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000, value_type = Option<u32>)]
    limit: Option<String>,
}

/// A page of records.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecordPage)]
struct Page {
    /// The records.
    records: Vec<Record>,
    /// What to send as `after` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A record, with the bytes that its leaf hash is of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Record {
    /// Its position.
    seq: Seq,
    /// Its leaf hash: SHA-256 of a zero byte and the entry's bytes, 64 hexadecimal digits.
    leaf: String,
    /// The entry: its bytes are canonical JSON (RFC 8785) as they stand here.
    #[schema(value_type = Object)]
    entry: Box<RawValue>,
}

impl Record {
    pub(super) fn read(stored: &Stored) -> Result<Self, Problem> {
        let entry = serde_json::from_slice(&stored.entry).map_err(|_| GateError::Corrupt)?;
        Ok(Self { seq: stored.seq, leaf: stored.leaf.hex(), entry })
    }
}

impl Filters {
    /// Whether there is a limit in it.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Each filter that cannot be used, behind `prefix`.
    pub(super) fn faults(&self, prefix: &str) -> Vec<FieldFault> {
        let faults = self.parse().err().unwrap_or_default().into_iter();
        faults
            .map(|fault| FieldFault::new(format!("{prefix}{}", fault.pointer), fault.detail))
            .collect()
    }

    pub(super) fn query(&self, auditor: &AsAuditor) -> Result<RecordQuery, Problem> {
        let query = self.parse();
        let query = query.map_err(|faults| Problem::fields(ProblemKind::MalformedQuery, faults))?;
        Ok(RecordQuery { any_of: scope(auditor), ..query })
    }

    fn parse(&self) -> Result<RecordQuery, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let mut instant = |name: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            let instant = parse_timestamp(text).or_else(|| text.parse::<Timestamp>().ok());
            if instant.is_none() {
                faults.push(FieldFault::new(
                    name,
                    "want an RFC 3339 instant such as `2026-11-22T13:00:00Z`",
                ));
            }
            instant
        };
        let (from, to) = (instant("from", &self.from), instant("to", &self.to));
        let limit = self.limit.as_ref().map_or(Some(PAGE), |limit| limit.parse().ok());
        let limit = limit.filter(|limit| (1..=MAX_PAGE).contains(limit)).unwrap_or_else(|| {
            faults.push(FieldFault::new("limit", format!("want a number from 1 to {MAX_PAGE}")));
            PAGE
        });
        let newest_first = self.order.as_deref() == Some(NEWEST_FIRST);
        let cursor = self.after.as_ref().and_then(|cursor| {
            let seq = read_cursor(cursor, newest_first);
            if seq.is_none() {
                faults.push(FieldFault::new(
                    "after",
                    "send the `next` of the page before, as it was, with the same `order`",
                ));
            }
            seq
        });
        let kind = self.kind.as_deref().and_then(|kind| {
            let known = Kind::parse(kind);
            if known.is_none() {
                faults.push(FieldFault::new("kind", names::unknown_kind(kind)));
            }
            known
        });
        let id = self.id.as_ref().map(|id| id.parse::<Uuid>());
        if let Some(Err(_)) = id {
            let want =
                "want the identifier of a record, such as `0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11`";
            faults.push(FieldFault::new("id", want));
        }
        // A misspelt word would find nothing, which reads like good news.
        let mut word = |name: &str, value: &Option<String>, words: &[&str]| {
            if value.as_ref().is_some_and(|value| !words.contains(&value.as_str())) {
                faults.push(FieldFault::new(name, format!("want {}", words.join(" or "))));
            }
        };
        word("decision", &self.decision, &[Verdict::Allow.as_str(), Verdict::Deny.as_str()]);
        let tiers = [Tier::OnDevice, Tier::HybridGpu, Tier::Remote].map(Tier::as_str);
        word("tier", &self.tier, &tiers);
        word("order", &self.order, &["asc", NEWEST_FIRST]);
        for (name, value) in self.conditions() {
            if value.as_ref().is_some_and(|value| !(1..=LONGEST).contains(&value.chars().count())) {
                faults.push(FieldFault::new(name, format!("want 1 to {LONGEST} characters")));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (after, before) = if newest_first { (None, cursor) } else { (cursor, None) };
        let (id, terms) = (id.and_then(Result::ok), self.terms());
        let any_of = Vec::new();
        let by_entries = false;
        Ok(RecordQuery {
            from,
            to,
            kind,
            id,
            terms,
            any_of,
            after,
            before,
            newest_first,
            limit,
            by_entries,
        })
    }

    /// The names that are searched for, each with what it is the name of.
    pub(super) fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let kind = [("kind", &self.kind)];
        let names = kind.into_iter().chain(self.conditions());
        let names = names.filter_map(|(of, name)| Some((of, name.as_deref()?)));
        // These were held against the words that there are.
        names.filter(|(of, _)| !matches!(*of, "tier" | "decision"))
    }

    /// Every parameter that was given.
    pub(super) fn given(&self) -> BTreeMap<String, String> {
        let rest = [
            ("from", &self.from),
            ("to", &self.to),
            ("kind", &self.kind),
            ("id", &self.id),
            ("order", &self.order),
            ("after", &self.after),
            ("limit", &self.limit),
        ];
        let given = self.conditions().into_iter().chain(rest);
        given.filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
    }

    /// The words to search for.
    fn terms(&self) -> Vec<String> {
        let given = self.conditions().into_iter();
        given.filter_map(|(name, value)| Some(format!("{name}:{}", value.as_ref()?))).collect()
    }

    fn conditions(&self) -> [(&'static str, &Option<String>); 14] {
        [
            ("policy", &self.policy),
            ("category", &self.category),
            ("purpose", &self.purpose),
            ("jurisdiction", &self.jurisdiction),
            ("origin", &self.origin),
            ("destination", &self.destination),
            ("instrument", &self.instrument),
            ("deployment", &self.deployment),
            ("model", &self.model),
            ("app", &self.app),
            ("tenant", &self.tenant),
            ("key", &self.key),
            ("tier", &self.tier),
            ("decision", &self.decision),
        ]
    }
}

/// An auditor limited to jurisdictions sees only records that touch one of them.
fn scope(auditor: &AsAuditor) -> Vec<String> {
    auditor.jurisdictions.iter().map(|code| format!("jurisdiction:{code}")).collect()
}

/// What a cursor begins with: it belongs to one order.
const fn direction(newest_first: bool) -> &'static str {
    if newest_first { "before:" } else { "seq:" }
}

fn cursor(seq: Seq, newest_first: bool) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}{seq}", direction(newest_first)))
}

fn read_cursor(cursor: &str, newest_first: bool) -> Option<Seq> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix(direction(newest_first))?.parse().ok().map(Seq::new)
}

/// Find records.
///
/// Newest last, or first with `order=desc`; page through with `after`: what is written meanwhile
/// changes no page. A name that neither the active snapshot nor any record knows is refused. A
/// credential limited to jurisdictions sees only records that touch them. The reading is recorded,
/// without its results.
#[utoipa::path(
    get, path = "/v1/audit/records", tag = "audit", operation_id = "listRecords",
    security(("api_key" = [])),
    params(Filters),
    responses((status = 200, description = "A page of records", body = Page,
        example = json!({"records": [examples::record()], "next": "c2VxOjQy"})), ListProblems),
)]
async fn list(
    State(shared): State<Arc<Shared>>,
    auditor: AsAuditor,
    Params(filters): Params<Filters>,
) -> Result<axum::Json<Page>, Problem> {
    let mut query = filters.query(&auditor)?;
    shared.gate.record_reading(reading(&auditor, "listRecords", filters.given())).await?;
    names::refuse_unknown(&shared, &filters, &query.any_of).await?;
    let (limit, newest_first) = (query.limit, query.newest_first);
    query.limit += 1;
    let mut found = shared.gate.search(&query).await?;
    let next = (found.len() > limit).then(|| {
        found.truncate(limit);
        found.last().map(|last| cursor(last.seq, newest_first))
    });
    let records = found.iter().map(Record::read).collect::<Result<_, _>>()?;
    Ok(axum::Json(Page { records, next: next.flatten() }))
}

pub(super) fn reading(
    auditor: &AsAuditor,
    operation: &'static str,
    query: BTreeMap<String, String>,
) -> Reading {
    Reading { key: auditor.key.clone(), operation, query }
}

/// Read one record.
///
/// The entry is given as it was signed: its leaf hash is that of the bytes as they appear here.
#[utoipa::path(
    get, path = "/v1/audit/records/{seq}", tag = "audit", operation_id = "readRecord",
    security(("api_key" = [])),
    params(("seq" = u64, Path, description = "The record's position", example = 0)),
    responses((status = 200, description = "The record", body = Record,
        example = json!(examples::record())), RecordProblems),
)]
async fn read(
    State(shared): State<Arc<Shared>>,
    auditor: AsAuditor,
    Path(seq): Path<String>,
) -> Result<axum::Json<Record>, Problem> {
    let missing = || Problem::new(ProblemKind::NotFound, format!("there is no record {seq}"));
    let wanted = seq.parse::<u64>().ok().filter(|seq| i64::try_from(*seq).is_ok());
    let wanted = Seq::new(wanted.ok_or_else(missing)?);
    let asked = BTreeMap::from([("seq".to_owned(), wanted.to_string())]);
    shared.gate.record_reading(reading(&auditor, "readRecord", asked)).await?;
    match find(&shared, &auditor, wanted).await? {
        Some(found) => Ok(axum::Json(Record::read(&found)?)),
        None if is_removed(&shared, &auditor, wanted).await? => {
            Err(Problem::new(ProblemKind::Gone, REMOVED))
        }
        None => Err(missing()),
    }
}

/// Why a record has only its place and its leaf.
pub(super) const REMOVED: &str =
    "the record's body was removed, its time being over; its proof is still there";

/// Whether the body of the record at `seq` was removed. A limited credential is not told: what
/// places a removed record touched, nobody knows any more.
pub(super) async fn is_removed(
    shared: &Shared,
    auditor: &AsAuditor,
    seq: Seq,
) -> Result<bool, GateError> {
    let all = auditor.jurisdictions.is_empty();
    Ok(all && shared.gate.store().record(seq).await?.is_some_and(|row| row.entry.is_empty()))
}

/// The record at `seq`, found through the query, so that a limited credential finds what the list
/// shows it, and no more.
pub(super) async fn find(
    shared: &Shared,
    auditor: &AsAuditor,
    seq: Seq,
) -> Result<Option<Stored>, GateError> {
    let query = RecordQuery {
        after: seq.get().checked_sub(1).map(Seq::new),
        before: Some(Seq::new(seq.get().saturating_add(1))),
        any_of: scope(auditor),
        limit: 1,
        ..RecordQuery::default()
    };
    let found = shared.gate.search(&query).await?;
    Ok(found.into_iter().find(|stored| stored.seq == seq))
}

/// Refuses a credential that may not see all of the log.
pub(super) fn whole_log(auditor: &AsAuditor) -> Result<(), Problem> {
    if auditor.jurisdictions.is_empty() {
        return Ok(());
    }
    let detail = "this API key is limited to jurisdictions: read `/v1/audit/records` instead";
    Err(Problem::new(ProblemKind::Forbidden, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        for newest_first in [false, true] {
            let cursor = cursor(Seq::new(42), newest_first);
            assert_eq!(read_cursor(&cursor, newest_first), Some(Seq::new(42)));
            assert_eq!(read_cursor(&cursor, !newest_first), None, "of the other order");
            for bad in ["", "42", "c2VxOi0x", "%%%", "c2VxOg"] {
                assert_eq!(read_cursor(bad, newest_first), None, "{bad}");
            }
        }
    }
}
