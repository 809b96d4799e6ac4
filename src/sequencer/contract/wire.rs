//! What a connection to Postgres can do to a commit: a proxy in between hangs, or cuts the line at
//! the worst moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::task::TaskTracker;

use super::kit::{Bed, Desk, Kept, decision, outcome};
use crate::{
    domain::{Seq, Used},
    ledger::Edge,
    sequencer::SubmitError,
    store::{self, Found, Head, Lookups, Seal, Sealed, Store, StoreError},
};

/// Lets everything pass.
const PASS: u8 = 0;
/// Cuts the line instead of passing the next commit on.
const CUT_BEFORE_COMMIT: u8 = 1;
/// Passes the next commit on, then cuts the line before its answer.
const CUT_AFTER_COMMIT: u8 = 2;
/// Cuts the line, and passes the next commit on when everybody has given it up.
const DELAY_COMMIT: u8 = 3;

/// What a commit looks like on the line: the word, or the one statement that writes an outcome.
const COMMIT: &[u8] = b"COMMIT";
const OUTCOME: &[u8] = b"\"kind\":\"outcome\"";
const DECISION: &[u8] = b"\"kind\":\"decision\"";

/// How late a delayed commit arrives.
const LATE: Duration = Duration::from_millis(600);

/// A line to Postgres that can be made to fail.
struct Line {
    mode: Arc<AtomicU8>,
    commit: &'static [u8],
    /// Connections with a lower number than this hang.
    stalled: watch::Sender<u64>,
    connections: Arc<AtomicU64>,
    store: Arc<dyn Store>,
    bed: Bed,
}

