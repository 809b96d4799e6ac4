//! What each shipped policy allows and denies, asked through the decision API.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    harness::{Store, both_stores},
    lab::lab,
};

/// A call, and what must become of it.
struct Case {
    /// The policy that the case is about.
    about: &'static str,
    name: &'static str,
    app: &'static str,
    call: Value,
    expect: Expect,
}

enum Expect {
    /// Allowed, and sent to this deployment.
    Allow(&'static str),
    /// Denied by exactly these policies.
    Deny(&'static [&'static str]),
}
use Expect::{Allow, Deny};

const ACME: &str = "caller";

fn case(about: &'static str, name: &'static str, call: Value, expect: Expect) -> Case {
    Case { about, name, app: ACME, call, expect }
}

fn by(app: &'static str, case: Case) -> Case {
    Case { app, ..case }
}

/// A call with personal data of people in `subjects`, for one deployment.
fn personal(subjects: &[&str], deployment: &str) -> Value {
    json!({
        "action": "infer", "deployment": deployment, "purpose": "dpv:ServiceProvision",
        "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": subjects },
    })
}

/// A call without personal data, for one deployment.
fn plain(deployment: &str) -> Value {
    json!({
        "action": "infer", "deployment": deployment, "purpose": "dpv:ServiceProvision",
        "data": { "personal": false }, "audience": ["SG"],
    })
}

/// `call` with other fields.
fn with(mut call: Value, other: Value) -> Value {
    let Value::Object(other) = other else { panic!("fields are an object") };
    for (name, value) in other {
        match value {
            Value::Null => drop(call.as_object_mut().unwrap().remove(&name)),
            value => call[name] = value,
        }
    }
    call
}

fn base() -> Vec<Case> {
    let uncovered: &[&str] = &["base-uncovered"];
    let undeclared = with(plain("in-SG"), json!({ "data": null }));
    let nobody = json!({ "personal": true, "categories": ["dpv-pd:Health"] });
    let somewhere = json!({ "personal": false, "categories": ["x:in-payment-system-data"] });
    vec![
        case("base-use", "an approved deployment", plain("in-SG"), Allow("in-SG")),
        case(
            "base-use",
            "embedding",
            with(plain("in-SG"), json!({ "action": "embed" })),
            Allow("in-SG"),
        ),
        case(
            "base-use",
            "a deployment that is not approved",
            plain("mistral-small@mistral-eu"),
            Deny(&["default-deny"]),
        ),
        case(
            "base-use",
            "fine-tuning",
            with(plain("in-SG"), json!({ "action": "fine_tune" })),
            Deny(&["default-deny"]),
        ),
        case(
            "base-use",
            "distilling",
            with(plain("in-SG"), json!({ "action": "distil" })),
            Deny(&["default-deny"]),
        ),
        case("base-flow", "data at home", personal(&["DE"], "in-DE"), Allow("in-DE")),
        case(
            "base-unclassified",
            "nothing said of the data",
            undeclared,
            Deny(&["base-unclassified"]),
        ),
        case(
            "base-unclassified",
            "nothing said of the data, on the device",
            json!({ "action": "infer", "model": "smollm2-135m" }),
            Deny(&["base-unclassified"]),
        ),
        case(
            "base-unclassified",
            "personal data of nobody",
            with(plain("in-SG"), json!({ "data": nobody })),
            Deny(&["base-unclassified"]),
        ),
        case(
            "base-unclassified",
            "a category that no law protects",
            with(plain("in-SG"), json!({ "data": somewhere })),
            Deny(&["base-unclassified"]),
        ),
        case("base-unclassified", "declared: no personal data", plain("in-SG"), Allow("in-SG")),
        case("base-uncovered", "Argentina to Germany", personal(&["AR"], "in-DE"), Deny(uncovered)),
        case("base-uncovered", "Argentina stays", personal(&["AR"], "in-AR"), Allow("in-AR")),
        case(
            "base-uncovered",
            "down into a part of the country",
            personal(&["CA"], "in-CA-QC"),
            Allow("in-CA-QC"),
        ),
        case(
            "ca-qc-s17",
            "up out of a part of the country",
            personal(&["CA-QC"], "in-CA"),
            Deny(&["ca-qc-s17"]),
        ),
        case(
            "base-uncovered",
            "not personal: free to leave",
            with(
                plain("in-DE"),
                json!({ "data": { "personal": false, "categories": [], "subjects": ["AR"] } }),
            ),
            Allow("in-DE"),
        ),
    ]
}

