//! What a decision costs before it is recorded: three candidates, data of people in two
//! jurisdictions, the shipped packs; alone and beside 10,000 policies for other jurisdictions.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench ends where its input is wrong"
)]

use std::{fmt::Write, path::Path, sync::Arc};

use lexgate::{
    config,
    domain::{AppId, CallRequest, Caller, Revision},
    facts::{Proposal, Snapshot},
    gate::{How, Judge},
    source::SourceFile,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: &str = "2026-11-22T12:00:00Z";

fn main() {
    divan::main();
}

fn proposal(other_policies: usize) -> Proposal {
    let mut policies = config::read_policies(Path::new("policies")).unwrap();
    let mut text = String::new();
    // Jurisdictions that neither the call's subjects nor its destinations touch.
    let others =
        ["AU", "BR", "CA", "CL", "CO", "EG", "ID", "JP", "KE", "KR", "MX", "NG", "PE", "TR", "ZA"];
    for n in 0..other_policies {
        let from = others[n % others.len()];
        writeln!(
            text,
            "@id(\"other-{n}\") @citation(\"bench\") @advice(\"none\")
             forbid (principal == Jurisdiction::\"{from}\", action in Action::\"transfer\", resource)
             when {{ context.data.personal && context.tenant.monthlyActiveUsers > {n} }};"
        )
        .unwrap();
    }
    policies.push(SourceFile::new("sovereignty/others.cedar", &text));
    let organisation = config::read_file(Path::new("config/organisation.toml")).unwrap();
    Proposal::load(&policies, organisation).unwrap()
}

fn judge_at(proposal: &Proposal, now: &str) -> Judge {
    Judge::new(Arc::new(Snapshot::at(proposal, now.parse().unwrap(), Revision(1)).unwrap()))
}

fn judge(other_policies: usize) -> Judge {
    judge_at(&proposal(other_policies), NOW)
}

fn call() -> (AppId, CallRequest) {
    let call = serde_json::json!({
        "action": "infer",
        "model": "assistant",
        "data": { "personal": true, "categories": ["dpv-pd:Health"], "subjects": ["DE", "SA"] },
        "purpose": "dpv:ServiceProvision",
        "location": "DE",
    });
    ("support-copilot".into(), serde_json::from_value(call).unwrap())
}

/// Nothing remembered of the call; the slices of policies are.
#[divan::bench(args = [0, 10_000], sample_count = 2000, sample_size = 1)]
fn cold(bencher: divan::Bencher<'_, '_>, other_policies: usize) {
    let (judge, (app, call)) = (judge(other_policies), call());
    let candidates = judge.judge_afresh(&app, &call, &[]).unwrap().evaluation.candidates.len();
    assert_eq!(candidates, 3, "the bench is about three candidates");
    bencher.bench_local(|| judge.judge_afresh(&app, &call, &[]).unwrap());
}

/// The same call again.
#[divan::bench(args = [0, 10_000])]
fn memo(bencher: divan::Bencher<'_, '_>, other_policies: usize) {
    let (judge, (app, call)) = (judge(other_policies), call());
    let caller = Caller {
        app,
        authenticated: "api_key".to_owned(),
        key: "support-copilot".into(),
        tenant: "meridian".into(),
    };
    judge.decide(&caller, &call, &How::default()).unwrap();
    bencher.bench_local(|| judge.decide(&caller, &call, &How::default()).unwrap());
}

/// All that a start does before it can judge: every pack and fact read, checked and made ready.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn start_up(bencher: divan::Bencher<'_, '_>) {
    bencher.bench_local(|| judge(0));
}

/// A dated fact ends: the snapshot that follows, and the first decision by it.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn change_of_facts(bencher: divan::Bencher<'_, '_>) {
    let (proposal, (app, call)) = (proposal(0), call());
    bencher.bench_local(|| {
        judge_at(&proposal, NOW).judge_afresh(&app, &call, &[]).unwrap().evaluation.decision
    });
}

/// What would make a denied call pass: everything that an explanation computes.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn counterfactual(bencher: divan::Bencher<'_, '_>) {
    let (judge, (app, mut call)) = (judge(0), call());
    (call.model, call.deployment) = (None, Some("qwen3-32b@dashscope-sg".to_owned()));
    bencher.bench_local(|| judge.explain(&app, &call, &[]).unwrap());
}
