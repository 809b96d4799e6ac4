//! Which facts somebody has to look at again. What they say holds all the same.

use std::{collections::BTreeMap, ops::Range};

use jiff::{civil::Date, tz::TimeZone};

use super::{
    World,
    dated::{Dated, Validity},
};
use crate::source::{Fault, Faults, SourceFile};

/// What is due on some day.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// How many facts are past their `review_by`.
    pub past: usize,
    /// How many facts state none.
    pub undated: usize,
    /// One fault for all facts of a file that were read from the same source and are due together, at
    /// the first of them: each is one thing to look at again.
    pub faults: Faults,
}

/// A fact, as far as it matters by when it is looked at.
struct Row<'w> {
    file: &'w SourceFile,
    span: &'w Range<usize>,
    source: &'w str,
    valid: &'w Validity,
    checked: Date,
    review_by: Option<Date>,
}

impl<'w> Row<'w> {
    fn of<T>(dated: &'w Dated<T>) -> Self {
        Self {
            file: &dated.file,
            span: &dated.span,
            source: &dated.source,
            valid: &dated.valid,
            checked: dated.checked,
            review_by: dated.review_by,
        }
    }
}

impl World {
    /// The facts whose `review_by` is before `day`, and those that state none. A fact that is over
    /// needs no care.
    #[must_use]
    pub fn upkeep(&self, day: Date) -> Upkeep {
        let mut upkeep = Upkeep::default();
        let mut due: BTreeMap<_, Vec<Row<'_>>> = BTreeMap::new();
        for row in self.rows().filter(|row| !is_over(row.valid, day)) {
            match row.review_by {
                Some(by) if by >= day => continue,
                Some(_) => upkeep.past += 1,
                None => upkeep.undated += 1,
            }
            let same = (row.file.path.clone(), row.review_by, row.source);
            due.entry(same).or_default().push(row);
        }
        upkeep.faults.0.extend(due.values().filter_map(|rows| fault(rows)));
        upkeep.faults.0.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        upkeep
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let jurisdictions = self.jurisdictions.iter().map(Row::of);
        jurisdictions
            .chain(self.memberships.iter().map(Row::of))
            .chain(self.licences.iter().map(Row::of))
            .chain(self.coverage.iter().map(Row::of))
            .chain(self.terms.iter().map(Row::of))
            .chain(self.retentions.iter().map(Row::of))
            .chain(self.classes.iter().map(Row::of))
            .chain(self.thresholds.iter().map(Row::of))
    }
}

fn is_over(valid: &Validity, day: Date) -> bool {
    let midnight = day.to_zoned(TimeZone::UTC).map(|midnight| midnight.timestamp());
    midnight.is_ok_and(|midnight| valid.until.is_some_and(|until| until <= midnight))
}

/// The fault of facts that are due together; none where there is none.
fn fault(rows: &[Row<'_>]) -> Option<Fault> {
    let first = rows.iter().min_by_key(|row| row.span.start)?;
    let about = match rows.len() {
        1 => format!("“{}”", first.source),
        n => format!("“{}”, from which this file has {n} facts", first.source),
    };
    let at = |message: String| first.file.fault(first.span.clone(), message);
    Some(match first.review_by {
        Some(by) => at(format!("`review_by` {by} is past, last looked at on {}: {about}", first.checked))
            .help(
                "look at the source again, correct the fact if it is no longer so, and move `checked` and `review_by`",
            ),
        None => at(format!("no `review_by`: {about}")).help(
            "say until when it can be relied on: add `review_by` to the fact, or to the file's `[defaults]`",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[defaults]\nvalid_from = \"2026-01-01\"\nchecked = \"2026-01-01\"\n\
                        source = \"the list\"\nconfidence = \"primary\"\n";

    fn world(defaults: &str, rows: &str) -> Result<World, Faults> {
        World::load(&[SourceFile::new("facts/all.toml", &format!("{HEAD}{defaults}{rows}"))])
    }

    fn codes(codes: &[(&str, &str)]) -> String {
        let row = |(code, more): &(&str, &str)| {
            format!("[[jurisdiction]]\ncode = \"{code}\"\nname = \"n\"\n{more}\n")
        };
        codes.iter().map(row).collect()
    }

    fn due(world: &World, day: &str) -> (usize, usize, Vec<String>) {
        let Upkeep { past, undated, faults } = world.upkeep(day.parse().unwrap());
        let faults = faults.0.iter().map(|fault| format!("{}: {}", fault.line, fault.message));
        (past, undated, faults.collect())
    }

    #[test]
    fn a_fact_is_due_on_the_day_after_its_review_by() {
        let rows = codes(&[
            ("AA", ""),
            ("BB", ""),
            ("CC", "source = \"another\""),
            ("DD", "review_by = \"2026-02-01\""),
            ("EE", "review_by = \"2026-02-01\"\nvalid_until = \"2026-02-01\""),
        ]);
        let world = world("review_by = \"2026-06-01\"\n", &rows).unwrap();
        assert_eq!(due(&world, "2026-02-01"), (0, 0, vec![]));
        let fourth = "19: `review_by` 2026-02-01 is past, last looked at on 2026-01-01: “the list”";
        assert_eq!(due(&world, "2026-06-01"), (1, 0, vec![fourth.to_owned()]));
        let (past, undated, faults) = due(&world, "2026-06-02");
        assert_eq!((past, undated, faults.len()), (4, 0, 3));
        assert!(faults[0].ends_with("“the list”, from which this file has 2 facts"), "{faults:?}");
    }

    #[test]
    fn a_file_may_say_it_for_each_confidence() {
        let rows = codes(&[
            ("AA", ""),
            ("BB", "confidence = \"general\""),
            ("CC", "confidence = \"secondary\""),
        ]);
        let defaults = "review_by = { primary = \"2027-01-01\", general = \"2026-07-01\" }\n";
        let world = world(defaults, &rows).unwrap();
        assert_eq!(due(&world, "2026-07-01").0, 0);
        let (past, undated, faults) = due(&world, "2026-07-02");
        assert_eq!((past, undated), (1, 1), "{faults:?}");
        assert!(faults[1].contains("no `review_by`"), "{faults:?}");
    }

    #[test]
    fn what_cannot_be_a_review_by_is_refused() {
        for (wrong, says) in [
            ("\"soon\"", "`soon` is not a date"),
            ("\"2026-01-01\"", "`review_by` 2026-01-01 is not after `checked`"),
            ("{ sure = \"2027-01-01\" }", "want a day"),
            ("7", "want a day"),
        ] {
            let faults =
                world(&format!("review_by = {wrong}\n"), &codes(&[("AA", "")])).unwrap_err();
            assert!(faults.to_string().contains(says), "{wrong}: {faults}");
        }
    }
}
