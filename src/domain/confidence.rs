//! How sure a fact of the world is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How sure a fact is; the least sure first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// General knowledge: nobody read a source for it.
    General,
    /// A law firm's or an official summary was read.
    Secondary,
    /// The statute or the official text was read.
    #[default]
    Primary,
}
