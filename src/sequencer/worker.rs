//! The task that commits: what it does when the store answers, refuses, fails, or falls silent.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    SequencerSettings,
    batch::{Batch, Group},
    f64_of,
    mark::Mark,
    taken,
};
use crate::{
    domain::{Clock, Seq},
    store::{AppendError, Store, StoreError, crash_point},
};

/// How many bytes of bodies are committed at once.
const MAX_BYTES: usize = 8 << 20;
/// The first and the longest pause after a failure, where something waits to be tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// How long outcomes wait for a decision.
const COMPANY: Duration = Duration::from_millis(5);
/// Of calls that are to be sent, one in so many of those under way is committed at once. If all of them
/// were, they would go on in step: the store would rest while they are sent, and they while it commits.
const SHARE: usize = 2;
/// The least that a share is.
const LEAST_CALLS: usize = 4;
/// How often an ambiguous commit is looked up once the ledger is being closed.
const LAST_LOOKS: u32 = 3;

pub(super) struct Worker {
    store: Arc<dyn Store>,
    settings: SequencerSettings,
    clock: Arc<dyn Clock>,
    queue: mpsc::Receiver<Group>,
    room: Arc<Semaphore>,
    closing: CancellationToken,
    waiting: VecDeque<Group>,
    /// Whether something in `waiting` has failed before; then it waits this long.
    pause: Option<Duration>,
    /// Dispatches that were committed after their callers had gone.
    orphans: Vec<Seq>,
    same_log: bool,
    mark: Mark,
    /// Whether the store had no room for the last batch: what closes calls goes first then, and alone.
    full: bool,
    /// The runtime that everything else runs in, whose connections it must not take into its own.
    home: Handle,
}

