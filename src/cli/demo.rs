//! `lexgate demo`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::{Deserialize, Serialize};

use super::{
    ConfigFile, Failure,
    output::{self, Paint, paint},
};
use crate::{
    app::{App, AppError},
    config,
    dispatch::{Endpoint, Fields},
    domain::{
        Action, AppId, CallRequest, Caller, Candidate, DataRequest, Effect, Flow, FlowAction,
        JurisdictionCode, PolicyId, Reason, TenantId, Verdict,
    },
    gate::{Gate, GateError, ModelCall, Recorded, Reply, ReplyBody},
    ledger::OutcomeStatus,
    source::{Faults, parse_toml},
    telemetry,
};

const ALLOW: &str = "ALLOW";
const DENY: &str = "DENY";

/// Run the example calls through the gate and show what becomes of each.
///
/// They are judged, recorded and, where they have a prompt, sent like any other call.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// The example calls; `demo.toml` beside the organisation file unless given.
    #[arg(long, value_name = "FILE")]
    calls: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    call: Vec<DemoCall>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DemoCall {
    /// Calls of one sector are shown under one heading.
    #[serde(default)]
    sector: String,
    name: String,
    app: AppId,
    #[serde(default)]
    prompt: Option<String>,
    request: CallRequest,
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    sector: String,
    call: String,
    data: String,
    decision: Verdict,
    went_to: String,
    why: String,
    #[serde(skip)]
    notes: Vec<(PolicyId, String)>,
    record: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

impl Demo {
    pub(super) async fn run(self) -> Result<(), Failure> {
        super::log_warnings()?;
        let config = self.config.load()?;
        let path = self
            .calls
            .clone()
            .unwrap_or_else(|| config.organisation.file.with_file_name("demo.toml"));
        let script = config::read_file(&path)
            .map_err(|fault| {
                fault.help("`lexgate init` writes the example's calls and `lexgate init --empty` writes none; name a file of your own with `--calls FILE`")
            })
            .and_then(|file| parse_toml::<Script>(&file));
        let script = script.map_err(Faults::from)?;
        let app = App::start(&config).await?;
        let mut rows = Vec::new();
        let total = script.call.len();
        for (index, call) in script.call.into_iter().enumerate() {
            output::progress(&format!("call {} of {total}: {}", index + 1, call.name));
            let row = run(&app.gate, call).await;
            match row {
                Ok(row) => rows.push(row),
                Err(error) => {
                    app.stop().await;
                    return Err(error);
                }
            }
        }
        output::end_progress();
        let vkey = app.vkey.clone();
        app.stop().await;
        if self.json {
            return output::json(&rows);
        }
        show(&rows, &vkey);
        Ok(())
    }
}

async fn run(gate: &Arc<Gate>, call: DemoCall) -> Result<Row, Failure> {
    let failed = |error: GateError| match error {
        GateError::Invalid(faults) => {
            let lines = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
            let lines: Vec<String> = lines.collect();
            Failure::Finding(format!("call `{}`: {}", call.name, lines.join("; ")))
        }
        error => AppError::from(error).into(),
    };
    // The tenant is the app's, which the gate looks up.
    let caller = Caller {
        app: call.app.clone(),
        authenticated: "command_line".to_owned(),
        key: "demo".into(),
        tenant: TenantId::from(""),
    };
    let data = describe(call.request.data.as_ref());
    let (recorded, answer) = match &call.prompt {
        Some(prompt) => ask(gate, caller, &call.request, prompt).await.map_err(failed)?,
        None => (gate.decide(&caller, &call.request, None).await.map_err(failed)?, None),
    };
    Ok(Row {
        data,
        decision: recorded.body.decision,
        went_to: went_to(&recorded),
        why: why(&recorded),
        notes: notes(&recorded),
        record: recorded.seq.get(),
        answer,
        sector: call.sector,
        call: call.name,
    })
}

/// Sends the call to the model that the decision chooses.
async fn ask(
    gate: &Arc<Gate>,
    caller: Caller,
    request: &CallRequest,
    prompt: &str,
) -> Result<(Recorded, Option<String>), GateError> {
    let mut body = Fields::default();
    let messages = serde_json::json!([{ "role": "user", "content": prompt }]);
    let set = body.set("messages", &messages).and_then(|()| body.set("max_tokens", &60));
    set.map_err(|_| GateError::Corrupt)?;
    let received = body.to_vec().map_err(|_| GateError::Corrupt)?.into();
    let call = ModelCall {
        request: CallRequest { action: Action::Infer, ..request.clone() },
        endpoint: Endpoint::ChatCompletions,
        headers: Vec::new(),
        body,
        received,
        stream: false,
        wants_usage: false,
        request_id: "demo".to_owned(),
        trace: telemetry::Trace::default(),
    };
    Ok(match gate.call(caller, call).await? {
        Reply::Denied(recorded) => (*recorded, None),
        Reply::Failed(failed) => {
            let why = match failed.status {
                OutcomeStatus::Timeout => "the model did not answer in time",
                _ => {
                    "the model cannot be reached: `scripts/on-device-model` starts the one on this device"
                }
            };
            ((*failed.recorded).clone(), Some(format!("({why})")))
        }
        Reply::Answered(served, body) => {
            let answer = match body {
                ReplyBody::Whole(bytes) => text_of(&bytes),
                ReplyBody::Stream(_) => None,
            };
            ((*served.recorded).clone(), answer)
        }
    })
}

fn text_of(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let text = answer.pointer("/choices/0/message/content")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn describe(data: Option<&DataRequest>) -> String {
    let Some(data) = data else { return "nothing declared".to_owned() };
    let kind = if data.personal { "personal" } else { "not personal" };
    let short = |term: &String| term.rsplit(':').next().unwrap_or(term).to_owned();
    let categories: Vec<String> = data.categories.iter().map(short).collect();
    let parts = [kind.to_owned(), categories.join(", "), data.subjects.join(", ")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
}

fn went_to(recorded: &Recorded) -> String {
    match &recorded.body.route {
        None => "nowhere".to_owned(),
        Some(route) => {
            let places: Vec<&str> =
                route.jurisdictions.iter().map(JurisdictionCode::as_str).collect();
            format!("{} ({}, {})", route.deployment, route.tier.as_str(), places.join(", "))
        }
    }
}

/// What decided, in the law's words.
fn why(recorded: &Recorded) -> String {
    let body = &recorded.body;
    let lines: Vec<String> = match body.decision {
        Verdict::Allow => {
            let duties = body.duties.iter().map(|duty| format!("with a duty: {}", duty.policy));
            passed_over(&body.candidates).into_iter().chain(duties).collect()
        }
        Verdict::Deny => body
            .reasons
            .iter()
            .map(|reason| format!("{}{}: {}", reason.policy, borders(reason), reason.citation))
            .collect(),
    };
    let general: BTreeSet<&str> =
        body.reasons.iter().flat_map(|reason| &reason.general_facts).map(String::as_str).collect();
    let general: Vec<&str> = general.into_iter().collect();
    let rests = (!general.is_empty())
        .then(|| format!("rests on general knowledge: {}", general.join(", ")));
    let lines = if lines.is_empty() { vec!["every flow is lawful".to_owned()] } else { lines };
    lines.into_iter().chain(rests).collect::<Vec<_>>().join("\n")
}

/// The deployments that stand before the first allowed one, by what denied them.
fn passed_over(candidates: &[Candidate]) -> Vec<String> {
    let denied = candidates.iter().take_while(|candidate| candidate.decision == Verdict::Deny);
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for candidate in denied {
        let policies: Vec<&str> = candidate.policies.iter().map(PolicyId::as_str).collect();
        let (policies, id) = (policies.join(", "), candidate.deployment.as_str());
        match lines.iter_mut().find(|(known, _)| *known == policies) {
            Some((_, deployments)) => deployments.push(id),
            None => lines.push((policies, vec![id])),
        }
    }
    let told = lines.into_iter();
    told.map(|(policies, ids)| format!("not {}: {policies}", ids.join(", "))).collect()
}

/// The borders at which a policy denied, each once; the operator's seat and owners are said as such.
fn borders(reason: &Reason) -> String {
    let flows = reason.places.iter().filter_map(|place| place.flow.as_ref());
    let borders = flows.map(|Flow { action, from, to }| match action {
        FlowAction::Process | FlowAction::Store | FlowAction::Access => format!("{from} → {to}"),
        FlowAction::Operate => format!("{from} → operator in {to}"),
        FlowAction::Own => format!("{from} → owner in {to}"),
    });
    let borders: BTreeSet<String> = borders.collect();
    if borders.is_empty() {
        return String::new();
    }
    format!(" ({})", borders.into_iter().collect::<Vec<_>>().join(", "))
}

/// What each deciding policy asks for.
fn notes(recorded: &Recorded) -> Vec<(PolicyId, String)> {
    let body = &recorded.body;
    let duties = body.duties.iter().map(|duty| (duty.policy.clone(), duty.duty.clone()));
    let denials = body.reasons.iter().filter(|reason| reason.effect == Effect::Forbid);
    let advice = denials.filter_map(|reason| Some((reason.policy.clone(), reason.advice.clone()?)));
    duties.chain(advice).collect()
}

fn show(rows: &[Row], vkey: &str) {
    output::line(&table(rows));
    let notes: BTreeMap<_, _> = rows.iter().flat_map(|row| row.notes.iter().cloned()).collect();
    output::line(&paint(Paint::Strong, "\nWhat to do about it:"));
    let mut advice = plain_table();
    for (policy, note) in &notes {
        advice.add_row([policy.as_str(), note]);
    }
    output::line(&advice.trim_fmt());
    output::line("");
    for row in rows {
        if let Some(answer) = &row.answer {
            output::line(&format!(
                "{} {answer}",
                paint(Paint::Strong, &format!("“{}” answered:", row.call))
            ));
        }
    }
    let allowed = rows.iter().filter(|row| row.decision == Verdict::Allow).count();
    output::line(&format!(
        "\n{} calls: {allowed} allowed, {} denied, each with its record",
        rows.len(),
        rows.len() - allowed
    ));
    output::line(&paint(Paint::Dim, &format!("verifier key of the log: {vkey}")));
}

/// Each call on the lines that it needs: left what was asked, right what became of it.
fn table(rows: &[Row]) -> String {
    let mut table = plain_table();
    table
        .set_header(["", "call, and its data", "where it went, and why", "record"])
        .set_constraints([
            ColumnConstraint::ContentWidth,
            ColumnConstraint::UpperBoundary(Width::Percentage(38)),
            ColumnConstraint::LowerBoundary(Width::Percentage(40)),
            ColumnConstraint::ContentWidth,
        ]);
    let mut sector = "";
    for row in rows {
        if row.sector != sector {
            sector = &row.sector;
            table.add_row([String::new(), format!("\n{}", sector.to_uppercase())]);
        }
        let (verdict, became) = match row.decision {
            Verdict::Allow => (ALLOW, format!("{}\n{}", row.went_to, row.why)),
            Verdict::Deny => (DENY, row.why.clone()),
        };
        let asked = format!("{}\n{}", row.call, row.data);
        table.add_row([verdict.to_owned(), asked, became, row.record.to_string()]);
    }
    // Coloured after the layout, which counts characters.
    let headings: BTreeSet<String> = rows.iter().map(|row| row.sector.to_uppercase()).collect();
    let coloured = |line: &str| {
        if headings.contains(line.trim()) {
            return paint(Paint::Strong, line);
        }
        line.replacen(ALLOW, &paint(Paint::Good, ALLOW), 1).replacen(
            DENY,
            &paint(Paint::Bad, DENY),
            1,
        )
    };
    table.trim_fmt().lines().map(coloured).collect::<Vec<_>>().join("\n")
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(output::width());
    table
}
