//! Time as a parameter: nothing below the wiring reads the wall clock by itself.

use std::time::Duration;

use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// How long the machine has run since it was started, awake or asleep: setting the clock does not
    /// change it. `None` where nothing counts that.
    fn running(&self) -> Option<Duration> {
        None
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn running(&self) -> Option<Duration> {
        // A laptop that slept must not look like a clock that jumped: Linux counts sleep here alone,
        // macOS in its monotonic clock too.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let id = rustix::time::ClockId::Monotonic;
        Duration::try_from(rustix::time::clock_gettime(id)).ok()
    }
}
