//! The few fields of a body that Lexgate reads itself: each of the type that its API says, or a refusal that
//! names it.

use super::failure::Failure;
use crate::dispatch::{Endpoint, Fields};

/// How much of a value is shown.
const SHOWN: usize = 40;

/// The name of the model.
pub(super) fn model(body: &Fields) -> Result<String, Failure> {
    let name = body.read::<String>("model");
    match name.map_err(|_| wrong(body, "model", "the name of a model, as a string"))? {
        Some(name) if !name.trim().is_empty() => Ok(name),
        _ => {
            let message = "`model` is missing: name a model; `GET /v1/models` lists them";
            Err(Failure::field("model", "missing_required_parameter", message))
        }
    }
}

/// Whether the answer is to come in chunks.
pub(super) fn stream(body: &Fields) -> Result<bool, Failure> {
    let stream = body.read::<bool>("stream");
    let stream = stream.map_err(|_| wrong(body, "stream", "`true` or `false`, without quotes"))?;
    Ok(stream.unwrap_or(false))
}

/// Whether the client wants usage in a streamed answer.
pub(super) fn wants_usage(endpoint: Endpoint, body: &Fields) -> Result<bool, Failure> {
    endpoint.wants_usage(body).map_err(|_| match body.object("stream_options") {
        Ok(Some(options)) => {
            let mut failure = wrong(&options, "include_usage", "`true` or `false`, without quotes");
            failure.body.param = Some("stream_options.include_usage".to_owned());
            failure
        }
        _ => wrong(body, "stream_options", "an object, such as `{\"include_usage\": true}`"),
    })
}

fn wrong(body: &Fields, name: &str, want: &str) -> Failure {
    let value = body.members().find(|(field, _)| *field == name).map_or("", |(_, value)| value);
    let is = match value.trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "true or false",
        _ => "a number",
    };
    let shown =
        if value.chars().count() <= SHOWN { format!(" (`{value}`)") } else { String::new() };
    Failure::field(name, "invalid_type", format!("`{name}` is {is}{shown}: want {want}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(read: Result<T, Failure>) -> (String, String) {
        let body = read.unwrap_err().body;
        (body.param.unwrap(), body.message)
    }

    #[test]
    fn a_field_of_another_type_is_named_with_what_is_wanted() {
        let of = |body: &str| Fields::parse(&body.to_owned().into()).unwrap();
        let (param, message) = said(stream(&of(r#"{"stream":"true"}"#)));
        assert_eq!(param, "stream");
        assert_eq!(
            message,
            "`stream` is a string (`\"true\"`): want `true` or `false`, without quotes"
        );
        assert!(said(stream(&of(r#"{"stream":1}"#))).1.contains("is a number (`1`)"));
        assert!(!stream(&of(r#"{"stream":null}"#)).unwrap() && !stream(&of("{}")).unwrap());
        for missing in ["{}", r#"{"model":null}"#, r#"{"model":" "}"#] {
            let (param, message) = said(model(&of(missing)));
            assert_eq!(param, "model", "{missing}");
            assert!(message.starts_with("`model` is missing"), "{missing}: {message}");
        }
        for wrong in [r#"{"model":7}"#, r#"{"model":["a"]}"#, r#"{"model":true}"#] {
            assert!(said(model(&of(wrong))).1.contains("want the name of a model"), "{wrong}");
        }
        let wants = |body: &str| wants_usage(Endpoint::ChatCompletions, &of(body));
        let (param, _) = said(wants(r#"{"stream_options":{"include_usage":"yes"}}"#));
        assert_eq!(param, "stream_options.include_usage");
        let (param, message) = said(wants(r#"{"stream_options":true}"#));
        assert_eq!(param, "stream_options");
        assert!(message.contains("want an object"), "{message}");
    }
}
