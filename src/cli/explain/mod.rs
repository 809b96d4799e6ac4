//! `lexgate explain`

mod recorded;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::{
    ConfigFile, Failure, output,
    output::{Paint, paint},
};
use crate::{
    app,
    config::Config,
    domain::{
        AppId, CallRequest, Clock, Counts, DeploymentId, Revision, Seq, SystemClock, Verdict,
    },
    facts::{Proposal, Snapshot},
    gate::{Counterfactual, Destinations, GateError, Judge},
    http::ExplainAnswer,
    ledger::to_micros,
    store::{self, Store},
};

/// Say why a call would be allowed or denied. Nothing is recorded, nothing is sent.
///
/// Answers as the service would: people are counted, those of the call itself and, where the configured
/// store is there, those whose data left before. `--record` explains a decision of the ledger by the
/// policies and facts that decided it, and says whether it would be the same now.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A file with a call, as `POST /v1/explain` takes it.
    #[arg(long, value_name = "FILE", required_unless_present = "record")]
    call: Option<PathBuf>,
    /// The app that makes the call; the first caller's in the configuration unless given.
    #[arg(long)]
    app: Option<String>,
    /// Judge by the facts and instruments of this day (UTC) or instant instead of now. Of what left before,
    /// all is counted that the store holds now.
    #[arg(long, value_name = "INSTANT", value_parser = super::instant)]
    at: Option<Timestamp>,
    /// Explain the decision at this position of the ledger.
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["call", "app", "at"])]
    record: Option<u64>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        if let Some(seq) = self.record {
            return recorded::explain(&config, Seq::new(seq), self.json).await;
        }
        let proposal = app::read_proposal(&config)?;
        let app = self.app(&config, &proposal)?;
        let call = read_call(self.call.as_deref().unwrap_or(Path::new("")))?;
        let now = to_micros(self.at.unwrap_or_else(|| SystemClock.now()));
        let snapshot = Snapshot::at(&proposal, now, Revision(0))
            .map_err(|error| Failure::Finding(super::chain(&error)))?;
        let judge = Judge::new(Arc::new(snapshot));
        let counts = exported(&config, &judge, &app, &call, now).await?;
        let reached = judge.reached(&app, &call, &counts, now);
        let explanation = judge.explain(&app, &call, &reached).map_err(refused)?;
        let answer = ExplainAnswer::new(&explanation, judge.snapshot().digests);
        if self.json {
            output::json(&answer)
        } else {
            show(&answer);
            Ok(())
        }
    }

    fn app(&self, config: &Config, proposal: &Proposal) -> Result<AppId, Failure> {
        let configured = config.api_keys.iter().find_map(|key| key.app.clone());
        let given = self.app.as_deref().map(AppId::from);
        let first = || proposal.organisation.apps.keys().next().cloned();
        given.or(configured).or_else(first).ok_or_else(|| {
            Failure::Usage("the organisation file has no app: declare one in `[[apps]]`".to_owned())
        })
    }
}

fn read_call(path: &Path) -> Result<CallRequest, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Why a call cannot be judged.
pub(super) fn refused(error: GateError) -> Failure {
    match error {
        GateError::Invalid(faults) => {
            let lines = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
            Failure::Usage(lines.collect::<Vec<_>>().join("\n"))
        }
        error => Failure::Environment(super::chain(&error)),
    }
}

/// What left before, as far as the call is held against it and the configured store can say so. Only the
/// call's own people are counted where there is no store: that is said.
async fn exported(
    config: &Config,
    judge: &Judge,
    app: &AppId,
    call: &CallRequest,
    now: Timestamp,
) -> Result<Counts, Failure> {
    let keys = judge.count_keys(app, call, now);
    if keys.is_empty() {
        return Ok(Counts::default());
    }
    let alone = |why: &str| {
        output::note(&format!(
            "{why}: only the people of this call are counted, and none before it"
        ));
        Ok(Counts::default())
    };
    let store = match existing_store(config).await {
        Ok(Some(store)) => store,
        Ok(None) => return alone("the configured store does not exist yet"),
        Err(_) => return alone("the configured store cannot be read"),
    };
    match store.exported(&keys).await {
        Ok(counts) => Ok(counts),
        Err(_) => alone("the configured store cannot be read"),
    }
}

