//! The label in front of the text of a streamed answer, in each API's own form. Only text gets one:
//! structured output, tool calls and refusals are read by programs, which a label would break.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{Endpoint, Event, Fields};

/// Up to which size an event is labelled.
const LARGEST: usize = 4 << 20;
/// How many choices an API gives at most.
const MOST_CHOICES: u64 = 128;
/// Fields that shape the output beside those of the APIs: vLLM's and llama.cpp's.
const SHAPES: [&str; 7] = [
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "structured_outputs",
];

/// Puts a label in front of the first text of each choice of one streamed answer.
#[derive(Clone, Debug)]
pub struct Labeller {
    endpoint: Endpoint,
    label: String,
    choices: u64,
    /// The choices that have theirs.
    labelled: BTreeSet<u64>,
    /// Of a response: where its first text is.
    place: Option<(usize, usize)>,
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labelled {
    /// It is handed on as it is.
    Same,
    /// This goes in front of it.
    Before(Bytes),
    /// This goes in its place.
    Instead(Bytes),
}

impl Endpoint {
    /// Whether the answer to `body` has a form that a program reads, where a label would be a fault.
    #[must_use]
    pub fn is_structured(self, body: &Fields) -> bool {
        let is_form = |format: Option<Fields>| {
            let kind = format.and_then(|format| format.read::<String>("type").ok().flatten());
            kind.is_some_and(|kind| kind != "text")
        };
        let object = |fields: &Fields, name| fields.object(name).ok().flatten();
        let is_set = |name| body.raw(name).is_some_and(|value| value != "null");
        let own = match self {
            Self::ChatCompletions | Self::Completions | Self::Embeddings => {
                is_form(object(body, "response_format"))
            }
            Self::Responses => {
                is_form(object(body, "text").and_then(|text| object(&text, "format")))
            }
            Self::Messages | Self::CountTokens => {
                let output = object(body, "output_config");
                is_set("output_format")
                    || is_form(output.and_then(|output| object(&output, "format")))
            }
        };
        own || SHAPES.into_iter().any(is_set)
    }
}

impl Labeller {
    /// Puts `label` in front of the answer to `body`.
    #[must_use]
    pub fn new(endpoint: Endpoint, label: String, body: &Fields) -> Self {
        let choices = match endpoint {
            Endpoint::ChatCompletions => body.read::<u64>("n").ok().flatten().unwrap_or(1),
            // Each of its prompts is answered.
            Endpoint::Completions => MOST_CHOICES,
            Endpoint::Embeddings
            | Endpoint::Responses
            | Endpoint::Messages
            | Endpoint::CountTokens => 1,
        };
        let choices = choices.min(MOST_CHOICES);
        Self { endpoint, label, choices, labelled: BTreeSet::new(), place: None }
    }

    /// What becomes of `event`, which holds `data`. One of megabytes stays as it is: it would be copied
    /// several times, and repeats a text that had its label when it began.
    pub fn pass(&mut self, event: &Event, data: &str) -> Labelled {
        if data.len() > LARGEST {
            return Labelled::Same;
        }
        let found = match self.endpoint {
            Endpoint::Responses => return self.in_response(event, data).unwrap_or(Labelled::Same),
            _ if self.labelled.len() as u64 >= self.choices => None,
            Endpoint::ChatCompletions | Endpoint::Completions => self.before_chunk(data),
            Endpoint::Messages => self.before_delta(data),
            Endpoint::Embeddings | Endpoint::CountTokens => None,
        };
        found.map_or(Labelled::Same, Labelled::Before)
    }

