//! A JSON object's fields in their order, each value as the bytes that were sent: parts of what was
//! received, not copies of it. What Lexgate does not need to understand, it does not touch.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{
    Serialize,
    de::{DeserializeOwned, Error},
};

use crate::domain::json::members;

/// Up to which size a value is written together with its neighbours, and not as a piece of its own.
const SMALL: usize = 4 << 10;

/// The body of a request to a model.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Bytes)>);

/// The body is not a JSON object, or a field is not what it must be.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FieldsError(#[from] serde_json::Error);

impl Fields {
    /// Reads a JSON object, of which the values stay parts.
    ///
    /// # Errors
    /// When it is not one, or names a field twice.
    pub fn parse(body: &Bytes) -> Result<Self, FieldsError> {
        let text = std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
        let members = members(text)?;
        let part = |value: &str| body.slice_ref(value.as_bytes());
        let fields = members.into_iter().map(|(name, value)| (name.into_owned(), part(value)));
        Ok(Self(fields.collect()))
    }

    fn find(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The field `name` as a `T`; `None` where it is absent or `null`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FieldsError> {
        Ok(self.find(name).map_or(Ok(None), |value| serde_json::from_slice(value))?)
    }

    /// The field `name` as an object; `None` where it is absent or `null`.
    ///
    /// # Errors
    /// When it is something else, or cannot be read.
    pub fn object(&self, name: &str) -> Result<Option<Self>, FieldsError> {
        let value = self.find(name).filter(|value| value.as_ref() != b"null");
        value.map(Self::parse).transpose()
    }

    /// Sets the field `name`, in its place or at the end.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), FieldsError> {
        self.put(name, serde_json::to_vec(value)?.into());
        Ok(())
    }

    /// Sets the field `name` to an object.
    ///
    /// # Errors
    /// Never for fields that were read.
    pub fn set_object(&mut self, name: &str, value: &Self) -> Result<(), FieldsError> {
        self.put(name, value.to_vec()?.into());
        Ok(())
    }

    /// The field `name` as it was sent.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.find(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// Sets the field `name` to `value`, which is JSON.
    pub(super) fn put(&mut self, name: &str, value: Bytes) {
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
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
        self.find(name).is_some_and(|value| value.starts_with(b"{"))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Names and values as they were sent, in order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        // What was set is JSON too.
        let text = |value| std::str::from_utf8(value).unwrap_or_default();
        self.0.iter().map(move |(name, value)| (name.as_str(), text(value)))
    }

    /// The object as JSON, in pieces that follow each other: large values are the received bytes.
    ///
    /// # Errors
    /// Never for fields that were read.
    pub fn pieces(&self) -> Result<Vec<Bytes>, FieldsError> {
        let (mut pieces, mut small) = (Vec::new(), BytesMut::new());
        for (index, (name, value)) in self.0.iter().enumerate() {
            small.put_u8(if index == 0 { b'{' } else { b',' });
            serde_json::to_writer((&mut small).writer(), name)?;
            small.put_u8(b':');
            if value.len() <= SMALL {
                small.extend_from_slice(value);
            } else {
                pieces.push(small.split().freeze());
                pieces.push(value.clone());
            }
        }
        small.extend_from_slice(if self.0.is_empty() { b"{}" } else { b"}" });
        pieces.push(small.freeze());
        Ok(pieces)
    }

    /// The object as JSON.
    ///
    /// # Errors
    /// Never for fields that were read.
    pub fn to_vec(&self) -> Result<Vec<u8>, FieldsError> {
        Ok(self.pieces()?.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::MOST_MEMBERS;

    fn parse(text: &str) -> Result<Fields, FieldsError> {
        Fields::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn fields_leave_alone_what_they_do_not_know() {
        let body = r#"{"z": 1.10, "model":"a", "n":12345678901234567890123,"x":{"b":1,"a": [ ]}}"#;
        let mut fields = parse(body).unwrap();
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
        assert_eq!(Fields::default().to_vec().unwrap(), b"{}");
    }

    #[test]
    fn large_values_are_the_bytes_that_were_received() {
        let text = format!(r#"{{"model":"a","input":"{}","user":"u"}}"#, "x".repeat(2 * SMALL));
        let body = Bytes::from(text.clone());
        let mut fields = Fields::parse(&body).unwrap();
        fields.set("model", "a").unwrap();
        let pieces = fields.pieces().unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces.concat(), text.as_bytes());
        let within = body.as_ptr_range();
        assert!(within.contains(&pieces[1].as_ptr()), "it was copied");
    }

    #[test]
    fn fields_refuse_what_two_readers_could_read_differently() {
        assert!(parse(r#"{"model":"a","model":"b"}"#).is_err());
        assert!(parse("[1]").is_err());
        assert!(parse("{} {}").is_err());
        assert!(Fields::parse(&Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err());
        let many = |fields: usize| {
            let fields: Vec<String> = (0..fields).map(|n| format!(r#""{n}":0"#)).collect();
            parse(&format!("{{{}}}", fields.join(",")))
        };
        assert!(many(MOST_MEMBERS).is_ok());
        assert!(many(MOST_MEMBERS + 1).unwrap_err().to_string().contains("more than 1024 fields"));
    }
}
