//! What a deployment costs, and since when. Not what anybody has spent.

use rust_decimal::Decimal;

use crate::{
    domain::{Currency, DeploymentId, Money},
    facts::world::dated::Validity,
};

/// Tokens in the unit of prices.
const UNIT: u64 = 1_000_000;

/// What a deployment costs: `[[prices]]`.
#[derive(Clone, Debug)]
pub struct Price {
    /// Which.
    pub deployment: DeploymentId,
    /// In which currency.
    pub currency: Currency,
    /// A million tokens read.
    pub input: Decimal,
    /// A million tokens written.
    pub output: Decimal,
    /// Where it is written.
    pub reference: String,
    /// When it holds.
    pub valid: Validity,
}

impl Price {
    /// What so many tokens cost, exactly. `None` when none are known, or when it is more than a number
    /// can say.
    #[must_use]
    pub fn of(&self, input: Option<u64>, output: Option<u64>) -> Option<Money> {
        input.or(output)?;
        let cost = |price: Decimal, tokens: Option<u64>| {
            price.checked_mul(tokens.unwrap_or(0).into())?.checked_div(UNIT.into())
        };
        let amount = cost(self.input, input)?.checked_add(cost(self.output, output)?)?;
        Some(Money { amount: amount.normalize(), currency: self.currency.clone() })
    }

    /// What a million tokens read and a million written cost, to compare deployments by.
    #[must_use]
    pub fn sum(&self) -> Decimal {
        self.input.saturating_add(self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tokens_cost_is_exact() {
        let price = Price {
            deployment: "remote".into(),
            currency: Currency::parse("EUR").unwrap(),
            input: "0.15".parse().unwrap(),
            output: "0.60".parse().unwrap(),
            reference: String::new(),
            valid: Validity { from: jiff::Timestamp::UNIX_EPOCH, until: None },
        };
        let cost = |input, output| price.of(input, output).map(|money| money.amount.to_string());
        assert_eq!(cost(Some(31), Some(4)), Some("0.00000705".to_owned()));
        assert_eq!(cost(Some(1_000_000), None), Some("0.15".to_owned()));
        assert_eq!(cost(None, Some(1)), Some("0.0000006".to_owned()));
        assert_eq!(cost(Some(0), Some(0)), Some("0".to_owned()));
        assert_eq!(cost(None, None), None);
        let dear = Price { input: Decimal::MAX, ..price.clone() };
        assert_eq!(dear.of(Some(2), None), None);
    }
}
