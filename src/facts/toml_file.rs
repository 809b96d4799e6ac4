//! TOML with places: what `serde` finds wrong, said with file and line.

use serde::de::DeserializeOwned;

use crate::{
    domain::{Fault, SourceFile},
    source::without_secrets,
};

/// Reads `file` as a `T`.
///
/// # Errors
/// One fault, at its place: broken TOML, an unknown key, a missing key, a wrong type.
pub fn parse<T: DeserializeOwned>(file: &SourceFile) -> Result<T, Fault> {
    toml::from_str(&file.text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let fault = file.fault(span, error.message().trim().to_owned());
        let fault = without_secrets(file, fault);
        match error.message() {
            text if text.starts_with("unknown field") => {
                fault.help("remove the key, or correct its spelling")
            }
            text if text.starts_with("missing field") => fault.help("add the key"),
            _ => fault,
        }
    })
}
