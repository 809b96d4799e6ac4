//! The table of what stays within a call, as `table.toml` says it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};

use serde::Deserialize;

use super::fold::fold;

/// The one table. Of one that cannot be read, which a test excludes, nothing would pass.
pub(super) static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::read(include_str!("table.toml")).unwrap_or_default());

/// What is known of bodies and headers.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) kinds: BTreeMap<String, Kind>,
    pub(super) reference_names: BTreeSet<String>,
    pub(super) headers: BTreeMap<String, Header>,
    /// What is refused at the top of every body, and why.
    refused: BTreeMap<String, String>,
    /// Every name that is known, as it may be written in `[[deployments.passes]]`.
    passes: BTreeMap<String, Known>,
}

/// What a name is known for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// It needs no pass.
    Stays,
    /// It needs one.
    Needs,
    /// It needs one, and refers to what lies at the provider.
    Refers,
}

/// The values of a header that stay within a call, and those that are known to need a pass.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Header {
    pub(super) stays: BTreeSet<String>,
    pub(super) needs: BTreeSet<String>,
}

/// A kind of object.
#[derive(Debug, Default)]
pub(super) struct Kind {
    pub(super) at: String,
    pub(super) fields: HashMap<String, Rule>,
    /// The same names, folded.
    pub(super) folded: HashMap<String, String>,
    pub(super) tag: Option<Tag>,
    /// Whether a string in its place is a URL.
    pub(super) is_url: bool,
    /// The name of a pass for such a URL.
    pub(super) url: String,
}

/// How an object says which sort it is.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) field: String,
    pub(super) at: String,
    pub(super) words: BTreeSet<String>,
    pub(super) others: BTreeMap<String, Need>,
    pub(super) untagged: Option<String>,
    pub(super) untyped: Need,
    pub(super) requires: BTreeMap<String, String>,
}

/// What holds for a field.
#[derive(Debug)]
pub(super) enum Rule {
    Stays,
    Data,
    Bytes(Need),
    Url(Need),
    Within(String),
    Only(Vec<String>),
    Needs(Need),
    Refused { why: String, unless_false: bool },
}

/// A pass that something needs.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) field: String,
    pub(super) why: String,
    pub(super) is_reference: bool,
}

/// Why a URL needs a pass.
pub(super) const FETCHED: &str = "the backend would fetch this URL from where it runs";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    reference_names: BTreeSet<String>,
    refused: BTreeMap<String, String>,
    refused_unless_false: BTreeMap<String, String>,
    headers: BTreeMap<String, Header>,
    kinds: BTreeMap<String, Row>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Row {
    at: String,
    stays: Vec<String>,
    data: Vec<String>,
    bytes: Vec<String>,
    url: Vec<String>,
    within: BTreeMap<String, String>,
    only: BTreeMap<String, Vec<String>>,
    needs: BTreeMap<String, String>,
    references: BTreeMap<String, String>,
    called: BTreeMap<String, String>,
    tag: Option<String>,
    tags_at: Option<String>,
    words: BTreeSet<String>,
    needs_words: BTreeMap<String, String>,
    reference_words: BTreeMap<String, String>,
    untagged: Option<String>,
    requires: BTreeMap<String, String>,
    text: Option<String>,
}

impl Row {
    /// The name of a pass for `field`.
    fn called(&self, at: &str, field: &str) -> String {
        self.called.get(field).cloned().unwrap_or_else(|| join(at, field))
    }

    fn need(&self, field: &str, why: &str, is_reference: bool) -> Need {
        let field = self.called(&self.at, field);
        Need { field, why: why.to_owned(), is_reference }
    }

    fn rules(&self) -> HashMap<String, Rule> {
        let mut rules = HashMap::new();
        rules.extend(self.stays.iter().map(|field| (field.clone(), Rule::Stays)));
        rules.extend(self.data.iter().map(|field| (field.clone(), Rule::Data)));
        for field in &self.bytes {
            rules.insert(field.clone(), Rule::Bytes(self.need(field, FETCHED, false)));
        }
        for field in &self.url {
            rules.insert(field.clone(), Rule::Url(self.need(field, FETCHED, false)));
        }
        let within = self.within.iter();
        rules.extend(within.map(|(field, kind)| (field.clone(), Rule::Within(kind.clone()))));
        let only = self.only.iter();
        rules.extend(only.map(|(field, values)| (field.clone(), Rule::Only(values.clone()))));
        for (fields, is_reference) in [(&self.needs, false), (&self.references, true)] {
            for (field, why) in fields {
                rules.insert(field.clone(), Rule::Needs(self.need(field, why, is_reference)));
            }
        }
        rules
    }

