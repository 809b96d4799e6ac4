//! What the tests of stores and sequencers share: a store of its own for each test, records to put
//! into it, a clock that stands still.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    domain::{Clock, Digest, Revision, Seq},
    ledger::{
        Checkpoint, DecisionRef, Edge, Kind, LateOutcomeBody, Note, OutcomeBody, OutcomeStatus,
        Report, Verifier, canonical, fixture, leaf_of,
    },
    sequencer::{
        Activation, Draft, Mark, Receipt, Sequencer, SequencerSettings, SubmitError, root_at,
    },
    store::{self, Store},
};

static NEXT: AtomicU64 = AtomicU64::new(0);

fn unique() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where a test's store lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Sqlite,
    Postgres,
}

/// An empty store that no other test uses.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) url: String,
    folder: Option<PathBuf>,
}

impl Bed {
    pub(crate) async fn new(kept: Kept) -> Self {
        let name = format!("lexgate_test_{}_{}", process::id(), unique());
        match kept {
            Kept::Sqlite => {
                let folder = env::temp_dir().join(name);
                let url = format!("sqlite://{}", folder.join("data/lexgate.db").display());
                Self { url, folder: Some(folder) }
            }
            Kept::Postgres => {
                let server = env::var("LEXGATE_TEST_POSTGRES").expect(
                    "LEXGATE_TEST_POSTGRES is not set: run the tests with scripts/test, which starts a Postgres for them",
                );
                let mut connection = PgConnection::connect(&server).await.unwrap();
                connection.execute(format!("CREATE DATABASE {name}").as_str()).await.unwrap();
                let (path, options) = server.split_once('?').unwrap_or((&server, ""));
                let (host, _) = path.rsplit_once('/').unwrap();
                Self { url: format!("{host}/{name}?{options}"), folder: None }
            }
        }
    }

    pub(crate) fn kept(&self) -> Kept {
        if self.folder.is_some() { Kept::Sqlite } else { Kept::Postgres }
    }

