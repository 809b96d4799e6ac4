//! What reasons rest on, by the shipped facts and by facts made less sure.

use std::{fmt::Write, sync::Arc};

use super::{
    Judge,
    judge_tests::{call, data, shipped_policies},
};
use crate::{
    domain::{AppId, CallRequest, Confidence, DataRequest, Reason, Revision, Verdict},
    facts::{Proposal, Snapshot},
    source::SourceFile,
};

/// One deployment at each place, of a model under each licence.
fn organisation() -> SourceFile {
    let mut text = String::from(
        "[[tenants]]\nid = \"t\"\ndomicile = \"FR\"\ncommercial = true\nmonthly_active_users = 1\n\
         monthly_revenue_usd = 1\nannual_revenue_usd = 1\n\
         [[apps]]\nid = \"a\"\ntenant = \"t\"\nlocation = \"FR\"\n\
         [[operators]]\nid = \"o\"\nseat = \"FR\"\n",
    );
    for (model, licence) in [("free", "Apache-2.0"), ("research", "LicenseRef-MNPL-0.1")] {
        write!(
            text,
            "[[models]]\nid = \"{model}\"\nlicense = \"{licence}\"\nprovider = \"p\"\n\
             modalities = [\"text\"]\n"
        )
        .unwrap();
        for place in ["CN", "DE", "FR", "GB", "JP", "PH", "SG", "CA-QC"] {
            write!(
                text,
                "[[deployments]]\nid = \"{model}@{place}\"\nmodel = \"{model}\"\noperator = \"o\"\n\
                 tier = \"remote\"\napproved = true\nprocess = [\"{place}\"]\nstore = [\"{place}\"]\n"
            )
            .unwrap();
        }
    }
    SourceFile::new("organisation.toml", &text)
}

/// A judge by the shipped files, in the first of which this text is replaced by that one.
fn judge(change: Option<(&str, &str, &str)>) -> Judge {
    let mut files = shipped_policies();
    if let Some((path, from, to)) = change {
        let file = files.iter_mut().find(|file| &*file.path == path).unwrap();
        assert!(file.text.contains(from), "{path} has no {from}");
        *file = SourceFile::new(path, &file.text.replacen(from, to, 1));
    }
    let proposal = Proposal::load(&files, organisation());
    let proposal = proposal.unwrap_or_else(|faults| panic!("{faults}"));
    let now = "2026-11-25T12:00:00Z".parse().unwrap();
    Judge::new(Arc::new(Snapshot::at(&proposal, now, Revision(1)).unwrap()))
}

fn reasons(judge: &Judge, deployment: &str, data: DataRequest) -> (Verdict, Vec<Reason>) {
    let request =
        CallRequest { model: None, deployment: Some(deployment.to_owned()), ..call(Some(data)) };
    let app: AppId = "a".into();
    let judged = judge.judge_afresh(&app, &request, &[]);
    let evaluation = judged.unwrap_or_else(|faults| panic!("{faults:?}")).evaluation;
    (evaluation.decision, evaluation.reasons)
}

/// The confidence and the general facts of the reason `policy` for contact data from `from`.
fn ground(judge: &Judge, from: &str, deployment: &str, policy: &str) -> (Confidence, Vec<String>) {
    let (_, reasons) = reasons(judge, deployment, data(true, &["dpv-pd:Contact"], &[from]));
    let reason = reasons.iter().find(|reason| reason.policy.as_str() == policy);
    let reason = reason.unwrap_or_else(|| panic!("{reasons:?}"));
    (reason.confidence.unwrap(), reason.general_facts.clone())
}

const SECONDARY: (Confidence, Vec<String>) = (Confidence::Secondary, Vec::new());

fn general(facts: &[&str]) -> (Confidence, Vec<String>) {
    (Confidence::General, facts.iter().map(|fact| (*fact).to_owned()).collect())
}