fn eu_gdpr() -> Vec<Case> {
    let about = "eu-gdpr-44";
    let denied: &[&str] = &["eu-gdpr-44"];
    let mut cases = vec![
        case(about, "within Germany", personal(&["DE"], "in-DE"), Allow("in-DE")),
        case(about, "to Norway: EEA, not EU", personal(&["DE"], "in-NO"), Allow("in-NO")),
        case(about, "from Norway: EEA, not EU", personal(&["NO"], "in-US"), Deny(denied)),
        case(about, "to the United Kingdom: adequate", personal(&["DE"], "in-GB"), Allow("in-GB")),
        case(about, "to Switzerland: adequate", personal(&["DE"], "in-CH"), Allow("in-CH")),
        case(about, "to Japan: adequate", personal(&["FR"], "in-JP"), Allow("in-JP")),
        case(about, "to Brazil: adequate since 2026", personal(&["DE"], "in-BR"), Allow("in-BR")),
        case(about, "to the US, not certified", personal(&["DE"], "in-US"), Deny(denied)),
        case(
            about,
            "to the US, certified for the framework",
            personal(&["DE"], "us-certified"),
            Allow("us-certified"),
        ),
        case(about, "stored in the US", personal(&["DE"], "stores-in-us"), Deny(denied)),
        case(about, "processed in the US", personal(&["DE"], "processes-in-us"), Deny(denied)),
        case(about, "readable from the US", personal(&["DE"], "seen-from-us"), Deny(denied)),
        case(
            about,
            "not personal",
            with(plain("in-US"), json!({ "audience": ["DE"] })),
            Allow("in-US"),
        ),
        case(
            about,
            "data held in Germany about people nowhere",
            with(plain("in-US"), json!({ "data": { "personal": true, "location": "DE" } })),
            Deny(denied),
        ),
        case(
            about,
            "no location on the device but the app's: Germany",
            personal(&["DE"], "smollm2@laptop"),
            Allow("smollm2@laptop"),
        ),
        case(
            about,
            "on a device that was carried to the US",
            with(personal(&["DE"], "smollm2@laptop"), json!({ "location": "US" })),
            Deny(denied),
        ),
    ];
    for deployment in
        ["in-SG", "eu-scc@sg", "eu-tia@sg", "eu-art49-tia@sg", "eu-over@sg", "eu-coming@sg"]
    {
        cases.push(case(about, "to Singapore", personal(&["DE"], deployment), Deny(denied)));
    }
    for deployment in ["eu-scc-tia@sg", "eu-bcr-tia@sg"] {
        cases.push(case(about, "to Singapore", personal(&["DE"], deployment), Allow(deployment)));
    }
    cases
}

fn sa() -> Vec<Case> {
    let (pdpl, ndmo) = ("sa-pdpl-29", "sa-ndmo-classified");
    let denied: &[&str] = &["sa-pdpl-29"];
    let mut cases = vec![
        case(pdpl, "within the Kingdom", personal(&["SA"], "in-SA"), Allow("in-SA")),
        case(pdpl, "to Germany", personal(&["SA"], "in-DE"), Deny(denied)),
        case(pdpl, "to Singapore", personal(&["SA"], "in-SG"), Deny(denied)),
        case(pdpl, "read from India", personal(&["SA"], "riyadh-seen-from-in"), Deny(denied)),
        case(pdpl, "European instruments", personal(&["SA"], "eu-scc-tia@sg"), Deny(denied)),
        case(
            pdpl,
            "not personal",
            with(
                plain("in-SG"),
                json!({ "data": { "personal": false, "categories": [], "subjects": ["SA"] } }),
            ),
            Allow("in-SG"),
        ),
    ];
    for deployment in ["sa-scc@sg", "sa-risk@sg"] {
        cases.push(case(pdpl, "half of it", personal(&["SA"], deployment), Deny(denied)));
    }
    for deployment in ["sa-scc-risk@sg", "sa-bcr-risk@sg", "sa-certificate-risk@sg"] {
        cases.push(case(pdpl, "both of it", personal(&["SA"], deployment), Allow(deployment)));
    }
    for category in ["x:sa-ndmo-secret", "x:sa-government"] {
        let of = |personal: bool, deployment: &str| {
            let data =
                json!({ "personal": personal, "categories": [category], "subjects": ["SA"] });
            with(plain(deployment), json!({ "data": data }))
        };
        cases.push(case(ndmo, category, of(false, "in-SA"), Allow("in-SA")));
        cases.push(case(ndmo, category, of(false, "in-DE"), Deny(&["sa-ndmo-classified"])));
        cases.push(case(ndmo, category, of(true, "sa-scc-risk@sg"), Deny(&["sa-ndmo-classified"])));
        let both = Deny(&["sa-ndmo-classified", "sa-pdpl-29"]);
        cases.push(case(ndmo, category, of(true, "in-DE"), both));
    }
    cases
}

