//! `lexgate policies new`

use clap::{Args, Subcommand};

use super::draft::{Into, Target};
use crate::{
    cli::Failure,
    domain::{Clock, JurisdictionCode, SystemClock, meant_jurisdiction},
    facts::FactsAt,
    policy,
    source::SourceFile,
};

/// The longest id.
const LONGEST: usize = 64;

/// Write a template that already passes, to be made into the law that you read.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum New {
    /// A regime: a law on where personal data may go, with its facts and its cases.
    Regime(Regime),
    /// The licence of a model: its terms and its cases.
    Licence(Licence),
}

/// A regime: a law on where personal data may go, with its facts and its cases.
#[derive(Debug, Args)]
pub(in crate::cli) struct Regime {
    /// What files, policy and words are called by: `mx-lfpdppp`.
    #[arg(value_name = "ID")]
    id: String,
    /// Whose law it is, as an ISO 3166 code: `MX`.
    #[arg(long, value_name = "CODE")]
    jurisdiction: String,
    /// What people call it: "Mexico, LFPDPPP".
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    into: Into,
}

/// The licence of a model: its terms and its cases.
#[derive(Debug, Args)]
pub(in crate::cli) struct Licence {
    /// Its SPDX id: `LicenseRef-acme-1.0` for a licence that is not on SPDX's list.
    #[arg(value_name = "ID")]
    id: String,
    /// What people call it: "Acme Community License 1.0".
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    into: Into,
}

impl New {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Regime(regime) => regime.run(),
            Self::Licence(licence) => licence.run(),
        }
    }
}

impl Regime {
    fn run(self) -> Result<(), Failure> {
        let Self { id, jurisdiction, name, into } = self;
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !is_id(&id, lower) {
            return Err(Failure::Usage(format!(
                "`{id}` cannot be the id of a regime: want small letters, digits and `-`, such as \
                 `mx-lfpdppp`: the country and its law"
            )));
        }
        let into = Target::open(&into)?;
        let today = today();
        let facts = into.proposal.world.at(SystemClock.now());
        let code = known(&facts, &jurisdiction)?;
        into.refuse_covered(&facts, &code)?;
        if into.proposal.bundle.rules().any(|rule| rule.id.as_str() == format!("{id}-transfer")) {
            return Err(Failure::Usage(format!(
                "the id `{id}` is taken by a policy: choose another"
            )));
        }
        let place = facts.jurisdictions.get(&code).map_or_else(String::new, |row| row.name.clone());
        let name = checked_name(&name.unwrap_or_else(|| format!("{place}, {id}")))?;
        let abroad = if code.as_str().starts_with("SG") { "DE" } else { "SG" };
        let values = [
            ("id", id.as_str()),
            ("name", &name),
            ("code", code.as_str()),
            ("place", &place),
            ("today", &today),
            ("review", &review()),
            ("abroad", abroad),
        ];
        let fill = |text: &str| fill(text, &values);
        let policy =
            (format!("sovereignty/{id}.cedar"), fill(include_str!("templates/regime.cedar")));
        // Names of other lengths break lines at other places.
        let laid_out = policy::format(&SourceFile::new(&policy.0, &policy.1));
        into.write(&[
            (policy.0, laid_out.unwrap_or(policy.1)),
            (format!("facts/{id}.toml"), fill(include_str!("templates/regime_facts.toml"))),
            (format!("cases/{id}.toml"), fill(include_str!("templates/regime_cases.toml"))),
        ])
    }
}

impl Licence {
    fn run(self) -> Result<(), Failure> {
        let Self { id, name, into } = self;
        if !is_id(&id, |c| c.is_ascii_alphanumeric() || c == '.') {
            return Err(Failure::Usage(format!(
                "`{id}` cannot be the id of a licence: want letters, digits, `-` and `.`, such as \
                 `LicenseRef-acme-1.0`, or the id on SPDX's list"
            )));
        }
        let into = Target::open(&into)?;
        if into.proposal.world.knows_licence(&id) {
            return Err(Failure::Usage(format!(
                "there is a licence `{id}` already: change its row in the policy folder's `facts/`"
            )));
        }
        let (today, name) = (today(), checked_name(name.as_deref().unwrap_or(&id))?);
        let values =
            [("id", id.as_str()), ("name", &name), ("today", &today), ("review", &review())];
        let fill = |text: &str| fill(text, &values);
        into.write(&[
            (format!("facts/{id}.toml"), fill(include_str!("templates/licence_facts.toml"))),
            (
                format!("cases/licence-{id}.toml"),
                fill(include_str!("templates/licence_cases.toml")),
            ),
        ])
    }
}

/// The day, as facts write it.
fn today() -> String {
    SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// The day by which somebody should have read a source.
fn review() -> String {
    let today = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    today.saturating_add(jiff::Span::new().months(6)).to_string()
}

/// Whether `text` is made of these characters and single `-` between them, and begins with a letter.
fn is_id(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    let letter_first = text.starts_with(|first: char| first.is_ascii_alphabetic());
    let parts_hold = text.split('-').all(|part| !part.is_empty() && part.chars().all(&allowed));
    letter_first && parts_hold && text.len() <= LONGEST
}

/// The jurisdiction that `text` is the code of.
fn known(facts: &FactsAt, text: &str) -> Result<JurisdictionCode, Failure> {
    let code = text.parse().ok().filter(|code| facts.jurisdictions.contains_key(code));
    code.ok_or_else(|| {
        let wanted = text.to_lowercase();
        let same = facts.jurisdictions.iter().find(|(code, row)| {
            row.name.to_lowercase() == wanted || code.as_str().to_lowercase() == wanted
        });
        let remedy = match same {
            Some((code, row)) => format!("did you mean `{code}` ({})?", row.name),
            None => meant_jurisdiction(text).unwrap_or_else(|| {
                "want an ISO 3166 code such as `MX`; `facts/jurisdictions.toml` lists them"
                    .to_owned()
            }),
        };
        Failure::Usage(format!("unknown jurisdiction `{text}`: {remedy}"))
    })
}

/// A name that may stand between quotes, in a policy as in a file of facts.
fn checked_name(name: &str) -> Result<String, Failure> {
    let spoils = |c: char| c.is_control() || ['"', '\\', '%'].contains(&c);
    if name.trim().is_empty() || name.contains(spoils) {
        let message = "the name must be one line without `\"`, `\\` and `%`".to_owned();
        return Err(Failure::Usage(message));
    }
    Ok(name.trim().to_owned())
}

/// A template with each `%name%` replaced by its value.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let replace =
        |text: String, (name, value): &(&str, &str)| text.replace(&format!("%{name}%"), value);
    values.iter().fold(template.to_owned(), replace)
}
