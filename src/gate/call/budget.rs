//! How much room contents under way may take: together, and those of one app. Counted before they are
//! read, given back when they are dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted together: a kibibyte.
const UNIT: u64 = 1 << 10;

/// Room for contents.
#[derive(Debug)]
pub struct Budget {
    all: Arc<Semaphore>,
    /// How many units there are, and how many of them one holder may have.
    size: u32,
    share: u32,
    holders: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
    /// For the one that goes on without room.
    spare: Arc<Semaphore>,
}

/// Room that is held until it is dropped.
#[derive(Debug)]
pub struct Room {
    budget: Arc<Budget>,
    own: Arc<Semaphore>,
    units: u32,
    permits: Option<[OwnedSemaphorePermit; 2]>,
    spare: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Room for `bytes`, of which one holder may have half.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        // What a semaphore counts on the smallest machine.
        let size = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(2, 1 << 28);
        let all = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(usize::MAX >> 3)));
        let spare = Arc::new(Semaphore::new(1));
        Self { all, size, share: size / 2, holders: Mutex::default(), spare }
    }

    /// Nothing yet, for `holder`: an app or an API key of this service's configuration.
    #[must_use]
    pub fn holder(self: &Arc<Self>, holder: &str) -> Room {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let own = if let Some(own) = holders.get(holder) {
            own.clone()
        } else {
            let own = Arc::new(Semaphore::new(usize::try_from(self.share).unwrap_or(usize::MAX)));
            holders.insert(holder.into(), own.clone());
            own
        };
        Room { budget: self.clone(), own, units: 0, permits: None, spare: None }
    }

    /// How many bytes are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        u64::try_from(self.all.available_permits()).unwrap_or(u64::MAX).saturating_mul(UNIT)
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.size) * UNIT
    }
}

impl Room {
    /// Holds room for `bytes` in all, unless there is not so much. What is held already stays held.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Some(more) = self.missing(bytes) else { return false };
        if more == 0 {
            return true;
        }
        let Ok(own) = self.own.clone().try_acquire_many_owned(more) else { return false };
        let Ok(all) = self.budget.all.clone().try_acquire_many_owned(more) else { return false };
        self.add(more, [own, all]);
        true
    }

    /// The same for what must not be refused any more. Where there is no room, one at a time goes on without
    /// any, and the others wait for it: so each of them comes to its end, whoever holds the rest.
    pub async fn need(&mut self, bytes: usize) {
        if self.spare.is_none() && !self.grow(bytes) {
            // It is never closed.
            self.spare = self.budget.spare.clone().acquire_owned().await.ok();
        }
    }

    /// `bytes`, which give the room back when the last part of them is dropped.
    #[must_use]
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _room: self })
    }

    fn missing(&self, bytes: usize) -> Option<u32> {
        let units = u64::try_from(bytes).ok()?.div_ceil(UNIT);
        Some(u32::try_from(units).ok()?.saturating_sub(self.units))
    }

    fn add(&mut self, units: u32, permits: [OwnedSemaphorePermit; 2]) {
        self.units += units;
        match &mut self.permits {
            None => self.permits = Some(permits),
            Some([own, all]) => {
                let [more_own, more_all] = permits;
                own.merge(more_own);
                all.merge(more_all);
            }
        }
    }
}

struct Kept {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_half_and_all_of_them_together_the_whole() {
        let budget = Arc::new(Budget::new(1 << 20));
        let (mut one, mut another) = (budget.holder("desk"), budget.holder("desk"));
        assert!(one.grow(300 << 10) && !another.grow(300 << 10));
        assert!(another.grow(200 << 10) && !another.grow(300 << 10), "what it has stays");
        let mut neighbour = budget.holder("bot");
        assert!(neighbour.grow(512 << 10) && !neighbour.grow(513 << 10));
        assert_eq!(budget.free(), 12 << 10);
        let kept = one.keep(Bytes::from_static(b"body"));
        let part = kept.slice(1..2);
        drop(kept);
        assert_eq!(budget.free(), 12 << 10, "a part of it is still there");
        drop((part, another, neighbour));
        assert_eq!(budget.free(), budget.size());
        let mut all = budget.holder("desk");
        assert!(all.grow(0) && all.grow(1) && all.grow(1024) && all.grow(512 << 10));
        assert!(!budget.holder("bot").grow(usize::MAX));
    }

    #[tokio::test]
    async fn what_must_go_on_goes_on_one_at_a_time() {
        let budget = Arc::new(Budget::new(1 << 20));
        let mut all = [budget.holder("desk"), budget.holder("desk"), budget.holder("desk")];
        let [first, second, third] = &mut all;
        first.need(512 << 10).await;
        second.need(1 << 20).await;
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, third.need(1)).await.is_err(), "one is ahead of it");
        second.need(1 << 30).await;
        let [first, second, mut third] = all;
        drop(second);
        third.need(1).await;
        drop(first);
        let mut fourth = budget.holder("desk");
        fourth.need(512 << 10).await;
        assert_eq!(budget.free(), 512 << 10);
    }
}
