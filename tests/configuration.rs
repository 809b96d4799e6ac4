//! What is refused at the start: each fault with its file, its line, what is wrong and what to do.

use std::{
    fmt::Write,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::harness::{Service, Site, Store};

/// How long a service may take to refuse.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = "config/lexgate.toml";
const ORGANISATION: &str = "config/organisation.toml";
const POLICY: &str = "policies/sovereignty/eu-gdpr.cedar";

/// A change of one file that makes it wrong.
enum Change {
    /// Replaces the first of these texts by the second.
    Replace(&'static str, &'static str, &'static str),
    /// Adds text at the end.
    Append(&'static str, &'static str),
    /// Writes the file anew.
    Write(&'static str, &'static str),
    /// Takes the file away.
    Remove(&'static str),
}
use Change::{Append, Remove, Replace, Write as Rewrite};

impl Change {
    fn path(&self) -> &'static str {
        match self {
            Replace(path, ..) | Append(path, _) | Rewrite(path, _) | Remove(path) => path,
        }
    }

    fn apply(&self, site: &Site) {
        match self {
            Replace(path, from, to) => site.replace(path, from, to),
            Append(path, text) => site.append(path, text),
            Rewrite(path, text) => site.write(path, text),
            Remove(path) => fs::remove_file(site.path(path)).unwrap(),
        }
    }
}

/// Starts the service, which must refuse; gives its exit code and what it says.
fn refusal(site: &Site, env: &[(&str, &str)]) -> String {
    let mut command = site.command(&["serve"]);
    command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("`lexgate serve` runs");
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("`lexgate serve` accepts what it should refuse");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let code = child.wait().unwrap().code().expect("an exit code");
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stdout, "", "a service that refuses announces nothing");
    let said = stderr.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    format!("exit {code}\n{said}")
}

async fn site() -> Site {
    Service::setup(Store::Sqlite).prepare().await
}

/// What the service says to each change.
async fn refusals(changes: &[(&str, Change)]) -> String {
    let site = site().await;
    let mut shown = String::new();
    for (name, change) in changes {
        let (path, kept) = (site.path(change.path()), site.path("kept"));
        // A copy, with the permissions that a signing key must have.
        let was_there = fs::copy(&path, &kept).is_ok();
        change.apply(&site);
        writeln!(shown, "# {name}\n{}\n", refusal(&site, &[])).unwrap();
        if was_there {
            fs::rename(&kept, &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
    shown
}

/// What the service says to several changes at once, each of which it must name.
async fn refusal_of_all(name: &str, changes: &[Change]) -> String {
    let site = site().await;
    for change in changes {
        change.apply(&site);
    }
    format!("# {name}\n{}\n\n", refusal(&site, &[]))
}

#[tokio::test]
async fn a_wrong_configuration_is_refused() {
    const KEY: &str =
        "sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"";
    let key = |rest: &str| -> &'static str {
        Box::leak(format!("[[api_keys]]\nname = \"x\"\n{KEY}\n{rest}").into_boxed_str())
    };
    let shown = refusals(&[
        ("no TOML", Append(CONFIG, "[server")),
        ("unknown key", Replace(CONFIG, "listen = ", "listne = ")),
        ("unknown table", Append(CONFIG, "[sever]\nlisten = \"127.0.0.1:0\"")),
        ("wrong type", Replace(CONFIG, "dir = \"policies\"", "dir = 7")),
        ("a log without a name", Replace(CONFIG, "origin = \"lexgate.example/main\"", "")),
        ("an origin that is none", Replace(CONFIG, "lexgate.example/main", "lexgate main")),
        ("missing configuration", Remove(CONFIG)),
        ("missing signing key", Remove("data/ledger.key")),
        ("a signing key that is none", Rewrite("data/ledger.key", "hello")),
        ("missing master key", Remove("data/master.key")),
        ("a master key that is none", Rewrite("data/master.key", "hello")),
        ("missing organisation", Remove(ORGANISATION)),
        ("policies elsewhere", Replace(CONFIG, "dir = \"policies\"", "dir = \"rules\"")),
        ("key of an unknown app", Append(CONFIG, key("roles = [\"caller\"]\napp = \"nobody\""))),
        ("key of a caller without an app", Append(CONFIG, key("roles = [\"caller\"]"))),
        ("key without a role", Append(CONFIG, key("roles = []"))),
        ("key with an unknown role", Append(CONFIG, key("roles = [\"admin\"]"))),
        (
            "key of an unknown jurisdiction",
            Append(CONFIG, key("roles = [\"auditor\"]\njurisdictions = [\"XX\"]")),
        ),
        ("key with an unknown field", Append(CONFIG, key("roles = [\"auditor\"]\nrole = 1"))),
        ("two keys of one name", Append(CONFIG, key("roles = [\"auditor\"]\n[[api_keys]]\nname = \"x\"\nsha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\nroles = [\"officer\"]"))),
        (
            "a digest that is none",
            Append(CONFIG, "[[api_keys]]\nname = \"x\"\nsha256 = \"abc\"\nroles = [\"auditor\"]"),
        ),
        ("a secret in two places", Append(CONFIG, "[secrets.x]\nenv = \"X\"\nfile = \"/run/secrets/x\"")),
        ("a secret itself", Append(CONFIG, "[secrets.x]\nvalue = \"hush\"")),
        ("a secret itself, in its name's place", Replace(CONFIG, "[secrets]", "[secrets]\nx = \"hush\"")),
        ("variables that are no list", Replace(CONFIG, "environment = [", "environment = \"HUSH\"\nother.command = [")),
        ("a secret itself, for a program", Append(CONFIG, "[secrets.x]\ncommand = \"hush\"")),
        ("a file that is refreshed", Append(CONFIG, "[secrets.x]\nfile = \"x\"\nrefresh = \"5m\"")),
        ("no time", Append(CONFIG, "[secrets.x]\ncommand = [\"pass\"]\nrefresh = \"soon\"")),
    ])
    .await;
    assert!(!shown.contains("hush"), "a secret in the wrong place is not shown: {shown}");
    insta::assert_snapshot!("configuration", shown);
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let site = site().await;
    for file in ["data/ledger.key", "data/master.key"] {
        let path = site.path(file);
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = refusal(&site, &[]);
            assert!(said.starts_with("exit 1\n"), "{mode:o}: {said}");
            assert!(said.contains("config/lexgate.toml:"), "{said}");
            assert!(said.contains(&format!("can be read by others: `chmod 600 {file}`")), "{said}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    let service = Service::on(site.into()).await;
    assert!(service.terminate().success());
}

#[tokio::test]
async fn the_environment_overrides_the_file() {
    let setup =
        Service::setup(Store::Sqlite).env("LEXGATE_LEDGER__ORIGIN", "elsewhere.example/log");
    let service = setup.start().await;
    let genesis = service.get("/v1/audit/records/0", "auditor").await.expect(200);
    assert_eq!(genesis["entry"]["log"], "elsewhere.example/log");
    drop(service);

    let site = site().await;
    let mut shown = String::new();
    for (name, value) in [
        ("LEXGATE_SERVER__LISTEN", "nowhere"),
        ("LEXGATE_SERVER__LISTNE", "127.0.0.1:0"),
        ("LEXGATE_STORE__MIGRATE", "perhaps"),
        ("LEXGATE_POLICIES__DIR", "rules"),
        ("LEXGATE_STORE__URL", "mysql://localhost/lexgate"),
        ("LEXGATE_STORE__URL", "sqlite:///proc/lexgate.db"),
    ] {
        writeln!(shown, "# {name}={value}\n{}\n", refusal(&site, &[(name, value)])).unwrap();
    }
    insta::assert_snapshot!("environment", shown);
}

#[tokio::test]
async fn a_store_s_password_is_never_shown() {
    let site = site().await;
    for url in [
        "postgres://lexgate:hunter2@127.0.0.1:1/lexgate",
        "mysql://lexgate:hunter2@127.0.0.1:1/lexgate",
        "postgres://lexgate:hunter2@[",
    ] {
        let said = refusal(&site, &[("LEXGATE_STORE__URL", url), ("LEXGATE_LOG", "debug")]);
        assert!(said.starts_with("exit 3\n"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_environment_s_fault() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refusal(&site().await, &[("LEXGATE_SERVER__LISTEN", &address)]);
    assert!(said.starts_with("exit 3\n"), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[tokio::test]
async fn a_wrong_organisation_is_refused() {
    let file = ORGANISATION;
    let mut shown = refusals(&[
        ("unknown key", Replace(file, "domicile = \"SG\"", "domicle = \"SG\"")),
        ("unknown table", Append(file, "[[tenant]]\nid = \"x\"")),
        ("missing key", Replace(file, "commercial = true\n", "")),
        ("wrong type", Replace(file, "commercial = true", "commercial = \"yes\"")),
        ("negative users", Replace(file, "users = 1_000_000", "users = -1")),
        ("unknown tier", Replace(file, "tier = \"on_device\"", "tier = \"laptop\"")),
        (
            "a key that this machine has not",
            Replace(file, "api_key_env = \"FRANKFURT_API_KEY\"", "api_key = \"frankfurt\""),
        ),
    ])
    .await;
    shown += &refusal_of_all(
        "names that lead nowhere",
        &[
            Replace(file, "side_licences = []", "side_licences = [\"MTI\"]"),
            Replace(
                file,
                "domicile = \"SG\"\ncommercial = false",
                "domicile = \"XX\"\ncommercial = false",
            ),
            Replace(file, "tenant = \"acme\"", "tenant = \"acne\""),
            Replace(file, "[\"eu-us-dpf\"]", "[\"eu-us-dfp\"]"),
            Replace(file, "license = \"Apache-2.0\"", "license = \"Apache\""),
            Replace(file, "model = \"smollm2-135m\"\noperator", "model = \"smollm3\"\noperator"),
            Replace(file, "operator = \"acme\"", "operator = \"acne\""),
            Replace(file, "process = [\"DE\"]", "process = [\"Germany\"]"),
            Replace(file, "\"zero-retention\"", "\"zero-retentoin\""),
            Replace(file, "[\"smollm2@laptop\", ", "[\"smollm2@desktop\", "),
            Replace(file, "kind = \"eu-scc\"", "kind = \"eu-ssc\""),
            Replace(file, "exporter = \"acme\"", "exporter = \"acne\""),
            Replace(file, "recipient = \"meridian-cloud\"", "recipient = \"meridian\""),
        ],
    )
    .await;
    shown += &refusal_of_all(
        "what cannot be so",
        &[
            Replace(file, "id = \"acme-research\"", "id = \"acme\""),
            Replace(file, "store = [\"@location\"]", "store = []"),
            Replace(file, "process = [\"@location\"]", "process = []"),
            Replace(file, "http://127.0.0.1:8091/v1", "127.0.0.1:8091/v1"),
            Replace(file, "http://gpu-frankfurt", "http://user:pass@gpu-frankfurt"),
            Replace(file, "id = \"qwen3-32b@meridian-sg\"", "id = \"qwen3-32b@dashscope-sg\""),
            Replace(file, "valid_until = \"2029-01-01\"", "valid_until = \"2025-01-01\""),
            Replace(file, "valid_until = \"2029-01-01\"", "valid_until = \"1 January 2029\""),
            Append(file, "[[virtual_models]]\nid = \"v\"\ndeployments = []"),
            Append(
                file,
                "[[virtual_models]]\nid = \"hunyuan\"\ndeployments = [\"smollm2@laptop\"]",
            ),
        ],
    )
    .await;
    shown += &refusal_of_all(
        "passes that cannot be",
        &[
            Replace(file, "id = \"smollm2@laptop\"\n", PASSES),
            Replace(
                file,
                "base_url = \"http://127.0.0.1:11434/v1\"",
                "base_url = \"http://127.0.0.1:11434/v1\"\ntenant = \"acne\"",
            ),
        ],
    )
    .await;
    insta::assert_snapshot!("organisation", shown);
}

/// Passes of which each is wrong in its own way.
const PASSES: &str = r#"id = "smollm2@laptop"
passes = [
  { field = "tools.web_search", reaches = ["US"] },
  { field = "tools.web_search", reaches = [] },
  { field = "plugins", reaches = ["XX"] },
  { field = "temperature", reaches = [] },
  { field = "models", reaches = ["US"] },
  { field = "MODEL", reaches = [] },
  { field = "previous_response_id", reaches = [] },
  { field = "a field", reaches = [] },
]
"#;

#[tokio::test]
async fn wrong_facts_are_refused() {
    let (zones, adequacy) = ("policies/facts/zones.toml", "policies/facts/adequacy.toml");
    let (coverage, licences) = ("policies/facts/coverage.toml", "policies/facts/licences.toml");
    let mut shown = refusals(&[
        ("a date that is none", Replace(zones, "checked = \"2026-11-22\"", "checked = \"today\"")),
        ("unknown confidence", Replace(zones, "confidence = \"general\"", "confidence = \"sure\"")),
        ("unknown key", Replace(zones, "name = \"European Union\"", "nane = \"European Union\"")),
        ("unknown table", Append(zones, "[[adequacy]]\nid = \"x\"")),
    ])
    .await;
    shown += &refusal_of_all(
        "names that lead nowhere",
        &[
            Replace(zones, "members = [\"DK\", \"IE\"]", "members = [\"DK\", \"EI\"]"),
            Append(zones, "[[membership]]\nzone = \"EEC\"\nmembers = [\"DE\"]"),
            Replace(adequacy, "set = \"eu-gdpr-art45\"", "set = \"eu-gdpr-art54\""),
            Replace(coverage, "sovereignty/sa-pdpl.cedar", "sovereignty/sa.cedar"),
            Replace(licences, "excluded_zones = [\"EU\"]", "excluded_zones = [\"UE\"]"),
            Replace(licences, "\"x:military\"", "\"x:war\""),
        ],
    )
    .await;
    shown += &refusal_of_all(
        "when, and who says so",
        &[
            Replace(zones, "valid_from = \"1973-01-01\"", "valid_from = \"1973-02-30\""),
            Replace(zones, "source = \"Accession Treaty 1979\"", "source = \" \""),
            Replace(
                zones,
                "valid_from = \"1995-01-01\"",
                "valid_from = \"1995-01-01\"\nvalid_until = \"1994-01-01\"",
            ),
            Rewrite(
                "policies/facts/own.toml",
                "[[zone]]\nid = \"own\"\nname = \"own\"\n[[membership]]\nzone = \"own\"\n\
                 members = [\"DE\"]\nvalid_from = \"2026-01-01\"\nchecked = \"2026-01-01\"\n\
                 confidence = \"general\"\n",
            ),
            Append(
                adequacy,
                "[[finding]]\nset = \"eu-gdpr-art45\"\nmembers = [\"JP\"]\n\
                 valid_from = \"2025-01-01\"",
            ),
            Append(
                licences,
                "[[licence]]\nid = \"MIT\"\nname = \"MIT\"\ncommercial_use = true\n\
                 output_training = true",
            ),
        ],
    )
    .await;
    insta::assert_snapshot!("facts", shown);
}

#[tokio::test]
async fn wrong_licence_ids_are_refused() {
    let file = "policies/facts/licences.toml";
    let facts = [
        Replace(file, "id = \"Apache-2.0\"", "id = \"apache-2.0\""),
        Replace(file, "id = \"MIT\"", "id = \"MITT\""),
        Replace(file, "id = \"CC-BY-NC-4.0\"", "id = \"GPL-2.0\""),
        Replace(file, "id = \"LicenseRef-qwen-research\"", "id = \"LicenseRef-qwen_research\""),
        Replace(file, "id = \"LicenseRef-MRL-0.1\"", "id = \"Mistral Research\""),
    ];
    let mut shown = refusal_of_all("what SPDX's list does not hold", &facts).await;
    let organisation = [
        Replace(ORGANISATION, "license = \"Apache-2.0\"", "license = \"apache-2.0\""),
        Replace(ORGANISATION, "side_licences = []", "side_licences = [\"LicenseRef-llama3\"]"),
    ];
    shown += &refusal_of_all("what the facts do not hold", &organisation).await;
    insta::assert_snapshot!("licences", shown);
}

/// A policy of the test's own, with its first lines and what comes after them.
macro_rules! own {
    ($annotations:literal, $policy:literal) => {
        concat!("@id(\"own\")\n@citation(\"own\")\n", $annotations, $policy)
    };
}

#[tokio::test]
async fn wrong_policies_are_refused() {
    let (base, rbi) = ("policies/base/base.cedar", "policies/sovereignty/in-rbi.cedar");
    let (sa, licensing) =
        ("policies/sovereignty/sa-pdpl.cedar", "policies/licensing/generic.cedar");
    let (own, duties) = ("policies/base/own.cedar", "policies/duties/licences.cedar");
    let mut shown = refusals(&[
        ("half a policy", Append(POLICY, "forbid (principal, action, resource")),
        (
            "a template",
            Rewrite(own, own!("", "permit (principal == ?principal, action, resource);")),
        ),
        ("no schema", Remove("policies/schema.cedarschema")),
        ("a broken schema", Append("policies/schema.cedarschema", "entity Zone2 in [Nowhere];")),
    ])
    .await;
    shown += &refusal_of_all(
        "what every policy says of itself",
        &[
            Replace(POLICY, "unless\n", "unles\n"),
            Replace(rbi, "@id(\"in-rbi-payment-data\")\n", ""),
            Replace(sa, "@id(\"sa-ndmo-classified\")", "@id(\" \")"),
            Replace(licensing, "@citation(\"The model's licence: grant of rights limited to non-commercial use\")\n", ""),
            Replace(base, "@advice(\"Declare what the data is. A call with no personal data says so: personal false, and no categories.\")\n", ""),
            Rewrite(own, own!("@duty(\"own\")", "permit (principal, action, resource);")),
            Append(duties, own!("", "permit (principal, action, resource);")),
        ],
    )
    .await;
    shown += &refusal_of_all(
        "ids that are taken",
        &[
            Replace(POLICY, "@id(\"eu-gdpr-44\")", "@id(\"sa-pdpl-29\")"),
            Replace(rbi, "@id(\"in-rbi-payment-data\")", "@id(\"default-deny\")"),
        ],
    )
    .await;
    shown += &refusal_of_all(
        "against the schema",
        &[
            Replace(POLICY, "context.data.personal", "context.data.persnal"),
            Replace(sa, "context.data.personal", "context.data.categories"),
            Replace(rbi, "principal in Jurisdiction::\"IN\"", "principal in Jurisdction::\"IN\""),
            Replace(
                base,
                "forbid (\n  principal,\n  action in Action::\"use\"",
                "forbid (\n  principal,\n  action in Action::\"usee\"",
            ),
            Rewrite(own, own!("", "permit (principal is Zone, action, resource);")),
        ],
    )
    .await;
    shown += &refusal_of_all(
        "names that lead nowhere",
        &[
            Replace(POLICY, "principal in Zone::\"EEA\"", "principal in Zone::\"EAE\""),
            Replace(POLICY, "Adequacy::\"eu-gdpr-art45\"", "Adequacy::\"eu-gdpr-art54\""),
            Replace(POLICY, "\"eu-tia\"", "\"eu-tai\""),
            Replace(rbi, "\"x:in-payment-system-data\")", "\"x:in-payment-sytem-data\")"),
            Replace(rbi, "principal in Jurisdiction::\"IN\"", "principal in Jurisdiction::\"ID2\""),
            Rewrite(own, own!("", "permit (principal == App::\"nobody\", action, resource);")),
        ],
    )
    .await;
    insta::assert_snapshot!("policies", shown);
}

#[tokio::test]
async fn every_fault_is_said_at_once() {
    let site = site().await;
    site.replace(ORGANISATION, "domicile = \"SG\"", "domicile = \"XX\"");
    site.replace(ORGANISATION, "operator = \"acme\"", "operator = \"acne\"");
    site.replace(POLICY, "@id(\"eu-gdpr-44\")\n", "");
    site.replace("policies/facts/zones.toml", "confidence = \"general\"", "");
    let said = refusal(&site, &[]);
    for fault in ["the policy has no `@id`", "the fact has no `confidence`"] {
        assert!(said.contains(fault), "{said}");
    }
    site.replace("policies/facts/zones.toml", "[defaults]", "[defaults]\nconfidence = \"general\"");
    let said = refusal(&site, &[]);
    for fault in ["the policy has no `@id`", "unknown jurisdiction `XX`", "unknown operator `acne`"]
    {
        assert!(said.contains(fault), "{said}");
    }
}
