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
#[error(
    "`{0}` is not an ISO 3166 code: want two capital letters (`DE`), or those and a subdivision (`CA-QC`)"
)]
pub struct InvalidJurisdiction(String);

impl JurisdictionCode {
    /// The code as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JurisdictionCode {
    type Err = InvalidJurisdiction;

    fn from_str(text: &str) -> Result<Self, InvalidJurisdiction> {
        let (country, subdivision) = match text.split_once('-') {
            Some((country, subdivision)) => (country, Some(subdivision)),
            None => (text, None),
        };
        let country_ok = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
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
}
