//! Reading a policy library: files in, a validated set of policies out, or every fault with its
//! place and remedy.

use std::{collections::BTreeMap, sync::Arc};

use cedar_policy::{PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use super::{
    compared::{Compared, compared},
    limits::{MOST_POLICIES, survey},
    names::EntityKind,
    rule::Rule,
    volume::{self, Bounds},
};
use crate::{
    domain::Digest,
    source::{Fault, Faults, SourceFile, nearest},
};

/// The schema's path in a policy folder.
pub const SCHEMA_FILE: &str = "schema.cedarschema";

/// The policies of one folder, valid against its schema.
#[derive(Debug)]
pub struct Bundle {
    /// The digest of every file that decides: schema, policies, dated facts.
    pub digest: Digest,
    /// What the digest is of: a JSON object from path to text.
    pub content: Vec<u8>,
    pub(super) schema: Schema,
    pub(super) rules: Vec<Arc<Rule>>,
    pub(super) duties: Vec<Arc<Rule>>,
    pub(super) volumes: Bounds,
}

/// Why a bundle could not be read.
pub type BundleError = Faults;

impl Bundle {
    /// Reads the schema and every `.cedar` file of `files`; those in `duties/` are duties.
    ///
    /// # Errors
    /// Every fault found: syntax, strict validation, missing annotations, ids used twice.
    pub fn load(files: &[SourceFile]) -> Result<Self, BundleError> {
        let schema = load_schema(files)?;
        let mut faults = Faults::default();
        let policies = files.iter().filter(|file| file.path.ends_with(".cedar"));
        if policies.map(|file| survey(file, false).statements).sum::<usize>() > MOST_POLICIES {
            let place = SourceFile::new(SCHEMA_FILE, "");
            let message = format!("the policy folder holds more than {MOST_POLICIES} policies");
            return Err(place.fault(0..0, message).help("join those that say the same").into());
        }
        let (mut rules, mut duties) = (Vec::new(), Vec::new());
        for file in files.iter().filter(|file| file.path.ends_with(".cedar")) {
            let is_duty = file.path.starts_with("duties/");
            let read = if is_duty { &mut duties } else { &mut rules };
            read_file(file, is_duty, read, &mut faults);
        }
        check_unique(files, rules.iter().chain(&duties), &mut faults);
        let validator = Validator::new(schema);
        for set in [&rules, &duties] {
            validate(files, &validator, set, &mut faults);
        }
        let mut volumes = Bounds::new();
        for rule in rules.iter().chain(&duties) {
            faults.0.extend(volume::bounds(rule, &mut volumes).err());
        }
        let schema = validator.schema().clone();
        let content = content_of(files);
        faults.or(Self { digest: Digest::of(&content), content, schema, rules, duties, volumes })
    }

    /// The schema, against which facts are checked.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The numbers with which policies compare `context.volume`.
    #[must_use]
    pub fn volumes(&self) -> &Bounds {
        &self.volumes
    }

    /// Every policy, duties last.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().chain(&self.duties)
    }

    /// The entities that policies name: kind, id, and the policy that names it.
    pub fn entities_named(&self) -> impl Iterator<Item = (EntityKind, String, &Arc<Rule>)> {
        self.rules().flat_map(|rule| {
            rule.policy.entity_literals().into_iter().filter_map(move |uid| {
                let kind = EntityKind::named(uid.type_name().basename())?;
                Some((kind, uid.id().unescaped().to_owned(), rule))
            })
        })
    }

    /// The texts and patterns that policies compare with: categories, purposes, instruments and the like.
    pub fn compared(&self) -> impl Iterator<Item = (Compared, &Arc<Rule>)> {
        self.rules().flat_map(|rule| {
            let json = rule.policy.to_json().unwrap_or_default();
            let found = json.get("conditions").map(compared).unwrap_or_default();
            found.into_iter().map(move |one| (one, rule))
        })
    }
}

