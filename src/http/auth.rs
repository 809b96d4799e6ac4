//! Who asks: API keys, of which only the SHA-256 is known, and the extractors that demand a role.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{
    Shared,
    observe::Whom,
    problem::{Problem, ProblemKind},
};
use crate::{
    config::{ApiKeyConfig, Role},
    domain::{AppId, Caller, Digest, JurisdictionCode, KeyName},
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

    /// The apps that have a key, in the order of the keys.
    pub(super) fn callers(&self) -> impl Iterator<Item = &AppId> {
        self.0.iter().filter_map(|key| key.app.as_ref())
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

    /// The one key that these headers present. Some clients send the credential of something else in one of
    /// the two headers: it does not count beside a known one.
    fn authenticate(&self, headers: &HeaderMap) -> Result<&ApiKeyConfig, Problem> {
        let presented = Presented::in_headers(headers);
        let refused = |detail: String| {
            metrics::counter!("lexgate_unauthenticated_total").increment(1);
            Problem::new(ProblemKind::Unauthenticated, detail)
        };
        if presented.credentials.len() > MOST_CREDENTIALS {
            return Err(refused("the request presents too many credentials: send one".to_owned()));
        }
        let mut found: Option<&ApiKeyConfig> = None;
        for secret in presented.credentials.iter().filter_map(|one| one.secret) {
            let Some(key) = self.find(secret) else { continue };
            if found.is_some_and(|found| found.name != key.name) {
                let detail =
                    format!("{} present two different API keys: send one", presented.names());
                return Err(refused(detail));
            }
            found = Some(key);
        }
        found.ok_or_else(|| refused(presented.fault()))
    }
}

/// How many credentials of one request are looked at.
const MOST_CREDENTIALS: usize = 4;
const API_KEY: &str = "x-api-key";

/// A credential that a request presents.
struct Credential<'h> {
    /// The header that holds it.
    header: &'static str,
    /// `None` where the header does not hold one of the form that it must have.
    secret: Option<&'h str>,
}

/// All of them.
struct Presented<'h> {
    credentials: Vec<Credential<'h>>,
    /// Whether there is a header by which Azure's clients present theirs, and which is not read.
    has_azures: bool,
}

impl<'h> Presented<'h> {
    fn in_headers(headers: &'h HeaderMap) -> Self {
        let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
            let parts = value.to_str().ok().and_then(|text| text.trim().split_once(' '));
            let bearer = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            Credential { header: "Authorization", secret: bearer.map(|(_, secret)| secret.trim()) }
        });
        let plain = headers.get_all(API_KEY).iter().map(|value| Credential {
            header: API_KEY,
            secret: value.to_str().ok().map(str::trim),
        });
        let credentials = bearer.chain(plain).collect();
        Self { credentials, has_azures: headers.contains_key("api-key") }
    }

    /// The headers that were read, in words.
    fn names(&self) -> String {
        let mut names: Vec<String> =
            self.credentials.iter().map(|one| format!("`{}`", one.header)).collect();
        names.dedup();
        names.join(" and ")
    }

    /// Why no key is known.
    fn fault(&self) -> String {
        let wanted = format!("send `Authorization: Bearer <API key>` or `{API_KEY}: <API key>`");
        match self.credentials.as_slice() {
            [] if self.has_azures => format!("the header `api-key` is not read: {wanted}"),
            [] => wanted,
            [one] if one.secret.is_none() => {
                format!("the header `{}` does not hold an API key: {wanted}", one.header)
            }
            [_] => format!("the API key in the header {} is not known", self.names()),
            _ => format!("no API key in the headers {} is known", self.names()),
        }
    }
}

fn with_role<'k>(keys: &'k Keys, parts: &Parts, role: Role) -> Result<&'k ApiKeyConfig, Problem> {
    let key = keys.authenticate(&parts.headers)?;
    if let Some(whom) = parts.extensions.get::<Whom>() {
        whom.is(&key.name, key.app.as_ref());
    }
    if key.roles.contains(&role) {
        return Ok(key);
    }
    let roles: Vec<_> = key.roles.iter().map(|role| format!("`{}`", role.as_str())).collect();
    let detail = format!(
        "this needs the role `{}`: the API key `{}` has {}",
        role.as_str(),
        key.name,
        if roles.is_empty() { "none".to_owned() } else { roles.join(", ") },
    );
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

    #[test]
    fn a_known_key_counts_beside_a_strangers() {
        let key = |name: &str| ApiKeyConfig {
            name: name.into(),
            sha256: Digest::of(name.as_bytes()),
            roles: vec![Role::Caller],
            app: None,
            jurisdictions: Vec::new(),
            personal_values: false,
        };
        let keys = Keys::new(vec![key("a"), key("b")]);
        let ask = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            let found = keys.authenticate(&map);
            found.map(|key| key.name.to_string()).map_err(|problem| problem.detail)
        };
        for headers in [
            vec![("authorization", "Bearer a")],
            vec![("x-api-key", "a")],
            vec![("authorization", "Bearer sk-strange"), ("x-api-key", "a")],
            vec![("authorization", "Basic YTpi"), ("x-api-key", "a")],
            vec![("authorization", "bearer  a "), ("x-api-key", "sk-ant-strange")],
            vec![("authorization", "Bearer a"), ("x-api-key", "a")],
            vec![("authorization", "Bearer a"), ("authorization", "Bearer x")],
        ] {
            assert_eq!(ask(&headers), Ok("a".to_owned()), "{headers:?}");
        }
        for (headers, says) in [
            (vec![("authorization", "Bearer a"), ("x-api-key", "b")], "two different"),
            (vec![("x-api-key", "a"), ("x-api-key", "b")], "`x-api-key` present two different"),
            (
                vec![("authorization", "Bearer x"), ("x-api-key", "y")],
                "headers `Authorization` and `x-api-key`",
            ),
            (vec![("authorization", "Bearer x")], "header `Authorization` is not known"),
            (vec![("x-api-key", "x")], "header `x-api-key` is not known"),
            (vec![("authorization", "Basic YTpi")], "`Authorization` does not hold an API key"),
            (vec![("api-key", "a")], "`api-key` is not read"),
            (
                vec![
                    ("x-api-key", "1"),
                    ("x-api-key", "2"),
                    ("x-api-key", "3"),
                    ("x-api-key", "4"),
                    ("x-api-key", "a"),
                ],
                "too many",
            ),
            (vec![], "send `Authorization: Bearer"),
        ] {
            let said = ask(&headers).unwrap_err();
            assert!(said.contains(says), "{headers:?}: {said}");
        }
    }
}
