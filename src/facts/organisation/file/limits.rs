//! Reading limits and prices.

use rust_decimal::Decimal;
use toml::Spanned;

use super::{
    Reader,
    rows::{CountsRow, File, LimitsRow, MoneyRow, Text},
};
use crate::{
    domain::{Currency, Limits, Measure, Period, Rate, parse_amount},
    facts::organisation::{Organisation, price::Price},
};

impl Reader<'_> {
    pub(super) fn limits(&mut self, row: &LimitsRow) -> Limits {
        let concurrent = row.concurrent.as_ref().map(|most| self.above_zero(most));
        let mut rates = self.counts(&Measure::Requests, &row.requests);
        rates.extend(self.counts(&Measure::Tokens, &row.tokens));
        rates.extend(row.money.as_ref().map(|row| self.money(row)).unwrap_or_default());
        Limits { concurrent, rates }
    }

    fn counts(&mut self, measure: &Measure, row: &CountsRow) -> Vec<Rate> {
        let rows = [
            (&row.minute, Period::Minute),
            (&row.hour, Period::Hour),
            (&row.day, Period::Day),
            (&row.month, Period::Month),
        ];
        let given = rows.into_iter().filter_map(|(most, period)| Some((most.as_ref()?, period)));
        given
            .map(|(most, period)| {
                let most = self.above_zero(most).into();
                Rate { measure: measure.clone(), most, period }
            })
            .collect()
    }

    fn money(&mut self, row: &MoneyRow) -> Vec<Rate> {
        let rows = [
            (&row.minute, Period::Minute),
            (&row.hour, Period::Hour),
            (&row.day, Period::Day),
            (&row.month, Period::Month),
        ];
        let Some(currency) = self.currency(&row.currency) else { return Vec::new() };
        let given = rows.into_iter().filter_map(|(most, period)| Some((most.as_ref()?, period)));
        given
            .map(|(most, period)| {
                let amount = self.amount(most);
                if amount.is_zero() {
                    self.useless(most.span());
                }
                Rate { measure: Measure::Money(currency.clone()), most: amount, period }
            })
            .collect()
    }

    fn above_zero(&mut self, most: &Spanned<u64>) -> u64 {
        if *most.get_ref() == 0 {
            self.useless(most.span());
        }
        *most.get_ref()
    }

    fn useless(&mut self, span: std::ops::Range<usize>) {
        let fault = self.file.fault(span, "a limit of 0 lets no call through");
        let help = "write 1 or more; to shut an app out, revoke its API keys or write a policy";
        self.faults.0.push(fault.help(help));
    }

    fn currency(&mut self, text: &Text) -> Option<Currency> {
        Currency::parse(text.get_ref())
            .map_err(|error| {
                let message = format!("`{}` is not a currency", text.get_ref());
                self.faults.0.push(self.file.fault(text.span(), message).help(error.to_string()));
            })
            .ok()
    }

    fn amount(&mut self, text: &Text) -> Decimal {
        parse_amount(text.get_ref()).unwrap_or_else(|error| {
            let message = format!("`{}` is not an amount", text.get_ref());
            self.faults.0.push(self.file.fault(text.span(), message).help(error.to_string()));
            Decimal::ONE
        })
    }

    pub(super) fn prices(&mut self, rows: &File, organisation: &mut Organisation) {
        for row in &rows.prices {
            let deployment = row.deployment.get_ref();
            let deployments = rows.deployments.iter().map(|row| &row.id);
            self.refer("deployment", "[[deployments]]", &row.deployment, deployments);
            let what = format!("the price of `{deployment}`");
            let bounds = (&row.valid_from, row.valid_until.as_ref());
            let Some(valid) = self.validity(&what, bounds) else { continue };
            let Some(currency) = self.currency(&row.currency) else { continue };
            let price = Price {
                deployment: deployment.as_str().into(),
                currency,
                input: self.amount(&row.input_per_million),
                output: self.amount(&row.output_per_million),
                reference: row.reference.clone(),
                valid,
            };
            let mut others = organisation.prices.iter();
            let same = |other: &Price| other.deployment == price.deployment;
            if others.any(|other| same(other) && other.valid.overlaps(&price.valid)) {
                let message = format!("`{deployment}` has two prices at one time");
                let help = "end the older one with `valid_until`, where the newer one begins";
                self.faults.0.push(self.file.fault(row.deployment.span(), message).help(help));
            }
            organisation.prices.push(price);
        }
        self.currencies(rows, organisation);
    }

    /// Money can only be counted together in one currency.
    fn currencies(&mut self, rows: &File, organisation: &Organisation) {
        let of_tenants = rows.tenants.iter().map(|row| &row.limits);
        let limits = of_tenants.chain(rows.apps.iter().map(|row| &row.limits));
        for money in limits.filter_map(|limits| limits.money.as_ref()) {
            let currency = money.currency.get_ref();
            let mut prices = organisation.prices.iter();
            if let Some(other) = prices.find(|price| price.currency.as_str() != currency) {
                let message = format!(
                    "the limit is in {currency}, but `{}` has a price in {}",
                    other.deployment, other.currency
                );
                let help =
                    "write limits and prices in one currency: there is no exchange rate here";
                self.faults.0.push(self.file.fault(money.currency.span(), message).help(help));
            }
        }
    }
}
