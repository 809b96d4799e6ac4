//! Faults of the configuration: where, what is wrong, what is wanted. Never what is written there.

use std::ops::Range;

use figment::error::{Actual, Kind};

use crate::source::{Fault, Faults, SourceFile, is_name, is_word, nearest, without_values};

/// Every key and table of the configuration.
const KEYS: [&str; 54] = [
    "activate_on_start",
    "allow_removal",
    "api_keys",
    "app",
    "backends",
    "body_budget",
    "body_timeout",
    "ca_files",
    "checkpoints_file",
    "command",
    "dir",
    "env",
    "environment",
    "file",
    "header_timeout",
    "idle_timeout",
    "insecure_tls",
    "jurisdictions",
    "key",
    "ledger",
    "limits",
    "listen",
    "mark_file",
    "master_key_file",
    "max_body_bytes",
    "max_clock_skew",
    "max_connections",
    "max_connections_per_address",
    "migrate",
    "min_free",
    "name",
    "organisation",
    "origin",
    "otlp_endpoint",
    "patience",
    "personal_values",
    "policies",
    "readings_per_minute",
    "refresh",
    "require_synchronous_standby",
    "require_witness",
    "roles",
    "sample_ratio",
    "secrets",
    "server",
    "sha256",
    "signing_key_file",
    "sslmode",
    "store",
    "telemetry",
    "tls",
    "trusted_proxies",
    "url",
    "witnesses",
];

/// The fault with its key alone, and no value.
pub(super) fn concealed(fault: Fault) -> Fault {
    without_values(fault, &KEYS)
}

/// What broken TOML breaks with, without the line's value.
pub(super) fn broken(fault: Fault) -> Fault {
    let message = quoteless(&fault.message);
    concealed(Fault { message, ..fault })
}

/// The message with everything that it quotes left out, but for what a parser expected.
fn quoteless(message: &str) -> String {
    let mut shown = String::new();
    for (n, part) in message.split('`').enumerate() {
        match (n % 2 == 1, part.chars().count() <= 2 || is_word(part) && shown.contains("expected"))
        {
            (true, true) => shown.extend(["`", part, "`"]),
            (true, false) => shown.push('…'),
            (false, _) => shown.push_str(part),
        }
    }
    shown
}

/// Figment's error with the line of the file that it is about.
pub(super) fn explain(file: &SourceFile, error: &figment::Error) -> Faults {
    let faults = error.clone().into_iter().map(|error| {
        let path: Vec<&str> = error.path.iter().map(String::as_str).collect();
        // What is missing is missing where its table is, whichever source was read last.
        let is_of_file = matches!(error.kind, Kind::MissingField(_)) && has(file, &path);
        let from_environment = !is_of_file
            && error.metadata.as_ref().is_some_and(|it| it.name.contains("environment"));
        let span = match &error.kind {
            Kind::UnknownField(name, _) => {
                let mut path = path.clone();
                path.push(name);
                locate(file, &path)
            }
            _ => locate(file, &path),
        };
        let help = match &error.kind {
            Kind::UnknownField(name, expected) => match nearest(name, expected.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "remove the key, or correct its spelling".to_owned(),
            },
            Kind::UnknownVariant(value, expected) => match nearest(value, expected.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "correct the value".to_owned(),
            },
            Kind::MissingField(_) => "add the key".to_owned(),
            _ => "correct the value".to_owned(),
        };
        let is_secret = path.first() == Some(&"secrets");
        let is_list = path.get(..2) == Some(&["secrets", "environment"]);
        let message = match &error.kind {
            Kind::InvalidType(..) | Kind::InvalidValue(..) if is_list => {
                "`environment` is a list of names of environment variables, such as `[\"EXAMPLE_API_KEY\"]`".to_owned()
            }
            Kind::InvalidType(..) | Kind::InvalidValue(..) if is_secret => {
                "a secret is a table of one of `env = \"VARIABLE\"`, `file = \"PATH\"` and `command = [\"PROGRAM\", …]`".to_owned()
            }
            kind => said(kind),
        };
        if from_environment {
            let path = path.iter().map(|part| if is_name(part) { *part } else { "…" });
            let name = format!("LEXGATE_{}", path.collect::<Vec<_>>().join("__").to_uppercase());
            return SourceFile::new(&name, "").fault(0..0, message).help(help);
        }
        // The message says an unknown key that is a word, and so its line may be shown as well.
        let unknown = match &error.kind {
            Kind::UnknownField(name, _) if is_word(name) => Some(name.as_str()),
            _ => None,
        };
        let known: Vec<&str> = KEYS.into_iter().chain(unknown).collect();
        without_values(file.fault(span, message), &known).help(help)
    });
    Faults(faults.collect())
}