fn rbi() -> Vec<Case> {
    let about = "in-rbi-payment-data";
    let denied: &[&str] = &["in-rbi-payment-data"];
    let payment = |deployment: &str| {
        let data = json!({
            "personal": false, "categories": ["x:in-payment-system-data"], "subjects": ["IN"],
        });
        with(plain(deployment), json!({ "data": data }))
    };
    let elsewhere = json!({
        "personal": false, "categories": ["x:in-payment-system-data"], "subjects": ["SG"],
    });
    vec![
        case(about, "within India", payment("in-IN"), Allow("in-IN")),
        case(about, "processed and stored abroad", payment("in-SG"), Deny(denied)),
        case(about, "processed abroad for 24 hours", payment("rbi-24h"), Allow("rbi-24h")),
        case(about, "processed abroad for 25 hours", payment("rbi-25h"), Deny(denied)),
        case(about, "no undertaking", payment("no-undertaking-24h"), Deny(denied)),
        case(about, "stored abroad, with the undertaking", payment("rbi@sg"), Deny(denied)),
        case(
            about,
            "read from abroad",
            payment("mumbai-seen-from-us"),
            Allow("mumbai-seen-from-us"),
        ),
        case(
            about,
            "not of India",
            with(plain("in-SG"), json!({ "data": elsewhere })),
            Allow("in-SG"),
        ),
        case(
            about,
            "personal too",
            with(
                payment("in-SG"),
                json!({ "data": {
                    "personal": true, "categories": ["x:in-payment-system-data"], "subjects": ["IN"],
                } }),
            ),
            Deny(&["in-rbi-payment-data"]),
        ),
    ]
}

fn licences() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |about, app, name, call, expect| {
        cases.push(by(app, case(about, name, call, expect)));
    };
    let (commercial, users, revenue) =
        ("licence-commercial", "licence-active-users", "licence-revenue");
    let (nc, llama, hunyuan) = ("command-r@lab", "llama@lab", "hunyuan@lab");
    add(commercial, ACME, "a company", plain(nc), Deny(&["licence-commercial"]));
    add(commercial, "lab-notebook", "an institute", plain(nc), Allow(nc));
    add(commercial, "licensed", "a company with an agreement", plain(nc), Allow(nc));
    add(users, "at-limit", "exactly 100 million", plain(hunyuan), Allow(hunyuan));
    add(
        users,
        "past-limit",
        "100 million and one",
        plain(hunyuan),
        Deny(&["licence-active-users"]),
    );
    add(users, "licensed", "900 million, with an agreement", plain(hunyuan), Allow(hunyuan));
    let devstral: (_, &[_]) = ("devstral@lab", &["licence-mistral-modified-mit"]);
    for (deployment, policies) in [devstral, ("stable@lab", &["licence-revenue"])] {
        add(revenue, "at-limit", "exactly the amount", plain(deployment), Allow(deployment));
        add(revenue, "past-limit", "one dollar more", plain(deployment), Deny(policies));
        add(revenue, "licensed", "with an agreement", plain(deployment), Allow(deployment));
    }
    let (territory, purpose) = ("licence-territory", "licence-purpose");
    for audience in ["DE", "GB", "KR"] {
        let call = with(plain(hunyuan), json!({ "audience": ["SG", audience] }));
        add(territory, ACME, audience, call.clone(), Deny(&["licence-territory"]));
        add(territory, "licensed", "with an agreement", call, Allow(hunyuan));
    }
    for audience in ["SG", "NO", "CH"] {
        let call = with(plain(hunyuan), json!({ "audience": [audience] }));
        add(territory, ACME, audience, call, Allow(hunyuan));
    }
    add(territory, "german", "domiciled in the EU", plain(hunyuan), Deny(&["licence-territory"]));
    add(purpose, ACME, "an ordinary purpose", plain(llama), Allow(llama));
    for (name, excluded) in [
        ("military", json!("x:military")),
        ("national security", json!("dpv:ProtectionOfNationalSecurity")),
        ("undeclared", Value::Null),
    ] {
        let call = with(plain(llama), json!({ "purpose": excluded }));
        add(purpose, ACME, name, call.clone(), Deny(&["licence-purpose"]));
        add(purpose, "licensed", name, call, Allow(llama));
    }
    let unbound = with(plain("in-SG"), json!({ "purpose": null }));
    add(purpose, ACME, "undeclared, under a licence without limits", unbound, Allow("in-SG"));
    let training = "licence-output-training";
    for action in ["distil", "fine_tune"] {
        let call = |deployment| with(plain(deployment), json!({ "action": action }));
        add(training, "trainer", action, call(hunyuan), Deny(&["licence-output-training"]));
        add(training, "trainer", action, call("in-SG"), Allow("in-SG"));
        add(training, "licensed", action, call(hunyuan), Allow(hunyuan));
    }
    add(training, "trainer", "inference is no training", plain(hunyuan), Allow(hunyuan));
    cases
}

