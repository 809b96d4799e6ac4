//! `lexgate ledger prune`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    ConfigFile, Failure, export,
    output::{self, Paint, paint},
    verify,
};
use crate::{
    app,
    app::AppError,
    config::Config,
    domain::{Clock as _, Seq, SystemClock},
    gate::{Hold, holds},
    ledger::{
        DecisionBody, Entry, Kind, LateOutcomeBody, OutcomeBody, PrunedBody, SeqRange, Signer,
        canonical, kept_until, timestamp_text,
    },
    sequencer::{Mark, check_clocks, check_end, long_pause, proven, signed_tree},
    source::Faults,
    store::{RecordQuery, Store, Stored, crash_point},
};

/// How many entries are read, and removed, at once.
const CHUNK: u64 = 2_048;
/// How often holds are looked at again because one was set, changed or lifted meanwhile.
const ATTEMPTS: usize = 20;
/// How many ranges one record names.
const RANGES: usize = 1_000;

/// Remove the bodies of records whose time is over.
///
/// First the log is exported to the archive folder and the export is verified: what is removed stays
/// there. Then the log records what goes (`segment_pruned`), and the bodies are removed from the
/// store; places and hashes stay, so that every proof still holds. Records under a legal hold, and
/// those on which others depend, are left. Services may run meanwhile. Needs the role that owns the
/// tables. What was cut off is finished by running it again, if its record is in the signed log.
#[derive(Debug, Args)]
pub(super) struct Prune {
    #[command(flatten)]
    config: ConfigFile,
    /// The folder for the archive: empty, or an earlier archive or export of the same log.
    #[arg(long, value_name = "DIR")]
    archive: PathBuf,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take this day (UTC) or instant for the present one: what must be kept longer is kept.
    #[arg(long, value_name = "INSTANT", value_parser = super::instant)]
    before: Option<Timestamp>,
    /// Believe this machine's clock although nothing was recorded for more than two weeks not long ago.
    #[arg(long)]
    clock_is_right: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is to go.
#[derive(Debug, Default)]
struct Found {
    /// How many entries were exported and verified.
    size: u64,
    ranges: Vec<SeqRange>,
    /// How many of each kind.
    kinds: BTreeMap<String, u64>,
    /// How many would go, but for a hold.
    held: u64,
    decisions: BTreeSet<Seq>,
}

impl Prune {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let now = SystemClock.now();
        let before = self.before.unwrap_or(now);
        if before > now {
            return Err(Failure::Usage("--before: the instant is yet to come".to_owned()));
        }
        let store = app::open_store(&config).await?;
        store.examine().await.map_err(AppError::from)?;
        let signer = app::read_signer(&config).map_err(Faults::from)?;
        let mark = app::open_mark(&config, &*store, &signer).await.map_err(AppError::from)?;
        check_end(&*store, &signer).await.map_err(AppError::from)?;
        let clocks = check_clocks(config.ledger.max_clock_skew, &SystemClock, &*store).await;
        clocks.map_err(AppError::from)?;
        if !self.dry_run && !self.clock_is_right {
            check_pause(&*store, now, before).await?;
        }
        let size = export::write_export(&*store, &self.archive, true).await?.0;
        let vkey = signer.verifiers().first().map(ToString::to_string).unwrap_or_default();
        verify::check(&self.archive, &vkey)?;
        let log = Log { store: &*store, signer: &signer };
        if !self.dry_run {
            log.finish_earlier(size, before).await?;
        }
        let found = find(&*store, size, before).await?;
        let mut records = Vec::new();
        if !self.dry_run {
            for ranges in found.ranges.chunks(RANGES) {
                let body = PrunedBody { before, removed: ranges.to_vec() };
                records.push(record(&config, store.clone(), mark.clone(), &body).await?);
                crash_point("pruned");
                log.remove_all(ranges).await?;
            }
        }
        self.report(&found, &records)
    }

    fn report(&self, found: &Found, records: &[Seq]) -> Result<(), Failure> {
        let Found { kinds, held, .. } = found;
        let total: u64 = kinds.values().sum();
        if self.json {
            return output::json(&json!({
                "removed": total, "kinds": kinds, "held": held, "records": records,
                "dry_run": self.dry_run, "archive": self.archive,
            }));
        }
        let archive = self.archive.display();
        let verb = if self.dry_run { "would be removed" } else { "removed" };
        output::line(&paint(
            Paint::Good,
            &format!("the archive `{archive}` holds; {total} bodies {verb}"),
        ));
        for (kind, count) in kinds {
            output::line(&format!("  {count:>9} {kind}"));
        }
        if *held > 0 {
            output::line(&format!("  {held} more are kept by legal holds"));
        }
        for record in records {
            output::line(&format!("  record {record} says so"));
        }
        Ok(())
    }
}

