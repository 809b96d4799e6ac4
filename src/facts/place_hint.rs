//! What was probably meant by a place that is not known: a country by its name, another list's code, or
//! a group of countries, of which none has a law of its own here.

use super::FactsAt;
use crate::domain::{JurisdictionCode, nearest};

/// Codes of other lists, and words, for what ISO 3166 calls otherwise.
const OTHERWISE: [(&str, &str); 30] = [
    ("UK", "GB"),
    ("GBR", "GB"),
    ("ENGLAND", "GB"),
    ("GREAT BRITAIN", "GB"),
    ("EL", "GR"),
    ("GRC", "GR"),
    ("USA", "US"),
    ("AMERICA", "US"),
    ("UAE", "AE"),
    ("ARE", "AE"),
    ("KSA", "SA"),
    ("SAU", "SA"),
    ("PRC", "CN"),
    ("CHN", "CN"),
    ("HKG", "HK"),
    ("JPN", "JP"),
    ("KOR", "KR"),
    ("IND", "IN"),
    ("SGP", "SG"),
    ("AUS", "AU"),
    ("BRA", "BR"),
    ("CAN", "CA"),
    ("CHE", "CH"),
    ("DEU", "DE"),
    ("FRA", "FR"),
    ("ESP", "ES"),
    ("ITA", "IT"),
    ("NLD", "NL"),
    ("HOLLAND", "NL"),
    ("RUSSIA", "RU"),
];

/// The groups that people take for a place, beside the zones of the facts.
const GROUPS: [&str; 7] = ["EU", "EEA", "EUROPE", "APAC", "EMEA", "WORLD", "GLOBAL"];

/// The end of a sentence about the unknown place `text`.
pub(super) fn place_hint(text: &str, facts: &FactsAt) -> String {
    let upper = text.trim().to_uppercase();
    let is_known = |code: &str| facts.jurisdictions.contains_key(code);
    let is_zone = facts.zones.keys().any(|zone| zone.eq_ignore_ascii_case(&upper));
    if is_zone || GROUPS.contains(&upper.as_str()) {
        return ": it is a group of countries, and each has a law of its own: name the country, such as `DE`"
            .to_owned();
    }
    let otherwise = OTHERWISE.iter().find(|(other, code)| *other == upper && is_known(code));
    // Two codes are no nearer to each other for having letters in common.
    let spelt = upper.replace('_', "-");
    let spelt =
        facts.jurisdictions.keys().map(JurisdictionCode::as_str).find(|code| *code == spelt);
    let meant = spelt
        .or_else(|| otherwise.map(|(_, code)| *code))
        .or_else(|| country(&upper, facts))
        .or_else(|| by_name(text, facts));
    match meant {
        Some(code) => format!(": did you mean `{code}`?"),
        None => ": want an ISO 3166 code such as `DE` or `CA-QC`; `GET /v1/vocabulary` lists them"
            .to_owned(),
    }
}

fn by_name<'f>(text: &str, facts: &'f FactsAt) -> Option<&'f str> {
    let name = nearest_name(text.trim(), facts)?;
    let mut all = facts.jurisdictions.iter();
    all.find(|(_, row)| row.name == name).map(|(code, _)| code.as_str())
}

fn nearest_name<'f>(text: &str, facts: &'f FactsAt) -> Option<&'f str> {
    let mut names = facts.jurisdictions.values().map(|row| row.name.as_str());
    names.clone().find(|name| *name == text).or_else(|| nearest(text, names.by_ref()))
}

/// The country of a subdivision that the facts do not know.
fn country<'f>(upper: &str, facts: &'f FactsAt) -> Option<&'f str> {
    let (country, _) = upper.split_once('-')?;
    facts.jurisdictions.get_key_value(country).map(|(code, _)| code.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Jurisdiction;

    #[test]
    fn a_place_by_another_name_is_named_by_its_code() {
        let mut facts = FactsAt::default();
        for (code, name) in
            [("DE", "Germany"), ("GB", "United Kingdom"), ("US", "United States"), ("GR", "Greece")]
        {
            let row = Jurisdiction { name: name.to_owned(), within: None };
            facts.jurisdictions.insert(code.parse().unwrap(), row);
        }
        facts.zones.insert("EEA".to_owned(), std::collections::BTreeSet::new());
        for (text, code) in [
            ("UK", "GB"),
            ("uk", "GB"),
            ("EL", "GR"),
            ("de", "DE"),
            (" De ", "DE"),
            ("Germany", "DE"),
            ("germany", "DE"),
            ("Germnay", "DE"),
            ("USA", "US"),
            ("US-XX", "US"),
            ("United kingdom", "GB"),
        ] {
            assert_eq!(place_hint(text, &facts), format!(": did you mean `{code}`?"), "{text}");
        }
        for group in ["EU", "eu", "EEA", "Europe"] {
            assert!(place_hint(group, &facts).contains("name the country"), "{group}");
        }
        assert!(place_hint("ZZ", &facts).contains("want an ISO 3166 code"));
    }
}
