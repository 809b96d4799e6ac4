//! The commands beside `serve`: what they write, what they print, how they end.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    backend::Backend,
    harness::{Answer, Ran, Service, Site, Store, TempDir, both_stores, with_json},
};

/// Every file below `dir` with its bytes and its mode.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                let name = path.strip_prefix(dir).unwrap().to_owned();
                files.insert(name, (fs::read(&path).unwrap(), mode));
            }
        }
    }
    files
}

async fn site() -> Site {
    Service::setup(Store::Sqlite).prepare().await
}

#[test]
fn init_writes_the_example_once() {
    let dir = TempDir::new();
    let made = Ran::in_dir(dir.path(), &["init", "--json"]).json();
    let files = tree(dir.path());
    let shipped = |folder: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = tree(&path).into_iter();
        files.map(|(name, (bytes, _))| (Path::new(folder).join(name), bytes)).collect::<Vec<_>>()
    };
    for (name, bytes) in shipped("policies").into_iter().chain(shipped("config")) {
        let (written, _) = &files[&name];
        // The configuration gets the keys behind what is shipped.
        assert!(written.starts_with(&bytes), "{}", name.display());
        assert!(name.ends_with("lexgate.toml") || *written == bytes, "{}", name.display());
    }
    assert_eq!(files[Path::new("data/ledger.key")].1, 0o600);
    let folder = fs::metadata(dir.path().join("data")).unwrap().permissions().mode();
    assert_eq!(folder & 0o777, 0o700);
    assert!(made["vkey"].as_str().unwrap().starts_with("lexgate.example/main+"));
    let config = String::from_utf8(files[Path::new("config/lexgate.toml")].0.clone()).unwrap();
    let keys = made["keys"].as_array().unwrap();
    let roles: Vec<&str> = keys.iter().map(|key| key["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["caller", "auditor", "officer"]);
    for key in keys {
        let secret = key["secret"].as_str().unwrap();
        assert!(secret.len() > 40, "{secret}");
        assert!(!config.contains(secret), "the configuration holds a secret");
    }

    let again = Ran::in_dir(dir.path(), &["init"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.contains("config/lexgate.toml` is there already"), "{}", again.stderr);
    assert_eq!(tree(dir.path()), files, "nothing was changed");
}

#[test]
fn init_keeps_what_is_there() {
    let dir = TempDir::new();
    let into = dir.path().join("gate");
    let path = into.to_str().unwrap();
    Ran::in_dir(dir.path(), &["init", path, "--json"]).json();
    let key = fs::read(into.join("data/ledger.key")).unwrap();
    fs::write(into.join("config/organisation.toml"), "# mine\n").unwrap();
    fs::remove_file(into.join("config/lexgate.toml")).unwrap();
    let again = Ran::in_dir(dir.path(), &["init", path, "--json"]).json();
    assert_eq!(fs::read(into.join("data/ledger.key")).unwrap(), key);
    assert_eq!(fs::read_to_string(into.join("config/organisation.toml")).unwrap(), "# mine\n");
    let kept = again["kept"].as_array().unwrap();
    for name in ["data/ledger.key", "config/organisation.toml"] {
        assert!(kept.iter().any(|path| path.as_str().unwrap().ends_with(name)), "{again}");
    }
}

#[tokio::test]
async fn facts_are_to_be_looked_at_again() {
    let site = site().await;
    let check = |more: &[&str]| site.run(&[&["policies", "check", "--json"], more].concat());
    // The day on which the shipped facts were last looked at, and one on which none can be relied on.
    let (fresh, stale) = (["--at", "2026-11-25"], ["--at", "2036-11-25"]);
    let strict = |at: [&'static str; 2]| [at[0], at[1], "--strict-sources"];
    assert_eq!(check(&strict(fresh)).json()["past_review"], 0);
    let noted = check(&stale).json();
    assert_eq!(noted["valid"], true);
    assert!(noted["past_review"].as_u64().unwrap() > 500, "{noted}");
    let text = site.run(&["policies", "check", "--at", "2036-11-25"]);
    assert!(text.stdout.contains(" facts past `review_by`; `--strict-sources` says"), "{text:?}");

    let ran = check(&strict(stale));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    let faults = said["faults"].as_array().unwrap();
    let codes = faults.iter().find(|fault| fault["file"] == "policies/facts/jurisdictions.toml");
    let codes = codes.unwrap_or_else(|| panic!("{said}"));
    let message = codes["message"].as_str().unwrap();
    assert!(message.starts_with("`review_by` 2027-08-22 is past, last looked at on 2026-11-22"));
    assert!(codes["line"].as_u64().unwrap() > 1 && codes["column"] == 1, "{codes}");
    assert!(codes["help"].as_str().unwrap().starts_with("look at the source again"), "{codes}");

    let zones = "policies/facts/zones.toml";
    let by = "review_by = { primary = \"2027-11-22\", secondary = \"2027-08-22\", general = \"2027-05-22\" }";
    site.replace(zones, by, "");
    let ran = site.run(&["policies", "check", "--at", "2026-11-25", "--strict-sources"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("policies/facts/zones.toml:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("no `review_by`: “Charter of the Cooperation Council"));
    assert_eq!(site.run(&["policies", "check"]).code, Some(0));
    assert_eq!(check(&["--at", "tomorrow"]).code, Some(2));
}

#[tokio::test]
async fn keys_are_created_shown_once_and_work() {
    let site = site().await;
    let create = |more: &[&str]| site.run(&[&["keys", "create", "--json"], more].concat());
    let ward = create(&["--role", "caller", "--app", "ward-notes"]).json();
    assert_eq!(ward["name"], "ward-notes");
    let next = create(&["--role", "caller", "--app", "ward-notes"]).json();
    assert_eq!(next["name"], "ward-notes-2");
    let scoped = create(&["--role", "auditor", "--jurisdiction", "SA", "--name", "sdaia"]).json();
    let config = site.read("config/lexgate.toml");
    for key in [&ward, &scoped] {
        let secret = key["secret"].as_str().unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
        let digest = crate::audit::hex(digest.as_ref());
        assert!(config.contains(&digest) && !config.contains(secret), "{config}");
    }
    let text = site.run(&["keys", "create", "--role", "officer"]);
    assert!(text.stdout.starts_with("API key `officer-2` (role officer): lexgate_officer_"));
    for (wrong, says) in [
        (&["--role", "caller"][..], "a caller's key needs `--app APP`"),
        (&["--role", "caller", "--app", "x"], "the organisation file has no app `x`: declare it"),
        (&["--role", "admin"], "[possible values: caller, auditor, officer]"),
        (&["--role", "auditor", "--name", "sdaia"], "there is an API key `sdaia` already"),
        (&["--role", "auditor", "--jurisdiction", "Saudi"], "not an ISO 3166 code"),
        (&[], "--role <ROLE>"),
    ] {
        let before = site.read("config/lexgate.toml");
        let ran = create(wrong);
        assert_eq!(ran.code, Some(2), "{wrong:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{wrong:?}: {}", ran.stderr);
        assert_eq!(site.read("config/lexgate.toml"), before);
    }
    let secret = ward["secret"].as_str().unwrap().to_owned();
    let service = Service::on(site.into()).await;
    let call = json!({
        "action": "infer", "model": "ward-notes-model",
        "data": { "personal": true, "subjects": ["SA"] },
    });
    let request = service.anonymous("POST", "/v1/decisions").bearer_auth(secret);
    let answer = Answer::of(with_json(request, &call)).await.expect(200);
    assert_eq!(answer["route"]["deployment"], "mistral-small@dc-riyadh");
}

/// What each pack must decide, in the words of whoever read the law.
#[tokio::test]
async fn every_case_of_the_shipped_policies_holds_and_none_is_left_without() {
    let site = site().await;
    let tested = site.run(&["policies", "test", "--coverage", "--json"]);
    let said: Value = serde_json::from_str(&tested.stdout).unwrap();
    let cases = said["cases"].as_array().unwrap();
    let failed: Vec<_> = cases.iter().filter(|case| !case["failure"].is_null()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let missed = &said["missed"];
    assert_eq!((&missed["policies"], &missed["exceptions"]), (&json!([]), &json!([])));
    assert_eq!(tested.code, Some(0), "{}", tested.stderr);
    assert!(cases.len() > 500, "{}", cases.len());

    // A law that is not kept.
    site.replace(
        "policies/sovereignty/sa-pdpl.cedar",
        "@id(\"sa-pdpl-29\")",
        "@id(\"sa-renamed\")",
    );
    let tested = site.run(&["policies", "test", "--only", "sa-pdpl"]);
    assert_eq!(tested.code, Some(1));
    let said = tested.stdout;
    assert!(said.contains("expected deny by sa-pdpl-29\n      got deny"), "{said}");
    assert!(tested.stderr.contains("cases failed"), "{}", tested.stderr);
    let none = site.run(&["policies", "test", "nowhere"]);
    assert!(none.code == Some(1) && none.stderr.contains("nowhere"), "{}", none.stderr);
}

#[tokio::test]
async fn policies_check_says_what_is_loaded() {
    let site = site().await;
    let checked = site.run_json(&["policies", "check", "--json"]);
    assert_eq!(checked["valid"], true);
    let count = checked["policies"].as_u64().unwrap();
    assert!(count > 50, "{checked}");
    let text = site.run(&["policies", "check"]);
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.contains(&format!("{count} policies are valid")), "{}", text.stdout);
    // No colour where there is no terminal.
    assert!(!text.stdout.contains('\x1b'), "{}", text.stdout);
    // Without a configuration, for whoever writes policies alone.
    let (alone, policies) = (TempDir::new(), site.path("policies"));
    let policies = policies.to_str().unwrap();
    let ran = Ran::in_dir(alone.path(), &["policies", "check", policies, "--json"]);
    assert_eq!(ran.json()["bundle"], checked["bundle"]);
    let service = Service::on(site.into()).await;
    let call = json!({ "action": "infer", "model": "assistant" });
    let snapshot = &service.decide(&call).await.expect(200)["snapshot"];
    assert_eq!((&snapshot["bundle"], &snapshot["facts"]), (&checked["bundle"], &checked["facts"]));

    let (site, file) = (&service.site, "policies/sovereignty/eu-gdpr.cedar");
    site.replace(file, "context.data.personal", "context.data.persnal");
    site.replace(file, "@id(\"eu-gdpr-44\")", "@id(\"sa-pdpl-29\")");
    let broken = site.run(&["policies", "check", "--json"]);
    assert_eq!(broken.code, Some(1), "{}", broken.stderr);
    let answer: Value = serde_json::from_str(&broken.stdout).unwrap();
    assert_eq!(answer["valid"], false);
    let faults = answer["faults"].as_array().unwrap();
    for fault in faults {
        assert!(fault["file"].as_str().unwrap().starts_with("policies/sovereignty/"), "{fault}");
        assert!(fault["line"].as_u64().unwrap() > 1 && fault["column"].is_u64(), "{fault}");
        assert!(!fault["message"].as_str().unwrap().is_empty(), "{fault}");
    }
    let text = site.run(&["policies", "check"]);
    assert_eq!(text.code, Some(1));
    let summary = format!("{} faults found", faults.len());
    assert!(text.stderr.contains(&summary), "{}", text.stderr);
}

both_stores! {
    async fn explain_says_what_the_service_says(store: Store) {
        let service = Service::start(store).await;
        let call = json!({
            "action": "infer", "model": "assistant", "deployment": "qwen3-32b@dashscope-sg",
            "data": { "personal": true, "categories": ["dpv-pd:Health"], "subjects": ["DE"] },
        });
        service.site.write("call.json", &call.to_string());
        let mut printed = service.site.run_json(&["explain", "--call", "call.json", "--json"]);
        let mut served = service.post("/v1/explain", "caller", &call).await.expect(200);
        // Offline there is no revision: the store counts them.
        printed["snapshot"]["revision"] = json!(null);
        served["snapshot"]["revision"] = json!(null);
        assert_eq!(printed, served);
        let text = service.site.run(&["explain", "--call", "call.json"]);
        assert_eq!(text.code, Some(0));
        assert!(text.stdout.starts_with("DENY\n"), "{}", text.stdout);
        assert!(text.stdout.contains("mistral-small@dc-frankfurt"), "{}", text.stdout);
        assert!(service.records_of("decision").await.is_empty());

        service.site.write("call.json", "{\"action\": \"infer\", \"model\": \"gpt-9\"}");
        let ran = service.site.run(&["explain", "--call", "call.json"]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("/model: unknown model `gpt-9`"), "{}", ran.stderr);
        assert_eq!(service.site.run(&["explain", "--call", "none.json"]).code, Some(3));
    }

    async fn the_demo_tells_its_story(store: Store) {
        // Where no model answers, the story depends on how soon that is known.
        let model = Backend::polite().await;
        let setup = Service::setup(store).backend("smollm2@laptop", &model.url);
        let site = Arc::new(setup.prepare().await);
        let told = |arguments: &'static [&'static str]| {
            let site = site.clone();
            async move { tokio::task::spawn_blocking(move || site.run(arguments)).await.unwrap() }
        };
        let rows = told(&["demo", "--json"]).await.json();
        let line = |row: &Value| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            format!("{}: {} {}", text("call"), text("decision"), text("went_to"))
        };
        let story: Vec<String> = rows.as_array().unwrap().iter().map(line).collect();
        assert_eq!(story, [
            "German customer, on the device: allow smollm2@laptop (on_device, DE)",
            "German customer, Alibaba in Singapore: deny nowhere",
            "German customer, Singapore under SCC+TIA: allow qwen3-32b@meridian-sg (remote, SG)",
            "Saudi ward note, Frankfurt or Riyadh: allow mistral-small@dc-riyadh (hybrid_gpu, SA)",
            "Saudi home care, ALLaM at HUMAIN: allow allam-7b@humain (remote, SA)",
            "A German and a Saudi in one prompt: allow qwen3-32b@meridian-sg (remote, SG)",
            "25,000 US heart rates, Chinese owner: deny nowhere",
            "Indian card payment, cheapest place: allow qwen3-32b@dc-mumbai (hybrid_gpu, IN)",
            "Japanese lease file, cheapest place: allow mistral-small@dc-frankfurt (hybrid_gpu, DE)",
            "A company's report by Command R: deny nowhere",
            "Shanghai customers, 100,000 this year: deny nowhere",
            "Hunyuan's manual for German readers: deny nowhere",
            "Container positions, anywhere: allow \
             qwen3-32b@dashscope-global (remote, CN, DE, HK, US)",
            "A waybill, nothing declared, on the device: deny nowhere",
        ]);
        let why = |call: usize| rows[call]["why"].as_str().unwrap();
        assert!(why(1).starts_with("eu-gdpr-44 (DE → SG): Regulation (EU)"), "{}", why(1));
        assert_eq!(
            why(5),
            "not mistral-small@dc-frankfurt: sa-pdpl-29\n\
             not mistral-small@dc-riyadh: eu-gdpr-44\nwith a duty: eu-ai-act-50-notice"
        );
        assert!(why(6).starts_with("us-doj-202 (US → owner in CN): "), "{}", why(6));
        let denials = [(9, "licence-commercial: "), (10, "cn-pipl-38 (CN → SG): "),
            (11, "licence-territory: "), (13, "base-unclassified: ")];
        for (call, policy) in denials {
            assert!(why(call).starts_with(policy), "{}", why(call));
        }
        let text = told(&["demo"]).await;
        assert_eq!(text.code, Some(0), "{}", text.stderr);
        assert!(text.stdout.contains("14 calls: 8 allowed, 6 denied"), "{}", text.stdout);
        assert!(text.stdout.contains(&site.vkey) && !text.stdout.contains('\x1b'));
        let (table, _) = text.stdout.split_once("answered:").unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
        let service = Service::on(site).await;
        assert_eq!(service.records_of("decision").await.len(), 28);
        let report = service.export_and_verify();
        assert_eq!((&report["kinds"]["outcome"], &report["open"]), (&json!(2), &json!([])));
    }

    async fn a_store_is_migrated_by_serve_or_by_hand(store: Store) {
        let site = Service::setup(store).env("LEXGATE_STORE__MIGRATE", "false").prepare().await;
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains("run `lexgate migrate`"), "{}", ran.stderr);
        for _ in 0..2 {
            let ran = site.run(&["migrate"]);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            assert_eq!(ran.stdout, "the store's tables are up to date\n");
        }
        let service = Service::on(site.into()).await;
        let ready = service.get("/readyz", "caller").await.expect(200);
        assert_eq!((&ready["status"], &ready["revision"]), (&json!("ready"), &json!(1)), "{ready}");
        assert!(service.terminate().success());
    }
}

#[test]
fn wrong_use_is_two_and_help_is_none() {
    let dir = TempDir::new();
    for (arguments, code) in [
        (&[][..], 2),
        (&["sevre"], 2),
        (&["serve", "--confg", "x"], 2),
        (&["verify", "x"], 2),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["keys", "create", "--help"], 0),
    ] {
        let ran = Ran::in_dir(dir.path(), arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        let (said, silent) =
            if code == 0 { (ran.stdout, ran.stderr) } else { (ran.stderr, ran.stdout) };
        assert!(!said.is_empty() && silent.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_command_without_a_configuration_says_how_to_get_one() {
    let dir = TempDir::new();
    for command in ["serve", "migrate", "demo"] {
        let ran = Ran::in_dir(dir.path(), &[command]);
        assert_eq!(ran.code, Some(1), "{command}: {}", ran.stderr);
        assert!(ran.stderr.contains("`lexgate init` writes a configuration"), "{}", ran.stderr);
    }
}
