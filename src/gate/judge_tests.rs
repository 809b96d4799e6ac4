//! What is judged, by the shipped policies and by small ones: closed by default.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::Judge;
use crate::{
    domain::{
        Action, AppId, CallRequest, DataRequest, Effect, Evaluation, FieldFault, Revision, Verdict,
    },
    facts::{Proposal, Snapshot},
    policy::{DEFAULT_DENY, EVALUATION_ERROR},
    source::SourceFile,
};

const NOW: &str = "2026-11-22T13:00:00Z";

fn collect(root: &Path, folder: &Path, found: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|kind| kind != "md") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.push(SourceFile::new(name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
}

pub(super) fn shipped_policies() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files = Vec::new();
    for folder in ["base", "sovereignty", "licensing", "duties", "facts"] {
        collect(&root, &root.join(folder), &mut files);
    }
    let schema = std::fs::read_to_string(root.join("schema.cedarschema")).unwrap();
    files.push(SourceFile::new("schema.cedarschema", &schema));
    files
}

fn shipped_organisation() -> SourceFile {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/organisation.toml");
    SourceFile::new("organisation.toml", &std::fs::read_to_string(path).unwrap())
}

pub(super) fn judge_of(policies: &[SourceFile]) -> Judge {
    let proposal = Proposal::load(policies, shipped_organisation());
    let proposal = proposal.unwrap_or_else(|faults| panic!("{faults}"));
    let now: Timestamp = NOW.parse().unwrap();
    Judge::new(Arc::new(Snapshot::at(&proposal, now, Revision(1)).unwrap()))
}

/// The shipped policies without the base pack, and with `base` in its place.
pub(super) fn judge_with_base(base: &str) -> Judge {
    let mut files = shipped_policies();
    files.retain(|file| !file.path.starts_with("base/"));
    files.push(SourceFile::new("base/base.cedar", base));
    judge_of(&files)
}

/// The shipped policies and one more pack.
pub(super) fn judge_with(pack: &str) -> Judge {
    let mut files = shipped_policies();
    files.push(SourceFile::new("sovereignty/test.cedar", pack));
    judge_of(&files)
}

pub(super) fn call(data: Option<DataRequest>) -> CallRequest {
    CallRequest {
        passes: Vec::new(),
        modalities: Vec::new(),
        action: Action::Infer,
        model: Some("assistant".to_owned()),
        deployment: None,
        data,
        purpose: Some("dpv:ServiceProvision".to_owned()),
        audience: None,
        location: None,
        end_user: None,
    }
}

pub(super) fn data(personal: bool, categories: &[&str], subjects: &[&str]) -> DataRequest {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    DataRequest {
        personal,
        categories: texts(categories),
        subjects: texts(subjects),
        subject_count: None,
        location: None,
    }
}

fn german() -> CallRequest {
    call(Some(data(true, &["dpv-pd:Contact"], &["DE"])))
}

fn evaluate(judge: &Judge, request: &CallRequest) -> Evaluation {
    let app: AppId = "support-copilot".into();
    let judged = judge.judge_afresh(&app, request, &[]);
    judged.unwrap_or_else(|faults| panic!("{faults:?}")).evaluation
}

fn reasons(evaluation: &Evaluation) -> Vec<&str> {
    evaluation.reasons.iter().map(|reason| reason.policy.as_str()).collect()
}

/// Every candidate is denied, with no route, and these are the reasons.
#[track_caller]
fn assert_denied(evaluation: &Evaluation, policies: &[&str]) {
    assert_eq!(evaluation.decision, Verdict::Deny);
    assert_eq!(evaluation.route, None);
    assert!(evaluation.duties.is_empty());
    assert!(!evaluation.candidates.is_empty());
    assert!(evaluation.candidates.iter().all(|candidate| candidate.decision == Verdict::Deny));
    assert_eq!(reasons(evaluation), policies);
    assert!(evaluation.reasons.iter().all(|reason| reason.effect == Effect::Forbid));
    assert!(evaluation.reasons.iter().all(|reason| !reason.citation.is_empty()));
}

fn faults(request: &CallRequest) -> Vec<FieldFault> {
    let judge = judge_of(&shipped_policies());
    let app: AppId = "support-copilot".into();
    judge.judge_afresh(&app, request, &[]).expect_err("the call names something unknown")
}

#[test]
fn the_shipped_policies_let_a_declared_call_pass() {
    // What the tests below take away from this call is what denies them.
    let evaluation = evaluate(&judge_of(&shipped_policies()), &german());
    assert_eq!(evaluation.decision, Verdict::Allow, "{evaluation:?}");
    let route = evaluation.route.unwrap();
    assert_eq!(route.deployment.as_str(), "smollm2@laptop");
    assert_eq!(route.jurisdictions, ["DE".parse().unwrap()]);
}

