//! `lexgate ledger correct-time`

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    ConfigFile, Failure,
    output::{self, Paint, paint},
};
use crate::{
    app,
    app::AppError,
    domain::SystemClock,
    gate::fresh_id,
    ledger::{ClockCorrectedBody, Kind, canonical, timestamp_text},
    sequencer::{Draft, SubmitError},
    source::Faults,
};

/// Go back to the real time after a clock was wrong, and record that.
///
/// For a log whose last entry is dated after the time that it is: a service had a wrong clock, and what
/// it wrote says so for ever. Until the real time has caught up, nothing is signed, because facts and
/// instruments would be taken as of the wrong time. Stop every service of this log, see that this
/// machine's clock is right, and run this: it says what it found, and with `--reason` writes a
/// `clock_corrected` record that names the wrong time. Entries behind it are dated by the clock again.
#[derive(Debug, Args)]
pub(super) struct CorrectTime {
    #[command(flatten)]
    config: ConfigFile,
    /// Record it and go on; why, for those who will read the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl CorrectTime {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let signer = app::read_signer(&config).map_err(Faults::from)?;
        let store = app::reach_store(&config).await.map_err(AppError::from)?;
        let mark = app::open_mark(&config, &*store, &signer).await.map_err(AppError::from)?;
        let head = store.head().await.map_err(AppError::from)?;
        let now = store.now().await.map_err(AppError::from)?;
        let was = head.map_or(Timestamp::MIN, |head| head.ts);
        if was.duration_since(now) <= config.ledger.max_clock_skew {
            return Err(Failure::Usage(
                "there is nothing to correct: the ledger's last entry does not lie in the future"
                    .to_owned(),
            ));
        }
        let (wrong, right) = (timestamp_text(was), timestamp_text(now));
        let ahead = whole_seconds(was.duration_since(now));
        let Some(reason) = self.reason else {
            return Err(Failure::Finding(format!(
                "the ledger's last entry is dated `{wrong}`, and the clock says `{right}`: {ahead:#} ahead. If the clock is right, stop every service of this log, then run this with `--reason TEXT`"
            )));
        };
        let body = canonical::to_vec(&ClockCorrectedBody { reason, was })
            .map_err(|error| Failure::Environment(format!("the record: {error}")))?;
        let id = fresh_id(&SystemClock, &ring::rand::SystemRandom::new());
        let id = id.map_err(AppError::from)?;
        let draft = Draft { corrects: Some(was), ..Draft::new(id, Kind::ClockCorrected, body) };
        let receipt = match app::append_draft(&config, signer, mark, store, draft).await {
            Err(AppError::Append(SubmitError::Stale)) => {
                return Err(Failure::Environment(
                    "another process wrote to the log meanwhile: stop every service of this log, and run this again"
                        .to_owned(),
                ));
            }
            receipt => receipt?,
        };
        if self.json {
            let (was, ts) = (wrong, timestamp_text(receipt.ts));
            return output::json(&json!({ "record": receipt.seq, "was": was, "ts": ts }));
        }
        let seq = receipt.seq;
        output::line(&paint(
            Paint::Good,
            &format!("record {seq} says that a clock had been wrong"),
        ));
        output::line(&format!(
            "  time goes on from {}; the entry before it was dated {wrong}. Records between are kept until their time by the wrong clock is over",
            timestamp_text(receipt.ts)
        ));
        Ok(())
    }
}

/// A duration as a person reads it.
fn whole_seconds(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs())
}
