//! What of a request's body stays within the call, and what needs the organisation's word: closed by
//! default. `table.toml` is the table; here it is held against a body. Not who gives the word (`facts`).

mod fold;
mod references;
mod table;
mod walk;
#[cfg(test)]
mod walk_tests;

use serde_json::Error;

pub use fold::fold;
use table::{Known, TABLE};
use walk::Walk;

use super::{FieldFault, json::Member};

/// A part of a request that only those deployments are sent whose `[[deployments.passes]]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededPass {
    /// Its name, such as `tools.web_search`.
    pub field: String,
    /// Where it is: a JSON Pointer (RFC 6901) into the body, or a header's name.
    pub pointer: String,
    /// Why it does not pass by itself.
    pub why: String,
    /// Whether it refers to what lies at the provider.
    pub is_reference: bool,
}

/// Why a body is not taken, whatever a deployment passes.
#[derive(Debug)]
pub struct RefusedBody(pub FieldFault);

impl From<Error> for RefusedBody {
    fn from(error: Error) -> Self {
        Self(FieldFault::new("", error.to_string()))
    }
}

/// The passes that the body of a request to the API `root` needs, of which these are the members.
///
/// # Errors
/// When a name could be taken for another one, or something is refused always.
pub fn needed<'a>(
    root: &str,
    members: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<NeededPass>, RefusedBody> {
    let members: Vec<Member<'a>> = members.map(|(name, value)| (name.into(), value)).collect();
    let mut walk = Walk::of(&TABLE);
    walk.body(root, &members)?;
    Ok(walk.needed)
}

/// The passes that these values of the header `name` need, each a list with commas.
///
/// # Errors
/// When a value cannot be the name of a pass.
pub fn needed_by_header<'a>(
    name: &str,
    values: impl Iterator<Item = &'a str>,
) -> Result<Vec<NeededPass>, RefusedBody> {
    let mut walk = Walk::of(&TABLE);
    walk.header(name, values)?;
    Ok(walk.needed)
}

/// What the name of a pass stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassStanding {
    /// A deployment may pass it.
    Open,
    /// A deployment may pass it whose key is one tenant's own: it refers to what lies at the provider.
    Reference,
    /// It needs no pass.
    Stays,
    /// It is refused always, for this reason.
    Refused(String),
    /// Some readers take it for this name.
    TakenFor(String),
    /// It cannot be a field's name.
    NotAName,
}

/// What `field` stands for as the name of a pass.
#[must_use]
pub fn standing(field: &str) -> PassStanding {
    if !walk::is_plain(field) {
        return PassStanding::NotAName;
    }
    if let Some(why) = TABLE.refuses(field) {
        return PassStanding::Refused(why.to_owned());
    }
    match TABLE.known(field) {
        Some(Known::Needs) => return PassStanding::Open,
        Some(Known::Refers) => return PassStanding::Reference,
        Some(Known::Stays) => return PassStanding::Stays,
        None => {}
    }
    let folded = fold(field);
    let known = TABLE.names().find(|known| fold(known) == folded);
    known.map_or(PassStanding::Open, |known| PassStanding::TakenFor(known.to_owned()))
}

/// Whether a pass of this name is for a reference to what lies at the provider.
#[must_use]
pub fn is_reference(field: &str) -> bool {
    TABLE.known(field) == Some(Known::Refers)
}