/// Asks each case and compares the whole verdict.
async fn judge(store: Store, cases: Vec<Case>) {
    let service = lab(store).await;
    for Case { about, name, app, call, expect } in cases {
        let answer = service.post("/v1/decisions", app, &call).await.expect(200);
        let shown = format!("{about}: {name}: {call}\n{answer:#}");
        let reasons = answer["reasons"].as_array().expect("reasons");
        let policies: BTreeSet<&str> =
            reasons.iter().map(|reason| reason["policy"].as_str().unwrap()).collect();
        match expect {
            Allow(deployment) => {
                assert_eq!(answer["decision"], "allow", "{shown}");
                assert_eq!(answer["route"]["deployment"], deployment, "{shown}");
                assert!(reasons.iter().all(|reason| reason["effect"] == "permit"), "{shown}");
                let own = call["action"] == "distil" || call["action"] == "fine_tune";
                assert!(
                    policies.contains(if own { "lab-training" } else { "base-use" }),
                    "{shown}"
                );
            }
            Deny(by) => {
                assert_eq!(answer["decision"], "deny", "{shown}");
                assert_eq!(answer["route"], Value::Null, "{shown}");
                assert_eq!(policies, by.iter().copied().collect(), "{shown}");
                assert_eq!(answer["duties"], json!([]), "{shown}");
                for reason in reasons {
                    assert_eq!(reason["effect"], "forbid", "{shown}");
                    assert!(!reason["citation"].as_str().unwrap().is_empty(), "{shown}");
                    assert!(!reason["advice"].as_str().unwrap().is_empty(), "{shown}");
                }
            }
        }
    }
}

