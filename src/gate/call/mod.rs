//! Calls that are recorded and on their way: whether they may still be sent, and what is known of them
//! too late for their outcome.

mod fresh;
mod late;
mod permit;

pub(super) use fresh::{Confirmed, LEASE, Lease, Moment};
pub(super) use late::Beside;
pub(super) use permit::Pass;