#[test]
fn without_a_permit_the_default_denies() {
    let german =
        || CallRequest { model: None, deployment: Some("smollm2@laptop".to_owned()), ..german() };
    let nothing = evaluate(&judge_with_base(""), &german());
    assert_denied(&nothing, &[DEFAULT_DENY]);
    // The use alone is not enough, nor are the flows alone.
    let uses = r#"@id("uses") @citation("c") permit (principal is App, action, resource);"#;
    let evaluation = evaluate(&judge_with_base(uses), &german());
    assert_denied(&evaluation, &[DEFAULT_DENY]);
    assert!(evaluation.reasons[0].places.iter().all(|place| place.flow.is_some()));
    let flows =
        r#"@id("flows") @citation("c") permit (principal is Jurisdiction, action, resource);"#;
    let evaluation = evaluate(&judge_with_base(flows), &german());
    assert_denied(&evaluation, &[DEFAULT_DENY]);
    assert!(evaluation.reasons[0].places.iter().all(|place| place.flow.is_none()));
    // The shipped policies permit neither training nor distillation.
    for action in [Action::FineTune, Action::Distil] {
        let request = CallRequest { action, ..german() };
        let evaluation = evaluate(&judge_of(&shipped_policies()), &request);
        assert_eq!(evaluation.decision, Verdict::Deny);
        assert!(reasons(&evaluation).contains(&DEFAULT_DENY));
    }
}

#[test]
fn undeclared_data_goes_nowhere() {
    let evaluation = evaluate(&judge_of(&shipped_policies()), &call(None));
    assert_denied(&evaluation, &["base-unclassified"]);
}

#[test]
fn personal_data_of_nobody_goes_nowhere() {
    let judge = judge_of(&shipped_policies());
    let evaluation = evaluate(&judge, &call(Some(data(true, &[], &[]))));
    assert_denied(&evaluation, &["base-unclassified"]);
    let placed = DataRequest { location: Some("DE".to_owned()), ..data(true, &[], &[]) };
    assert_eq!(evaluate(&judge, &call(Some(placed))).decision, Verdict::Allow);
}

#[test]
fn categories_without_an_origin_go_nowhere() {
    let judge = judge_of(&shipped_policies());
    let secret = data(false, &["x:in-payment-system-data"], &[]);
    assert_denied(&evaluate(&judge, &call(Some(secret))), &["base-unclassified"]);
    assert_eq!(evaluate(&judge, &call(Some(data(false, &[], &[])))).decision, Verdict::Allow);
}

#[test]
fn personal_data_of_a_jurisdiction_without_a_pack_stays_there() {
    let judge = judge_of(&shipped_policies());
    let pinned = |deployment: &str, location: &str| CallRequest {
        model: None,
        deployment: Some(deployment.to_owned()),
        location: Some(location.to_owned()),
        ..call(Some(data(true, &[], &["AR"])))
    };
    let abroad = evaluate(&judge, &pinned("mistral-small@dc-frankfurt", "AR"));
    assert_denied(&abroad, &["base-uncovered"]);
    let away = evaluate(&judge, &pinned("smollm2@laptop", "DE"));
    assert_denied(&away, &["base-uncovered"]);
    let at_home = evaluate(&judge, &pinned("smollm2@laptop", "AR"));
    assert_eq!(at_home.decision, Verdict::Allow, "{at_home:?}");
    // One uncovered subject among covered ones is enough.
    let mixed = CallRequest { data: Some(data(true, &[], &["DE", "AR"])), ..german() };
    assert_denied(&evaluate(&judge, &mixed), &["base-uncovered", "eu-gdpr-44"]);
}

#[test]
fn a_jurisdiction_whose_pack_is_gone_is_closed_again() {
    let mut files = shipped_policies();
    files.retain(|file| &*file.path != "sovereignty/sa-pdpl.cedar");
    let faults = Proposal::load(&files, shipped_organisation()).expect_err("coverage without pack");
    assert!(faults.to_string().contains("sovereignty/sa-pdpl.cedar"), "{faults}");
    for file in &mut files {
        if &*file.path == "facts/coverage.toml" {
            let (before, _) =
                file.text.split_once("[[coverage]]\npack = \"sovereignty/sa-").unwrap();
            file.text = before.into();
        }
    }
    let request = CallRequest {
        deployment: Some("mistral-small@dc-frankfurt".to_owned()),
        model: None,
        ..call(Some(data(true, &[], &["SA"])))
    };
    assert_denied(&evaluate(&judge_of(&files), &request), &["base-uncovered"]);
}

/// Strict validation accepts it; for a tenant with any revenue it fails.
const OVERFLOW: &str = "when { context.tenant.annualRevenueUsd + 9223372036854775807 > 0 };";