both_stores! {
    async fn base_policies_keep_the_gate_closed(store: Store) {
        judge(store, base()).await;
    }

    async fn eu_gdpr_44_decides_transfers_to_third_countries(store: Store) {
        judge(store, eu_gdpr()).await;
    }

    async fn saudi_policies_decide_what_leaves_the_kingdom(store: Store) {
        judge(store, sa()).await;
    }

    async fn in_rbi_decides_where_payment_data_lies(store: Store) {
        judge(store, rbi()).await;
    }

    async fn licence_policies_decide_who_may_use_a_model(store: Store) {
        judge(store, licences()).await;
    }

    async fn an_allow_names_its_duties(store: Store) {
        let service = lab(store).await;
        let duties = async |call: Value| {
            let answer = service.decide(&call).await.expect(200);
            assert_eq!(answer["decision"], "allow", "{answer:#}");
            let duties = answer["duties"].as_array().expect("duties").clone();
            assert!(duties.iter().all(|duty| duty["duty"].as_str().unwrap().len() > 20), "{answer}");
            let policies = duties.iter().map(|duty| duty["policy"].as_str().unwrap().to_owned());
            policies.collect::<Vec<_>>()
        };
        let notice = "eu-ai-act-50-notice";
        let attribution = "licence-attribution-llama";
        let to = |audience: &str, deployment| {
            with(plain(deployment), json!({ "audience": [audience] }))
        };
        assert_eq!(duties(to("DE", "in-SG")).await, [notice]);
        assert_eq!(duties(to("RE", "in-SG")).await, [notice]);
        assert_eq!(duties(to("SG", "in-SG")).await, [""; 0]);
        assert_eq!(duties(to("NO", "in-SG")).await, [""; 0]);
        assert_eq!(duties(to("DE", "llama@lab")).await, [notice, attribution]);
        assert_eq!(duties(to("SG", "llama@lab")).await, [attribution]);
        let embedding = with(to("DE", "in-SG"), json!({ "action": "embed" }));
        assert_eq!(duties(embedding).await, [""; 0]);
        // The audience is the subjects' unless it is said, and the tenant's domicile without both.
        assert_eq!(duties(personal(&["DE"], "in-DE")).await, [notice]);
        let unsaid = with(plain("in-SG"), json!({ "audience": null }));
        assert_eq!(duties(unsaid).await, [""; 0]);
    }

    async fn a_denial_names_each_flow_that_is_forbidden(store: Store) {
        let service = lab(store).await;
        let flows = async |call: Value| {
            let answer = service.decide(&call).await.expect(200);
            let reasons = answer["reasons"].as_array().expect("reasons").clone();
            let line = |reason: &Value| {
                let flow = &reason["flow"];
                let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
                let (from, to) = (text(&flow["from"]), text(&flow["to"]));
                format!("{} {from} {} {to}", text(&reason["policy"]), text(&flow["action"]))
            };
            reasons.iter().map(line).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let access = flows(personal(&["DE"], "seen-from-us")).await;
        assert_eq!(access, ["eu-gdpr-44 DE access US"]);
        assert_eq!(flows(personal(&["DE"], "stores-in-us")).await, ["eu-gdpr-44 DE store US"]);
        let device = with(personal(&["DE"], "smollm2@laptop"), json!({ "location": "US" }));
        assert_eq!(flows(device).await, ["eu-gdpr-44 DE process US", "eu-gdpr-44 DE store US"]);
        // Two people, two laws: what is home to one is abroad to the other.
        let both = ["DE", "SA"];
        assert_eq!(
            flows(personal(&both, "in-DE")).await,
            ["sa-pdpl-29 SA process DE", "sa-pdpl-29 SA store DE"]
        );
        assert_eq!(
            flows(personal(&both, "in-SA")).await,
            ["eu-gdpr-44 DE process SA", "eu-gdpr-44 DE store SA"]
        );
        assert_eq!(flows(personal(&both, "in-US")).await.len(), 4);
        let half = flows(personal(&both, "eu-scc-tia@sg")).await;
        assert_eq!(half, ["sa-pdpl-29 SA process SG", "sa-pdpl-29 SA store SG"]);
        let answer = service.decide(&personal(&both, "eu-and-sa@sg")).await.expect(200);
        assert_eq!(answer["route"]["deployment"], "eu-and-sa@sg", "{answer:#}");
    }

    async fn a_virtual_model_goes_to_the_first_that_is_allowed(store: Store) {
        let service = lab(store).await;
        let call = with(personal(&["DE"], ""), json!({ "deployment": null, "model": "ladder" }));
        let answer = service.decide(&call).await.expect(200);
        assert_eq!(answer["route"], json!({
            "deployment": "in-JP", "jurisdictions": ["JP"], "model": "mistral-small",
            "operator": "acme", "tier": "remote",
        }));
        let verdicts: Vec<String> = answer["candidates"].as_array().unwrap().iter()
            .map(|candidate| format!(
                "{} {} {}", candidate["deployment"], candidate["decision"], candidate["policies"]
            ))
            .collect();
        assert_eq!(verdicts, [
            r#""in-US" "deny" ["eu-gdpr-44"]"#,
            r#""mistral-small@mistral-eu" "deny" ["default-deny"]"#,
            r#""in-JP" "allow" ["base-flow","base-use"]"#,
            r#""in-DE" "allow" ["base-flow","base-use"]"#,
        ]);
        // Nothing is left for people of the Kingdom: every candidate's policies are named.
        let denied = with(personal(&["SA"], ""), json!({ "deployment": null, "model": "ladder" }));
        let answer = service.decide(&denied).await.expect(200);
        assert_eq!((&answer["decision"], &answer["route"]), (&json!("deny"), &Value::Null));
        let places: BTreeSet<&str> = answer["reasons"].as_array().unwrap().iter()
            .map(|reason| reason["deployment"].as_str().unwrap())
            .collect();
        assert_eq!(places.len(), 4, "{answer:#}");
    }
}
