//! The commands for whoever writes policies: templates, layout, explanations, and what they say when
//! something is wrong.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Ran, TempDir};

/// A folder as `lexgate init` writes it.
fn folder() -> TempDir {
    let dir = TempDir::new();
    Ran::in_dir(dir.path(), &["init", "--json"]).json();
    dir
}

/// Runs `lexgate policies …` in `dir`.
fn policies(dir: &TempDir, arguments: &[&str]) -> Ran {
    Ran::in_dir(dir.path(), &[&["policies"], arguments].concat())
}

/// What a command says that goes wrong: its exit code, then its output.
fn refusal(ran: &Ran) -> String {
    format!("exit {}\n{}{}", ran.code.unwrap(), ran.stdout, ran.stderr)
}

fn read(dir: &TempDir, path: &str) -> String {
    fs::read_to_string(dir.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn write(dir: &TempDir, path: &str, text: &str) {
    fs::write(dir.path().join(path), text).unwrap();
}

/// How many files the policy folder holds.
fn files(dir: &TempDir) -> usize {
    let folders = ["sovereignty", "facts", "cases", "licensing", "duties", "base"];
    let count = |folder| fs::read_dir(dir.path().join("policies").join(folder)).unwrap().count();
    folders.into_iter().map(count).sum()
}

#[test]
fn templates_pass_as_they_are_written() {
    let dir = folder();
    let before = policies(&dir, &["check", "--json"]).json();
    let regime =
        ["new", "regime", "mx-lfpdppp", "--jurisdiction", "MX", "--name", "Mexico, LFPDPPP"];
    let made = policies(&dir, &[&regime[..], &["--json"]].concat()).json();
    let written =
        ["sovereignty/mx-lfpdppp.cedar", "facts/mx-lfpdppp.toml", "cases/mx-lfpdppp.toml"];
    let written = written.map(|path| format!("policies/{path}"));
    assert_eq!(made, json!({ "written": written, "disagreeing": [] }));
    for path in &written {
        let text = read(&dir, path);
        assert!(text.contains("Mexico, LFPDPPP") && text.contains("REPLACE"), "{text}");
        assert!(!text.contains('%'), "something was not filled in: {text}");
    }
    let made = policies(&dir, &["new", "licence", "LicenseRef-acme-1.0"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let says = "wrote policies/facts/LicenseRef-acme-1.0.toml\n\
                wrote policies/cases/licence-LicenseRef-acme-1.0.toml\n";
    assert!(made.stdout.starts_with(says), "{}", made.stdout);

    let tested = policies(&dir, &["test", "--coverage", "--json"]).json();
    let cases = tested["cases"].as_array().unwrap();
    let of = |name: &str| {
        let place = format!("policies/cases/{name}.toml:");
        cases.iter().filter(|case| case["place"].as_str().unwrap().starts_with(&place)).count()
    };
    assert_eq!((of("mx-lfpdppp"), of("licence-LicenseRef-acme-1.0")), (8, 4));
    assert!(cases.iter().all(|case| case["failure"].is_null()), "{tested:#}");
    assert_eq!(tested["missed"]["policies"], json!([]));
    assert_eq!(tested["missed"]["exceptions"], json!([]));

    let laid_out = policies(&dir, &["fmt", &written[0], "--check"]);
    assert_eq!((laid_out.code, &*laid_out.stdout), (Some(0), "0 files laid out, 1 as before\n"));

    // A template is refused as long as it says what to write, and taken once it does not.
    let refused = policies(&dir, &["check", "--json"]);
    let said: Value = serde_json::from_str(&refused.stdout).unwrap();
    let faults = said["faults"].as_array().unwrap();
    assert_eq!((refused.code, faults.len()), (Some(1), 24), "{said:#}");
    for (file, line) in [(&written[0], 7), (&written[1], 8), (&written[2], 5)] {
        let is_there = |fault: &&Value| fault["file"] == **file && fault["line"] == line;
        let fault = faults.iter().find(is_there).unwrap_or_else(|| panic!("{file}: {said:#}"));
        assert_eq!(fault["message"], "the template is not filled in");
    }
    let licence = ["facts/LicenseRef-acme-1.0", "cases/licence-LicenseRef-acme-1.0"];
    let licence = licence.map(|path| format!("policies/{path}.toml"));
    for path in written.iter().chain(&licence) {
        let text = read(&dir, path);
        let lines =
            text.lines().filter(|line| !line.contains("# REPLACE") && !line.contains("// REPLACE"));
        let text = lines.map(|line| line.replace("REPLACE: ", "") + "\n").collect::<String>();
        write(&dir, path, &text);
    }
    let after = policies(&dir, &["check", "--json"]).json();
    let count = |checked: &Value| checked["policies"].as_u64().unwrap();
    assert_eq!(count(&after), count(&before) + 1);

    // The cases are about the policy: without its ways out, and without it, some fail.
    let policy = "policies/sovereignty/mx-lfpdppp.cedar";
    let text = read(&dir, policy);
    for (from, to, fails) in [
        ("\"mx-lfpdppp-assessment\"", "\"eu-tia\"", "abroad, with the contract and the assessment"),
        ("Adequacy::\"mx-lfpdppp-adequate\"", "Adequacy::\"eu-us-dpf\"", "finds adequate one day"),
        ("principal in Jurisdiction::\"MX\"", "principal in Jurisdiction::\"US\"", "without any"),
    ] {
        write(&dir, policy, &text.replacen(from, to, 1));
        let said = policies(&dir, &["test", "--only", "mx-lfpdppp"]);
        assert!(said.code == Some(1) && said.stdout.contains(fails), "{from}: {}", said.stdout);
    }
}

#[test]
fn a_template_that_has_no_place_is_refused() {
    let dir = folder();
    let before = files(&dir);
    let mut shown = String::new();
    for arguments in [
        &["regime", "Mexico", "--jurisdiction", "MX"][..],
        &["regime", "mx--law", "--jurisdiction", "MX"],
        &["regime", "../mx", "--jurisdiction", "MX"],
        &["regime", "mx-law", "--jurisdiction", "Mexico"],
        &["regime", "mx-law", "--jurisdiction", "XX"],
        &["regime", "de-law", "--jurisdiction", "DE"],
        &["regime", "sa-law", "--jurisdiction", "SA"],
        &["regime", "eu-gdpr", "--jurisdiction", "MX"],
        &["regime", "mx-law", "--jurisdiction", "MX", "--name", "the \"law\""],
        &["licence", "MIT"],
        &["licence", "Acme 1.0"],
        &["licence", "LicenseRef-acme", "--name", " "],
    ] {
        let ran = policies(&dir, &[&["new"], arguments].concat());
        writeln!(shown, "# {}\n{}", arguments.join(" "), refusal(&ran)).unwrap();
    }
    assert_eq!(files(&dir), before, "something was written");
    insta::assert_snapshot!("new_refused", shown);
}

#[test]
fn a_template_is_not_written_into_a_folder_that_is_broken() {
    let dir = folder();
    let base = "policies/base/base.cedar";
    write(&dir, base, &read(&dir, base).replace("resource.approved", "resource.aproved"));
    let before = files(&dir);
    let ran = policies(&dir, &["new", "regime", "mx-law", "--jurisdiction", "MX"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("did you mean `approved`?"), "{}", ran.stderr);
    // Nor where the base's permits, on which it stands, are gone.
    write(&dir, base, &read(&dir, base).replace("resource.aproved", "!resource.approved"));
    let ran = policies(&dir, &["new", "regime", "mx-law", "--jurisdiction", "MX"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("nothing is written: the template does not"), "{}", ran.stderr);
    assert_eq!(files(&dir), before);
}

#[test]
fn a_template_says_which_cases_expect_otherwise() {
    let dir = folder();
    let base = "policies/cases/base.toml";
    let tomorrow = "[case.given]\nat = \"2999-01-01\"\n";
    write(&dir, base, &read(&dir, base).replace("[case.given]\n", tomorrow));
    let ran = policies(&dir, &["new", "regime", "ar-law", "--jurisdiction", "AR"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("expected otherwise before:\n  policies/cases/base.toml:"));
    assert!(dir.path().join("policies/sovereignty/ar-law.cedar").exists());
}

#[test]
fn policies_are_laid_out_and_say_what_they_said() {
    let dir = folder();
    let file = "policies/base/own.cedar";
    let crowded = "// Ours.\n\n@id(\"own\")@citation(\"House rule 7\") // of 2026\n\
        permit(principal,action==Action::\"fineTune\",resource)when{resource.approved};\n";
    write(&dir, file, crowded);
    let before = policies(&dir, &["check", "--json"]).json();
    let check = policies(&dir, &["fmt", "--check"]);
    assert_eq!(check.code, Some(1));
    assert!(check.stdout.contains(&format!("would change {file}\n")), "{}", check.stdout);
    assert!(check.stderr.ends_with("error: 1 file would change\n"), "{}", check.stderr);
    assert_eq!(read(&dir, file), crowded, "a check writes nothing");
    let one = policies(&dir, &["fmt", file, "--json"]).json();
    assert_eq!(one, json!({ "changed": [file], "faults": [] }));
    insta::assert_snapshot!("laid_out", read(&dir, file));

    let all = policies(&dir, &["fmt", "policies"]);
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let again = policies(&dir, &["fmt", "policies", "--check"]);
    assert_eq!(again.code, Some(0), "{}", again.stdout);
    assert!(again.stdout.starts_with("0 files laid out, "), "{}", again.stdout);
    let after = policies(&dir, &["check", "--json"]).json();
    assert_eq!((&after["policies"], &after["facts"]), (&before["policies"], &before["facts"]));
    assert_eq!(policies(&dir, &["test", "--only", "sa-pdpl"]).code, Some(0));

    // What does not parse stays as it is, and the others do not wait for it.
    write(&dir, file, "permit (principal, action, resource)\nwhen { 1 + };\n");
    let other = "policies/sovereignty/sa-pdpl.cedar";
    write(&dir, other, &read(&dir, other).replace("when { context", "when {context"));
    let ran = policies(&dir, &["fmt"]);
    assert_eq!((ran.code, ran.stdout), (Some(1), format!("laid out {other}\n")));
    assert!(ran.stderr.contains(&format!("{file}:2:")), "{}", ran.stderr);
    assert!(read(&dir, file).contains("1 + }"));
    let none = policies(&dir, &["fmt", "nowhere"]);
    assert!(none.code == Some(1) && none.stderr.contains("nowhere"), "{}", none.stderr);
}

/// A test in the form of `cedar run-tests`: may data of `from` go to Singapore?
fn cedar_test(name: &str, from: &str, decision: &str, reason: &[&str]) -> Value {
    let uid = |kind: &str, id: &str| json!({ "type": kind, "id": id });
    let entity = |kind: &str, id: &str, attrs: Value, parents: Vec<Value>| json!({ "uid": uid(kind, id), "attrs": attrs, "parents": parents });
    let licence = json!({
        "commercialUse": true, "outputTraining": true,
        "excludedTerritories": [], "excludedPurposes": [],
    });
    let tenant = json!({
        "domicile": uid("Jurisdiction", "SG"), "commercial": true, "monthlyActiveUsers": 1,
        "monthlyRevenueUsd": 1, "annualRevenueUsd": 1, "sideLicences": [],
    });
    let deployment = json!({
        "model": uid("Model", "m"), "operator": uid("Operator", "o"), "tier": "remote",
        "approved": true, "retentionHours": 0, "safeguards": [],
    });
    json!({
        "name": name,
        "request": {
            "principal": format!("Jurisdiction::\"{from}\""),
            "action": "Action::\"process\"",
            "resource": "Jurisdiction::\"SG\"",
            "context": {
                "data": { "classified": true, "personal": true, "categories": [] },
                "purpose": "", "instruments": [],
                "volume": { "subjects": 1, "sensitiveSubjects": 0 },
                "tenant": uid("Tenant", "t"), "deployment": uid("Deployment", "d"),
            },
        },
        "entities": [
            entity("Jurisdiction", "DE", json!({}), vec![uid("Zone", "EEA"), uid("Zone", "covered")]),
            entity("Jurisdiction", "SG", json!({}), vec![]),
            entity("License", "l", licence, vec![]),
            entity("Tenant", "t", tenant, vec![]),
            entity("Operator", "o", json!({ "seat": uid("Jurisdiction", "SG"), "certifications": [] }), vec![]),
            entity("Model", "m", json!({ "license": uid("License", "l"), "provider": "p", "modalities": [] }), vec![]),
            entity("Deployment", "d", deployment, vec![]),
        ],
        "decision": decision,
        "reason": reason,
        "num_errors": 0,
    })
}

#[test]
fn tests_of_cedar_s_own_form_count_as_cases() {
    let dir = folder();
    let file = "policies/cases/cedar.json";
    let pass = cedar_test("abroad", "DE", "deny", &["eu-gdpr-44"]);
    write(&dir, file, &json!([pass]).to_string());
    let tested = policies(&dir, &["test", "--only", "cedar", "--json"]).json();
    let passed =
        json!([{ "place": "policies/cases/cedar.json:1", "name": "abroad", "failure": null }]);
    assert_eq!(tested["cases"], passed);

    // The entities may lie beside it; no name is needed, and what others note is not read.
    let mut apart = cedar_test("", "DE", "deny", &[]);
    fs::create_dir(dir.path().join("policies/cases/entities")).unwrap();
    write(&dir, "policies/cases/entities/all.json", &apart["entities"].to_string());
    apart["entities"] = json!("policies/cases/entities/all.json");
    apart["note"] = json!("for the reader");
    apart.as_object_mut().unwrap().remove("name");
    let mut fails = pass.clone();
    fails["num_errors"] = json!(2);
    let mut elsewhere = cedar_test("an action of another schema", "DE", "deny", &[]);
    elsewhere["request"]["action"] = json!("Action::\"view\"");
    let mut nobody = cedar_test("a principal that is none", "DE", "deny", &[]);
    nobody["request"]["principal"] = json!("Germany");
    let mut spare = cedar_test("a context with something more", "DE", "deny", &[]);
    spare["request"]["context"]["more"] = json!(1);
    let tests = json!([
        pass,
        apart,
        cedar_test("allowed?", "DE", "allow", &["base-flow"]),
        cedar_test("by another policy", "DE", "deny", &["sa-pdpl-29", "eu-gdpr-44"]),
        cedar_test("at home", "SG", "allow", &["base-flow"]),
        fails,
        elsewhere,
        nobody,
        spare,
    ]);
    write(&dir, "mine.json", &serde_json::to_string_pretty(&tests).unwrap());
    let only = &["test", "--only", "json:", "--cedar-tests", "mine.json"];
    insta::assert_snapshot!("cedar_tests", refusal(&policies(&dir, only)));
}

#[test]
fn tests_of_cedar_s_own_form_that_cannot_be_read_are_faults() {
    let dir = folder();
    let good = cedar_test("abroad", "DE", "deny", &[]);
    let mut shown = String::new();
    let with = |field: &str, value: Value| {
        let mut test = good.clone();
        test[field] = value;
        serde_json::to_string_pretty(&json!([good, test])).unwrap()
    };
    for (name, text) in [
        ("half", "[\n  {".to_owned()),
        ("no array", json!({}).to_string()),
        ("another decision", with("decision", json!("perhaps"))),
        ("no request", with("request", json!({}))),
        ("entities elsewhere", with("entities", json!("../facts/zones.toml"))),
        ("entities nowhere", with("entities", json!("nowhere.json"))),
    ] {
        write(&dir, "policies/cases/own.json", &text);
        let ran = policies(&dir, &["test", "--only", "own"]);
        writeln!(shown, "# {name}\n{}", refusal(&ran)).unwrap();
    }
    insta::assert_snapshot!("cedar_tests_refused", shown);
}

#[test]
fn a_policy_is_explained_with_its_facts_and_its_cases() {
    let dir = folder();
    for id in ["kr-pipa-28-8", "licence-attribution-cc-by-nc", "base-flow"] {
        let ran = policies(&dir, &["explain", id]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        for part in ["policies/", "by  ", "@id(", "These cases name it:\n  "] {
            assert!(ran.stdout.contains(part), "{id}: {}", ran.stdout);
        }
    }
    policies(&dir, &["new", "regime", "mx-law", "--jurisdiction", "MX", "--json"]).json();
    let facts = "policies/facts/mx-law.toml";
    let findings = "[[finding]]\nset = \"mx-law-adequate\"\nmembers = [\"CL\"]\n\
        valid_from = \"2020-01-01\"\nvalid_until = \"2021-01-01T12:00:00Z\"\nsource = \"a gazette\"\n\
        confidence = \"primary\"\n\
        [[finding]]\nset = \"mx-law-adequate\"\nzones = [\"EEA\"]\nvalid_from = \"2999-01-01\"\n";
    let text = read(&dir, facts) + findings;
    let today = text.lines().find_map(|line| line.strip_prefix("valid_from = ")).unwrap();
    write(&dir, facts, &text.replace(today, "\"2026-11-22\""));
    let ran = policies(&dir, &["explain", "mx-law-transfer"]);
    insta::assert_snapshot!("explain", ran.stdout);

    let said = policies(&dir, &["explain", "licence-attribution-cc-by-nc", "--json"]).json();
    assert_eq!(said["effect"], "permit");
    assert!(said["duty"].as_str().unwrap().contains("name its creator"), "{said:#}");
    let row = &said["names"][0];
    assert_eq!((&row["kind"], &row["id"]), (&json!("License"), &json!("CC-BY-NC-4.0")));
    assert_eq!(row["facts"][0]["says"], "commerce: no; answers may train models: yes");
    assert_eq!(row["facts"][0]["valid_from"], "2013-11-25T00:00:00Z");
    assert!(!said["cases"].as_array().unwrap().is_empty(), "{said:#}");

    let ran = policies(&dir, &["explain", "eu-gdpr-45"]);
    assert_eq!(ran.code, Some(2));
    let says = "error: there is no policy `eu-gdpr-45`: did you mean `eu-gdpr-44`, ";
    assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
}

/// A process that ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends each line that a process writes.
fn send_lines(output: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
}

#[test]
fn a_watched_folder_is_checked_again_after_every_change() {
    let dir = folder();
    for (command, passes) in [("check", "policies are valid"), ("test", "cases passed")] {
        let mut watching = Command::new(env!("CARGO_BIN_EXE_lexgate"));
        watching.args(["policies", command, "policies", "--watch"]).current_dir(dir.path());
        watching.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut watching = Running(watching.spawn().unwrap());
        let (sender, lines) = mpsc::channel();
        send_lines(watching.0.stderr.take().unwrap(), sender.clone());
        send_lines(watching.0.stdout.take().unwrap(), sender);
        // In any order: the two streams are read apart.
        let wait_for = |texts: &[&str]| {
            let mut open = texts.to_vec();
            while !open.is_empty() {
                let line = lines.recv_timeout(Duration::from_secs(120));
                let line = line.unwrap_or_else(|_| panic!("{command}: {open:?} never came"));
                open.retain(|text| !line.contains(text));
            }
        };
        let waits = "waiting for a change in `policies`";
        wait_for(&[passes, waits]);
        let file = "policies/base/own.cedar";
        write(&dir, file, "permit (principal, action, resource);\n");
        wait_for(&["base/own.cedar:1:1", "1 fault found", waits]);
        fs::remove_file(dir.path().join(file)).unwrap();
        wait_for(&[passes, waits]);
    }
    let ran = policies(&dir, &["check", "nowhere", "--watch"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot watch `nowhere`"), "{}", ran.stderr);
}