impl Line {
    async fn new(commit: &'static [u8]) -> Self {
        let bed = Bed::new(Kept::Postgres).await;
        bed.migrated().await;
        let (before, rest) = bed.url.split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{before}@{}/{database}", listener.local_addr().unwrap());
        let (mode, (stalled, flow)) = (Arc::new(AtomicU8::new(PASS)), watch::channel(0));
        let connections = Arc::new(AtomicU64::new(0));
        let counter = connections.clone();
        let (tracker, server, watched) = (TaskTracker::new(), server.to_owned(), mode.clone());
        tracker.clone().spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let flow = Flow { number, stalled: flow.clone() };
                let mode = watched.clone();
                tracker.spawn(async move {
                    tokio::select! {
                        () = requests(from_client, to_server, (mode, commit), flow.clone()) => {}
                        () = answers(from_server, to_client, flow) => {}
                    }
                });
            }
        });
        let store = store::open(&url).await.unwrap();
        Self { mode, commit, stalled, connections, store, bed }
    }

    fn will(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

/// Whether one connection hangs.
#[derive(Clone)]
struct Flow {
    number: u64,
    stalled: watch::Receiver<u64>,
}

impl Flow {
    async fn flows(&mut self) {
        let _ = self.stalled.wait_for(|stalled| self.number >= *stalled).await;
    }
}

/// Passes on what the client asks, until the line is to be cut.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (mode, commit): (Arc<AtomicU8>, &'static [u8]),
    mut flow: Flow,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        flow.flows().await;
        let commits = buffer[..n].windows(commit.len()).any(|window| window == commit);
        let mode = if commits { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
        if mode == CUT_BEFORE_COMMIT {
            return;
        }
        if mode == DELAY_COMMIT {
            return drop(TaskTracker::new().spawn(async move {
                tokio::time::sleep(LATE).await;
                to.write_all(&buffer[..n]).await.unwrap();
                tokio::time::sleep(LATE).await;
            }));
        }
        to.write_all(&buffer[..n]).await.unwrap();
        if mode == CUT_AFTER_COMMIT {
            // Postgres has it; closing this side does not unsay it.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        }
    }
}

/// Passes on what the server answers, a little late, so that a cut after COMMIT comes first.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: Flow) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(Duration::from_millis(30)).await;
        flow.flows().await;
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_cut_at_commit_writes_nothing_twice_and_loses_nothing() {
    for (mode, commit) in [
        (CUT_BEFORE_COMMIT, COMMIT),
        (CUT_AFTER_COMMIT, COMMIT),
        (CUT_BEFORE_COMMIT, OUTCOME),
        (CUT_AFTER_COMMIT, OUTCOME),
        (DELAY_COMMIT, OUTCOME),
    ] {
        let line = Line::new(commit).await;
        let desk = Desk::on(line.store.clone());
        desk.activate(1).await;
        let sent = desk.sequencer.submit(decision(true)).await.unwrap();
        if line.commit == COMMIT {
            // Another process appends: the head has to be locked again.
            Desk::on(line.bed.open().await).sequencer.submit(decision(false)).await.unwrap();
        } else {
            desk.sequencer.submit(decision(false)).await.unwrap();
        }
        line.will(mode);
        let receipt = desk
            .sequencer
            .submit_reserved(desk.sequencer.reserve().unwrap(), outcome(&sent))
            .await
            .unwrap();
        assert_eq!(receipt.seq.get(), 4);
        assert_eq!(line.mode.load(Ordering::SeqCst), PASS, "the line was cut");
        if mode == DELAY_COMMIT {
            tokio::time::sleep(2 * LATE).await;
        }
        let report = desk.verified().await;
        assert_eq!((report.entries, report.open.len()), (5, 0));
        let direct = line.bed.open().await;
        assert_eq!(direct.range(Seq::new(0), 9).await.unwrap().len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_unwritten_stays_unwritten() {
    let line = Line::new(DECISION).await;
    let desk = Desk::on(line.store.clone());
    desk.activate(1).await;
    desk.sequencer.submit(decision(false)).await.unwrap();
    line.will(DELAY_COMMIT);
    let given_up = desk.sequencer.submit(decision(true));
    assert!(tokio::time::timeout(LATE / 10, given_up).await.is_err());
    // It arrives when it has been looked for, and nobody has appended since.
    tokio::time::sleep(2 * LATE).await;
    assert_eq!(line.mode.load(Ordering::SeqCst), PASS, "it was delayed");
    assert_eq!(line.bed.open().await.head().await.unwrap().unwrap().next, Seq::new(3));
    assert_eq!(desk.verified().await.entries, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_postgres_ends_in_errors_and_the_service_recovers() {
    let line = Line::new(COMMIT).await;
    let desk = Desk::on(line.store.clone());
    desk.activate(1).await;
    line.stalled.send_replace(u64::MAX);
    let started = Instant::now();
    for _ in 0..2 {
        let answer = desk.sequencer.submit(decision(false)).await;
        assert!(matches!(answer, Err(SubmitError::Unavailable(_))), "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_millis(4_300), "{:?}", started.elapsed());
    let (head, writable) = tokio::join!(desk.store.head(), desk.store.writable());
    assert!(head.is_err() && writable.is_err());
    assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
    line.stalled.send_replace(0);
    let receipt = desk.insist(decision(false)).await;
    // What nobody waited for any more may have been written when the line was free again.
    assert!((2..=4).contains(&receipt.seq.get()), "{receipt:?}");
    desk.verified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_hang_for_good_are_replaced() {
    let line = Line::new(COMMIT).await;
    let read = async || {
        let one = || line.store.head();
        tokio::join!(one(), one(), one(), one(), one(), one(), one(), one())
    };
    assert!(read().await.0.is_ok());
    tokio::time::sleep(Duration::from_millis(100)).await;
    // In the middle of the question, after the pool has found each connection well.
    let stall = async {
        tokio::time::sleep(Duration::from_millis(45)).await;
        line.stalled.send_replace(u64::MAX);
    };
    let (answers, ()) = tokio::join!(read(), stall);
    assert!(answers.0.is_err() && answers.7.is_err());
    line.stalled.send_replace(line.connections.load(Ordering::SeqCst));
    assert!(line.store.head().await.is_ok());
}

/// A process that is stopped while it holds the head's lock.
struct Stopped(std::sync::mpsc::Sender<()>);

impl Seal for Stopped {
    fn lookups(&self) -> Lookups {
        Lookups::default()
    }

    fn seal(&mut self, head: &Head, edge: &Edge, _: &Found) -> Result<Sealed, StoreError> {
        self.0.send(()).unwrap();
        std::thread::sleep(Duration::from_secs(12));
        let (rows, tiles, checkpoint) = (Vec::new(), Vec::new(), Arc::default());
        Ok(Sealed {
            rows,
            head: *head,
            edge: edge.clone(),
            tiles,
            checkpoint,
            used: Used::new(),
            clock: None,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_process_that_hangs_with_the_lock_does_not_stop_the_others_for_good() {
    let bed = Bed::new(Kept::Postgres).await;
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let (holds, held) = std::sync::mpsc::channel();
    let hanging = bed.open().await;
    let hung = desk.tracker.spawn(async move { hanging.append(&mut Stopped(holds)).await });
    held.recv().unwrap();
    let started = Instant::now();
    let first = desk.sequencer.submit(decision(false)).await;
    assert!(matches!(first, Err(SubmitError::Unavailable(_))), "{first:?}");
    desk.insist(decision(false)).await;
    assert!(started.elapsed() < Duration::from_millis(11_500), "{:?}", started.elapsed());
    assert!(hung.await.unwrap().is_err(), "it has lost its transaction");
    desk.verified().await;
}

#[tokio::test]
async fn a_connection_that_postgres_has_closed_is_replaced() {
    let bed = Bed::new(Kept::Postgres).await;
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    bed.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await
    .unwrap();
    desk.sequencer.submit(decision(false)).await.unwrap();
    assert_eq!(desk.store.head().await.unwrap().unwrap().next.get(), 3);
}
