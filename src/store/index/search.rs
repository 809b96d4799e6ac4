//! A search: a span of time becomes spans of positions, within those the blocks tell where all terms
//! meet, and only the records that match are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    BLOCK, Bits, EVERY, Index, Kept, Listed, Part,
    build::{complete, kind_term, records},
};
use crate::{
    ledger::Kind,
    store::{RecordQuery, StoreError, Stored, storable},
};

/// How many blocks are looked at first, how many more each time, and how many at most.
const STEPS: (u64, u64, u64) = (16, 4, 1024);

/// How many records are held against a search at once.
const AT_ONCE: usize = 256;

/// The records that match, in the order that is wanted.
pub(in crate::store) async fn search<I: Index>(
    index: &mut I,
    query: &RecordQuery,
) -> Result<Vec<Stored>, StoreError> {
    let mut found = Found::new(query);
    if found.is_full() {
        return Ok(found.records);
    }
    let wanted = Wanted::new(query);
    if query.by_entries || wanted.is_kind_alone() {
        // Whatever became of the index: what decides is found so.
        let head = index.end().await?;
        for span in spans(index, query, head).await? {
            walk_rest(index, &wanted, &mut found, span).await?;
        }
        found.read(index).await?;
        return Ok(found.records);
    }
    let progress = index.progress().await?;
    let next = progress.end()?;
    for span in spans(index, query, progress.head).await? {
        let at = next.clamp(span.start, span.end);
        let (kept, rest) = (span.start..at, at..span.end);
        if query.newest_first {
            walk_rest(index, &wanted, &mut found, rest).await?;
            walk_blocks(index, &wanted, &mut found, kept).await?;
        } else {
            walk_blocks(index, &wanted, &mut found, kept).await?;
            walk_rest(index, &wanted, &mut found, rest).await?;
        }
    }
    found.read(index).await?;
    Ok(found.records)
}

/// For each of `queries`, those of these records, which are in order, that match by what is written beside them
/// and in them, or by the index: none is missed because the index was tampered with. What cannot be undone rests
/// on it.
pub(in crate::store) async fn matching<I: Index>(
    index: &mut I,
    queries: &[RecordQuery],
    seqs: &[u64],
) -> Result<Vec<BTreeSet<u64>>, StoreError> {
    let wanted: Vec<Wanted> = queries.iter().map(Wanted::new).collect();
    let mut matching = hold_against(index, &wanted, seqs).await?;
    let head = index.end().await?;
    for ((query, wanted), matching) in queries.iter().zip(&wanted).zip(&mut matching) {
        // An outcome of an older version may stay longer than the decision that has its words: the index still
        // has them. A block that was forged holds too much, which can be undone.
        matching.extend(meeting_in_blocks(index, wanted, seqs).await?);
        let spans = spans(index, query, head).await?;
        matching.retain(|seq| spans.iter().any(|span| span.contains(seq)));
    }
    Ok(matching)
}

/// Those of these records at which the words meet, as the index says.
async fn meeting_in_blocks<I: Index>(
    index: &mut I,
    wanted: &Wanted,
    seqs: &[u64],
) -> Result<Vec<u64>, StoreError> {
    let terms = wanted.each();
    let mut meeting = Vec::new();
    for some in seqs.chunk_by(|a, b| a / BLOCK == b / BLOCK) {
        let Some(block) = some.first().map(|first| first / BLOCK) else { continue };
        let kept = index.kept(&terms, block, block + 1).await?;
        for (block, meets) in Meeting::all(wanted, &kept)? {
            let positions = meets.positions(wanted, block, &(0..u64::MAX));
            meeting.extend(positions.into_iter().filter(|at| some.binary_search(at).is_ok()));
        }
    }
    Ok(meeting)
}

/// For each of `wanted`, those of these records whose own words match.
async fn hold_against<I: Index>(
    index: &mut I,
    wanted: &[Wanted],
    seqs: &[u64],
) -> Result<Vec<BTreeSet<u64>>, StoreError> {
    let mut matching = vec![BTreeSet::new(); wanted.len()];
    for some in seqs.chunks(AT_ONCE) {
        let rows = index.listed_at(some).await?;
        for row in complete(index, rows).await? {
            for (wanted, matching) in wanted.iter().zip(&mut matching) {
                if wanted.matches(&row.terms) {
                    matching.insert(row.seq);
                }
            }
        }
    }
    Ok(matching)
}

