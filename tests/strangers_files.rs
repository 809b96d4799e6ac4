//! Files, names and settings as strangers write them: dates, places, variables, modes, slips of the pen.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Ran, Service, Site, Store, TempDir, signal};

const ORGANISATION: &str = "config/organisation.toml";

/// A folder as `lexgate init` writes it.
fn folder() -> TempDir {
    let dir = TempDir::new();
    Ran::in_dir(dir.path(), &["init", "--json"]).json();
    dir
}

fn write(dir: &TempDir, path: &str, text: &str) {
    fs::write(dir.path().join(path), text).unwrap();
}

fn read(dir: &TempDir, path: &str) -> String {
    fs::read_to_string(dir.path().join(path)).unwrap()
}

fn append(dir: &TempDir, path: &str, text: &str) {
    write(dir, path, &format!("{}\n{text}\n", read(dir, path)));
}

fn check(dir: &TempDir) -> Ran {
    Ran::in_dir(dir.path(), &["policies", "check"])
}

async fn site() -> Site {
    Service::setup(Store::Sqlite).prepare().await
}

/// What the service says that refuses to start.
fn refusal(site: &Site, env: &[(&str, &str)]) -> String {
    let mut command = site.command(&["serve"]);
    command.envs(env.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("`lexgate serve` accepts what it should refuse: {env:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn dates_are_read_as_people_write_them() {
    let dir = folder();
    let instrument = |id: &str, from: &str, until: &str| {
        format!(
            "[[instruments]]\nid = \"{id}\"\nkind = \"eu-scc\"\nexporter = \"acme\"\n\
             recipient = \"humain\"\nvalid_from = {from}\nvalid_until = {until}\nreference = \"x\"\n"
        )
    };
    append(&dir, ORGANISATION, &instrument("a", "2026-01-01", "\"9999-12-31\""));
    append(&dir, ORGANISATION, &instrument("b", "2026-01-01T12:00:00", "9999-12-31T23:59:59Z"));
    append(&dir, ORGANISATION, &instrument("c", "\"2026-01-01 12:00:00+02:00\"", "9999-12-31"));
    let zones = "[[zone]]\nid = \"OURS\"\nname = \"ours\"\n\n[[membership]]\nzone = \"OURS\"\n\
                 members = [\"DE\"]\nvalid_from = 2026-01-01\nvalid_until = 9999-12-31\nsource = \"we\"\n\
                 checked = 2026-11-01T10:00:00+02:00\nconfidence = \"primary\"\nreview_by = 2027-11-01\n";
    write(&dir, "policies/facts/ours.toml", zones);
    let case = "[[case]]\nname = \"dated\"\nexpect = \"allow\"\nsource = \"we\"\n[case.given]\n\
                at = 2026-11-22T08:00:00\naction = \"infer\"\npurpose = \"dpv:ServiceProvision\"\n\
                data = { personal = false, categories = [], subjects = [] }\n\
                instruments = [{ kind = \"eu-scc\", valid_from = 2026-01-01, valid_until = 9999-12-31 }]\n\
                candidate = { tier = \"remote\", process = [\"SG\"], store = [\"SG\"], operator = { seat = \"SG\" } }\n";
    write(&dir, "policies/cases/ours.toml", case);
    let ran = check(&dir);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stdout.contains("9999"), "what never ends is no boundary: {}", ran.stdout);
    let tested = Ran::in_dir(dir.path(), &["policies", "test", "--only", "dated"]);
    assert_eq!(tested.code, Some(0), "{}{}", tested.stdout, tested.stderr);
    for at in ["2036-01-01", "2036-01-01T00:00:00Z", "2036-01-01 02:00:00+02:00"] {
        let noted = Ran::in_dir(dir.path(), &["policies", "check", "--json", "--at", at]).json();
        assert!(noted["past_review"].as_u64().unwrap() > 500, "{at}: {noted}");
    }

    append(&dir, ORGANISATION, &instrument("d", "\"01.02.2026\"", "13:00:00"));
    let said = check(&dir).stderr;
    for part in ["`01.02.2026` is neither a date nor an instant", "a day, `2026-11-22`", "UTC"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn places_are_known_by_the_names_that_people_use() {
    let service = Service::shared(Store::Sqlite).await;
    let call = |subjects: &str| {
        json!({
            "action": "infer", "model": "assistant", "purpose": "dpv:CustomerCare", "location": "US-NY",
            "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": [subjects] },
        })
    };
    let places = |decision: &Value| decision["reasons"].to_string();
    let (state, country) =
        (service.decide(&call("US-CA")).await, service.decide(&call("US")).await);
    let (state, country) = (state.expect(200), country.expect(200));
    assert_eq!(state["decision"], country["decision"]);
    assert_eq!(places(&state), places(&country));
    let seq = state["record"]["seq"].as_u64().unwrap();
    let record = service.get(&format!("/v1/audit/records/{seq}"), "auditor").await.expect(200);
    let recorded = &record["entry"]["body"]["call"];
    assert_eq!(recorded["data"]["subjects"], json!(["US"]), "{recorded}");
    assert_eq!(recorded["location"], "US");
    // Quebec has a law of its own, Ontario has none here, and a slip must not escape the stricter one.
    let record_of = async |subjects: &str| {
        let decided = service.decide(&call(subjects)).await.expect(200);
        let seq = decided["record"]["seq"].as_u64().unwrap();
        let record = service.get(&format!("/v1/audit/records/{seq}"), "auditor").await.expect(200);
        record["entry"]["body"]["call"]["data"]["subjects"][0].as_str().unwrap().to_owned()
    };
    assert_eq!(record_of("CA-QC").await, "CA-QC");
    assert_eq!(record_of("CA-ON").await, "CA");
    assert_eq!(record_of("XK").await, "XK");
    for (wrong, says) in [
        ("CA-QB", "`CA-QC` has a law of its own"),
        ("UK", "did you mean `GB`?"),
        ("EL", "did you mean `GR`?"),
        ("EU", "name the country"),
        ("de", "did you mean `DE`?"),
        ("de-CH", "did you mean `CH`?"),
        ("CN-HK", "did you mean `HK`?"),
        ("USA", "did you mean `US`?"),
        ("Germany", "did you mean `DE`?"),
        ("Gemany", "did you mean `DE`?"),
        ("ZZ", "want an ISO 3166 code"),
    ] {
        let refused = service.decide(&call(wrong)).await.expect(422).to_string();
        assert!(
            refused.contains(says) && refused.contains("/data/subjects/0"),
            "{wrong}: {refused}"
        );
    }
}

#[test]
fn places_in_an_organisation_lead_to_the_law_that_applies() {
    let dir = folder();
    let text = read(&dir, ORGANISATION);
    write(&dir, ORGANISATION, &text.replace("location = \"US\"", "location = \"US-CA\""));
    let ran = check(&dir);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for (wrong, says) in [
        ("UK", "did you mean `GB`?"),
        ("Germany", "did you mean `DE`?"),
        ("EU", "name the country"),
    ] {
        let wrong = format!("location = \"{wrong}\"");
        write(&dir, ORGANISATION, &text.replace("location = \"US\"", &wrong));
        let said = check(&dir).stderr;
        assert!(said.contains(says), "{wrong}: {said}");
    }
}

#[tokio::test]
async fn a_variable_reaches_a_secret_in_any_case_and_a_mounted_key_is_read() {
    let site = site().await;
    let from = "api_key_env = \"FRANKFURT_API_KEY\"";
    site.replace(ORGANISATION, from, "api_key = \"FRANKFURT\"");
    let said = refusal(&site, &[]);
    assert!(said.contains("`[secrets]` does not say where that is"), "{said}");
    site.write("backend.key", "hush");
    // As Kubernetes mounts it.
    for file in ["data/ledger.key", "data/master.key"] {
        fs::set_permissions(site.path(file), fs::Permissions::from_mode(0o440)).unwrap();
    }
    let site = std::sync::Arc::new(site);
    for name in ["LEXGATE_SECRETS__FRANKFURT__FILE", "lexgate_secrets__frankfurt__file"] {
        let service = Service::on_with(site.clone(), &[(name, "backend.key")]).await;
        assert!(service.terminate().success(), "{name}");
    }
    let both = "[secrets.frankfurt]\nfile = \"a\"\n[secrets.Frankfurt]\nfile = \"b\"\n";
    let config = site.read("config/lexgate.toml");
    site.write("config/lexgate.toml", &format!("{config}\n{both}"));
    let said = refusal(&site, &[]);
    assert!(said.contains("differ from it only in case and separators"), "{said}");
    let said = refusal(&site, &[("LEXGATE_SECRETS__FRANKFURT__FILE", "backend.key")]);
    assert!(said.contains("LEXGATE_SECRETS__FRANKFURT__FILE"), "{said}");
}

#[tokio::test]
async fn a_misspelt_setting_is_refused_with_the_one_that_was_meant() {
    let site = site().await;
    for (name, value, says) in [
        ("LEXGATE_LOG", "inof", "did you mean `info`?"),
        ("LEXGATE_LOG_LEVEL", "debug", "did you mean `LEXGATE_LOG`?"),
        ("LEXGATE_SERVER_LISTEN", "127.0.0.1:0", "did you mean `LEXGATE_SERVER__LISTEN`?"),
        ("LEXGATE_SERVER__LISTNE", "127.0.0.1:0", "did you mean `listen`?"),
        ("LEXGATE_LEDGER__REQUIRE_WITNES", "5s", "did you mean `require_witness`?"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "write `otlp`, or `none` for no spans"),
    ] {
        let said = refusal(&site, &[(name, value)]);
        assert!(said.contains(says), "{name}: {said}");
    }
    for command in
        [&["ledger", "prune", "--archive", "a"][..], &["keys", "retire"], &["export", "x"]]
    {
        let mut command = site.command(command);
        let ran = command.env("LEXGATE_LOG", "inof").output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{said}");
        assert!(said.contains("did you mean `info`?"), "{said}");
    }
    for (from, to, says) in [
        ("domicile = \"SG\"", "domicle = \"SG\"", "did you mean `domicile`?"),
        ("tier = \"on_device\"", "tier = \"on-device\"", "did you mean `on_device`?"),
        ("tenant = \"acme-gmbh\"", "tenant = \"acme-gbmh\"", "did you mean `acme-gmbh`?"),
        ("kind = \"sa-scc\"", "kind = \"sa-sccs\"", "did you mean `sa-scc`?"),
        ("operator = \"humain\"", "operator = \"humian\"", "did you mean `humain`?"),
    ] {
        let text = site.read(ORGANISATION);
        site.replace(ORGANISATION, from, to);
        let said = site.run(&["policies", "check"]).stderr;
        assert!(said.contains(says), "{to}: {said}");
        site.write(ORGANISATION, &text);
    }
    let keys = site.run(&["keys", "create", "--role", "caller", "--app", "suport-copilot"]);
    assert!(keys.stderr.contains("did you mean `support-copilot`?"), "{}", keys.stderr);
    for (code, says) in
        [("US-CA", "write `US`"), ("UK", "did you mean `GB`?"), ("de", "did you mean `DE`?")]
    {
        let keys = site.run(&["keys", "create", "--role", "auditor", "--jurisdiction", code]);
        assert_eq!(keys.code, Some(2), "{code}: {}", keys.stderr);
        assert!(keys.stderr.contains(says), "{code}: {}", keys.stderr);
    }
    let help = site.run(&["keys", "create", "--help"]).stdout;
    assert!(help.contains("legal holds") && !help.contains("Change policies"), "{help}");
}

/// The most natural rule of a company, and its cases.
#[test]
fn a_policy_about_one_s_own_has_cases() {
    let dir = folder();
    let policy = "@id(\"own-desk\") @citation(\"House rule 7\") @advice(\"Ask the desk.\")\n\
                  forbid (principal == App::\"support-copilot\", action in Action::\"use\", resource)\n\
                  when { resource.model.provider == \"Alibaba\" };\n";
    write(&dir, "policies/licensing/own.cedar", policy);
    let case = |name: &str, app: &str, expect: &str, policy: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\nexpect = \"{expect}\"\npolicies = [\"{policy}\"]\nsource = \"House rule 7\"\n\
             [case.given]\naction = \"infer\"\npurpose = \"dpv:ServiceProvision\"\napp = {{ id = \"{app}\" }}\n\
             data = {{ personal = false, categories = [], subjects = [] }}\n\
             candidate = {{ model = \"qwen3-32b\", provider = \"Alibaba\", tier = \"remote\", process = [\"SG\"], \
             store = [\"SG\"], operator = {{ id = \"alibaba-cloud\", seat = \"SG\" }} }}\n\n"
        )
    };
    let cases = case("own: the desk", "support-copilot", "deny", "own-desk")
        + &case("own: another app", "manuals", "allow", "base-use");
    write(&dir, "policies/cases/own.toml", &cases);
    assert_eq!(check(&dir).code, Some(0), "{}", check(&dir).stderr);
    let tested = Ran::in_dir(dir.path(), &["policies", "test", "--only", "own:"]);
    assert_eq!(tested.code, Some(0), "{}{}", tested.stdout, tested.stderr);
    assert!(tested.stdout.contains("2 of 2 cases passed"), "{}", tested.stdout);
    let new = ["policies", "new", "regime", "mx-law", "--jurisdiction", "MX"];
    let made = Ran::in_dir(dir.path(), &new);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    // A slip in it is one, for the cases too.
    let slip = policy.replace("support-copilot", "suport-copilot");
    write(&dir, "policies/licensing/own.cedar", &slip);
    for command in [&["policies", "check"][..], &["policies", "test", "--only", "own:"]] {
        let ran = Ran::in_dir(dir.path(), command);
        assert_eq!(ran.code, Some(1), "{command:?}");
        assert!(ran.stderr.contains("did you mean `support-copilot`?"), "{}", ran.stderr);
    }
}

