//! Lexgate: the checkpoint that an AI call passes before it leaves.

pub mod domain;
pub mod facts;
pub mod ledger;
<<<<<<< HEAD
pub mod policy;
=======
pub mod sequencer;
pub mod store;
>>>>>>> ledger