/// Those of `terms` that a record has; `None` where too much is not indexed yet to look.
pub(in crate::store) async fn occurring<I: Index>(
    index: &mut I,
    terms: &[String],
) -> Result<Option<Vec<String>>, StoreError> {
    let progress = index.progress().await?;
    let next = progress.end()?;
    let terms: Vec<String> = terms.iter().map(|term| storable(term).into_owned()).collect();
    if progress.head.saturating_sub(next) > 2 * BLOCK {
        return Ok(None);
    }
    let mut occurring: BTreeSet<String> = index.indexed(&terms).await?.into_iter().collect();
    if terms.iter().any(|term| !occurring.contains(term)) {
        let mut part =
            Part { span: next..progress.head, kind: None, newest_first: false, words: true };
        while !part.span.is_empty() {
            for row in next_records(index, &mut part).await? {
                occurring.extend(row.terms.into_iter().filter(|term| terms.contains(term)));
            }
        }
    }
    Ok(Some(occurring.into_iter().collect()))
}

/// Kinds of which a log has many, and whose bodies are removed after a time: in the index, but in no other,
/// those are not in the way.
const fn is_frequent(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Decision | Kind::Outcome | Kind::LateOutcome | Kind::AuditRead | Kind::Refused
    )
}

/// The words of a search.
struct Wanted {
    /// Each of them, at least one.
    all: Vec<String>,
    /// One of them, unless there are none.
    any: Vec<String>,
    /// The kind, where it has few records: they are found by it alone.
    kind: Option<Kind>,
}

impl Wanted {
    fn new(query: &RecordQuery) -> Self {
        let rare = query.kind.clone().filter(|kind| !is_frequent(kind));
        let kind = query.kind.iter().map(|kind| kind_term(kind.as_str()));
        let mut all: Vec<String> =
            query.terms.iter().map(|term| storable(term).into_owned()).chain(kind).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            all.push(EVERY.to_owned());
        }
        let any = query.any_of.iter().map(|term| storable(term).into_owned()).collect();
        Self { all, any, kind: rare }
    }

    /// Whether the database's own index of kinds answers all of it.
    fn is_kind_alone(&self) -> bool {
        self.kind.is_some() && self.all.len() == 1 && self.any.is_empty()
    }

    fn each(&self) -> Vec<String> {
        let mut each: Vec<String> = self.all.iter().chain(&self.any).cloned().collect();
        each.sort_unstable();
        each.dedup();
        each
    }

    fn matches(&self, terms: &[String]) -> bool {
        self.all.iter().all(|term| terms.contains(term))
            && (self.any.is_empty() || self.any.iter().any(|term| terms.contains(term)))
    }
}

/// Where the words of a search are within a block.
struct Meeting {
    seen: usize,
    all: Bits,
    any: Bits,
}

impl Meeting {
    /// The meetings in each block, in order.
    fn all(wanted: &Wanted, kept: &[Kept]) -> Result<BTreeMap<u64, Self>, StoreError> {
        let mut blocks: BTreeMap<u64, Self> = BTreeMap::new();
        for Kept { term, block, seqs } in kept {
            let bits = Bits::decode(seqs)?;
            let none = Self { seen: 0, all: Bits::ALL, any: Bits::NONE };
            let meeting = blocks.entry(*block).or_insert(none);
            if wanted.all.contains(term) {
                meeting.seen += 1;
                meeting.all.keep(&bits);
            }
            if wanted.any.contains(term) {
                meeting.any.add(&bits);
            }
        }
        Ok(blocks)
    }

    /// The positions in block `block` and in `span` at which they meet.
    fn positions(mut self, wanted: &Wanted, block: u64, span: &Range<u64>) -> Vec<u64> {
        if self.seen < wanted.all.len() {
            return Vec::new();
        }
        if !wanted.any.is_empty() {
            self.all.keep(&self.any);
        }
        let first = block * BLOCK;
        let positions = self.all.positions().into_iter().map(|at| first + at);
        positions.filter(|at| span.contains(at)).collect()
    }
}

/// The records that were found, and the positions of those that are to be read.
struct Found {
    records: Vec<Stored>,
    positions: Vec<u64>,
    limit: usize,
    newest_first: bool,
    /// The words of which a record that may be seen has one, unless there are none.
    visible: Wanted,
}

impl Found {
    fn new(query: &RecordQuery) -> Self {
        let RecordQuery { limit, newest_first, .. } = *query;
        let any = Wanted::new(query).any;
        let visible = Wanted { all: Vec::new(), any, kind: None };
        Self { records: Vec::new(), positions: Vec::new(), limit, newest_first, visible }
    }

    fn is_full(&self) -> bool {
        self.records.len() >= self.limit
    }

    /// Takes positions in the order that is wanted; reads as soon as they may be enough.
    async fn take<I: Index>(
        &mut self,
        index: &mut I,
        positions: Vec<u64>,
    ) -> Result<(), StoreError> {
        let mut rest = positions.into_iter();
        while !self.is_full() {
            let room = self.limit - self.records.len() - self.positions.len();
            self.positions.extend(rest.by_ref().take(room));
            if self.records.len() + self.positions.len() < self.limit {
                break;
            }
            self.read(index).await?;
        }
        Ok(())
    }

