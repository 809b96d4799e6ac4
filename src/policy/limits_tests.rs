//! What is within the limits is read, validated, sliced, evaluated and laid out on a small stack; what is
//! beyond them is a fault with its place.

use std::{sync::Arc, thread};

use super::{
    limits::{DEEPEST, LONGEST_POLICY, MOST_TERMS, survey},
    *,
};
use crate::source::{Faults, SourceFile};

/// What threads of the runtime have.
const SMALL: usize = 2 << 20;

fn policy(condition: &str) -> SourceFile {
    let text = format!(
        "@id(\"own\")\n@citation(\"own\")\npermit (principal, action in Action::\"use\", resource)\nwhen {{ {condition} }};\n"
    );
    SourceFile::new("base/own.cedar", &text)
}

fn found(file: &SourceFile) -> Result<(), (usize, String)> {
    let faults = survey(file, false).faults;
    faults.first().map_or(Ok(()), |fault| Err((fault.line, fault.message.clone())))
}

fn repeated(text: &str, times: usize, between: &str) -> String {
    vec![text; times].join(between)
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    [open.repeat(depth), inner.to_owned(), close.repeat(depth)].concat()
}

/// Conditions as deep as they may be, and the same a little deeper.
fn deepest() -> Vec<(&'static str, String, String)> {
    let personal = "context.data.personal";
    let chain = |of: &str, between: &str, times| repeated(of, times, between);
    // The condition's own bracket is one level.
    let most = MOST_TERMS - 4;
    vec![
        ("brackets", nested("(", "true", ")", DEEPEST - 1), nested("(", "true", ")", DEEPEST + 1)),
        ("many brackets", nested("(", "true", ")", DEEPEST - 1), nested("(", "true", ")", 100_000)),
        ("or", chain("false", " || ", most), chain("false", " || ", 1_000)),
        ("and", chain("true", " && ", most), chain("true", " && ", 100_000)),
        ("or of attributes", chain(personal, " || ", most - 2), chain(personal, " || ", 300)),
        (
            "sum",
            format!("{} == 3", chain("1", " + ", most - 1)),
            format!("{} == 3", chain("1", " + ", 300)),
        ),
        ("not", nested("!(", "true", ")", 62), nested("!(", "true", ")", 90)),
        (
            "if",
            nested("if true then (", "true", ") else false", 50),
            nested("if true then ", "true", " else false", 300),
        ),
        (
            "else if",
            nested("if false then false else ", "true", "", 80),
            nested("if false then false else ", "true", "", 200),
        ),
        (
            "chains in brackets",
            nested("(true && ", "true", ")", 62),
            nested(&format!("({} && ", chain("true", " && ", 20)), "true", ")", 60),
        ),
        ("conditions", chain("true", " } when { ", 120), chain("true", " } when { ", 3_000)),
        ("members", chain("true", " == ", 2), format!("context{}", ".data".repeat(400))),
        (
            "sets",
            nested("[", "1", "]", DEEPEST - 1).replace(' ', "") + ".isEmpty() || true",
            nested("[", "1", "]", 90),
        ),
    ]
}

#[test]
fn what_is_too_deep_is_a_fault_with_its_line() {
    for (name, within, beyond) in deepest() {
        assert_eq!(found(&policy(&within)), Ok(()), "{name}");
        let (line, message) = found(&policy(&beyond)).expect_err(name);
        assert_eq!(line, 4, "{name}: {message}");
    }
    let long =
        policy(&format!("[{}].contains(1)", repeated("1234567890", LONGEST_POLICY / 10, ", ")));
    assert!(found(&long).unwrap_err().1.contains("longer than"));
    // A chain that is never closed, and text that is not Cedar at all.
    for text in [
        repeated("a", 9_999, "||"),
        "(".repeat(9_999),
        repeated("a", 9_999, " if "),
        "!".repeat(9_999),
    ] {
        assert!(found(&SourceFile::new("x.cedar", &text)).is_err());
    }
    for text in ["", "\"", "\"\\", "//", ")))", "@id(", "\u{fc}\u{1f600}", "/", "&", "\"\\\"//\" /"]
    {
        assert_eq!(found(&SourceFile::new("x.cedar", text)), Ok(()), "{text}");
    }
}

#[test]
fn what_is_wide_or_said_in_words_is_not_deep() {
    let set = format!("[{}].contains(1)", repeated("1", 5_000, ", "));
    for condition in [
        &set,
        "\"((((\" == \"||||\" // ((((",
        &format!("context.data == {{{}}}", repeated("a: 1", 2_000, ", ")),
    ] {
        assert_eq!(found(&policy(&format!("{condition}\n"))), Ok(()));
    }
    let many = repeated(&policy("true").text, 3_000, "");
    let survey = survey(&SourceFile::new("x.cedar", &many), false);
    assert_eq!((survey.statements, survey.ids.len(), survey.faults.len()), (3_000, 3_000, 0));
    let schema =
        SourceFile::new("schema.cedarschema", &nested("entity A { a: ", "Set<Long>", " };", 1));
    assert!(super::limits::survey(&schema, true).faults.is_empty());
    let text = format!("entity A {{ a: {} }};", nested("Set<", "Long", ">", 90));
    assert!(!super::limits::survey(&SourceFile::new("s", &text), true).faults.is_empty());
}

/// The schema of a bundle, and one policy more.
fn bundle(own: &SourceFile) -> Result<Bundle, Faults> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let schema = std::fs::read_to_string(root.join(SCHEMA_FILE)).unwrap();
    Bundle::load(&[SourceFile::new(SCHEMA_FILE, &schema), own.clone()])
}

#[test]
fn what_is_within_the_limits_fits_every_stack() {
    let mut read = 0;
    for (name, within, _) in deepest() {
        let file = policy(&within);
        // Cedar refuses some of them for what they say: that too must be told, and not end the process.
        let loaded = on_deep_stack(|| bundle(&file));
        let laid_out = format(&file);
        if let Ok(bundle) = loaded {
            read += 1;
            let bundle = Arc::new(bundle);
            let walk = move || {
                let rule = bundle.rules().next().unwrap().clone();
                let json = rule.policy.to_json().unwrap();
                assert!(!json.to_string().is_empty());
                assert!(rule.policy.to_cedar().is_some());
                assert_eq!(bundle.compared().count(), 0);
                probes(&bundle).unwrap();
                evaluate(&rule.policy)
            };
            let small = thread::Builder::new().stack_size(SMALL).spawn(walk).unwrap();
            assert!(small.join().is_ok_and(|failures| failures == 0), "{name}");
            assert!(laid_out.is_ok_and(|text| !text.is_empty()), "{name}");
        }
    }
    assert!(read >= 8, "{read} were read");
}

/// How many errors the evaluation of `policy` ends in.
fn evaluate(policy: &cedar_policy::Policy) -> usize {
    use cedar_policy::{Authorizer, Context, Entities, PolicySet, Request};
    let mut set = PolicySet::new();
    set.add(policy.clone()).unwrap();
    let part = |text: &str| text.parse().unwrap();
    let context = serde_json::json!({ "data": { "personal": false } });
    let context = Context::from_json_value(context, None).unwrap();
    let request = Request::new(
        part("App::\"a\""),
        part("Action::\"use\""),
        part("Deployment::\"d\""),
        context,
        None,
    );
    let answer = Authorizer::new().is_authorized(&request.unwrap(), &set, &Entities::empty());
    answer.diagnostics().errors().count()
}
