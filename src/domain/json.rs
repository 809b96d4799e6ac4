//! JSON taken apart without being copied: an object's members and a list's items, each as the text that
//! was sent. Not what they mean.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// How many members an object may have: many times what any API knows.
pub(crate) const MOST_MEMBERS: usize = 1024;
/// Up to how many members their names are compared one by one.
const FEW: usize = 24;

/// A member of an object: its name, and its value as it was sent.
pub(crate) type Member<'a> = (Cow<'a, str>, &'a str);

/// The members of the object that `text` is, in their order.
///
/// # Errors
/// When it is not an object, or a name appears twice: two readers could each take another one.
pub(crate) fn members(text: &str) -> Result<Vec<Member<'_>>, serde_json::Error> {
    let Members(members) = serde_json::from_str(text)?;
    Ok(members)
}

/// Hands each item of the list that `text` is to `take`, until that gives an error.
///
/// # Errors
/// The error of `take`; or when it is not a list.
pub(crate) fn each_item<'a, E: From<serde_json::Error>>(
    text: &'a str,
    take: impl FnMut(&'a str) -> Result<(), E>,
) -> Result<(), E> {
    let mut stopped = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_seq(Items { take, stopped: &mut stopped });
    match stopped {
        Some(error) => Err(error),
        None => Ok(read?),
    }
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members: Vec<Member<'de>> = Vec::new();
        let mut names = HashSet::new();
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            let is_known = if members.len() < FEW {
                members.iter().any(|(known, _)| *known == name)
            } else {
                if names.is_empty() {
                    names.extend(members.iter().map(|(known, _)| known.clone()));
                }
                !names.insert(name.clone())
            };
            if is_known {
                return Err(de::Error::custom(format!("the field `{name}` appears twice")));
            }
            if members.len() == MOST_MEMBERS {
                let message = format!("an object has more than {MOST_MEMBERS} fields");
                return Err(de::Error::custom(message));
            }
            members.push((name, value.get()));
        }
        Ok(Members(members))
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

struct Items<'s, F, E> {
    take: F,
    stopped: &'s mut Option<E>,
}

impl<'de, F: FnMut(&'de str) -> Result<(), E>, E> Visitor<'de> for Items<'_, F, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<&'de RawValue>()? {
            if let Err(error) = (self.take)(item.get()) {
                *self.stopped = Some(error);
                return Err(de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_are_what_was_sent() {
        let text = r#" {"a": 1.10, "\u0062":{"x" :[ ]}, "ü":null}"#;
        let found = members(text).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, raw)| (&**name, *raw)).collect();
        assert_eq!(found, [("a", "1.10"), ("b", r#"{"x" :[ ]}"#), ("ü", "null")]);
        let mut items = Vec::new();
        let taken = each_item(r#"[1, "a", {"b":[]} ]"#, |item| {
            items.push(item);
            Ok::<_, serde_json::Error>(())
        });
        taken.unwrap();
        assert_eq!(items, ["1", "\"a\"", r#"{"b":[]}"#]);
    }

    #[test]
    fn a_name_appears_once_however_it_is_written() {
        let many = |last: &str| {
            let names: Vec<String> = (0..40).map(|n| format!(r#""n{n}":0"#)).collect();
            members(&format!("{{{},{last}}}", names.join(","))).map(|_| ())
        };
        assert!(many(r#""n40":0"#).is_ok());
        assert!(many(r#""n39":0"#).is_err());
        assert!(members(r#"{"model":"a","mod\u0065l":"b"}"#).is_err());
        assert!(members("[1]").is_err());
    }
}
