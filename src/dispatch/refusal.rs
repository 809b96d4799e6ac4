//! A backend's refusal in the form in which an API's SDKs print it, where the backend did not write it
//! so: a proxy's page, plain text, a problem document, nothing at all.

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::{Endpoint, Fields};

/// How many characters of a backend's words are passed on in a message.
const MOST_WORDS: usize = 500;
/// Up to which size words are looked through for text: a page's first sentences say what there is to say.
const MOST_READ: usize = 16 << 10;

impl Endpoint {
    /// The answer to a request that a backend has refused with `status` and `words`: a JSON object of which
    /// the SDKs print the message stays what it is; one without gets a message beside what it says; all
    /// else becomes the text of one.
    #[must_use]
    pub fn refusal(self, status: u16, words: &Bytes) -> Bytes {
        let object = Fields::parse(words).ok();
        let text = match &object {
            Some(object) if prints(object) => return words.clone(),
            Some(object) => said(object),
            None => text(words),
        };
        let error = self.error(status, &text);
        // What has another shape stays beside it, byte for byte.
        let beside = object.and_then(|mut object| {
            object.set("error", &error).ok()?;
            if self.is_anthropics() && object.raw("type").is_none() {
                object.set("type", "error").ok()?;
            }
            object.to_vec().ok()
        });
        match beside {
            Some(object) => object.into(),
            None if self.is_anthropics() => {
                json!({ "type": "error", "error": error }).to_string().into()
            }
            None => json!({ "error": error }).to_string().into(),
        }
    }

    fn error(self, status: u16, words: &str) -> Value {
        let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let named = known.map(|reason| format!(" {reason}")).unwrap_or_default();
        let mut message = format!("the backend refused the request: {status}{named}");
        if !words.is_empty() {
            message = format!("{message}: {words}");
        }
        if self.is_anthropics() {
            let kind = match status {
                413 => "request_too_large",
                404 => "not_found_error",
                _ => "invalid_request_error",
            };
            json!({ "type": kind, "message": message })
        } else {
            json!({
                "message": message, "type": "invalid_request_error", "param": null,
                "code": "upstream_refused",
            })
        }
    }
}

/// Whether these words are about the account behind a deployment's key, whatever their status: OpenAI says
/// so with 400 and 429, Anthropic with 400, beside those who say it with 402.
#[must_use]
pub fn is_of_account(words: &Bytes) -> bool {
    const CODES: [&str; 6] = [
        "account_deactivated",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_quota",
    ];
    let error = Fields::parse(words).ok().and_then(|object| object.object("error").ok().flatten());
    let Some(error) = error else { return false };
    let text = |name| error.read::<String>(name).ok().flatten().unwrap_or_default();
    let is_code = ["code", "type"].into_iter().any(|name| CODES.contains(&&*text(name)));
    is_code || text("message").starts_with("Your credit balance is too low")
}

/// Whether these words are an API's own, and not those of a server that knows no such path.
#[must_use]
pub fn says_why(words: &Bytes) -> bool {
    let Ok(object) = Fields::parse(words) else { return false };
    // `{"detail":"Not Found"}` is what a framework says of a path.
    let is_set = |name| object.raw(name).is_some_and(|value| value != "null");
    ["error", "message"].into_iter().any(is_set)
}

/// Whether the SDKs print what it says: the message of its `error`, or its own where it has none.
fn prints(object: &Fields) -> bool {
    let has_message = |fields: &Fields| {
        let message = fields.read::<String>("message").ok().flatten();
        message.is_some_and(|message| !message.is_empty())
    };
    match object.raw("error") {
        Some(_) => object.object("error").ok().flatten().is_some_and(|error| has_message(&error)),
        None => has_message(object),
    }
}

/// What a JSON object of another shape says: the `detail` of `FastAPI`, a problem document's title and detail
/// (RFC 9457), an `error` that is a text; else all of it.
fn said(object: &Fields) -> String {
    let values: Map<String, Value> = object
        .to_vec()
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let texts = ["title", "error", "detail", "message", "error_description", "msg"];
    let texts: Vec<&str> = texts
        .into_iter()
        .filter_map(|name| values.get(name)?.as_str().filter(|text| !text.trim().is_empty()))
        .collect();
    if texts.is_empty() {
        plain(&Value::Object(values).to_string())
    } else {
        plain(&texts.join(": "))
    }
}

