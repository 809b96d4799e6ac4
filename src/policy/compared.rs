//! The texts and patterns with which a policy compares, each with the attribute that it is compared with:
//! which list it must be on. Found in Cedar's JSON form; not whether it is on that list.

use std::fmt;

use serde_json::Value;

/// A text or a pattern with which a policy compares something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The attribute on the other side, where it is one: `purpose`.
    pub attribute: Option<String>,
    /// What it is compared with.
    pub with: Comparand,
}

/// What something is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparand {
    /// A text, which is the same or not.
    Text(String),
    /// A pattern: what stands between its wildcards.
    Pattern(Vec<String>),
}

impl Comparand {
    /// Whether `text` is it, or is like it.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Pattern(pieces) => is_like(pieces, text),
        }
    }

    /// Its letters, without wildcards.
    #[must_use]
    pub fn letters(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Pattern(pieces) => pieces.concat(),
        }
    }
}

/// As a policy writes it, in quotes.
impl fmt::Display for Comparand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Pattern(pieces) => {
                let pieces: Vec<_> = pieces.iter().map(|piece| piece.replace('*', "\\*")).collect();
                write!(f, "\"{}\"", pieces.join("*"))
            }
        }
    }
}

/// Whether `text` is made of these pieces with anything between them.
fn is_like(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for piece in middle {
        let Some(at) = rest.find(piece.as_str()) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last.as_str())
}

/// What the conditions of a policy, in Cedar's JSON form, compare with.
pub(super) fn compared(conditions: &Value) -> Vec<Compared> {
    let mut found = Vec::new();
    collect(conditions, None, &mut found);
    found
}

fn collect(json: &Value, attribute: Option<&str>, found: &mut Vec<Compared>) {
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                collect_field(key, value, attribute, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, attribute, found)),
        _ => {}
    }
}

fn collect_field(key: &str, value: &Value, attribute: Option<&str>, found: &mut Vec<Compared>) {
    let owned = |attribute: Option<&str>| attribute.map(str::to_owned);
    match (key, value) {
        ("Value", Value::String(text)) if !text.is_empty() => {
            found.push(Compared {
                attribute: owned(attribute),
                with: Comparand::Text(text.clone()),
            });
        }
        // The argument of a constructor is a number or a date, not a name.
        ("decimal" | "datetime" | "duration" | "ip", _) => {}
        ("==" | "!=" | "contains" | "containsAll" | "containsAny", _) => {
            let of = |side: &str| value.get(side).and_then(attribute_of);
            let attribute = of("left").or_else(|| of("right"));
            collect(value, attribute, found);
        }
        ("like", _) => {
            let left = value.get("left");
            if let Some(pieces) = value.get("pattern").and_then(pieces) {
                let attribute = owned(left.and_then(attribute_of));
                found.push(Compared { attribute, with: Comparand::Pattern(pieces) });
            }
            if let Some(left) = left {
                collect(left, None, found);
            }
        }
        ("Set" | "left" | "right" | "Value", _) => collect(value, attribute, found),
        _ => collect(value, None, found),
    }
}

/// The attribute that an expression reads: `purpose` of `context.purpose`.
fn attribute_of(json: &Value) -> Option<&str> {
    json.get(".")?.get("attr")?.as_str()
}

/// What stands between the wildcards of a pattern, which Cedar writes letter by letter.
fn pieces(pattern: &Value) -> Option<Vec<String>> {
    let mut pieces = vec![String::new()];
    for part in pattern.as_array()? {
        match part.get("Literal").and_then(Value::as_str) {
            Some(text) => pieces.last_mut()?.push_str(text),
            None => pieces.push(String::new()),
        }
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    fn of(condition: &str) -> Vec<(String, String)> {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        let policy: Policy = text.parse().unwrap();
        let found = compared(&policy.to_json().unwrap()["conditions"]);
        found
            .into_iter()
            .map(|one| (one.attribute.unwrap_or_default(), one.with.to_string()))
            .collect()
    }

    #[test]
    fn a_text_is_told_with_what_it_is_compared_with() {
        let pair = |attribute: &str, text: &str| (attribute.to_owned(), text.to_owned());
        for (condition, want) in [
            (r#"context.purpose == "a""#, vec![pair("purpose", "\"a\"")]),
            (r#""a" != context.purpose"#, vec![pair("purpose", "\"a\"")]),
            (r#"context.purpose like "a:b*c""#, vec![pair("purpose", "\"a:b*c\"")]),
            (r#"context.purpose like "a\*""#, vec![pair("purpose", "\"a\\*\"")]),
            (r#"context.data.categories.contains("a")"#, vec![pair("categories", "\"a\"")]),
            (
                r#"context.data.categories.containsAny(["a", "b"])"#,
                vec![pair("categories", "\"a\""), pair("categories", "\"b\"")],
            ),
            (r#"["a"].contains(context.purpose)"#, vec![pair("purpose", "\"a\"")]),
            (
                r#"(if context.x then "a" else "b") == "c""#,
                vec![pair("", "\"a\""), pair("", "\"b\""), pair("", "\"c\"")],
            ),
            (r#"context.purpose == """#, vec![]),
            (r#"context.x == decimal("1.0")"#, vec![]),
        ] {
            let mut found = of(condition);
            found.sort();
            assert_eq!(found, want, "{condition}");
        }
    }

    #[test]
    fn a_pattern_is_like_what_its_pieces_make() {
        let like = |pieces: &[&str], text: &str| {
            let pieces = pieces.iter().map(|piece| (*piece).to_owned()).collect();
            Comparand::Pattern(pieces).matches(text)
        };
        assert!(like(&["dpv:Custom", ""], "dpv:CustomerSupport"));
        assert!(!like(&["dpv:Custmer", ""], "dpv:CustomerSupport"));
        assert!(like(&["", "Support"], "dpv:CustomerSupport"));
        assert!(like(&["dpv:", "Cu", "Su", "t"], "dpv:CustomerSupport"));
        assert!(like(&["", ""], "anything"));
        assert!(like(&["same"], "same") && !like(&["same"], "other"));
        assert!(!like(&["ab", "b"], "ab"), "a letter is not counted twice");
    }
}