    /// Reads what is still to be read. A body that was removed meanwhile is not among it, nor a record of which
    /// only an index that a role may write says that it may be seen.
    async fn read<I: Index>(&mut self, index: &mut I) -> Result<(), StoreError> {
        if self.positions.is_empty() {
            return Ok(());
        }
        let mut positions = std::mem::take(&mut self.positions);
        if I::HAS_ROLES && !self.visible.any.is_empty() {
            let visible =
                hold_against(index, std::slice::from_ref(&self.visible), &positions).await?;
            positions.retain(|at| visible.iter().any(|visible| visible.contains(at)));
        }
        let mut records = index.entries(&positions).await?;
        records.sort_unstable_by_key(|stored| stored.seq);
        if self.newest_first {
            records.reverse();
        }
        self.records.extend(records);
        Ok(())
    }
}

async fn walk_blocks<I: Index>(
    index: &mut I,
    wanted: &Wanted,
    found: &mut Found,
    span: Range<u64>,
) -> Result<(), StoreError> {
    let (first_step, growth, most) = STEPS;
    let terms = wanted.each();
    let mut blocks = span.start / BLOCK..span.end.div_ceil(BLOCK);
    let mut step = first_step;
    while !blocks.is_empty() && !span.is_empty() && !found.is_full() {
        let part = if found.newest_first {
            blocks.end.saturating_sub(step).max(blocks.start)..blocks.end
        } else {
            blocks.start..blocks.start.saturating_add(step).min(blocks.end)
        };
        if found.newest_first {
            blocks.end = part.start;
        } else {
            blocks.start = part.end;
        }
        step = (step * growth).min(most);
        let kept = index.kept(&terms, part.start, part.end).await?;
        let mut meetings: Vec<_> = Meeting::all(wanted, &kept)?.into_iter().collect();
        if found.newest_first {
            meetings.reverse();
        }
        for (block, meeting) in meetings {
            let mut positions = meeting.positions(wanted, block, &span);
            if found.newest_first {
                positions.reverse();
            }
            found.take(index, positions).await?;
            if found.is_full() {
                break;
            }
        }
    }
    Ok(())
}

/// What is not indexed, a block's length at a time.
async fn walk_rest<I: Index>(
    index: &mut I,
    wanted: &Wanted,
    found: &mut Found,
    span: Range<u64>,
) -> Result<(), StoreError> {
    let words = !wanted.is_kind_alone();
    let (kind, newest_first) = (wanted.kind.clone(), found.newest_first);
    let mut part = Part { span, kind, newest_first, words };
    while !part.span.is_empty() && !found.is_full() {
        let rows = next_records(index, &mut part).await?;
        let matching = rows.into_iter().filter(|row| !words || wanted.matches(&row.terms));
        found.take(index, matching.map(|row| row.seq).collect()).await?;
    }
    Ok(())
}

/// The next records of `part`, in its order; what is left of it then lies behind them.
async fn next_records<I: Index>(index: &mut I, part: &mut Part) -> Result<Vec<Listed>, StoreError> {
    let rows = records(index, part).await?;
    let last = rows.last().map(|row| row.seq).filter(|_| rows.len() as u64 >= BLOCK);
    part.span = match last {
        Some(last) if part.newest_first => part.span.start..last,
        Some(last) => last + 1..part.span.end,
        None => part.span.end..part.span.end,
    };
    Ok(rows)
}

/// The positions before `head` that a search is about, as spans in the order that is wanted. Instants
/// do not decrease along the log but where its time was corrected: between two corrections, a span of time
/// is a span of positions.
async fn spans<I: Index>(
    index: &mut I,
    query: &RecordQuery,
    head: u64,
) -> Result<Vec<Range<u64>>, StoreError> {
    let first = query.after.map_or(0, |seq| seq.get().saturating_add(1));
    let end = query.before.map_or(head, |seq| seq.get().min(head));
    let mut spans = Vec::new();
    if query.from.is_none() && query.to.is_none() {
        spans.push(first..end);
    } else {
        let corrections = index.corrections().await?;
        let within = corrections.into_iter().filter(|at| (1..head).contains(at));
        let mut start = 0;
        for stop in within.chain([head]) {
            let mut span = start..stop;
            if let Some(from) = query.from {
                span.start = index.first_since(from, start, stop).await?;
            }
            if let Some(to) = query.to {
                span.end = index.first_since(to, start, stop).await?;
            }
            spans.push(span.start.max(first)..span.end.min(end));
            start = stop;
        }
    }
    if let Some(id) = query.id {
        let about = index.about(id).await?;
        let among = |seq: &u64| spans.iter().any(|span| span.contains(seq));
        spans = about.into_iter().filter(among).map(|seq| seq..seq + 1).collect();
    }
    spans.retain(|span| !span.is_empty());
    if query.newest_first {
        spans.reverse();
    }
    Ok(spans)
}
