//! Black-box tests: the real program, on a real SQLite file and a real Postgres.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, and not the helpers of a crate of tests"
)]

mod allowed_set;
mod architecture;
mod audit;
mod authoring;
mod backend;
mod commands;
mod configuration;
mod content;
mod credentials;
mod decision_api;
mod decisions;
mod durability;
mod faults;
mod gateway;
mod harness;
mod health;
mod hostile;
mod lab;
mod ledger;
mod lesson;
mod limits;
mod nemesis;
mod openapi;
mod oracle;
mod personal;
mod proofs;
mod retention;
mod routing;
mod sdk;
mod smoke;
mod snapshots;
mod streams;
mod tampering;
mod telemetry;
mod volumes;
mod witness;
