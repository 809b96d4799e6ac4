//! Loads for `scripts/bench gateway`: a backend that answers at once, and those who call it through
//! gateways or directly. Not a way to measure a model, nor a gateway on another machine.
//!
//!   mock ADDRESS                      serves chats and the list of models, until it is killed
//!   check URL MODEL                   one call whole, one streamed: says what is wrong with an answer
//!   whole URL MODEL CONNECTIONS SECONDS     prints requests per second, p50 and p99 in ms, failures
//!   stream URL MODEL CONNECTIONS SECONDS    prints streams per second, p50 in ms of the time to the
//!                                     first byte and of the time from there to the end, failures
//!   hold URL MODEL STREAMS PID        slow streams at once: prints how many were open together, how
//!                                     many did not end well in two minutes, and the most memory of the
//!                                     process in MB
//!
//! Every call carries the same headers, whoever gets it: a key (`GATEWAY_LOAD_KEY`), the claims that
//! Lexgate asks for, and what Portkey asks for (`GATEWAY_LOAD_BACKEND`, the mock's base URL).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a load ends where its input is wrong, prints, and rounds"
)]

mod client;
mod mock;

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Asked, Connection, Target};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout_at},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many slow streams are opened at the same time.
const OPENING: usize = 32;
/// How long all of them are watched once they are open.
const WATCHED: Duration = Duration::from_secs(5);
/// How long opening them may take: they must not end before the last has begun.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long they may take to end after that; a stream takes 50 seconds where nothing holds it up.
const ENDING: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mock", address] => runtime.block_on(mock::serve(address)),
        ["check", url, model] => runtime.block_on(check(&Target::new(url, model))),
        ["whole", url, model, connections, seconds] => {
            let target = Target::new(url, model);
            let seconds = number(seconds);
            let seen = drive(&runtime, &target, Asked::Whole, number(connections), seconds);
            let mut times = seen.times(|(_, all)| all);
            println!(
                "{:.1} {:.3} {:.3} {}",
                seen.rate(),
                at(&mut times, 0.5),
                at(&mut times, 0.99),
                seen.failures
            );
        }
        ["stream", url, model, connections, seconds] => {
            let target = Target::new(url, model);
            let seconds = number(seconds);
            let seen = drive(&runtime, &target, Asked::Stream, number(connections), seconds);
            let mut first = seen.times(|(first, _)| first);
            let mut rest = seen.times(|(first, all)| all.saturating_sub(first));
            println!(
                "{:.1} {:.3} {:.3} {}",
                seen.rate(),
                at(&mut first, 0.5),
                at(&mut rest, 0.5),
                seen.failures
            );
        }
        ["hold", url, model, streams, process] => {
            let target = Arc::new(Target::new(url, model));
            runtime.block_on(hold(target, number(streams), process));
        }
        _ => println!(
            "mock ADDRESS | check URL MODEL | whole URL MODEL CONNECTIONS SECONDS | \
             stream URL MODEL CONNECTIONS SECONDS | hold URL MODEL STREAMS PID"
        ),
    }
}

/// What a load saw: of each answer the time to its first byte and to its end.
struct Seen {
    answers: Vec<(Duration, Duration)>,
    failures: usize,
    took: Duration,
}

impl Seen {
    fn rate(&self) -> f64 {
        self.answers.len() as f64 / self.took.as_secs_f64()
    }

    /// In milliseconds.
    fn times(&self, time: impl Fn((Duration, Duration)) -> Duration) -> Vec<f64> {
        self.answers.iter().map(|answer| time(*answer).as_secs_f64() * 1e3).collect()
    }
}

fn at(times: &mut [f64], part: f64) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}

/// Calls from so many connections, each its next call when it has read the last answer.
fn drive(
    runtime: &tokio::runtime::Runtime,
    target: &Target,
    asked: Asked,
    connections: u32,
    seconds: u32,
) -> Seen {
    let began = Instant::now();
    let limit = Duration::from_secs(seconds.into());
    let mut seen = Seen { answers: Vec::new(), failures: 0, took: Duration::ZERO };
    runtime.block_on(async {
        let mut callers = JoinSet::new();
        for caller in 0..connections {
            let target = target.clone();
            callers.spawn(async move {
                let (mut answers, mut failures) = (Vec::new(), 0);
                let mut connection = None;
                let mut turn = caller * 1000 / connections;
                while began.elapsed() < limit {
                    turn += 1;
                    match ask(&target, asked, turn, &mut connection).await {
                        Some(times) => answers.push(times),
                        None => failures += 1,
                    }
                }
                (answers, failures)
            });
        }
        while let Some(caller) = callers.join_next().await {
            let (answers, failures) = caller.unwrap();
            seen.answers.extend(answers);
            seen.failures += failures;
        }
    });
    seen.took = began.elapsed();
    seen
}

/// One call; none where the answer is not the mock's.
async fn ask(
    target: &Target,
    asked: Asked,
    turn: u32,
    kept: &mut Option<Connection>,
) -> Option<(Duration, Duration)> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(target).await.ok()?,
    };
    let began = Instant::now();
    let answer = connection.call(target, asked, turn).await.ok()?;
    let all = began.elapsed();
    if !answer.is_plausible(asked) {
        return None;
    }
    if !answer.closes {
        *kept = Some(connection);
    }
    Some((answer.first?.duration_since(began), all))
}

/// Reads an answer of each kind to the last word.
async fn check(target: &Target) {
    for asked in [Asked::Whole, Asked::Stream] {
        let called = async {
            let mut connection = Connection::open(target).await?;
            connection.call(target, asked, 1).await
        };
        let wrong = match called.await {
            Ok(answer) if answer.is_right(asked) => continue,
            Ok(answer) => format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(error) => error.to_string(),
        };
        println!("{asked:?}: {wrong}");
        std::process::exit(1);
    }
}

/// Opens slow streams, waits until all are open, and looks at the memory of `process` meanwhile.
async fn hold(target: Arc<Target>, streams: u32, process: &str) {
    let (open, most) = (Arc::<AtomicUsize>::default(), streams as usize);
    let places = Arc::new(Semaphore::new(OPENING));
    let mut callers = JoinSet::new();
    for turn in 0..streams {
        let (target, open, places) = (target.clone(), open.clone(), places.clone());
        callers.spawn(async move {
            let place = places.acquire_owned().await.unwrap();
            let mut connection = Connection::open(&target).await.ok()?;
            connection.send(&target, Asked::Slow, turn).await.ok()?;
            let begun = connection.begin().await.ok()?;
            open.fetch_add(1, Ordering::Relaxed);
            drop(place);
            let ended = connection.end(begun).await;
            open.fetch_sub(1, Ordering::Relaxed);
            ended.ok().filter(|answer| answer.is_right(Asked::Slow))
        });
    }
    let (mut memory, mut together) = (0.0_f64, 0);
    let (began, mut all_open) = (Instant::now(), None);
    loop {
        sleep(Duration::from_millis(100)).await;
        memory = memory.max(resident(process));
        together = together.max(open.load(Ordering::Relaxed));
        if together == most && all_open.is_none() {
            all_open = Some(Instant::now());
        }
        if all_open.is_some_and(|since| since.elapsed() >= WATCHED) || began.elapsed() >= PATIENCE {
            break;
        }
    }
    let mut right = 0;
    let end = Instant::now() + ENDING;
    while let Ok(Some(caller)) = timeout_at(end.into(), callers.join_next()).await {
        right += usize::from(caller.unwrap().is_some());
    }
    println!("{together} {} {memory:.1}", most - right);
}

/// The resident memory of a process in MB.
fn resident(process: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}
