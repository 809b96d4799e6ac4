//! Reading `[[deployments.passes]]`: what a deployment passes on that does not stay within a call.

use std::collections::BTreeSet;

use super::{
    Reader,
    rows::{DeploymentRow, PassRow},
};
use crate::{
    domain::passing::{PassStanding, is_reference, standing},
    facts::organisation::Pass,
};

impl Reader<'_> {
    pub(super) fn passes(&mut self, row: &DeploymentRow) -> Vec<Pass> {
        let is_owned = row.backend.as_ref().is_some_and(|backend| backend.tenant.is_some());
        let mut seen = BTreeSet::new();
        let mut passes = Vec::new();
        for pass in &row.passes {
            let field = pass.field.get_ref();
            if !seen.insert(field) {
                let message = format!("a pass for `{field}` appears twice");
                self.faults.0.push(self.file.fault(pass.field.span(), message).help("keep one"));
            }
            // A version that knows more of requests must still read what was active before.
            if !self.is_recorded {
                self.check_pass(pass, is_owned);
            }
            passes.push(Pass {
                field: field.clone(),
                reaches: self.jurisdictions(&pass.reaches),
                is_reference: is_reference(field),
            });
        }
        passes
    }

    fn check_pass(&mut self, pass: &PassRow, is_owned: bool) {
        let field = pass.field.get_ref();
        let (message, help) = match standing(field) {
            PassStanding::Open => return,
            PassStanding::Reference if is_owned => return,
            PassStanding::Reference => (
                format!("`{field}` refers to what lies at the provider, where tenants share this key"),
                "where the key is one tenant's own, say so: `[deployments.backend] tenant = \"…\"`; \
                 otherwise remove the pass"
                    .to_owned(),
            ),
            PassStanding::Stays => (
                format!("`{field}` passes without being named: it stays within the call"),
                "remove the pass".to_owned(),
            ),
            PassStanding::Refused(why) => (
                format!("`{field}` is refused always: {why}"),
                "remove the pass: a deployment of its own says where calls go".to_owned(),
            ),
            PassStanding::TakenFor(known) => (
                format!("some readers take `{field}` for `{known}`: it is refused always"),
                format!("write `{known}`, or remove the pass"),
            ),
            PassStanding::NotAName => (
                format!("`{}` is not the name of a field", field.escape_debug()),
                "copy the name from the refusal: letters, digits, `_`, `-` and `.`".to_owned(),
            ),
        };
        self.faults.0.push(self.file.fault(pass.field.span(), message).help(help));
    }
}
