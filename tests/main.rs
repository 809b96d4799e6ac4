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
mod clients_backend;
mod clients_denials;
mod clients_openapi;
mod clients_snippets;
mod commands;
mod configuration;
mod content;
mod credentials;
mod decision_api;
mod decisions;
mod durability;
mod enemy_bodies;
mod enemy_explain;
mod enemy_exports;
mod enemy_files;
mod enemy_health;
mod enemy_load;
mod enemy_log;
mod enemy_persons;
mod enemy_rows;
mod enemy_sending;
mod enemy_signing;
mod enemy_stores;
mod enemy_tables;
mod enemy_time;
mod enemy_verifier;
mod enemy_weight;
mod faults;
mod forger;
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
mod request_types;
mod retention;
mod routing;
mod sdk;
mod smoke;
mod snapshots;
mod standby;
mod strangers_backend;
mod strangers_client;
mod strangers_files;
mod strangers_operator;
mod strangers_pages;
mod streams;
mod tampering;
mod telemetry;
mod volumes;
mod witness;
