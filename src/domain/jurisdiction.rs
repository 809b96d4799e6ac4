//! Jurisdiction codes: their form. Which codes exist is a dated fact, not known here.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

/// A country (ISO 3166-1 alpha-2, `DE`) or a subdivision (ISO 3166-2, `CA-QC`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, pattern = "^[A-Z]{2}(-[A-Z0-9]{1,3})?$", example = "DE")]
pub struct JurisdictionCode(Arc<str>);

/// The text does not have the form of a jurisdiction code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an ISO 3166 code: {advice}", advice = meant(.0).unwrap_or_else(|| FORM.to_owned()))]
pub struct InvalidJurisdiction(String);

const FORM: &str = "want two capital letters (`DE`), or those and a subdivision (`CA-QC`)";

/// What people write for a country that has another code.
const OTHER: [(&str, &str); 32] = [
    ("AMERICA", "US"),
    ("ARE", "AE"),
    ("AUS", "AU"),
    ("BRA", "BR"),
    ("CAN", "CA"),
    ("CHE", "CH"),
    ("CHN", "CN"),
    ("DEU", "DE"),
    ("EL", "GR"),
    ("ENG", "GB"),
    ("ENGLAND", "GB"),
    ("ESP", "ES"),
    ("FRA", "FR"),
    ("GBR", "GB"),
    ("GRC", "GR"),
    ("GREAT BRITAIN", "GB"),
    ("HKG", "HK"),
    ("HOLLAND", "NL"),
    ("IND", "IN"),
    ("ITA", "IT"),
    ("JPN", "JP"),
    ("KOR", "KR"),
    ("KSA", "SA"),
    ("NLD", "NL"),
    ("PRC", "CN"),
    ("RUSSIA", "RU"),
    ("SAU", "SA"),
    ("SGP", "SG"),
    ("UAE", "AE"),
    ("UK", "GB"),
    ("USA", "US"),
    ("XKX", "XK"),
];

/// What to say of them.
const SEVERAL_MEANT: &str =
    "it is a group of countries, and each has a law of its own: name the country, such as `DE`";
/// What people write for several countries.
const SEVERAL: [&str; 13] = [
    "APAC", "ASEAN", "DACH", "EEA", "EMEA", "EU", "EUROPE", "GCC", "GLOBAL", "LATAM", "MENA", "UN",
    "WORLD",
];

/// Subdivisions (ISO 3166-2) that have a code in ISO 3166-1 too. The law of the country that they are listed
/// under is not theirs.
const TERRITORIES: [(&str, &str); 54] = [
    ("CN-71", "TW"),
    ("CN-91", "HK"),
    ("CN-92", "MO"),
    ("CN-HK", "HK"),
    ("CN-MO", "MO"),
    ("CN-TW", "TW"),
    ("DK-FO", "FO"),
    ("DK-GL", "GL"),
    ("FI-01", "AX"),
    ("FI-AX", "AX"),
    ("FR-971", "GP"),
    ("FR-972", "MQ"),
    ("FR-973", "GF"),
    ("FR-974", "RE"),
    ("FR-976", "YT"),
    ("FR-986", "WF"),
    ("FR-987", "PF"),
    ("FR-988", "NC"),
    ("FR-BL", "BL"),
    ("FR-GF", "GF"),
    ("FR-GP", "GP"),
    ("FR-MF", "MF"),
    ("FR-MQ", "MQ"),
    ("FR-NC", "NC"),
    ("FR-PF", "PF"),
    ("FR-PM", "PM"),
    ("FR-RE", "RE"),
    ("FR-TF", "TF"),
    ("FR-WF", "WF"),
    ("FR-YT", "YT"),
    ("GB-GG", "GG"),
    ("GB-GI", "GI"),
    ("GB-IM", "IM"),
    ("GB-JE", "JE"),
    ("NL-AW", "AW"),
    ("NL-BQ1", "BQ"),
    ("NL-BQ2", "BQ"),
    ("NL-BQ3", "BQ"),
    ("NL-CW", "CW"),
    ("NL-SX", "SX"),
    ("NO-21", "SJ"),
    ("NO-22", "SJ"),
    ("NO-SJ", "SJ"),
    ("SH-AC", "SH"),
    ("SH-TA", "SH"),
    ("US-AS", "AS"),
    ("US-FM", "FM"),
    ("US-GU", "GU"),
    ("US-MH", "MH"),
    ("US-MP", "MP"),
    ("US-PR", "PR"),
    ("US-PW", "PW"),
    ("US-UM", "UM"),
    ("US-VI", "VI"),
];

