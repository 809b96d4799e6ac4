//! A JSON object's fields in their order, each value as the bytes that were sent. What Lexgate
//! does not need to understand, it does not touch.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

/// How many fields an object may have: many times what any API knows.
const MOST_FIELDS: usize = 1024;

/// The body of a request to a model.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

/// The body is no JSON object, or a field is not what it must be.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FieldsError(#[from] serde_json::Error);

impl Fields {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// When it is none, or names a field twice.
    pub fn parse(body: &[u8]) -> Result<Self, FieldsError> {
        Ok(serde_json::from_slice(body)?)
    }

    /// The field `name` as a `T`; `None` where it is absent or `null`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FieldsError> {
        let found = self.0.iter().find(|(field, _)| field == name);
        Ok(found.map_or(Ok(None), |(_, value)| serde_json::from_str(value.get()))?)
    }

    /// Sets the field `name`, in its place or at the end.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), FieldsError> {
        let value = serde_json::value::to_raw_value(value)?;
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
        Ok(())
    }

    /// Removes every field for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the field `name` is an object, readable or not.
    #[must_use]
    pub fn is_object(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.is_some_and(|(_, value)| value.get().trim_start().starts_with('{'))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The object as JSON.
    ///
    /// # Errors
    /// Never for fields that were read.
    pub fn to_vec(&self) -> Result<Vec<u8>, FieldsError> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl Serialize for Fields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut fields, mut names) = (Vec::new(), HashSet::new());
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            // Two readers could each take another one of two fields of one name.
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("the field `{name}` stands twice")));
            }
            if names.len() > MOST_FIELDS {
                let message = format!("an object has more than {MOST_FIELDS} fields");
                return Err(serde::de::Error::custom(message));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_leave_alone_what_they_do_not_know() {
        let body = br#"{"z": 1.10, "model":"a", "n":12345678901234567890123,"x":{"b":1,"a": [ ]}}"#;
        let mut fields = Fields::parse(body).unwrap();
        fields.set("model", "b").unwrap();
        fields.set("stream", &true).unwrap();
        fields.retain(|name| name != "absent");
        assert_eq!(
            String::from_utf8(fields.to_vec().unwrap()).unwrap(),
            r#"{"z":1.10,"model":"b","n":12345678901234567890123,"x":{"b":1,"a": [ ]},"stream":true}"#
        );
        assert_eq!(fields.read::<String>("model").unwrap().as_deref(), Some("b"));
        assert!(fields.read::<bool>("model").is_err());
        assert_eq!(fields.read::<bool>("none").unwrap(), None);
    }

    #[test]
    fn fields_refuse_what_two_readers_could_read_differently() {
        assert!(Fields::parse(br#"{"model":"a","model":"b"}"#).is_err());
        assert!(Fields::parse(b"[1]").is_err());
        let many = |fields: usize| {
            let fields: Vec<String> = (0..fields).map(|n| format!(r#""{n}":0"#)).collect();
            Fields::parse(format!("{{{}}}", fields.join(",")).as_bytes())
        };
        assert!(many(MOST_FIELDS).is_ok());
        assert!(many(MOST_FIELDS + 1).unwrap_err().to_string().contains("more than 1024 fields"));
    }
}
