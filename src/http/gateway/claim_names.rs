//! The names of claims, and the one form of what they say.

use super::super::problem::{Problem, ProblemKind};
use crate::{
    domain::{EndUser, FieldFault},
    source::did_you_mean,
};

/// The prefix of a claim's header.
pub(in crate::http) const HEADER: &str = "x-lexgate-";
/// The prefix of a claim in `metadata`.
pub(in crate::http) const FIELD: &str = "lexgate_";
/// The claims.
pub(in crate::http) const CLAIMS: [&str; 8] =
    [PERSONAL, "data", "subjects", SUBJECT_COUNT, "purpose", "audience", "location", END_USER];
pub(super) const PERSONAL: &str = "personal";
pub(super) const SUBJECT_COUNT: &str = "subject-count";
/// The one that is a name, and no list of words.
pub(super) const END_USER: &str = "end-user";
/// Those that may say several things.
pub(super) const LISTS: [&str; 3] = ["data", "subjects", "audience"];

pub(super) fn invalid(pointer: &str, detail: String) -> Problem {
    Problem::fields(ProblemKind::InvalidRequest, vec![FieldFault::new(pointer, detail)])
}

/// A misspelt claim would leave the call undeclared without a word: it is refused.
pub(super) fn known(name: &str, shown: &str) -> Result<String, Problem> {
    if CLAIMS.contains(&name) { Ok(name.to_owned()) } else { Err(unknown(name, shown)) }
}

pub(super) fn unknown(name: &str, shown: &str) -> Problem {
    let (prefix, all) = if shown.starts_with("metadata.") {
        ("metadata.lexgate_", CLAIMS.map(|claim| claim.replace('-', "_")))
    } else {
        (HEADER, CLAIMS.map(str::to_owned))
    };
    let all = all.map(|claim| format!("{prefix}{claim}"));
    let meant = format!("{prefix}{name}");
    let mut hint = did_you_mean(&meant, all.iter().map(String::as_str));
    if hint.is_empty() {
        hint = format!(": the claims are {}", CLAIMS.join(", "));
    }
    invalid(shown, format!("unknown claim `{shown}`{hint}"))
}

/// A claim by the two names under which it is said.
pub(super) fn both_names(claim: &str) -> String {
    format!("`{HEADER}{claim}` (or `metadata.{FIELD}{}`)", claim.replace('-', "_"))
}

/// One form for what means the same.
pub(super) fn normal(claim: &str, text: &str) -> String {
    if claim == PERSONAL {
        // As Python and others write it.
        return text.trim().to_ascii_lowercase();
    }
    if claim != END_USER {
        return list(text).join(",");
    }
    EndUser::parse(text).map_or_else(|_| text.to_owned(), |user| user.as_str().to_owned())
}

pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
