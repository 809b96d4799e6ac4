//! Classes of data, and the numbers of people from which a law asks for more: from the rows of a file
//! to facts.

use std::collections::BTreeSet;

use toml::Spanned;

use super::{
    RawThreshold, TermKind,
    at::FactsAt,
    dated::Provenance,
    file::{ClassRow, Reader, ThresholdRow},
    remedy::remedy,
};
use crate::{domain::Threshold, source::SourceFile};

/// How far from Greenwich days can begin, in hours.
const OFFSETS: std::ops::RangeInclusive<i8> = -12..=14;

impl RawThreshold {
    /// What it amounts to in a world of these facts.
    pub(in crate::facts) fn resolve(&self, facts: &FactsAt) -> Threshold {
        let class = |id: &String| facts.classes.get(id).into_iter().flatten().cloned();
        let mut origins = facts.zone_members(&self.zones);
        origins.extend(self.jurisdictions.iter().cloned());
        Threshold {
            at_least: self.at_least,
            categories: self.class.as_ref().map(|id| class(id).collect()),
            id: self.id.clone(),
            origins: Some(origins),
            ownership: self.ownership,
            personal: self.personal,
            to: (!self.to_zones.is_empty()).then(|| facts.zone_members(&self.to_zones)),
            utc_offset: self.utc_offset,
            window: self.window,
            without: self.without.iter().flat_map(class).collect(),
        }
    }
}

impl Reader<'_> {
    pub(in crate::facts) fn class(
        &mut self,
        file: &SourceFile,
        defaults: &Provenance,
        row: Spanned<ClassRow>,
    ) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        let (Some(id), Some(_), false) = (row.id, row.name, row.categories.is_empty()) else {
            return self.missing(file, &span, "id`, `name` and `categories");
        };
        let categories = self.known_terms(file, TermKind::Category, &row.categories);
        let fact = (id.into_inner(), categories);
        let Some(dated) = provenance.date(fact, span, defaults, file, &mut self.faults) else {
            return;
        };
        let same = self.world.classes.iter().filter(|row| row.fact.0 == dated.fact.0);
        let clash = same.into_iter().any(|row| row.valid.overlaps(&dated.valid));
        self.refuse_overlap(file, &dated.span, clash, &format!("class `{}`", dated.fact.0));
        self.world.classes.push(dated);
    }

    pub(in crate::facts) fn threshold(
        &mut self,
        file: &SourceFile,
        defaults: &Provenance,
        row: Spanned<ThresholdRow>,
    ) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        // Two words for the boundary, so that nobody has to add one to what a law says.
        let at_least = match (row.at_least, row.more_than) {
            (Some(number), None) => Some(number),
            (None, Some(number)) => Some(number.saturating_add(1)),
            _ => None,
        };
        let (Some(id), Some(_), Some(at_least), Some(window)) =
            (row.id, row.name, at_least, row.window)
        else {
            let keys = "id`, `name`, `window` and either `at_least` or `more_than";
            return self.missing(file, &span, keys);
        };
        if row.jurisdictions.is_empty() && row.zones.is_empty() {
            self.missing(file, &span, "jurisdictions` or `zones");
        }
        let utc_offset = row.utc_offset.as_ref().map_or(0, |offset| *offset.get_ref());
        if let Some(offset) = row.utc_offset.as_ref().filter(|_| !OFFSETS.contains(&utc_offset)) {
            let fault = file.fault(offset.span(), format!("no day begins at UTC{utc_offset:+}"));
            self.faults.0.push(fault.help("write hours east of Greenwich, -12 to 14"));
        }
        let fact = RawThreshold {
            at_least,
            class: self.known_classes(file, row.class.as_slice()).into_iter().next(),
            id: id.into_inner(),
            jurisdictions: self.known_codes(file, &row.jurisdictions),
            ownership: row.ownership,
            personal: row.personal,
            to_zones: self.known_zones(file, &row.to_zones),
            utc_offset,
            window,
            without: self.known_classes(file, &row.without).into_iter().collect(),
            zones: self.known_zones(file, &row.zones),
        };
        let Some(dated) = provenance.date(fact, span, defaults, file, &mut self.faults) else {
            return;
        };
        let id = &dated.fact.id;
        let same = self.world.thresholds.iter().filter(|row| row.fact.id == *id);
        let clash = same.into_iter().any(|row| row.valid.overlaps(&dated.valid));
        self.refuse_overlap(file, &dated.span, clash, &format!("threshold `{id}`"));
        self.world.thresholds.push(dated);
    }

    fn known_classes(&mut self, file: &SourceFile, ids: &[Spanned<String>]) -> BTreeSet<String> {
        for id in ids {
            if !self.world.classes.iter().any(|row| row.fact.0 == *id.get_ref()) {
                let fault = file.fault(id.span(), format!("unknown class `{}`", id.get_ref()));
                let otherwise = "declare it: `[[class]]` with `id`, `name` and `categories`";
                let help = remedy(id.get_ref(), self.world.class_ids(), otherwise);
                self.faults.0.push(fault.help(help));
            }
        }
        ids.iter().map(|id| id.get_ref().clone()).collect()
    }
}
