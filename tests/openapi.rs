//! The OpenAPI document: it is the one in the repository, it is complete, and what it says of
//! credentials is so.

use serde_json::{Value, json};

use crate::harness::{Answer, Ran, Service, Store, both_stores, with_json};

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    detail: Value,
}

impl Operation {
    fn is_open(&self) -> bool {
        let security = self.detail["security"].as_array();
        security.expect("it says who needs a key, if nobody does").is_empty()
    }

    /// The path with each parameter's example in its place.
    fn concrete_path(&self) -> String {
        let mut path = self.path.clone();
        for parameter in self.detail["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] == "path" {
                let name = parameter["name"].as_str().expect("a parameter has a name");
                let example = &parameter["example"];
                let example = example.as_str().map_or(example.to_string(), str::to_owned);
                path = path.replace(&format!("{{{name}}}"), &example);
            }
        }
        assert!(!path.contains('{'), "{path}: a path parameter has no example");
        path
    }
}

fn document() -> Value {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    Ran::in_dir(here, &["openapi"]).json()
}

fn operations() -> Vec<Operation> {
    let document = document();
    let paths = document["paths"].as_object().expect("it has paths");
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("a path has methods").iter().map(|(method, detail)| Operation {
            method: method.to_uppercase(),
            path: path.clone(),
            detail: detail.clone(),
        })
    });
    operations.collect()
}

#[test]
fn the_document_in_the_repository_is_the_program_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let kept: Value = serde_json::from_str(&kept).unwrap_or_default();
    assert!(kept == document(), "write it anew: `lexgate openapi > openapi/openapi.json`");
}

#[test]
fn only_what_is_for_everybody_needs_no_key() {
    let open: Vec<String> = operations()
        .into_iter()
        .filter(Operation::is_open)
        .map(|operation| operation.path)
        .collect();
    // A checkpoint and hashes say how much there is, and nothing of what.
    let public =
        ["/healthz", "/metrics", "/readyz", "/tlog/checkpoint", "/tlog/tile/{level}/{number}"];
    assert_eq!(open, public);
}

#[test]
fn every_answer_and_every_problem_has_an_example() {
    for Operation { method, path, detail } in operations() {
        let at = format!("{method} {path}");
        assert!(detail["operationId"].is_string(), "{at}");
        assert!(detail["summary"].is_string(), "{at}");
        let responses = detail["responses"].as_object().expect("it has responses");
        assert!(responses.contains_key("200"), "{at}");
        for (status, response) in responses {
            assert!(!status.contains('X'), "{at}: {status} says nothing");
            let media = response["content"].as_object().unwrap_or_else(|| panic!("{at} {status}"));
            for (kind, content) in media {
                let several = content["examples"].as_object().is_some_and(|some| !some.is_empty());
                assert!(several || !content["example"].is_null(), "{at} {status} {kind}");
            }
        }
        if let Some(body) = detail.get("requestBody") {
            let content = &body["content"]["application/json"];
            assert!(!content["example"].is_null() || content["examples"].is_object(), "{at}");
        }
    }
}

