//! Looking up the names in `organisation.toml`: each must be known to the world or to the file itself.

use std::collections::BTreeSet;

use super::{
    super::{licence_id::advice, organisation::Site, world::TermKind},
    Reader,
    rows::Text,
};
use crate::domain::JurisdictionCode;

impl Reader<'_> {
    pub(super) fn unique<'t>(&mut self, what: &str, ids: impl Iterator<Item = &'t Text>) {
        let mut seen = BTreeSet::new();
        for id in ids {
            let text = id.get_ref();
            if text.trim().is_empty() || text.len() > 128 {
                let message = format!("the {what}'s id is empty or longer than 128 bytes");
                self.faults
                    .0
                    .push(self.file.fault(id.span(), message).help("give it a short name"));
            }
            if !seen.insert(text) {
                let message = format!("{what} `{text}` is declared twice");
                self.faults.0.push(self.file.fault(id.span(), message).help("keep one"));
            }
        }
    }

    pub(super) fn refer(&mut self, what: &str, table: &str, id: &Text, known: bool) {
        if !known {
            let message = format!("unknown {what} `{}`", id.get_ref());
            self.faults.0.push(
                self.file
                    .fault(id.span(), message)
                    .help(format!("correct it, or declare it in a `{table}`")),
            );
        }
    }

    pub(super) fn licence(&mut self, id: &Text) {
        if !self.world.knows_licence(id.get_ref()) {
            let message = format!("unknown licence `{}`", id.get_ref());
            let otherwise = "add its terms to `facts/licences.toml`";
            let help = advice(id.get_ref(), self.world.licence_ids(), otherwise);
            self.faults.0.push(self.file.fault(id.span(), message).help(help));
        }
    }

    pub(super) fn terms(&mut self, kind: TermKind, texts: &[Text]) {
        for text in texts.iter().filter(|text| !self.world.knows_term(Some(kind), text.get_ref())) {
            let message = format!("unknown {} `{}`", kind.noun(), text.get_ref());
            self.faults.0.push(
                self.file
                    .fault(text.span(), message)
                    .help("correct it, or add it to `facts/vocabulary.toml`"),
            );
        }
    }

    pub(super) fn jurisdiction(&mut self, text: &Text) -> Option<JurisdictionCode> {
        let fault = match text.get_ref().parse::<JurisdictionCode>() {
            Ok(code) if self.world.knows_jurisdiction(code.as_str()) => return Some(code),
            Ok(code) => self
                .file
                .fault(text.span(), format!("unknown jurisdiction `{code}`"))
                .help("correct the code, or add it to `facts/jurisdictions.toml`"),
            Err(error) => self.file.fault(text.span(), error.to_string()),
        };
        self.faults.0.push(fault);
        None
    }

    pub(super) fn jurisdictions(&mut self, texts: &[Text]) -> Vec<JurisdictionCode> {
        let mut codes: Vec<_> = texts.iter().filter_map(|text| self.jurisdiction(text)).collect();
        codes.sort();
        codes.dedup();
        codes
    }

    pub(super) fn sites(&mut self, texts: &[Text]) -> Vec<Site> {
        let mut sites = Vec::new();
        for text in texts {
            if text.get_ref() == "@location" {
                sites.push(Site::Caller);
            } else {
                sites.extend(self.jurisdiction(text).map(Site::Fixed));
            }
        }
        sites
    }
}
