//! How far a streamed answer has come: whether it is whole where it ends without a mark, and with which
//! event one that breaks ends for its client. Not why it broke (`gate`).

use bytes::Bytes;
use serde_json::json;

use super::{
    Endpoint, Fields, FieldsError, Said,
    endpoint::{Choices, response_of},
};

/// Up to which size what a response says of itself at its beginning is kept for its end.
const MOST_KEPT: usize = 64 << 10;
/// In how many events it is looked for.
const BEGINNING: u32 = 4;

/// What is known of a streamed answer under way.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    seen: Choices,
    finished: Choices,
    /// The last event's number, where events are numbered.
    sequence: Option<u64>,
    /// A response as its first event shows it.
    response: Option<Fields>,
    events: u32,
    is_over: bool,
}

/// Why a stream breaks.
#[derive(Clone, Copy, Debug)]
pub struct Break {
    /// In a word.
    pub code: &'static str,
    /// In a sentence.
    pub message: &'static str,
}

impl Progress {
    /// Takes what an event of `endpoint` says, and its data.
    pub fn note(&mut self, endpoint: Endpoint, said: &Said, data: &str) {
        self.seen |= said.choices;
        self.finished |= said.finished;
        self.sequence = said.sequence.or(self.sequence);
        self.is_over |= said.is_last;
        let is_looked_for = endpoint == Endpoint::Responses && self.events < BEGINNING;
        if is_looked_for && self.response.is_none() && data.len() <= MOST_KEPT {
            self.response = response_of(data);
        }
        self.events = self.events.saturating_add(1);
    }

    /// Whether the answer is whole if nothing more comes: all of it that was begun has said how it ended.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_over || (self.seen != 0 && self.seen == self.finished)
    }

    /// The event that ends a stream of `endpoint` that broke, in the form in which that API's clients hear
    /// of it; `None` where the backend has ended it so itself.
    #[must_use]
    pub fn broken(self, endpoint: Endpoint, why: Break) -> Option<Bytes> {
        let Break { code, message } = why;
        let event = match endpoint {
            _ if self.is_over => return None,
            Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Embeddings => {
                let error = json!({
                    "message": message, "type": "upstream_error", "param": null, "code": code,
                });
                format!("data: {}\n\n", json!({ "error": error }))
            }
            Endpoint::Responses => {
                let sequence = self.sequence.map_or(0, |last| last.saturating_add(1));
                let response = failed(self.response, message).unwrap_or_default();
                let response = String::from_utf8(response).unwrap_or_default();
                format!(
                    "event: response.failed\ndata: {{\"type\":\"response.failed\",\
                     \"sequence_number\":{sequence},\"response\":{response}}}\n\n"
                )
            }
            Endpoint::Messages | Endpoint::CountTokens => {
                let error = json!({ "type": "api_error", "message": message });
                format!("event: error\ndata: {}\n\n", json!({ "type": "error", "error": error }))
            }
        };
        Some(event.into())
    }
}

/// A response that failed: as it was begun, or with what every response has.
fn failed(response: Option<Fields>, message: &str) -> Result<Vec<u8>, FieldsError> {
    let mut response = match response {
        Some(response) => response,
        None => Fields::parse(&Bytes::from_static(
            br#"{"id":"","object":"response","created_at":0,"status":"failed","error":null,"incomplete_details":null,"instructions":null,"metadata":{},"model":"","output":[],"parallel_tool_calls":true,"tool_choice":"auto","tools":[]}"#,
        ))?,
    };
    response.set("status", "failed")?;
    response.set("error", &json!({ "code": "server_error", "message": message }))?;
    response.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHY: Break =
        Break { code: "upstream_error", message: "the backend broke off its answer" };

    fn after(endpoint: Endpoint, events: &[&str]) -> Progress {
        let mut progress = Progress::default();
        for data in events {
            progress.note(endpoint, &endpoint.read_event(data).unwrap(), data);
        }
        progress
    }

    #[test]
    fn a_stream_is_whole_when_each_choice_has_said_how_it_ended() {
        let chat = |events: &[&str]| after(Endpoint::ChatCompletions, events).is_whole();
        let text = r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let other = r#"{"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":""}]}"#;
        let both = r#"{"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"length"}]}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":1}}"#;
        assert!(!chat(&[]) && !chat(&[usage]) && !chat(&[text]) && !chat(&[text, usage]));
        assert!(chat(&[text, stop]) && chat(&[text, stop, usage]) && chat(&["[DONE]"]));
        assert!(!chat(&[text, other, stop, usage]) && chat(&[text, other, both]));
        // Where one choice is all there is, some backends do not number it.
        assert!(chat(&[r#"{"choices":[{"finish_reason":"stop"}]}"#]));
        assert!(!chat(&[r#"{"choices":[{"index":0,"finish_reason":7}]}"#, r#"{"choices":7}"#]));
        let text = |events: &[&str]| after(Endpoint::Completions, events).is_whole();
        assert!(text(&[r#"{"choices":[{"index":0,"text":"x","finish_reason":"length"}]}"#]));
        let message = |events: &[&str]| after(Endpoint::Messages, events).is_whole();
        let start = r#"{"type":"message_start","message":{"model":"m","stop_reason":null}}"#;
        let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#;
        assert!(!message(&[start]) && message(&[start, delta]));
        assert!(message(&[start, r#"{"type":"message_stop"}"#]));
        let response = |events: &[&str]| after(Endpoint::Responses, events).is_whole();
        assert!(!response(&[r#"{"type":"response.output_item.done","sequence_number":4}"#]));
        assert!(response(&[r#"{"type":"response.completed","response":{}}"#]));
    }

    #[test]
    fn a_response_that_breaks_fails_with_its_own_name_and_the_next_number() {
        let read = |events: &[&str]| {
            let broken = after(Endpoint::Responses, events).broken(Endpoint::Responses, WHY);
            let broken = String::from_utf8(broken.unwrap().to_vec()).unwrap();
            let data = broken.strip_prefix("event: response.failed\ndata: ").unwrap();
            serde_json::from_str::<serde_json::Value>(data.strip_suffix("\n\n").unwrap()).unwrap()
        };
        let created = r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_7","object":"response","model":"m","status":"in_progress","temperature":1.10}}"#;
        let failed =
            read(&[created, r#"{"type":"response.output_text.delta","sequence_number":4}"#]);
        assert_eq!(
            (&failed["type"], &failed["sequence_number"]),
            (&"response.failed".into(), &5.into())
        );
        let response = &failed["response"];
        assert_eq!((&response["id"], &response["status"]), (&"resp_7".into(), &"failed".into()));
        assert_eq!(response["error"]["message"], WHY.message);
        assert_eq!(read(&[])["sequence_number"], 0);
        assert_eq!(read(&[])["response"]["output"], json!([]));
        // The backend has said so itself.
        let told = after(Endpoint::Responses, &[r#"{"type":"response.failed","response":{}}"#]);
        assert_eq!(told.broken(Endpoint::Responses, WHY), None);
    }

    #[test]
    fn the_other_apis_hear_of_it_in_their_own_shape() {
        let read = |endpoint: Endpoint| Progress::default().broken(endpoint, WHY).unwrap();
        assert_eq!(
            read(Endpoint::ChatCompletions),
            "data: {\"error\":{\"message\":\"the backend broke off its answer\",\"type\":\"upstream_error\",\"param\":null,\"code\":\"upstream_error\"}}\n\n"
        );
        assert_eq!(
            read(Endpoint::Messages),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the backend broke off its answer\"}}\n\n"
        );
    }
}
