//! The least pace of something that moves: time that was waited for is owed, and won back by each byte.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long others may keep us waiting for bytes, in all, and how fast these win the time back.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Duration,
    /// Bytes a second.
    rate: u32,
    owed: Duration,
    waits: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) const fn new(patience: Duration, rate: u32) -> Self {
        Self { patience, rate, owed: Duration::ZERO, waits: None, timer: None }
    }

    /// Nothing moves now. Ready when that has lasted too long.
    pub(super) fn stalls(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.waits.get_or_insert_with(Instant::now);
        let end = since + self.patience.saturating_sub(self.owed);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(context)
    }

    /// So many bytes have moved.
    pub(super) fn moves(&mut self, bytes: usize) {
        let Some(since) = self.waits.take() else {
            if self.owed > Duration::ZERO {
                self.win(bytes);
            }
            return;
        };
        self.owed += since.elapsed();
        self.win(bytes);
    }

    fn win(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let won = Duration::from_secs(1).mul_f64(f64::from(bytes) / f64::from(self.rate.max(1)));
        self.owed = self.owed.saturating_sub(won);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    /// Whether someone who moves `bytes` every 20 milliseconds is still waited for after so many times.
    async fn is_waited_for(pace: &mut Pace, times: u32, bytes: usize) -> bool {
        for _ in 0..times {
            let pause = Duration::from_millis(20);
            if timeout(pause, poll_fn(|context| pace.stalls(context))).await.is_ok() {
                return false;
            }
            pace.moves(bytes);
        }
        true
    }

    #[tokio::test]
    async fn a_slow_pace_is_waited_for_and_a_crawl_is_not() {
        // A thousand bytes win a second back.
        let new = |millis| Pace::new(Duration::from_millis(millis), 1_000);
        assert!(is_waited_for(&mut new(5_000), 20, 100_000).await);
        assert!(!is_waited_for(&mut new(200), 100, 1).await);
        let mut pace = new(200);
        let stalled = timeout(Duration::from_secs(60), poll_fn(|context| pace.stalls(context)));
        assert!(stalled.await.is_ok(), "who stands still is not waited for");
        // Who has been fast before may not rest on it.
        let mut pace = new(200);
        pace.moves(1_000_000_000);
        assert!(!is_waited_for(&mut pace, 100, 1).await);
    }
}
