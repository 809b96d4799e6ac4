//! What is handed on as it is: the bodies of calls to models, typed as far as the gateway reads them, and
//! the ledger's entries, typed as far as all kinds agree. Both are open beyond.

use serde_json::{Map, Value, json};

use super::refine::operations;

/// An operation of the gateway: its name, its request, its answer, and one event of its answer as a stream.
type Bodies = (&'static str, &'static str, &'static str, Option<&'static str>);

static BODIES: [Bodies; 5] = [
    (
        "createChatCompletion",
        "ChatRequest",
        "ChatAnswer",
        Some(
            r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"smollm2-135m","choices":[{"index":0,"delta":{"content":"Good"}}]}"#,
        ),
    ),
    (
        "createCompletion",
        "CompletionRequest",
        "CompletionAnswer",
        Some(
            r#"data: {"id":"cmpl-1","object":"text_completion","model":"smollm2-135m","choices":[{"index":0,"text":" morning"}]}"#,
        ),
    ),
    ("createEmbedding", "EmbeddingRequest", "EmbeddingAnswer", None),
    (
        "createResponse",
        "ResponseRequest",
        "ResponseAnswer",
        Some(
            r#"data: {"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"Good"}"#,
        ),
    ),
    (
        "createMessage",
        "MessageRequest",
        "MessageAnswer",
        Some(
            r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Good"}}"#,
        ),
    ),
];

/// Says what the gateway's bodies hold.
pub(super) fn describe(document: &mut Value) {
    operations(document, |operation| {
        let id = operation.get("operationId").and_then(Value::as_str);
        let Some((_, request, answer, event)) = BODIES.iter().find(|row| id == Some(row.0)) else {
            return;
        };
        let asked = operation.get_mut("requestBody").and_then(|body| body.get_mut("content"));
        set_schema(asked, request);
        let answered = operation.get_mut("responses").and_then(|all| all.get_mut("200"));
        let answered = answered.and_then(|response| response.get_mut("content"));
        if let Some(content) = set_schema(answered, answer)
            && let Some(event) = event
        {
            let stream = json!({ "schema": { "type": "string" }, "example": event });
            content.insert("text/event-stream".to_owned(), stream);
        }
    });
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    let (Some(schemas), Value::Object(ours)) = (schemas, schemas_of_bodies()) else { return };
    schemas.extend(ours);
    for record in ["Record", "ProvenRecord"] {
        let schema = schemas.get_mut(record);
        let place = schema.and_then(|schema| schema.pointer_mut("/properties/entry"));
        if let Some(Value::Object(entry)) = place {
            entry.remove("type");
            entry.insert("$ref".to_owned(), json!("#/components/schemas/Entry"));
        }
    }
}

/// Sets the schema of JSON among the media types of `content`, which it gives back.
fn set_schema<'c>(
    content: Option<&'c mut Value>,
    name: &str,
) -> Option<&'c mut Map<String, Value>> {
    let content = content?.as_object_mut()?;
    let json = content.get_mut("application/json")?.as_object_mut()?;
    json.insert("schema".to_owned(), reference(name));
    Some(content)
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object with these properties, of which `required` must be there, and with any others.
fn open(description: &str, required: &[&str], properties: Value) -> Value {
    let mut schema =
        json!({ "type": "object", "description": description, "additionalProperties": true });
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("properties".to_owned(), properties);
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
    }
    schema
}

fn list(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name) })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

/// A request to a model: what the gateway reads of each, and `more` of its own API.
fn request(description: &str, required: &[&str], more: Value) -> Value {
    let mut properties = json!({
        "model": text("A virtual model, a model or a deployment of the organisation."),
        "stream": { "type": ["boolean", "null"], "description": "Whether the answer comes in events." },
        "metadata": reference("CallMetadata"),
    });
    if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
        properties.extend(more);
    }
    open(description, required, properties)
}

