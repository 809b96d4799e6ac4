//! What an operator copies out of the documentation: every key of the configuration that a page names is one,
//! every metric too, and the files in the pages are files of their kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::harness::{Service, Store, TempDir};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lexgate");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages that an operator reads.
fn pages() -> BTreeMap<String, String> {
    let folder = fs::read_dir(root().join("docs/deploy")).expect("docs/deploy is there");
    let paths = folder.map(|entry| format!("docs/deploy/{}", entry.unwrap().file_name().display()));
    let paths =
        paths.chain(["README.md", "docs/OPERATIONS.md", "docs/THREATS.md"].map(str::to_owned));
    paths.map(|path| (path.clone(), read(&path))).collect()
}

/// The fenced blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = read(page);
    let opens = format!("```{language}\n");
    let parts = text.split(&opens).skip(1);
    let blocks: Vec<String> = parts
        .map(|part| part.split("\n```").next().unwrap_or_default().to_owned() + "\n")
        .collect();
    assert!(!blocks.is_empty(), "{page} has no {language}");
    blocks
}

/// The words in backticks of a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Each metric of the table in OPERATIONS.md, with its labels.
pub(crate) fn metrics_of_the_documentation() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/OPERATIONS.md");
    let table = text.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `lexgate_"));
    let metrics: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let mut cells = row.split(" |");
            let name = cells.next().unwrap().trim_end_matches('`');
            let labels = cells.next().unwrap();
            // What a label may say stands behind it in brackets.
            let mut depth = 0;
            let bare: String = labels
                .chars()
                .filter(|c| {
                    depth += i32::from(*c == '(') - i32::from(*c == ')');
                    depth == 0
                })
                .collect();
            (format!("lexgate_{name}"), quoted(&bare).map(str::to_owned).collect())
        })
        .collect();
    assert!(metrics.len() > 25, "{metrics:?}");
    metrics
}

/// Every word of a text that begins so, as far as names go.
fn names<'t>(text: &'t str, prefix: &str, is_of: fn(char) -> bool) -> BTreeSet<&'t str> {
    let found = text.match_indices(prefix).map(|(at, _)| {
        let rest = &text[at..];
        rest.split(|c| !is_of(c)).next().unwrap_or_default()
    });
    found.collect()
}

const fn is_small(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

const fn is_capital(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

/// What of `text` is no metric.
fn unknown_metrics(text: &str) -> Vec<String> {
    let known = metrics_of_the_documentation();
    let is_known = |name: &str| {
        let ends = ["", "_bucket", "_sum", "_count"].into_iter();
        let mut bases = ends.filter_map(|end| name.strip_suffix(end));
        bases.any(|base| known.contains_key(base))
    };
    let named = names(text, "lexgate_", is_small).into_iter();
    // Roles of a database, and names in the example.
    let others = ["lexgate_owner", "lexgate_clients"];
    let unknown =
        named.filter(|name| !is_known(name) && !others.contains(name) && *name != "lexgate_");
    unknown.map(str::to_owned).collect()
}

#[test]
fn every_metric_that_the_code_counts_or_a_page_names_is_in_the_table() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let known = metrics_of_the_documentation();
    let mut counted = BTreeSet::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("metrics::").skip(1) {
            let is_one =
                ["counter!(", "gauge!(", "histogram!("].iter().any(|one| part.starts_with(one));
            let Some(name) =
                part.split('"').nth(1).filter(|name| is_one && name.starts_with("lexgate_"))
            else {
                continue;
            };
            assert!(known.contains_key(name), "{}: `{name}` is in no table", path.display());
            counted.insert(name.to_owned());
        }
    }
    assert!(counted.len() > 25, "the search finds them: {counted:?}");
    for (path, text) in pages() {
        assert_eq!(unknown_metrics(&text), Vec::<String>::new(), "{path}");
    }
}

/// What Python's reader makes of YAML: each document as JSON.
fn yaml(text: &str) -> Vec<Value> {
    let dir = TempDir::new();
    let path = dir.path().join("text.yaml");
    fs::write(&path, text).unwrap();
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1]))), default=str))";
    let ran = Command::new("python3").args(["-c", read]).arg(&path).output().expect("python3 runs");
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "python3 with its module yaml (Debian: python3-yaml): {stderr}");
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

/// The labels that an expression asks of a metric: in braces behind its name.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let parts = expression.match_indices("lexgate_").map(|(at, _)| {
        let rest = &expression[at..];
        let name = rest.split(|c| !is_small(c)).next().unwrap_or_default();
        let braces = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix('{'));
        let inside = braces.and_then(|rest| rest.split('}').next()).unwrap_or_default();
        let labels = inside.split("\",").filter(|one| !one.trim().is_empty());
        let labels = labels.map(|one| one.trim().split(['=', '!']).next().unwrap().to_owned());
        (name.to_owned(), labels.collect())
    });
    parts.collect()
}

