//! Makes the next block of the index, and the words of records beside which an older version wrote fewer.

use std::collections::{BTreeMap, HashMap};

use super::{BLOCK, Bits, Block, EVERY, Index, Listed, Part};
use crate::{
    ledger::DerivedTerms,
    store::{StoreError, Stored, storable},
};

/// How many entries are read, and their words made, at once: others want to work too.
const AT_ONCE: usize = 256;

/// The word by which records of a kind are found.
pub(super) fn kind_term(kind: &str) -> String {
    ["kind:", kind].concat()
}

/// The next block, if it is full.
pub(in crate::store) async fn next_block<I: Index>(
    index: &mut I,
) -> Result<Option<Block>, StoreError> {
    let progress = index.progress().await?;
    let next = progress.end()?;
    if progress.head < next.saturating_add(BLOCK) {
        return Ok(None);
    }
    let span = next..next + BLOCK;
    let rows = records(index, &Part { span, kind: None, newest_first: false, words: true }).await?;
    let mut terms: BTreeMap<String, Bits> = BTreeMap::new();
    for row in rows {
        for term in row.terms {
            terms.entry(term).or_insert(Bits::NONE).insert(row.seq - progress.next);
        }
    }
    let terms = terms.into_iter().map(|(term, bits)| (term, bits.encode())).collect();
    Ok(Some(Block { progress, terms }))
}

/// The first [`BLOCK`] records of `part` with all the words by which each is found.
pub(super) async fn records<I: Index>(
    index: &mut I,
    part: &Part,
) -> Result<Vec<Listed>, StoreError> {
    let rows = index.listed(part).await?;
    if part.words { complete(index, rows).await } else { Ok(rows) }
}

/// These records with all the words by which each is found.
pub(super) async fn complete<I: Index>(
    index: &mut I,
    mut rows: Vec<Listed>,
) -> Result<Vec<Listed>, StoreError> {
    let lacking: Vec<u64> = rows
        .iter()
        .filter(|row| DerivedTerms::may_lack(&row.kind, &row.terms))
        .map(|row| row.seq)
        .collect();
    let mut derived = HashMap::new();
    for seqs in lacking.chunks(AT_ONCE) {
        derived.extend(derive(index, seqs).await?);
        tokio::task::yield_now().await;
    }
    for row in &mut rows {
        row.terms.extend(
            derived.remove(&row.seq).into_iter().flatten().map(|term| storable(&term).into_owned()),
        );
        row.terms.extend([kind_term(&row.kind), EVERY.to_owned()]);
    }
    Ok(rows)
}

/// What the bytes of these records say.
async fn derive<I: Index>(
    index: &mut I,
    seqs: &[u64],
) -> Result<Vec<(u64, Vec<String>)>, StoreError> {
    let said: Vec<(u64, DerivedTerms)> = by_position(index.entries(seqs).await?)
        .into_iter()
        .map(|(seq, stored)| (seq, DerivedTerms::of(&stored.entry)))
        .collect();
    let wanted = |said: &DerivedTerms| match said {
        DerivedTerms::WithDecision { decision, .. } => Some(decision.get()),
        DerivedTerms::Whole(_) => None,
    };
    let mut decisions: Vec<u64> = said.iter().filter_map(|(_, said)| wanted(said)).collect();
    decisions.sort_unstable();
    decisions.dedup();
    let decisions = if decisions.is_empty() {
        HashMap::new()
    } else {
        by_position(index.entries(&decisions).await?)
    };
    let complete = |(seq, said): (u64, DerivedTerms)| {
        let decision = wanted(&said).and_then(|at| decisions.get(&at));
        (seq, said.complete(decision.map(|stored| &*stored.entry)))
    };
    Ok(said.into_iter().map(complete).collect())
}

fn by_position(stored: Vec<Stored>) -> HashMap<u64, Stored> {
    stored.into_iter().map(|stored| (stored.seq.get(), stored)).collect()
}