/// What to write instead of a text that is not the code of a country or subdivision: ``did you mean `GB`?``.
/// `None` where that cannot be told from the text alone.
#[must_use]
pub fn meant(text: &str) -> Option<String> {
    let meant = |code: &str| Some(format!("did you mean `{code}`?"));
    let trimmed = text.trim();
    let upper = trimmed.to_uppercase().replace('_', "-");
    let (country, subdivision) = upper.split_once('-').unwrap_or((&upper, ""));
    if SEVERAL.contains(&&*upper) {
        return Some(SEVERAL_MEANT.to_owned());
    }
    if let Some((_, code)) = OTHER.iter().find(|(other, _)| *other == country) {
        let part = if subdivision.is_empty() { String::new() } else { format!("-{subdivision}") };
        return meant(&format!("{code}{part}"));
    }
    // A language and its country, as in `de-CH`.
    let is_language =
        trimmed.get(..2).is_some_and(|two| two.bytes().all(|b| b.is_ascii_lowercase()));
    let region = trimmed.get(2..).and_then(|rest| rest.strip_prefix(['-', '_']));
    if let Some(region) = region.filter(|region| is_language && is_country(region)) {
        return meant(region);
    }
    if let Some((_, own)) = TERRITORIES.iter().find(|(within, _)| *within == upper) {
        return Some(format!("did you mean `{own}`? It has a code, and laws, of its own"));
    }
    let is_other = upper != text && upper.parse::<JurisdictionCode>().is_ok();
    is_other.then(|| meant(&upper)).flatten()
}

fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase())
}

impl JurisdictionCode {
    /// The code as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The country and the subdivision's own part, of a subdivision.
    #[must_use]
    pub fn parts(&self) -> Option<(Self, &str)> {
        let (country, part) = self.0.split_once('-')?;
        Some((Self(country.into()), part))
    }
}

impl FromStr for JurisdictionCode {
    type Err = InvalidJurisdiction;

    fn from_str(text: &str) -> Result<Self, InvalidJurisdiction> {
        let (country, subdivision) = match text.split_once('-') {
            Some((country, subdivision)) => (country, Some(subdivision)),
            None => (text, None),
        };
        let country_ok = is_country(country);
        let subdivision_ok = subdivision.is_none_or(|part| {
            (1..=3).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        });
        if country_ok && subdivision_ok {
            Ok(Self(text.into()))
        } else {
            Err(InvalidJurisdiction(text.chars().take(32).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for JurisdictionCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Borrow<str> for JurisdictionCode {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JurisdictionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JurisdictionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_has_the_form_of_iso_3166() {
        for good in ["DE", "CA-QC", "GB-ENG", "US-CA", "FR-75"] {
            assert!(good.parse::<JurisdictionCode>().is_ok(), "{good}");
        }
        for bad in ["", "D", "de", "DEU", "CA-", "CA-QCXX", "CA-qc", "CA-Q-C", "D1", "ÄÖ"] {
            assert!(bad.parse::<JurisdictionCode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_people_write_leads_to_the_code() {
        for (text, wanted) in [
            ("UK", Some("did you mean `GB`?")),
            ("uk", Some("did you mean `GB`?")),
            ("UK-ENG", Some("did you mean `GB-ENG`?")),
            ("EL", Some("did you mean `GR`?")),
            ("USA", Some("did you mean `US`?")),
            ("de", Some("did you mean `DE`?")),
            ("us-ca", Some("did you mean `US-CA`?")),
            ("US_CA", Some("did you mean `US-CA`?")),
            (" DE", Some("did you mean `DE`?")),
            ("de-CH", Some("did you mean `CH`?")),
            ("en_US", Some("did you mean `US`?")),
            ("CN-HK", Some("did you mean `HK`? It has a code, and laws, of its own")),
            ("EU", Some(SEVERAL_MEANT)),
            ("DE", None),
            ("XK", None),
            ("Germany", None),
            ("ÄÖ", None),
            ("é-DE", None),
            ("", None),
        ] {
            assert_eq!(meant(text).as_deref(), wanted, "{text}");
        }
        let said = "de".parse::<JurisdictionCode>().unwrap_err().to_string();
        assert_eq!(said, "`de` is not an ISO 3166 code: did you mean `DE`?");
        let said = "Germany".parse::<JurisdictionCode>().unwrap_err().to_string();
        assert!(said.ends_with("or those and a subdivision (`CA-QC`)"), "{said}");
    }
}
