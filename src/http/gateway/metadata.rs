//! Claims in a body's `metadata`: found, read and taken out. What merely looks like one is refused.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    super::problem::Problem,
    claim_names::{FIELD, LISTS, PERSONAL, SUBJECT_COUNT, invalid, known, normal, unknown},
};
use crate::{dispatch::Fields, domain::passing::fold};

/// The claims of a body, which has none of them afterwards.
pub(super) fn from_metadata(body: &mut Fields) -> Result<BTreeMap<String, String>, Problem> {
    let mut metadata = match body.object("metadata") {
        Ok(Some(metadata)) => metadata,
        // An object that cannot be read would show the backend claims that were not read either.
        Err(error) if body.is_object("metadata") => {
            return Err(invalid("/metadata", error.to_string()));
        }
        // Metadata that is no object is the backend's affair: it holds no claim.
        Ok(None) | Err(_) => return Ok(BTreeMap::new()),
    };
    let mut claims = BTreeMap::new();
    let names: Vec<String> = metadata.names().map(str::to_owned).collect();
    all_differ(&names)?;
    for name in names {
        let shown = format!("metadata.{}", name.escape_debug());
        let Some(claim) = name.strip_prefix(FIELD) else {
            if is_like_a_claim(&name) {
                return Err(unknown(without_prefix(&name), &shown));
            }
            continue;
        };
        // One name for each: with two, one claim could say two things.
        if claim.contains('-') {
            return Err(unknown(claim, &shown));
        }
        let claim = known(&claim.replace('_', "-"), &shown)?;
        let text = metadata.read::<Value>(&name).ok().flatten();
        let text = text.and_then(|value| words(&claim, value));
        let Some(text) = text else {
            let what = if LISTS.contains(&claim.as_str()) { " or a list of them" } else { "" };
            let detail = format!("`{shown}` must be a string{what}, such as `{}`", example(&claim));
            return Err(invalid(&shown, detail));
        };
        let text = normal(&claim, &text);
        claims.insert(claim, text);
    }
    if !claims.is_empty() {
        metadata.retain(|name| !name.starts_with(FIELD));
        if metadata.is_empty() {
            body.retain(|name| name != "metadata");
        } else {
            let set = body.set_object("metadata", &metadata);
            set.map_err(|error| invalid("/metadata", error.to_string()))?;
        }
    }
    Ok(claims)
}

/// Two names of which some reader takes one for the other are refused, as everywhere in a body.
fn all_differ(names: &[String]) -> Result<(), Problem> {
    let mut known = BTreeMap::new();
    for name in names {
        if let Some(other) = known.insert(fold(name), name) {
            let detail = format!(
                "`metadata.{}` can be taken for `metadata.{}`: keep one",
                name.escape_debug(),
                other.escape_debug()
            );
            return Err(invalid("/metadata", detail));
        }
    }
    Ok(())
}

/// Whether a name was meant as a claim, or would be taken for one: `LEXGATE_data`, ` lexgate-data`.
fn is_like_a_claim(name: &str) -> bool {
    let letters: String = fold(name).chars().filter(|c| c.is_alphanumeric()).collect();
    letters.starts_with("lexgate")
}

/// What follows the prefix in a name that was meant as a claim.
fn without_prefix(name: &str) -> &str {
    let is_separator = |c: char| !c.is_alphanumeric();
    let rest = name.trim_start_matches(is_separator);
    let after = rest.char_indices().nth(FIELD.len() - 1).map_or(rest.len(), |(at, _)| at);
    rest.get(after..).unwrap_or_default().trim_start_matches(is_separator)
}

/// A claim as it is written in a header. JSON has true and false, numbers and lists of its own.
fn words(claim: &str, value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(is_so) if claim == PERSONAL => Some(is_so.to_string()),
        Value::Number(number) if claim == SUBJECT_COUNT => Some(number.to_string()),
        Value::Array(items) if LISTS.contains(&claim) => {
            let item = |item: Value| match item {
                // A comma would make one of them two.
                Value::String(text) if !text.contains(',') => Some(text),
                _ => None,
            };
            Some(items.into_iter().map(item).collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}

fn example(claim: &str) -> &'static str {
    match claim {
        "personal" => "false",
        "data" => "dpv-pd:Health",
        "subject-count" => "12",
        "purpose" => "dpv:ServiceProvision",
        "end-user" => "u-1842",
        _ => "DE",
    }
}