#[test]
fn what_a_policy_compares_with_must_be_on_its_list() {
    let dir = folder();
    let said_of = |condition: &str| {
        let policy = format!(
            "@id(\"own\") @citation(\"c\") @advice(\"a\")\nforbid (principal, action == Action::\"infer\", resource)\nwhen {{ {condition} }};\n"
        );
        write(&dir, "policies/base/own.cedar", &policy);
        check(&dir)
    };
    for right in [
        "context.purpose like \"dpv:Custom*\"",
        "context.purpose like \"*Care\"",
        "context.purpose == \"dpv:CustomerCare\"",
        "[\"dpv:CustomerCare\"].contains(context.purpose)",
        "resource.tier == \"remote\"",
    ] {
        let ran = said_of(right);
        assert_eq!(ran.code, Some(0), "{right}: {}", ran.stderr);
    }
    for (wrong, says) in [
        ("context.purpose like \"dpv:Custmer*\"", "which matches no purpose"),
        ("context.purpose == \"dpv-pd:Contact\"", "which is not one"),
        ("context.data.categories.contains(\"dpv:CustomerCare\")", "which is not one"),
        ("resource.tier == \"onprem\"", "which nothing declares"),
        ("resource.tier like \"on-*\"", "which matches no tier"),
        ("context.purpose == \"dpv:CustomrCare\"", "did you mean `dpv:CustomerCare`?"),
    ] {
        let ran = said_of(wrong);
        assert_eq!(ran.code, Some(1), "{wrong}");
        assert!(ran.stderr.contains(says), "{wrong}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_template_stops_the_start_and_an_empty_selection_is_an_error() {
    let site = site().await;
    let only = |text: &str| site.run(&["policies", "test", "--only", text]);
    let none = only("nothing at all");
    assert_eq!((none.code, &*none.stdout), (Some(1), ""));
    assert!(none.stderr.contains("no case has `nothing at all`"), "{}", none.stderr);
    assert!(none.stderr.contains("eu-gdpr"), "it names what there is: {}", none.stderr);
    assert!(only("eu-gdrp").stderr.contains("did you mean `eu-gdpr`?"));

    let made = site.run(&["policies", "new", "regime", "mx-law", "--jurisdiction", "MX"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for file in ["sovereignty/mx-law.cedar", "facts/mx-law.toml", "cases/mx-law.toml"] {
        let said = refusal(&site, &[]);
        let place = format!("policies/{file}:");
        assert!(said.contains("the template is not filled in") && said.contains(&place), "{said}");
        let text = site.read(&format!("policies/{file}")).replace("REPLACE", "done");
        site.write(&format!("policies/{file}"), &text);
    }
    assert_eq!(site.run(&["policies", "check", "--strict-sources"]).code, Some(0));
}

/// The command that a fault names does what the fault asks for, although the fault is there.
#[test]
fn an_unknown_licence_leads_to_the_command_that_writes_it() {
    let dir = folder();
    let text = read(&dir, ORGANISATION);
    let other = "license = \"CC-BY-NC-4.0\"";
    write(&dir, ORGANISATION, &text.replace(other, "license = \"proprietary\""));
    let said = check(&dir).stderr;
    let id = "LicenseRef-proprietary";
    assert!(said.contains(&format!("`lexgate policies new licence {id}`")), "{said}");
    let made = Ran::in_dir(dir.path(), &["policies", "new", "licence", id]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    write(&dir, ORGANISATION, &text.replace(other, &format!("license = \"{id}\"")));
    let said = check(&dir).stderr;
    assert!(said.contains("the template is not filled in") && !said.contains("unknown"), "{said}");
}

/// Nothing of the example, an own name, and a service that starts; a hangup does not end it.
#[test]
fn an_organisation_of_one_s_own_starts_under_its_own_name() {
    let dir = TempDir::new();
    let with_scheme = ["init", "--empty", "--origin", "https://log.own.example/main"];
    let refused = Ran::in_dir(dir.path(), &with_scheme);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("write `log.own.example/main`"), "{}", refused.stderr);
    let arguments = ["init", "--empty", "--origin", "log.own.example/main"];
    let made = Ran::in_dir(dir.path(), &arguments);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for word in [
        "declared",
        "virtual model",
        "tier",
        "pack",
        "instrument",
        "snapshot",
        "duty",
        "outcome",
        "placement",
    ] {
        assert!(made.stdout.contains(&format!("\n  {word} ")), "{word}: {}", made.stdout);
    }
    assert!(made.stdout.contains("\n  log.own.example/main+"), "{}", made.stdout);
    assert!(made.stdout.contains("fill in config/organisation.toml"), "{}", made.stdout);
    let bad = TempDir::new();
    let refused = Ran::in_dir(bad.path(), &["init", "--origin", "two words"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);

    let mut child = Command::new(env!("CARGO_BIN_EXE_lexgate"))
        .arg("serve")
        .current_dir(dir.path())
        .env("LEXGATE_SERVER__LISTEN", "127.0.0.1:0")
        .env("LEXGATE_SOMETHING", "else")
        .env_remove("LEXGATE_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut announced = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut announced).unwrap();
    assert!(announced.contains("lexgate listens on"), "{announced}");
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut heard = String::new();
    for (name, says) in [
        ("HUP", "SIGHUP changes nothing"),
        ("USR1", "SIGUSR1 changes nothing"),
        ("QUIT", "SIGQUIT ends the service"),
    ] {
        signal(name, child.id());
        while !heard.contains(says) {
            assert!(log.read_line(&mut heard).unwrap() > 0, "the log ended: {heard}");
        }
    }
    assert!(child.wait().unwrap().success());
    for says in ["declares no app", "LEXGATE_SOMETHING", "\"vkey\":\"log.own.example/main+"] {
        assert!(heard.contains(says), "{says}: {heard}");
    }
}