    /// A chunk of the same answer with the label, for each choice of which the text begins in this one.
    fn before_chunk(&mut self, data: &str) -> Option<Bytes> {
        let chunk: Chunk<'_> = serde_json::from_str(data).ok()?;
        let choices = chunk.choices.unwrap_or_default();
        let choices =
            choices.iter().filter_map(|one| serde_json::from_str::<Choice<'_>>(one.get()).ok());
        let begun = choices.filter(|choice| {
            let text = choice.text.or(choice.delta.as_ref().and_then(|delta| delta.content));
            text.is_some_and(is_text)
        });
        let indices: Vec<u64> = begun.map(|choice| index(choice.index)).collect();
        let room = usize::try_from(self.choices).ok()?.saturating_sub(self.labelled.len());
        let new = indices.into_iter().filter(|index| self.labelled.insert(*index)).take(room);
        let labels: Vec<_> = new
            .map(|index| match self.endpoint {
                Endpoint::Completions => json!({
                    "index": index, "text": self.label, "logprobs": null, "finish_reason": null,
                }),
                _ => json!({
                    "index": index, "delta": { "role": "assistant", "content": self.label },
                    "logprobs": null, "finish_reason": null,
                }),
            })
            .collect();
        if labels.is_empty() {
            return None;
        }
        let mut event = Fields::parse(&Bytes::copy_from_slice(data.as_bytes())).ok()?;
        event.retain(|name| name != "usage");
        event.set("choices", &labels).ok()?;
        let event = String::from_utf8(event.to_vec().ok()?).ok()?;
        Some(Bytes::from(format!("data: {event}\n\n")))
    }

    /// The same for a message: one more change of its first block of text.
    fn before_delta(&mut self, data: &str) -> Option<Bytes> {
        let change: BlockChange<'_> = serde_json::from_str(data).ok()?;
        let delta = change.delta.filter(|_| change.kind == "content_block_delta")?;
        if delta.kind != "text_delta" || !delta.text.is_some_and(is_text) {
            return None;
        }
        self.labelled.insert(0);
        let event = json!({
            "type": "content_block_delta", "index": change.index,
            "delta": { "type": "text_delta", "text": self.label },
        });
        Some(Bytes::from(format!("event: content_block_delta\ndata: {event}\n\n")))
    }

    /// The events of a response are numbered, and its last ones repeat its text: the label goes into each
    /// that has the beginning of the first text.
    fn in_response(&mut self, event: &Event, data: &str) -> Option<Labelled> {
        let told: ResponseEvent<'_> = serde_json::from_str(data).ok()?;
        // Some number neither outputs nor their parts, where there is one of each.
        let here = Some((told.output_index.unwrap_or(0), told.content_index.unwrap_or(0)));
        let path = match &*told.kind {
            // Of the pieces of a text only the first one has its beginning.
            "response.output_text.delta" if self.place.is_none() => {
                told.delta.filter(|text| is_text(text))?;
                self.place = Some(here?);
                vec![Step::Field("delta")]
            }
            "response.output_text.done" if self.is_at(here) => {
                told.text.filter(|text| is_text(text))?;
                self.place = here;
                vec![Step::Field("text")]
            }
            "response.content_part.done" if here.is_some() && here == self.place => {
                vec![Step::Field("part"), Step::Field("text")]
            }
            "response.output_item.done" => {
                let (_, content) =
                    self.place.filter(|place| place.0 == told.output_index.unwrap_or(0))?;
                vec![
                    Step::Field("item"),
                    Step::Field("content"),
                    Step::At(content),
                    Step::Field("text"),
                ]
            }
            "response.completed" | "response.incomplete" => {
                let (output, content) = self.place?;
                let response = [Step::Field("response"), Step::Field("output"), Step::At(output)];
                let text = [Step::Field("content"), Step::At(content), Step::Field("text")];
                [response, text].concat()
            }
            _ => return None,
        };
        let labelled = prefixed(data, &path, &self.label)?;
        let in_place = str::from_utf8(event.bytes()).ok()?.split_once(data);
        let text = match in_place {
            Some((before, after)) => [before, &labelled, after].concat(),
            None => format!("event: {}\ndata: {labelled}\n\n", told.kind),
        };
        Some(Labelled::Instead(text.into()))
    }

    /// Whether the first text is `here`, or may be.
    fn is_at(&self, here: Option<(usize, usize)>) -> bool {
        here.is_some() && (self.place.is_none() || here == self.place)
    }
}

/// A step into a JSON value.
#[derive(Clone, Copy, Debug)]
enum Step {
    Field(&'static str),
    At(usize),
}

/// `value` with `prefix` in front of the text at `path`; `None` where no text is there.
fn prefixed(value: &str, path: &[Step], prefix: &str) -> Option<String> {
    let Some((step, rest)) = path.split_first() else {
        let text: String = serde_json::from_str(value).ok()?;
        return serde_json::to_string(&[prefix, &text].concat()).ok();
    };
    match step {
        Step::Field(name) => {
            let mut fields = Fields::parse(&Bytes::copy_from_slice(value.as_bytes())).ok()?;
            let inner = prefixed(fields.raw(name)?, rest, prefix)?;
            fields.put(name, inner.into());
            String::from_utf8(fields.to_vec().ok()?).ok()
        }
        Step::At(at) => {
            let items: Vec<&RawValue> = serde_json::from_str(value).ok()?;
            let inner = prefixed(items.get(*at)?.get(), rest, prefix)?;
            let mut items: Vec<&str> = items.into_iter().map(RawValue::get).collect();
            *items.get_mut(*at)? = &inner;
            Some(format!("[{}]", items.join(",")))
        }
    }
}

/// The number of a choice; the first one's where none is given, or what is given is no count.
fn index(written: Option<&RawValue>) -> u64 {
    written.and_then(|written| serde_json::from_str(written.get()).ok()).unwrap_or(0)
}

/// Whether this is a text with something in it.
fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"') && value.get() != "\"\""
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BlockChange<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    delta: Option<BlockDelta<'a>>,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResponseEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    output_index: Option<usize>,
    #[serde(default)]
    content_index: Option<usize>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::Events, *};

