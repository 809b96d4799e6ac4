//! Inclusion and consistency proofs (RFC 6962, 2.1): which tiles they are made from, what they
//! consist of, and whether they hold. Not who signed the roots.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    tile::{TILE_HEIGHT, TILE_WIDTH, TileId},
    tree::{fold, node_of},
};
use crate::domain::Digest;

/// A proof that is yet to be made: for each of its hashes, the leaves under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan(Vec<(u64, u64)>);

/// Tiles that were read, by their place.
pub type Tiles = BTreeMap<TileId, Vec<Digest>>;

impl Plan {
    /// Of the proof that leaf `index` is in the tree of `size` leaves; `None` when it cannot be.
    #[must_use]
    pub fn inclusion(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut from, mut to, mut path) = (0, size, Vec::new());
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                path.push((middle, to));
                to = middle;
            } else {
                path.push((from, middle));
                from = middle;
            }
        }
        path.reverse();
        Some(Self(path))
    }

    /// Of the proof that the tree of `old` leaves is the beginning of that of `new`; `None` when it
    /// cannot be.
    #[must_use]
    pub fn consistency(old: u64, new: u64) -> Option<Self> {
        if old > new {
            return None;
        }
        if old == 0 || old == new {
            return Some(Self(Vec::new()));
        }
        let (mut from, mut to, mut path, mut whole) = (0, new, Vec::new(), true);
        while to != old {
            let middle = from + split(to - from);
            if old <= middle {
                path.push((middle, to));
                to = middle;
            } else {
                path.push((from, middle));
                from = middle;
                whole = false;
            }
        }
        if !whole {
            path.push((from, to));
        }
        path.reverse();
        Some(Self(path))
    }

    /// Of the root over the first `size` leaves, which is then the only hash.
    #[must_use]
    pub fn root(size: u64) -> Self {
        Self(if size == 0 { Vec::new() } else { vec![(0, size)] })
    }

    /// The tiles that it is made from: about two for each level of tiles.
    #[must_use]
    pub fn tiles(&self) -> BTreeSet<TileId> {
        let perfect = self.0.iter().flat_map(|range| perfect_subtrees(*range));
        perfect.map(|(height, index)| place(height, index).0).collect()
    }

    /// Makes it; `None` when a tile that it needs is missing or too narrow. Tiles may be wider than
    /// they were at the size in question.
    #[must_use]
    pub fn make(&self, tiles: &Tiles) -> Option<Vec<Digest>> {
        let hash_of = |(height, index)| {
            let (id, first, width) = place(height, index);
            fold(tiles.get(&id)?.get(first..first + width)?)
        };
        self.0
            .iter()
            .map(|range| {
                let subtrees: Option<Vec<_>> = perfect_subtrees(*range).map(hash_of).collect();
                let subtrees = subtrees?;
                let (last, rest) = subtrees.split_last()?;
                Some(rest.iter().rev().fold(*last, |right, left| node_of(left, &right)))
            })
            .collect()
    }
}

/// The greatest power of two below `n`, which is at least 2.
const fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// The perfect subtrees that make up a range of leaves, the left ones first: height and number.
fn perfect_subtrees((mut from, to): (u64, u64)) -> impl Iterator<Item = (u32, u64)> {
    std::iter::from_fn(move || {
        let left = to.checked_sub(from).filter(|left| *left > 0)?;
        let height = from.trailing_zeros().min(u64::BITS - 1 - left.leading_zeros());
        let subtree = (height, from >> height);
        from += 1 << height;
        Some(subtree)
    })
}

/// Where the root of a perfect subtree is found: a tile, and the hashes in it that it is over.
fn place(height: u32, index: u64) -> (TileId, usize, usize) {
    let (level, above) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
    let first = index << above;
    let n = first / TILE_WIDTH as u64;
    let at = usize::try_from(first % TILE_WIDTH as u64).unwrap_or(0);
    (TileId { level, n }, at, 1 << above)
}

/// The root of the tree of `size` leaves in which `leaf` stands at `index`, according to `proof`;
/// `None` when the proof is none for such a tree (RFC 9162, 2.1.3.2).
#[must_use]
pub fn root_of_inclusion(leaf: Digest, index: u64, size: u64, proof: &[Digest]) -> Option<Digest> {
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let (mut index, mut root) = (index, leaf);
    for hash in proof {
        if last == 0 {
            return None;
        }
        if index & 1 == 1 || index == last {
            root = node_of(hash, &root);
            // A subtree at the right has no sibling on every level.
            let up = index.trailing_zeros();
            index >>= up;
            last >>= up;
        } else {
            root = node_of(&root, hash);
        }
        index >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether `proof` shows that the tree with the root `old` is the beginning of the one with the root
/// `new` (RFC 9162, 2.1.4.2). Everything begins with the tree without leaves.
#[must_use]
pub fn is_consistent(old: (u64, Digest), new: (u64, Digest), proof: &[Digest]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return proof.is_empty() && old_root == super::tree::empty_root();
    }
    if old_size > new_size {
        return false;
    }
    // The subtree that both trees begin with: the old tree itself, if it is perfect.
    let up = (old_size - 1).trailing_ones();
    let (mut index, mut last) = ((old_size - 1) >> up, (new_size - 1) >> up);
    let (first, rest) = match proof.split_first() {
        _ if old_size.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (*first, rest),
        None => return false,
    };
    let (mut left, mut all) = (first, first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if index & 1 == 1 || index == last {
            left = node_of(hash, &left);
            all = node_of(hash, &all);
            let up = index.trailing_zeros();
            index >>= up;
            last >>= up;
        } else {
            all = node_of(&all, hash);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && left == old_root && all == new_root
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