/// The configured store, to be read; `None` where there is none yet.
pub(super) async fn existing_store(config: &Config) -> Result<Option<Arc<dyn Store>>, Failure> {
    let url = config.store.url.expose();
    let file = url.strip_prefix("sqlite://").and_then(|rest| rest.split('?').next());
    if file.is_some_and(|file| !Path::new(file).exists()) {
        return Ok(None);
    }
    let store = store::open(url).await.map_err(app::AppError::from)?;
    let is_there = store.is_migrated().await.map_err(app::AppError::from)?;
    Ok(is_there.then_some(store))
}

/// Prints an explanation for people.
pub(super) fn show(answer: &ExplainAnswer<'_>) {
    let verdict = match (&answer.decision, answer.route) {
        (Verdict::Allow, Some(route)) => {
            paint(Paint::Good, &format!("ALLOW → {}", route.deployment))
        }
        _ => paint(Paint::Bad, "DENY"),
    };
    output::line(&verdict);
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(output::width())
        .set_header(["policy", "for", "citation", "advice"]);
    for reason in &answer.reasons {
        let flow = reason.flow;
        let place = flow.map_or_else(
            || reason.deployment.to_string(),
            |flow| {
                format!(
                    "{}: {} {} → {}",
                    reason.deployment,
                    flow.action.as_str(),
                    flow.from,
                    flow.to
                )
            },
        );
        let advice = reason.advice.unwrap_or_default().to_owned();
        table.add_row([reason.policy.to_string(), place, reason.citation.to_owned(), advice]);
    }
    output::line(&table.to_string());
    for reached in answer.reached {
        let thresholds = reached.thresholds.join(", ");
        output::line(&format!("people of {} reach: {thresholds}", reached.from));
    }
    let general: BTreeSet<&str> =
        answer.reasons.iter().flat_map(|reason| reason.general_facts).map(String::as_str).collect();
    if !general.is_empty() {
        let general: Vec<&str> = general.into_iter().collect();
        output::line(&paint(
            Paint::Strong,
            &format!("rests on general knowledge: {}", general.join(", ")),
        ));
    }
    for counterfactual in answer.would_pass {
        show_counterfactual(counterfactual);
    }
    let elsewhere: Vec<&str> =
        answer.allowed_deployments.iter().map(DeploymentId::as_str).collect();
    let elsewhere = if elsewhere.is_empty() { "none".to_owned() } else { elsewhere.join(", ") };
    output::line(&format!("deployments that may serve this call: {elsewhere}"));
}

/// What would make the call pass at one deployment.
fn show_counterfactual(counterfactual: &Counterfactual) {
    let Counterfactual { deployment, ways, destinations, cut_short } = counterfactual;
    output::line(&paint(Paint::Strong, &format!("\n{deployment} would do")));
    if *cut_short {
        output::line("  (the search was cut short: there may be more than this)");
    } else if ways.is_empty() {
        output::line("  after no change that was found: its policies exclude each other");
    }
    for way in ways {
        output::line(&format!("  if you {}", way.words.join("\n     and ")));
    }
    // What is true of several ways of getting somewhere is said once.
    let mut said: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for Destinations { from, action, groups, jurisdictions, except } in destinations {
        let places = jurisdictions.iter().map(ToString::to_string);
        let places: Vec<String> = groups.iter().cloned().chain(places).collect();
        let places = match (places.is_empty(), except.is_empty()) {
            (true, true) => "almost anywhere else".to_owned(),
            (true, false) => format!("anywhere but {}", except.join(", ")),
            (false, _) => places.join(", "),
        };
        said.entry((from.to_string(), places)).or_default().push(action.as_str());
    }
    for ((from, places), actions) in said {
        let text = format!("  data of {from}: {} in {places}", actions.join(", "));
        output::line(&paint(Paint::Dim, &text));
    }
}
