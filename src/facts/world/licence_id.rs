//! Licence identifiers: SPDX's, exactly as its list spells them, or `LicenseRef-…` for what the list
//! does not hold.

use std::ops::Range;

use spdx::{flags::IS_DEPRECATED, identifiers::LICENSES};

use crate::source::{Fault, SourceFile};

/// What begins an identifier of one's own (SPDX specification, annex on licence expressions).
const OWN: &str = "LicenseRef-";
/// How alike two identifiers must be for one to be suggested for the other, from 0 to 1.
const ALIKE: f64 = 0.84;
/// How many identifiers are suggested at most.
const SUGGESTED: usize = 3;

/// Deprecated identifiers whose successor has another name; those of the GNU family follow a rule.
const RENAMED: [(&str, &str); 3] = [
    ("BSD-2-Clause-NetBSD", "BSD-2-Clause"),
    ("bzip2-1.0.5", "bzip2-1.0.6"),
    ("StandardML-NJ", "SMLNJ"),
];

/// Checks the identifier `id`, which stands at `span` of `file`.
///
/// # Errors
/// Why it is none, and what to write instead.
pub(in crate::facts) fn check(
    id: &str,
    file: &SourceFile,
    span: Range<usize>,
) -> Result<(), Fault> {
    match objection(id) {
        Some((message, help)) => Err(file.fault(span, message).help(help)),
        None => Ok(()),
    }
}

/// What is wrong with an identifier, and what to do.
fn objection(id: &str) -> Option<(String, String)> {
    if let Some(own) = id.strip_prefix(OWN) {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        let good = !own.is_empty() && own.bytes().all(allowed);
        let message = format!("`{id}` is not a licence identifier");
        let help = "after `LicenseRef-` stand letters, digits, `-` and `.`".to_owned();
        return (!good).then_some((message, help));
    }
    if is_current(id) {
        return None;
    }
    let deprecated = || format!("SPDX has deprecated the licence identifier `{id}`");
    if let Some(successor) = successor(id) {
        return Some((deprecated(), format!("write `{successor}`")));
    }
    if LICENSES.iter().any(|licence| licence.name == id) {
        let help = "its successor is named at <https://spdx.org/licenses/>".to_owned();
        return Some((deprecated(), help));
    }
    let names = LICENSES.iter().map(|licence| licence.name).filter(|name| is_current(name));
    let own = "name what the list does not hold `LicenseRef-` and letters, digits, `-` and `.`";
    let help = advice(id, names.chain([OWN]), own);
    Some((format!("`{id}` is not on SPDX's list of licences"), help))
}

fn is_current(id: &str) -> bool {
    LICENSES.iter().any(|licence| licence.name == id && licence.flags & IS_DEPRECATED == 0)
}

/// What SPDX calls a deprecated licence now, where that is known. `GPL-2.0` and `GPL-2.0+` left open to
/// the reader which was meant.
fn successor(id: &str) -> Option<String> {
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == id) {
        return Some((*new).to_owned());
    }
    let gnu = match id.strip_suffix('+') {
        Some(version) => format!("{version}-or-later"),
        None => format!("{id}-only"),
    };
    Some(gnu).filter(|id| is_current(id))
}

/// The identifier under which a licence that is called `id` can be written down: SPDX's where it has one,
/// else one of one's own.
pub(in crate::facts) fn proposed(id: &str) -> String {
    if objection(id).is_none() {
        return id.to_owned();
    }
    if let Some(licence) = LICENSES.iter().find(|licence| licence.name.eq_ignore_ascii_case(id)) {
        return successor(licence.name).unwrap_or_else(|| licence.name.to_owned());
    }
    let own = id.strip_prefix(OWN).unwrap_or(id);
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let own: String = own.chars().take(48).map(allowed).collect();
    let parts: Vec<&str> = own.split('-').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { format!("{OWN}own") } else { format!("{OWN}{}", parts.join("-")) }
}

/// What to write instead of `id`: the name that differs in case alone, or else what is most like it, or
/// else to do `otherwise`.
pub(in crate::facts) fn advice<'n>(
    id: &str,
    names: impl Iterator<Item = &'n str>,
    otherwise: &str,
) -> String {
    let lower = id.to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&lower, &name.to_lowercase());
    let mut like: Vec<(f64, &str)> = names.map(|name| (likeness(name), name)).collect();
    like.retain(|(likeness, _)| *likeness >= ALIKE);
    like.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    if let Some((_, name)) = like.iter().find(|(_, name)| name.eq_ignore_ascii_case(id)) {
        return format!("write `{name}`: capitals count");
    }
    let names: Vec<_> = like.iter().take(SUGGESTED).map(|(_, name)| format!("`{name}`")).collect();
    if names.is_empty() {
        return format!("correct it, or {otherwise}");
    }
    format!("perhaps {} is meant; otherwise {otherwise}", names.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(id: &str) -> Option<String> {
        let file = SourceFile::new("f.toml", id);
        check(id, &file, 0..id.len()).err().map(|fault| {
            let help = fault.help.unwrap_or_default();
            format!("{}: {help}", fault.message)
        })
    }

    #[test]
    fn a_licence_of_any_name_can_be_written_down() {
        for (id, want) in [
            ("MIT", "MIT"),
            ("mit", "MIT"),
            ("LicenseRef-llama-3.1", "LicenseRef-llama-3.1"),
            ("proprietary", "LicenseRef-proprietary"),
            ("Anthropic Commercial Terms", "LicenseRef-Anthropic-Commercial-Terms"),
            ("LicenseRef-a_b", "LicenseRef-a-b"),
            ("", "LicenseRef-own"),
        ] {
            assert_eq!(proposed(id), want);
            assert_eq!(help(&proposed(id)), None, "{id}");
        }
    }

    #[test]
    fn identifiers_are_spelt_as_spdx_spells_them() {
        for good in ["MIT", "Apache-2.0", "GPL-2.0-only", "LicenseRef-llama-3.1", "CC-BY-NC-4.0"] {
            assert_eq!(help(good), None);
        }
        for (bad, says) in [
            ("apache-2.0", "is not on SPDX's list of licences: write `Apache-2.0`: capitals count"),
            ("Apache-2", "perhaps `Apache-2.0` or"),
            ("GPL-2.0", "has deprecated the licence identifier `GPL-2.0`: write `GPL-2.0-only`"),
            ("LGPL-2.1+", "write `LGPL-2.1-or-later`"),
            ("StandardML-NJ", "write `SMLNJ`"),
            ("eCos-2.0", "its successor is named at"),
            ("LicenseRef-", "is not a licence identifier"),
            ("LicenseRef-my licence", "stand letters, digits, `-` and `.`"),
            ("LicenseRef-a_b", "stand letters, digits, `-` and `.`"),
            ("licenseref-a", "perhaps `LicenseRef-` is meant"),
            ("MIT OR Apache-2.0", "is not on SPDX's list"),
            ("Apache-2.0+", "is not on SPDX's list"),
            ("", "is not on SPDX's list"),
            ("qwen", "correct it, or name what the list does not hold `LicenseRef-` and"),
        ] {
            let said = help(bad).unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(said.contains(says), "{bad}: {said}");
        }
    }
}
