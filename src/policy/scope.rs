//! A policy's scope, and which entities it can apply to. What its conditions say is Cedar's.

use std::collections::BTreeSet;

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};

/// The constraint of a scope on one entity.
#[derive(Clone, Debug)]
enum Constraint {
    Any,
    Is(EntityTypeName),
    Eq(EntityUid),
    In(EntityUid),
    IsIn(EntityTypeName, EntityUid),
}

/// What a policy's first line asks of principal, action and resource.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    principal: Constraint,
    actions: ActionConstraint,
    resource: Constraint,
}

/// All that a scope can see of an entity: its type, itself and its ancestors, as far as policies
/// name them. Entities of one class are matched by the same policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    kind: EntityTypeName,
    itself: Option<EntityUid>,
    within: BTreeSet<EntityUid>,
}

impl Class {
    /// The class of `uid`, which lies in `ancestors`, where policies name `named` in their scopes.
    pub(super) fn of<'a>(
        uid: &EntityUid,
        ancestors: impl Iterator<Item = &'a EntityUid>,
        named: &BTreeSet<EntityUid>,
    ) -> Self {
        Self {
            kind: uid.type_name().clone(),
            itself: named.get(uid).cloned(),
            within: ancestors.filter(|ancestor| named.contains(ancestor)).cloned().collect(),
        }
    }

    fn is_in(&self, uid: &EntityUid) -> bool {
        self.itself.as_ref() == Some(uid) || self.within.contains(uid)
    }
}

impl Constraint {
    fn matches(&self, class: &Class) -> bool {
        match self {
            Self::Any => true,
            Self::Is(kind) => class.kind == *kind,
            Self::Eq(uid) => class.itself.as_ref() == Some(uid),
            Self::In(uid) => class.is_in(uid),
            Self::IsIn(kind, uid) => class.kind == *kind && class.is_in(uid),
        }
    }

    fn named(&self) -> Option<&EntityUid> {
        match self {
            Self::Any | Self::Is(_) => None,
            Self::Eq(uid) | Self::In(uid) | Self::IsIn(_, uid) => Some(uid),
        }
    }
}

impl Scope {
    /// The scope of a static policy.
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            principal: match policy.principal_constraint() {
                PrincipalConstraint::Any => Constraint::Any,
                PrincipalConstraint::In(uid) => Constraint::In(uid),
                PrincipalConstraint::Eq(uid) => Constraint::Eq(uid),
                PrincipalConstraint::Is(kind) => Constraint::Is(kind),
                PrincipalConstraint::IsIn(kind, uid) => Constraint::IsIn(kind, uid),
            },
            actions: policy.action_constraint(),
            resource: match policy.resource_constraint() {
                ResourceConstraint::Any => Constraint::Any,
                ResourceConstraint::In(uid) => Constraint::In(uid),
                ResourceConstraint::Eq(uid) => Constraint::Eq(uid),
                ResourceConstraint::Is(kind) => Constraint::Is(kind),
                ResourceConstraint::IsIn(kind, uid) => Constraint::IsIn(kind, uid),
            },
        }
    }

    /// The entities that the scope names, beside actions.
    pub(super) fn named(&self) -> impl Iterator<Item = &EntityUid> {
        self.principal.named().into_iter().chain(self.resource.named())
    }

    /// Whether the policy can apply to a request for `action`, which lies in `groups`.
    pub(super) fn matches_action(&self, action: &EntityUid, groups: &[EntityUid]) -> bool {
        let matches = |uid: &EntityUid| uid == action || groups.contains(uid);
        match &self.actions {
            ActionConstraint::Any => true,
            ActionConstraint::In(uids) => uids.iter().any(matches),
            ActionConstraint::Eq(uid) => uid == action,
        }
    }

    /// Whether the policy can apply to a principal and a resource of these classes.
    pub(super) fn matches(&self, principal: &Class, resource: &Class) -> bool {
        self.principal.matches(principal) && self.resource.matches(resource)
    }
}
