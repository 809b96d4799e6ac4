//! Lexgate: the checkpoint that an AI call passes before it leaves.

pub mod domain;
pub mod ledger;
pub mod sequencer;
pub mod store;
