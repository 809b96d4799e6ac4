//! The OpenAPI document in strangers' hands: checkers find nothing, generated clients call, and what the
//! page offers to try is answered, also where the organisation is not the example.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    backend::Backend,
    harness::{Answer, Service, Store, both_stores, with_json},
};

/// An organisation that shares no name with the example, and says and wants claims.
const KONTOR: &str = r#"
[[tenants]]
id = "kontor"
domicile = "AT"
commercial = true
monthly_active_users = 10
monthly_revenue_usd = 1_000
annual_revenue_usd = 10_000
side_licences = []

[[apps]]
id = "front-desk"
tenant = "kontor"
location = "AT"
hosted_for_end_users = false
[apps.claims]
required = ["purpose", "audience"]

[[operators]]
id = "kontor-it"
seat = "AT"
owners = ["AT"]
certifications = []

[[operators]]
id = "overseas"
seat = "US"
owners = ["US"]
certifications = []

[[models]]
id = "plauder"
license = "Apache-2.0"
provider = "Kontor"
modalities = ["text"]

[[deployments]]
id = "plauder@overseas"
model = "plauder"
operator = "overseas"
tier = "remote"
approved = false
process = ["US"]
store = ["US"]
access = []
retention_hours = 24
safeguards = ["no-training"]

[[deployments]]
id = "plauder@cellar"
model = "plauder"
operator = "kontor-it"
tier = "on_device"
approved = true
process = ["@location"]
store = ["@location"]
access = []
retention_hours = 0
safeguards = ["no-training", "zero-retention", "no-human-review"]
[deployments.backend]
base_url = "http://127.0.0.1:9/v1"
model = "served-model"
"#;

/// What an example cannot bring about by itself: a decision, one that waits for its outcome, a value, a
/// content.
const NOT_THERE: [&str; 4] = ["reportOutcome", "readValues", "readContent", "readDecision"];

async fn kontor(store: Store, backend: &Backend) -> Service {
    let setup = Service::setup(store).file("config/organisation.toml", KONTOR);
    let setup = setup.backend("plauder@cellar", &backend.url);
    let setup =
        setup.replace("config/lexgate.toml", "app = \"support-copilot\"", "app = \"front-desk\"");
    let reader = ["--role", "auditor", "--personal-values"];
    setup.key("reader", &reader).start().await
}

/// Runs `tests/clients/run` to its good end.
async fn run(service: &Service, arguments: &[&str]) {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run"));
    command
        .args(arguments)
        .env("LEXGATE_URL", service.url())
        .env("LEXGATE_KEY", service.site.key("caller"))
        .env("LEXGATE_AUDITOR_KEY", service.site.key("auditor"));
    let ran = tokio::task::spawn_blocking(move || command.output());
    let ran = ran.await.unwrap().expect("tests/clients/run starts");
    let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(ran.status.success(), "{out}\n{err}\n{}", service.stderr());
}

async fn example_with(backend: &Backend) -> Service {
    Service::setup(Store::Sqlite).backend("smollm2@laptop", &backend.url).start().await
}

#[tokio::test]
async fn a_client_that_openapi_python_client_generates_makes_its_calls() {
    let backend = Backend::polite().await;
    run(&example_with(&backend).await, &["python"]).await;
}

#[tokio::test]
async fn a_client_that_openapi_typescript_generates_makes_its_calls() {
    let backend = Backend::polite().await;
    run(&example_with(&backend).await, &["typescript"]).await;
}

/// A request as the page sends it when nobody changes anything.
struct Tried {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every request that the examples of an operation make.
fn tried(method: &str, path: &str, operation: &Value) -> Vec<Tried> {
    let mut path = path.to_owned();
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let Some(example) = parameter.get("example") else {
            assert_ne!(parameter["required"], true, "{method} {path}: {parameter}");
            continue;
        };
        let (name, example) = (parameter["name"].as_str().unwrap(), text(example));
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), &example),
            "query" => query.push(format!("{name}={}", example.replace(' ', "%20"))),
            _ => headers.push((name.to_owned(), example)),
        }
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let content = &operation["requestBody"]["content"]["application/json"];
    let several = content["examples"].as_object().into_iter().flat_map(|all| all.values());
    let mut bodies: Vec<Option<Value>> = several.map(|one| Some(one["value"].clone())).collect();
    bodies.extend(content.get("example").cloned().map(Some));
    if bodies.is_empty() {
        bodies.push(None);
    }
    let request = |body| {
        let (method, path, headers) = (method.to_uppercase(), path.clone(), headers.clone());
        Tried { method, path, headers, body }
    };
    bodies.into_iter().map(request).collect()
}

/// The name of the key that an operation needs.
fn key(operation: &Value) -> &'static str {
    match operation["tags"][0].as_str().unwrap() {
        "decisions" | "gateway" => "caller",
        "registers" => "officer",
        _ => "reader",
    }
}

both_stores! {
    async fn what_the_page_offers_to_try_is_answered_for_any_organisation(store: Store) {
        let backend = Backend::polite().await;
        let service = kontor(store, &backend).await;
        let document = Answer::of(service.anonymous("GET", "/openapi.json")).await.expect(200);
        let written = document.to_string();
        for foreign in ["smollm2", "dashscope", "acme", "alibaba", "support-copilot", "frankfurt"] {
            assert!(!written.contains(foreign), "`{foreign}` is a name of the example's");
        }
        let mut asked = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                let want = if NOT_THERE.contains(&id) { 404 } else { 200 };
                for Tried { method, path, headers, body } in tried(method, path, operation) {
                    let mut request = service.request(&method, &path, key(operation));
                    for (name, value) in headers {
                        request = request.header(name, value);
                    }
                    if let Some(body) = body {
                        request = with_json(request, &body);
                    }
                    let answer = Answer::of(request).await;
                    assert_eq!(answer.status, want, "{id} {path}: {}", answer.text());
                    asked += 1;
                }
                offers(&service, path, operation).await;
            }
        }
        assert!(asked > 25, "the document has lost operations");
    }
}

/// What is offered for each optional parameter of a reading can be sent.
async fn offers(service: &Service, path: &str, operation: &Value) {
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let offered = parameter["schema"]["examples"][0].clone();
        if parameter["in"] != "query" || path.contains('{') || offered.is_null() {
            continue;
        }
        let (name, offered) = (parameter["name"].as_str().unwrap(), text(&offered));
        let path = format!("{path}?{name}={offered}");
        let answer = Answer::of(service.request("GET", &path, key(operation))).await;
        assert!(![400, 422].contains(&answer.status), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn checkers_find_nothing_in_what_is_served() {
    let backend = Backend::polite().await;
    let service = kontor(Store::Sqlite, &backend).await;
    let served = Answer::of(service.anonymous("GET", "/openapi.json")).await;
    service.site.write("served.json", &served.text());
    let path = service.site.path("served.json");
    run(&service, &["check", path.to_str().unwrap()]).await;
}