    fn tag(&self) -> Option<Tag> {
        let at = self.tags_at.as_ref().unwrap_or(&self.at);
        let need = |(word, why): (&String, &String), is_reference| {
            let need = Need { field: self.called(at, word), why: why.clone(), is_reference };
            (word.clone(), need)
        };
        let needs = self.needs_words.iter().map(|word| need(word, false));
        let references = self.reference_words.iter().map(|word| need(word, true));
        Some(Tag {
            field: self.tag.clone()?,
            at: at.clone(),
            words: self.words.clone(),
            others: needs.chain(references).collect(),
            untagged: self.untagged.clone(),
            untyped: Need {
                field: self.called(at, "untyped"),
                why: "it does not say what it is".to_owned(),
                is_reference: !self.reference_words.is_empty(),
            },
            requires: self.requires.clone(),
        })
    }
}

impl Table {
    fn read(text: &str) -> Result<Self, toml::de::Error> {
        let file: File = toml::from_str(text)?;
        let mut table = Self {
            reference_names: file.reference_names,
            headers: file.headers,
            ..Self::default()
        };
        for (name, row) in file.kinds {
            let mut fields = row.rules();
            if row.at.is_empty() {
                let always = [(&file.refused, false), (&file.refused_unless_false, true)];
                for (refused, unless_false) in always {
                    for (field, why) in refused {
                        let why = why.clone();
                        fields.insert(field.clone(), Rule::Refused { why, unless_false });
                    }
                }
            }
            let tag = row.tag();
            let names = fields.keys().chain(tag.iter().map(|tag| &tag.field));
            let folded = names.map(|name| (fold(name), name.clone())).collect();
            let url = row.called(&row.at, "url");
            let is_url = row.text.as_deref() == Some("url");
            let kind = Kind { at: row.at, fields, folded, tag, is_url, url };
            table.know(&kind);
            table.kinds.insert(name, kind);
        }
        for name in &table.reference_names {
            table.passes.insert(name.clone(), Known::Refers);
        }
        table.refused = file.refused.into_iter().chain(file.refused_unless_false).collect();
        Ok(table)
    }

    /// Notes the names by which what `kind` holds may be let through.
    fn know(&mut self, kind: &Kind) {
        let mut note = |name: &str, known: Known| {
            let noted = self.passes.entry(name.to_owned()).or_insert(known);
            *noted = known.max(*noted);
        };
        for (field, rule) in &kind.fields {
            match rule {
                Rule::Needs(need) if need.is_reference => note(&need.field, Known::Refers),
                Rule::Needs(need) | Rule::Bytes(need) | Rule::Url(need) => {
                    note(&need.field, Known::Needs);
                }
                Rule::Refused { .. } => {}
                Rule::Stays | Rule::Data | Rule::Within(_) | Rule::Only(_) => {
                    note(&join(&kind.at, field), Known::Stays);
                }
            }
        }
        let Some(tag) = &kind.tag else { return };
        for word in &tag.words {
            note(&join(&tag.at, word), Known::Stays);
        }
        for (word, need) in &tag.others {
            let known = if need.is_reference { Known::Refers } else { Known::Needs };
            note(&need.field, known);
            note(&join(&tag.at, word), known);
        }
        for word in tag.requires.keys() {
            note(&join(&tag.at, word), Known::Refers);
        }
    }

    /// Why `field` is refused in every body.
    pub(super) fn refuses(&self, field: &str) -> Option<&str> {
        self.refused.get(field).map(String::as_str)
    }

    /// What the name of a pass is known for.
    pub(super) fn known(&self, field: &str) -> Option<Known> {
        self.passes.get(field).copied()
    }

    /// The names that are known, of passes and of what is refused.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.passes.keys().chain(self.refused.keys()).map(String::as_str)
    }
}

/// The name of what lies in `field` of something at `at`.
pub(super) fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { [at, ".", field].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_read_and_leads_nowhere_else() {
        let table = Table::read(include_str!("table.toml")).expect("a table");
        for (name, kind) in &table.kinds {
            for rule in kind.fields.values() {
                let Rule::Within(other) = rule else { continue };
                assert!(table.kinds.contains_key(other), "{name} leads to `{other}`");
            }
            let tag = usize::from(kind.tag.is_some());
            assert_eq!(kind.folded.len(), kind.fields.len() + tag, "two names of {name} fold");
        }
        for root in ["chat_completions", "completions", "embeddings", "responses", "messages"] {
            assert!(table.kinds.contains_key(root), "{root}");
        }
    }

    #[test]
    fn a_field_has_one_rule() {
        let file: File = toml::from_str(include_str!("table.toml")).unwrap();
        for (name, row) in &file.kinds {
            let lists = [&row.stays, &row.data, &row.bytes, &row.url];
            let listed = lists.iter().map(|list| list.len()).sum::<usize>();
            let maps = row.within.len() + row.only.len() + row.needs.len() + row.references.len();
            assert_eq!(row.rules().len(), listed + maps, "{name}");
        }
    }
}
