//! A snapshot's digests: the same for the same files, and each for its own part.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{Digest, Revision},
    facts::{Proposal, Snapshot},
    source::SourceFile,
};

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");
const NOW: &str = "2026-11-22T13:00:00Z";
const POLICY: &str = r#"@id("all") @citation("c") permit (principal, action, resource);"#;
const FACTS: &str = r#"
[defaults]
valid_from = "2020-01-01"
source = "s"
checked = "2026-11-22"
confidence = "general"
[[jurisdiction]]
code = "DE"
name = "Germany"
[[jurisdiction]]
code = "SG"
name = "Singapore"
[[zone]]
id = "EEA"
name = "European Economic Area"
[[membership]]
zone = "EEA"
members = ["DE"]
[[licence]]
id = "MIT"
name = "MIT License"
commercial_use = true
output_training = true
[[term]]
kind = "instrument"
id = "eu-scc"
label = "Standard contractual clauses"
"#;
const ORGANISATION: &str = r#"
[[tenants]]
id = "acme"
domicile = "SG"
commercial = true
monthly_active_users = 1
monthly_revenue_usd = 1
annual_revenue_usd = 1
[[operators]]
id = "cloud"
seat = "SG"
[[models]]
id = "m"
license = "MIT"
provider = "p"
[[deployments]]
id = "m@cloud"
model = "m"
operator = "cloud"
tier = "remote"
process = ["SG"]
store = ["SG"]
[[instruments]]
id = "scc"
kind = "eu-scc"
exporter = "acme"
recipient = "cloud"
valid_from = "2026-01-01"
valid_until = "2027-01-01"
reference = "r"
"#;

fn at(instant: &str, policy: &str, facts: &str, organisation: &str) -> Snapshot {
    let files = [
        SourceFile::new("base/all.cedar", policy),
        SourceFile::new("facts/all.toml", facts),
        SourceFile::new("schema.cedarschema", SCHEMA),
    ];
    let organisation = SourceFile::new("organisation.toml", organisation);
    let proposal = Proposal::load(&files, organisation).unwrap_or_else(|faults| panic!("{faults}"));
    Snapshot::at(&proposal, instant.parse().unwrap(), Revision(1)).unwrap()
}

/// Which digests differ: bundle, facts, organisation, registers.
fn moved(snapshot: &Snapshot) -> Vec<&'static str> {
    let (old, new) = (at(NOW, POLICY, FACTS, ORGANISATION).digests, snapshot.digests);
    let parts = [
        ("bundle", old.bundle, new.bundle),
        ("facts", old.facts, new.facts),
        ("organisation", old.organisation, new.organisation),
        ("registers", old.registers, new.registers),
    ];
    let differs = parts.into_iter().filter(|(_, old, new)| old != new);
    differs.map(|(name, ..)| name).collect()
}

#[test]
fn the_same_files_have_the_same_digests() {
    assert_eq!(moved(&at(NOW, POLICY, FACTS, ORGANISATION)), Vec::<&str>::new());
    let later = "2026-12-31T23:59:59.999999Z";
    assert_eq!(moved(&at(later, POLICY, FACTS, ORGANISATION)), Vec::<&str>::new());
    // Written down once: another machine, or a later version, must find the same.
    let digests = at(NOW, POLICY, FACTS, ORGANISATION).digests;
    for (digest, text) in [
        (digests.facts, "sha256:3841662353d4d4eb8d57d00cdb078258d592d357a8a3aa63a50a15e6b4f57f89"),
        (
            digests.organisation,
            "sha256:01453d8a1b1332c4fb010bd00ef13182f35223d2a18d76f5f5b45641cedd926a",
        ),
        (
            digests.registers,
            "sha256:5145165607f47085fe2729926e09ac6222e94e134e610d91153dbe0163dc439f",
        ),
    ] {
        assert_eq!(digest.to_string(), text);
    }
}

#[test]
fn the_order_of_files_and_rows_that_say_the_same_decides_nothing() {
    let (first, rest) = FACTS.split_once("[[jurisdiction]]").unwrap();
    let (germany, rest) = rest.split_once("[[jurisdiction]]").unwrap();
    let (singapore, rest) = rest.split_once("[[zone]]").unwrap();
    let swapped =
        format!("{first}[[jurisdiction]]{singapore}[[jurisdiction]]{germany}[[zone]]{rest}");
    assert_eq!(moved(&at(NOW, POLICY, &swapped, ORGANISATION)), ["bundle"]);
}

