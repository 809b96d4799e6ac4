//! Black-box tests: the real program, on a real SQLite file and a real Postgres.

mod audit;
mod configuration;
mod decision_api;
mod decisions;
mod faults;
mod harness;
mod lab;
mod openapi;
mod smoke;
