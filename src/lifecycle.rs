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
    /// Lets the process go on at the signals that ask daemons to read or to turn over something, with a line
    /// that says so: each of them ends a process that does not listen to it.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn outlive_hangup(&self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (mut first, mut second) =
            (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
        let draining = self.draining.clone();
        self.services.spawn(async move {
            loop {
                let name = tokio::select! {
                    () = draining.cancelled() => return,
                    _ = hangup.recv() => "SIGHUP",
                    _ = first.recv() => "SIGUSR1",
                    _ = second.recv() => "SIGUSR2",
                };
                tracing::warn!(
                    "{name} changes nothing: configuration, policies and organisation are read at start; SIGTERM ends the service in order"
                );
            }
        });
        Ok(())
    }

    /// Fires `draining` at SIGTERM, SIGINT or SIGQUIT.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn listen(&self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut quit = signal(SignalKind::quit())?;
        let draining = self.draining.clone();
        self.services.spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = quit.recv() => "SIGQUIT",
                () = draining.cancelled() => return,
            };
            tracing::info!("{name} ends the service; what was accepted is finished first");
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