    fn fields(body: &str) -> Fields {
        Fields::parse(&Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    /// What a client reads of these events: the data of each.
    fn read(endpoint: Endpoint, body: &str, events: &[&str]) -> Vec<Value> {
        let mut labeller = Labeller::new(endpoint, "[AI] ".to_owned(), &fields(body));
        let (mut cut, mut text) = (Events::default(), Vec::new());
        for data in events {
            cut.push(format!("event: x\r\ndata: {data}\r\n\r\n").as_bytes()).unwrap();
            let event = cut.next_event().unwrap();
            match labeller.pass(&event, data) {
                Labelled::Same => text.extend_from_slice(event.bytes()),
                Labelled::Before(label) => {
                    text.extend_from_slice(&label);
                    text.extend_from_slice(event.bytes());
                }
                Labelled::Instead(label) => text.extend_from_slice(&label),
            }
        }
        let mut cut = Events::default();
        cut.push(&text).unwrap();
        std::iter::from_fn(|| cut.next_event())
            .map(|event| serde_json::from_str(&event.data().unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn each_choice_is_labelled_in_front_of_its_first_text() {
        let chat = |index: u64, delta: &str| {
            format!(r#"{{"id":"c","choices":[{{"index":{index},"delta":{delta}}}],"usage":null}}"#)
        };
        let role = chat(0, r#"{"role":"assistant","content":""}"#);
        let (one, two) = (chat(0, r#"{"content":"one"}"#), chat(1, r#"{"content":"two"}"#));
        let events = [&*role, &one, &one, &two, &two];
        let found = read(Endpoint::ChatCompletions, r#"{"n":2}"#, &events);
        let texts: Vec<(u64, &str)> = found
            .iter()
            .map(|event| &event["choices"][0])
            .map(|choice| {
                (choice["index"].as_u64().unwrap(), choice["delta"]["content"].as_str().unwrap())
            })
            .collect();
        let want =
            [(0, ""), (0, "[AI] "), (0, "one"), (0, "one"), (1, "[AI] "), (1, "two"), (1, "two")];
        assert_eq!(texts, want);
        assert_eq!((&found[1]["id"], found[1].get("usage")), (&"c".into(), None));
        let call =
            chat(0, r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}],"content":null}"#);
        assert_eq!(read(Endpoint::ChatCompletions, "{}", &[&call, &call]).len(), 2);
        let texts = [r#"{"choices":[{"index":0,"text":"a"},{"index":1,"text":"b"}]}"#; 2];
        let found = read(Endpoint::Completions, "{}", &texts);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0]["choices"][1]["text"], "[AI] ");
    }

    #[test]
    fn a_message_is_labelled_where_its_text_begins() {
        let think = r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"x"}}"#;
        let text =
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"x"}}"#;
        let found = read(Endpoint::Messages, "{}", &[r#"{"type":"ping"}"#, think, text, text]);
        assert_eq!(found.len(), 5);
        assert_eq!(found[2]["delta"]["text"], "[AI] ");
        assert_eq!(found[2]["index"], 1);
    }

    #[test]
    fn a_response_says_the_same_in_its_pieces_and_at_its_end() {
        let part = r#"{"type":"output_text","text":"Good morning","annotations":[]}"#;
        let item = format!(r#"{{"type":"message","content":[{part}]}}"#);
        let events = [
            r#"{"type":"response.created","response":{"output":[]},"sequence_number":0}"#.to_owned(),
            r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"","sequence_number":1}"#.to_owned(),
            r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"Good ","sequence_number":2}"#.to_owned(),
            r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"morning","sequence_number":3}"#.to_owned(),
            r#"{"type":"response.output_text.done","output_index":1,"content_index":0,"text":"Good morning","sequence_number":4}"#.to_owned(),
            format!(r#"{{"type":"response.content_part.done","output_index":1,"content_index":0,"part":{part},"sequence_number":5}}"#),
            format!(r#"{{"type":"response.output_item.done","output_index":1,"item":{item},"sequence_number":6}}"#),
            format!(r#"{{"type":"response.completed","response":{{"temperature":1.10,"output":[{{"type":"reasoning"}},{item}]}},"sequence_number":7}}"#),
        ];
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let found = read(Endpoint::Responses, "{}", &events);
        assert_eq!(found.len(), events.len(), "no event more: they are numbered");
        let deltas: String = found.iter().filter_map(|event| event["delta"].as_str()).collect();
        assert_eq!(deltas, "[AI] Good morning");
        for text in [
            &found[4]["text"],
            &found[5]["part"]["text"],
            &found[6]["item"]["content"][0]["text"],
            &found[7]["response"]["output"][1]["content"][0]["text"],
        ] {
            assert_eq!(text, "[AI] Good morning");
        }
        let call =
            r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{}"}"#;
        let done =
            r#"{"type":"response.completed","response":{"output":[{"type":"function_call"}]}}"#;
        let want: Vec<Value> = [call, done].map(|text| serde_json::from_str(text).unwrap()).into();
        assert_eq!(read(Endpoint::Responses, "{}", &[call, done]), want);
    }

    #[test]
    fn what_a_program_reads_is_known_from_the_request() {
        let is = |endpoint: Endpoint, body: &str| endpoint.is_structured(&fields(body));
        let chat = Endpoint::ChatCompletions;
        assert!(is(chat, r#"{"response_format":{"type":"json_schema","json_schema":{}}}"#));
        assert!(is(chat, r#"{"response_format":{"type":"json_object"}}"#));
        assert!(
            is(chat, r#"{"guided_json":{}}"#) && is(Endpoint::Completions, r#"{"grammar":"x"}"#)
        );
        assert!(
            !is(chat, "{}") && !is(chat, r#"{"response_format":{"type":"text"},"grammar":null}"#)
        );
        assert!(is(Endpoint::Responses, r#"{"text":{"format":{"type":"json_schema"}}}"#));
        assert!(!is(Endpoint::Responses, r#"{"text":{"verbosity":"low"}}"#));
        assert!(is(Endpoint::Messages, r#"{"output_config":{"format":{"type":"json_schema"}}}"#));
        assert!(is(Endpoint::Messages, r#"{"output_format":{"type":"json_schema"}}"#));
        assert!(!is(Endpoint::Messages, r#"{"output_config":{"effort":"low"}}"#));
    }
}
