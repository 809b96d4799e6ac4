//! A nemesis: replicas and stores are paused, killed, cut off, filled, set back and lied to about the
//! time while clients call, at random but from a seed; after each round a checker holds the log against
//! what the backends received and what the clients were answered. `scripts/nemesis SECONDS` hunts longer.
//!
//! The rules, by the number in front of a finding: 0 a round shows something; 1 a call at a backend has
//! a decision that was durable before it, and goes nowhere that was forbidden; 2 what is answered is in
//! the log, and the log is told once; 3 a call has one outcome, after which it is not sent; 4 the log's
//! time is not ahead; 5 the export verifies; 6 processes live and become well again; 7 answers come in
//! time.
//!
//! A replica that is stopped between its last look and its write sends after it goes on, whatever the
//! program does: a finding of rule 1 or 3 within a millisecond of `undo PauseReplica` may be that.

mod backends;
mod checker;
mod checker_tests;
mod cluster;
mod dice;
mod export;
mod history;
mod load;
mod plan;
mod process;
mod proxy;
mod replica;
mod round;
mod stage;
mod story;
mod watch;
mod world;

use std::time::{Duration, Instant};

use dice::Dice;
use history::Tally;
use plan::{Planned, Scene};

/// The seed of the hunt in every ordinary run.
const SEED: u64 = 16;
/// How long an ordinary hunt begins new rounds, in seconds.
const SECONDS: u64 = 60;

async fn holds(name: &str, scene: Scene, plan: &[Planned]) {
    let tally = round::play(name, scene, SEED, plan).await;
    println!("{}", tally.table());
    assert!(tally.findings.is_empty(), "{}", tally.findings.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_on_postgres() {
    holds("everything_on_postgres", Scene::Postgres, &plan::everything_postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_on_sqlite() {
    holds("everything_on_sqlite", Scene::Sqlite, &plan::everything_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_clock_on_postgres() {
    holds("a_wrong_clock_on_postgres", Scene::Postgres, &plan::clock_postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_clock_on_sqlite() {
    holds("a_wrong_clock_on_sqlite", Scene::Sqlite, &plan::clock_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_asynchronous_standby_is_promoted() {
    let plan = plan::drawn(Scene::Promotion, SEED);
    holds("an_asynchronous_standby_is_promoted", Scene::Promotion, &plan).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_postgres_database_is_set_back() {
    let plan = plan::drawn(Scene::SetBackPostgres, SEED);
    holds("a_postgres_database_is_set_back", Scene::SetBackPostgres, &plan).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sqlite_file_is_set_back_while_it_is_used() {
    let plan = plan::drawn(Scene::SetBackSqlite, SEED);
    holds("a_sqlite_file_is_set_back_while_it_is_used", Scene::SetBackSqlite, &plan).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sqlite_file_is_set_back_between_two_processes() {
    let plan = plan::drawn(Scene::SetBackStopped, SEED);
    holds("a_sqlite_file_is_set_back_between_two_processes", Scene::SetBackStopped, &plan).await;
}

/// Round after round. `LEXGATE_NEMESIS_SECONDS` is how long, `LEXGATE_NEMESIS_SEED` the first round's
/// seed: that of a finding plays its round again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hunt() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| {
            text.parse().unwrap_or_else(|_| panic!("`{name}` is not a number"))
        })
    };
    let seconds = number("LEXGATE_NEMESIS_SECONDS", SECONDS);
    let mut seed = number("LEXGATE_NEMESIS_SEED", SEED);
    let (until, mut tally) = (Instant::now() + Duration::from_secs(seconds), Tally::default());
    loop {
        let scene = scene_of(seed);
        println!("round {}: LEXGATE_NEMESIS_SEED={seed}, {scene:?}", tally.rounds + 1);
        let round = round::play("hunt", scene, seed, &plan::drawn(scene, seed)).await;
        println!(
            "    {} calls, {} answered, {} at backends, {} records, {} findings",
            round.calls,
            round.answered,
            round.at_backends,
            round.records,
            round.findings.len()
        );
        for finding in &round.findings {
            println!("{finding}");
        }
        tally.add(round);
        if Instant::now() > until {
            break;
        }
        seed = Dice::new(seed).roll();
    }
    println!("{}", tally.table());
    assert!(tally.findings.is_empty(), "{}", tally.findings.join("\n"));
}

/// The scene belongs to the seed, so that the seed alone says which round it was.
fn scene_of(seed: u64) -> Scene {
    Dice::new(seed).one_of(&[
        Scene::Postgres,
        Scene::Postgres,
        Scene::Postgres,
        Scene::Postgres,
        Scene::Sqlite,
        Scene::Sqlite,
        Scene::Sqlite,
        Scene::Promotion,
        Scene::SetBackPostgres,
        Scene::SetBackSqlite,
        Scene::SetBackStopped,
    ])
}
