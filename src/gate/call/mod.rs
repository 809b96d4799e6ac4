//! Calls that are recorded and on their way: whether they may still be sent, what they may hold while
//! they last, and what is known of them too late for their outcome.

mod budget;
mod fresh;
mod late;
mod permit;
mod pieces;
mod under_way;

pub use budget::{Budget, Room};
pub(super) use fresh::{Confirmed, LEASE, Lease, Moment};
pub(super) use late::Beside;
pub(super) use permit::Pass;
pub use pieces::Pieces;
pub(super) use pieces::{Gone, LARGE, LastWord, PieceSender, pieces};
pub(super) use under_way::UnderWay;
