//! Money: exact decimals in a currency. Not what anything costs.

use std::{fmt, sync::Arc};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// A currency, by its three letters (ISO 4217), such as `EUR`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, example = "EUR")]
pub struct Currency(Arc<str>);

/// A text that is no currency or no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMoney {
    /// Not three capital letters.
    #[error("want the three capital letters of ISO 4217, such as `EUR`")]
    Currency,
    /// Not a decimal number.
    #[error("want a decimal number in quotes, such as `\"0.15\"`, without sign or exponent")]
    Amount,
}

impl Currency {
    /// Reads three capital letters.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidMoney> {
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_code { Ok(Self(text.into())) } else { Err(InvalidMoney::Currency) }
    }

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// An amount of money.
///
/// Fields stand in alphabetical order: their JSON is then canonical (RFC 8785) as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// How much: a decimal number, exact.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    #[schema(value_type = String, example = "0.00021")]
    pub amount: Decimal,
    /// Of what.
    pub currency: Currency,
}

/// Reads an amount: digits, at most one point, nothing else.
///
/// # Errors
/// When it is anything else, or has more digits than are kept exactly.
pub fn parse_amount(text: &str) -> Result<Decimal, InvalidMoney> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let amount = Decimal::from_str_exact(text).ok().filter(|_| is_plain);
    amount.map(|amount| amount.normalize()).ok_or(InvalidMoney::Amount)
}

fn as_text<S: Serializer>(amount: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&amount.normalize())
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_amount(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_plain_and_exact() {
        let read = |text| parse_amount(text).map(|amount| amount.to_string());
        assert_eq!(read("0.15"), Ok("0.15".to_owned()));
        assert_eq!(read("0010.500"), Ok("10.5".to_owned()));
        assert_eq!(read("0"), Ok("0".to_owned()));
        for wrong in ["", ".", "-1", "+1", "1e3", "1_000", "1,5", "0x1", " 1", "1.2.3"] {
            assert_eq!(read(wrong), Err(InvalidMoney::Amount), "{wrong:?}");
        }
        // More digits than are kept exactly are refused, not rounded.
        assert_eq!(read("0.12345678901234567890123456789"), Err(InvalidMoney::Amount));
    }

    #[test]
    fn money_is_written_as_it_is_read() {
        let text = r#"{"amount":"0.00021","currency":"EUR"}"#;
        let money: Money = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&money).unwrap(), text);
        for wrong in [r#"{"amount":"1","currency":"eur"}"#, r#"{"amount":1,"currency":"EUR"}"#] {
            assert!(serde_json::from_str::<Money>(wrong).is_err(), "{wrong}");
        }
    }
}
