//! `lexgate explain`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};

use super::{
    ConfigFile, Failure,
    output::{self, Paint, paint},
};
use crate::{
    app,
    config::Config,
    domain::{AppId, CallRequest, Clock, DeploymentId, Revision, SystemClock, Verdict},
    facts::{Proposal, Snapshot},
    gate::{Counterfactual, Destinations, GateError, Judge},
    http::ExplainAnswer,
};

/// Say why a call would be allowed or denied. Nothing is recorded, nothing is sent.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A file with a call, as `POST /v1/explain` takes it.
    #[arg(long, value_name = "FILE")]
    call: PathBuf,
    /// The app that makes the call; the first caller's in the configuration unless given.
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let proposal = app::read_proposal(&config)?;
        let app = self.app(&config, &proposal)?;
        let text = std::fs::read_to_string(&self.call)
            .map_err(|error| Failure::io("read", &self.call, &error))?;
        let call: CallRequest = serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{}: {error}", self.call.display())))?;
        let snapshot = Snapshot::at(&proposal, SystemClock.now(), Revision(0))
            .map_err(|error| Failure::Finding(super::chain(&error)))?;
        let judge = Judge::new(Arc::new(snapshot));
        let explanation = judge.explain(&app, &call, &[]).map_err(|error| match error {
            GateError::Invalid(faults) => {
                let lines =
                    faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
                Failure::Usage(lines.collect::<Vec<_>>().join("\n"))
            }
            error => Failure::Environment(super::chain(&error)),
        })?;
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

fn show(answer: &ExplainAnswer<'_>) {
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
