//! The snippets of docs/CLIENTS.md, run as they are read there, with the clients from `PyPI` and npm. Each
//! makes a call that the law allows and one that it denies: what the page says is printed must be
//! printed, and the ledger must hold as many decisions as the page says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    backend::{Backend, Seen, Step, stream},
    gateway::on_device,
    harness::{Service, Setup, Store, TempDir},
    lesson::{blocks, says},
    sdk::{message_start, named_event},
};

const PAGE: &str = include_str!("../docs/CLIENTS.md");
/// Where the page says that the service listens.
const ADDRESS: &str = "http://127.0.0.1:8080";
const DEVICE: &str = "smollm2@laptop";
const SINGAPORE: &str = "qwen3-32b@dashscope-sg";
/// The denial that every snippet meets: German data, a deployment in Singapore.
const DENIED_BY: &str = "eu-gdpr-44";

/// Makes a test for each snippet, under the name of its client, on what answers its calls.
macro_rules! snippets {
    ($($name:ident: $model:ident,)+) => {
        mod snippet {
            $(#[tokio::test]
            async fn $name() {
                super::$model(&super::Snippet::of(&super::client(stringify!($name)))).await;
            })+
        }
        const SNIPPETS: &[&str] = &[$(stringify!($name)),+];
    };
}

snippets! {
    openai_python: on_the_device,
    openai_node: on_the_device,
    anthropic_python: on_the_device,
    anthropic_node: on_the_device,
    vercel_ai_sdk: on_the_device,
    langchain_python: on_the_device,
    langchain_node: on_the_device,
    llamaindex: on_the_device,
    litellm: on_the_device,
    instructor: on_the_device,
    pydantic_ai: on_the_device,
    openai_agents: on_the_device,
    helpdesk: on_the_device,
    codex: on_a_played_model,
    claude_code: on_a_played_model,
}

/// The name of a client on the page, and of its app.
fn client(test: &str) -> String {
    test.replace('_', "-")
}

/// What the page says of one client: files, a program, and what it prints.
#[derive(Debug, Default)]
struct Snippet {
    name: String,
    /// Path and text.
    files: Vec<(String, String)>,
    /// The file that is run, and the packages that it needs: those of `tests/sdk/run`.
    program: String,
    packages: String,
    printed: String,
    /// How many decisions of each kind the ledger then holds.
    allowed: usize,
    denied: usize,
}

/// The words behind a block's language: `client=codex denied=6`.
fn options(info: &str) -> BTreeMap<&str, &str> {
    info.split(' ').filter_map(|word| word.split_once('=')).collect()
}

impl Snippet {
    /// The blocks marked `client=NAME`: with `file=PATH` a file that lies beside the program, else the
    /// program itself, which the block behind it says the output of.
    fn of(name: &str) -> Self {
        let mut snippet = Self { name: name.to_owned(), ..Self::default() };
        let mut follows = false;
        for (info, text) in blocks(PAGE) {
            let options = options(info);
            if std::mem::take(&mut follows) {
                assert_eq!(info, "text", "`{name}`: what is printed follows its program");
                snippet.printed = text;
            } else if options.get("client") == Some(&name) {
                let language = info.split(' ').next().unwrap_or_default();
                if let Some(path) = options.get("file") {
                    snippet.files.push(((*path).to_owned(), text));
                    continue;
                }
                let (ending, packages) = match language {
                    "python" => ("py", "openai-3"),
                    "js" => ("mjs", "node"),
                    "sh" => ("sh", "openai-3"),
                    language => panic!("`{name}`: nothing runs `{language}`"),
                };
                assert!(snippet.program.is_empty(), "`{name}` has two programs");
                // Not by its own name: `import litellm` would find itself.
                snippet.program = format!("call.{ending}");
                snippet.files.push((snippet.program.clone(), text));
                snippet.packages = (*options.get("packages").unwrap_or(&packages)).to_owned();
                let count = |key| options.get(key).map_or(1, |count| count.parse().unwrap());
                (snippet.allowed, snippet.denied) = (count("allowed"), count("denied"));
                follows = true;
            }
        }
        assert!(!snippet.printed.is_empty(), "the page does not say what `{name}` prints");
        snippet
    }

