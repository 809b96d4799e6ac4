//! Reading `facts/*.toml`: rows in, dated facts out, every name known and no validity overlapping.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{
    Coverage, Group, Membership, RawLicence, RawRetention, TermKind, World,
    at::Licence,
    date_text::DateText,
    dated::{Provenance, ReviewBy},
    licence_id,
    places::Jurisdiction,
    remedy::remedy,
};
use crate::{
    domain::{Confidence, JurisdictionCode, Retention, Window},
    source::{Faults, SourceFile, parse_toml},
};

/// The longest time for which records can be kept: a hundred years.
const MAX_MONTHS: u32 = 1_200;

macro_rules! rows {
    ($($row:ident { $($field:ident: $kind:ty,)* })*) => {$(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::facts) struct $row {
            $(#[serde(default)] pub(in crate::facts) $field: $kind,)*
            valid_from: Option<Spanned<DateText>>,
            valid_until: Option<Spanned<DateText>>,
            source: Option<String>,
            checked: Option<Spanned<DateText>>,
            confidence: Option<Confidence>,
            review_by: Option<Spanned<ReviewBy>>,
        }

        impl $row {
            pub(in crate::facts) fn provenance(&mut self) -> Provenance {
                Provenance::new(
                    self.valid_from.take(),
                    self.valid_until.take(),
                    self.source.take(),
                    self.checked.take(),
                    self.confidence,
                    self.review_by.take(),
                )
            }
        }
    )*};
}

type Text = Option<Spanned<String>>;
pub(in crate::facts) type Texts = Vec<Spanned<String>>;

rows! {
    JurisdictionRow { code: Text, name: Option<String>, within: Text, subdivisions: Texts, }
    MembershipRow { zone: Text, members: Texts, }
    FindingRow { set: Text, members: Texts, zones: Texts, }
    CoverageRow { pack: Text, jurisdictions: Texts, zones: Texts, }
    LicenceRow {
        id: Text,
        name: Option<String>,
        commercial_use: Option<bool>,
        output_training: Option<bool>,
        excluded_territories: Texts,
        excluded_zones: Texts,
        excluded_purposes: Texts,
        monthly_active_users_limit: Option<u64>,
        monthly_revenue_usd_limit: Option<u64>,
        annual_revenue_usd_limit: Option<u64>,
    }
    TermRow { kind: Option<TermKind>, id: Text, label: Option<String>, }
    ClassRow { id: Text, name: Option<String>, categories: Texts, }
    ThresholdRow {
        id: Text,
        name: Option<String>,
        class: Text,
        without: Texts,
        personal: bool,
        jurisdictions: Texts,
        zones: Texts,
        to_zones: Texts,
        ownership: bool,
        at_least: Option<u64>,
        more_than: Option<u64>,
        window: Option<Window>,
        utc_offset: Option<Spanned<i8>>,
    }
    RetentionRow { class: Text, months: Option<Spanned<u32>>, jurisdictions: Texts, zones: Texts, }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: Spanned<String>,
    #[expect(dead_code, reason = "for the reader of the file")]
    name: String,
}

/// Every kind of row may stand in any file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsFile {
    #[serde(default)]
    defaults: Provenance,
    #[serde(default)]
    jurisdiction: Vec<Spanned<JurisdictionRow>>,
    #[serde(default)]
    zone: Vec<Named>,
    #[serde(default)]
    membership: Vec<Spanned<MembershipRow>>,
    #[serde(default)]
    set: Vec<Named>,
    #[serde(default)]
    finding: Vec<Spanned<FindingRow>>,
    #[serde(default)]
    coverage: Vec<Spanned<CoverageRow>>,
    #[serde(default)]
    licence: Vec<Spanned<LicenceRow>>,
    #[serde(default)]
    term: Vec<Spanned<TermRow>>,
    #[serde(default)]
    retention: Vec<Spanned<RetentionRow>>,
    #[serde(default)]
    class: Vec<Spanned<ClassRow>>,
    #[serde(default)]
    threshold: Vec<Spanned<ThresholdRow>>,
}

impl World {
    /// Reads the `facts/*.toml` among `files`; `packs` are the policy files that may claim coverage.
    ///
    /// # Errors
    /// Every fault found: keys, dates, unknown codes and zones, overlapping validity.
    pub fn load(files: &[SourceFile]) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut parsed = Vec::new();
        for file in files {
            if file.path.starts_with("facts/") && file.path.ends_with(".toml") {
                match parse_toml::<FactsFile>(file) {
                    Ok(rows) => parsed.push((file, rows)),
                    Err(fault) => faults.0.push(fault),
                }
            }
        }
        // What is missing because something else cannot be read is no fault of its own.
        faults = faults.or(()).map(|()| Faults::default())?;
        let mut reader = Reader { world: Self::default(), files, faults };
        // Names first: rows of any file may refer to them.
        for (file, rows) in &mut parsed {
            reader.names(file, rows);
        }
        for (file, rows) in &mut parsed {
            reader.classes(file, rows);
        }
        std::mem::take(&mut reader.faults).or(())?;
        for (file, rows) in parsed {
            reader.relations(file, rows);
        }
        let Reader { world, faults, .. } = reader;
        faults.or(world)
    }
}

