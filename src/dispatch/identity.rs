//! Whether a backend is what the catalogue says.

use crate::facts::BackendAddress;

/// Whether an answer that names `answered` comes from the model that is behind `address`.
#[must_use]
pub fn names_same_model(address: &BackendAddress, answered: &str) -> bool {
    answered == address.model || address.served_as.iter().any(|name| name == answered)
}
