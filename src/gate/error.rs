//! Why the gate gave no answer. A denial is an answer, not an error.

use std::sync::Arc;

use crate::{
    domain::{DecisionId, FieldFault, LimitState, Seq},
    facts::SnapshotError,
    ledger::CanonicalError,
    store::StoreError,
};

/// Why the gate gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The call names something unknown.
    #[error("the call is understood and cannot be judged")]
    Invalid(Vec<FieldFault>),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The answer under the idempotency key was given by what is no longer active.
    #[error(
        "the answer under this `Idempotency-Key` (decision {id}, record {seq}) was given by policies or facts that are no longer active; send the request with a new key to have it decided again"
    )]
    AnswerOutdated {
        /// The decision.
        id: DecisionId,
        /// Its record's position.
        seq: Seq,
    },
    /// The ledger cannot be written now.
    #[error("the ledger cannot be written: no record, no call")]
    LedgerUnavailable,
    /// The app, or its tenant, has used up a limit.
    #[error("{0}, and has: nothing was recorded or sent")]
    Limited(Box<LimitState>),
    /// Too much of the kind is under way.
    #[error("{0}: ask again later")]
    Busy(&'static str),
    /// The store's disk is almost full.
    #[error(
        "the store has {} MiB left, less than `[store] min_free` ({} MiB): only what closes calls is written",
        free >> 20, floor >> 20
    )]
    StorageLow {
        /// What is left, in bytes.
        free: u64,
        /// What must be left.
        floor: u64,
    },
    /// This process refuses to sign the log.
    #[error("nothing can be recorded, and so nothing is decided or sent: {0}")]
    Halted(#[source] Arc<StoreError>),
    /// Too much waits for the ledger.
    #[error("the ledger's queue is full")]
    QueueFull,
    /// The policies kept changing while the call was judged.
    #[error("the active snapshot changed faster than the call could be judged")]
    Unsettled,
    /// The store names an active snapshot that cannot be taken.
    #[error("no snapshot may decide: {0}")]
    NoSnapshot(String),
    /// The record would be larger than an entry may be.
    #[error("the decision's record would hold {bytes} bytes; an entry holds at most {limit}")]
    RecordTooLarge {
        /// What it would hold.
        bytes: usize,
        /// What it may.
        limit: usize,
    },
    /// No such decision of this caller.
    #[error("there is no such decision of this app")]
    NoSuchDecision,
    /// Nothing is kept of such an end user.
    #[error(
        "nothing is kept of this end user of this tenant: nothing was erased. Compare the name, and the tenant, with those that the app sends"
    )]
    NoSuchPerson,
    /// Legal holds keep records of the end user.
    #[error(
        "records of this end user are under legal hold (`{}`): lift the hold, or repeat with `despite_hold=` and the reason, which is recorded",
        .0.join("`, `")
    )]
    Held(Vec<String>),
    /// The decision was a denial: nothing happened that could be reported.
    #[error("the decision was a denial: there is no outcome to report")]
    Denied,
    /// Lexgate sent this call itself, and records its outcome itself.
    #[error("this call was sent by the gateway, which records its outcome itself")]
    Dispatched,
    /// The outcome is recorded already.
    #[error("the outcome of this decision is already recorded")]
    AlreadyReported,
    /// No allowed deployment can be reached through the gateway.
    #[error(
        "no allowed deployment has a `backend`: ask `POST /v1/decisions` and run inference yourself"
    )]
    NoBackend,
    /// The process is ending.
    #[error("the service is shutting down; send the request again")]
    Closed,
    /// The machine gives no randomness.
    #[error("the machine gives no randomness")]
    NoRandomness,
    /// The system gives no thread.
    #[error("the system gives no thread")]
    NoThread(#[source] std::io::Error),
    /// A value was sealed under another master key, or there is none.
    #[error(
        "`[ledger] master_key_file` is not the key under which the store's values of persons are sealed"
    )]
    MasterKey,
    /// The store failed.
    #[error("{0}")]
    Store(#[source] StoreError),
    /// A record could not be written in canonical form.
    #[error("a record has no canonical form")]
    Canonical(#[from] CanonicalError),
    /// The facts make no snapshot.
    #[error("the facts make no snapshot")]
    Snapshot(#[from] SnapshotError),
    /// The ledger holds something that this software cannot have written.
    #[error("the ledger holds a record that cannot be read")]
    Corrupt,
}

impl From<StoreError> for GateError {
    fn from(error: StoreError) -> Self {
        if error.refuses_to_sign() { Self::Halted(Arc::new(error)) } else { Self::Store(error) }
    }
}
