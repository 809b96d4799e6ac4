//! Lexgate: the checkpoint that an AI call passes before it leaves.

pub mod app;
pub mod cases;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod facts;
pub mod gate;
pub mod http;
pub mod ledger;
pub mod lifecycle;
pub mod policy;
pub mod sequencer;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod witness;
