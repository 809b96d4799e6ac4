//! What a call sends beside text, held against what the catalogue says of the models that could take it.

use std::collections::BTreeSet;

use memchr::memmem;

use super::failure::Failure;
use crate::{
    dispatch::{Endpoint, Fields},
    domain::{
        Action, CallRequest,
        json::{each_item, members},
    },
    facts::{Deployment, Organisation},
};

/// The types of content parts, and what each of them is beside text.
const PARTS: [(&str, &str); 6] = [
    ("image", "image"),
    ("image_url", "image"),
    ("input_image", "image"),
    ("input_audio", "audio"),
    ("audio", "audio"),
    ("video_url", "video"),
];
/// How deep parts lie: message, content, the content of a tool's result, and its parts.
const DEPTH: usize = 8;

/// What the models behind a call must take, where not all of them do: none of the others is considered.
///
/// # Errors
/// When none of them takes it: nothing is decided or sent then.
pub(super) fn needed(
    organisation: &Organisation,
    endpoint: Endpoint,
    body: &Fields,
    request: &CallRequest,
) -> Result<Vec<String>, Failure> {
    let name = request.deployment.as_deref().or(request.model.as_deref()).unwrap_or_default();
    let candidates = organisation.deployments_of(name);
    let takes = |deployment: &&Deployment, what: &str| {
        organisation.models.get(&deployment.model).is_none_or(|model| model.takes(what))
    };
    let says_nothing = |deployment: &&Deployment| {
        let model = organisation.models.get(&deployment.model);
        model.is_none_or(|model| model.modalities.is_empty())
    };
    if candidates.iter().all(says_nothing) {
        return Ok(Vec::new());
    }
    let mut wanted = BTreeSet::new();
    if request.action == Action::Infer {
        wanted.insert("text");
        look_for_parts(endpoint, body, &mut wanted);
    }
    wanted.retain(|what| !candidates.iter().all(|one| takes(one, what)));
    let has_one = candidates.iter().any(|one| wanted.iter().all(|what| takes(one, what)));
    if wanted.is_empty() || has_one {
        return Ok(wanted.into_iter().map(str::to_owned).collect());
    }
    let shown: String = name.chars().take(128).collect();
    let what = wanted.iter().find(|what| !candidates.iter().any(|one| takes(one, what)));
    let (param, message) = match what {
        Some(&"text") => (
            "model",
            format!(
                "the model `{shown}` writes embeddings and does not answer: send it to `POST /v1/embeddings`, or name another model"
            ),
        ),
        Some(what) => (
            field(endpoint),
            format!(
                "the model `{shown}` does not take {what} content: its `modalities` in the organisation file are other ones; leave it out, or name a model that takes it"
            ),
        ),
        None => (
            field(endpoint),
            format!("no one deployment of `{shown}` takes all that the call sends"),
        ),
    };
    Err(Failure::field(param, "modality_not_taken", message))
}

/// The field that holds what a call sends.
fn field(endpoint: Endpoint) -> &'static str {
    if endpoint == Endpoint::Responses { "input" } else { "messages" }
}

fn look_for_parts(endpoint: Endpoint, body: &Fields, found: &mut BTreeSet<&'static str>) {
    let field = body.members().find(|(name, _)| *name == field(endpoint));
    let Some((_, value)) = field else { return };
    // Most bodies are long and of text alone: that is seen without taking them apart.
    let may_hold =
        |(_, what): &(&str, &str)| memmem::find(value.as_bytes(), what.as_bytes()).is_some();
    if PARTS.iter().any(may_hold) {
        look(value, DEPTH, found);
    }
}

/// Looks at each object's `type`, and into its `content`. What is not of that form holds no part.
fn look(value: &str, depth: usize, found: &mut BTreeSet<&'static str>) {
    let text = value.trim_start();
    if depth == 0 {
        return;
    }
    if text.starts_with('[') {
        let _ = each_item(text, |item| {
            look(item, depth - 1, found);
            Ok::<_, serde_json::Error>(())
        });
    } else if text.starts_with('{') {
        for (name, value) in members(text).unwrap_or_default() {
            if name == "type" {
                let kind = value.trim().trim_matches('"');
                found.extend(PARTS.iter().filter(|(part, _)| *part == kind).map(|(_, what)| *what));
            } else if name == "content" || name == "output" {
                look(value, depth - 1, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(endpoint: Endpoint, body: &str) -> Vec<&'static str> {
        let mut found = BTreeSet::new();
        let fields = Fields::parse(&body.to_owned().into()).unwrap();
        look_for_parts(endpoint, &fields, &mut found);
        found.into_iter().collect()
    }

    #[test]
    fn parts_are_found_where_each_api_has_them() {
        let chat = |content: &str| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
            parts(Endpoint::ChatCompletions, &body)
        };
        assert_eq!(chat(r#""an image_url in words""#), Vec::<&str>::new());
        assert_eq!(
            chat(r#"[{"type":"text","text":"{\"type\":\"image_url\"}"}]"#),
            Vec::<&str>::new()
        );
        let image =
            r#"[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"data:"}}]"#;
        assert_eq!(chat(image), ["image"]);
        assert_eq!(chat(r#"[{"type":"input_audio","input_audio":{"data":""}}]"#), ["audio"]);
        let input = r#"{"input":[{"role":"user","content":[{"type":"input_image"}]},{"type":"function_call_output","output":[{"type":"input_image"}]}]}"#;
        assert_eq!(parts(Endpoint::Responses, input), ["image"]);
        let tool = r#"{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{}}]}]}]}"#;
        assert_eq!(parts(Endpoint::Messages, tool), ["image"]);
        assert_eq!(parts(Endpoint::Completions, r#"{"prompt":"x"}"#), Vec::<&str>::new());
    }
}
