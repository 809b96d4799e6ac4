//! Indexes the log behind its writer, block by block. Nothing waits for it: what is not indexed is found too,
//! only more slowly.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Gate;
use crate::store::{Indexing, StoreError};

/// How long is waited while there is nothing to index, or somebody else does it.
const IDLE: Duration = Duration::from_secs(1);
/// How long is waited between two blocks, and between two steps of clearing up: others read and write.
const BETWEEN: Duration = Duration::from_millis(20);
/// How long is waited after a failure.
const FAILED: Duration = Duration::from_secs(10);

impl Gate {
    /// Indexes what is written until `stop` fires.
    pub async fn watch_index(self: Arc<Self>, stop: CancellationToken) {
        let mut is_clear = false;
        let mut pause = IDLE;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match self.index(&mut is_clear).await {
                Ok(true) => BETWEEN,
                Ok(false) => IDLE,
                Err(error) => {
                    tracing::warn!(%error, "the log could not be indexed; it is tried again");
                    FAILED
                }
            };
        }
    }

    /// One step. Whether there may be another one.
    async fn index(&self, is_clear: &mut bool) -> Result<bool, StoreError> {
        // Whatever becomes of the step: a count that grows says that it fails.
        let unindexed = self.store.unindexed().await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lexgate_unindexed_records").set(unindexed as f64);
        match self.store.index_block().await? {
            Indexing::Indexed => {
                // What the former index has of these records may go now.
                *is_clear = false;
                Ok(true)
            }
            Indexing::Overtaken => Ok(false),
            Indexing::UpToDate if *is_clear => Ok(false),
            Indexing::UpToDate => {
                *is_clear = !self.store.clear_former_index().await?;
                Ok(!*is_clear)
            }
        }
    }
}
