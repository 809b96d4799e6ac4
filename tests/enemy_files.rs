//! Files against an enemy: a policy folder in which something is left out, policies that are too deep, a
//! slip of the pen beside a secret.

use std::{
    fs,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Ran, Service, Site, Store};

/// What must be seen nowhere.
const CANARY: &str = "Kanarienvogel-7f3a9";

async fn site() -> Site {
    Service::setup(Store::Sqlite).prepare().await
}

fn check(site: &Site) -> Ran {
    site.run(&["policies", "check"])
}

fn ids(site: &Site) -> Value {
    site.run_json(&["policies", "check", "--json"])
}

/// Runs the service, which must refuse within a minute.
fn refusal(site: &Site, env: &[(&str, &str)]) -> Ran {
    let mut command = site.command(&["serve"]);
    command.envs(env.iter().copied());
    refused(site, command)
}

/// Into a file, which takes whatever is said, and not into a pipe.
fn refused(site: &Site, mut command: Command) -> Ran {
    let (out, err) = (site.path("said.out"), site.path("said.err"));
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("the service accepts it: {}", fs::read_to_string(err).unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_ne!(code, Some(0));
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Ran { code, stdout: text(out), stderr: text(err) }
}

#[tokio::test]
async fn links_are_followed_and_a_config_map_is_served() {
    let site = site().await;
    let whole = ids(&site);
    // A pack elsewhere, behind a link.
    fs::rename(site.path("policies/licensing"), site.path("elsewhere")).unwrap();
    symlink("../elsewhere", site.path("policies/licensing")).unwrap();
    assert_eq!(ids(&site), whole);
    // As Kubernetes mounts a ConfigMap: `..data` is a link, and each name leads through it.
    let (data, dir) = (site.path("policies/..2026_11_30"), site.path("policies"));
    fs::create_dir(&data).unwrap();
    for name in ["base", "sovereignty", "duties", "facts"] {
        fs::rename(dir.join(name), data.join(name)).unwrap();
        symlink(format!("..data/{name}"), dir.join(name)).unwrap();
    }
    symlink("..2026_11_30", dir.join("..data")).unwrap();
    // What is hidden is no policy.
    fs::create_dir(dir.join(".git")).unwrap();
    for name in [".git/x.cedar", "._own.cedar", "base/.own.cedar.swp"] {
        fs::write(dir.join(name), "not Cedar").unwrap();
    }
    symlink("nowhere", dir.join("base/.#own.cedar")).unwrap();
    assert_eq!(ids(&site), whole);
    // The example has one file that is not a policy.
    assert_eq!(whole["not_taken"], serde_json::json!(["README.md"]));

    // What is not a policy is named, at the check and at the start.
    site.write("policies/base/NOTES.md", "read me");
    assert_eq!(ids(&site)["not_taken"], serde_json::json!(["README.md", "base/NOTES.md"]));
    let said = check(&site);
    let named = "not taken, 2 files: README.md, base/NOTES.md";
    assert!(said.stdout.contains(named), "{}", said.stdout);
    let service = Service::on(site.into()).await;
    for name in ["README.md", "base/NOTES.md"] {
        assert!(service.stderr().contains(name), "{}", service.stderr());
    }
}

#[tokio::test]
async fn nothing_is_left_out_in_silence() {
    let policy = "@id(\"own\")\n@citation(\"own\")\npermit (principal, action, resource);\n";
    for (name, wanted) in [
        ("base/own.CEDAR", "ends in `.cedar`"),
        ("base/own.Cedar", "ends in `.cedar`"),
        ("base/own.cedar.txt", "ends in `.cedar`"),
        ("base/own.cedar~", "ends in `.cedar`"),
        ("base/own.cedar.bak", "ends in `.cedar`"),
        ("own/schema.cedarschema", "the one schema"),
        ("facts/own.TOML", "dated facts lie in `facts/`"),
        ("Facts/own.toml", "dated facts lie in `facts/`"),
    ] {
        let site = site().await;
        site.write(&format!("policies/{name}"), policy);
        let ran = check(&site);
        assert_eq!(ran.code, Some(1), "{name}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(name) && ran.stderr.contains(wanted), "{name}: {}", ran.stderr);
        assert_eq!(refusal(&site, &[]).code, Some(1), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_fault_and_ends_nothing() {
    let site = site().await;
    let dir = site.path("policies");
    let mut wanted = Vec::new();
    symlink("nowhere.cedar", dir.join("base/dangling.cedar")).unwrap();
    wanted.push(("base/dangling.cedar", "cannot be read"));
    symlink("..", dir.join("base/loop")).unwrap();
    wanted.push(("base/loop", "is the same as"));
    symlink("base.cedar", dir.join("base/twice.cedar")).unwrap();
    wanted.push(("base/twice.cedar", "is the same as"));
    let fifo = Command::new("mkfifo").arg(dir.join("base/pipe.cedar")).status().unwrap();
    assert!(fifo.success());
    wanted.push(("base/pipe.cedar", "neither a file nor a folder"));
    symlink("/dev/zero", dir.join("base/zero.cedar")).unwrap();
    wanted.push(("base/zero.cedar", "neither a file nor a folder"));
    fs::write(dir.join("base/bytes.cedar"), [0xff, 0xfe, 0x00]).unwrap();
    wanted.push(("base/bytes.cedar", "cannot be read"));
    fs::write(dir.join("base/large.cedar"), vec![b' '; (4 << 20) + 1]).unwrap();
    wanted.push(("base/large.cedar", "longer than"));
    let deep = format!("base/{}x", "d/".repeat(20));
    fs::create_dir_all(dir.join(&deep)).unwrap();
    wanted.push(("d/d/d", "folders deep"));
    let ran = check(&site);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for (name, fault) in wanted {
        assert!(ran.stderr.contains(name) && ran.stderr.contains(fault), "{name}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_folder_that_lost_a_pack_needs_a_word() {
    let mut service = Service::start(Store::Sqlite).await;
    service.crash();
    let site = service.site.clone();
    fs::rename(site.path("policies/licensing"), site.path("elsewhere")).unwrap();
    let said = refusal(&site, &[]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    for part in ["the policy folder lacks", "that are active", "`licensing/", "allow_removal"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    // A word for something else is none.
    let name = "LEXGATE_POLICIES__ALLOW_REMOVAL";
    assert_eq!(refusal(&site, &[(name, "[\"sovereignty\"]")]).code, Some(1));
    // The files are back: nothing is asked.
    fs::rename(site.path("elsewhere"), site.path("policies/licensing")).unwrap();
    service.start_again().await;
    service.crash();
    fs::rename(site.path("policies/licensing"), site.path("elsewhere")).unwrap();
    let service = Service::on_with(site.clone(), &[(name, "[\"licensing\"]")]).await;
    let active = service.records_of("bundle_activated").await;
    assert_eq!(active.len(), 2);
    drop(service);
    // What has gone is not asked for again, and the word is to be taken back.
    let service = Service::on_with(site, &[(name, "[\"licensing\"]")]).await;
    assert_eq!(service.records_of("bundle_activated").await.len(), 2);
}

#[tokio::test]
async fn policies_that_are_too_deep_are_faults_and_end_nothing() {
    let site = site().await;
    let policy = |condition: &str| {
        format!(
            "@id(\"own\")\n@citation(\"own\")\npermit (principal, action in Action::\"use\", resource)\nwhen {{ {condition} }};\n"
        )
    };
    let chain = |between: &str, times: usize| vec!["context.data.personal"; times].join(between);
    for (condition, fault) in [
        (format!("{}true{}", "(".repeat(250), ")".repeat(250)), "brackets lie more than"),
        (format!("{}true{}", "(".repeat(200_000), ")".repeat(200_000)), "brackets lie more than"),
        (chain(" || ", 1_000), "joins more than"),
        (chain(" && ", 20_000), "joins more than"),
        ("!".repeat(5_000) + "true", "joins more than"),
        ("if true then true else ".repeat(500) + "true", "joins more than"),
        (vec!["true"; 5_000].join(" } when { "), "joins more than"),
        (format!("context{} == 1", ".data".repeat(5_000)), "joins more than"),
        (format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)), "brackets lie more than"),
    ] {
        site.write("policies/base/own.cedar", &policy(&condition));
        let all = [
            &["policies", "check"][..],
            &["policies", "fmt", "--check"],
            &["policies", "test", "--only", "none"],
            &["policies", "explain", "eu-gdpr-44"],
        ];
        let some = if fault.starts_with("brackets") { &all[..] } else { &all[..1] };
        for arguments in some {
            let ran = site.run(arguments);
            assert_eq!(ran.code, Some(1), "{arguments:?} {fault}: {}", ran.stderr);
            assert!(
                ran.stderr.contains("base/own.cedar:4:"),
                "{arguments:?} {fault}: {}",
                ran.stderr
            );
            assert!(ran.stderr.contains(fault), "{arguments:?} {fault}: {}", ran.stderr);
        }
    }
    site.write("policies/base/own.cedar", "");
    let schema = site.read("policies/schema.cedarschema");
    let deep = format!(
        "{schema}\nentity Deep {{ a: {}Long{} }};\n",
        "Set<".repeat(5_000),
        ">".repeat(5_000)
    );
    site.write("policies/schema.cedarschema", &deep);
    assert_eq!(check(&site).code, Some(1));
    site.write("policies/schema.cedarschema", &schema);
    for (path, text) in [
        ("policies/facts/own.toml", format!("a = {}1{}", "[".repeat(50_000), "]".repeat(50_000))),
        ("policies/facts/own.toml", format!("{}a = 1", "a.".repeat(50_000))),
        (
            "config/organisation.toml",
            format!("a = {}1{}", "{a=".repeat(20_000), "}".repeat(20_000)),
        ),
        ("config/lexgate.toml", format!("a = {}1{}", "[".repeat(50_000), "]".repeat(50_000))),
    ] {
        let before = site.path(path).exists().then(|| site.read(path));
        site.write(path, &text);
        let ran = check(&site);
        assert_eq!(ran.code, Some(1), "{path}: {}", ran.stderr);
        match before {
            Some(before) => site.write(path, &before),
            None => fs::remove_file(site.path(path)).unwrap(),
        }
    }

    // What is within the limits serves, and decides.
    let condition = format!("{} || {}", chain(" || ", 200), "true");
    site.write("policies/base/own.cedar", &policy(&condition));
    let service = Service::on(site.into()).await;
    let call = serde_json::json!({
        "action": "infer", "model": "assistant", "data": { "personal": false },
    });
    let decided = service.decide(&call).await.expect(200);
    assert_eq!(decided["decision"], "allow");
    service.post("/v1/explain", "caller", &call).await.expect(200);
}

/// Slips in `lexgate.toml` and the organisation file: each with the canary where a secret would be.
fn slips() -> Vec<(&'static str, String, String)> {
    let (config, organisation) = ("config/lexgate.toml", "config/organisation.toml");
    let mut slips = Vec::new();
    let mut add =
        |file: &'static str, from: &str, to: String| slips.push((file, from.to_owned(), to));
    // Each key that may hold a secret, by each kind of slip.
    let postgres = format!("postgres://u:{CANARY}@127.0.0.1:1/d");
    for (key, table, value) in [
        ("url", "[store]", postgres.as_str()),
        ("sha256", "[[api_keys]]\nname = \"x\"\nroles = [\"auditor\"]", CANARY),
        ("key", "[[ledger.witnesses]]\nurl = \"https://w.example\"", CANARY),
        ("otlp_endpoint", "[telemetry]", CANARY),
        ("value", "[secrets.x]", CANARY),
        ("env", "[secrets.x]", CANARY),
    ] {
        for line in [
            format!("{key} = \"{value}"),
            format!("{key} = {value}\""),
            format!("{key} = '{value}"),
            format!("{key} = {value}"),
            format!("{key} \"{value}\""),
            format!("{key} = \"\"\"{value}\nx\n"),
            format!("{key} = [\"{value}\"]"),
            format!("{key} = {{ a = \"{value}\" }}"),
            format!("{key} = \"{value}\"\n{key} = \"{value}\""),
            format!("{key}y = \"{value}\""),
            format!("{key}.x = \"{value}\""),
        ] {
            if key == "url" {
                add(config, "url = \"sqlite://data/lexgate.db\"", line);
            } else {
                add(config, "", format!("{table}\n{line}\n"));
            }
        }
    }
    // A secret where something else belongs.
    for (from, to) in [
        ("listen = \"127.0.0.1:8080\"", format!("listen = \"{CANARY}\"")),
        ("origin = \"lexgate.example/main\"", format!("origin = \"{CANARY} x\"")),
        ("master_key_file = \"data/master.key\"", format!("master_key_file = \"{CANARY}\"")),
        ("signing_key_file = \"data/ledger.key\"", format!("signing_key_file = \"{CANARY}\"")),
        ("dir = \"policies\"", format!("dir = \"policies\"\nactivate_on_start = \"{CANARY}\"")),
        ("dir = \"policies\"", format!("dir = \"policies\"\n\"{CANARY}\" = 1")),
        ("[store]\n", format!("[store]\nmigrate = \"{CANARY}\"\n")),
        ("[store]\n", format!("[stroe]\nurl = \"{CANARY}\"\n[store]\n")),
        ("", format!("[secrets]\nx = \"{CANARY}\"\n")),
        ("", format!("[secrets.x]\ncommand = \"{CANARY}\"\n")),
        ("", format!("[secrets.x]\ncommand = [\"p\"]\nrefresh = \"{CANARY}\"\n")),
        (
            "",
            format!("[[ledger.witnesses]]\nurl = \"https://u:{CANARY}@w.example\"\nkey = \"x\"\n"),
        ),
        ("", format!("[telemetry]\notlp_endpoint = \"http://h:1?token={CANARY}\"\n")),
        ("", format!("[telemetry]\nheaders = \"{CANARY}\"\n")),
        ("", format!("{CANARY}\n")),
    ] {
        add(config, from, if from.is_empty() { to.clone() } else { to });
    }
    let backend = "api_key_env = \"FRANKFURT_API_KEY\"";
    for to in [
        format!("api_key_env = \"{CANARY}"),
        format!("api_key = {CANARY}\""),
        format!("api_key = \"{CANARY}\""),
        format!("api_keey = \"{CANARY}\""),
        format!("api_key = [\"{CANARY}\"]"),
        format!("api_key = \"\"\"\n{CANARY}\n"),
        format!("headers = {{ authorization = \"{CANARY}\" }}"),
        format!("api_key = \"{CANARY}\"\napi_key_env = \"X\""),
        format!("password = \"{CANARY}\""),
        format!("api_key \"{CANARY}\""),
        format!("api_key_env = \"{CANARY}\""),
    ] {
        add(organisation, backend, to);
    }
    add(organisation, "http://127.0.0.1:8091/v1", format!("http://u:{CANARY}@127.0.0.1:8091/v1"));
    add(organisation, "http://127.0.0.1:8091/v1", format!("http://127.0.0.1:8091/v1?key={CANARY}"));
    slips
}

#[tokio::test]
async fn no_slip_of_the_pen_shows_a_secret() {
    let site = site().await;
    let trace = [("LEXGATE_LOG", "trace")];
    // The file's own store is what is asked here.
    let slips = slips();
    assert!(slips.len() >= 50, "{} slips", slips.len());
    let originals = ["config/lexgate.toml", "config/organisation.toml"].map(|file| site.read(file));
    for (file, from, to) in &slips {
        if from.is_empty() {
            site.append(file, to);
        } else {
            site.replace(file, from, to);
        }
        let mut command = site.command(&["serve"]);
        command.envs(trace);
        // What the environment overrides is not read in the file.
        for (key, name) in [("url", "LEXGATE_STORE__URL"), ("listen", "LEXGATE_SERVER__LISTEN")] {
            if to.contains(key) {
                command.env_remove(name);
            }
        }
        let said = format!("{:?}", refused(&site, command));
        assert!(!said.contains(CANARY) && !said.contains("Kanarien"), "{file}: {to}\n{said}");
        assert!(!said.contains("panicked"), "{to}\n{said}");
        let check = site.run(&["policies", "check", "--json"]);
        assert!(!format!("{check:?}").contains("Kanarien"), "{file}: {to}\n{check:?}");
        for (file, text) in
            ["config/lexgate.toml", "config/organisation.toml"].iter().zip(&originals)
        {
            site.write(file, text);
        }
    }
}

#[tokio::test]
async fn no_variable_and_no_address_shows_a_secret() {
    let site = site().await;
    for name in [
        "LEXGATE_SERVER__LISTEN",
        "LEXGATE_STORE__MIGRATE",
        "LEXGATE_LEDGER__ORIGIN",
        "LEXGATE_STORE__URL",
        "LEXGATE_LEDGER__MAX_CLOCK_SKEW",
        "LEXGATE_LEDGER__REQUIRE_WITNESS",
        "LEXGATE_SERVER__BODY_BUDGET",
        "LEXGATE_SERVER__BODY_TIMEOUT",
        "LEXGATE_API_KEYS__X",
        "LEXGATE_SECRETS__X",
        "LEXGATE_SECRETS__X__VALUE",
        "LEXGATE_LEDGER__WITNESSES",
        "LEXGATE_TELEMETRY__OTLP_ENDPOINT",
        "LEXGATE_TELEMETRY__SAMPLE_RATIO",
        "LEXGATE_LEDGER__MASTER_KEY_FILE",
        "LEXGATE_STORE__PASSWORD",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        let value = format!("{CANARY} ?");
        let said = refusal(&site, &[(name, &value), ("LEXGATE_LOG", "trace")]);
        assert!(!format!("{said:?}").contains("Kanarien"), "{name}: {said:?}");
    }
    for address in [
        "postgres://u:12?PW@127.0.0.1:1/d",
        "postgres://u:pw?PW@127.0.0.1:1/d",
        "postgres://u:12#PW@127.0.0.1:1/d",
        "postgres://u:12/PW@127.0.0.1:1/d",
        "postgres://u:PW@127.0.0.1:x/d",
        "postgres://u:PW@127.0.0.1:1/d?sslmode=PW",
        "postgres://u:PW@127.0.0.1:1/d?slmode=PW",
        "postgres://u:PW@[",
        "postgres:u:PW@127.0.0.1",
        "host=127.0.0.1 port=1 user=u password=PW dbname=d",
        "PW",
        "PW://127.0.0.1",
        "mysql://u:PW@127.0.0.1/d",
        "sqlite://data/x.db?PW=1",
        "sqlite://data/x.db?mode=PW",
        "postgres://u:PW@127.0.0.1:1/d",
    ] {
        let address = address.replace("PW", CANARY);
        let env = [("LEXGATE_STORE__URL", address.as_str()), ("LEXGATE_LOG", "trace")];
        let said = refusal(&site, &env);
        assert!(!format!("{said:?}").contains("Kanarien"), "{address}: {said:?}");
        assert_eq!(said.code, Some(3), "{address}: {said:?}");
    }
}
