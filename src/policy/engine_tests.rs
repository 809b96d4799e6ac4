//! The sliced engine against Cedar's own authoriser: over generated policies, entities and
//! requests, both must say the same.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicyId as CedarId, PolicySet,
    Request, RestrictedExpression as Value, Schema,
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use super::{
    bundle::Bundle,
    context::{FlowContext, UseContext, flow_context, use_context},
    engine::{Engine, RuleSet},
    rule::Rule,
    slice::Judgement,
    volume::VolumeField,
};
use crate::{
    domain::{Data, Digest, JurisdictionCode},
    source::SourceFile,
};

const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
const ZONES: [&str; 3] = ["EU", "EEA", "covered"];
const FINDINGS: [&str; 2] = ["eu-gdpr-art45", "empty"];
const PLACES: [&str; 7] = ["DE", "FR", "CA", "CA-QC", "SA", "US", "ZZ"];
/// In every policy's reach, in no snapshot.
const ABSENT: &str = r#"Jurisdiction::"AQ""#;
const ACTIONS: [&str; 13] = [
    "use", "infer", "embed", "fineTune", "distil", "transfer", "process", "store", "access",
    "operate", "own", "infer", "process",
];

fn schema() -> Schema {
    Schema::from_cedarschema_str(SCHEMA).unwrap().0
}

/// A group that an entity lies in, and a limit that a licence may lack.
#[derive(Clone, Debug)]
struct World {
    /// For each place: the zones, findings and earlier places that it lies in.
    parents: Vec<Vec<String>>,
    limits: [Option<i64>; 2],
}

fn world() -> impl Strategy<Value = World> {
    let groups = |place: usize| {
        let zones = ZONES.iter().map(|id| format!("Zone::\"{id}\""));
        let findings = FINDINGS.iter().map(|id| format!("Adequacy::\"{id}\""));
        let earlier = PLACES.iter().take(place).map(|id| format!("Jurisdiction::\"{id}\""));
        let all: Vec<String> = zones.chain(findings).chain(earlier).collect();
        proptest::sample::subsequence(all, 0..=3)
    };
    let parents: Vec<_> = (0..PLACES.len()).map(groups).collect();
    (parents, any::<[Option<i64>; 2]>()).prop_map(|(parents, limits)| World { parents, limits })
}

fn uid(text: &str) -> EntityUid {
    text.parse().unwrap()
}

