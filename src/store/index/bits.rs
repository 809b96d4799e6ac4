//! A set of positions within a block, and its bytes: 512 of them, a bit for each position, the first in
//! the lowest bit of the first byte; or, where that is shorter, two bytes for each position.

use std::ops::Range;

use super::BLOCK;
use crate::{ledger::SeqRange, store::StoreError};

/// Bytes of a bit for each position.
const BYTES: usize = 512;

/// Some of the positions of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Bits([u64; 64]);

impl Bits {
    pub(super) const NONE: Self = Self([0; 64]);
    pub(super) const ALL: Self = Self([u64::MAX; 64]);

    /// Puts in the `at`th position; one beyond the block is none.
    pub(super) fn insert(&mut self, at: u64) {
        if let Some(word) = usize::try_from(at / 64).ok().and_then(|word| self.0.get_mut(word)) {
            *word |= 1 << (at % 64);
        }
    }

    pub(super) fn keep(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0) {
            *word &= other;
        }
    }

    pub(super) fn add(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0) {
            *word |= other;
        }
    }

    /// These positions of block `block` without those of `range`; `None` where none of them is in it.
    pub(in crate::store) fn without(mut self, block: u64, range: SeqRange) -> Option<Self> {
        let (before, first) = (self, block * BLOCK);
        let end = range.last.get().saturating_add(1);
        self.remove(&(range.first.get().saturating_sub(first)..end.saturating_sub(first)));
        (self != before).then_some(self)
    }

    /// Takes out the positions of `range`, counted from the block's first.
    fn remove(&mut self, range: &Range<u64>) {
        for (word, first) in self.0.iter_mut().zip((0..BLOCK).step_by(64)) {
            let from = range.start.clamp(first, first + 64) - first;
            let to = range.end.clamp(first, first + 64) - first;
            if from < to {
                let below = |n: u64| if n == 64 { u64::MAX } else { (1 << n) - 1 };
                *word &= !(below(to) & !below(from));
            }
        }
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The positions that are in it, in order.
    pub(super) fn positions(&self) -> Vec<u64> {
        let mut positions = Vec::new();
        for (word, first) in self.0.iter().zip((0..BLOCK).step_by(64)) {
            let mut rest = *word;
            while rest != 0 {
                positions.push(first + u64::from(rest.trailing_zeros()));
                rest &= rest - 1;
            }
        }
        positions
    }

    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let count: usize = self.0.iter().map(|word| word.count_ones() as usize).sum();
        if 2 * count < BYTES {
            let positions = self.positions().into_iter();
            let short = positions.filter_map(|at| u16::try_from(at).ok());
            return short.flat_map(u16::to_be_bytes).collect();
        }
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut bits = Self::NONE;
        if bytes.len() == BYTES {
            for (word, bytes) in bits.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            return Ok(bits);
        }
        let (positions, rest) = bytes.as_chunks::<2>();
        if bytes.len() > BYTES || !rest.is_empty() {
            return Err(StoreError::Corrupt("a block of the index of another length"));
        }
        for at in positions {
            bits.insert(u64::from(u16::from_be_bytes(*at)));
        }
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(positions: impl IntoIterator<Item = u64>) -> Bits {
        let mut bits = Bits::NONE;
        for at in positions {
            bits.insert(at);
        }
        bits
    }

    #[test]
    fn a_set_reads_back_whatever_its_form() {
        for (step, bytes) in [(1, 512), (8, 512), (16, 512), (17, 482), (1000, 10), (4095, 4)] {
            let some = bits((0..BLOCK).step_by(step));
            let encoded = some.encode();
            assert_eq!(encoded.len(), bytes, "{step}");
            assert!(Bits::decode(&encoded).unwrap() == some, "{step}");
        }
        assert!(Bits::decode(&[]).unwrap().is_empty());
        assert!(Bits::decode(&[1]).is_err() && Bits::decode(&[0; 514]).is_err());
        assert_eq!(bits([4096, 9999]).positions(), [0; 0]);
    }

    #[test]
    fn a_range_is_taken_out_to_the_position() {
        for range in [0..1, 0..64, 63..65, 5..4096, 0..4096, 100..100, 130..131] {
            let mut some = Bits::ALL;
            some.remove(&range);
            let left: Vec<_> = (0..BLOCK).filter(|at| !range.contains(at)).collect();
            assert_eq!(some.positions(), left, "{range:?}");
        }
    }

    #[test]
    fn sets_meet_and_join() {
        let (even, third) = (bits((0..BLOCK).step_by(2)), bits((0..BLOCK).step_by(3)));
        let mut both = even;
        both.keep(&third);
        assert!(both == bits((0..BLOCK).step_by(6)));
        let mut either = even;
        either.add(&third);
        assert_eq!(either.positions().len(), 2048 + 1366 - 683);
    }
}
