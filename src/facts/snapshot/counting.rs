//! Which thresholds a call counts towards. Not how many people were counted: that is in the store.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::Snapshot;
use crate::{
    domain::{
        AppId, Asked, CallRequest, Data, DataRequest, JurisdictionCode, Threshold, Window, day_of,
    },
    facts::world::{TermKind, at::FactsAt},
    policy::{Bounds, Bundle, VolumeField},
};

/// The thresholds of the facts, and those that policies mean by `context.volume`.
pub(in crate::facts) fn thresholds(facts: &FactsAt, bundle: &Bundle) -> Vec<Arc<Threshold>> {
    let volumes = bundle.volumes().iter();
    let meant = volumes.flat_map(|(field, numbers)| {
        numbers.iter().map(|number| volume_threshold(*field, *number, facts))
    });
    facts.thresholds.iter().cloned().chain(meant).map(Arc::new).collect()
}

fn volume_threshold(field: VolumeField, number: u64, facts: &FactsAt) -> Threshold {
    let sensitive = field == VolumeField::SensitiveSubjects;
    Threshold {
        at_least: number,
        categories: sensitive
            .then(|| facts.terms.get(&TermKind::Category).cloned().unwrap_or_default()),
        id: field.threshold(number),
        origins: None,
        ownership: false,
        personal: false,
        to: None,
        utc_offset: 0,
        window: Window::CalendarYear,
        without: BTreeSet::new(),
    }
}

impl Snapshot {
    /// The thresholds that `request`, made by `app` at `now`, counts towards.
    #[must_use]
    pub fn asked(&self, app: &AppId, request: &CallRequest, now: Timestamp) -> Vec<Asked> {
        let app = self.organisation.apps.get(app);
        let (Some(app), Some(data), false) = (app, &request.data, self.thresholds.is_empty())
        else {
            return Vec::new();
        };
        let mut asked = Vec::new();
        for origin in origins(data) {
            for threshold in &self.thresholds {
                if threshold.concerns(&origin, data.personal, &data.categories) {
                    // Of a policy's own number the call is not said to reach it by saying nothing.
                    let named = threshold.origins.is_some();
                    let own = Some(data.people()).filter(|own| *own > 0 || !named);
                    asked.push(Asked::new(threshold, &app.tenant, &origin, own, now));
                }
            }
        }
        asked
    }

    /// The classes into which `data` falls.
    #[must_use]
    pub fn classes(&self, data: Option<&Data>) -> Vec<&str> {
        let categories = data.map(|data| &data.categories[..]).unwrap_or_default();
        let holds = |class: &BTreeSet<String>| categories.iter().any(|term| class.contains(term));
        let classes = self.facts.classes.iter().filter(|(_, class)| holds(class));
        classes.map(|(id, _)| id.as_str()).collect()
    }

    /// The volume that policies see of a call that reaches these thresholds: of each field the
    /// greatest number that is reached.
    #[must_use]
    pub fn volume(&self, reached: &[String]) -> Vec<(VolumeField, u64)> {
        let bounds: &Bounds = self.engine.bundle().volumes();
        let reached = |field: VolumeField, number: u64| reached.contains(&field.threshold(number));
        let greatest = |(field, numbers): (&VolumeField, &BTreeSet<u64>)| {
            let mut numbers = numbers.iter().rev().copied();
            numbers.find(|number| reached(*field, *number)).map(|number| (*field, number))
        };
        bounds.iter().filter_map(greatest).collect()
    }

    /// The day of `instant` on which what leaves `origin` is counted: the law's that counts it.
    #[must_use]
    pub fn day_of(&self, origin: &JurisdictionCode, instant: Timestamp) -> i32 {
        let mut thresholds = self.facts.thresholds.iter();
        let own = thresholds.find(|threshold| threshold.counts_people_of(origin));
        day_of(instant, own.map_or(0, |threshold| threshold.utc_offset))
    }
}

/// Codes that are none are left to the judge to refuse.
fn origins(data: &DataRequest) -> BTreeSet<JurisdictionCode> {
    let codes = data.subjects.iter().chain(&data.location);
    codes.filter_map(|code| code.parse().ok()).collect()
}
