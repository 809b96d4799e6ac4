//! Records as a file that other programs read: JSON lines, or a table. Streamed, however many.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::{Filters, Record, check_place, reading},
    auth::AsAuditor,
    body::Params,
    decided::{Decided, Decisions},
    examples,
    problem::{Problem, ProblemKind, problems},
};
use crate::{
    domain::FieldFault,
    gate::GateError,
    store::{RecordQuery, Stored},
};

/// How many records are read at once.
const PAGE: usize = 500;

problems! { ExportProblems: MalformedQuery, Unauthenticated, Forbidden, LimitReached, QueueFull,
LedgerUnavailable, Overloaded, StorageLow, Timeout, Internal }

/// The endpoint of exports.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(export))
}

/// What an export is to hold, and its form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(flatten)]
    filters: Filters,
    format: Option<String>,
}

/// The form of an export.
#[derive(Clone, Copy)]
enum Format {
    JsonLines,
    Table,
}

/// Export records.
///
/// All that match the filters, streamed; `limit` bounds them where it is given. The reading is
/// recorded. A stream that breaks off was not whole. To verify records offline use `lexgate export`.
#[utoipa::path(
    get, path = "/v1/audit/export", tag = "audit", operation_id = "exportRecords",
    security(("api_key" = [])),
    params(
        Filters,
        ("format" = Option<String>, Query, description = "`ndjson` (each line a record with its leaf hash and entry) or `csv` (the fields that most tables want); `ndjson` when absent", example = "csv"),
    ),
    responses((status = 200, description = "The records", content(
        (String = "application/x-ndjson", example = json!(examples::record().to_string())),
        (String = "text/csv", example = json!(HEADER.join(","))),
    )), ExportProblems),
)]
async fn export(
    State(shared): State<Arc<Shared>>,
    auditor: AsAuditor,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let filters = wanted.filters;
    let format = match wanted.format.as_deref() {
        None | Some("ndjson") => Format::JsonLines,
        Some("csv") => Format::Table,
        Some(_) => {
            let fault = FieldFault::new("format", "want `ndjson` or `csv`");
            return Err(Problem::fields(ProblemKind::MalformedQuery, vec![fault]));
        }
    };
    let bounded = filters.is_limited();
    let query = filters.query(&auditor)?;
    check_place(&shared, &filters)?;
    let mut given = filters.given();
    given.extend(wanted.format.map(|format| ("format".to_owned(), format)));
    shared.gate.record_reading(reading(&auditor, "exportRecords", given)).await?;
    let left = if bounded { query.limit } else { usize::MAX };
    // The first page is read before the answer begins, so that a failure is still a problem.
    let first = page(&shared, &query, left).await?;
    let decisions = Decisions::default();
    let begun =
        Progress { shared, query, left, next: Some(first), format, header: true, decisions };
    let body = Body::from_stream(stream::try_unfold(begun, Progress::go_on));
    let (kind, name) = match format {
        Format::JsonLines => ("application/x-ndjson", "attachment; filename=\"records.ndjson\""),
        Format::Table => ("text/csv; charset=utf-8", "attachment; filename=\"records.csv\""),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, body).into_response())
}

/// An export under way.
struct Progress {
    shared: Arc<Shared>,
    query: RecordQuery,
    left: usize,
    /// The page that is to be written next.
    next: Option<Vec<Stored>>,
    format: Format,
    header: bool,
    /// The decisions that the outcomes of a table are about.
    decisions: Decisions,
}

impl Progress {
    async fn go_on(mut self) -> Result<Option<(Bytes, Self)>, GateError> {
        let Some(stored) = self.next.take() else { return Ok(None) };
        let mut text = String::new();
        if std::mem::take(&mut self.header) && matches!(self.format, Format::Table) {
            text.push_str(&HEADER.join(","));
            text.push_str("\r\n");
        }
        if matches!(self.format, Format::Table) {
            let mut rows = Vec::with_capacity(stored.len());
            for stored in &stored {
                let entry = serde_json::from_slice(&stored.entry);
                rows.push((stored, entry.map_err(|_| GateError::Corrupt)?));
            }
            self.decisions.learn(&self.shared.gate, &rows).await?;
            for (stored, entry) in &rows {
                write_row(&mut text, stored, entry, &self.decisions);
            }
            self.decisions.forget();
        } else {
            for stored in &stored {
                let record = Record::read(stored).map_err(|_| GateError::Corrupt)?;
                text.push_str(&serde_json::to_string(&record).map_err(|_| GateError::Corrupt)?);
                text.push('\n');
            }
        }
        self.left = self.left.saturating_sub(stored.len());
        if let Some(last) = stored.last().filter(|_| stored.len() == PAGE && self.left > 0) {
            self.query.after = Some(last.seq);
            self.next = Some(page(&self.shared, &self.query, self.left).await?);
        }
        if text.is_empty() { Ok(None) } else { Ok(Some((text.into(), self))) }
    }
}

async fn page(shared: &Shared, query: &RecordQuery, left: usize) -> Result<Vec<Stored>, GateError> {
    let query = RecordQuery { limit: left.min(PAGE), ..query.clone() };
    shared.gate.search(&query).await
}

/// The columns of a table.
const HEADER: [&str; 16] = [
    "seq",
    "ts",
    "kind",
    "id",
    "tenant",
    "app",
    "key",
    "action",
    "model",
    "decision",
    "deployment",
    "tier",
    "policies",
    "status",
    "leaf",
    "decision_seq",
];

/// An outcome's row says whose call it was as its decision's does.
fn write_row(text: &mut String, stored: &Stored, entry: &Value, decisions: &Decisions) {
    let at = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (about, decided) = decisions.of(entry);
    let about = about.map(|seq| seq.to_string()).unwrap_or_default();
    let or = |own: &'static str, of: fn(&Decided) -> &str| match (at(own), decided) {
        ("", Some(decided)) => of(decided).to_owned(),
        (own, _) => own.to_owned(),
    };
    let policies = entry.pointer("/body/reasons").and_then(Value::as_array);
    let policies = policies.into_iter().flatten().filter_map(|reason| reason["policy"].as_str());
    let policies = policies.collect::<Vec<_>>().join(" ");
    let (seq, leaf) = (stored.seq.to_string(), stored.leaf.hex());
    let model = match at("/body/call/model") {
        "" => at("/body/model"),
        model => model,
    };
    let tenant = or("/body/caller/tenant", |decided| &decided.tenant);
    let app = or("/body/caller/app", |decided| &decided.app);
    let key = or("/body/caller/key", |decided| &decided.key);
    let action = or("/body/call/action", |decided| &decided.action);
    let decision = or("/body/decision", |decided| &decided.decision);
    let cells = [
        &*seq,
        at("/ts"),
        at("/kind"),
        at("/id"),
        &tenant,
        &app,
        &key,
        &action,
        model,
        &decision,
        at("/body/route/deployment"),
        at("/body/route/tier"),
        &policies,
        at("/body/status"),
        &leaf,
        &about,
    ];
    let cells: Vec<_> = cells.into_iter().map(cell).collect();
    text.push_str(&cells.join(","));
    text.push_str("\r\n");
}

/// A cell as RFC 4180 has it. What a spreadsheet would take for a formula stands behind an apostrophe.
fn cell(value: &str) -> String {
    let formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let value = if formula { format!("'{value}") } else { value.to_owned() };
    if value.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_a_formula() {
        assert_eq!(cell("acme"), "acme");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"hi\"\n"), "\"say \"\"hi\"\"\n\"");
        assert_eq!(cell("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(cell("@a,b"), "\"'@a,b\"");
    }
}
