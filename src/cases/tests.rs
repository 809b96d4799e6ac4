//! The runner against policies whose answers are plain.

use super::*;
use crate::domain::SourceFile;

const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
const FACTS: &str = r#"
[defaults]
valid_from = "2020-01-01"
source = "a test"
checked = "2026-11-22"
confidence = "primary"
[[jurisdiction]]
code = "DE"
name = "Germany"
[[jurisdiction]]
code = "SG"
name = "Singapore"
[[zone]]
id = "EU"
name = "EU"
[[membership]]
zone = "EU"
members = ["DE"]
[[licence]]
id = "Apache-2.0"
name = "Apache"
commercial_use = true
output_training = true
[[term]]
kind = "instrument"
id = "eu-scc"
label = "clauses"
[[term]]
kind = "instrument"
id = "eu-bcr"
label = "rules"
"#;
const POLICIES: &str = r#"
@id("base") @citation("c")
permit (principal, action, resource);
@id("eu") @citation("GDPR") @advice("stay")
forbid (principal in Zone::"EU", action in Action::"transfer", resource)
when { !(resource in Zone::"EU") }
unless { context.instruments.contains("eu-scc") || context.instruments.contains("eu-bcr") };
"#;

fn files() -> Vec<SourceFile> {
    vec![
        SourceFile::new("schema.cedarschema", SCHEMA),
        SourceFile::new("facts/world.toml", FACTS),
        SourceFile::new("base.cedar", POLICIES),
    ]
}

fn cases(text: &str) -> Vec<Case> {
    Case::load(&[SourceFile::new("cases/eu.toml", text)]).unwrap()
}

fn case(name: &str, instruments: &str, expect: &str) -> String {
    format!(
        r#"
[[case]]
name = "{name}"
expect = "{expect}"
policies = ["{}"]
source = "GDPR"
[case.given]
action = "infer"
data = {{ personal = true, categories = [], subjects = ["DE"] }}
instruments = [{instruments}]
candidate = {{ tier = "remote", process = ["SG"], store = ["SG"], operator = {{ seat = "SG" }} }}
"#,
        if expect == "deny" { "eu" } else { "base" }
    )
}

#[test]
fn cases_pass_fail_and_leave_things_unshown() {
    let text = case("no paper", "", "deny") + &case("clauses", "\"eu-scc\"", "allow");
    let tested = test(&files(), cases(&text), true).unwrap();
    assert!(tested.outcomes.iter().all(|outcome| outcome.failure.is_none()), "{tested:?}");
    let missed = tested.missed.unwrap();
    assert_eq!(missed.policies, Vec::<String>::new());
    let [(policy, unless)] = &missed.branches[..] else { panic!("{missed:?}") };
    assert_eq!((policy.as_str(), tested.points), ("eu", 4));
    assert!(unless.contains("eu-bcr") && !unless.contains("eu-scc"), "{unless}");

    let tested = test(&files(), cases(&(text + &case("rules", "\"eu-bcr\"", "allow"))), true);
    assert_eq!(tested.unwrap().missed, Some(Missed::default()));

    let tested = test(&files(), cases(&case("wrong", "", "allow")), false).unwrap();
    let failure = tested.outcomes[0].failure.as_deref().unwrap();
    assert!(failure.starts_with("expected allow by base\n      got deny"), "{failure}");
    assert!(failure.contains("eu forbids process DE → SG, store DE → SG"), "{failure}");
}

#[test]
fn an_instrument_may_be_past_or_somebody_else_s() {
    let past = r#"{ kind = "eu-scc", valid_until = "2026-11-22" }"#;
    let other = r#"{ kind = "eu-scc", with_operator = false }"#;
    let now = r#"{ kind = "eu-scc", valid_until = "2026-11-23" }"#;
    let text =
        case("past", past, "deny") + &case("other", other, "deny") + &case("now", now, "allow");
    for outcome in test(&files(), cases(&text), false).unwrap().outcomes {
        assert_eq!(outcome.failure, None, "{}", outcome.name);
    }
}

#[test]
fn what_is_wrong_in_a_case_is_said_at_its_place() {
    let unknown = case("first", "", "deny") + &case("second", "\"eu-scs\"", "deny");
    let faults = test(&files(), cases(&unknown), false).unwrap_err().to_string();
    assert!(faults.contains("cases/eu.toml:13:1: case “second”: "), "{faults}");
    assert!(faults.contains("eu-scs"), "{faults}");
    let bad = case("first", "", "perhaps");
    let faults = Case::load(&[SourceFile::new("cases/eu.toml", &bad)]).unwrap_err().to_string();
    assert!(faults.contains("cases/eu.toml:4:10"), "{faults}");
}