/// Every part of the document, examples and all.
fn parts<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    found.push(value);
    match value {
        Value::Object(object) => object.values().for_each(|value| parts(value, found)),
        Value::Array(items) => items.iter().for_each(|value| parts(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    parts(&document, &mut found);
    let references: Vec<&str> =
        found.into_iter().filter_map(|part| part.get("$ref")?.as_str()).collect();
    assert!(references.len() > 100, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference into the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn parameters_say_what_they_take() {
    for Operation { method, path, detail } in operations() {
        for parameter in detail["parameters"].as_array().into_iter().flatten() {
            let at = format!("{method} {path} {parameter}");
            let schema = parameter["schema"].as_object().expect("a parameter has a schema");
            let kind = schema["type"].as_str();
            let kind = kind.unwrap_or_else(|| panic!("{at}: one type, and not `null`"));
            let bounds: &[&str] = match kind {
                "string" => &["pattern", "format", "enum", "maxLength", "minLength"],
                "integer" => &["maximum"],
                "boolean" => continue,
                kind => panic!("{at}: {kind}"),
            };
            assert!(bounds.iter().any(|bound| schema.contains_key(*bound)), "{at}");
        }
    }
}

#[test]
fn what_an_answer_leaves_out_is_never_null() {
    let document = document();
    let problem = &document["components"]["schemas"]["FieldFault"];
    assert_eq!(problem["properties"]["parameter"]["type"], "string");
    let decision = &document["components"]["schemas"]["DecisionAnswer"];
    let required = decision["required"].as_array().unwrap();
    assert!(required.contains(&json!("route")) && !required.contains(&json!("reached")));
    // One of a decision's values is no outcome's.
    let outcome = &document["components"]["schemas"]["OutcomeValues"]["required"];
    assert_eq!(outcome, &json!(["seq", "input", "output"]));
    let variants = document["components"]["schemas"]["Change"]["discriminator"]["mapping"].clone();
    assert_eq!(variants["side_licence"], "#/components/schemas/SideLicenceChange");
}

#[test]
fn every_operation_documents_what_its_credentials_can_bring() {
    for operation in operations().iter().filter(|operation| !operation.is_open()) {
        for status in ["401", "403"] {
            let documented = operation.detail["responses"].get(status).is_some();
            assert!(documented, "{} {} {status}", operation.method, operation.path);
        }
    }
}

both_stores! {
    async fn no_operation_answers_without_the_right_key(store: Store) {
        let service = Service::shared(store).await;
        let operations = operations();
        assert!(operations.len() >= 11, "the document has lost operations");
        for operation in operations {
            let (method, path) = (operation.method.as_str(), operation.concrete_path());
            let at = format!("{method} {path}");
            let ask = async |request: reqwest::RequestBuilder| {
                let has_body = operation.detail.get("requestBody").is_some();
                let request = if has_body { with_json(request, &json!({})) } else { request };
                Answer::of(request).await
            };
            if operation.is_open() {
                let answer = ask(service.anonymous(method, &path)).await;
                assert_eq!(answer.status, 200, "{at}: {}", answer.text());
                continue;
            }
            assert_eq!(ask(service.anonymous(method, &path)).await.status, 401, "{at}");
            let unknown = service.anonymous(method, &path).bearer_auth("lexgate_officer_guessed");
            assert_eq!(ask(unknown).await.status, 401, "{at}");
            let mut admitted = Vec::new();
            for role in ["caller", "auditor", "officer"] {
                let status = ask(service.request(method, &path, role)).await.status;
                assert_ne!(status, 401, "{at} as {role}");
                if status != 403 {
                    admitted.push(role);
                }
            }
            let expected = match operation.detail["tags"][0].as_str() {
                Some("decisions" | "gateway") => "caller",
                // Only with `personal_values`, which `init` gives to no key.
                _ if operation.detail["operationId"] == "readValues" => "",
                Some("audit" | "tlog") => "auditor",
                Some("registers") => "officer",
                tag => panic!("{at}: say here which role the tag {tag:?} stands for"),
            };
            assert_eq!(admitted.concat(), expected, "{at}");
        }
    }

    async fn the_service_shows_its_document(store: Store) {
        let service = Service::shared(store).await;
        let served = Answer::of(service.anonymous("GET", "/openapi.json")).await;
        assert_eq!(served.expect(200), document());
        let page = Answer::of(service.anonymous("GET", "/docs/")).await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        let html = page.text();
        let links = html.split(['"', '\'']).filter(|text| {
            [".js", ".css", ".png"].iter().any(|end| text.ends_with(end))
        });
        let links: Vec<&str> = links.collect();
        assert!(links.len() >= 4, "{html}");
        for link in links {
            // Nothing comes from elsewhere: the machine may have no way out.
            assert!(!link.contains("//"), "{link}");
            let path = format!("/docs/{}", link.trim_start_matches("./"));
            let asset = Answer::of(service.anonymous("GET", &path)).await;
            assert_eq!(asset.status, 200, "{path}");
            assert!(!asset.body.is_empty(), "{path}");
        }
        let bare = Answer::of(service.anonymous("GET", "/docs")).await;
        assert_eq!(bare.status, 200, "`/docs` leads to the page");
    }
}