#[test]
fn an_allow_names_the_general_facts_that_no_policy_could_do_without() {
    let judge = judge(None);
    let japan = ground(&judge, "JP", "free@GB", "base-flow");
    assert_eq!(japan, general(&["GB in jp-appi-28"]));
    assert_eq!(ground(&judge, "DE", "free@JP", "base-flow"), SECONDARY);
    assert_eq!(ground(&judge, "DE", "free@FR", "base-flow"), SECONDARY);
    // The licence's terms, and nothing of the flow.
    assert_eq!(ground(&judge, "JP", "free@GB", "base-use"), SECONDARY);
    // Where only the country is named, the subdivision rests on it.
    let quebec = ground(&judge, "GB", "free@CA-QC", "base-flow");
    assert_eq!(quebec, general(&["CA in gb-adequacy"]));
}

#[test]
fn a_deny_rests_on_its_pack_and_on_the_groups_that_it_names() {
    let judge = self::judge(None);
    let pack = general(&["pack sovereignty/ph-dpa.cedar"]);
    assert_eq!(ground(&judge, "PH", "free@SG", "ph-dpa-21"), pack);
    assert_eq!(ground(&judge, "DE", "free@SG", "eu-gdpr-44"), SECONDARY);
    assert_eq!(ground(&judge, "SG", "free@CN", "sg-pdpa-26"), (Confidence::Primary, Vec::new()));
    let (confidence, facts) = ground(&judge, "CN", "free@SG", "base-flow");
    assert_eq!(confidence, Confidence::General);
    assert!(facts.contains(&"threshold cn-assessment-volume".to_owned()), "{facts:?}");
    let zone = judge_with_a_doubt_about_the_eea();
    assert_eq!(ground(&zone, "FR", "free@SG", "eu-gdpr-44"), general(&["FR in EEA"]));
}

fn judge_with_a_doubt_about_the_eea() -> Judge {
    judge(Some((
        "facts/zones.toml",
        "source = \"EEA Agreement (Porto, 1992)\"\nchecked = \"2026-11-25\"\nconfidence = \"secondary\"",
        "source = \"EEA Agreement (Porto, 1992)\"\nconfidence = \"general\"",
    )))
}

#[test]
fn a_doubt_about_a_member_of_a_zone_is_one_about_each_finding_for_the_zone() {
    let ground = ground(&judge_with_a_doubt_about_the_eea(), "JP", "free@FR", "base-flow");
    assert_eq!(ground, general(&["FR in jp-appi-28"]));
}

#[test]
fn an_answer_on_a_licence_rests_on_the_licence() {
    let source =
        "source = \"Mistral AI Non-Production License 0.1, sections 3.2, 4.2 and 9 (copy)\"";
    let unsure = format!("{source}\nconfidence = \"general\"");
    let judge = judge(Some(("facts/licences.toml", source, &unsure)));
    let plain = || data(false, &[], &[]);
    let (verdict, reasons) = self::reasons(&judge, "research@FR", plain());
    assert_eq!(verdict, Verdict::Deny);
    for reason in &reasons {
        assert_eq!(reason.general_facts, ["licence LicenseRef-MNPL-0.1"], "{reason:?}");
    }
    assert!(reasons.iter().any(|reason| reason.policy.as_str() == "licence-research-only"));
    let (verdict, reasons) = self::reasons(&judge, "free@FR", plain());
    assert_eq!(verdict, Verdict::Allow);
    assert!(reasons.iter().all(|reason| reason.general_facts.is_empty()), "{reasons:?}");
}

#[test]
fn a_policy_that_rests_on_no_fact_is_as_sure_as_it_can_be() {
    let judge = judge(None);
    let uncovered = ground(&judge, "CL", "free@SG", "base-uncovered");
    assert_eq!(uncovered, (Confidence::Primary, Vec::new()));
    let (_, reasons) = reasons(&judge, "free@SG", data(true, &[], &[]));
    assert_eq!(reasons[0].confidence, Some(Confidence::Primary));
}

#[test]
fn a_reason_that_was_recorded_before_has_no_confidence_and_is_written_as_it_was() {
    let old = r#"{"advice":null,"citation":"c","effect":"permit","places":[],"policy":"base-use"}"#;
    let reason: Reason = serde_json::from_str(old).unwrap();
    assert_eq!((reason.confidence, reason.general_facts.len()), (None, 0));
    assert_eq!(serde_json::to_string(&reason).unwrap(), old);
}
