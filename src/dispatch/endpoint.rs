//! The APIs through which models are called: what Lexgate must read of their requests and answers.
//! Everything else passes as it is.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Fields, FieldsError};
use crate::domain::Action;

/// One of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// OpenAI's `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI's `POST /v1/completions`.
    Completions,
    /// OpenAI's `POST /v1/embeddings`.
    Embeddings,
    /// OpenAI's `POST /v1/responses`.
    Responses,
    /// Anthropic's `POST /v1/messages`.
    Messages,
    /// Anthropic's `POST /v1/messages/count_tokens`.
    CountTokens,
}

/// What an answer, or one event of a streamed one, says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The model that it names.
    pub model: Option<String>,
    /// Tokens read.
    pub input: Option<u64>,
    /// Tokens written.
    pub output: Option<u64>,
    /// Whether it is an error.
    pub is_error: bool,
    /// Whether it holds nothing but usage.
    pub is_usage_only: bool,
    /// Of an event: whether the stream ends with it.
    pub is_last: bool,
    /// Of an event: the parts of the answer of which it is.
    pub choices: Choices,
    /// Of an event: those of them that end with it.
    pub finished: Choices,
    /// Of an event: its number, where this API has numbers.
    pub sequence: Option<u64>,
}

/// Which choices of an answer: a bit for each of the 128 that an API gives at most.
pub(super) type Choices = u128;

impl Endpoint {
    /// The path below a backend's base URL.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
            Self::Messages => "/messages",
            Self::CountTokens => "/messages/count_tokens",
        }
    }

    /// The API's name in the table of what stays within a call ([`crate::domain::passing`]).
    #[must_use]
    pub const fn root(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            // What is counted is what would be sent.
            Self::Messages | Self::CountTokens => "messages",
        }
    }

    /// Whether it is one of Anthropic's: its errors have another shape, and its clients send the key in
    /// another header.
    #[must_use]
    pub const fn is_anthropics(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
    }

    /// What the policies are asked.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Embeddings => Action::Embed,
            _ => Action::Infer,
        }
    }

    /// Whether usage appears in a stream only where it is asked for.
    #[must_use]
    pub const fn hides_usage(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether the same request twice does the same as once. A response that is stored is not sent again
    /// once a backend may have begun it.
    #[must_use]
    pub fn is_repeatable(self, body: &Fields) -> bool {
        self != Self::Responses || matches!(body.read::<bool>("store"), Ok(Some(false)))
    }

    /// Asks for usage in a streamed answer, for the ledger.
    ///
    /// # Errors
    /// When `stream_options` is not an object.
    pub fn ask_for_usage(self, body: &mut Fields) -> Result<(), FieldsError> {
        if self.hides_usage() {
            let mut options = body.object("stream_options")?.unwrap_or_default();
            options.set("include_usage", &true)?;
            body.set_object("stream_options", &options)?;
        }
        Ok(())
    }

    /// Whether the client asked for usage in a streamed answer, or gets it anyway.
    ///
    /// # Errors
    /// When `stream_options` is not what it must be.
    pub fn wants_usage(self, body: &Fields) -> Result<bool, FieldsError> {
        if !self.hides_usage() {
            return Ok(true);
        }
        let options = body.object("stream_options")?.unwrap_or_default();
        Ok(options.read::<bool>("include_usage")?.unwrap_or(false))
    }

    /// Reads an answer in one piece; `None` when it is no JSON object.
    #[must_use]
    pub fn read_answer(self, answer: &[u8]) -> Option<Said> {
        let text = std::str::from_utf8(answer).ok()?;
        Some(self.said(&parse(text)?))
    }

    /// Reads the data of one event; `None` when it cannot be of this API.
    #[must_use]
    pub fn read_event(self, data: &str) -> Option<Said> {
        if data == "[DONE]" {
            return Some(Said { is_last: true, ..Said::default() });
        }
        let wire = parse(data)?;
        let mut said = self.said(&wire);
        let kind = wire.kind.and_then(text).unwrap_or_default();
        match self {
            Self::ChatCompletions | Self::Completions | Self::Embeddings => {
                let choices = wire.choices.map_or("[]", RawValue::get);
                let is_empty =
                    choices.trim_matches(|c: char| "[]".contains(c) || c.is_whitespace());
                said.is_usage_only = said.has_usage() && (is_empty.is_empty() || choices == "null");
                said.take_choices(choices);
            }
            Self::Responses => {
                let ends = ["response.completed", "response.incomplete", "response.cancelled"];
                let has_failed = kind == "response.failed";
                said.is_last = has_failed || ends.contains(&&*kind);
                said.is_error |= has_failed || kind == "error";
                said.sequence = wire.sequence_number.and_then(|number| number.get().parse().ok());
            }
            Self::Messages | Self::CountTokens => {
                said.is_last = kind == "message_stop";
                said.is_error |= kind == "error";
                // A message is one choice, and its end is told before its last event.
                said.choices = 1;
                said.finished =
                    wire.delta.is_some_and(|delta| says_why_it_stops(delta.get())).into();
            }
        }
        Some(said)
    }

    fn said(self, wire: &Wire<'_>) -> Said {
        let mut said = Said { is_error: wire.error.is_some_and(is_something), ..Said::default() };
        said.take(wire.model, wire.usage);
        if self == Self::CountTokens {
            // No model has read or written anything.
            (said.input, said.output) = (Some(0), Some(0));
        }
        let inner = match self {
            Self::Responses => wire.response,
            Self::Messages | Self::CountTokens => wire.message,
            _ => None,
        };
        if let Some(inner) = inner.and_then(|inner| parse(inner.get())) {
            said.is_error |= inner.error.is_some_and(is_something);
            said.take(inner.model, inner.usage);
        }
        said
    }

    /// An event without the usage that stands beside its content; `None` where it cannot be taken out
    /// alone.
    #[must_use]
    pub fn without_usage(event: &[u8], data: &str) -> Option<Bytes> {
        let mut fields = Fields::parse(&Bytes::copy_from_slice(data.as_bytes())).ok()?;
        fields.retain(|name| name != "usage");
        let rest = String::from_utf8(fields.to_vec().ok()?).ok()?;
        // In its place: the event may have other lines.
        let (before, after) = str::from_utf8(event).ok()?.split_once(data)?;
        Some(Bytes::from([before, &rest, after].concat()))
    }
}

