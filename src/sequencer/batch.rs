//! What is committed at once, and the place that each record gets. Pure, apart from the clock that
//! it is given.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{Draft, Mark, Receipt, SequencerSettings, SubmitError, continuation::Seen, signed};
use crate::{
    domain::{Clock, CounterKey, Counts, DecisionId, Digest, Quota, Seq, Used},
    ledger::{ENTRY_LIMIT, Edge, Entry, Envelope, Kind, canonical, seal, to_micros},
    store::{Claim, ClockError, Found, Head, Lookups, Row, Seal, Sealed, StoreError, storable},
};

/// Records that came together and are answered together.
#[derive(Debug)]
pub(super) struct Group {
    drafts: Vec<Draft>,
    reply: oneshot::Sender<Vec<Result<Receipt, SubmitError>>>,
    /// `None`: whoever sent it waits as long as it takes.
    deadline: Option<Instant>,
    room: Option<OwnedSemaphorePermit>,
    /// It is committed by itself, because a batch that held it was refused.
    pub(super) alone: bool,
    /// All of it is written, or nothing.
    pub(super) whole: bool,
}

impl Group {
    pub(super) fn new(
        drafts: Vec<Draft>,
        reply: oneshot::Sender<Vec<Result<Receipt, SubmitError>>>,
        deadline: Option<Instant>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { drafts, reply, deadline, room: Some(room), alone: false, whole: false }
    }

    /// Whether several records of it rest on counts.
    fn is_counted(&self) -> bool {
        self.len() > 1 && self.drafts.iter().any(|draft| draft.volume.is_some())
    }

    pub(super) fn len(&self) -> usize {
        self.drafts.len()
    }

    /// How many calls are to be sent once it is written.
    pub(super) fn calls(&self) -> usize {
        self.drafts.iter().filter(|draft| draft.dispatch).count()
    }

    pub(super) fn bytes(&self) -> usize {
        let value = |draft: &Draft| draft.personal.as_ref().map_or(0, |value| value.sealed.len());
        self.drafts.iter().map(|draft| draft.body.len() + value(draft)).sum()
    }

    /// Lets go of the values of outcomes. Whether there were any.
    pub(super) fn let_values_go(&mut self) -> bool {
        let outcomes = self.drafts.iter_mut().filter(|draft| draft.kind.ends_a_call());
        outcomes.filter_map(|draft| draft.personal.take()).count() > 0
    }

    /// Whether it is kept until it is written.
    pub(super) fn is_patient(&self) -> bool {
        self.deadline.is_none()
    }

    /// Makes room for others: it is being committed. What may have to wait again keeps its place.
    pub(super) fn leave_queue(&mut self) {
        if !self.is_patient() {
            self.room = None;
        }
    }

    /// Whether anyone still wants it written. Outcomes are wanted in any case.
    pub(super) fn is_wanted(&self) -> bool {
        let waits = |deadline| Instant::now() < deadline && !self.reply.is_closed();
        self.deadline.is_none_or(waits) || self.drafts.iter().any(|draft| draft.kind.ends_a_call())
    }

    /// Answers. Gives the dispatches that nobody waits for any more.
    pub(super) fn answer(self, answers: Vec<Result<Receipt, SubmitError>>) -> Vec<Seq> {
        let dispatches: Vec<_> = self.drafts.iter().map(|draft| draft.dispatch).collect();
        match self.reply.send(answers) {
            Ok(()) => Vec::new(),
            Err(answers) => dispatches
                .into_iter()
                .zip(answers)
                .filter_map(|(dispatch, answer)| answer.ok().filter(|_| dispatch))
                .map(|receipt| receipt.seq)
                .collect(),
        }
    }

    /// Answers every record with the same error.
    pub(super) fn fail(self, error: &Arc<StoreError>) {
        let unavailable = |_: &Draft| Err(SubmitError::Unavailable(error.clone()));
        let answers = self.drafts.iter().map(unavailable).collect();
        self.answer(answers);
    }
}

