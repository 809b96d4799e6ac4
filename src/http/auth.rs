//! Who asks: API keys, of which only the SHA-256 is known, and the extractors that demand a role.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{
    Shared,
    problem::{Problem, ProblemKind},
};
use crate::{
    config::{ApiKeyConfig, Role},
    domain::{Caller, Digest, JurisdictionCode, KeyName},
};

/// How callers are recognised, as it stands in records.
const BY_API_KEY: &str = "api_key";

/// The API keys of the configuration.
#[derive(Debug)]
pub struct Keys(Vec<ApiKeyConfig>);

impl Keys {
    /// These keys.
    #[must_use]
    pub fn new(keys: Vec<ApiKeyConfig>) -> Self {
        Self(keys)
    }

    /// The key whose secret this is. Every key is compared, each in constant time: the answer's
    /// time tells nothing of any of them.
    fn find(&self, secret: &str) -> Option<&ApiKeyConfig> {
        let digest = Digest::of(secret.as_bytes());
        let mut found = u64::MAX;
        for (index, key) in (0_u64..).zip(&self.0) {
            let equal: Choice = key.sha256.as_bytes().ct_eq(digest.as_bytes());
            found = u64::conditional_select(&found, &index, equal);
        }
        usize::try_from(found).ok().and_then(|index| self.0.get(index))
    }

    /// The names of the keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.name.as_str())
    }

    /// The name of the key that these headers present, if it is one of ours.
    pub(super) fn known(&self, headers: &HeaderMap) -> Option<KeyName> {
        self.authenticate(headers).ok().map(|key| key.name.clone())
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<&ApiKeyConfig, Problem> {
        let refused = |detail: &str| {
            metrics::counter!("lexgate_unauthenticated_total").increment(1);
            Problem::new(ProblemKind::Unauthenticated, detail)
        };
        let bearer = headers.get(header::AUTHORIZATION).map(|value| {
            let text = value.to_str().ok()?;
            let (scheme, secret) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
        });
        let plain = headers.get("x-api-key").map(|value| value.to_str().ok());
        let secret = bearer.or(plain);
        match secret {
            None => Err(refused("send `Authorization: Bearer <API key>`")),
            Some(None) => Err(refused("the `Authorization` header is not `Bearer <API key>`")),
            Some(Some(secret)) => {
                self.find(secret).ok_or_else(|| refused("the API key is not known"))
            }
        }
    }
}

fn with_role<'k>(keys: &'k Keys, parts: &Parts, role: Role) -> Result<&'k ApiKeyConfig, Problem> {
    let key = keys.authenticate(&parts.headers)?;
    if key.roles.contains(&role) {
        return Ok(key);
    }
    let detail = format!("this needs the role `{}`", role.as_str());
    Err(Problem::new(ProblemKind::Forbidden, detail))
}

/// Whom a request counts for while its body is read: an app, or an API key that belongs to none.
#[derive(Clone, Debug)]
pub(super) struct Whose(pub(super) Arc<str>);

/// A credential with the role `caller`.
#[derive(Debug)]
pub(super) struct AsCaller(pub(super) Caller);

impl FromRequestParts<Arc<Shared>> for AsCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let key = with_role(&shared.keys, parts, Role::Caller)?;
        let judge = shared.gate.keeper().current();
        let apps = &judge.snapshot().organisation.apps;
        let app = key.app.as_ref().and_then(|id| Some((id, apps.get(id)?)));
        let Some((id, app)) = app else {
            let detail = "the API key's app is not in the active organisation file";
            return Err(Problem::new(ProblemKind::Forbidden, detail));
        };
        let caller = Caller {
            app: id.clone(),
            authenticated: BY_API_KEY.to_owned(),
            key: key.name.clone(),
            tenant: app.tenant.clone(),
        };
        parts.extensions.insert(Whose(format!("app:{id}").into()));
        Ok(Self(caller))
    }
}

/// A credential with the role `auditor`.
#[derive(Debug)]
pub(super) struct AsAuditor {
    pub(super) key: KeyName,
    /// What it may see; everything when empty.
    pub(super) jurisdictions: Vec<JurisdictionCode>,
    /// Whether it may read sealed values.
    pub(super) personal_values: bool,
}

impl FromRequestParts<Arc<Shared>> for AsAuditor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let key = with_role(&shared.keys, parts, Role::Auditor)?;
        Ok(Self {
            key: key.name.clone(),
            jurisdictions: key.jurisdictions.clone(),
            personal_values: key.personal_values,
        })
    }
}

/// A credential with the role `officer`.
#[derive(Debug)]
pub(super) struct AsOfficer {
    pub(super) key: KeyName,
}

impl FromRequestParts<Arc<Shared>> for AsOfficer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let key = with_role(&shared.keys, parts, Role::Officer)?.name.clone();
        parts.extensions.insert(Whose(format!("key:{key}").into()));
        Ok(Self { key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_secret_alone() {
        let key = |name: &str, secret: &str| ApiKeyConfig {
            name: name.into(),
            sha256: Digest::of(secret.as_bytes()),
            roles: vec![Role::Caller],
            app: None,
            jurisdictions: Vec::new(),
            personal_values: false,
        };
        let keys = Keys::new(vec![key("a", "one"), key("b", "two")]);
        assert_eq!(keys.find("two").unwrap().name.as_str(), "b");
        assert_eq!(keys.find("one").unwrap().name.as_str(), "a");
        assert!(keys.find("three").is_none());
        assert!(keys.find("").is_none());
        assert!(Keys::new(Vec::new()).find("").is_none());
    }
}
