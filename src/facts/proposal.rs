//! What the files say, whatever the instant: policies, dated facts and organisation, read and
//! checked against each other.

use std::sync::Arc;

use super::{organisation::Organisation, world::World};
use crate::{
    domain::{Digest, Faults, SourceFile, Tier},
    policy::{Bundle, EntityKind, Rule, on_deep_stack},
};

/// The zone of jurisdictions whose law on personal data some pack implements; made from
/// `[[coverage]]`.
pub(super) const COVERED_ZONE: &str = "covered";

/// Files that fit together and could decide.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The policies.
    pub bundle: Arc<Bundle>,
    /// The dated facts.
    pub world: Arc<World>,
    /// The organisation.
    pub organisation: Arc<Organisation>,
    /// `organisation.toml` as it was written.
    pub organisation_file: SourceFile,
}

impl Proposal {
    /// Reads the files of a policy folder and an organisation file.
    ///
    /// # Errors
    /// Every fault found, as far as reading could go on after it.
    pub fn load(policies: &[SourceFile], organisation: SourceFile) -> Result<Self, Faults> {
        on_deep_stack(|| Self::read(policies, organisation, Organisation::load))
    }

    /// Reads what was active before, from the store or an export.
    ///
    /// # Errors
    /// Every fault found, as far as reading could go on after it.
    pub fn recorded(policies: &[SourceFile], organisation: SourceFile) -> Result<Self, Faults> {
        on_deep_stack(|| Self::read(policies, organisation, Organisation::recorded))
    }

    fn read(
        policies: &[SourceFile],
        organisation: SourceFile,
        read: impl FnOnce(&SourceFile, &World) -> Result<Organisation, Faults>,
    ) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let bundle = Bundle::load(policies).map_err(|found| faults.0.extend(found.0)).ok();
        let world = World::load(policies).map_err(|found| faults.0.extend(found.0)).ok();
        let Some(world) = world else { return Err(faults) };
        let read = read(&organisation, &world);
        let read = read.map_err(|found| faults.0.extend(found.0)).ok();
        let (Some(bundle), Some(read)) = (bundle, read) else { return Err(faults) };
        check_names(&bundle, &world, &read, &mut faults);
        faults.or(Self {
            bundle: Arc::new(bundle),
            world: Arc::new(world),
            organisation: Arc::new(read),
            organisation_file: organisation,
        })
    }

    /// The same policies and world facts with another organisation.
    ///
    /// # Errors
    /// Every fault found in it.
    pub fn with_organisation(&self, organisation: SourceFile) -> Result<Self, Faults> {
        let read = on_deep_stack(|| Organisation::load(&organisation, &self.world))?;
        let (organisation, organisation_file) = (Arc::new(read), organisation);
        Ok(Self { organisation, organisation_file, ..self.clone() })
    }

    /// The digest of `organisation.toml`.
    #[must_use]
    pub fn organisation_digest(&self) -> Digest {
        Digest::of(self.organisation_file.text.as_bytes())
    }
}

/// A policy that misspells a name never matches: a forbid would then be open.
fn check_names(bundle: &Bundle, world: &World, organisation: &Organisation, faults: &mut Faults) {
    for (kind, id, rule) in bundle.entities_named() {
        let (known, remedy) = match kind {
            EntityKind::Zone => (id == COVERED_ZONE || world.knows_zone(&id), "`facts/zones.toml`"),
            EntityKind::Adequacy => (world.knows_adequacy(&id), "`facts/adequacy.toml`"),
            EntityKind::Jurisdiction => {
                (world.knows_jurisdiction(&id), "`facts/jurisdictions.toml`")
            }
            EntityKind::License => (world.knows_licence(&id), "`facts/licences.toml`"),
            EntityKind::Tenant => (organisation.tenants.contains_key(id.as_str()), ORGANISATION),
            EntityKind::App => (organisation.apps.contains_key(id.as_str()), ORGANISATION),
            EntityKind::Operator => {
                (organisation.operators.contains_key(id.as_str()), ORGANISATION)
            }
            EntityKind::Model => (organisation.models.contains_key(id.as_str()), ORGANISATION),
            EntityKind::Deployment => (organisation.deployment(&id).is_some(), ORGANISATION),
        };
        refuse_unknown(known, rule, &format!("{kind:?}::\"{id}\""), remedy, faults);
    }
    let tiers = [Tier::OnDevice, Tier::HybridGpu, Tier::Remote].map(Tier::as_str);
    let models = || organisation.models.values();
    for (text, rule) in bundle.terms_named() {
        let known = world.knows_term(None, &text)
            || world.knows_class_or_threshold(&text)
            || tiers.contains(&text.as_str())
            || MODALITIES.contains(&text.as_str())
            || models().any(|model| model.provider == text || model.modalities.contains(&text));
        refuse_unknown(known, rule, &format!("\"{text}\""), "`facts/vocabulary.toml`", faults);
    }
}

/// What models read and write, whether or not one of the organisation's does.
const MODALITIES: [&str; 4] = ["text", "image", "audio", "video"];

const ORGANISATION: &str = "the organisation file";

fn refuse_unknown(known: bool, rule: &Rule, name: &str, remedy: &str, faults: &mut Faults) {
    if !known {
        let message = format!("policy `{}` names {name}, which nothing declares", rule.id);
        let fault = rule.fault_at(name, message);
        faults.0.push(fault.help(format!("correct it, or declare it in {remedy}")));
    }
}
