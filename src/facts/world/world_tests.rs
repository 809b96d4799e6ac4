//! Dated facts over time, against a plain list of what was written.

use std::{cell::Cell, collections::BTreeSet, fmt::Write};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use crate::{
    facts::{FactsAt, TermKind, World},
    source::{Faults, SourceFile},
};

/// What somebody wrote: a subject, and the days from which and until which it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    subject: Subject,
    from: i32,
    until: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Jurisdiction(&'static str),
    Member(&'static str, &'static str),
    Finding(&'static str, &'static str),
    /// A finding for all members of a zone.
    ZoneFinding(&'static str, &'static str),
    Coverage(&'static str),
    ZoneCoverage(&'static str),
    Licence(&'static str),
    Term(&'static str),
}

use Subject::{Coverage, Finding, Jurisdiction, Licence, Member, Term, ZoneCoverage, ZoneFinding};

const SUBJECTS: [Subject; 13] = [
    Jurisdiction("AA"),
    Jurisdiction("BB"),
    Member("Z", "AA"),
    Member("Z", "BB"),
    Member("Y", "BB"),
    Finding("F", "AA"),
    ZoneFinding("F", "Z"),
    ZoneFinding("G", "Y"),
    Coverage("AA"),
    ZoneCoverage("Z"),
    Licence("MIT"),
    Licence("LicenseRef-M"),
    Term("x:t"),
];

fn day(number: i32) -> Date {
    let start: Date = "2026-01-01".parse().unwrap();
    start.saturating_add(jiff::Span::new().days(number))
}

fn instant(number: i32) -> Timestamp {
    day(number).to_zoned(TimeZone::UTC).unwrap().timestamp()
}

impl Row {
    fn text(&self) -> String {
        let mut text = match self.subject {
            // Codes must be known when others name them: those two have other rows for all time.
            Jurisdiction(code) => format!("[[jurisdiction]]\ncode = \"{code}\"\nname = \"n\"\n"),
            Member(zone, code) => {
                format!("[[membership]]\nzone = \"{zone}\"\nmembers = [\"{code}\"]\n")
            }
            Finding(set, code) => format!("[[finding]]\nset = \"{set}\"\nmembers = [\"{code}\"]\n"),
            ZoneFinding(set, zone) => {
                format!("[[finding]]\nset = \"{set}\"\nzones = [\"{zone}\"]\n")
            }
            Coverage(code) => {
                format!("[[coverage]]\npack = \"p.cedar\"\njurisdictions = [\"{code}\"]\n")
            }
            ZoneCoverage(zone) => {
                format!("[[coverage]]\npack = \"p.cedar\"\nzones = [\"{zone}\"]\n")
            }
            Licence(id) => format!(
                "[[licence]]\nid = \"{id}\"\nname = \"n\"\ncommercial_use = true\n\
                 output_training = true\nexcluded_zones = [\"Z\"]\n"
            ),
            Term(id) => format!("[[term]]\nkind = \"category\"\nid = \"{id}\"\nlabel = \"l\"\n"),
        };
        writeln!(text, "valid_from = \"{}\"", day(self.from)).unwrap();
        if let Some(until) = self.until {
            writeln!(text, "valid_until = \"{}\"", day(until)).unwrap();
        }
        text
    }

    fn holds(&self, at: Timestamp) -> bool {
        instant(self.from) <= at && self.until.is_none_or(|until| at < instant(until))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ends_before = |a: &Self, b: &Self| a.until.is_some_and(|until| until <= b.from);
        !ends_before(self, other) && !ends_before(other, self)
    }

    /// Whether two rows may not say the same for the same time. Unions have nothing to clash.
    fn clashes(&self, other: &Self) -> bool {
        let is_union = matches!(self.subject, Coverage(_) | ZoneCoverage(_) | ZoneFinding(..));
        self.subject == other.subject && !is_union && self.overlaps(other)
    }
}

fn load(rows: &[Row]) -> Result<World, Faults> {
    let mut text = String::from(
        "[defaults]\nsource = \"s\"\nchecked = \"2026-01-01\"\nconfidence = \"general\"\n\
         [[zone]]\nid = \"Z\"\nname = \"z\"\n[[zone]]\nid = \"Y\"\nname = \"y\"\n\
         [[set]]\nid = \"F\"\nname = \"f\"\n[[set]]\nid = \"G\"\nname = \"g\"\n",
    );
    // Both codes are known at some time, whatever else is written.
    for code in ["AA", "BB"] {
        let once = Row { subject: Jurisdiction(code), from: -20, until: Some(-19) };
        text.push_str(&once.text());
    }
    for row in rows {
        text.push_str(&row.text());
    }
    World::load(&[SourceFile::new("facts/all.toml", &text), SourceFile::new("p.cedar", "")])
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (select(&SUBJECTS[..]), 0..30_i32, prop::option::of(1..15_i32)).prop_map(
        |(subject, from, length)| Row { subject, from, until: length.map(|days| from + days) },
    );
    prop::collection::vec(row, 0..16)
}

/// The facts at an instant as a set of subjects, findings and coverage with their zones resolved.
fn told(facts: &FactsAt) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    told.extend(facts.jurisdictions.keys().map(|code| format!("jurisdiction {code}")));
    for (word, groups) in [("zone", &facts.zones), ("set", &facts.adequacy)] {
        for (id, members) in groups {
            told.extend(members.iter().map(|code| format!("{word} {id} {code}")));
        }
    }
    told.extend(facts.coverage.iter().map(|code| format!("covered {code}")));
    for (id, licence) in &facts.licences {
        let excluded = &licence.excluded_territories;
        told.insert(format!("licence {id} {excluded:?}"));
    }
    let terms = facts.terms.get(&TermKind::Category);
    told.extend(terms.into_iter().flatten().map(|id| format!("term {id}")));
    told
}

/// The same, from the rows alone.
fn want(rows: &[Row], at: Timestamp) -> BTreeSet<String> {
    let holding: Vec<Subject> =
        rows.iter().filter(|row| row.holds(at)).map(|row| row.subject).collect();
    let members = |zone: &str| -> BTreeSet<&'static str> {
        let member = |subject: &Subject| match subject {
            Member(of, code) if *of == zone => Some(*code),
            _ => None,
        };
        holding.iter().filter_map(member).collect()
    };
    let mut want = BTreeSet::new();
    for subject in &holding {
        match subject {
            Jurisdiction(code) => {
                want.insert(format!("jurisdiction {code}"));
            }
            Member(zone, code) => {
                want.insert(format!("zone {zone} {code}"));
            }
            Finding(set, code) => {
                want.insert(format!("set {set} {code}"));
            }
            ZoneFinding(set, zone) => {
                want.extend(members(zone).iter().map(|code| format!("set {set} {code}")));
            }
            Coverage(code) => {
                want.insert(format!("covered {code}"));
            }
            ZoneCoverage(zone) => {
                want.extend(members(zone).iter().map(|code| format!("covered {code}")));
            }
            Licence(id) => {
                let excluded: Vec<_> = members("Z").into_iter().collect();
                want.insert(format!("licence {id} {{{}}}", excluded.join(", ")));
            }
            Term(id) => {
                want.insert(format!("term {id}"));
            }
        }
    }
    want
}

#[test]
fn facts_hold_from_their_first_instant_up_to_their_last() {
    let (read, refused, moved) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let law = |rows: Vec<Row>| {
        let mut pairs =
            rows.iter().enumerate().flat_map(|(n, a)| rows.iter().skip(n + 1).map(move |b| (a, b)));
        let clash = pairs.any(|(a, b)| a.clashes(b));
        let world = match load(&rows) {
            Ok(world) => world,
            Err(faults) => {
                prop_assert!(clash, "{}", faults);
                prop_assert!(faults.to_string().contains("overlapping validity"), "{}", faults);
                refused.set(refused.get() + 1);
                return Ok(());
            }
        };
        prop_assert!(!clash, "overlapping rows were read: {:?}", rows);
        read.set(read.get() + 1);
        let nanosecond = SignedDuration::from_nanos(1);
        for number in -1..47 {
            let midnight = instant(number);
            for at in [midnight, midnight - nanosecond, midnight + SignedDuration::from_hours(12)] {
                prop_assert_eq!(told(&world.at(at)), want(&rows, at), "{} {:?}", at, &rows);
            }
        }
        // From one change to the next, nothing changes; and every row's ends are changes.
        let mut at = instant(-1);
        let mut changes = BTreeSet::new();
        while let Some(next) = world.next_change(at) {
            prop_assert!(next > at);
            prop_assert_eq!(world.at(at), world.at(next - nanosecond));
            moved.set(moved.get() + u32::from(world.at(next) != world.at(at)));
            changes.insert(next);
            at = next;
        }
        let ends = rows.iter().flat_map(|row| [Some(row.from), row.until]).flatten();
        prop_assert_eq!(changes, ends.map(instant).collect::<BTreeSet<_>>());
        Ok(())
    };
    TestRunner::new(config).run(&rows(), law).unwrap();
    let seen = (read.get(), refused.get(), moved.get());
    assert!(seen.0 > 50 && seen.1 > 50 && seen.2 > 50, "{seen:?}");
}