impl Said {
    /// Whether it counts tokens.
    #[must_use]
    pub const fn has_usage(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }

    fn take_choices(&mut self, choices: &str) {
        let read: Vec<&RawValue> = serde_json::from_str(choices).unwrap_or_default();
        for choice in
            read.iter().filter_map(|choice| serde_json::from_str::<Choice<'_>>(choice.get()).ok())
        {
            // Where there is one, some backends do not number it.
            let bit = choice.index.map_or(1, |index| 1_u128.checked_shl(index).unwrap_or(0));
            self.choices |= bit;
            self.finished |= if choice.finish_reason.is_some_and(is_reason) { bit } else { 0 };
        }
    }

    fn take(&mut self, model: Option<&RawValue>, usage: Option<&RawValue>) {
        if let Some(model) = model.filter(|value| is_something(value)) {
            // A name that is no text is some other name; one that is empty is none.
            let name = text(model).map_or_else(|| model.get().to_owned(), Cow::into_owned);
            self.model = (!name.trim().is_empty()).then_some(name).or(self.model.take());
        }
        let usage = usage.and_then(|usage| serde_json::from_str::<Usage>(usage.get()).ok());
        if let Some(usage) = usage {
            // Anthropic counts what was cached beside the rest, everybody else within it.
            let cached = [usage.cache_creation_input_tokens, usage.cache_read_input_tokens];
            let all = |input: u64| cached.into_iter().flatten().fold(input, u64::saturating_add);
            let input = usage.prompt_tokens.or(usage.input_tokens.map(all));
            self.input = input.or(self.input);
            self.output = usage.completion_tokens.or(usage.output_tokens).or(self.output);
        }
    }
}

/// What the data of a response's event says of the response.
pub(super) fn response_of(data: &str) -> Option<Fields> {
    let response = parse(data)?.response?;
    Fields::parse(&Bytes::copy_from_slice(response.get().as_bytes())).ok()
}

/// Whether the change of a message says why it ends.
fn says_why_it_stops(delta: &str) -> bool {
    #[derive(Deserialize)]
    struct Delta<'a> {
        #[serde(borrow, default)]
        stop_reason: Option<&'a RawValue>,
    }
    let delta = serde_json::from_str::<Delta<'_>>(delta);
    delta.is_ok_and(|delta| delta.stop_reason.is_some_and(is_reason))
}

/// Whether this says why a choice ended: some backends write an empty text while it goes on.
fn is_reason(value: &RawValue) -> bool {
    value.get().starts_with('"') && value.get() != "\"\""
}

