//! Black-box tests: the real program, on a real SQLite file and a real Postgres.

mod audit;
mod backend;
mod configuration;
mod decision_api;
mod decisions;
mod durability;
mod faults;
mod gateway;
mod harness;
mod lab;
mod openapi;
mod smoke;