impl Worker {
    pub(super) fn new(
        store: Arc<dyn Store>,
        settings: SequencerSettings,
        mark: Mark,
        clock: Arc<dyn Clock>,
        queue: mpsc::Receiver<Group>,
        room: Arc<Semaphore>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            store,
            settings,
            clock,
            queue,
            room,
            closing,
            waiting: VecDeque::new(),
            pause: None,
            orphans: Vec::new(),
            same_log: false,
            mark,
            full: false,
            home: Handle::current(),
        }
    }

    /// Commits until the ledger is closed and nothing waits.
    pub(super) async fn run(mut self) {
        while self.gather().await {
            let groups = self.next_batch();
            self.commit(groups).await;
            self.give_up_orphans().await;
            self.note_depth();
        }
    }

    /// Waits until there is something to commit. `false`: there never will be.
    async fn gather(&mut self) -> bool {
        let pause = if self.waiting.is_empty() { Some(Duration::MAX) } else { self.pause };
        if let Some(pause) = pause {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {}
                group = self.queue.recv() => self.accept(group),
                () = sleep(pause) => {}
            }
        }
        if self.closing.is_cancelled() {
            self.queue.close();
        }
        if self.waiting.is_empty() {
            // It has just been closed: what it accepted before is still in it.
            let group = self.queue.recv().await;
            self.accept(group);
        }
        while let Ok(group) = self.queue.try_recv() {
            self.waiting.push_back(group);
        }
        self.await_company().await;
        !self.waiting.is_empty()
    }

    /// Lets outcomes wait a moment for a decision to be committed with: nobody waits for them, and the
    /// next decision would have to wait for a commit of theirs.
    async fn await_company(&mut self) {
        let until = Instant::now() + COMPANY;
        let most = self.settings.max_batch;
        while (1..most).contains(&self.waiting.len())
            && self.waiting.iter().all(Group::is_patient)
            && !self.closing.is_cancelled()
        {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {}
                group = self.queue.recv() => self.accept(group),
                () = sleep_until(until) => break,
            }
        }
    }

    fn accept(&mut self, group: Option<Group>) {
        match group {
            Some(group) => self.waiting.push_back(group),
            None => self.closing.cancel(),
        }
    }

    /// As many groups as fit into one commit, at least one.
    fn next_batch(&mut self) -> Vec<Group> {
        if self.full && self.waiting.iter().any(Group::is_patient) {
            // A stable sort: each kind stays in its order.
            self.waiting.make_contiguous().sort_by_key(|group| !group.is_patient());
        }
        let most_calls = LEAST_CALLS.max(self.depth().div_ceil(SHARE));
        let (mut records, mut calls, mut bytes, mut groups) = (0, 0, 0, Vec::new());
        while let Some(mut group) = self.waiting.pop_front() {
            records += group.len();
            calls += group.calls();
            bytes += group.bytes();
            let full = records > self.settings.max_batch || calls > most_calls || bytes > MAX_BYTES;
            let follows = |last: &Group| self.full && last.is_patient() && !group.is_patient();
            let full = full || groups.last().is_some_and(follows);
            if !groups.is_empty() && (full || group.alone) {
                self.waiting.push_front(group);
                break;
            }
            group.leave_queue();
            let alone = group.alone;
            groups.push(group);
            if alone {
                break;
            }
        }
        self.note_depth();
        metrics::histogram!("lexgate_batch_size").record(f64_of(records));
        groups
    }

    /// How many records wait, and for how many a place is kept.
    fn depth(&self) -> usize {
        taken(self.settings.queue, &self.room)
    }

    fn note_depth(&self) {
        metrics::gauge!("lexgate_queue_depth").set(f64_of(self.depth()));
    }

    async fn commit(&mut self, groups: Vec<Group>) {
        if let Err(error) = self.is_free_to_sign().await {
            return self.fail(groups, error);
        }
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let settings = self.settings.clone();
        let mut batch = Batch {
            settings: &settings,
            clock: clock.as_ref(),
            same_log: self.same_log,
            mark: &self.mark.clone(),
            seen: self.mark.seen(),
            shares_clock: store.shares_clock(),
            groups,
            answers: Vec::new(),
            signed: None,
            probe: None,
        };
        let started = Instant::now();
        let result = store.append(&mut batch).await;
        metrics::histogram!("lexgate_append_seconds").record(started.elapsed().as_secs_f64());
        match result {
            Ok(()) => self.deliver(batch),
            Err(AppendError::NotCommitted(error)) => self.fail(batch.groups, error),
            Err(AppendError::Ambiguous(error)) => self.settle(batch, error).await,
        }
    }

    /// Whether the next tree may be signed, as far as this machine alone can tell.
    async fn is_free_to_sign(&self) -> Result<(), StoreError> {
        self.mark.standing()?;
        self.mark.pay()?;
        let Some(other) = self.mark.review()? else { return Ok(()) };
        // Another process of this machine has signed more, or other things, than this one has seen.
        let (store, mark, before) = (self.store.clone(), self.mark.clone(), self.mark.seen());
        let followed = self.home.spawn(async move {
            let (checkpoint, note) = *other;
            mark.follow(&*store, before, &checkpoint, &note).await
        });
        followed.await.unwrap_or(Err(StoreError::TimedOut))?;
        Ok(self.mark.pay()?)
    }

    /// The batch is durable: everyone is answered.
    fn deliver(&mut self, batch: Batch<'_>) {
        self.pause = None;
        self.full = false;
        self.same_log = batch.same_log;
        for (group, answers) in batch.groups.into_iter().zip(batch.answers) {
            self.orphans.extend(group.answer(answers));
        }
        // After the answers: what is durable needs no mark, only what comes next does.
        if let Some((seen, checkpoint)) = batch.signed {
            // Where it is another tree than one that was read, it has said so, and nothing follows.
            let _ = self.mark.advance(seen, &checkpoint);
            crash_point("marked");
        }
    }

    /// Nothing of the batch was written.
    fn fail(&mut self, mut groups: Vec<Group>, error: StoreError) {
        metrics::counter!("lexgate_append_failures_total").increment(1);
        tracing::warn!(%error, records = groups.iter().map(Group::len).sum::<usize>(), "append failed");
        let refused = error.is_refusal();
        self.full = error.is_full();
        if refused && groups.len() > 1 {
            // One of them cannot be written, for a reason of its own: it must not stop the others.
            return self.put_back(groups, true);
        }
        // A person may be erased while their call is under way: its value has no key any more, and the
        // call has ended all the same.
        if refused && groups.first_mut().is_some_and(Group::let_values_go) {
            tracing::warn!("an outcome is written without what it commits to");
            return self.put_back(groups, true);
        }
        let error = Arc::new(error);
        let keep = !refused && !self.closing.is_cancelled();
        let (kept, failed): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| keep && group.is_patient());
        for group in failed {
            group.fail(&error);
        }
        self.put_back(kept, false);
        self.pause_longer();
    }

    fn put_back(&mut self, groups: Vec<Group>, alone: bool) {
        for mut group in groups.into_iter().rev() {
            group.alone |= alone;
            self.waiting.push_front(group);
        }
    }

    fn pause_longer(&mut self) -> Duration {
        let (shortest, longest) = PAUSES;
        let pause = self.pause.map_or(shortest, |pause| (pause * 2).min(longest));
        self.pause = Some(pause);
        pause
    }

    /// The batch was written, or not: nothing else is until that is known.
    async fn settle(&mut self, batch: Batch<'_>, error: StoreError) {
        metrics::counter!("lexgate_append_failures_total").increment(1);
        tracing::warn!(%error, "nobody knows whether a batch was committed");
        let Some((id, leaf)) = batch.probe else {
            return self.fail(batch.groups, error);
        };
        let mut last_looks = 0;
        loop {
            match self.store.settle(id).await {
                Ok(Some(stored)) if stored.leaf == leaf => {
                    tracing::info!("the batch was committed");
                    return self.deliver(batch);
                }
                Ok(_) => {
                    tracing::info!(
                        "the batch was not committed; what is still wanted is tried again"
                    );
                    let wanted = batch.groups.into_iter().filter(Group::is_wanted).collect();
                    self.put_back(wanted, false);
                    self.pause_longer();
                    return;
                }
                Err(error) if last_looks >= LAST_LOOKS => return self.fail(batch.groups, error),
                Err(error) => {
                    tracing::warn!(%error, "cannot look up whether a batch was committed");
                }
            }
            last_looks += u32::from(self.closing.is_cancelled());
            let pause = self.pause_longer();
            sleep(pause).await;
        }
    }

    /// Lets others close the dispatches whose callers have gone. What cannot be given up now is,
    /// after a later commit; at the latest, when this process has no lease any more.
    async fn give_up_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let (store, orphans) = (self.store.clone(), mem::take(&mut self.orphans));
        let given_up = self.home.spawn(async move {
            let result = store.abandon(&orphans).await;
            result.map_err(|error| (orphans, error))
        });
        if let Ok(Err((orphans, error))) = given_up.await {
            tracing::warn!(%error, "cannot give up dispatches that nobody waits for");
            self.orphans = orphans;
        }
    }
}
