//! How many calls this process has under way, of each app and tenant: enough to turn one away before its
//! body is read. How many there are in all, the commit knows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::{
    domain::{Caller, Held, LimitState, Measure},
    facts::Organisation,
};

/// Calls under way.
#[derive(Clone, Debug, Default)]
pub(in crate::gate) struct UnderWay(Arc<Mutex<HashMap<Held, u64>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(in crate::gate) struct OneMore {
    calls: UnderWay,
    whose: [Held; 2],
}

impl UnderWay {
    /// One more call of `caller`.
    pub(in crate::gate) fn begin(&self, caller: &Caller) -> OneMore {
        let whose = [Held::App(caller.app.clone()), Held::Tenant(caller.tenant.clone())];
        let mut calls = self.lock();
        for held in &whose {
            *calls.entry(held.clone()).or_default() += 1;
        }
        drop(calls);
        OneMore { calls: self.clone(), whose }
    }

    /// The limit of `caller` that the calls of this process reach by themselves.
    pub(in crate::gate) fn reached(
        &self,
        organisation: &Organisation,
        caller: &Caller,
        now: Timestamp,
    ) -> Option<LimitState> {
        let limits = organisation.limits_of(&caller.app, &caller.tenant);
        let limited = limits.into_iter().filter(|(_, limits)| limits.concurrent.is_some());
        for (held, limits) in limited {
            let used = self.lock().get(&held).copied().unwrap_or_default().into();
            let mut limits = limits.at(&held, now);
            let reached =
                limits.find(|limit| limit.measure == Measure::Concurrent && used >= limit.most);
            if let Some(limit) = reached {
                return Some(LimitState { limit, used, at: now });
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Held, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        for held in &self.whose {
            let left = calls.get_mut(held).map(|calls| {
                *calls = calls.saturating_sub(1);
                *calls
            });
            if left == Some(0) {
                calls.remove(held);
            }
        }
    }
}
