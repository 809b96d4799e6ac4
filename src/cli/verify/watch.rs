//! Looks at each entry of an export as it comes: the contents of snapshots, checkpoints that were kept, and
//! what is judged again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    super::{Failure, output},
    files::Export,
    replay::Replay,
    stream::{Seen, Watch},
};
use crate::{
    domain::{Digest, Seq, SnapshotDigests},
    ledger::{Checkpoint, Note, Shortest, Verifier, timestamp_text},
};

/// How many decisions that differ are named.
const NAMED: usize = 20;

/// What comes out otherwise when it is judged again.
#[derive(Debug, Default)]
pub(super) struct Differing {
    first: Vec<String>,
    count: usize,
}

impl Differing {
    pub(super) fn extend(&mut self, differing: Vec<String>) {
        self.count += differing.len();
        let room = NAMED.saturating_sub(self.first.len());
        self.first.extend(differing.into_iter().take(room));
    }

    /// Fails when there is any.
    pub(super) fn report(&self) -> Result<(), Failure> {
        if self.count == 0 {
            return Ok(());
        }
        let mut text =
            format!("{} decisions or attempts come out otherwise when judged again:", self.count);
        for line in &self.first {
            text = format!("{text}\n  {line}");
        }
        if self.count > self.first.len() {
            text = format!("{text}\n  … and {} more", self.count - self.first.len());
        }
        Err(Failure::Finding(text))
    }
}

/// The part of a snapshot's facts that says how long records are kept.
#[derive(Deserialize)]
struct Retentions {
    #[serde(default)]
    retentions: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    places: Option<IgnoredAny>,
    retention: Kept,
}

#[derive(Deserialize)]
struct Kept {
    months: Option<u32>,
}

impl Retentions {
    /// How long any record is kept at least. A rule without places is everybody's, and the longest of those
    /// is the least that a record gets; without one, a call may be under the shortest rule of a place alone.
    fn shortest(&self) -> Shortest {
        let months = |rule: &Rule| rule.retention.months.unwrap_or(u32::MAX);
        let (everywhere, placed): (Vec<_>, Vec<_>) =
            self.retentions.iter().partition(|rule| rule.places.is_none());
        let least = everywhere.into_iter().map(months).max();
        let least = least.or_else(|| placed.into_iter().map(months).min());
        match least {
            None | Some(u32::MAX) => Shortest::ForEver,
            Some(months) => Shortest::Months(months),
        }
    }
}

/// Looks at each entry as it comes.
pub(super) struct Watcher<'a> {
    export: &'a Export,
    replay: Option<&'a Replay<'a>>,
    since: BTreeMap<u64, Vec<Digest>>,
    size: u64,
    pub(super) contents: BTreeSet<Digest>,
    pub(super) differing: Differing,
    /// Until when the active snapshot is valid, and where it was activated.
    valid: Option<(Timestamp, Seq)>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(
        export: &'a Export,
        replay: Option<&'a Replay<'a>>,
        since: &[(Checkpoint, Note)],
        size: u64,
    ) -> Self {
        let (contents, differing) = (BTreeSet::new(), Differing::default());
        Self { export, replay, since: by_size(since), size, contents, differing, valid: None }
    }

    /// Holds the tree read so far against the checkpoints of its size.
    pub(super) fn held_against(&self, verifier: &Verifier) -> Result<(), Failure> {
        let size = verifier.edge().size();
        let Some(roots) = self.since.get(&size) else { return Ok(()) };
        let root = verifier.edge().root();
        if roots.iter().all(|kept| *kept == root) {
            return Ok(());
        }
        Err(Failure::Finding(format!(
            "the first {size} entries are not those of the checkpoint that was kept: history was rewritten"
        )))
    }

    /// Reads the contents of a snapshot. Gives how long any record is kept at least by its facts.
    fn check_contents(&mut self, pinned: &SnapshotDigests) -> Result<Shortest, String> {
        for digest in [pinned.bundle, pinned.organisation, pinned.registers] {
            if self.contents.insert(digest) {
                self.export.content(digest)?;
            }
        }
        self.contents.insert(pinned.facts);
        let facts = self.export.content(pinned.facts)?;
        let retentions: Retentions = serde_json::from_slice(&facts).map_err(|_| {
            format!("the content of {} is not the facts of a snapshot", pinned.facts)
        })?;
        Ok(retentions.shortest())
    }
}

/// Roots by the size of their trees.
fn by_size(checkpoints: &[(Checkpoint, Note)]) -> BTreeMap<u64, Vec<Digest>> {
    let mut roots: BTreeMap<u64, Vec<Digest>> = BTreeMap::new();
    for (checkpoint, _) in checkpoints {
        roots.entry(checkpoint.size).or_default().push(checkpoint.root);
    }
    roots
}

impl Watch for Watcher<'_> {
    fn entry(&mut self, verifier: &mut Verifier, seen: Seen) -> Result<(), Failure> {
        let found = |what: String| Failure::Finding(format!("entry {}: {what}", seen.seq));
        if let (Some(pinned), Some(ts)) = (seen.activated, seen.ts) {
            verifier.keep_at_least(self.check_contents(&pinned).map_err(found)?);
            if let Some(replay) = self.replay {
                let until = replay.activate(seen.seq, ts, &pinned).map_err(found)?;
                self.valid = Some((until, seen.seq));
            }
        }
        if let (Some(ts), Some((until, since))) = (seen.ts.filter(|_| seen.is_decision), self.valid)
            && ts >= until
        {
            let (ts, until) = (timestamp_text(ts), timestamp_text(until));
            return Err(found(format!(
                "was decided at {ts} by the snapshot of entry {since}, which was valid until {until}: a fact had changed since"
            )));
        }
        self.held_against(verifier)
    }

    fn bundle(&mut self, verifier: &Verifier, differing: Vec<String>) {
        self.differing.extend(differing);
        output::progress(&format!("{} of {} entries hold", verifier.edge().size(), self.size));
    }
}
