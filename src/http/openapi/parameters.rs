//! What parameters take: patterns and bounds by their names, as the handlers check them. One name means
//! one thing in every operation, so it is said once.

use serde_json::{Value, json};

use crate::{
    domain::{Tier, Verdict},
    ledger::Kind,
};

/// A jurisdiction: ISO 3166-1 alpha-2, or ISO 3166-2.
const JURISDICTION: &str = "^[A-Z]{2}(-[A-Z0-9]{1,3})?$";
/// Several, comma-separated.
const JURISDICTIONS: &str = "^ *[A-Z]{2}(-[A-Z0-9]{1,3})?( *, *[A-Z]{2}(-[A-Z0-9]{1,3})?)* *$";
/// The largest position that a store counts.
const LAST: i64 = i64::MAX;
/// The largest whole number that every JSON reader takes exactly.
const MAX_COUNT: u64 = (1 << 53) - 1;
/// The number of a tile, in groups of three digits.
const TILE: &str = r"^(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$";

/// What the parameter `name` takes beyond its type, as JSON Schema.
pub(super) fn bounds(name: &str, kind: &str) -> Value {
    match (name, kind) {
        ("from" | "to", "string") => json!({ "format": "date-time" }),
        ("from" | "to" | "seq", "integer") => json!({ "maximum": LAST }),
        ("kind", _) => json!({ "enum": kinds() }),
        ("decision", _) => json!({ "enum": [Verdict::Allow, Verdict::Deny] }),
        ("tier", _) => json!({ "enum": [Tier::OnDevice, Tier::HybridGpu, Tier::Remote] }),
        ("format", _) => json!({ "enum": ["ndjson", "csv"] }),
        ("order", _) => json!({ "enum": ["asc", "desc"] }),
        ("jurisdiction" | "origin" | "destination" | "x-lexgate-location", _) => {
            json!({ "pattern": JURISDICTION })
        }
        ("x-lexgate-subjects" | "x-lexgate-audience", _) => json!({ "pattern": JURISDICTIONS }),
        ("x-lexgate-data" | "x-lexgate-purpose", _) => json!({ "pattern": "^[ -~]*$" }),
        ("x-lexgate-subject-count", _) => json!({ "maximum": MAX_COUNT }),
        ("x-lexgate-end-user", _) => {
            json!({ "pattern": "^[ -~]+$", "minLength": 1, "maxLength": 256 })
        }
        ("Idempotency-Key", _) => {
            json!({ "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 128 })
        }
        ("after", _) => json!({ "pattern": "^[A-Za-z0-9_-]+$", "maxLength": 64 }),
        ("reason" | "despite_hold", _) => {
            json!({ "minLength": 1, "maxLength": 1_000, "pattern": r"\S" })
        }
        ("level", _) => json!({ "maximum": 63 }),
        ("number", _) => json!({ "pattern": TILE }),
        ("id", "string") => json!({ "minLength": 1 }),
        (_, "string") => json!({ "minLength": 1, "maxLength": 256 }),
        _ => json!({}),
    }
}

/// What is put into a path beside its type, where an operation names things of its own.
pub(super) fn bounds_of(operation: &str, name: &str) -> Value {
    match (operation, name) {
        ("setLegalHold" | "liftLegalHold", "id") => {
            json!({ "pattern": "^[A-Za-z0-9._-]+$", "minLength": 1, "maxLength": 64 })
        }
        _ => json!({}),
    }
}

fn kinds() -> Vec<String> {
    Kind::KNOWN.iter().map(|kind| kind.as_str().to_owned()).collect()
}
