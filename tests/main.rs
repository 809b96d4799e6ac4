//! Black-box tests: the real program, on a real SQLite file and a real Postgres.

mod backend;
mod durability;
mod gateway;
mod harness;
mod smoke;
