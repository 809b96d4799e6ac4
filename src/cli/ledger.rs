//! `lexgate ledger`

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    ConfigFile, Failure, log_warnings,
    output::{self, Paint, paint},
};
use crate::{
    app::{self, AppError},
    ledger::{Checkpoint, Kind, Note, RecoveryBody, Signer, TreeHead, canonical},
    sequencer::{CheckpointsFile, Mark, read_mark, reset_mark, root_at},
    store::{MarkError, Store, StoreError},
};

/// Look after the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// Go on with a log that is not the one that was signed, and record that.
    Recover(Recover),
    /// Go back to the real time after a clock was wrong, and record that.
    CorrectTime(super::correct_time::CorrectTime),
    /// Remove the bodies of records whose time is over.
    Prune(super::prune::Prune),
}

impl Ledger {
    pub(super) async fn run(self) -> Result<(), Failure> {
        log_warnings()?;
        match self {
            Self::Recover(recover) => recover.run().await,
            Self::CorrectTime(correct) => correct.run().await,
            Self::Prune(prune) => prune.run().await,
        }
    }
}

/// Go on with a log that is not the one that was signed, and record that.
///
/// For a store that was restored from a backup older than the log that it replaces: the service then
/// refuses to sign, because whoever has seen the newer checkpoint would find two histories. Restore a
/// newer backup if there is one. If there is none, stop every service of this log and run this, on the
/// machine whose mark (or checkpoints file) shows the most: it says what is lost, and with `--accept-loss` writes a `ledger_recovered` record that says so too,
/// with the checkpoint that was signed before.
#[derive(Debug, Args)]
pub(super) struct Recover {
    #[command(flatten)]
    config: ConfigFile,
    /// Record the loss and go on.
    #[arg(long, requires = "reason")]
    accept_loss: bool,
    /// Why, for those who will read the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Recover {
    async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let signer = app::read_signer(&config).map_err(crate::source::Faults::from)?;
        let store = app::reach_store(&config).await.map_err(AppError::from)?;
        let path = &config.ledger.mark_file;
        let fault = match app::open_mark(&config, &*store, &signer).await {
            Ok(_) => {
                return Err(Failure::Usage(
                    "there is nothing to recover: the log goes on from its high-water mark and from its checkpoints file"
                        .to_owned(),
                ));
            }
            Err(StoreError::Mark(
                fault @ (MarkError::RolledBack { .. } | MarkError::Forked { .. }),
            )) => fault,
            Err(error) => return Err(AppError::from(error).into()),
        };
        let settings = app::mark_settings(&config);
        let marked = read_mark(&settings, &*store, &signer).await.map_err(AppError::from)?;
        let Some((lost, note)) = marked else {
            return Err(Failure::Environment(format!("`{}` has gone", path.display())));
        };
        let found = tree(&*store).await?;
        if !self.accept_loss {
            return Err(Failure::Finding(format!(
                "{fault}\nthe store holds {} entries; the last signed checkpoint says {}. To go on without what is lost: stop every service of this log, then run this with `--accept-loss --reason TEXT`",
                found.size, lost.size
            )));
        }
        let reason = self.reason.clone().unwrap_or_default();
        let seq = record(&config, signer, store.clone(), found, &note, reason).await?;
        let checkpoint = store.checkpoint().await.map_err(AppError::from)?.unwrap_or_default();
        reset_mark(path, &checkpoint).map_err(|error| Failure::io("write", path, &error))?;
        // Whoever holds the log against this file sees from here on that it was recovered.
        let published = CheckpointsFile::new(config.ledger.checkpoints_file.clone());
        let appended = published.append(&checkpoint);
        appended.map_err(|error| Failure::io("write", published.path(), &error))?;
        self.report(seq, found, &lost)
    }

    fn report(&self, seq: u64, found: TreeHead, lost: &Checkpoint) -> Result<(), Failure> {
        if self.json {
            let (found, lost) = (found.size, lost.size);
            return output::json(&json!({ "record": seq, "found": found, "lost": lost }));
        }
        output::line(&paint(Paint::Good, &format!("record {seq} says that the log was recovered")));
        output::line(&format!(
            "  it goes on from {} entries; {} had been signed before. Tell those who rely on it: their checkpoints beyond {} entries contradict the log",
            found.size, lost.size, found.size
        ));
        Ok(())
    }
}

/// The tree that the store holds.
async fn tree(store: &dyn Store) -> Result<TreeHead, Failure> {
    let size = store.head().await.map_err(AppError::from)?.map_or(0, |head| head.next.get());
    if size == 0 {
        return Err(Failure::Finding(
            "the store is empty: restore a backup, or begin another log with another `[ledger] origin`"
                .to_owned(),
        ));
    }
    let root = root_at(store, size).await.map_err(AppError::from)?;
    let root = root.ok_or_else(|| {
        Failure::Finding("the tiles in the store are not those of its entries".to_owned())
    })?;
    Ok(TreeHead { root, size })
}

/// Writes the record; gives its position.
async fn record(
    config: &crate::config::Config,
    signer: Signer,
    store: std::sync::Arc<dyn Store>,
    found: TreeHead,
    lost: &Note,
    reason: String,
) -> Result<u64, Failure> {
    let body = RecoveryBody { found, lost: lost.to_string(), reason };
    let body = canonical::to_vec(&body)
        .map_err(|error| Failure::Environment(format!("the record: {error}")))?;
    let receipt =
        app::append_alone(config, signer, Mark::unkept(), store, Kind::LedgerRecovered, body)
            .await?;
    if receipt.seq.get() == found.size {
        return Ok(found.size);
    }
    Err(Failure::Environment(
        "another process wrote to the log meanwhile: stop every service of this log, and run this again"
            .to_owned(),
    ))
}
