//! A call on its way after it is recorded: what it may hold while it lasts.

mod budget;
mod pieces;
mod under_way;

pub use budget::{Budget, Room};
pub use pieces::Pieces;
pub(super) use pieces::{Gone, LastWord, PieceSender, pieces};
pub(super) use under_way::UnderWay;
