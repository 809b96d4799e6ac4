//! Steps of a commit at which a test can end the process, as a power cut would. Nothing in a release.

/// Ends the process here when `LEXGATE_CRASH_AT` names this step: `sealed`, or `sealed:3` for the
/// third time that it is reached.
#[cfg(debug_assertions)]
pub(crate) fn crash_point(step: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("LEXGATE_CRASH_AT").ok()?;
        let (step, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((step.to_owned(), time.parse().ok()?))
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let Some((wanted, time)) = &*WANTED else { return };
    if wanted == step && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *time {
        // No handler, no destructor, no buffer flushed.
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn crash_point(_: &str) {}