/// What is wrong, without what was found.
fn said(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(actual, expected) => {
            format!("invalid type: found {}, expected {expected}", noun(actual))
        }
        Kind::InvalidValue(actual, expected) => {
            format!("invalid value: found {}, expected {expected}", noun(actual))
        }
        Kind::UnknownVariant(_, expected) => {
            format!("unknown value: expected one of `{}`", expected.join("`, `"))
        }
        Kind::UnknownField(name, expected) => {
            let name = if is_word(name) { format!("`{name}`") } else { "another".to_owned() };
            let one_of = if expected.len() > 1 { "one of " } else { "" };
            format!("unknown field: found {name}, expected {one_of}`{}`", expected.join("`, `"))
        }
        Kind::Message(message) => unquoted(message),
        Kind::MissingField(_) | Kind::DuplicateField(_) | Kind::InvalidLength(..) => {
            kind.to_string()
        }
        _ => "the value cannot be read".to_owned(),
    }
}

/// The words of our own types, without the value that some of them begin with.
fn unquoted(message: &str) -> String {
    let verbs = ["` is not ", "` is no ", "` is a ", "` cannot "];
    let end = verbs.iter().filter_map(|verb| message.rfind(verb)).max();
    let parts = end.and_then(|end| message.get(1..end).zip(message.get(end + 1..)));
    match parts {
        Some((value, rest)) if message.starts_with('`') && !KEYS.contains(&value) => {
            format!("the value{rest}")
        }
        _ => message.to_owned(),
    }
}

/// What kind of value something is.
const fn noun(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Bytes(_) => "bytes",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

/// Whether the file says something at `path`.
fn has(file: &SourceFile, path: &[&str]) -> bool {
    walk(file, path).1 == path.len()
}

/// The bytes of the value at `path`, or of the nearest table around it.
#[must_use]
pub fn locate(file: &SourceFile, path: &[&str]) -> Range<usize> {
    walk(file, path).0
}

/// The bytes of what is found on the way along `path`, and how far that leads.
fn walk(file: &SourceFile, path: &[&str]) -> (Range<usize>, usize) {
    use toml::de::{DeTable, DeValue};
    let Ok(table) = DeTable::parse(&file.text) else { return (0..0, 0) };
    let (mut span, mut steps) = (0..0, 0);
    let mut here = DeValue::Table(table.into_inner());
    for key in path {
        let next = match here {
            DeValue::Table(mut table) => {
                let found = table.remove_entry(*key);
                found.map(|(key, value)| (key.span(), value))
            }
            DeValue::Array(items) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| items.into_iter().nth(index))
                .map(|value| (value.span(), value)),
            _ => None,
        };
        let Some((at, value)) = next else { break };
        span = at;
        steps += 1;
        here = value.into_inner();
    }
    (span, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_type_do_not_repeat_the_value() {
        for (message, want) in [
            ("`hush` is not a duration, such as `5s`", "the value is not a duration, such as `5s`"),
            ("`hu`sh` is not a code", "the value is not a code"),
            ("`a` is not b` is not a code", "the value is not a code"),
            ("`hush` cannot name a log: want no `+`", "the value cannot name a log: want no `+`"),
            ("`hush` is a log's key", "the value is a log's key"),
            ("`refresh` is no duration", "`refresh` is no duration"),
            ("`command` names no program", "`command` names no program"),
            ("want 64 digits", "want 64 digits"),
        ] {
            assert_eq!(unquoted(message), want);
        }
    }
}
