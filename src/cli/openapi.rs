//! `lexgate openapi`

use clap::Args;

use super::{Failure, output};
use crate::http;

/// Print the OpenAPI document.
#[derive(Debug, Args)]
pub(super) struct Openapi {}

impl Openapi {
    #[expect(clippy::unused_self, reason = "every subcommand is run in the same way")]
    pub(super) fn run(self) -> Result<(), Failure> {
        output::json(&http::openapi())
    }
}