fn load_schema(files: &[SourceFile]) -> Result<Schema, Faults> {
    let Some(file) = files.iter().find(|file| &*file.path == SCHEMA_FILE) else {
        let missing = SourceFile::new(SCHEMA_FILE, "");
        return Err(missing
            .fault(0..0, "the policy folder has no schema")
            .help("`lexgate init` writes one; `[policies] dir` names the folder")
            .into());
    };
    Faults(survey(file, true).faults).or(())?;
    match Schema::from_cedarschema_str(&file.text) {
        Ok((schema, warnings)) => {
            let faults: Vec<Fault> =
                warnings.map(|warning| diagnose(file, 0..0, &warning)).collect();
            Faults(faults).or(schema)
        }
        Err(error) => Err(diagnose(file, 0..0, &error).into()),
    }
}

fn read_file(file: &SourceFile, is_duty: bool, read: &mut Vec<Arc<Rule>>, faults: &mut Faults) {
    let set = match parse(file) {
        Ok(set) => set,
        Err(found) => return faults.0.extend(found.0),
    };
    if let Some(template) = set.templates().next() {
        let id = template.annotation("id").unwrap_or("?");
        faults.0.push(
            file.fault(0..0, format!("policy `{id}` is a template"))
                .help("write the entities out: a record must show what a policy says"),
        );
    }
    // Cedar numbers the policies of a text in order, and keeps the text of each.
    let mut policies: Vec<_> = set.policies().collect();
    policies.sort_by_key(|policy| {
        policy.id().to_string().strip_prefix("policy").and_then(|n| n.parse::<usize>().ok())
    });
    let mut cursor = 0;
    for policy in policies {
        let text = policy.to_cedar().unwrap_or_default();
        let rest = file.text.get(cursor..).unwrap_or("");
        let start = cursor + rest.find(&text).unwrap_or(0);
        cursor = start + text.len();
        match Rule::read(policy, file, start, is_duty) {
            Ok(rule) => read.push(Arc::new(rule)),
            Err(fault) => faults.0.push(fault),
        }
    }
}

/// The `@id` of each policy of `files`, as it is written, with its file. Tells of any text what it can:
/// nothing is parsed.
#[must_use]
pub fn policy_ids(files: &[SourceFile]) -> BTreeMap<String, Arc<str>> {
    let policies = files.iter().filter(|file| file.path.ends_with(".cedar"));
    let ids = policies.flat_map(|file| {
        survey(file, false).ids.into_iter().map(move |id| (id, file.path.clone()))
    });
    ids.collect()
}

/// The policies of one text, under Cedar's own ids.
pub(super) fn parse(file: &SourceFile) -> Result<PolicySet, Faults> {
    Faults(survey(file, false).faults).or(())?;
    file.text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        Faults(errors.iter().map(|error| diagnose(file, 0..0, error)).collect())
    })
}

fn check_unique<'a>(
    files: &[SourceFile],
    rules: impl Iterator<Item = &'a Arc<Rule>>,
    faults: &mut Faults,
) {
    let mut seen: BTreeMap<&str, &Rule> = BTreeMap::new();
    for rule in rules {
        if let Some(first) = seen.insert(rule.id.as_str(), rule) {
            let message =
                format!("policy id `{}` is already used at {}:{}", rule.id, first.file, first.line);
            faults.0.push(fault_at(files, rule, message).help("give each policy an id of its own"));
        }
        if [super::DEFAULT_DENY, super::EVALUATION_ERROR, super::UNDECLARED_DATA]
            .contains(&rule.id.as_str())
        {
            let message = format!("policy id `{}` is Lexgate's own", rule.id);
            faults.0.push(fault_at(files, rule, message).help("choose another id"));
        }
    }
}

/// A fault at the first line of `rule`.
fn fault_at(files: &[SourceFile], rule: &Rule, message: String) -> Fault {
    match files.iter().find(|file| *file.path == *rule.file) {
        Some(file) => {
            let start = file.text.find(&rule.text).unwrap_or(0);
            file.fault(start..start + rule.text.len(), message)
        }
        None => SourceFile::new(&rule.file, "").fault(0..0, message),
    }
}