#[test]
fn each_part_s_change_moves_its_digest_alone() {
    let comment = format!("// a word\n{POLICY}");
    assert_eq!(moved(&at(NOW, &comment, FACTS, ORGANISATION)), ["bundle"]);
    let comment = format!("# a word\n{FACTS}");
    assert_eq!(moved(&at(NOW, POLICY, &comment, ORGANISATION)), ["bundle"]);
    let facts = FACTS.replace("commercial_use = true", "commercial_use = false");
    assert_eq!(moved(&at(NOW, POLICY, &facts, ORGANISATION)), ["bundle", "facts"]);
    // A fact that does not hold yet is in the files, and not among the facts.
    let future = format!(
        "{FACTS}[[membership]]\nzone = \"EEA\"\nmembers = [\"SG\"]\nvalid_from = \"2027-06-01\"\n"
    );
    assert_eq!(moved(&at(NOW, POLICY, &future, ORGANISATION)), ["bundle"]);
    let organisation = ORGANISATION.replace("commercial = true", "commercial = false");
    assert_eq!(moved(&at(NOW, POLICY, FACTS, &organisation)), ["organisation"]);
    let organisation = ORGANISATION.replace("reference = \"r\"", "reference = \"s\"");
    assert_eq!(moved(&at(NOW, POLICY, FACTS, &organisation)), ["organisation", "registers"]);
    // The end of an instrument and the beginning of a fact are no change of files.
    assert_eq!(moved(&at("2027-01-01T00:00:00Z", POLICY, FACTS, ORGANISATION)), ["registers"]);
    let (before, after) = ("2027-05-31T23:59:59Z", "2027-06-01T00:00:00Z");
    let facts_of = |instant| at(instant, POLICY, &future, ORGANISATION).digests.facts;
    assert_ne!(facts_of(before), facts_of(after));
}

#[test]
fn contents_are_what_their_digests_say() {
    let snapshot = at(NOW, POLICY, FACTS, ORGANISATION);
    let digests = snapshot.digests;
    let of = |kind: &str| snapshot.contents().iter().find(|part| part.kind == kind).unwrap();
    for (kind, digest) in [
        ("bundle", digests.bundle),
        ("facts", digests.facts),
        ("organisation", digests.organisation),
        ("registers", digests.registers),
    ] {
        assert_eq!(of(kind).digest, digest, "{kind}");
        assert_eq!(Digest::of(&of(kind).bytes), digest, "{kind}");
    }
    let facts = serde_json::from_slice::<crate::facts::FactsAt>(&of("facts").bytes).unwrap();
    assert_eq!(facts, snapshot.facts, "a replay reads what was pinned");
    let canonical = serde_json_canonicalizer::to_vec(&facts).unwrap();
    assert_eq!(of("facts").bytes, canonical, "facts are pinned in canonical form");
}

#[test]
fn a_snapshot_ends_with_the_first_fact_or_instrument_that_changes() {
    let ends = |instant: &str, facts: &str| {
        at(instant, POLICY, facts, ORGANISATION).valid_until.map(|until| until.to_string())
    };
    assert_eq!(ends(NOW, FACTS).as_deref(), Some("2027-01-01T00:00:00Z"));
    assert_eq!(ends("2027-01-01T00:00:00Z", FACTS), None);
    let sooner =
        FACTS.replace("[[licence]]\n", "[[licence]]\nvalid_until = \"2026-11-22T13:00:01Z\"\n");
    assert_eq!(ends(NOW, &sooner).as_deref(), Some("2026-11-22T13:00:01Z"));
}

#[test]
fn the_shipped_facts_fit_the_shipped_schema_on_every_day_on_which_they_change() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let mut files = vec![SourceFile::new("schema.cedarschema", SCHEMA)];
    for folder in ["base", "sovereignty", "licensing", "duties", "facts"] {
        for entry in std::fs::read_dir(root.join("policies").join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            files.push(SourceFile::new(&name, &read(&format!("policies/{name}"))));
        }
    }
    let organisation = SourceFile::new("organisation.toml", &read("config/organisation.toml"));
    let proposal = Proposal::load(&files, organisation).unwrap_or_else(|faults| panic!("{faults}"));
    let mut at: Timestamp = "2015-01-01T00:00:00Z".parse().unwrap();
    let mut seen = 0;
    loop {
        let snapshot = Snapshot::at(&proposal, at, Revision(1)).unwrap();
        seen += 1;
        let Some(next) = snapshot.valid_until else { break };
        let just_before = next - SignedDuration::from_nanos(1);
        let before = Snapshot::at(&proposal, just_before, Revision(1)).unwrap();
        assert_eq!(before.digests, snapshot.digests, "nothing changes before {next}");
        at = next;
    }
    assert!(seen > 5, "{seen}");
}