impl World {
    fn entities(&self, schema: &Schema) -> Entities {
        let entity = |text: &str, attributes: Vec<(&str, Value)>, parents: Vec<EntityUid>| {
            let attributes: HashMap<String, Value> =
                attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            Entity::new(uid(text), attributes, parents.into_iter().collect::<HashSet<_>>()).unwrap()
        };
        let reference = |text: &str| Value::new_entity_uid(uid(text));
        let nothing = || Value::new_set([]);
        let mut all = Vec::new();
        all.extend(ZONES.iter().map(|id| entity(&format!("Zone::\"{id}\""), vec![], vec![])));
        all.extend(
            FINDINGS.iter().map(|id| entity(&format!("Adequacy::\"{id}\""), vec![], vec![])),
        );
        for (id, parents) in PLACES.iter().zip(&self.parents) {
            let parents = parents.iter().map(|text| uid(text)).collect();
            all.push(entity(&format!("Jurisdiction::\"{id}\""), vec![], parents));
        }
        for (index, limit) in self.limits.into_iter().enumerate() {
            let (license, model) =
                (format!("License::\"l{index}\""), format!("Model::\"m{index}\""));
            let mut attributes = vec![
                ("commercialUse", Value::new_bool(index == 0)),
                ("outputTraining", Value::new_bool(true)),
                ("excludedTerritories", nothing()),
                ("excludedPurposes", nothing()),
            ];
            attributes.extend(limit.map(|n| ("monthlyActiveUsersLimit", Value::new_long(n))));
            all.push(entity(&license, attributes, vec![]));
            let attributes = vec![
                ("license", reference(&license)),
                ("provider", Value::new_string("p".to_owned())),
                ("modalities", nothing()),
            ];
            all.push(entity(&model, attributes, vec![]));
            let attributes = vec![
                ("model", reference(&model)),
                ("operator", reference(r#"Operator::"o""#)),
                ("tier", Value::new_string("remote".to_owned())),
                ("approved", Value::new_bool(index == 0)),
                ("retentionHours", Value::new_long(24)),
                ("safeguards", nothing()),
            ];
            all.push(entity(&format!("Deployment::\"d{index}\""), attributes, vec![]));
            let tenant = format!("Tenant::\"t{index}\"");
            let attributes = vec![
                ("domicile", reference(r#"Jurisdiction::"DE""#)),
                ("commercial", Value::new_bool(true)),
                ("monthlyActiveUsers", Value::new_long(7)),
                ("monthlyRevenueUsd", Value::new_long(0)),
                ("annualRevenueUsd", Value::new_long(0)),
                ("sideLicences", nothing()),
            ];
            all.push(entity(&tenant, attributes, vec![]));
            let attributes =
                vec![("tenant", reference(&tenant)), ("hostedForEndUsers", Value::new_bool(false))];
            all.push(entity(&format!("App::\"a{index}\""), attributes, vec![uid(&tenant)]));
        }
        let attributes =
            vec![("seat", reference(r#"Jurisdiction::"US""#)), ("certifications", nothing())];
        all.push(entity(r#"Operator::"o""#, attributes, vec![]));
        Entities::from_entities(all, Some(schema)).unwrap()
    }
}

fn named() -> impl Strategy<Value = String> {
    let named = |kind: &str, ids: &[&str]| {
        ids.iter().map(|id| format!("{kind}::\"{id}\"")).collect::<Vec<_>>()
    };
    let mut all = named("Jurisdiction", &PLACES);
    all.extend(named("Zone", &ZONES));
    all.extend(named("Adequacy", &FINDINGS));
    all.extend(named("App", &["a0", "a1"]));
    all.extend(named("Tenant", &["t0"]));
    all.extend(named("Deployment", &["d0", "d1"]));
    all.push(ABSENT.to_owned());
    select(all)
}

/// `variable` with every form of constraint that a scope can have.
fn constraint(variable: &'static str) -> impl Strategy<Value = String> {
    let kinds = select(vec!["Jurisdiction", "App", "Deployment", "Zone", "Tenant"]);
    prop_oneof![
        3 => Just(variable.to_owned()),
        2 => named().prop_map(move |uid| format!("{variable} == {uid}")),
        4 => named().prop_map(move |uid| format!("{variable} in {uid}")),
        1 => kinds.clone().prop_map(move |kind| format!("{variable} is {kind}")),
        1 => (kinds, named()).prop_map(move |(kind, uid)| format!("{variable} is {kind} in {uid}")),
    ]
}

fn actions() -> impl Strategy<Value = String> {
    let action = || select(&ACTIONS[..]).prop_map(|name| format!("Action::\"{name}\""));
    prop_oneof![
        3 => Just("action".to_owned()),
        2 => action().prop_map(|uid| format!("action == {uid}")),
        3 => action().prop_map(|uid| format!("action in {uid}")),
        2 => prop::collection::vec(action(), 0..3)
            .prop_map(|uids| format!("action in [{}]", uids.join(", "))),
    ]
}

/// Conditions, some of which fail: on a missing attribute, on overflow, on a wrong type.
const CONDITIONS: [&str; 19] = [
    "true",
    "true",
    "context.data.personal",
    "context.data.classified",
    "resource in principal",
    r#"principal in Zone::"covered""#,
    r#"resource in Adequacy::"eu-gdpr-art45""#,
    r#"context.data.categories.contains("dpv-pd:Health")"#,
    "resource has approved && resource.approved",
    "principal has tenant && principal.tenant.monthlyActiveUsers > 5",
    "context.volume.subjects > 2",
    r#"context.deployment.retentionHours <= 24 && context.instruments.contains("eu-scc")"#,
    "context.deployment.retentionHours + 9223372036854775807 > 0",
    "resource.model.license.monthlyActiveUsersLimit > 5",
    "context.absent",
    "context.data.personal && resource in principal",
    r#"principal in Zone::"covered" && context.volume.subjects > 2"#,
    "context.absent && resource in principal",
    r#"action == Action::"process" && resource.absent"#,
];

#[derive(Clone, Debug)]
struct Written {
    scope: String,
    conditions: Vec<(bool, &'static str)>,
    forbids: bool,
}

fn written() -> impl Strategy<Value = Written> {
    let scope = (constraint("principal"), actions(), constraint("resource"))
        .prop_map(|(principal, action, resource)| format!("({principal}, {action}, {resource})"));
    let conditions = prop::collection::vec((any::<bool>(), select(&CONDITIONS[..])), 0..3);
    (scope, conditions, prop::bool::weighted(0.3))
        .prop_map(|(scope, conditions, forbids)| Written { scope, conditions, forbids })
}

impl Written {
    fn text(&self, id: usize) -> String {
        use std::fmt::Write;
        let effect = if self.forbids { "forbid" } else { "permit" };
        let mut text =
            format!("@id(\"p{id:02}\") @citation(\"c\") @advice(\"a\") {effect} {}", self.scope);
        for (when, condition) in &self.conditions {
            let word = if *when { "when" } else { "unless" };
            write!(text, " {word} {{ {condition} }}").unwrap();
        }
        text + ";\n"
    }
}

#[derive(Clone, Debug)]
struct Asked {
    principal: String,
    action: &'static str,
    resource: String,
    data: Option<Data>,
    instruments: Vec<String>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let place = || select(&PLACES[..]).prop_map(|id| format!("Jurisdiction::\"{id}\""));
    let app = select(vec![r#"App::"a0""#, r#"App::"a1""#]).prop_map(str::to_owned);
    let deployment = select(vec![r#"Deployment::"d0""#, r#"Deployment::"d1""#]);
    let deployment = deployment.prop_map(str::to_owned);
    let flows = select(vec!["process", "store", "access", "operate", "own"]);
    let uses = select(vec!["infer", "embed", "fineTune", "distil"]);
    let actions = select(vec!["use", "transfer", "infer", "own", "none-of-the-schema"]);
    let sides = prop_oneof![
        5 => (place(), flows, place()),
        3 => (app, uses, deployment),
        1 => (named(), actions, named()),
    ];
    let data = (any::<bool>(), any::<bool>(), 0_u64..4, any::<bool>());
    let data = prop::option::of(data.prop_map(|(personal, health, subject_count, placed)| Data {
        categories: health.then(|| "dpv-pd:Health".to_owned()).into_iter().collect(),
        location: placed.then(|| "DE".parse().unwrap()),
        personal,
        subject_count,
        subjects: Vec::new(),
    }));
    let instruments = prop::collection::vec(Just("eu-scc".to_owned()), 0..2);
    (sides, data, instruments).prop_map(|((principal, action, resource), data, instruments)| {
        Asked { principal, action, resource, data, instruments }
    })
}

impl Asked {
    fn context(&self) -> Context {
        if self.principal.starts_with("App") {
            let audience: Vec<JurisdictionCode> = vec!["DE".parse().unwrap()];
            let data = self.data.as_ref();
            let (classes, audience_zones) = (&[][..], &["EU"][..]);
            let call =
                UseContext { data, classes, purpose: None, audience: &audience, audience_zones };
            return use_context(&call).unwrap();
        }
        let (tenant, deployment) = ("t0".into(), "d0".into());
        let people = self.data.as_ref().map_or(0, |data| data.subject_count);
        flow_context(&FlowContext {
            data: self.data.as_ref(),
            classes: &[],
            reached: &[],
            volume: &[(VolumeField::Subjects, people)],
            purpose: Some("dpv:ServiceProvision"),
            instruments: &self.instruments,
            tenant: &tenant,
            deployment: &deployment,
        })
        .unwrap()
    }

    fn action(&self) -> EntityUid {
        uid(&format!("Action::\"{}\"", self.action))
    }

    fn judge(&self, engine: &Engine, set: RuleSet) -> Judgement {
        let [principal, resource] =
            [&self.principal, &self.resource].map(|text| engine.part(uid(text)));
        let parts = [&principal, &engine.action(self.action()), &resource];
        let judgement = engine.judge(&engine.slice(set, parts), parts, || Ok(self.context()));
        Arc::unwrap_or_clone(judgement)
    }

    /// What Cedar says over all policies, under Lexgate's rule that any failure denies.
    fn judge_plainly(&self, policies: &PolicySet, entities: &Entities) -> (Judgement, Decision) {
        let (principal, resource) = (uid(&self.principal), uid(&self.resource));
        let request =
            Request::new(principal, self.action(), resource, self.context(), None).unwrap();
        let response = Authorizer::new().is_authorized(&request, policies, entities);
        let text = |id: &CedarId| AsRef::<str>::as_ref(id).into();
        let failures = response.diagnostics().errors().map(|error| {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(failure) = error;
            (text(failure.policy_id()), failure.inner().to_string())
        });
        let failures: Vec<_> = failures.collect();
        let mut determining: Vec<_> = response.diagnostics().reason().map(text).collect();
        determining.sort();
        let allowed = response.decision() == Decision::Allow && failures.is_empty();
        (Judgement { allowed, policies: determining, failures }, response.decision())
    }
}

/// A bundle of policies that the validator may refuse: only so can all of them fail.
fn unvalidated(text: &str, schema: Schema) -> Arc<Bundle> {
    let file = SourceFile::new("base/generated.cedar", text);
    let set: PolicySet = text.parse().unwrap();
    let rules: Vec<_> = set
        .policies()
        .map(|policy| Arc::new(Rule::read(policy, &file, 0, false).unwrap()))
        .collect();
    let digest = Digest::of(text.as_bytes());
    let (content, duties, volumes) = Default::default();
    Arc::new(Bundle { digest, content, schema, rules, duties, volumes })
}

/// The same policies as Cedar reads them, under their `@id`s.
fn plain(text: &str) -> PolicySet {
    let set: PolicySet = text.parse().unwrap();
    let named = |policy: &cedar_policy::Policy| {
        policy.new_id(CedarId::new(policy.annotation("id").unwrap()))
    };
    PolicySet::from_policies(set.policies().map(named)).unwrap()
}

/// A world, policies, whether everything is permitted, and what is asked.
type Generated = (World, Vec<Written>, Option<&'static str>, Vec<Asked>);

fn sorted(mut judgement: Judgement) -> Judgement {
    judgement.failures.sort();
    judgement
}

#[test]
fn sliced_evaluation_equals_cedar_s_own() {
    let cases = 300;
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let schema = schema();
    // How often each kind of answer came up: a law that is never put to the test proves nothing.
    let (allowed, denied, failed, opened, smaller) =
        (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |cell: &Cell<u32>, holds: bool| cell.set(cell.get() + u32::from(holds));
    let several = prop::collection::vec(written(), 0..14);
    // Where everything is permitted, a forbid that fails is all that denies.
    let permitted = prop::option::of(Just(
        "@id(\"all\") @citation(\"c\") permit (principal, action, resource);",
    ));
    let input = (world(), several, permitted, prop::collection::vec(asked(), 1..12));
    let law = |(world, policies, permitted, asked): Generated| {
        let text: String = policies.iter().enumerate().map(|(n, policy)| policy.text(n)).collect();
        let text = text + permitted.unwrap_or_default();
        let entities = world.entities(&schema);
        let engine = Engine::new(unvalidated(&text, schema.clone()), entities.clone());
        let plain = plain(&text);
        for asked in &asked {
            let (want, decision) = asked.judge_plainly(&plain, &entities);
            let found = asked.judge(&engine, RuleSet::Rules);
            let (principal, resource) = (uid(&asked.principal), uid(&asked.resource));
            let considered =
                engine.considered(RuleSet::Rules, &principal, &asked.action(), &resource);
            prop_assert_eq!(&sorted(found.clone()), &sorted(want.clone()), "{:?}\n{}", asked, text);
            // The slice, once cached, says it again, word for word: records are compared by replay.
            prop_assert_eq!(&asked.judge(&engine, RuleSet::Rules), &found);
            for decided in found.policies.iter().chain(found.failures.iter().map(|(id, _)| id)) {
                prop_assert!(considered.contains(decided), "{} decided unconsidered", decided);
            }
            let duties = asked.judge(&engine, RuleSet::Duties);
            prop_assert!(!duties.allowed && duties.policies.is_empty());
            count(&allowed, want.allowed);
            count(&denied, !want.allowed && want.failures.is_empty());
            count(&failed, !want.failures.is_empty());
            count(&opened, !want.allowed && decision == Decision::Allow);
            count(&smaller, considered.len() < policies.len());
        }
        Ok(())
    };
    runner.run(&input, law).unwrap();
    for (what, seen, least) in [
        ("allows", allowed, 20),
        ("denials", denied, 20),
        ("failures", failed, 20),
        ("failures that Cedar alone would let pass", opened, 10),
        ("slices smaller than the set", smaller, 20),
    ] {
        assert!(seen.get() >= least, "only {} {what} were generated", seen.get());
    }
}

#[test]
fn scopes_slice_by_ancestors_types_and_action_groups() {
    let world = World {
        parents: vec![
            vec![r#"Zone::"EU""#.to_owned()],
            vec![],
            vec![r#"Zone::"EEA""#.to_owned()],
            vec![r#"Jurisdiction::"CA""#.to_owned()],
            vec![],
            vec![],
            vec![],
        ],
        limits: [None, None],
    };
    let text: String = [
        r#"(principal in Zone::"EEA", action in Action::"transfer", resource)"#,
        r#"(principal == Jurisdiction::"CA", action, resource)"#,
        r#"(principal is Jurisdiction in Jurisdiction::"CA", action == Action::"store", resource)"#,
        "(principal is App, action, resource)",
        r#"(principal, action in [Action::"own", Action::"process"], resource is Jurisdiction)"#,
    ]
    .iter()
    .enumerate()
    .map(|(n, scope)| {
        Written { scope: (*scope).to_owned(), conditions: vec![], forbids: false }.text(n)
    })
    .collect();
    let schema = schema();
    let engine = Engine::new(unvalidated(&text, schema.clone()), world.entities(&schema));
    let considered = |principal: &str, action: &str, resource: &str| -> BTreeSet<String> {
        let action = uid(&format!("Action::\"{action}\""));
        let ids = engine.considered(RuleSet::Rules, &uid(principal), &action, &uid(resource));
        ids.iter().map(ToString::to_string).collect()
    };
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let (canada, quebec) = (r#"Jurisdiction::"CA""#, r#"Jurisdiction::"CA-QC""#);
    // A subdivision lies in its country and, through it, in the country's zones.
    assert_eq!(considered(quebec, "store", canada), ids(&["p00", "p02"]));
    assert_eq!(considered(canada, "process", quebec), ids(&["p00", "p01", "p04"]));
    assert_eq!(considered(canada, "operate", quebec), ids(&["p01"]));
    assert_eq!(considered(r#"App::"a0""#, "infer", r#"Deployment::"d0""#), ids(&["p03"]));
    // Outside the snapshot nothing is known: every policy is asked.
    assert_eq!(considered(ABSENT, "own", canada).len(), 5);
}

/// The judgement of one flow from Germany to Saudi Arabia, and what Cedar alone decides.
pub(super) fn judge_flow(text: &str) -> (Judgement, Decision) {
    let world = World { parents: vec![vec![]; PLACES.len()], limits: [None, None] };
    let schema = schema();
    let entities = world.entities(&schema);
    let asked = Asked {
        principal: r#"Jurisdiction::"DE""#.to_owned(),
        action: "process",
        resource: r#"Jurisdiction::"SA""#.to_owned(),
        data: Some(Data {
            categories: vec![],
            location: None,
            personal: true,
            subject_count: 1,
            subjects: vec!["DE".parse().unwrap()],
        }),
        instruments: vec![],
    };
    let file = SourceFile::new("schema.cedarschema", SCHEMA);
    let bundle = Bundle::load(&[file, SourceFile::new("base/test.cedar", text)]).unwrap();
    let engine = Engine::new(Arc::new(bundle), entities.clone());
    (asked.judge(&engine, RuleSet::Rules), asked.judge_plainly(&plain(text), &entities).1)
}
