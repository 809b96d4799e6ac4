//! `lexgate explain` and the service give one answer.

use serde_json::{Value, json};

use crate::harness::{Service, Store, both_stores};

fn call(deployment: &str, subjects: &str, people: u64, category: &str) -> Value {
    json!({
        "action": "infer", "deployment": deployment, "purpose": "dpv:ServiceProvision",
        "data": {
            "personal": true, "categories": [category], "subjects": [subjects],
            "subject_count": people,
        },
    })
}

/// The two that were answered otherwise, and a sample of others.
fn calls() -> Vec<Value> {
    let singapore = "qwen3-32b@dashscope-sg";
    let mut calls = vec![
        call(singapore, "US", 25_000, "dpv-pd:Health"),
        call(singapore, "CN", 2_000_000, "dpv-pd:Contact"),
        json!({ "action": "infer", "model": "assistant", "data": { "personal": false } }),
        json!({ "action": "infer", "model": "assistant" }),
        json!({ "action": "distil", "model": "mistral-small", "data": { "personal": false } }),
    ];
    for (subjects, people) in [("DE", 1), ("US", 1), ("CN", 1), ("SA", 99), ("IN", 100_000)] {
        calls.push(call("mistral-small@dc-frankfurt", subjects, people, "dpv-pd:Contact"));
    }
    calls
}

fn policies(answer: &Value) -> Vec<String> {
    let reasons = answer["reasons"].as_array().unwrap().iter();
    let mut policies: Vec<_> =
        reasons.map(|reason| reason["policy"].as_str().unwrap().to_owned()).collect();
    policies.sort();
    policies.dedup();
    policies
}

both_stores! {
    async fn explain_counts_people_as_the_gate_does(store: Store) {
        let service = Service::start(store).await;
        for (n, call) in calls().iter().enumerate() {
            service.site.write("call.json", &call.to_string());
            let mut printed = service.site.run_json(&["explain", "--call", "call.json", "--json"]);
            let mut served = service.post("/v1/explain", "caller", call).await.expect(200);
            for answer in [&mut printed, &mut served] {
                answer["snapshot"]["revision"] = Value::Null;
            }
            assert_eq!(printed, served, "{call}");
            // The decision counts for the calls after it: explain sees that too.
            let decided = service.decide(call).await.expect(200);
            assert_eq!(decided["decision"], printed["decision"], "{call}");
            assert_eq!(decided["reasons"], printed["reasons"], "{call}");
            assert_eq!(decided["reached"], printed["reached"], "{call}");
            match n {
                0 => assert!(policies(&printed).contains(&"us-doj-202".to_owned()), "{printed}"),
                1 => assert!(policies(&printed).iter().any(|id| id.starts_with("cn-pipl-38")), "{printed}"),
                _ => {}
            }
            if n < 2 {
                assert_eq!(printed["decision"], "deny", "{call}");
            }
        }
    }

    async fn a_recorded_decision_is_explained_by_what_decided_it(store: Store) {
        let mut service = Service::start(store).await;
        let call = call("mistral-small@dc-frankfurt", "DE", 1, "dpv-pd:Contact");
        let decided = service.decide(&call).await.expect(200);
        let seq = decided["record"]["seq"].to_string();
        let told = service.site.run_json(&["explain", "--record", &seq, "--json"]);
        assert_eq!(told["explanation"]["decision"], decided["decision"]);
        assert_eq!(told["explanation"]["reasons"], decided["reasons"]);
        assert_eq!(told["explanation"]["snapshot"], decided["snapshot"]);
        assert_eq!(told["now"]["same"], true, "{told}");
        let text = service.site.run(&["explain", "--record", &seq]);
        assert!(text.stdout.contains("now, under revision 1: the same"), "{}", text.stdout);

        // Another policy decides now: the record is explained as it was, and today's answer is said.
        service.site.write(
            "policies/base/own.cedar",
            "@id(\"own-stop\")\n@citation(\"own\")\n@advice(\"ask\")\nforbid (principal, action in Action::\"use\", resource);\n",
        );
        let set = [("LEXGATE_POLICIES__ACTIVATE_ON_START", "true")];
        service.crash();
        let service = Service::on_with(service.site.clone(), &set).await;
        let told = service.site.run_json(&["explain", "--record", &seq, "--json"]);
        assert_eq!(told["explanation"]["reasons"], decided["reasons"]);
        assert_eq!((&told["now"]["same"], &told["now"]["decision"]), (&json!(false), &json!("deny")));
        assert!(told["now"]["policies"].as_array().unwrap().contains(&json!("own-stop")), "{told}");

        for (record, code) in [("0", 2), ("999999", 2)] {
            let ran = service.site.run(&["explain", "--record", record]);
            assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        }
    }

    async fn explain_judges_by_another_instant_and_without_a_store(store: Store) {
        let site = Service::setup(store).prepare().await;
        let call = call("qwen3-32b@dashscope-sg", "US", 25_000, "dpv-pd:Health");
        site.write("call.json", &call.to_string());
        // No service has run: only the call's own people are counted, and that is said.
        let ran = site.run(&["explain", "--call", "call.json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.starts_with("DENY\n") && ran.stdout.contains("us-doj-202"), "{}", ran.stdout);
        assert!(ran.stderr.contains("only the people of this call are counted"), "{}", ran.stderr);
        assert!(!site.path("data/lexgate.db").exists(), "asking makes no store");
        // Before the rule was in force.
        let then = site.run_json(&["explain", "--call", "call.json", "--at", "2020-01-01T00:00:00Z", "--json"]);
        let now = site.run_json(&["explain", "--call", "call.json", "--json"]);
        assert_ne!(then["snapshot"]["facts"], now["snapshot"]["facts"]);
    }
}
