//! The schema's names, in the one place where Rust writes them.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid};

use crate::domain::{Action, FlowAction};

/// The entity types of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntityKind {
    /// A set of jurisdictions that a treaty or a rule names.
    Zone,
    /// A finding that a jurisdiction protects data well enough.
    Adequacy,
    /// A country or a subdivision.
    Jurisdiction,
    /// A model licence.
    License,
    /// A legal entity that calls models.
    Tenant,
    /// An application.
    App,
    /// Whoever runs a deployment.
    Operator,
    /// A model.
    Model,
    /// A model at a place.
    Deployment,
}

impl EntityKind {
    const ALL: [Self; 9] = [
        Self::Zone,
        Self::Adequacy,
        Self::Jurisdiction,
        Self::License,
        Self::Tenant,
        Self::App,
        Self::Operator,
        Self::Model,
        Self::Deployment,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Zone => "Zone",
            Self::Adequacy => "Adequacy",
            Self::Jurisdiction => "Jurisdiction",
            Self::License => "License",
            Self::Tenant => "Tenant",
            Self::App => "App",
            Self::Operator => "Operator",
            Self::Model => "Model",
            Self::Deployment => "Deployment",
        }
    }

    /// The kind whose name this is.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[expect(clippy::expect_used, reason = "the names are literals of this file")]
static TYPES: LazyLock<Vec<EntityTypeName>> = LazyLock::new(|| {
    let parse = |name: &str| name.parse().expect("a type name");
    EntityKind::ALL.iter().map(|kind| parse(kind.name())).chain([parse("Action")]).collect()
});

#[expect(clippy::indexing_slicing, reason = "`TYPES` holds every kind, in order, then actions")]
fn entity(index: usize, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES[index].clone(), EntityId::new(id))
}

/// The entity `kind::"id"`.
#[must_use]
pub fn uid(kind: EntityKind, id: &str) -> EntityUid {
    entity(kind as usize, id)
}

/// The Cedar action of a use request.
#[must_use]
pub fn action_uid(action: Action) -> EntityUid {
    let name = match action {
        Action::Infer => "infer",
        Action::Embed => "embed",
        Action::FineTune => "fineTune",
        Action::Distil => "distil",
    };
    entity(EntityKind::ALL.len(), name)
}

/// The Cedar action of a flow request.
#[must_use]
pub fn flow_uid(action: FlowAction) -> EntityUid {
    entity(EntityKind::ALL.len(), action.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_writes_the_schema_s_names() {
        assert_eq!(uid(EntityKind::Zone, "EEA").to_string(), r#"Zone::"EEA""#);
        assert_eq!(uid(EntityKind::Deployment, "a@b").to_string(), r#"Deployment::"a@b""#);
        assert_eq!(action_uid(Action::FineTune).to_string(), r#"Action::"fineTune""#);
        assert_eq!(flow_uid(FlowAction::Own).to_string(), r#"Action::"own""#);
    }
}
