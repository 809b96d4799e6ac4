//! Contexts made from typed values, against the schema and against the same written as JSON.

use std::sync::LazyLock;

use cedar_policy::{Context, EntityUid, Request, Schema};
use proptest::{prelude::*, sample::subsequence};
use serde_json::json;

use super::{
    context::{FlowContext, UseContext, flow_context, use_context},
    names::{action_uid, flow_uid},
    volume::VolumeField,
};
use crate::domain::{Action, Data, FlowAction, JurisdictionCode};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let text = include_str!("../../policies/schema.cedarschema");
    Schema::from_cedarschema_str(text).unwrap().0
});

fn codes() -> impl Strategy<Value = Vec<JurisdictionCode>> {
    let all: Vec<JurisdictionCode> =
        ["DE", "SA", "CA-QC"].iter().map(|code| code.parse().unwrap()).collect();
    subsequence(all, 0..=3)
}

prop_compose! {
    fn data()(
        categories in prop::collection::vec("[a-z:\"\\\\é]{0,12}", 0..4),
        location in prop::option::of(Just("DE".parse().unwrap())),
        personal in any::<bool>(),
        subject_count in prop_oneof![0..3_u64, Just((1 << 53) - 1), any::<u64>()],
        subjects in codes(),
    ) -> Data {
        Data { categories, location, personal, subject_count, subjects }
    }
}

fn uid(text: &str) -> EntityUid {
    text.parse().unwrap()
}

fn data_json(data: Option<&Data>) -> serde_json::Value {
    let Some(data) = data else {
        return json!({"classified": false, "personal": false, "categories": [], "classes": ["c"]});
    };
    let somebodys = !data.subjects.is_empty() || data.location.is_some();
    let harmless = !data.personal && data.categories.is_empty();
    json!({
        "classified": harmless || somebodys,
        "personal": data.personal,
        "categories": data.categories,
        "classes": ["c"],
    })
}

fn entity(kind: &str, id: &str) -> serde_json::Value {
    json!({"__entity": {"type": kind, "id": id}})
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contexts_fit_the_schema_and_say_what_the_call_says(
        data in prop::option::of(data()),
        purpose in prop::option::of("[a-zA-Z:]{0,20}"),
        audience in codes(),
        instruments in prop::collection::vec("[a-z-]{1,10}", 0..4),
        subjects in any::<u64>(),
    ) {
        let schema = &*SCHEMA;
        let context = use_context(&UseContext {
            data: data.as_ref(),
            classes: &["c"],
            purpose: purpose.as_deref(),
            audience: &audience,
            audience_zones: &["EU", "EEA"],
        })
        .unwrap();
        let places: Vec<_> =
            audience.iter().map(|code| entity("Jurisdiction", code.as_str())).collect();
        let written = json!({
            "data": data_json(data.as_ref()),
            "purpose": purpose.clone().unwrap_or_default(),
            "audience": places,
            "audienceZones": [entity("Zone", "EU"), entity("Zone", "EEA")],
        });
        for action in [Action::Infer, Action::Embed, Action::FineTune, Action::Distil] {
            let action = action_uid(action);
            let want = Context::from_json_value(written.clone(), Some((schema, &action))).unwrap();
            prop_assert_eq!(&context, &want);
            let (app, deployment) = (uid(r#"App::"a""#), uid(r#"Deployment::"d""#));
            let request = Request::new(app, action, deployment, context.clone(), Some(schema));
            prop_assert!(request.is_ok(), "{:?}", request.err());
        }

        let (tenant, deployment) = ("t".into(), "d@e".into());
        let context = flow_context(&FlowContext {
            data: data.as_ref(),
            classes: &["c"],
            reached: &instruments,
            volume: &[(VolumeField::SensitiveSubjects, subjects)],
            purpose: purpose.as_deref(),
            instruments: &instruments,
            tenant: &tenant,
            deployment: &deployment,
        }).unwrap();
        let written = json!({
            "data": data_json(data.as_ref()),
            "purpose": purpose.unwrap_or_default(),
            "instruments": instruments,
            "reached": instruments,
            "volume": { "subjects": 0, "sensitiveSubjects": i64::try_from(subjects).unwrap_or(i64::MAX) },
            "tenant": entity("Tenant", "t"),
            "deployment": entity("Deployment", "d@e"),
        });
        for action in FlowAction::ALL {
            let action = flow_uid(action);
            let want = Context::from_json_value(written.clone(), Some((schema, &action))).unwrap();
            prop_assert_eq!(&context, &want);
            let (from, to) = (uid(r#"Jurisdiction::"DE""#), uid(r#"Jurisdiction::"SG""#));
            let request = Request::new(from, action, to, context.clone(), Some(schema));
            prop_assert!(request.is_ok(), "{:?}", request.err());
        }
    }
}