/// One commit.
pub(super) struct Batch<'a> {
    pub(super) settings: &'a SequencerSettings,
    pub(super) clock: &'a dyn Clock,
    /// Whether the store is known to hold this log.
    pub(super) same_log: bool,
    /// What the log is held against.
    pub(super) mark: &'a Mark,
    /// The last tree that was signed and committed.
    pub(super) seen: Option<Seen>,
    /// Whether the store has no other clock than this machine's.
    pub(super) shares_clock: bool,
    pub(super) groups: Vec<Group>,
    /// After sealing: the answers, group by group.
    pub(super) answers: Vec<Vec<Result<Receipt, SubmitError>>>,
    /// After sealing: the tree with the batch, and its checkpoint.
    pub(super) signed: Option<(Seen, Arc<str>)>,
    /// After sealing: an entry by which it is seen whether the batch was committed.
    pub(super) probe: Option<(Uuid, Digest)>,
}

impl Seal for Batch<'_> {
    fn lookups(&self) -> Lookups {
        let drafts = || self.groups.iter().flat_map(|group| &group.drafts);
        let quotas = || drafts().filter_map(|draft| draft.quota.as_deref());
        let key = |claim: &Claim| (claim.scope.clone(), claim.key.clone());
        Lookups {
            genesis: !self.same_log,
            leaf: self.seen.and_then(Seen::last),
            claims: drafts().filter_map(|draft| draft.claim.as_deref().map(key)).collect(),
            decisions: drafts().filter_map(|draft| draft.about).collect(),
            counts: drafts()
                .filter_map(|draft| draft.volume.as_deref())
                .flat_map(|volume| volume.asked.iter().flat_map(|(asked, _)| asked.keys()))
                .collect(),
            counters: quotas().flat_map(Quota::counters).collect(),
            under_way: quotas().any(Quota::counts_calls),
        }
    }

    fn seal(&mut self, head: &Head, edge: &Edge, found: &Found) -> Result<Sealed, StoreError> {
        if let Some(seen) = self.seen {
            seen.check(head, edge, found).map_err(|halt| self.mark.stop(halt))?;
        }
        if let Some(genesis) = &found.genesis {
            let entry = Entry::parse(genesis)
                .map_err(|_| StoreError::Corrupt("entry 0 is not an entry"))?;
            if entry.log != self.settings.origin {
                let want = self.settings.origin.clone();
                return Err(StoreError::OtherLog { found: entry.log, want });
            }
        }
        // What this process left has its own signature. What an operator accepts may have none.
        let is_own = self.seen.map_or(Seq::new(0), |seen| seen.size) == head.next;
        let mut drafts = self.groups.iter().flat_map(|group| &group.drafts);
        if !is_own && !drafts.any(|draft| draft.kind == Kind::LedgerRecovered) {
            signed::check(&self.settings.signer, head, edge, found)?;
        }
        let (ts, clock) = self.date(head, found)?;
        let mut pen = Pen {
            settings: self.settings,
            ts,
            head: *head,
            rows: Vec::new(),
            claims: found.claims.clone(),
            reported: found.reported.clone(),
            counts: found.counts.clone(),
            used: found.used.clone(),
            changed: BTreeSet::new(),
        };
        if head.next == Seq::new(0) {
            pen.open_log()?;
        }
        self.answers = self.groups.iter().map(|group| pen.write_group(group)).collect();
        self.probe = pen.rows.first().map(|row| (row.id, row.leaf));
        self.same_log = true;
        let Pen { head, rows, mut used, changed, .. } = pen;
        used.retain(|key, _| changed.contains(key));
        let mut edge = edge.clone();
        let tiles = edge.extend(rows.iter().map(|row| row.leaf));
        let mut checkpoint: Arc<str> = Arc::default();
        self.signed = None;
        if !rows.is_empty() {
            let root = edge.root();
            checkpoint = self.settings.signer.checkpoint(edge.size(), root).to_string().into();
            let seen = Seen { size: head.next, leaf: head.leaf, root };
            self.signed = Some((seen, checkpoint.clone()));
        }
        Ok(Sealed { rows, head, edge, tiles, checkpoint, used, clock })
    }
}