/// Refuses where the clock may be ahead: of a log that rested, nothing else can tell.
async fn check_pause(store: &dyn Store, now: Timestamp, before: Timestamp) -> Result<(), Failure> {
    let pause = long_pause(store, now).await.map_err(AppError::from)?;
    let Some(pause) = pause.filter(|pause| before > pause.since) else { return Ok(()) };
    let [now, since, until] = [now, pause.since, pause.until].map(timestamp_text);
    Err(Failure::Finding(format!(
        "nothing was recorded between {since} and {until}: either the log rested, or this machine's clock, which says {now}, is ahead, and bodies would be removed whose retention has not ended. If the clock is right, add `--clock-is-right`; else set it right, or add `--before {since}`"
    )))
}

/// The records among the first `size` whose time was over at `before`.
async fn find(store: &dyn Store, size: u64, before: Timestamp) -> Result<Found, Failure> {
    let holds: Vec<Hold> = holds(store).await.map_err(AppError::from)?.into_values().collect();
    let corrections =
        RecordQuery { kind: Some(Kind::ClockCorrected), limit: 1, ..RecordQuery::default() };
    let was_corrected = !store.query(&corrections).await.map_err(AppError::from)?.is_empty();
    let mut found = Found { size, ..Found::default() };
    let mut next = 0;
    while next < size {
        let wanted = usize::try_from(CHUNK.min(size - next)).unwrap_or(usize::MAX);
        let stored = store.range(Seq::new(next), wanted).await.map_err(AppError::from)?;
        let Some(last) = stored.last().map(|last| last.seq) else { break };
        let mut over = Vec::new();
        let mut is_young = false;
        for stored in stored.iter().filter(|stored| !stored.entry.is_empty()) {
            let entry = read(stored)?;
            is_young = entry.ts >= before;
            if kept_until(&entry).is_some_and(|until| until <= before) {
                over.push((stored.seq, stored));
            }
        }
        if !over.is_empty() {
            let seqs: Vec<Seq> = over.iter().map(|(seq, _)| *seq).collect();
            let held = held(store, &holds, &seqs).await?;
            for (seq, stored) in over {
                if held.contains(&seq) {
                    found.held += 1;
                } else {
                    found.consider(store, &holds, stored).await?;
                }
            }
        }
        next = last.get() + 1;
        output::progress(&format!("{next} of {size} entries looked at"));
        if is_young && !was_corrected {
            break; // else instants never decrease along the log
        }
    }
    output::end_progress();
    Ok(found)
}

impl Found {
    /// Adds a record whose time is over, unless another one that stays needs it.
    async fn consider(
        &mut self,
        store: &dyn Store,
        holds: &[Hold],
        stored: &Stored,
    ) -> Result<(), Failure> {
        let entry = read(stored)?;
        match entry.kind {
            Kind::Decision => {
                let decision: DecisionBody = body(&entry)?;
                let outcome = store.outcome_of(stored.seq).await.map_err(AppError::from)?;
                let is_held = match &outcome {
                    // Not in what was verified: the next run looks at it.
                    Some(outcome) if outcome.seq.get() >= self.size => return Ok(()),
                    Some(outcome) => {
                        let late = store.outcome_of(outcome.seq).await.map_err(AppError::from)?;
                        let late = late.map_or(outcome.seq, |late| late.seq);
                        !held(store, holds, &[outcome.seq, late]).await?.is_empty()
                    }
                    None => decision.dispatch,
                };
                if is_held {
                    self.held += u64::from(outcome.is_some());
                    return Ok(());
                }
                self.decisions.insert(stored.seq);
            }
            Kind::Outcome | Kind::LateOutcome => {
                let decision = match entry.kind {
                    Kind::Outcome => body::<OutcomeBody>(&entry)?.decision.seq,
                    _ => body::<LateOutcomeBody>(&entry)?.decision.seq,
                };
                let row = store.record(decision).await.map_err(AppError::from)?;
                let has_gone = row.is_some_and(|row| row.entry.is_empty());
                if !has_gone && !self.decisions.contains(&decision) {
                    return Ok(());
                }
            }
            _ => {}
        }
        *self.kinds.entry(entry.kind.to_string()).or_default() += 1;
        extend(&mut self.ranges, stored.seq);
        Ok(())
    }
}

/// Those of these records, in order, that a hold keeps.
async fn held(store: &dyn Store, holds: &[Hold], seqs: &[Seq]) -> Result<BTreeSet<Seq>, Failure> {
    let queries: Vec<_> = holds.iter().map(Hold::query).collect();
    let held = store.matching(&queries, seqs).await.map_err(AppError::from)?;
    Ok(held.into_iter().flatten().collect())
}

/// The log from which bodies are removed.
struct Log<'a> {
    store: &'a dyn Store,
    signer: &'a Signer,
}

