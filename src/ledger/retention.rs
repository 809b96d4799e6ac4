//! Until when a record is kept: what it says of itself.

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use serde::Deserialize;

use super::entry::{Entry, Kind};
use crate::domain::Retention;

/// The part of a body that says so.
#[derive(Deserialize)]
struct Kept {
    retention: Retention,
}

/// The instant from which the record's body need not be kept; `None` when it is kept for ever, as are
/// those on which the understanding of others depends.
#[must_use]
pub fn kept_until(entry: &Entry<'_>) -> Option<Timestamp> {
    months_after(entry.ts, kept_months(entry)?)
}

/// For how many months the record's body is kept; `None` for ever.
pub(super) fn kept_months(entry: &Entry<'_>) -> Option<u32> {
    let is_kept_for_a_while = matches!(
        entry.kind,
        Kind::Decision | Kind::Outcome | Kind::LateOutcome | Kind::AuditRead | Kind::Refused
    );
    if !is_kept_for_a_while {
        return None;
    }
    let Kept { retention } = serde_json::from_str(entry.body.get()).ok()?;
    retention.months
}

/// The instant so many months after another, by the calendar in UTC.
pub(super) fn months_after(instant: Timestamp, months: u32) -> Option<Timestamp> {
    let zoned = instant.to_zoned(TimeZone::UTC);
    Some(zoned.checked_add(i64::from(months).months()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fixture::{self, Chain};

    #[test]
    fn months_are_counted_from_the_record() {
        let mut chain = Chain::default();
        chain.push(&Kind::Genesis, &fixture::genesis());
        let body = |months: &str| format!(r#"{{"retention":{{"class":"a","months":{months}}}}}"#);
        let mut until = |kind: &Kind, months: &str| {
            let ts = "2026-08-31T12:00:00Z".parse().unwrap();
            chain.push_at(kind, body(months).as_bytes(), ts);
            kept_until(&Entry::parse(chain.entries.last().unwrap()).unwrap())
        };
        let expected = Some("2027-02-28T12:00:00Z".parse().unwrap());
        assert_eq!(until(&Kind::Decision, "6"), expected);
        assert_eq!(until(&Kind::Outcome, "6"), expected);
        assert_eq!(until(&Kind::AuditRead, "6"), expected);
        assert_eq!(until(&Kind::Refused, "6"), expected);
        assert_eq!(until(&Kind::Decision, "null"), None, "for ever");
        assert_eq!(until(&Kind::BundleActivated, "6"), None, "others depend on it");
    }
}
