//! Beginning and ending in order: what was accepted is finished, within a bounded time.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long calls under way may take to end by themselves.
const FINISH: Duration = Duration::from_secs(30);
/// How long they may take once they were told to.
const ABANDON: Duration = Duration::from_secs(5);

/// The tasks of a process, and the two ways to end them.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Fires when nothing new is to be accepted.
    pub draining: CancellationToken,
    /// Fires when calls under way must end.
    pub halt: CancellationToken,
    /// Calls under way.
    pub calls: TaskTracker,
    /// What serves them: writer, keeper, reaper.
    pub services: TaskTracker,
}

impl Lifecycle {
    /// Fires `draining` at SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn listen(&self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hangup = signal(SignalKind::hangup())?;
        let draining = self.draining.clone();
        self.services.spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    () = draining.cancelled() => return,
                    _ = hangup.recv() => {
                        tracing::warn!("SIGHUP changes nothing: configuration, policies and organisation are read at start");
                    }
                }
            }
            tracing::info!("a signal ends the service; what was accepted is finished first");
            draining.cancel();
        });
        Ok(())
    }

    /// Waits for the calls under way: first that they end, then that they stop.
    pub async fn finish_calls(&self) {
        self.draining.cancel();
        self.calls.close();
        if tokio::time::timeout(FINISH, self.calls.wait()).await.is_err() {
            tracing::warn!(open = self.calls.len(), "calls under way are cut off");
            self.halt.cancel();
            // Whatever is still open then is closed by the next process's reaper.
            let _ = tokio::time::timeout(ABANDON, self.calls.wait()).await;
        }
        self.halt.cancel();
    }

    /// Waits for the services, which have been told to end.
    pub async fn finish_services(&self) {
        self.services.close();
        if tokio::time::timeout(ABANDON, self.services.wait()).await.is_err() {
            tracing::warn!(open = self.services.len(), "services did not end in time");
        }
    }
}