#[test]
fn alarms_and_dashboard_watch_what_there_is() {
    let known = metrics_of_the_documentation();
    let rules = yaml(&read("docs/deploy/alerts.yaml"));
    let rules = rules[0]["groups"][0]["rules"].as_array().expect("rules").clone();
    let dashboard: Value = serde_json::from_str(&read("docs/deploy/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let alarms = rules.iter().map(|rule| {
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("page" | "ticket")), "{rule}");
        assert!(rule["annotations"]["action"].is_string(), "{rule}");
        rule["expr"].as_str().expect("an expression").to_owned()
    });
    let asked_of = targets.map(|target| target["expr"].as_str().expect("an expression").to_owned());
    let expressions: Vec<String> = alarms.chain(asked_of).collect();
    assert!(expressions.len() > 25, "{expressions:?}");
    for expression in &expressions {
        let open = expression.matches(['(', '{', '[']).count();
        assert_eq!(open, expression.matches([')', '}', ']']).count(), "{expression}");
        for (name, labels) in asked(expression) {
            let end = ["_bucket", "_sum", "_count"].iter().find(|end| name.ends_with(**end));
            let base = end
                .and_then(|end| name.strip_suffix(*end))
                .filter(|base| known.contains_key(*base));
            let has = known
                .get(base.unwrap_or(&name))
                .unwrap_or_else(|| panic!("`{name}` in {expression}"));
            for label in labels {
                assert!(
                    has.contains(&label) || label == "job",
                    "`{label}` of `{name}`: {expression}"
                );
            }
        }
    }
    // What OPERATIONS.md calls worth an alarm has one.
    let text = read("docs/OPERATIONS.md");
    let worth = text.lines().find(|line| line.starts_with("Worth an alarm")).expect("the line");
    for name in names(worth, "lexgate_", is_small) {
        let watched = rules.iter().any(|rule| rule["expr"].as_str().unwrap().contains(name));
        assert!(watched, "nothing watches `{name}`");
    }
}

/// Each key of the configuration that a page names, as an environment variable.
fn keys_of_the_pages() -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let sections =
        ["server", "store", "ledger", "policies", "organisation", "telemetry", "backends"];
    for (path, text) in pages() {
        for name in names(&text, "LEXGATE_", is_capital) {
            if name.contains("__") && !name.contains("NAME") {
                keys.insert(name.to_owned(), path.clone());
            }
        }
        for word in quoted(&text) {
            let word = word.trim_start_matches("[[").trim_end_matches("]]");
            let Some((section, key)) = word.split_once('.') else { continue };
            let is_file = ["checkpoints", "key", "mark", "toml"].contains(&key);
            if sections.contains(&section)
                && key.chars().all(is_small)
                && !["witnesses", "address", "port"].contains(&key)
                && !is_file
            {
                let name = format!("LEXGATE_{section}__{key}").to_uppercase();
                keys.entry(name).or_insert_with(|| path.clone());
            }
        }
    }
    keys
}

#[tokio::test]
async fn every_key_that_a_page_names_is_one_of_the_configuration() {
    let site = Service::setup(Store::Sqlite).prepare().await;
    // It ends with the address of the store, once the configuration is understood.
    let unknown = |name: &str| {
        let mut command = site.command(&["migrate"]);
        command.env("LEXGATE_STORE__URL", "nowhere").env(name, "1");
        let ran = command.output().unwrap();
        assert!(!ran.status.success());
        String::from_utf8_lossy(&ran.stderr).contains("unknown")
    };
    assert!(unknown("LEXGATE_SERVER__LISTENN"), "a misspelt key is noticed here");
    let keys = keys_of_the_pages();
    assert!(keys.len() > 25, "{keys:?}");
    for (name, page) in keys {
        assert!(!unknown(&name), "{page} names `{name}`, which is no key");
    }
    // Blocks of the configuration itself.
    for page in ["docs/deploy/postgres-replication.md"] {
        for block in blocks(page, "toml") {
            let kept = site.read("config/lexgate.toml");
            let without = kept.replace("[store]\nurl = \"sqlite://data/lexgate.db\"\n", "");
            assert_ne!(kept, without);
            site.write("config/lexgate.toml", &format!("{without}\n{block}"));
            let mut command = site.command(&["migrate"]);
            let ran = command.env("LEXGATE_STORE__URL", "nowhere").output().unwrap();
            let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert!(stderr.contains("names no store"), "{page}: {stderr}");
            site.write("config/lexgate.toml", &kept);
        }
    }
}