fn parse(text: &str) -> Option<Wire<'_>> {
    // An array would be read as the fields in their order.
    let is_object = text.trim_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok())?
}

fn is_something(value: &RawValue) -> bool {
    value.get() != "null"
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let plain = value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match plain.filter(|plain| !plain.contains('\\')) {
        Some(plain) => Some(Cow::Borrowed(plain)),
        None => serde_json::from_str(value.get()).ok().map(Cow::Owned),
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sequence_number: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

/// Every name is a provider's.
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are on the wire")]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_says_model_usage_and_end_in_its_own_way() {
        let said = |endpoint: Endpoint, data: &str| endpoint.read_event(data).unwrap();
        let chat = said(
            Endpoint::ChatCompletions,
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
        );
        assert_eq!((chat.model.as_deref(), chat.input, chat.output), (Some("m"), Some(3), Some(4)));
        assert!(chat.is_usage_only && !chat.is_last && !chat.is_error);
        let last =
            r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
        assert!(!said(Endpoint::ChatCompletions, last).is_usage_only);
        assert!(
            !said(Endpoint::ChatCompletions, r#"{"choices":[{"x":1}],"usage":null}"#).is_usage_only
        );
        assert!(said(Endpoint::Completions, "[DONE]").is_last);
        let done = r#"{"type":"response.completed","response":{"model":"m","error":null,"usage":{"input_tokens":5,"output_tokens":6}}}"#;
        let done = said(Endpoint::Responses, done);
        assert_eq!((done.model.as_deref(), done.input, done.output), (Some("m"), Some(5), Some(6)));
        assert!(done.is_last && !done.is_error);
        assert!(said(Endpoint::Responses, r#"{"type":"error","message":"x"}"#).is_error);
        let start = r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1}}}"#;
        assert_eq!(said(Endpoint::Messages, start).input, Some(7));
        assert!(said(Endpoint::Messages, r#"{"type":"message_stop"}"#).is_last);
        let counted = Endpoint::CountTokens.read_answer(br#"{"input_tokens":14}"#).unwrap();
        assert_eq!((counted.input, counted.output), (Some(0), Some(0)), "counting uses none");
        let endless = r#"{"message":{"usage":{"input_tokens":5,"cache_creation_input_tokens":18446744073709551615}}}"#;
        assert_eq!(said(Endpoint::Messages, endless).input, Some(u64::MAX));
        let within = r#"{"choices":[],"usage":{"prompt_tokens":9,"cache_read_input_tokens":8}}"#;
        assert_eq!(said(Endpoint::ChatCompletions, within).input, Some(9));
    }

    #[test]
    fn usage_is_taken_out_and_nothing_else() {
        let data = r#"{"a": 1.0,"usage":{"prompt_tokens":3},"choices":[{"x": [ ]}]}"#;
        let taken = |event: &str, data: &str| {
            let event = Endpoint::without_usage(event.as_bytes(), data)?;
            Some(String::from_utf8(event.to_vec()).unwrap())
        };
        let want = r#"{"a":1.0,"choices":[{"x": [ ]}]}"#;
        let event = format!("id: 7\r\ndata: {data}\r\n: bye\r\n\r\n");
        assert_eq!(taken(&event, data).unwrap(), format!("id: 7\r\ndata: {want}\r\n: bye\r\n\r\n"));
        // Data in several lines, and data that is no object.
        assert_eq!(taken("data: {\ndata: \"usage\":1}\n\n", "{\n\"usage\":1}"), None);
        assert_eq!(taken("data: 1\n\n", "1"), None);
    }

    #[test]
    fn what_is_no_answer_is_known_for_it() {
        for garbage in ["", "x", "[]", "1", r#"{"model":"a","model":"b"}"#, r#"{"a":"#] {
            assert_eq!(Endpoint::ChatCompletions.read_event(garbage), None, "{garbage}");
        }
        let error = Endpoint::ChatCompletions.read_answer(br#"{"error":{"message":"x"}}"#).unwrap();
        assert!(error.is_error);
        assert!(
            !Endpoint::Responses.read_answer(br#"{"error":null,"model":"m"}"#).unwrap().is_error
        );
        // A name that is no text, and usage that is none, do not hide the rest.
        let odd =
            Endpoint::ChatCompletions.read_answer(br#"{"model":7,"usage":{"prompt_tokens":-1}}"#);
        assert_eq!(odd.unwrap().model.as_deref(), Some("7"));
    }
}
