//! What to do about a name that nothing declares.

use crate::source::nearest;

/// What is meant by the unknown `name`, as far as one that is `known` is near, and what to do otherwise.
pub(in crate::facts) fn remedy<'n>(
    name: &str,
    known: impl Iterator<Item = &'n str>,
    otherwise: &str,
) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`? Otherwise {otherwise}"),
        None => format!("correct it, or {otherwise}"),
    }
}
