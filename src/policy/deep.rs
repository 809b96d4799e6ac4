//! A stack of one's own for work that calls itself as deep as what somebody wrote.

use std::{
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
};

/// What is enough for any text within [`super::limits`], many times over.
const STACK: usize = 64 << 20;

/// Does `work` on a thread with a large stack, and waits for it: the threads that serve requests have
/// small ones, and what they cannot take would end the process.
pub fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let slot = Mutex::new(Some(work));
    let run = || slot.lock().unwrap_or_else(PoisonError::into_inner).take().map(|work| work());
    let done = thread::scope(|scope| {
        let named = thread::Builder::new().name("policies".to_owned()).stack_size(STACK);
        let spawned = named.spawn_scoped(scope, run).ok()?;
        spawned.join().unwrap_or_else(|panic| resume_unwind(panic))
    });
    match done {
        Some(done) => done,
        // No thread is to be had: what is within the limits fits the stack at hand too.
        None => slot.into_inner().unwrap_or_else(PoisonError::into_inner).map_or_else(
            || unreachable!("work that was begun has ended or panicked"),
            |work| work(),
        ),
    }
}
