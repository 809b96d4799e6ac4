//! The fields in which the APIs let a caller name the person for whom a call is made. A provider may not
//! have such a name of a call that is declared to be about no one; Lexgate counts it as the call's end user
//! either way, so that what is kept under it can be erased.

use super::{super::problem::Problem, claim_names::invalid};
use crate::{
    dispatch::{Endpoint, Fields},
    domain::EndUser,
};

/// At the top of a body, the first that counts before the others.
const FIELDS: [&str; 2] = ["safety_identifier", "user"];
/// Within `metadata`, in Anthropic's APIs.
const WITHIN: &str = "user_id";
/// The same as a reader finds it.
const SHOWN: &str = "metadata.user_id";

/// The person whom the body names in a field of its own API. What cannot be a name is the backend's to
/// refuse.
pub(super) fn named(body: &Fields, endpoint: Endpoint) -> Option<EndUser> {
    let text = |body: &Fields, name: &str| body.read::<String>(name).ok().flatten();
    let name = if endpoint.is_anthropics() {
        text(&body.object("metadata").ok()??, WITHIN)
    } else {
        FIELDS.into_iter().find_map(|name| text(body, name))
    };
    EndUser::parse(&name?).ok()
}

/// Takes these fields out of the body, and names them.
pub(super) fn withhold(
    body: &mut Fields,
    endpoint: Endpoint,
) -> Result<Vec<&'static str>, Problem> {
    if !endpoint.is_anthropics() {
        let has = |name: &&str| body.names().any(|field| field == *name);
        let withheld: Vec<&str> = FIELDS.into_iter().filter(has).collect();
        if !withheld.is_empty() {
            body.retain(|name| !FIELDS.contains(&name));
        }
        return Ok(withheld);
    }
    let Ok(Some(mut metadata)) = body.object("metadata") else { return Ok(Vec::new()) };
    if !metadata.names().any(|name| name == WITHIN) {
        return Ok(Vec::new());
    }
    metadata.retain(|name| name != WITHIN);
    if metadata.is_empty() {
        body.retain(|name| name != "metadata");
    } else {
        let set = body.set_object("metadata", &metadata);
        set.map_err(|error| invalid("/metadata", error.to_string()))?;
    }
    Ok(vec![SHOWN])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoint: Endpoint, body: &str) -> (Option<String>, Vec<&'static str>, String) {
        let mut fields = Fields::parse(&body.to_owned().into()).unwrap();
        let named = named(&fields, endpoint).map(|user| user.as_str().to_owned());
        let withheld = withhold(&mut fields, endpoint).unwrap();
        (named, withheld, String::from_utf8(fields.to_vec().unwrap()).unwrap())
    }

    #[test]
    fn a_person_is_named_in_each_api_s_own_field_and_withheld() {
        let chat = |body: &str| of(Endpoint::ChatCompletions, body);
        let left = r#"{"model":"m"}"#.to_owned();
        assert_eq!(
            chat(r#"{"model":"m","user":"u-1"}"#),
            (Some("u-1".to_owned()), vec!["user"], left.clone())
        );
        let (named, withheld, rest) =
            chat(r#"{"user":"u-1","model":"m","safety_identifier":"s-1"}"#);
        assert_eq!((named.as_deref(), withheld.len(), &rest), (Some("s-1"), 2, &left));
        // What is not a name names nobody, and is not sent on either.
        for odd in ["7", "null", "\"\"", "{\"a\":1}"] {
            let (named, withheld, rest) = chat(&format!(r#"{{"model":"m","user":{odd}}}"#));
            assert_eq!((named, withheld, &rest), (None, vec!["user"], &left), "{odd}");
        }
        let metadata = r#"{"model":"m","metadata":{"user_id":"u-1"}}"#;
        assert_eq!(chat(metadata), (None, vec![], metadata.to_owned()), "it is the caller's own");
        assert_eq!(of(Endpoint::Messages, metadata), (Some("u-1".to_owned()), vec![SHOWN], left));
        let (_, _, rest) =
            of(Endpoint::CountTokens, r#"{"metadata":{"user_id":"u-1","team":"x"},"user":"y"}"#);
        assert_eq!(rest, r#"{"metadata":{"team":"x"},"user":"y"}"#);
    }
}
