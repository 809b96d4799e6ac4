//! Witnesses (C2SP tlog-witness): those who have seen a log's checkpoints and say so, so that its
//! keeper cannot show different histories to different people. [`Witness`] is one; [`Publisher`] is a
//! log's way to them. Nothing here delays a decision.

mod keep;
mod publish;
mod serve;

pub use keep::{Refusal, Witness};
pub use publish::{Publisher, PublisherError, WitnessAddress};
pub use serve::router;
