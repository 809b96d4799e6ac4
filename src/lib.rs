//! Lexgate: the checkpoint that an AI call passes before it leaves.

pub mod domain;
pub mod facts;
pub mod ledger;
pub mod policy;
