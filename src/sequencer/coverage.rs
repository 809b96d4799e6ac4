//! How lately all of the log was cosigned by a witness, where the configuration asks for that. Not the
//! witness, and not the asking ([`crate::witness`]).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::store::StoreError;

/// What witnesses have covered.
#[derive(Debug)]
pub(super) struct Coverage {
    required: Duration,
    began: Instant,
    covered: Mutex<Option<Instant>>,
}

impl Coverage {
    pub(super) fn new(required: Duration) -> Self {
        Self { required, began: Instant::now(), covered: Mutex::new(None) }
    }

    /// How long ago all of the log must have been covered, at most.
    pub(super) const fn required(&self) -> Duration {
        self.required
    }

    /// Everything that was in the log at `instant` has been cosigned.
    pub(super) fn cover(&self, instant: Instant) {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        *covered = (*covered).max(Some(instant));
    }

    /// Whether all but the records of the last while are covered.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let covered = *self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let past = covered.unwrap_or(self.began).elapsed();
        if covered.is_some() && past <= self.required {
            return Ok(());
        }
        Err(StoreError::Unwitnessed { past, allowed: self.required })
    }
}