/// Builds a world row by row, collecting what is wrong.
pub(in crate::facts) struct Reader<'a> {
    pub(in crate::facts) world: World,
    files: &'a [SourceFile],
    pub(in crate::facts) faults: Faults,
}

impl Reader<'_> {
    fn names(&mut self, file: &SourceFile, rows: &mut FactsFile) {
        for (group, named) in [(Group::Zone, &rows.zone), (Group::Adequacy, &rows.set)] {
            for name in named {
                let ids = self.world.groups.entry(group).or_default();
                if !ids.insert(name.id.get_ref().clone()) {
                    let message = format!("`{}` is declared twice", name.id.get_ref());
                    self.faults.0.push(file.fault(name.id.span(), message).help("keep one"));
                }
            }
        }
        for row in std::mem::take(&mut rows.jurisdiction) {
            self.jurisdiction(file, &rows.defaults, row);
        }
        for row in std::mem::take(&mut rows.term) {
            self.term(file, &rows.defaults, row);
        }
    }

    /// Classes stand on terms, thresholds on classes.
    fn classes(&mut self, file: &SourceFile, rows: &mut FactsFile) {
        for row in std::mem::take(&mut rows.class) {
            self.class(file, &rows.defaults, row);
        }
    }

    fn jurisdiction(
        &mut self,
        file: &SourceFile,
        defaults: &Provenance,
        row: Spanned<JurisdictionRow>,
    ) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        let Some(code) = self.code(file, &span, row.code.as_ref(), "code") else { return };
        let within = match &row.within {
            Some(within) => self.code(file, &span, Some(within), "within"),
            None => None,
        };
        let country = code.as_str().split_once('-').map(|(country, _)| country);
        if country != within.as_ref().map(JurisdictionCode::as_str) {
            let fault =
                file.fault(span.clone(), format!("`{code}` does not lie within what it names"));
            self.faults
                .0
                .push(fault.help(
                    "a subdivision `CA-QC` lies `within = \"CA\"`; a country within nothing",
                ));
        }
        let subdivisions = self.subdivisions(file, &code, &row.subdivisions);
        let name = row.name.unwrap_or_default();
        let jurisdiction = Jurisdiction { name, subdivisions, within };
        let dated =
            provenance.date((code.clone(), jurisdiction), span, defaults, file, &mut self.faults);
        let Some(dated) = dated else { return };
        let same = self.world.jurisdictions.iter().filter(|row| row.fact.0 == code);
        let clash = same.into_iter().any(|row| row.valid.overlaps(&dated.valid));
        self.refuse_overlap(file, &dated.span, clash, &format!("jurisdiction `{code}`"));
        self.world.jurisdictions.push(dated);
    }

    fn term(&mut self, file: &SourceFile, defaults: &Provenance, row: Spanned<TermRow>) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        let (Some(kind), Some(id)) = (row.kind, row.id) else {
            self.missing(file, &span, "kind` and `id");
            return;
        };
        if row.label.is_none() {
            self.missing(file, &span, "label");
        }
        let fact = (kind, id.into_inner());
        let Some(dated) = provenance.date(fact, span, defaults, file, &mut self.faults) else {
            return;
        };
        let same = self.world.terms.iter().filter(|row| row.fact == dated.fact);
        let clash = same.into_iter().any(|row| row.valid.overlaps(&dated.valid));
        self.refuse_overlap(file, &dated.span, clash, &format!("term `{}`", dated.fact.1));
        self.world.terms.push(dated);
    }

    fn relations(&mut self, file: &SourceFile, rows: FactsFile) {
        let defaults = rows.defaults;
        for row in rows.membership {
            let (span, mut row) = (row.span(), row.into_inner());
            let provenance = row.provenance();
            self.member(
                file,
                &defaults,
                span,
                provenance,
                (Group::Zone, row.zone, row.members, vec![]),
            );
        }
        for row in rows.finding {
            let (span, mut row) = (row.span(), row.into_inner());
            let provenance = row.provenance();
            let row = (Group::Adequacy, row.set, row.members, row.zones);
            self.member(file, &defaults, span, provenance, row);
        }
        for row in rows.coverage {
            self.coverage(file, &defaults, row);
        }
        for row in rows.licence {
            self.licence(file, &defaults, row);
        }
        for row in rows.retention {
            self.retention(file, &defaults, row);
        }
        for row in rows.threshold {
            self.threshold(file, &defaults, row);
        }
    }

    fn member(
        &mut self,
        file: &SourceFile,
        defaults: &Provenance,
        span: Range<usize>,
        provenance: Provenance,
        (group, id, members, zones): (Group, Text, Texts, Texts),
    ) {
        let (key, what) = match group {
            Group::Zone => ("zone", "zone"),
            Group::Adequacy => ("set", "set of findings"),
        };
        let Some(id) = id else { return self.missing(file, &span, key) };
        if !self.world.groups.get(&group).is_some_and(|ids| ids.contains(id.get_ref())) {
            let fault = file.fault(id.span(), format!("unknown {what} `{}`", id.get_ref()));
            let otherwise = format!("declare it: `[[{key}]]` with `id` and `name`");
            let help = remedy(id.get_ref(), self.world.group_ids(group), &otherwise);
            self.faults.0.push(fault.help(help));
        }
        let members = self.known_codes(file, &members);
        let zones = self.known_zones(file, &zones);
        let fact = Membership { group, id: id.into_inner(), members, zones };
        let Some(dated) = provenance.date(fact, span, defaults, file, &mut self.faults) else {
            return;
        };
        let fact = &dated.fact;
        let rivals = self.world.memberships.iter().filter(|row| {
            row.fact.group == fact.group
                && row.fact.id == fact.id
                && row.valid.overlaps(&dated.valid)
        });
        let twice =
            rivals.flat_map(|row| &row.fact.members).find(|code| fact.members.contains(code));
        let subject = twice.map(|code| format!("`{code}` in `{}`", fact.id));
        self.refuse_overlap(file, &dated.span, subject.is_some(), &subject.unwrap_or_default());
        self.world.memberships.push(dated);
    }

    fn coverage(&mut self, file: &SourceFile, defaults: &Provenance, row: Spanned<CoverageRow>) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        let Some(pack) = &row.pack else { return self.missing(file, &span, "pack") };
        if !self.files.iter().any(|file| *file.path == **pack.get_ref()) {
            let fault =
                file.fault(pack.span(), format!("there is no policy file `{}`", pack.get_ref()));
            self.faults.0.push(fault.help(
                "add the pack, or remove the coverage: a jurisdiction without a pack is closed",
            ));
        }
        let fact = Coverage {
            pack: pack.get_ref().clone(),
            jurisdictions: self.known_codes(file, &row.jurisdictions),
            zones: self.known_zones(file, &row.zones),
        };
        let dated = provenance.date(fact, span, defaults, file, &mut self.faults);
        self.world.coverage.extend(dated);
    }

    fn licence(&mut self, file: &SourceFile, defaults: &Provenance, row: Spanned<LicenceRow>) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        let (Some(id), Some(name), Some(commercial_use), Some(output_training)) =
            (row.id, row.name, row.commercial_use, row.output_training)
        else {
            return self.missing(file, &span, "id`, `name`, `commercial_use` and `output_training");
        };
        let licence = Licence {
            annual_revenue_usd_limit: row.annual_revenue_usd_limit,
            commercial_use,
            excluded_purposes: self.known_terms(file, TermKind::Purpose, &row.excluded_purposes),
            excluded_territories: self
                .known_codes(file, &row.excluded_territories)
                .into_iter()
                .collect(),
            monthly_active_users_limit: row.monthly_active_users_limit,
            monthly_revenue_usd_limit: row.monthly_revenue_usd_limit,
            output_training,
        };
        let excluded_zones = self.known_zones(file, &row.excluded_zones);
        self.faults.0.extend(licence_id::check(id.get_ref(), file, id.span()).err());
        let fact = RawLicence { id: id.into_inner().into(), name, licence, excluded_zones };
        let Some(dated) = provenance.date(fact, span, defaults, file, &mut self.faults) else {
            return;
        };
        let same = self.world.licences.iter().filter(|row| row.fact.id == dated.fact.id);
        let clash = same.into_iter().any(|row| row.valid.overlaps(&dated.valid));
        self.refuse_overlap(file, &dated.span, clash, &format!("licence `{}`", dated.fact.id));
        self.world.licences.push(dated);
    }

    fn retention(&mut self, file: &SourceFile, defaults: &Provenance, row: Spanned<RetentionRow>) {
        let (span, mut row) = (row.span(), row.into_inner());
        let provenance = row.provenance();
        let (Some(class), Some(months)) = (row.class, row.months) else {
            return self.missing(file, &span, "class` and `months");
        };
        if !(1..=MAX_MONTHS).contains(months.get_ref()) {
            let message = format!("`{}` months", months.get_ref());
            let fault = file.fault(months.span(), message);
            self.faults.0.push(fault.help(format!("write 1 to {MAX_MONTHS}")));
        }
        let fact = RawRetention {
            retention: Retention { class: class.into_inner(), months: Some(months.into_inner()) },
            jurisdictions: self.known_codes(file, &row.jurisdictions),
            zones: self.known_zones(file, &row.zones),
        };
        let Some(dated) = provenance.date(fact, span, defaults, file, &mut self.faults) else {
            return;
        };
        let name = &dated.fact.retention.class;
        let same = self.world.retentions.iter().filter(|row| row.fact.retention.class == *name);
        let twice = same.into_iter().any(|row| row.valid.overlaps(&dated.valid));
        self.refuse_overlap(file, &dated.span, twice, &format!("retention class `{name}`"));
        self.world.retentions.push(dated);
    }
}
