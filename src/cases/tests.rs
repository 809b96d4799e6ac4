//! The runner against policies whose answers are plain.

use super::*;
use crate::source::{Faults, SourceFile};

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

fn judged(
    policies: &[SourceFile],
    organisation: Option<&SourceFile>,
    cases: Vec<Case>,
    coverage: bool,
) -> Result<Tested, Faults> {
    let own = Own::new(organisation, &cases);
    test(policies, &own, cases, coverage)
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
    let tested = judged(&files(), None, cases(&text), true).unwrap();
    assert!(tested.outcomes.iter().all(|outcome| outcome.failure.is_none()), "{tested:?}");
    let missed = tested.missed.unwrap();
    assert_eq!(missed.policies, Vec::<String>::new());
    let [(policy, unless)] = &missed.branches[..] else { panic!("{missed:?}") };
    assert_eq!((policy.as_str(), tested.points), ("eu", 4));
    assert!(unless.contains("eu-bcr") && !unless.contains("eu-scc"), "{unless}");

    let tested =
        judged(&files(), None, cases(&(text + &case("rules", "\"eu-bcr\"", "allow"))), true);
    assert_eq!(tested.unwrap().missed, Some(Missed::default()));

    let tested = judged(&files(), None, cases(&case("wrong", "", "allow")), false).unwrap();
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
    for outcome in judged(&files(), None, cases(&text), false).unwrap().outcomes {
        assert_eq!(outcome.failure, None, "{}", outcome.name);
    }
}

#[test]
fn what_is_wrong_in_a_case_is_said_at_its_place() {
    let unknown = case("first", "", "deny") + &case("second", "\"eu-scs\"", "deny");
    let faults = judged(&files(), None, cases(&unknown), false).unwrap_err().to_string();
    assert!(faults.contains("cases/eu.toml:13:1: case “second”: "), "{faults}");
    assert!(faults.contains("eu-scs"), "{faults}");
    let bad = case("first", "", "perhaps");
    let faults = Case::load(&[SourceFile::new("cases/eu.toml", &bad)]).unwrap_err().to_string();
    assert!(faults.contains("cases/eu.toml:4:10"), "{faults}");
}

#[test]
fn a_policy_that_names_one_s_own_has_cases_of_its_own() {
    const OWN: &str = r#"
@id("desk") @citation("House rule 3") @advice("ask") 
forbid (principal == App::"desk", action == Action::"infer", resource)
when { resource.model == Model::"gpt" && resource.operator == Operator::"northwind" };
"#;
    let mut policies = files();
    policies.push(SourceFile::new("own.cedar", OWN));
    let named = |expect: &str, app: &str, model: &str| {
        let policy = if expect == "deny" { "desk" } else { "base" };
        format!(
            r#"
[[case]]
name = "{app} and {model}"
expect = "{expect}"
policies = ["{policy}"]
source = "House rule 3"
[case.given]
action = "infer"
app = {{ id = "{app}" }}
data = {{ personal = false, categories = [], subjects = [] }}
candidate = {{ model = "{model}", tier = "remote", process = ["SG"], store = ["SG"], operator = {{ id = "northwind", seat = "SG" }} }}
"#
        )
    };
    let text = named("deny", "desk", "gpt")
        + &named("allow", "desk", "qwen")
        + &named("allow", "other", "gpt");
    let tested =
        judged(&policies, None, cases(&(text.clone() + &case("no paper", "", "deny"))), false)
            .unwrap();
    for outcome in &tested.outcomes {
        assert_eq!(outcome.failure, None, "{}", outcome.name);
    }
    // With an organisation, what neither it nor a case declares is a slip.
    let organisation = SourceFile::new("organisation.toml", "");
    assert!(judged(&policies, Some(&organisation), cases(&text), false).is_ok());
    let without_desk = named("allow", "other", "gpt");
    let faults = judged(&policies, Some(&organisation), cases(&without_desk), false).unwrap_err();
    assert!(faults.to_string().contains("names App::\"desk\", which nothing declares"), "{faults}");
    // One that has faults is not yet an organisation: cases can be judged before it is right.
    let broken = SourceFile::new("organisation.toml", "[[apps]]\nid = 1\n");
    assert!(judged(&policies, Some(&broken), cases(&without_desk), false).is_ok());
}