    /// Runs the program as the app of its name, and holds it against the page and the ledger.
    async fn run_on(&self, service: &Service) {
        let dir = TempDir::new();
        for (path, text) in &self.files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Configuration files cannot read the environment, as the programs do not.
            fs::write(path, text.replace(ADDRESS, service.url())).unwrap();
        }
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run"));
        command
            .arg(dir.path().join(&self.program))
            .arg(&self.packages)
            .env("LEXGATE_KEY", service.site.key(&self.name));
        let ran = tokio::task::spawn_blocking(move || command.output());
        let ran = ran.await.unwrap().expect("tests/sdk/run starts");
        let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(ran.status.success(), "{out}\n{err}\n{}", service.stderr());
        if let Err(part) = says(&out, &self.printed) {
            panic!("what is printed:\n{out}\n{err}\nthe page shows `{part}`");
        }
        self.is_in_the_ledger(service).await;
    }

    async fn is_in_the_ledger(&self, service: &Service) {
        let found = service.records_matching(&format!("kind=decision&app={}", self.name)).await;
        let bodies = found.iter().map(|record| &record["entry"]["body"]);
        let (allowed, denied): (Vec<_>, Vec<_>) =
            bodies.partition(|body| body["decision"] == "allow");
        assert_eq!((allowed.len(), denied.len()), (self.allowed, self.denied), "{denied:#?}");
        // Without its claims a call would be denied too, but as undeclared.
        let by = |body: &&Value| body["reasons"][0]["policy"] == DENIED_BY;
        assert!(denied.iter().all(by), "{denied:#?}");
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let query = format!("kind=outcome&app={}", self.name);
            let outcomes = service.records_matching(&query).await;
            let ok = outcomes.iter().filter(|record| record["entry"]["body"]["status"] == "ok");
            if ok.count() == self.allowed {
                return;
            }
            assert!(Instant::now() < patience, "{outcomes:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The example with an app for each snippet, and those that the page writes itself.
fn with_apps() -> Setup {
    let own = blocks(PAGE).into_iter().filter(|(info, _)| *info == "toml organisation");
    let mut apps: String = own.map(|(_, text)| text).collect();
    let names: Vec<String> = SNIPPETS.iter().map(|test| client(test)).collect();
    for name in &names {
        if !apps.contains(&format!("id = \"{name}\"")) {
            let app = format!("[[apps]]\nid = \"{name}\"\ntenant = \"acme\"\nlocation = \"DE\"\n");
            apps.push_str(&app);
        }
    }
    let mut setup = Service::setup(Store::Sqlite).organisation(&apps);
    let passes = blocks(PAGE).into_iter().find(|(info, _)| *info == "toml deployment");
    let (_, passes) = passes.expect("the page writes the passes of a deployment");
    for deployment in [DEVICE, SINGAPORE] {
        let row = format!("[[deployments]]\nid = \"{deployment}\"\n");
        setup = setup.organisation_with(&row, &format!("{row}{passes}"));
    }
    names.iter().fold(setup, |setup, name| setup.caller(name))
}

/// The real model; the snippets share its service.
async fn on_the_device(snippet: &Snippet) {
    static SERVICE: OnceCell<Service> = OnceCell::const_new();
    let start = || with_apps().backend(DEVICE, &on_device()).start();
    snippet.run_on(SERVICE.get_or_init(start).await).await;
}

/// A coding agent sends more instructions than the model on the device can hold: its model is played.
async fn on_a_played_model(snippet: &Snippet) {
    let backend = Backend::start(hello).await;
    let service = with_apps().backend(DEVICE, &backend.url).start().await;
    snippet.run_on(&service).await;
}

/// Says hello in the way of the API that was asked.
fn hello(seen: &Seen) -> Vec<Step> {
    let path = seen.head.split(' ').nth(1).unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/v1/responses" => stream(&response()),
        "/v1/messages" => stream(&message()),
        path => panic!("a coding agent calls `{path}`"),
    }
}

fn response() -> Vec<String> {
    let whole = json!({ "id": "r", "object": "response", "created_at": 1, "model": "served-model",
        "status": "in_progress", "output": [] });
    let item = json!({ "type": "message", "id": "m", "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": "Hello!", "annotations": [] }] });
    let mut done = whole.clone();
    done["status"] = json!("completed");
    done["output"] = json!([item]);
    done["usage"] = json!({ "input_tokens": 11, "output_tokens": 2, "total_tokens": 13,
        "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens_details": { "reasoning_tokens": 0 } });
    let events = [
        json!({ "type": "response.created", "sequence_number": 0, "response": whole }),
        json!({ "type": "response.output_item.done", "sequence_number": 1, "output_index": 0,
                "item": item }),
        json!({ "type": "response.completed", "sequence_number": 2, "response": done }),
    ];
    events.iter().map(named_event).collect()
}

fn message() -> Vec<String> {
    let mut events = message_start(&json!({ "type": "text", "text": "" }));
    let rest = [
        json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": "Hello!" } }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "usage": { "output_tokens": 2 },
                "delta": { "stop_reason": "end_turn", "stop_sequence": null } }),
        json!({ "type": "message_stop" }),
    ];
    events.extend(rest.iter().map(named_event));
    events
}

/// The headings of the page's clients, with what stands below each.
fn sections() -> Vec<(&'static str, &'static str)> {
    let (_, clients) = PAGE.split_once("\n## The clients\n").expect("the page lists clients");
    let sections = clients.split("\n### ").skip(1);
    sections.map(|section| section.split_once('\n').expect("a heading ends")).collect()
}

#[test]
fn every_client_of_the_page_is_run_or_said_not_to_be() {
    let run: BTreeSet<String> = SNIPPETS.iter().map(|test| client(test)).collect();
    let shown = |text| -> BTreeSet<String> {
        let blocks = blocks(text);
        let names = blocks.iter().filter_map(|(info, _)| options(info).remove("client"));
        names.map(str::to_owned).collect()
    };
    assert_eq!(shown(PAGE), run, "the page's snippets, and those that are run");
    assert!(sections().len() > 12, "{:?}", sections());
    for (client, text) in sections() {
        let is_run = !shown(text).is_empty();
        let says_not = text.contains("Not run by the suite");
        assert!(is_run != says_not, "`{client}`: run {is_run}, said not to be {says_not}");
    }
}
