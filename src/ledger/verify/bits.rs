//! Sets of positions, a bit for each position of the log.

use crate::{domain::Seq, ledger::SeqRange};

/// A set of positions.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn has(&self, seq: Seq) -> bool {
        let word = usize::try_from(seq.get() / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word >> (seq.get() % 64) & 1 == 1)
    }

    /// Adds a position. Whether it is new.
    pub(super) fn add(&mut self, seq: Seq) -> bool {
        let at = usize::try_from(seq.get() / 64).unwrap_or(usize::MAX);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let is_new = !self.has(seq);
        if let Some(word) = self.0.get_mut(at) {
            *word |= 1 << (seq.get() % 64);
        }
        is_new
    }

    /// Those that are not in `others`.
    pub(super) fn without(&self, others: &Self) -> impl Iterator<Item = Seq> {
        let all = (0..64 * self.0.len() as u64).map(Seq::new);
        all.filter(|seq| self.has(*seq) && !others.has(*seq))
    }

    /// Adds a whole range, whose end was read already. Hands each position that is new to `each`; a range
    /// that was added before costs a step for 64 positions.
    pub(super) fn add_range<E>(
        &mut self,
        range: SeqRange,
        mut each: impl FnMut(Seq) -> Result<(), E>,
    ) -> Result<(), E> {
        let (first, last) = (range.first.get(), range.last.get());
        let words = usize::try_from(first / 64).unwrap_or(usize::MAX)
            ..usize::try_from(last / 64).map_or(usize::MAX, |at| at.saturating_add(1));
        if self.0.len() < words.end {
            self.0.resize(words.end, 0);
        }
        for at in words {
            let start = 64 * at as u64;
            let low = u64::MAX << first.saturating_sub(start).min(63);
            let high = u64::MAX >> (start + 63).saturating_sub(last).min(63);
            let Some(word) = self.0.get_mut(at) else { break };
            let mut fresh = low & high & !*word;
            *word |= fresh;
            while fresh != 0 {
                each(Seq::new(start + u64::from(fresh.trailing_zeros())))?;
                fresh &= fresh - 1;
            }
        }
        Ok(())
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_hands_on_what_was_not_there(
            before in prop::collection::btree_set(0..300_u64, 0..40),
            first in 0..300_u64,
            length in 0..200_u64,
        ) {
            let mut bits = Bits::default();
            for seq in &before {
                prop_assert!(bits.add(Seq::new(*seq)));
            }
            let (mut fresh, last) = (Vec::new(), first + length);
            let range = SeqRange { first: Seq::new(first), last: Seq::new(last) };
            let added: Result<(), ()> = bits.add_range(range, |seq| {
                fresh.push(seq.get());
                Ok(())
            });
            prop_assert!(added.is_ok());
            let expected: Vec<_> = (first..=last).filter(|seq| !before.contains(seq)).collect();
            prop_assert_eq!(&fresh, &expected);
            prop_assert_eq!(bits.count(), (before.len() + expected.len()) as u64);
            prop_assert!((first..=last).all(|seq| bits.has(Seq::new(seq))));
        }
    }
}