#[test]
fn the_unit_is_one() {
    let unit = blocks("docs/deploy/systemd.md", "ini").remove(0);
    let mut section = "";
    let mut said = BTreeMap::<(&str, &str), Vec<&str>>::new();
    for line in
        unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no setting: {line}"));
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric()), "{line}");
            said.entry((section, key)).or_default().push(value);
        }
    }
    let service = |key| said.get(&("Service", key)).and_then(|all| all.first()).copied();
    // 30 s for calls, 5 s to abandon them, 5 s for clients that read, 5 s for the services, and some.
    let stop: u64 = service("TimeoutStopSec").expect("it is given time").parse().unwrap();
    assert!(stop >= 60, "{stop}");
    assert_eq!(service("RestartPreventExitStatus"), Some("1 2"));
    for key in ["NoNewPrivileges", "PrivateTmp", "MemoryDenyWriteExecute"] {
        assert_eq!(service(key), Some("yes"), "{key}");
    }
    assert_eq!(service("CapabilityBoundingSet"), Some(""));
    let dir = TempDir::new();
    let path = dir.path().join("lexgate.service");
    let here = unit.replace("/usr/local/bin/lexgate", PROGRAM);
    fs::write(&path, here.replace("User=lexgate\nGroup=lexgate\n", "")).unwrap();
    // Where systemd is installed, it says itself whether it understands every line.
    let Ok(ran) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output()
    else {
        return;
    };
    let stderr = String::from_utf8_lossy(&ran.stderr);
    let about: Vec<&str> = stderr.lines().filter(|line| line.contains("lexgate.service")).collect();
    assert!(about.is_empty(), "{about:#?}");
}

#[test]
fn the_manifests_are_of_their_kinds() {
    let mut found = BTreeMap::new();
    let blocks = blocks("docs/deploy/kubernetes.md", "yaml");
    for document in yaml(&blocks[0]) {
        let kind = document["kind"].as_str().expect("a kind").to_owned();
        assert!(document["apiVersion"].is_string() && document["metadata"]["name"].is_string());
        found.insert(kind, document);
    }
    assert!(yaml(&blocks[1])[0]["volumeClaimTemplates"].is_array());
    let deployment = &found["Deployment"]["spec"];
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace >= 60 + sleep, "{grace} s do not last for {sleep} s and Lexgate's own 60");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz", "never /readyz");
    for (kind, pointer) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Deployment", "/spec/template/metadata/labels"),
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
    ] {
        assert_eq!(found[kind].pointer(pointer).unwrap()["app"], "lexgate", "{kind}{pointer}");
    }
    // What is mounted is there, and every key file lies in a mount.
    let volumes = pod["volumes"].as_array().unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap();
    for mount in mounts {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
    let environment = container["env"].as_array().unwrap();
    let files =
        environment.iter().filter(|one| one["name"].as_str().unwrap().ends_with("_KEY_FILE"));
    for file in files {
        let path = file["value"].as_str().unwrap();
        let is_in = |mount: &Value| path.starts_with(mount["mountPath"].as_str().unwrap());
        assert!(mounts.iter().any(is_in), "{path}");
    }
    let paths = found["Ingress"]["spec"]["rules"][0]["http"]["paths"].as_array().unwrap().clone();
    let open: Vec<&str> = paths.iter().map(|path| path["path"].as_str().unwrap()).collect();
    assert_eq!(open, ["/v1", "/tlog", "/verify.html"], "what asks for no key stays inside");
}

#[test]
fn a_stream_comes_through_the_proxy_of_the_page() {
    let text = blocks("docs/deploy/nginx.md", "nginx").remove(0);
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    for line in [
        "proxy_http_version 1.1;",
        "proxy_buffering off;",
        "gzip off;",
        "client_max_body_size 33m;",
        "proxy_read_timeout 660s;",
    ] {
        assert!(text.lines().any(|found| found.trim().starts_with(line)), "{line}");
    }
    let logged = text.split("location /v1/subjects/").nth(1).unwrap().split('}').next().unwrap();
    assert!(logged.contains("access_log off;"), "the path names a person: {logged}");
    // Where nginx is installed, it reads the page itself, without the certificates that are not here.
    let dir = TempDir::new();
    let mut bare = String::new();
    for line in text.lines().filter(|line| !line.trim().starts_with("ssl_certificate")) {
        bare +=
            &line.replace(" ssl http2;", ";").replace(":443", ":18443").replace(" 443", " 18443");
        bare.push('\n');
    }
    let whole = format!(
        "pid {0}/pid; error_log {0}/log; events {{}} http {{ access_log off;\n{bare}}}\n",
        dir.path().display()
    );
    let path = dir.path().join("nginx.conf");
    fs::write(&path, whole).unwrap();
    let Ok(ran) = Command::new("nginx").arg("-t").arg("-c").arg(&path).output() else { return };
    let stderr = String::from_utf8_lossy(&ran.stderr);
    // What it says of a line of the page, and not of this machine.
    assert!(!stderr.contains("nginx.conf:"), "{stderr}");
}

#[test]
fn every_file_that_a_page_leads_to_is_there() {
    for (path, text) in pages() {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let target = if file.is_empty() { root().join(&path) } else { folder.join(file) };
            assert!(target.exists(), "{path} leads to {link}");
            let is_page = target.extension().is_some_and(|end| end == "md");
            if !place.is_empty() && is_page {
                let page = fs::read_to_string(&target).unwrap();
                let headings = page.lines().filter(|line| line.starts_with('#'));
                let found = headings
                    .map(|line| slug(line.trim_start_matches('#').trim()))
                    .any(|one| one == place);
                assert!(found, "{path} leads to {link}, and there is no such heading");
            }
        }
    }
}

/// A heading as links name it.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
