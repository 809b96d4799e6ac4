//! Looking up the names in `organisation.toml`: each must be known to the world or to the file itself.

use std::collections::BTreeSet;

use super::{Reader, rows::Text};
use crate::{
    domain::JurisdictionCode,
    facts::{
        organisation::Site,
        world::{
            TermKind,
            licence_id::{advice, proposed},
            remedy::remedy,
        },
    },
    source::Fault,
};

/// What to do about a place of which no more can be said.
const UNKNOWN_PLACE: &str = "correct the code, or add it to `facts/jurisdictions.toml`";

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

    /// Refuses an id that is not among those of the rows of `table`.
    pub(super) fn refer<'t>(
        &mut self,
        what: &str,
        table: &str,
        id: &Text,
        ids: impl Iterator<Item = &'t Text>,
    ) {
        let known: Vec<&str> = ids.map(|id| id.get_ref().as_str()).collect();
        if !known.contains(&id.get_ref().as_str()) {
            let message = format!("unknown {what} `{}`", id.get_ref());
            let otherwise = format!("declare it in a `{table}`");
            let help = remedy(id.get_ref(), known.into_iter(), &otherwise);
            self.faults.0.push(self.file.fault(id.span(), message).help(help));
        }
    }

    pub(super) fn licence(&mut self, id: &Text) {
        if !self.world.knows_licence(id.get_ref()) {
            let message = format!("unknown licence `{}`", id.get_ref());
            let own = proposed(id.get_ref());
            let otherwise = format!(
                "`lexgate policies new licence {own}` writes a file for its terms, to be named here as `{own}`"
            );
            let help = advice(id.get_ref(), self.world.licence_ids(), &otherwise);
            self.faults.0.push(self.file.fault(id.span(), message).help(help));
        }
    }

    pub(super) fn terms(&mut self, kind: TermKind, texts: &[Text]) {
        for text in texts.iter().filter(|text| !self.world.knows_term(Some(kind), text.get_ref())) {
            let message = format!("unknown {} `{}`", kind.noun(), text.get_ref());
            let terms = self.world.term_ids(Some(kind));
            let help = remedy(text.get_ref(), terms, "add it to `facts/vocabulary.toml`");
            self.faults.0.push(self.file.fault(text.span(), message).help(help));
        }
    }

    /// The jurisdiction whose law applies at the place that is written.
    pub(super) fn jurisdiction(&mut self, text: &Text) -> Option<JurisdictionCode> {
        let (message, help) = match text.get_ref().parse::<JurisdictionCode>() {
            Ok(code) => {
                let unknown = format!("unknown jurisdiction `{code}`");
                match self.world.place(code) {
                    Ok(place) => return Some(place),
                    Err(help) => (unknown, Some(help.unwrap_or_else(|| UNKNOWN_PLACE.to_owned()))),
                }
            }
            Err(error) => (error.to_string(), self.world.place_named(text.get_ref())),
        };
        let fault = self.file.fault(text.span(), message);
        self.faults.0.push(Fault { help, ..fault });
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
