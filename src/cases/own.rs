//! What the parties of a case are called: by its number, or as the case says, where a policy names them.

use super::{Case, file::Given};
use crate::{
    facts::{OwnNames, Proposal},
    policy::EntityKind,
    source::{Faults, SourceFile},
};

/// The names of a case's parties.
pub(super) struct Ids {
    pub(super) tenant: String,
    pub(super) app: String,
    pub(super) operator: String,
    pub(super) model: String,
    pub(super) deployment: String,
}

impl Given {
    /// Each kind of party, and the name that the case gives it.
    fn named(&self) -> [(EntityKind, Option<&String>); 5] {
        let candidate = &self.candidate;
        [
            (EntityKind::Tenant, self.tenant.id.as_ref()),
            (EntityKind::App, self.app.id.as_ref()),
            (EntityKind::Operator, candidate.operator.id.as_ref()),
            (EntityKind::Model, candidate.model.as_ref()),
            (EntityKind::Deployment, candidate.id.as_ref()),
        ]
    }
}

impl Case {
    /// The names of the parties of the case with this number.
    pub(super) fn ids(&self, n: usize) -> Ids {
        let [tenant, app, operator, model, deployment] =
            self.given.named().map(|(_, name)| name.cloned());
        let or = |name: Option<String>, kind: &str| name.unwrap_or_else(|| format!("{kind}-{n}"));
        Ids {
            tenant: or(tenant, "tenant"),
            app: or(app, "app"),
            operator: or(operator, "operator"),
            model: or(model, "model"),
            deployment: or(deployment, "candidate"),
        }
    }

    /// Whether it names a party: then no other case can share its organisation, which may name the same.
    pub(super) fn names_a_party(&self) -> bool {
        self.given.named().iter().any(|(_, name)| name.is_some())
    }
}

/// Whose names policies may use: those of the company's organisation, and those of cases.
#[derive(Debug)]
pub struct Own<'a> {
    organisation: Option<&'a SourceFile>,
    names: OwnNames,
}

impl<'a> Own<'a> {
    /// The names of `organisation`, where there is one, and of all `cases`, whichever are judged.
    #[must_use]
    pub fn new(organisation: Option<&'a SourceFile>, cases: &[Case]) -> Self {
        let mut names = OwnNames::default();
        for case in cases {
            let given = case.given.named().into_iter();
            names.entities.extend(given.filter_map(|(kind, name)| Some((kind, name?.clone()))));
            names.providers.extend(case.given.candidate.provider.clone());
        }
        Self { organisation, names }
    }

    /// The policies, which may use these names.
    ///
    /// # Errors
    /// When policies or facts name what is not there.
    pub fn read(&self, policies: &[SourceFile]) -> Result<Proposal, Faults> {
        Proposal::for_cases(policies, self.organisation, &self.names)
    }
}