/// The text of what is no JSON object; empty where it is none.
fn text(words: &[u8]) -> String {
    let words = words.get(..MOST_READ).unwrap_or(words);
    let text = match str::from_utf8(words) {
        Ok(text) => text,
        // It may be cut in the middle of a character, and no further from its end.
        Err(error) if words.len() - error.valid_up_to() < 4 => words
            .get(..error.valid_up_to())
            .and_then(|text| str::from_utf8(text).ok())
            .unwrap_or_default(),
        Err(_) => return String::new(),
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    if let Ok(text) = serde_json::from_str::<String>(text) {
        return plain(&text);
    }
    if text.starts_with('<') { plain(&without_tags(text)) } else { plain(text) }
}

/// A page as its words: without tags, and without what only a browser reads.
fn without_tags(page: &str) -> String {
    let (mut words, mut rest) = (String::new(), page);
    while let Some((before, tag)) = rest.split_once('<') {
        words.push_str(before);
        words.push(' ');
        let skipped = [("script", "</script"), ("style", "</style"), ("!--", "-->")]
            .into_iter()
            .find(|(begin, _)| {
                tag.get(..begin.len()).is_some_and(|start| start.eq_ignore_ascii_case(begin))
            });
        let tag = match skipped {
            Some((_, end)) => {
                let lower = tag.to_ascii_lowercase();
                lower.find(end).and_then(|at| tag.get(at..)).unwrap_or_default()
            }
            None => tag,
        };
        rest = tag.split_once('>').map_or("", |(_, rest)| rest);
    }
    words.push_str(rest);
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(words, |words, (written, meant)| words.replace(written, meant))
}

/// One line of no more than so many characters.
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(endpoint: Endpoint, status: u16, words: &str) -> (Bytes, Value) {
        let body = endpoint.refusal(status, &Bytes::copy_from_slice(words.as_bytes()));
        let value = serde_json::from_slice(&body).unwrap();
        (body, value)
    }

    fn message(status: u16, words: &str) -> String {
        let (_, value) = refused(Endpoint::ChatCompletions, status, words);
        let error = &value["error"];
        assert_eq!(error["type"], "invalid_request_error");
        error["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_refusal_keeps_its_status_and_its_words() {
        assert_eq!(message(413, ""), "the backend refused the request: 413 Payload Too Large");
        let page = "<!DOCTYPE html><html><head><title>413 Request Entity Too Large</title>\
            <style>h1 { color: red }</style></head><body><h1>413</h1><hr><center>nginx &amp; Co</center>\
            <script>alert('x>y')</script></body></html>";
        assert_eq!(
            message(413, page),
            "the backend refused the request: 413 Payload Too Large: 413 Request Entity Too Large 413 nginx & Co"
        );
        let plain = message(400, "max_tokens is too\nlarge\0");
        assert_eq!(
            plain,
            "the backend refused the request: 400 Bad Request: max_tokens is too large"
        );
        assert!(message(400, "\"too long\"").ends_with(": too long"));
        assert!(message(400, &"too\nlong ".repeat(20_000)).len() < 600);
        assert!(message(400, "<Error><Code>InvalidKey</Code></Error>").ends_with(": InvalidKey"));
        let (_, error) = refused(Endpoint::Messages, 413, "<h1>too large</h1>");
        assert_eq!(
            (&error["type"], &error["error"]["type"]),
            (&"error".into(), &"request_too_large".into())
        );
    }

    #[test]
    fn what_the_sdks_print_stays_and_other_shapes_get_a_message_beside() {
        for own in [
            r#"{"error": {"message":"no", "x": 1.0}}"#,
            r#"{"object":"error","message":"the model does not exist","code":404}"#,
        ] {
            assert_eq!(refused(Endpoint::ChatCompletions, 400, own).0, own);
        }
        let (_, problem) = refused(
            Endpoint::ChatCompletions,
            422,
            r#"{"type":"about:blank","title":"Too long","detail":"at most 4096","status":422}"#,
        );
        let want =
            "the backend refused the request: 422 Unprocessable Entity: Too long: at most 4096";
        assert_eq!(problem["error"]["message"], want);
        assert_eq!((&problem["title"], &problem["status"]), (&"Too long".into(), &422.into()));
        let (_, text) = refused(Endpoint::ChatCompletions, 400, r#"{"error":"no such adapter"}"#);
        assert!(text["error"]["message"].as_str().unwrap().ends_with(": no such adapter"));
        let (_, listed) =
            refused(Endpoint::Messages, 422, r#"{"detail":[{"loc":["body","n"],"msg":"odd"}]}"#);
        assert!(listed["error"]["message"].as_str().unwrap().contains(r#""msg":"odd""#));
        assert_eq!(
            (&listed["type"], &listed["detail"][0]["msg"]),
            (&"error".into(), &"odd".into())
        );
    }

    #[test]
    fn an_account_is_known_by_its_codes_and_not_by_what_a_caller_may_write() {
        let is = |words: &str| is_of_account(&Bytes::copy_from_slice(words.as_bytes()));
        assert!(is(
            r#"{"error":{"message":"x","type":"invalid_request_error","code":"billing_hard_limit_reached"}}"#
        ));
        assert!(is(
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#
        ));
        for other in [
            "insufficient_quota",
            r#"{"error":{"message":"no tool `insufficient_quota`","type":"invalid_request_error"}}"#,
            r#"{"error":"insufficient_quota"}"#,
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_framework_s_word_for_a_path_is_no_api_s() {
        let says = |words: &str| says_why(&Bytes::copy_from_slice(words.as_bytes()));
        assert!(says(r#"{"error":{"message":"no response resp_1"}}"#));
        assert!(says(r#"{"object":"error","message":"The model `x` does not exist."}"#));
        assert!(says(r#"{"error":"model 'x' not found"}"#));
        for other in [
            "",
            "<h1>nginx</h1>",
            "404 page not found",
            r#"{"detail":"Not Found"}"#,
            r#"{"error":null}"#,
        ] {
            assert!(!says(other), "{other}");
        }
    }
}