fn schemas_of_bodies() -> Value {
    let content = || {
        json!({ "oneOf": [{ "type": "string" }, list("ContentPart"), { "type": "null" }],
            "description": "A text, or parts." })
    };
    let text_or_texts =
        || json!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": {} }] });
    let whole = |name: &str| json!({ "type": "integer", "description": name });
    json!({
        "CallMetadata": metadata(),
        "ContentPart": open("A part of a message: a text, a picture and the like.", &["type"], json!({ "type": text("The type of the part, such as `text`.") })),
        "StreamOptions": open("Options of a stream.", &[], json!({
            "include_usage": { "type": ["boolean", "null"], "description": "Whether it ends with how many tokens were used." },
        })),
        "ChatMessage": open("A message of a conversation.", &["role"], json!({
            "role": text("Who speaks: `system`, `user`, `assistant`, `tool`, …"), "content": content(),
        })),
        "ChatRequest": request("A request to OpenAI's chat completions.", &["model", "messages"], json!({
            "messages": list("ChatMessage"), "stream_options": nullable("StreamOptions"),
        })),
        "ChatAnswer": open("An answer of OpenAI's chat completions.", &[], json!({
            "model": text("The model that answered."), "choices": list("ChatChoice"), "usage": nullable("TokenUsage"),
        })),
        "ChatChoice": open("One of the answers.", &[], json!({
            "index": whole("The position of this answer, from 0."), "message": reference("ChatMessage"),
            "finish_reason": { "type": ["string", "null"], "description": "Why it ends." },
        })),
        "CompletionRequest": request("A request to OpenAI's completions.", &["model", "prompt"], json!({
            "prompt": text_or_texts(), "stream_options": nullable("StreamOptions"),
        })),
        "CompletionAnswer": open("An answer of OpenAI's completions.", &[], json!({
            "model": text("The model that answered."), "choices": list("CompletionChoice"), "usage": nullable("TokenUsage"),
        })),
        "CompletionChoice": open("One of the answers.", &[], json!({
            "index": whole("The position of this answer, from 0."), "text": text("The text."),
            "finish_reason": { "type": ["string", "null"], "description": "Why it ends." },
        })),
        "EmbeddingRequest": request("A request to OpenAI's embeddings.", &["model", "input"], json!({ "input": text_or_texts() })),
        "EmbeddingAnswer": open("An answer of OpenAI's embeddings.", &[], json!({
            "model": text("The model that answered."), "data": list("EmbeddingRow"), "usage": nullable("TokenUsage"),
        })),
        "EmbeddingRow": open("The vector of one text.", &[], json!({
            "index": whole("The position of the text in the input, from 0."),
            "embedding": { "oneOf": [{ "type": "array", "items": { "type": "number" } }, { "type": "string" }],
                "description": "Numbers, or their bytes in base64 where these were asked for." },
        })),
        "ResponseRequest": request("A request to OpenAI's responses.", &["model"], json!({
            "input": text_or_texts(),
            "store": { "type": ["boolean", "null"], "description": "Whether the backend keeps the response." },
            "background": { "type": ["boolean", "null"], "description": "`true` is refused: the outcome could not be recorded." },
        })),
        "ResponseAnswer": open("A response.", &[], json!({
            "id": text("Its identifier at the backend."), "model": text("The model that answered."),
            "status": text("`completed`, or what became of it."),
            "output": { "type": "array", "items": { "type": "object", "additionalProperties": true } },
            "usage": nullable("TokenUsage"),
        })),
        "MessageRequest": request("A request to Anthropic's messages.", &["model", "messages"], json!({ "messages": list("ChatMessage") })),
        "MessageAnswer": open("A message of Anthropic's.", &[], json!({
            "id": text("Its identifier at the backend."), "model": text("The model that answered."),
            "role": text("Always `assistant`."), "content": list("ContentPart"),
            "stop_reason": { "type": ["string", "null"], "description": "Why it ends." },
            "usage": nullable("TokenUsage"),
        })),
        "TokenUsage": open("How many tokens were read and written, in the API's own words.", &[], json!({
            "prompt_tokens": count("Read, in OpenAI's older APIs."), "completion_tokens": count("Written, in these."),
            "total_tokens": count("Both."),
            "input_tokens": count("Read, in newer ones and Anthropic's."), "output_tokens": count("Written, in these."),
        })),
        "Entry": entry(),
    })
}

fn nullable(name: &str) -> Value {
    json!({ "oneOf": [reference(name), { "type": "null" }] })
}

/// `metadata`, in which a call can say what its headers would.
fn metadata() -> Value {
    open(
        "What the caller says of the call. The claims are taken out before it is sent.",
        &[],
        json!({
            "lexgate_personal": text("`true` or `false`: whether the data relates to identifiable people."),
            "lexgate_data": text("Categories, comma-separated; empty: classified, none apply."),
            "lexgate_subjects": text("Jurisdictions of the data subjects, comma-separated."),
            "lexgate_subject_count": text("How many people the data is about."),
            "lexgate_purpose": text("The purpose."),
            "lexgate_audience": text("Jurisdictions in which the answer is used, comma-separated."),
            "lexgate_location": text("Where the call is made."),
            "lexgate_end_user": text("The end user for whom the call is made."),
        }),
    )
}

/// An entry of the ledger. What its body holds depends on its kind, and grows from version to version.
fn entry() -> Value {
    let required = ["body", "id", "kind", "log", "prev", "seq", "ts", "v"];
    open(
        "An entry of the ledger: `docs/LEDGER.md` says what the body of each kind holds.",
        &required,
        json!({
            "body": { "type": "object", "additionalProperties": true, "description": "What happened." },
            "id": { "type": "string", "format": "uuid", "description": "Its identifier; a decision's is the decision's." },
            "kind": text("What it is about: `decision`, `outcome`, …"),
            "log": text("The log's origin."),
            "prev": text("The leaf hash of the entry before it, 64 hexadecimal digits."),
            "seq": reference("Seq"),
            "ts": { "type": "string", "format": "date-time", "description": "When it was written." },
            "v": count("The version of its form."),
        }),
    )
}
