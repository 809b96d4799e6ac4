//! The log by itself, without a gate: what it is held against, and an operator's word about it.

use std::sync::Arc;

use uuid::Uuid;

use super::AppError;
use crate::{
    config::Config,
    domain::{Clock, SystemClock},
    gate::fresh_id,
    ledger::{Engine, GenesisBody, Kind, Signer},
    lifecycle::Lifecycle,
    sequencer::{Draft, Mark, MarkSettings, Receipt, Sequencer, SequencerSettings},
    store::{Store, StoreError},
};

/// How many records may wait for the ledger.
const QUEUE: usize = 4096;
/// How many calls may be under way: each keeps a place for its outcome.
const RESERVED: usize = 65_536;
/// How many records are committed at once.
const MAX_BATCH: usize = 1024;

/// What `config` says to the writer of the ledger.
pub(super) fn settings(config: &Config, process: Uuid, signer: Arc<Signer>) -> SequencerSettings {
    let vkey = signer.verifiers().first().map(ToString::to_string).unwrap_or_default();
    SequencerSettings {
        origin: config.ledger.origin.clone(),
        process,
        queue: QUEUE,
        reserved: RESERVED,
        max_batch: MAX_BATCH,
        signer,
        genesis: GenesisBody {
            origin: config.ledger.origin.to_string(),
            public_key: vkey,
            software: Engine {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        },
    }
}

/// What `config` says that the log is held against.
#[must_use]
pub fn mark_settings(config: &Config) -> MarkSettings {
    MarkSettings {
        path: config.ledger.mark_file.clone(),
        checkpoints: config.ledger.checkpoints_file.clone(),
        max_clock_skew: config.ledger.max_clock_skew,
        require_witness: config.ledger.require_witness,
    }
}

/// Opens the mark that `config` names, and holds the log in `store` against it.
///
/// # Errors
/// When the log is not the one that was signed, or a file cannot be used.
pub async fn open_mark(
    config: &Config,
    store: &dyn Store,
    signer: &Signer,
) -> Result<Mark, StoreError> {
    Mark::open(mark_settings(config), store, signer).await
}

/// Appends one record without a gate: an operator's word about the log itself.
///
/// # Errors
/// When the log is another one, or cannot be written.
pub async fn append_alone(
    config: &Config,
    signer: Signer,
    mark: Mark,
    store: Arc<dyn Store>,
    kind: Kind,
    body: Vec<u8>,
) -> Result<Receipt, AppError> {
    let id = fresh_id(&SystemClock, &ring::rand::SystemRandom::new())?;
    append_draft(config, signer, mark, store, Draft::new(id, kind, body)).await
}

/// The same, of a record with conditions.
///
/// # Errors
/// When the log is another one, or cannot be written.
pub async fn append_draft(
    config: &Config,
    signer: Signer,
    mark: Mark,
    store: Arc<dyn Store>,
    draft: Draft,
) -> Result<Receipt, AppError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lifecycle = Lifecycle::default();
    let settings = settings(config, draft.id, Arc::new(signer));
    let sequencer = Sequencer::start(store, settings, mark, clock, &lifecycle.services)
        .map_err(AppError::Thread)?;
    let receipt = sequencer.submit(draft).await;
    sequencer.close();
    lifecycle.finish_services().await;
    receipt.map_err(AppError::Append)
}
