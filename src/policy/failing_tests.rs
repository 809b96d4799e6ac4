//! Policies that fail, and requests that none permits: closed by default, where Cedar alone is not.

use cedar_policy::Decision;

use super::{engine_tests::judge_flow, slice::Judgement};

/// A policy that strict validation accepts and that fails all the same.
const OVERFLOW: &str = "when { context.deployment.retentionHours + 9223372036854775807 > 0 };";
const PERMIT_ALL: &str = r#"@id("all") @citation("c") permit (principal, action, resource);"#;

#[test]
fn a_forbid_that_fails_denies_where_cedar_alone_allows() {
    let forbid = format!(
        r#"{PERMIT_ALL} @id("limit") @citation("c") @advice("a")
           forbid (principal, action in Action::"transfer", resource) {OVERFLOW}"#
    );
    let (judgement, cedar) = judge_flow(&forbid);
    assert_eq!(cedar, Decision::Allow, "the test rests on Cedar skipping what fails");
    assert!(!judgement.allowed);
    assert_eq!(judgement.failures.len(), 1);
    assert_eq!(judgement.failures[0].0.as_str(), "limit");
    assert!(judgement.failures[0].1.contains("overflow"), "{:?}", judgement.failures);
}

#[test]
fn a_permit_that_fails_denies_though_another_permits() {
    let permit = format!(
        r#"{PERMIT_ALL} @id("limit") @citation("c") permit (principal, action in Action::"transfer", resource) {OVERFLOW}"#
    );
    let (judgement, cedar) = judge_flow(&permit);
    assert_eq!(cedar, Decision::Allow);
    assert!(!judgement.allowed);
    assert_eq!(judgement.failures[0].0.as_str(), "limit");
}

#[test]
fn nothing_is_allowed_that_no_permit_names() {
    let (judgement, _) = judge_flow("");
    let nothing = Judgement { allowed: false, policies: vec![], failures: vec![] };
    assert_eq!(judgement, nothing);
    let elsewhere =
        r#"@id("p") @citation("c") permit (principal, action in Action::"use", resource);"#;
    assert_eq!(judge_flow(elsewhere).0, nothing);
}
