//! The table of what stays within a call, held against what the official SDKs can send: a field, a
//! content part or a tool on which nothing was decided fails this, when the SDKs' pins move.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Map, Value};

/// The table of what stays within a call.
struct Table(Value);

impl Table {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain/passing/table.toml");
        let text = std::fs::read_to_string(path).expect("the table");
        let table: toml::Value = toml::from_str(&text).expect("the table is TOML");
        Self(serde_json::to_value(table).expect("it can be JSON"))
    }

    /// Whether a list, or the names of a map, of `kind` hold `name`.
    fn holds(&self, kind: &str, lists: &[&str], name: &str) -> bool {
        let kind = &self.0["kinds"][kind];
        assert!(kind.is_object(), "no such kind");
        lists.iter().any(|list| match &kind[*list] {
            Value::Array(names) => names.iter().any(|known| known == name),
            Value::Object(names) => names.contains_key(name),
            _ => false,
        })
    }

    fn text(&self, kind: &str, key: &str) -> Option<&str> {
        self.0["kinds"][kind][key].as_str()
    }

    fn is_refused(&self, name: &str) -> bool {
        ["refused", "refused_unless_false"].iter().any(|list| !self.0[*list][name].is_null())
    }
}

/// One walk through the SDKs' types beside the table.
struct Walk<'a> {
    table: &'a Table,
    objects: &'a Map<String, Value>,
    seen: BTreeSet<(String, String)>,
    undecided: BTreeSet<String>,
}

/// The alternatives of a type, those of lists among them: what they are, and their value.
fn alternatives(types: &Value) -> Vec<(&str, &Value)> {
    let mut found = Vec::new();
    for one in types.as_array().expect("a list of alternatives") {
        for (kind, value) in one.as_object().expect("an alternative") {
            if kind == "list" {
                found.extend(alternatives(value));
            } else {
                found.push((kind.as_str(), value));
            }
        }
    }
    found
}

impl Walk<'_> {
    fn object(&mut self, object: &str, kind: &str, is_root: bool) {
        if !self.seen.insert((object.to_owned(), kind.to_owned())) {
            return;
        }
        let objects = self.objects;
        let fields = objects[object].as_object().expect("an object has fields");
        let tag = self.table.text(kind, "tag").unwrap_or_default();
        if !tag.is_empty() && !self.sorts(object, kind, fields.get(tag)) {
            return;
        }
        for (name, types) in fields.iter().filter(|(name, _)| *name != tag) {
            let is_object = |(what, _): &(&str, &Value)| ["object", "map"].contains(what);
            let all = alternatives(types);
            let place = format!("{kind}.{name} ({object})");
            if let Some(within) = self.table.0["kinds"][kind]["within"][name].as_str() {
                let within = within.to_owned();
                for (what, value) in all {
                    match what {
                        "object" => self.object(value.as_str().expect("a name"), &within, false),
                        // Choices among the tools of the call are typed as free objects.
                        "map" if !within.ends_with("choice") => {
                            self.undecided.insert(format!("{place}: any object"));
                        }
                        _ => {}
                    }
                }
            } else if self.table.holds(kind, &["stays", "bytes", "url", "only"], name) {
                if all.iter().any(is_object) {
                    self.undecided.insert(format!("{place}: an object, where a scalar stays"));
                }
            } else {
                let is_decided = self.table.holds(kind, &["data", "needs", "references"], name)
                    || is_root && self.table.is_refused(name);
                if !is_decided {
                    self.undecided.insert(place);
                }
            }
        }
    }

    /// Whether objects of this type are looked into: those of a sort that needs a pass are not.
    fn sorts(&mut self, object: &str, kind: &str, tag: Option<&Value>) -> bool {
        let words: Vec<&str> = tag
            .map(alternatives)
            .unwrap_or_default()
            .iter()
            .filter(|(what, _)| *what == "literal")
            .filter_map(|(_, word)| word.as_str())
            .collect();
        if tag.is_none() && self.table.text(kind, "untagged").is_none() {
            self.undecided.insert(format!("{kind}: {object} does not say what it is"));
        }
        for word in &words {
            if !self.table.holds(kind, &["words", "needs_words", "reference_words"], word) {
                self.undecided.insert(format!("{kind}: `{word}` ({object})"));
            }
        }
        words.is_empty() || words.iter().any(|word| self.table.holds(kind, &["words"], word))
    }
}

#[tokio::test]
async fn every_part_of_the_sdks_requests_is_decided_on() {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run"));
    command.arg("python/request_types.py");
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let ran = ran.expect("tests/sdk/run starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let types: Value = serde_json::from_slice(&ran.stdout).expect("it prints JSON");
    let objects = types["objects"].as_object().unwrap();
    assert!(objects.len() > 500, "the SDKs' types were not found: {}", objects.len());
    let table = Table::read();
    let (seen, undecided) = (BTreeSet::new(), BTreeSet::new());
    let mut walk = Walk { table: &table, objects, seen, undecided };
    for (root, names) in types["roots"].as_object().unwrap() {
        for name in names.as_array().unwrap() {
            walk.object(name.as_str().unwrap(), root, true);
        }
    }
    assert!(walk.seen.len() > 150, "{}", walk.seen.len());
    for beta in types["betas"].as_array().unwrap() {
        let header = &table.0["headers"]["anthropic-beta"];
        let is_in = |list: &str| header[list].as_array().unwrap().contains(beta);
        if !is_in("stays") && !is_in("needs") {
            walk.undecided.insert(format!("anthropic-beta: {beta}"));
        }
    }
    let undecided: Vec<&String> = walk.undecided.iter().collect();
    assert!(undecided.is_empty(), "nothing was decided on:\n{undecided:#?}");

    // It would be found.
    let unknown = serde_json::json!({ "sdk.New": { "model": [{ "plain": "str" }], "oracle": [{ "plain": "str" }] } });
    let (seen, undecided) = (BTreeSet::new(), BTreeSet::new());
    let mut walk = Walk { table: &table, objects: unknown.as_object().unwrap(), seen, undecided };
    walk.object("sdk.New", "embeddings", true);
    assert_eq!(walk.undecided.into_iter().collect::<Vec<_>>(), ["embeddings.oracle (sdk.New)"]);
}
