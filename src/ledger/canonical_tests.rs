//! Canonical JSON against RFC 8785, by examples and by properties.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

fn flaw(text: &str) -> (usize, Flaw) {
    match check(text.as_bytes()) {
        Err(CanonicalError::Form { at, flaw }) => (at, flaw),
        other => panic!("{text}: {other:?}"),
    }
}

fn oracle(text: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(text).unwrap();
    serde_json_canonicalizer::to_vec(&value).unwrap()
}

#[test]
fn each_flaw_is_named_with_its_place() {
    for (text, want) in [
        ("", (0, Flaw::Truncated)),
        ("{\"a\"", (4, Flaw::Truncated)),
        ("\"a", (2, Flaw::Truncated)),
        ("tru", (3, Flaw::Truncated)),
        ("1 ", (1, Flaw::Trailing)),
        ("{}{}", (2, Flaw::Trailing)),
        (" 1", (0, Flaw::WhiteSpace)),
        ("[1, 2]", (3, Flaw::WhiteSpace)),
        ("{\"a\": 1}", (5, Flaw::WhiteSpace)),
        ("[1,]", (3, Flaw::Want("a value"))),
        ("{\"a\":1,}", (7, Flaw::Want("a key"))),
        ("NaN", (0, Flaw::Want("a value"))),
        ("1.0", (1, Flaw::Float)),
        ("1e3", (1, Flaw::Float)),
        ("-0", (0, Flaw::NumberForm)),
        ("[01]", (1, Flaw::NumberForm)),
        ("-", (1, Flaw::Truncated)),
        ("9007199254740992", (0, Flaw::IntegerRange)),
        ("-9007199254740992", (0, Flaw::IntegerRange)),
        ("99999999999999999999999999", (0, Flaw::IntegerRange)),
        (r#""\/""#, (1, Flaw::Escape)),
        (r#""\u0041""#, (1, Flaw::Escape)),
        (r#""\u000A""#, (1, Flaw::Escape)),
        (r#""\u000a""#, (1, Flaw::Escape)),
        (r#""\u001F""#, (1, Flaw::Escape)),
        (r#""\ud83d\ude00""#, (1, Flaw::Escape)),
        ("\"\u{1}\"", (1, Flaw::Control)),
        (r#"{"b":1,"a":2}"#, (7, Flaw::KeyOrder)),
        (r#"{"a":1,"a":2}"#, (7, Flaw::DuplicateKey)),
        ("{\"\u{e000}\":1,\"\u{10000}\":2}", (9, Flaw::KeyOrder)),
    ] {
        assert_eq!(flaw(text), want, "{text}");
    }
    assert!(matches!(check(b"\"\xff\""), Err(CanonicalError::Form { at: 1, flaw: Flaw::NotUtf8 })));
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(check(deep(MAX_DEPTH).as_bytes()).is_ok());
    assert_eq!(flaw(&deep(MAX_DEPTH + 1)), (MAX_DEPTH, Flaw::TooDeep));
}

/// RFC 8785, 3.2.3: the sorting example, as it must come out.
#[test]
fn the_sorting_example_of_rfc_8785_is_accepted() {
    let text = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
    check(text.as_bytes()).unwrap();
    assert_eq!(oracle(text.as_bytes()), text.as_bytes());
}

/// RFC 8785, 3.2.2: the example without its numbers, which are beyond the profile.
#[test]
fn the_literals_and_string_of_rfc_8785_are_accepted() {
    let text =
        "{\"literals\":[null,true,false],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    check(text.as_bytes()).unwrap();
    assert_eq!(oracle(text.as_bytes()), text.as_bytes());
    assert_eq!(flaw(r#"{"numbers":[333333333.33333329]}"#).1, Flaw::Float);
}

#[test]
fn a_type_with_fields_out_of_order_cannot_be_written() {
    #[derive(Serialize)]
    struct Disorderly {
        b: u8,
        a: u8,
    }
    assert!(to_vec(&Disorderly { b: 1, a: 2 }).is_err());
    assert!(to_vec(&1.5).is_err());
    assert!(to_vec(&u64::MAX).is_err());
    assert_eq!(to_vec(&BTreeMap::from([("a", 1), ("b", 2)])).unwrap(), br#"{"a":1,"b":2}"#);
}

fn value() -> impl Strategy<Value = Value> {
    let limit = i64::try_from(MAX_INTEGER).unwrap();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-limit..=limit).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    /// What the canonicaliser writes is accepted.
    #[test]
    fn canonical_text_is_accepted(value in value()) {
        let text = serde_json_canonicalizer::to_vec(&value).unwrap();
        prop_assert!(check(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
    }

    /// Whatever is accepted, the canonicaliser would write the same: here after any one change.
    #[test]
    fn accepted_text_is_a_fixed_point(
        value in value(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[],:.-+eE01u \n".to_vec())],
        insert in any::<bool>(),
    ) {
        let mut text = serde_json_canonicalizer::to_vec(&value).unwrap();
        let at = at.index(text.len());
        if insert { text.insert(at, byte) } else { text[at] = byte }
        if check(&text).is_ok() {
            prop_assert_eq!(oracle(&text), text);
        }
    }
}

/// Every recorded type, with something in every list.
#[test]
fn every_record_is_canonical_as_it_is_written() {
    use crate::{
        domain::{
            Confidence, Digest, Duty, Effect, EvaluationFault, Flow, FlowAction, InstrumentInForce,
            Place, Reason, Seq,
        },
        ledger::{
            AuditReadBody, Commitment, DecisionBody, DecisionRef, DespiteHold, ErasureBody,
            KeyChangeBody, LateOutcomeBody, LegalHoldBody, PrunedBody, RecoveryBody, SeqRange,
            SkipReason, Skipped, TreeHead, fixture,
        },
    };
    let flow = Flow {
        action: FlowAction::Process,
        from: "DE".parse().unwrap(),
        to: "SG".parse().unwrap(),
    };
    let place = Place { deployment: "a".into(), flow: Some(flow) };
    let mut decision = fixture::decision(1, true, "everything");
    decision.duties.push(Duty { citation: "a".into(), duty: "b".into(), policy: "c".into() });
    decision.errors.push(EvaluationFault {
        at: place.clone(),
        message: "a".into(),
        policy: "b".into(),
    });
    decision.instruments.push(InstrumentInForce { id: "a".into(), kind: "eu-scc".into() });
    decision.reasons.push(Reason {
        advice: Some("a".into()),
        citation: "GDPR Art. 44 § 1 – “transfer”".into(),
        confidence: Some(Confidence::General),
        effect: Effect::Permit,
        general_facts: vec!["GB in jp-appi-28".into()],
        policy: "a".into(),
        places: vec![place],
    });
    let commitment = Some(Commitment::to(b"u-1842", &[7; 32]));
    let committed = DecisionBody { user_commitment: commitment, ..decision.clone() };
    let range = SeqRange { first: Seq::new(2), last: Seq::new(3) };
    for body in [
        to_vec(&fixture::genesis()),
        to_vec(&fixture::activation(1)),
        to_vec(&fixture::outcome(Seq::new(1), Digest::of(b""))),
        to_vec(&LateOutcomeBody {
            input_commitment: commitment,
            output_commitment: commitment,
            skipped: vec![Skipped { deployment: "a".into(), reason: SkipReason::Busy }],
            ..LateOutcomeBody::new(
                fixture::outcome(Seq::new(1), Digest::of(b"")),
                DecisionRef { leaf: Digest::of(b""), seq: Seq::new(2) },
            )
        }),
        to_vec(&decision),
        to_vec(&committed),
        to_vec(&ErasureBody {
            as_of: Some(Seq::new(7)),
            despite_hold: Some(DespiteHold { holds: vec!["a".into()], reason: "b".into() }),
            erased: vec![Seq::new(2)],
            key: "dpo".into(),
        }),
        to_vec(&PrunedBody { before: fixture::instant(), removed: vec![range] }),
        to_vec(&LegalHoldBody {
            id: "case".into(),
            key: "dpo".into(),
            reason: "subpoena".into(),
            records: Some([("tenant".to_owned(), "acme".to_owned())].into()),
        }),
        to_vec(&AuditReadBody {
            key: "auditor".into(),
            operation: "listRecords".into(),
            query: [("seq".to_owned(), "1".to_owned())].into(),
            retention: committed.retention.clone(),
        }),
        to_vec(&RecoveryBody {
            found: TreeHead { root: Digest::of(b""), size: 1 },
            lost: "note".into(),
            reason: "fire".into(),
        }),
        to_vec(&KeyChangeBody {
            endorsement: "note".into(),
            former: "a".into(),
            public_key: "b".into(),
        }),
    ] {
        let body = body.unwrap();
        assert_eq!(oracle(&body), body);
    }
}