#[test]
fn a_policy_that_fails_denies_and_is_named() {
    let scope = r#"(principal, action in Action::"transfer", resource)"#;
    for policy in [
        format!(r#"@id("limit") @citation("c") @advice("a") forbid {scope} {OVERFLOW}"#),
        format!(r#"@id("limit") @citation("c") permit {scope} {OVERFLOW}"#),
    ] {
        let evaluation = evaluate(&judge_with(&policy), &german());
        assert_eq!(evaluation.decision, Verdict::Deny, "{policy}");
        assert!(reasons(&evaluation).contains(&EVALUATION_ERROR), "{evaluation:?}");
        assert!(!evaluation.errors.is_empty());
        assert!(evaluation.errors.iter().all(|error| error.policy.as_str() == "limit"));
        assert!(evaluation.errors.iter().all(|error| error.at.flow.is_some()));
        // The same call about nobody asks for no flow, and nothing fails.
        let harmless = call(Some(data(false, &[], &[])));
        assert_eq!(evaluate(&judge_with(&policy), &harmless).decision, Verdict::Allow);
    }
}

#[test]
fn a_failure_for_one_candidate_leaves_the_others_alone() {
    let policy = format!(
        r#"@id("limit") @citation("c") @advice("a")
           forbid (principal, action == Action::"process", resource == Jurisdiction::"SG") {OVERFLOW}"#
    );
    let evaluation = evaluate(&judge_with(&policy), &german());
    assert_eq!(evaluation.decision, Verdict::Allow);
    assert!(evaluation.errors.iter().all(|e| e.at.deployment.as_str() == "qwen3-32b@dashscope-sg"));
    assert!(!evaluation.errors.is_empty(), "the record keeps what failed");
}

#[test]
fn unknown_names_are_faults_of_their_fields() {
    let personal = |subjects: &[&str]| call(Some(data(true, &["dpv-pd:Contact"], subjects)));
    let cases: Vec<(&str, CallRequest)> = vec![
        ("/model", CallRequest { model: Some("gpt-9".to_owned()), ..german() }),
        ("/model", CallRequest { model: None, ..german() }),
        ("/deployment", CallRequest { deployment: Some("gpt-9@moon".to_owned()), ..german() }),
        (
            "/deployment",
            CallRequest { deployment: Some("mistral-small@dc-riyadh".to_owned()), ..german() },
        ),
        ("/data/subjects/1", personal(&["DE", "XX"])),
        ("/data/subjects/0", personal(&["de"])),
        ("/data/subjects/0", personal(&["CA-ZZ"])),
        ("/data/categories/0", call(Some(data(true, &["dpv-pd:Helth"], &["DE"])))),
        // A word of another kind is not a category.
        ("/data/categories/0", call(Some(data(true, &["dpv:ServiceProvision"], &["DE"])))),
        (
            "/data/location",
            call(Some(DataRequest { location: Some("EU".to_owned()), ..data(true, &[], &["DE"]) })),
        ),
        (
            "/data/subject_count",
            call(Some(DataRequest { subject_count: Some(1 << 53), ..data(true, &[], &["DE"]) })),
        ),
        ("/purpose", CallRequest { purpose: Some("dpv:Whatever".to_owned()), ..german() }),
        ("/audience/0", CallRequest { audience: Some(vec!["EEA".to_owned()]), ..german() }),
        ("/location", CallRequest { location: Some(String::new()), ..german() }),
    ];
    for (pointer, request) in cases {
        let found = faults(&request);
        let pointers: Vec<&str> = found.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer], "{request:?}");
    }
    let app: AppId = "nobody".into();
    assert!(judge_of(&shipped_policies()).judge_afresh(&app, &german(), &[]).is_err());
}

#[test]
fn an_empty_audience_is_no_audience() {
    // The model's licence excludes the EU: whoever names nobody is not thereby outside it.
    let hunyuan = |audience| CallRequest {
        model: None,
        deployment: Some("hunyuan@dc-singapore".to_owned()),
        audience,
        ..call(Some(DataRequest { location: Some("SG".to_owned()), ..data(false, &[], &["DE"]) }))
    };
    let judge = judge_of(&shipped_policies());
    let unnamed = evaluate(&judge, &hunyuan(None));
    assert!(reasons(&unnamed).contains(&"licence-territory"), "{unnamed:?}");
    let empty = evaluate(&judge, &hunyuan(Some(Vec::new())));
    assert_eq!(reasons(&empty), reasons(&unnamed));
}

#[test]
fn every_fault_is_named_at_once() {
    let request = CallRequest {
        model: Some("gpt-9".to_owned()),
        purpose: Some("p".to_owned()),
        location: Some("XX".to_owned()),
        ..call(Some(data(true, &["c"], &["YY"])))
    };
    assert_eq!(faults(&request).len(), 5);
}