impl Batch<'_> {
    /// The time of its entries, and what it must not be far from the store's with.
    fn date(
        &self,
        head: &Head,
        found: &Found,
    ) -> Result<(Timestamp, Option<(Timestamp, SignedDuration)>), ClockError> {
        let drafts = || self.groups.iter().flat_map(|group| &group.drafts);
        let goes_back = drafts().any(|draft| draft.corrects.is_some());
        let Some(time) = self.mark.time() else {
            let now = to_micros(self.clock.now());
            return Ok((if goes_back { now } else { now.max(head.ts) }, None));
        };
        // An operator who says that entries were lost says so whatever their time was.
        let is_recovery = drafts().any(|draft| draft.kind == Kind::LedgerRecovered);
        let may_lead = goes_back || is_recovery;
        let now = time.date(self.clock, self.shares_clock, head, found.clock, may_lead)?;
        if goes_back {
            return Ok((now, Some((now, time.bound()))));
        }
        Ok((now.max(head.ts), Some((now, time.bound())).filter(|_| !is_recovery)))
    }
}

/// Gives records their places, one after the other.
#[derive(Clone)]
struct Pen<'a> {
    settings: &'a SequencerSettings,
    ts: Timestamp,
    head: Head,
    rows: Vec<Row>,
    claims: HashMap<(String, String), Seq>,
    reported: HashSet<Seq>,
    counts: Counts,
    used: Used,
    /// The counters that the store has to keep.
    changed: BTreeSet<CounterKey>,
}

