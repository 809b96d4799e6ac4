//! Reading how deployments are reached and chosen.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;

use super::{
    Reader,
    rows::{BackendRow, ClaimsRow, File, Text, VirtualModelRow},
};
use crate::{
    domain::DeploymentId,
    facts::{
        organisation::{
            Organisation,
            backend::{
                BackendAddress, BaseUrl, BreakerSettings, KeySource, Timeouts, VirtualModel,
            },
            claims::AppClaims,
        },
        world::TermKind,
    },
    source::without_secrets,
};

impl Reader<'_> {
    pub(super) fn backend(&mut self, row: &BackendRow) -> Option<BackendAddress> {
        let base_url = row.base_url.get_ref().parse::<BaseUrl>();
        if let Err(error) = &base_url {
            let message = "the value is not the base URL of a backend";
            let fault = self.file.fault(row.base_url.span(), message);
            let fault = without_secrets(self.file, fault);
            self.faults.0.push(fault.help(error.to_string()));
        }
        if base_url.as_ref().is_ok_and(BaseUrl::is_of_the_link) {
            let message = "the value is an address at which a cloud tells this machine its credentials, or another of the local link";
            let fault = self.file.fault(row.base_url.span(), message);
            self.faults.0.push(fault.help("write the address of a model server"));
        }
        let key = match (&row.api_key_env, &row.api_key) {
            (Some(_), Some(name)) => {
                let message = "both `api_key_env` and `api_key` say where the key is";
                let fault = without_secrets(self.file, self.file.fault(name.span(), message));
                self.faults.0.push(fault.help("keep one"));
                None
            }
            (Some(name), None) => Some(KeySource::Environment(name.get_ref().clone())),
            (None, Some(name)) => Some(KeySource::Secret(name.get_ref().clone())),
            (None, None) => None,
        };
        let timeouts = Timeouts::default();
        let total = self.duration(row.total_timeout.as_ref(), timeouts.total);
        let breaker = BreakerSettings::default();
        Some(BackendAddress {
            model: row.model.clone(),
            served_as: self.served_as(&row.served_as),
            api: row.api,
            usage_in_streams: row.usage_in_streams.unwrap_or(true),
            key,
            ca_file: row.ca_file.clone(),
            timeouts: Timeouts {
                connect: self.duration(row.connect_timeout.as_ref(), timeouts.connect),
                first_byte: self.duration(row.first_byte_timeout.as_ref(), timeouts.first_byte),
                answer: self.duration(row.answer_timeout.as_ref(), total),
                between_chunks: self.duration(row.chunk_timeout.as_ref(), timeouts.between_chunks),
                total,
            },
            breaker: BreakerSettings {
                failures: match &row.breaker_failures {
                    Some(number) if *number.get_ref() == 0 => {
                        let fault = self
                            .file
                            .fault(number.span(), "a breaker that no failure opens is always open");
                        self.faults.0.push(fault.help("write 1 or more"));
                        breaker.failures
                    }
                    Some(number) => *number.get_ref(),
                    None => breaker.failures,
                },
                cool_down: self.duration(row.breaker_cool_down.as_ref(), breaker.cool_down),
            },
            probe_interval: row
                .probe_interval
                .as_ref()
                .map(|text| self.duration(Some(text), Duration::from_secs(10))),
            tenant: row.tenant.as_ref().map(|tenant| tenant.get_ref().as_str().into()),
            max_waiting: row.max_waiting,
            // Last: the other faults are said too.
            base_url: base_url.ok()?,
        })
    }

    /// Other names of the model. A pattern that is the name of every model would let any answer through.
    fn served_as(&mut self, rows: &[Text]) -> Vec<String> {
        for row in rows {
            let text = row.get_ref();
            let before = text.split('*').next().unwrap_or_default();
            if text.contains(char::is_whitespace) || !before.contains(char::is_alphanumeric) {
                let message = format!("`{text}` in `served_as` is not the name of a model");
                let help = "write a name, or its beginning and `*` where the rest changes, such as `gpt-4o-2024-*`";
                self.faults.0.push(self.file.fault(row.span(), message).help(help));
            }
        }
        texts(rows).map(str::to_owned).collect()
    }

    fn duration(&mut self, text: Option<&Text>, otherwise: Duration) -> Duration {
        let Some(text) = text else { return otherwise };
        let parsed = text.get_ref().parse::<SignedDuration>().ok();
        let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
        // Longer than a day is a slip of the pen, and would overflow clocks.
        let fits = |duration: &Duration| {
            *duration >= Duration::from_millis(1) && *duration <= Duration::from_secs(86_400)
        };
        parsed.filter(fits).unwrap_or_else(|| {
            let message =
                format!("`{}` is not a duration from a millisecond to a day", text.get_ref());
            self.faults.0.push(
                self.file.fault(text.span(), message).help("write it as `5s`, `250ms` or `10m`"),
            );
            otherwise
        })
    }

    pub(super) fn claims(&mut self, row: &ClaimsRow) -> AppClaims {
        let defaults = &row.defaults;
        let listed = |texts_of: &Option<Vec<Text>>| -> Vec<String> {
            texts(texts_of.as_deref().unwrap_or_default()).map(str::to_owned).collect()
        };
        self.terms(TermKind::Category, defaults.data.as_deref().unwrap_or_default());
        self.terms(TermKind::Purpose, defaults.purpose.as_slice());
        for places in [&defaults.subjects, &defaults.audience] {
            self.jurisdictions(places.as_deref().unwrap_or_default());
        }
        self.jurisdictions(defaults.location.as_slice());
        AppClaims {
            personal: defaults.personal,
            categories: listed(&defaults.data),
            subjects: listed(&defaults.subjects),
            subject_count: defaults.subject_count,
            purpose: defaults.purpose.as_ref().map(|text| text.get_ref().clone()),
            audience: listed(&defaults.audience),
            location: defaults.location.as_ref().map(|text| text.get_ref().clone()),
            required: row.required.iter().copied().collect(),
        }
    }

    pub(super) fn virtual_models(&mut self, rows: &File, organisation: &mut Organisation) {
        self.unique("virtual model", rows.virtual_models.iter().map(|row| &row.id));
        for row in &rows.virtual_models {
            let id = row.id.get_ref();
            let taken = rows.models.iter().any(|model| model.id.get_ref() == id)
                || rows.deployments.iter().any(|deployment| deployment.id.get_ref() == id);
            if taken {
                let message =
                    format!("virtual model `{id}` has the name of a model or a deployment");
                self.faults
                    .0
                    .push(self.file.fault(row.id.span(), message).help("choose another name"));
            }
            if row.deployments.get_ref().is_empty() {
                let message = format!("virtual model `{id}` has no deployment");
                self.faults.0.push(
                    self.file.fault(row.deployments.span(), message).help("name at least one"),
                );
            }
            for deployment in row.deployments.get_ref() {
                let deployments = rows.deployments.iter().map(|row| &row.id);
                self.refer("deployment", "[[deployments]]", deployment, deployments);
            }
            let virtual_model = VirtualModel {
                aliases: texts(&row.aliases).map(str::to_owned).collect(),
                deployments: texts(row.deployments.get_ref()).map(DeploymentId::from).collect(),
                strategy: row.strategy,
                weights: self.weights(row),
            };
            organisation.virtual_models.insert(id.as_str().into(), virtual_model);
        }
    }

    fn weights(&mut self, row: &VirtualModelRow) -> BTreeMap<DeploymentId, u32> {
        for id in row.weights.keys() {
            if !texts(row.deployments.get_ref()).any(|listed| listed == id.get_ref()) {
                let message = format!(
                    "a weight for `{}`, which is not among the `deployments`",
                    id.get_ref()
                );
                self.faults.0.push(
                    self.file.fault(id.span(), message).help("name it there, or remove the weight"),
                );
            }
        }
        if !row.weights.is_empty() && row.weights.values().all(|weight| *weight == 0) {
            let message = "every weight is 0";
            self.faults.0.push(
                self.file
                    .fault(row.id.span(), message)
                    .help("give one deployment a weight, or remove `weights`"),
            );
        }
        let weights = row.weights.iter();
        weights.map(|(id, weight)| (id.get_ref().as_str().into(), *weight)).collect()
    }
}

fn texts(texts: &[Text]) -> impl Iterator<Item = &str> {
    texts.iter().map(|text| text.get_ref().as_str())
}
