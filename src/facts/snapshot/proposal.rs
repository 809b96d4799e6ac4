//! What the files say, whatever the instant: policies, dated facts and organisation, read and
//! checked against each other.

use std::sync::Arc;

use super::{
    names,
    names::{Declared, OwnNames},
};
use crate::{
    domain::Digest,
    facts::{organisation::Organisation, world::World},
    policy::{Bundle, on_deep_stack},
    source::{Faults, SourceFile},
};

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
        on_deep_stack(|| Self::read(policies, organisation, false))
    }

    /// Reads what was active before, from the store or an export.
    ///
    /// # Errors
    /// Every fault found, as far as reading could go on after it.
    pub fn recorded(policies: &[SourceFile], organisation: &SourceFile) -> Result<Self, Faults> {
        let policies: Vec<SourceFile> = policies.iter().map(SourceFile::recorded).collect();
        on_deep_stack(|| Self::read(&policies, organisation.recorded(), true))
    }

    /// Reads the files of a policy folder for cases, each of which brings an organisation of its own.
    ///
    /// Policies may name what the company's organisation declares, and what cases call theirs. Where that
    /// organisation is not there, or has faults (policies are written before it), they may name anything.
    ///
    /// # Errors
    /// Every fault found in the policies and facts.
    pub fn for_cases(
        policies: &[SourceFile],
        organisation: Option<&SourceFile>,
        cases: &OwnNames,
    ) -> Result<Self, Faults> {
        on_deep_stack(|| {
            let (bundle, world) = read_policies(policies)?;
            let read = organisation.and_then(|file| Organisation::load(file, &world).ok());
            let own = read.as_ref().map_or(Declared::Unread, |read| Declared::By(read, cases));
            let mut faults = Faults::default();
            names::check(&bundle, &world, &own, &mut faults);
            faults.or(Self {
                bundle: Arc::new(bundle),
                world: Arc::new(world),
                organisation: Arc::default(),
                organisation_file: SourceFile::new("organisation.toml", ""),
            })
        })
    }

    fn read(
        policies: &[SourceFile],
        organisation: SourceFile,
        is_recorded: bool,
    ) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let bundle = Bundle::load(policies).map_err(|found| faults.0.extend(found.0)).ok();
        let world = World::load(policies).map_err(|found| faults.0.extend(found.0)).ok();
        let Some(world) = world else { return Err(faults) };
        let load = if is_recorded { Organisation::recorded } else { Organisation::load };
        let read = load(&organisation, &world);
        let read = read.map_err(|found| faults.0.extend(found.0)).ok();
        let (Some(bundle), Some(read)) = (bundle, read) else { return Err(faults) };
        let (beside, check) =
            (OwnNames::default(), if is_recorded { names::check_recorded } else { names::check });
        check(&bundle, &world, &Declared::By(&read, &beside), &mut faults);
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

/// Policies and facts, with the faults of both.
fn read_policies(policies: &[SourceFile]) -> Result<(Bundle, World), Faults> {
    let mut faults = Faults::default();
    let bundle = Bundle::load(policies).map_err(|found| faults.0.extend(found.0)).ok();
    let world = World::load(policies).map_err(|found| faults.0.extend(found.0)).ok();
    match (bundle, world) {
        (Some(bundle), Some(world)) => Ok((bundle, world)),
        _ => Err(faults),
    }
}