    /// A handle as another process would have it.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        store::open(&self.url).await.unwrap()
    }

    pub(crate) async fn migrated(&self) -> Arc<dyn Store> {
        let store = self.open().await;
        store.migrate().await.unwrap();
        store
    }

    /// Runs a statement behind the store's back, as an administrator.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        if self.folder.is_some() {
            SqliteConnection::connect(&self.url).await?.execute(sql).await?;
        } else {
            PgConnection::connect(&self.url).await?.execute(sql).await?;
        }
        Ok(())
    }

    /// Does something while another process is about to append.
    pub(crate) async fn locking<T>(&self, meanwhile: impl AsyncFnOnce() -> T) -> T {
        if self.folder.is_some() {
            let mut other = SqliteConnection::connect(&self.url).await.unwrap();
            other.execute("BEGIN IMMEDIATE").await.unwrap();
            let done = meanwhile().await;
            other.execute("ROLLBACK").await.unwrap();
            done
        } else {
            let mut other = PgConnection::connect(&self.url).await.unwrap();
            other.execute("BEGIN; SELECT 1 FROM head FOR UPDATE").await.unwrap();
            let done = meanwhile().await;
            other.execute("ROLLBACK").await.unwrap();
            done
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A clock that is set by hand.
#[derive(Debug)]
pub(crate) struct StoppedClock(Mutex<Timestamp>);

impl StoppedClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(fixture::instant())))
    }

    pub(crate) fn advance(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A writer on a store, with its own process id.
pub(crate) struct Desk {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sequencer: Sequencer,
    pub(crate) clock: Arc<StoppedClock>,
    pub(crate) process: Uuid,
    pub(crate) tracker: TaskTracker,
}

impl Desk {
    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        Self::with(store, |_| {})
    }

    pub(crate) fn with(store: Arc<dyn Store>, change: impl FnOnce(&mut SequencerSettings)) -> Self {
        Self::marked(store, Mark::unkept(), change)
    }

    /// The same, which holds the log against `mark`.
    pub(crate) fn marked(
        store: Arc<dyn Store>,
        mark: Mark,
        change: impl FnOnce(&mut SequencerSettings),
    ) -> Self {
        let process = Uuid::from_u128(0xfeed_0000 + u128::from(unique()));
        let mut settings = SequencerSettings {
            origin: fixture::origin(),
            process,
            queue: 1024,
            reserved: 4096,
            max_batch: 256,
            signer: fixture::signer(),
            genesis: fixture::genesis(),
        };
        change(&mut settings);
        let (clock, tracker) = (StoppedClock::new(), TaskTracker::new());
        let sequencer =
            Sequencer::start(store.clone(), settings, mark, clock.clone(), &tracker).unwrap();
        Self { store, sequencer, clock, process, tracker }
    }

    /// Activates the fixture's snapshot `revision`.
    pub(crate) async fn activate(&self, revision: u64) -> Receipt {
        self.sequencer.submit(activation(revision)).await.unwrap()
    }

    /// Submits until the store is not too busy.
    pub(crate) async fn insist(&self, draft: Draft) -> Receipt {
        loop {
            match self.sequencer.submit(draft.clone()).await {
                Ok(receipt) => return receipt,
                Err(SubmitError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The whole log.
    pub(crate) async fn entries(&self) -> Vec<Bytes> {
        let stored = self.store.range(Seq::new(0), 100_000).await.unwrap();
        stored.into_iter().map(|stored| stored.entry).collect()
    }

    /// What an auditor would say, who holds the tree and its checkpoint against the entries too.
    pub(crate) async fn verified(&self) -> Report {
        let (mut verifier, mut edge) = (Verifier::new(), Edge::default());
        for entry in self.entries().await {
            verifier.push(&entry).unwrap();
            edge.extend([leaf_of(&entry)]);
        }
        let (size, root) = (edge.size(), edge.root());
        let note = Note::parse(&self.store.checkpoint().await.unwrap().unwrap()).unwrap();
        note.verify(fixture::signer().verifiers()).unwrap();
        assert_eq!(
            Checkpoint::read(&note).unwrap(),
            Checkpoint { origin: fixture::origin(), size, root }
        );
        assert_eq!(root_at(&*self.store, size).await.unwrap(), Some(root));
        verifier.finish()
    }
}

fn draft(kind: Kind, id: u128, body: &impl serde::Serialize) -> Draft {
    Draft::new(Uuid::from_u128(id), kind, canonical::to_vec(body).unwrap())
}

pub(crate) fn activation(revision: u64) -> Draft {
    let snapshot = fixture::snapshot(revision);
    let content = format!("bundle {revision}").into_bytes();
    let activation = Activation {
        expected: Revision(revision - 1),
        bundle: snapshot.bundle,
        facts: snapshot.facts,
        organisation: snapshot.organisation,
        registers: snapshot.registers,
        contents: vec![(Digest::of(&content), "bundle", content)],
    };
    let body = fixture::activation(revision);
    let draft = draft(Kind::BundleActivated, 0xac00 + u128::from(revision), &body);
    Draft { activation: Some(Arc::new(activation)), ..draft }
}

/// A decision with an identifier of its own.
pub(crate) fn decision(dispatch: bool) -> Draft {
    numbered(dispatch, 0xde00_0000 + u128::from(unique()))
}

pub(crate) fn numbered(dispatch: bool, id: u128) -> Draft {
    let body = fixture::decision(1, dispatch, &id.to_string());
    let draft = draft(Kind::Decision, id, &body);
    Draft { terms: body.terms().into(), revision: Some(Revision(1)), dispatch, ..draft }
}

/// The outcome that another process writes for one that is dead.
pub(crate) fn unknown(decision: &Receipt) -> Draft {
    let body = OutcomeBody {
        attempts: Vec::new(),
        status: OutcomeStatus::Unknown,
        ..fixture::outcome(decision.seq, decision.leaf)
    };
    Draft { body: canonical::to_vec(&body).unwrap().into(), ..outcome(decision) }
}

/// What the dead one knows after all.
pub(crate) fn late(decision: &Receipt, outcome: &Receipt, id: u128) -> Draft {
    let body = fixture::outcome(decision.seq, decision.leaf);
    let outcome = DecisionRef { leaf: outcome.leaf, seq: outcome.seq };
    let body = LateOutcomeBody::new(body, outcome);
    Draft { about: Some(outcome.seq), ..draft(Kind::LateOutcome, id, &body) }
}

pub(crate) fn outcome(decision: &Receipt) -> Draft {
    let of =
        if fixture::is_dispatched(&decision.entry) { fixture::outcome } else { fixture::reported };
    let mut body = of(decision.seq, decision.leaf);
    for attempt in &mut body.attempts {
        (attempt.started, attempt.finished) = (decision.ts, decision.ts);
    }
    let id = 0x0c00_0000 + u128::from(decision.seq.get());
    let draft = draft(Kind::Outcome, id, &body);
    Draft { about: Some(decision.seq), terms: ["tenant:acme".into()].into(), ..draft }
}
