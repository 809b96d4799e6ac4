//! A backend's refusal in the form in which an API's SDKs raise it, where the backend did not write it
//! so: a proxy's page, plain text, nothing at all.

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::json;

use super::Endpoint;

/// How many characters of a backend's plain words are passed on.
const MOST_WORDS: usize = 500;

impl Endpoint {
    /// The error for a request that a backend has refused with `status`, with the words that it gave for it
    /// as plain text.
    #[must_use]
    pub fn refusal(self, status: u16, words: Option<&str>) -> Bytes {
        let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let named = known.map(|reason| format!(" {reason}")).unwrap_or_default();
        let mut message = format!("the backend refused the request: {status}{named}");
        let words: String = words
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MOST_WORDS)
            .collect();
        if !words.trim().is_empty() {
            message = format!("{message}: {}", words.trim());
        }
        let error = if self.is_anthropics() {
            let kind = match status {
                413 => "request_too_large",
                404 => "not_found_error",
                _ => "invalid_request_error",
            };
            json!({ "type": "error", "error": { "type": kind, "message": message } })
        } else {
            json!({ "error": {
                "message": message, "type": "invalid_request_error", "param": null,
                "code": "upstream_refused",
            } })
        };
        error.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_status_and_its_plain_words() {
        let read = |endpoint: Endpoint, status, words| -> serde_json::Value {
            serde_json::from_slice(&endpoint.refusal(status, words)).unwrap()
        };
        let error = read(Endpoint::ChatCompletions, 413, None)["error"].clone();
        assert_eq!(error["message"], "the backend refused the request: 413 Payload Too Large");
        assert_eq!(error["type"], "invalid_request_error");
        let long = "too\nlong ".repeat(200);
        let error = read(Endpoint::Messages, 400, Some(&long));
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("the backend refused the request: 400 Bad Request: too long"));
        assert!(message.len() < 600 && !message.contains('\n'), "{message}");
        assert_eq!(error["type"], "error");
    }
}
