//! `lexgate policies explain`

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

use super::Folder;
use crate::{
    app,
    cases::Case,
    cli::{
        ConfigFile, Failure, output,
        output::{Paint, paint},
    },
    domain::{Clock, Effect, SystemClock},
    facts::{Dated, Proposal},
    policy::{EntityKind, Rule},
};

/// How many ids are offered for one that is unknown.
const OFFERED: usize = 3;

/// Say what a policy demands, on which dated facts it rests, and which cases show it.
#[derive(Debug, Args)]
pub(in crate::cli) struct About {
    /// The policy's id, as records name it.
    #[arg(value_name = "POLICY_ID")]
    id: String,
    /// The policy folder; the configuration's unless given.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is said of one name: its kind, its id, and the facts about it.
type Named = (String, String, Vec<Dated<String>>);

impl About {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let folder = Folder::find(self.dir.as_deref(), &self.config)?;
        let proposal = app::propose(&folder.dir, folder.organisation)?;
        let rule = proposal.bundle.rules().find(|rule| rule.id.as_str() == self.id);
        let rule = rule.ok_or_else(|| unknown(&self.id, &proposal))?;
        let mut cases = Case::load(&super::test::read_cases(&folder.dir)?)?;
        cases.retain(|case| {
            case.policies.iter().chain(case.duties.iter().flatten()).any(|id| *id == self.id)
        });
        let place = format!("{}:{}", folder.dir.join(&rule.file).display(), rule.line);
        let facts = facts(rule, &proposal);
        if self.json {
            return report_json(rule, &place, &facts, &cases);
        }
        report(rule, &place, &facts, &cases);
        Ok(())
    }
}

/// The zones, sets of findings, licences, classes of data and thresholds that the policy names.
fn facts(rule: &Rule, proposal: &Proposal) -> Vec<Named> {
    let of_rule = proposal.bundle.entities_named().filter(|(_, _, named)| named.id == rule.id);
    let names: BTreeSet<_> = of_rule.map(|(kind, id, _)| (kind, id)).collect();
    let dated = |kind: &EntityKind| {
        matches!(kind, EntityKind::Zone | EntityKind::Adequacy | EntityKind::License)
    };
    let names = names.into_iter().filter(|(kind, _)| dated(kind));
    let entities = names.map(|(kind, id)| {
        let facts = proposal.world.about(kind, &id);
        (format!("{kind:?}"), id, facts)
    });
    let counted = rule.mentions.texts.iter().filter_map(|text| {
        let (kind, facts) = proposal.world.about_counted(text)?;
        Some((kind.to_owned(), text.clone(), facts))
    });
    entities.chain(counted).collect()
}

fn unknown(id: &str, proposal: &Proposal) -> Failure {
    let mut ids: Vec<&str> = proposal.bundle.rules().map(|rule| rule.id.as_str()).collect();
    ids.sort_by(|a, b| {
        let nearness = |other: &str| strsim::jaro_winkler(id, other);
        nearness(b).total_cmp(&nearness(a))
    });
    let near: Vec<String> = ids.iter().take(OFFERED).map(|id| format!("`{id}`")).collect();
    Failure::Usage(format!("there is no policy `{id}`: did you mean {}?", near.join(", ")))
}

fn report(rule: &Rule, place: &str, facts: &[Named], cases: &[Case]) {
    let effect = match rule.effect {
        Effect::Forbid => paint(Paint::Bad, "forbids"),
        Effect::Permit if rule.duty.is_some() => paint(Paint::Good, "adds a duty"),
        Effect::Permit => paint(Paint::Good, "permits"),
    };
    output::line(&format!("{} {effect}", paint(Paint::Strong, rule.id.as_str())));
    output::line(&paint(Paint::Dim, place));
    output::line(&format!("\n  by      {}", rule.citation));
    for (what, said) in [("advice", &rule.advice), ("duty", &rule.duty)] {
        if let Some(said) = said {
            output::line(&format!("  {what:<6}  {said}"));
        }
    }
    output::line("");
    for line in rule.text.lines() {
        output::line(&format!("  {line}"));
    }
    if !facts.is_empty() {
        output::line(&paint(Paint::Strong, "\nIt rests on these facts:"));
    }
    let now = SystemClock.now();
    for (kind, id, facts) in facts {
        output::line(&format!("  {kind}::\"{id}\""));
        if facts.is_empty() {
            output::line("    nobody yet");
        }
        for fact in facts {
            let ends = fact.valid.until.map(|until| format!(" until {}", day(until)));
            let state = match () {
                () if fact.valid.holds_at(now) => "",
                () if fact.valid.from > now => ", not yet",
                () => ", past",
            };
            output::line(&format!("    {}", fact.fact));
            output::line(&paint(
                Paint::Dim,
                &format!(
                    "      from {}{}{state}; {}; checked {}, {}",
                    day(fact.valid.from),
                    ends.unwrap_or_default(),
                    fact.source,
                    fact.checked,
                    confidence(fact)
                ),
            ));
        }
    }
    output::line(&paint(Paint::Strong, "\nThese cases name it:"));
    if cases.is_empty() {
        output::line("  none: `lexgate policies test --coverage` says what else no case shows");
    }
    for case in cases {
        output::line(&format!("  {:<5} {}  {}", case.expect.as_str(), case.place, case.name));
    }
}

fn report_json(rule: &Rule, place: &str, facts: &[Named], cases: &[Case]) -> Result<(), Failure> {
    let facts: Vec<_> = facts
        .iter()
        .map(|(kind, id, facts)| {
            let rows = facts.iter().map(|row| {
                json!({
                    "says": row.fact, "valid_from": row.valid.from, "valid_until": row.valid.until,
                    "source": row.source, "checked": row.checked, "confidence": confidence(row),
                })
            });
            json!({ "kind": kind, "id": id, "facts": rows.collect::<Vec<_>>() })
        })
        .collect();
    let cases = cases
        .iter()
        .map(|case| json!({ "name": case.name, "expect": case.expect, "place": case.place }));
    output::json(&json!({
        "id": rule.id, "effect": rule.effect, "citation": rule.citation, "advice": rule.advice,
        "duty": rule.duty, "place": place, "text": rule.text, "names": facts,
        "cases": cases.collect::<Vec<_>>(),
    }))
}

/// The word that the file of facts uses.
fn confidence<T>(fact: &Dated<T>) -> String {
    format!("{:?}", fact.confidence).to_lowercase()
}

/// An instant as a file of facts writes it: a day, where it is the beginning of one.
fn day(instant: Timestamp) -> String {
    let zoned = instant.to_zoned(TimeZone::UTC);
    match zoned.start_of_day() {
        Ok(start) if start == zoned => zoned.date().to_string(),
        _ => instant.to_string(),
    }
}