impl Log<'_> {
    /// Removes what records say is removed, and is not: an earlier run was cut off. Only what records among
    /// the first `size` say, which the signed tree holds: a row alone removes nothing.
    async fn finish_earlier(&self, size: u64, before: Timestamp) -> Result<(), Failure> {
        let (origin, keys) = (self.signer.origin(), self.signer.verifiers());
        let tree = signed_tree(self.store, origin, keys).await.map_err(AppError::from)?;
        let Some(tree) = tree else { return Ok(()) };
        let mut query =
            RecordQuery { kind: Some(Kind::SegmentPruned), limit: 100, ..RecordQuery::default() };
        loop {
            let found = self.store.query(&query).await.map_err(AppError::from)?;
            let Some(last) = found.last() else { return Ok(()) };
            query.after = Some(last.seq);
            for stored in found.iter().filter(|stored| stored.seq.get() < size) {
                let entry = proven(self.store, &tree, stored, &Kind::SegmentPruned).await;
                let entry = entry.map_err(AppError::from)?.ok_or_else(|| {
                    Failure::Finding(format!(
                        "entry {} says that bodies were removed, and is not in the signed log: somebody has changed the store. Nothing was removed; keep the database as it is for those who look into it",
                        stored.seq
                    ))
                })?;
                let pruned: PrunedBody = body(&entry)?;
                let before = pruned.before.min(before);
                for range in pruned.removed.iter().filter(|range| range.last < stored.seq) {
                    self.finish(*range, before).await?;
                }
            }
        }
    }

    /// Removes what is left of a range, and need not be kept at `before`.
    async fn finish(&self, range: SeqRange, before: Timestamp) -> Result<(), Failure> {
        let mut next = range.first.get();
        while next <= range.last.get() {
            let wanted = CHUNK.min(range.last.get() - next + 1);
            let width = usize::try_from(wanted).unwrap_or(usize::MAX);
            let found = self.store.range(Seq::new(next), width).await.map_err(AppError::from)?;
            let mut over = Vec::new();
            for stored in found.iter().filter(|stored| !stored.entry.is_empty()) {
                if kept_until(&read(stored)?).is_some_and(|until| until <= before) {
                    extend(&mut over, stored.seq);
                }
            }
            self.remove_all(&over).await?;
            next += wanted;
        }
        Ok(())
    }

    /// Empties these ranges, but for what is on hold by now.
    async fn remove_all(&self, ranges: &[SeqRange]) -> Result<(), Failure> {
        for range in ranges {
            let mut first = range.first.get();
            while first <= range.last.get() {
                let last = range.last.get().min(first + CHUNK - 1);
                let chunk = SeqRange { first: Seq::new(first), last: Seq::new(last) };
                let mut attempts = 0;
                while !self.remove_chunk(chunk).await? {
                    attempts += 1;
                    if attempts == ATTEMPTS {
                        return Err(Failure::Environment(
                            "legal holds change faster than they can be looked at: run it again"
                                .to_owned(),
                        ));
                    }
                }
                first = last + 1;
            }
        }
        Ok(())
    }

    /// Empties a chunk, but for what is on hold; `false` when a hold was set, changed or lifted meanwhile,
    /// and it has to be looked at again. A log that goes on beyond its signed tree may name no holds.
    async fn remove_chunk(&self, chunk: SeqRange) -> Result<bool, Failure> {
        let store = self.store;
        check_end(store, self.signer).await.map_err(AppError::from)?;
        let head = store.head().await.map_err(AppError::from)?;
        let as_of = head.map_or(Seq::new(0), |head| head.next);
        let holds: Vec<Hold> = holds(store).await.map_err(AppError::from)?.into_values().collect();
        let seqs: Vec<Seq> = (chunk.first.get()..=chunk.last.get()).map(Seq::new).collect();
        let staying = held(store, &holds, &seqs).await?;
        let mut from = chunk.first.get();
        for stop in staying.iter().map(|seq| seq.get()).chain([chunk.last.get() + 1]) {
            if from < stop {
                let part = SeqRange { first: Seq::new(from), last: Seq::new(stop - 1) };
                if store.remove_bodies(part, as_of).await.map_err(AppError::from)?.is_none() {
                    return Ok(false);
                }
            }
            from = stop + 1;
        }
        Ok(true)
    }
}

/// Adds a position, which is behind the others.
fn extend(ranges: &mut Vec<SeqRange>, seq: Seq) {
    match ranges.last_mut() {
        Some(range) if range.last.get() + 1 == seq.get() => range.last = seq,
        _ => ranges.push(SeqRange { first: seq, last: seq }),
    }
}

/// Records what goes, before it goes.
async fn record(
    config: &Config,
    store: Arc<dyn Store>,
    mark: Mark,
    body: &PrunedBody,
) -> Result<Seq, Failure> {
    let text = canonical::to_vec(body)
        .map_err(|error| Failure::Environment(format!("the record: {error}")))?;
    let signer = app::read_signer(config).map_err(Faults::from)?;
    let receipt = app::append_alone(config, signer, mark, store, Kind::SegmentPruned, text).await?;
    output::progress(&format!(
        "record {} names what goes because its retention period had ended at {}",
        receipt.seq,
        timestamp_text(body.before)
    ));
    Ok(receipt.seq)
}

fn read(stored: &Stored) -> Result<Entry<'_>, Failure> {
    Entry::parse(&stored.entry)
        .map_err(|error| Failure::Finding(format!("entry {} cannot be read: {error}", stored.seq)))
}

fn body<T: serde::de::DeserializeOwned>(entry: &Entry<'_>) -> Result<T, Failure> {
    serde_json::from_str(entry.body.get())
        .map_err(|error| Failure::Finding(format!("entry {} cannot be read: {error}", entry.seq)))
}