impl Pen<'_> {
    /// Writes entry 0.
    fn open_log(&mut self) -> Result<(), StoreError> {
        let body = canonical::to_vec(&self.settings.genesis)?;
        let mut unique = [0; 10];
        for (byte, digest) in unique.iter_mut().zip(Digest::of(&body).as_bytes()) {
            *byte = *digest;
        }
        let id = DecisionId::at(self.ts, unique).uuid();
        let genesis = Draft::new(id, Kind::Genesis, body);
        self.write(&genesis)
            .map(drop)
            .map_err(|_| StoreError::Corrupt("the genesis record is too long"))
    }

    fn write_group(&mut self, group: &Group) -> Vec<Result<Receipt, SubmitError>> {
        if group.is_wanted() && (group.whole || group.is_counted()) {
            return self.write_whole(group);
        }
        if group.is_wanted() {
            return group.drafts.iter().map(|draft| self.write(draft)).collect();
        }
        let late = Arc::new(StoreError::TimedOut);
        group.drafts.iter().map(|_| Err(SubmitError::Unavailable(late.clone()))).collect()
    }

    /// Writes all of the group, or nothing where one of it is stale, because each of its records has counted
    /// on those before it; or where one of it cannot be written, if it was asked for as a whole.
    fn write_whole(&mut self, group: &Group) -> Vec<Result<Receipt, SubmitError>> {
        let before = self.clone();
        let answers: Vec<_> = group.drafts.iter().map(|draft| self.write(draft)).collect();
        let ends_it = |error: &&SubmitError| group.whole || matches!(error, SubmitError::Stale);
        let mut errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        let Some(error) = errors.find(ends_it).cloned() else { return answers };
        *self = before;
        group.drafts.iter().map(|_| Err(error.clone())).collect()
    }

    fn write(&mut self, draft: &Draft) -> Result<Receipt, SubmitError> {
        self.admit(draft)?;
        let envelope = Envelope {
            id: draft.id,
            kind: &draft.kind,
            log: &self.settings.origin,
            prev: self.head.leaf,
            seq: self.head.next,
            ts: self.ts,
        };
        let (entry, leaf) = seal(&envelope, &draft.body);
        if entry.len() > ENTRY_LIMIT {
            return Err(SubmitError::TooLarge { bytes: entry.len(), limit: ENTRY_LIMIT });
        }
        self.use_up(draft);
        let quota = draft.quota.iter();
        let limits = quota.flat_map(|quota| quota.states(&self.used, self.ts)).collect();
        let (seq, ts, entry) = (self.head.next, self.ts, entry.into());
        let receipt = Receipt { seq, leaf, ts, entry, limits };
        self.place(draft, &receipt);
        Ok(receipt)
    }

    /// Whether the record may follow what is in front of it.
    fn admit(&self, draft: &Draft) -> Result<(), SubmitError> {
        if let Some(claim) = &draft.claim
            && let Some(seq) = self.claims.get(&(claim.scope.clone(), claim.key.clone()))
        {
            return Err(SubmitError::Claimed(*seq));
        }
        if draft.about.is_some_and(|decision| self.reported.contains(&decision)) {
            return Err(SubmitError::AlreadyReported);
        }
        if draft.corrects.is_some_and(|wrong| wrong != self.head.ts) {
            return Err(SubmitError::Stale);
        }
        let active = self.head.revision;
        let superseded = draft.revision.is_some_and(|revision| revision != active)
            || draft.activation.as_ref().is_some_and(|new| new.expected != active);
        let expired = draft.valid_until.is_some_and(|end| self.ts >= end);
        let overtaken = draft.volume.as_ref().is_some_and(|volume| !volume.stands(&self.counts));
        if superseded || expired || overtaken {
            return Err(SubmitError::Stale);
        }
        let reached = draft.quota.as_ref().and_then(|quota| quota.reached(&self.used, self.ts));
        reached.map_or(Ok(()), |state| Err(SubmitError::Limited(Box::new(state))))
    }

    /// Counts what the record uses, and whether it begins or ends a call.
    fn use_up(&mut self, draft: &Draft) {
        let Some(quota) = &draft.quota else { return };
        for (key, amount) in &quota.adds {
            let used = self.used.entry(key.clone()).or_default();
            // What is given back was counted once, but its counter may have been forgotten since.
            *used = used.saturating_add(*amount).max(Decimal::ZERO);
            self.changed.insert(key.clone());
        }
        for key in quota.under_way() {
            let calls = self.used.entry(key).or_default();
            if draft.dispatch {
                *calls += Decimal::ONE;
            } else {
                *calls = (*calls - Decimal::ONE).max(Decimal::ZERO);
            }
        }
    }

    fn place(&mut self, draft: &Draft, receipt: &Receipt) {
        if let Some(claim) = &draft.claim {
            self.claims.insert((claim.scope.clone(), claim.key.clone()), receipt.seq);
        }
        self.reported.extend(draft.about);
        for exported in draft.volume.iter().flat_map(|volume| &volume.adds) {
            self.counts.add(exported);
        }
        self.head = Head {
            next: Seq::new(receipt.seq.get() + 1),
            leaf: receipt.leaf,
            ts: self.ts,
            revision: draft.activation.as_ref().map_or(self.head.revision, |new| new.revision()),
        };
        self.rows.push(Row {
            seq: receipt.seq,
            id: draft.id,
            ts: receipt.ts,
            kind: draft.kind.clone(),
            about: draft.about,
            leaf: receipt.leaf,
            entry: receipt.entry.clone(),
            terms: all_storable(&draft.terms),
            dispatched_by: draft.dispatch.then_some(self.settings.process),
            claim: draft.claim.clone(),
            activation: draft.activation.clone(),
            personal: draft.personal.clone(),
            volume: draft.volume.clone(),
            quota: draft.quota.clone(),
        });
    }
}

/// The terms as a store keeps them: they are only an index.
fn all_storable(terms: &Arc<[String]>) -> Arc<[String]> {
    if terms.iter().all(|term| matches!(storable(term), Cow::Borrowed(_))) {
        return terms.clone();
    }
    terms.iter().map(|term| storable(term).into_owned()).collect()
}
