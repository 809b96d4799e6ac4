//! What a value that a pass lets through opens at the provider: read once, however deep it is.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

use super::fold::fold;

/// A field that names a container by a string, and describes a new one by an object.
const CONTAINER: &str = "container";

/// The names among `known`, folded, under which `value` holds something.
///
/// # Errors
/// When it is not JSON, or too deep.
pub(super) fn references(
    value: &str,
    known: &BTreeSet<String>,
) -> Result<BTreeSet<String>, serde_json::Error> {
    let mut found = BTreeSet::new();
    let scan = Scan { known, found: &mut found, under: None };
    scan.deserialize(&mut serde_json::Deserializer::from_str(value))?;
    Ok(found)
}

struct Scan<'s> {
    known: &'s BTreeSet<String>,
    found: &'s mut BTreeSet<String>,
    /// The name of a reference whose value is read.
    under: Option<&'s str>,
}

impl Scan<'_> {
    fn note(self) {
        self.found.extend(self.under.map(str::to_owned));
    }
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.note();
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.note();
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.note();
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.note();
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.note();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { known, found, under } = self;
        while list.next_element_seed(Scan { known, found: &mut *found, under })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { known, found, under } = self;
        // A container that is described is a new one.
        found.extend(under.filter(|name| *name != CONTAINER).map(str::to_owned));
        while let Some(name) = map.next_key::<String>()? {
            let name = fold(&name);
            let under = known.get(&name).map(String::as_str);
            let under = under.or_else(|| (name == CONTAINER).then_some(CONTAINER));
            map.next_value_seed(Scan { known, found: &mut *found, under })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_wherever_they_are() {
        let known = ["file_ids", "conversation"].map(str::to_owned).into();
        let found = |value: &str| {
            let found = references(value, &known).unwrap();
            found.into_iter().collect::<Vec<_>>().join(" ")
        };
        for (value, want) in [
            (r#"{"a":[{"file_ids":["f"]}]}"#, "file_ids"),
            (r#"[[{"FILE_ID\u017f":"f"}]]"#, "file_ids"),
            (r#"{"file_ids":[],"conversation":null}"#, ""),
            (r#"{"conversation":{"id":"c"}}"#, "conversation"),
            (r#"{"container":"c","file_ids":[1]}"#, "container file_ids"),
            (r#"{"container":{"type":"auto","file_ids":["f"]}}"#, "file_ids"),
            (r#"{"container":{"type":"auto"}}"#, ""),
            (r#"{"text":"file_ids"}"#, ""),
            (r#""file_ids""#, ""),
        ] {
            assert_eq!(found(value), want, "{value}");
        }
        let deep = [vec!["["; 200].concat(), vec!["]"; 200].concat()].concat();
        assert!(references(&deep, &known).is_err());
    }
}