fn validate(files: &[SourceFile], validator: &Validator, rules: &[Arc<Rule>], faults: &mut Faults) {
    let mut set = PolicySet::new();
    for rule in rules {
        // A clash of ids is reported already.
        let _ = set.add(rule.policy.clone());
    }
    let result = validator.validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|e| (e.policy_id(), e as &dyn Diagnostic));
    let warnings = result.validation_warnings().map(|w| (w.policy_id(), w as &dyn Diagnostic));
    let mut found = Vec::new();
    for (id, diagnostic) in errors.chain(warnings) {
        let rule = rules.iter().find(|rule| rule.id.as_str() == AsRef::<str>::as_ref(id));
        let file = rule.and_then(|rule| files.iter().find(|file| *file.path == *rule.file));
        if let Some(file) = file {
            let span = rule.and_then(|rule| {
                let start = file.text.find(&rule.text)?;
                Some(start..start + rule.text.len())
            });
            found.push(diagnose(file, span.unwrap_or(0..0), diagnostic));
        }
    }
    // Cedar's own order differs from run to run.
    found.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
    // A misspelt name is found once for each action that the policy is for.
    found.dedup_by(|b, a| {
        let place = |fault: &Fault| (fault.file.clone(), fault.line, fault.column, fault.length);
        place(a) == place(b) && a.help.is_some() && a.help == b.help
    });
    faults.0.extend(found);
}

/// Cedar's own words and place; `fallback` where it gives no place.
fn diagnose(file: &SourceFile, fallback: std::ops::Range<usize>, error: &dyn Diagnostic) -> Fault {
    let label = error.labels().and_then(|mut labels| labels.next());
    let span =
        label.as_ref().map_or(fallback, |label| label.offset()..label.offset() + label.len());
    let mut message = error.to_string();
    if let Some(text) = label.as_ref().and_then(|label| label.label()) {
        message = format!("{message}: {text}");
    }
    let help = error.help().map(|help| help.to_string());
    let help = help.map(|help| attributes_of(&message, &help).unwrap_or(help));
    let fault = file.fault(span, message);
    match help {
        Some(help) => fault.help(help),
        None => fault,
    }
}

/// Where the attributes of an entity are listed, if `message` says that one is missing, and what `help` proposes
/// in its place is not like it: Cedar names the nearest attribute, however far it is.
fn attributes_of(message: &str, help: &str) -> Option<String> {
    let (missing, entity) = message.split_once("` on entity type `")?;
    let (_, missing) = missing.rsplit_once('`')?;
    let (entity, _) = entity.split_once("` not found")?;
    let proposed = help.strip_prefix("did you mean `")?.strip_suffix("`?")?;
    let is_like = nearest(missing, std::iter::once(proposed)).is_some();
    (!is_like)
        .then(|| format!("`entity {entity}` in `{SCHEMA_FILE}` lists the attributes that it has"))
}

/// The files that decide, as one JSON object from path to text.
fn content_of(files: &[SourceFile]) -> Vec<u8> {
    let texts: BTreeMap<&str, &str> = files.iter().map(|file| (&*file.path, &*file.text)).collect();
    serde_json::to_vec(&texts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_attribute_is_proposed_where_it_is_near() {
        let missing = |name: &str| {
            format!("for policy `p`, attribute `{name}` on entity type `Operator` not found")
        };
        assert_eq!(attributes_of(&missing("seats"), "did you mean `seat`?"), None);
        let far = attributes_of(&missing("jurisdiction"), "did you mean `seat`?").unwrap();
        assert_eq!(
            far,
            "`entity Operator` in `schema.cedarschema` lists the attributes that it has"
        );
        assert_eq!(attributes_of("unrecognised entity type `Ap`", "did you mean `App`?"), None);
    }
}
