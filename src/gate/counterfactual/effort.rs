//! How much may be computed to explain one call, and whether anyone still waits for it.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// What one explanation may take. Once it is spent, nothing more is judged, and it says so.
#[derive(Debug)]
pub struct Effort {
    judgements: Cell<u32>,
    until: Option<Instant>,
    gone: Arc<AtomicBool>,
    is_cut: Cell<bool>,
}

impl Effort {
    /// So many judgements, within so much time, until `gone` is set: nobody waits any more then.
    #[must_use]
    pub fn new(judgements: u32, time: Duration, gone: Arc<AtomicBool>) -> Self {
        let until = Instant::now().checked_add(time);
        Self { judgements: Cell::new(judgements), until, gone, is_cut: Cell::new(false) }
    }

    /// As much as it takes: for a person at a terminal.
    #[must_use]
    pub fn unbounded() -> Self {
        let (judgements, is_cut) = (Cell::new(u32::MAX), Cell::new(false));
        Self { judgements, until: None, gone: Arc::default(), is_cut }
    }

    /// Whether `judgements` more may be made; they count as made.
    pub(in crate::gate) fn spend(&self, judgements: u32) -> bool {
        let left = self.judgements.get();
        let is_late = || self.until.is_some_and(|until| Instant::now() >= until);
        if self.is_cut.get() || left < judgements || self.gone.load(Ordering::Relaxed) || is_late()
        {
            self.is_cut.set(true);
            return false;
        }
        self.judgements.set(left - judgements);
        true
    }

    /// Whether something was not computed.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent_and_who_has_left_gets_nothing() {
        let long = Duration::from_secs(3_600);
        let effort = Effort::new(3, long, Arc::default());
        assert!(effort.spend(1) && effort.spend(2) && !effort.is_cut());
        assert!(!effort.spend(1) && effort.is_cut());
        let gone = Arc::<AtomicBool>::default();
        let effort = Effort::new(3, long, gone.clone());
        assert!(effort.spend(1));
        gone.store(true, Ordering::Relaxed);
        assert!(!effort.spend(1) && effort.is_cut());
        assert!(!Effort::new(3, Duration::ZERO, Arc::default()).spend(1));
        assert!(Effort::unbounded().spend(1_000_000));
    }
}
