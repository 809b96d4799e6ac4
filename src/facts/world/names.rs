//! Looking up the names in `facts/*.toml`, and what is said of a row that lacks one.

use std::{collections::BTreeSet, ops::Range};

use toml::Spanned;

use super::{
    Group, TermKind,
    file::{Reader, Texts},
    remedy::remedy,
};
use crate::{
    domain::{JurisdictionCode, meant_jurisdiction},
    source::{Fault, SourceFile},
};

impl Reader<'_> {
    pub(in crate::facts) fn missing(&mut self, file: &SourceFile, span: &Range<usize>, keys: &str) {
        let fault = file.fault(span.clone(), format!("missing `{keys}`"));
        self.faults.0.push(fault.help("add what is missing"));
    }

    pub(in crate::facts) fn refuse_overlap(
        &mut self,
        file: &SourceFile,
        span: &Range<usize>,
        clash: bool,
        subject: &str,
    ) {
        if clash {
            let fault = file.fault(
                span.clone(),
                format!("overlapping validity: {subject} is stated twice for the same time"),
            );
            self.faults.0.push(
                fault.help(
                    "end the earlier statement with `valid_until` where the later one begins",
                ),
            );
        }
    }

    /// The parts of a country that have no law of their own.
    pub(in crate::facts) fn subdivisions(
        &mut self,
        file: &SourceFile,
        country: &JurisdictionCode,
        parts: &Texts,
    ) -> BTreeSet<String> {
        for part in parts {
            let whole = format!("{country}-{}", part.get_ref());
            if whole.parse::<JurisdictionCode>().is_err() {
                let message = format!("`{whole}` is not the code of a subdivision");
                let help = "write the code's second part, such as `ON` of `CA-ON`";
                self.faults.0.push(file.fault(part.span(), message).help(help));
            }
        }
        parts.iter().map(|part| part.get_ref().clone()).collect()
    }

    pub(in crate::facts) fn code(
        &mut self,
        file: &SourceFile,
        span: &Range<usize>,
        text: Option<&Spanned<String>>,
        key: &str,
    ) -> Option<JurisdictionCode> {
        let Some(text) = text else {
            self.missing(file, span, key);
            return None;
        };
        let code = text.get_ref().parse::<JurisdictionCode>();
        code.map_err(|error| {
            let fault = file.fault(text.span(), error.to_string());
            self.faults.0.push(Fault { help: self.world.place_named(text.get_ref()), ..fault });
        })
        .ok()
    }

    pub(in crate::facts) fn known_codes(
        &mut self,
        file: &SourceFile,
        texts: &Texts,
    ) -> Vec<JurisdictionCode> {
        let mut codes = Vec::new();
        for text in texts {
            let Some(code) = self.code(file, &text.span(), Some(text), "code") else { continue };
            if self.world.knows_jurisdiction(code.as_str()) {
                codes.push(code);
                continue;
            }
            let fault = file.fault(text.span(), format!("unknown jurisdiction `{code}`"));
            // A fact is about the place that it names, and not about the country around it.
            let help = meant_jurisdiction(code.as_str()).unwrap_or_else(|| {
                "correct the code, or add it to `facts/jurisdictions.toml`".to_owned()
            });
            self.faults.0.push(fault.help(help));
        }
        codes
    }

    pub(in crate::facts) fn known_zones(
        &mut self,
        file: &SourceFile,
        texts: &Texts,
    ) -> Vec<String> {
        for text in texts.iter().filter(|text| !self.world.knows_zone(text.get_ref())) {
            let id = text.get_ref();
            let zones = self.world.group_ids(Group::Zone);
            let help = remedy(id, zones, "declare it: `[[zone]]` with `id` and `name`");
            self.faults.0.push(file.fault(text.span(), format!("unknown zone `{id}`")).help(help));
        }
        texts.iter().map(|text| text.get_ref().clone()).collect()
    }

    pub(in crate::facts) fn known_terms(
        &mut self,
        file: &SourceFile,
        kind: TermKind,
        texts: &Texts,
    ) -> BTreeSet<String> {
        for text in texts.iter().filter(|text| !self.world.knows_term(Some(kind), text.get_ref())) {
            let id = text.get_ref();
            let terms = self.world.term_ids(Some(kind));
            let help = remedy(id, terms, "add it to `facts/vocabulary.toml`");
            let message = format!("unknown {} `{id}`", kind.noun());
            self.faults.0.push(file.fault(text.span(), message).help(help));
        }
        texts.iter().map(|text| text.get_ref().clone()).collect()
    }
}
