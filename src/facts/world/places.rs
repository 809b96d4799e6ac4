//! Which jurisdiction a written code leads to, and what to write where it leads to none.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{JurisdictionCode, meant_jurisdiction},
    source::nearest,
};

/// A country or a subdivision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jurisdiction {
    /// Its English name.
    pub name: String,
    /// Subdivisions that have no law of their own here, without the country's part: `ON`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub subdivisions: BTreeSet<String>,
    /// The country, for a subdivision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<JurisdictionCode>,
}

/// The jurisdiction whose law applies at `code`: itself, or, of a subdivision that has no law of its own,
/// its country.
///
/// Where a country has a subdivision with a law of its own, the others must be listed: a slip of the pen
/// would else take people out of the stricter law in silence.
///
/// # Errors
/// What to write instead, where more can be said than that the code is not known.
pub(in crate::facts) fn place<'a>(
    code: JurisdictionCode,
    known: impl Iterator<Item = (&'a JurisdictionCode, &'a Jurisdiction)> + Clone,
) -> Result<JurisdictionCode, Option<String>> {
    if known.clone().any(|(other, _)| *other == code) {
        return Ok(code);
    }
    if let Some(help) = meant_jurisdiction(code.as_str()) {
        return Err(Some(help));
    }
    let Some((country, part)) = code.parts() else { return Err(None) };
    let Some((_, row)) = known.clone().find(|(other, _)| **other == country) else {
        return Err(Some(format!("there is no country `{country}`: want an ISO 3166 code")));
    };
    let own: Vec<_> = known
        .filter(|(_, row)| row.within.as_ref() == Some(&country))
        .map(|(code, _)| format!("`{code}`"))
        .collect();
    if own.is_empty() || row.subdivisions.contains(part) {
        return Ok(country);
    }
    Err(Some(format!(
        "{} has a law of its own, so the part of the country must be known: correct it, or write `{country}` where the country's law alone applies",
        own.join(", ")
    )))
}

/// The jurisdiction that has this name, or nearly: ``did you mean `DE`?``.
pub(in crate::facts) fn named<'a>(
    name: &str,
    known: &(impl Iterator<Item = (&'a JurisdictionCode, &'a Jurisdiction)> + Clone),
) -> Option<String> {
    let wanted = name.trim().to_lowercase();
    let called = |name: &str| known.clone().find(|(_, row)| row.name == name);
    let same = known.clone().find(|(_, row)| row.name.to_lowercase() == wanted);
    let near = || called(nearest(name.trim(), known.clone().map(|(_, row)| row.name.as_str()))?);
    let (code, _) = same.or_else(near)?;
    Some(format!("did you mean `{code}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> JurisdictionCode {
        text.parse().unwrap()
    }

    #[test]
    fn the_law_of_the_country_applies_where_a_subdivision_has_none() {
        let row = |name: &str, parts: &[&str], within: Option<&str>| Jurisdiction {
            name: name.to_owned(),
            subdivisions: parts.iter().map(|part| (*part).to_owned()).collect(),
            within: within.map(code),
        };
        let rows = [
            (code("US"), row("United States", &[], None)),
            (code("CA"), row("Canada", &["ON"], None)),
            (code("CA-QC"), row("Québec", &[], Some("CA"))),
        ];
        let known = || rows.iter().map(|(code, row)| (code, row));
        for (written, want) in
            [("US", "US"), ("US-CA", "US"), ("CA", "CA"), ("CA-QC", "CA-QC"), ("CA-ON", "CA")]
        {
            assert_eq!(place(code(written), known()), Ok(code(want)), "{written}");
        }
        for (written, says) in [
            ("CA-QB", "`CA-QC` has a law of its own"),
            ("US-PR", "did you mean `PR`?"),
            ("UK", "did you mean `GB`?"),
            ("EU", "name the country"),
            ("XY-1", "there is no country `XY`"),
        ] {
            let said = place(code(written), known()).unwrap_err().unwrap();
            assert!(said.contains(says), "{written}: {said}");
        }
        assert_eq!(place(code("XY"), known()), Err(None));
        assert_eq!(named("canada ", &known()), Some("did you mean `CA`?".to_owned()));
        assert_eq!(named("Untied States", &known()), Some("did you mean `US`?".to_owned()));
        assert_eq!(named("CA", &known()), None);
    }
}
