//! The Merkle tree of RFC 6962 over the log's leaves: its hashes, and the edge at which it grows.
//! Not proofs (`proof`), and not where tiles are kept.

use crate::domain::Digest;

use super::tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileId, count_at};

/// The hash of two subtrees: `SHA-256(0x01 ‖ left ‖ right)` (RFC 6962, 2.1).
#[must_use]
pub fn node_of(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1; 65];
    for (to, from) in bytes.iter_mut().skip(1).zip(left.as_bytes().iter().chain(right.as_bytes())) {
        *to = *from;
    }
    Digest::of(&bytes)
}

/// The root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// The root over `hashes`, whose number is a power of two; `None` when there are none.
pub(super) fn fold(hashes: &[Digest]) -> Option<Digest> {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .chunks(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(node_of(left, right)),
                _ => None,
            })
            .collect();
    }
    row.first().copied()
}

/// What a new leaf touches: the tiles at the right of the tree, none of them full. Some kilobytes,
/// however large the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// The roots of the perfect subtrees that the tree consists of, the largest first.
    peaks: Vec<Digest>,
    /// Of each level, the hashes of the tile that is not full; perhaps none.
    partial: Vec<Vec<Digest>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves with these partial tiles, level by level; `None` when
    /// they are not as wide as those of such a tree.
    #[must_use]
    pub fn from_tiles(size: u64, partial: Vec<Vec<Digest>>) -> Option<Self> {
        let wanted: Vec<_> = partial_tiles(size).collect();
        let fits = wanted.len() == partial.len()
            && wanted.iter().zip(&partial).all(|((_, width), hashes)| hashes.len() == *width);
        if !fits {
            return None;
        }
        let mut peaks = Vec::new();
        for hashes in partial.iter().rev() {
            let mut rest = hashes.as_slice();
            for bit in (0..TILE_HEIGHT).rev() {
                if hashes.len() >> bit & 1 == 1 {
                    let (subtree, right) = rest.split_at_checked(1 << bit)?;
                    peaks.push(fold(subtree)?);
                    rest = right;
                }
            }
        }
        Some(Self { size, peaks, partial })
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        let join = |right: Digest, left: &Digest| node_of(left, &right);
        match self.peaks.split_last() {
            Some((last, rest)) => rest.iter().rev().fold(*last, join),
            None => empty_root(),
        }
    }

    /// The tiles that are not full, as wide as they are.
    #[must_use]
    pub fn partial(&self) -> Vec<Tile> {
        let tiles = partial_tiles(self.size).zip(&self.partial);
        let tiles = tiles.map(|((id, _), hashes)| Tile { id, hashes: hashes.clone() });
        tiles.filter(|tile| !tile.hashes.is_empty()).collect()
    }

    /// Adds leaves. Gives the tiles that are to be kept: those that have become full, and above the
    /// leaves those that have grown. The partial tile of leaves is not among them: its hashes lie
    /// with the entries.
    pub fn extend(&mut self, leaves: impl IntoIterator<Item = Digest>) -> Vec<Tile> {
        let (before, mut tiles) = (self.size, Vec::new());
        for leaf in leaves {
            self.push(leaf, &mut tiles);
        }
        for ((id, _), hashes) in partial_tiles(self.size).zip(&self.partial) {
            let grown = count_at(before, id.level) != count_at(self.size, id.level);
            if id.level > 0 && grown && !hashes.is_empty() {
                tiles.push(Tile { id, hashes: hashes.clone() });
            }
        }
        tiles
    }

    fn push(&mut self, leaf: Digest, full: &mut Vec<Tile>) {
        let (mut hash, mut height) = (leaf, 0);
        self.place(0, hash, full);
        while self.size >> height & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_of(&left, &hash);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                self.place(height / TILE_HEIGHT, hash, full);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    fn place(&mut self, level: u32, hash: Digest, full: &mut Vec<Tile>) {
        let at = level as usize;
        if self.partial.len() <= at {
            self.partial.resize(at + 1, Vec::new());
        }
        let n = count_at(self.size, level + 1);
        if let Some(hashes) = self.partial.get_mut(at) {
            hashes.push(hash);
            if hashes.len() == TILE_WIDTH {
                full.push(Tile { id: TileId { level, n }, hashes: std::mem::take(hashes) });
            }
        }
    }
}

/// The tile at the right of each level of a tree of `size` leaves, with the number of its hashes:
/// 0 where the tile before it has just become full.
pub fn partial_tiles(size: u64) -> impl Iterator<Item = (TileId, usize)> {
    (0..).map_while(move |level| {
        let count = count_at(size, level);
        let width = usize::try_from(count % TILE_WIDTH as u64).unwrap_or(0);
        (count > 0).then_some((TileId { level, n: count / TILE_WIDTH as u64 }, width))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::leaf_of;

    fn leaves(n: u64) -> Vec<Digest> {
        (0..n).map(|n| leaf_of(&n.to_be_bytes())).collect()
    }

    /// RFC 6962, 2.1, word for word.
    fn mth(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
                node_of(&mth(left), &mth(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_rfc_and_of_another_implementation() {
        let all = leaves(1_000);
        let mut edge = Edge::default();
        let mut other = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, _>::new();
        for n in 0..=all.len() {
            assert_eq!(edge.root(), mth(&all[..n]), "{n}");
            assert_eq!(edge.root().as_bytes().as_slice(), other.root().as_bytes().as_slice());
            if let Some(leaf) = all.get(n) {
                edge.extend([*leaf]);
                other.push((n as u64).to_be_bytes());
            }
        }
    }

    #[test]
    fn an_edge_is_found_again_from_its_tiles() {
        let all = leaves(140_000);
        let (mut edge, mut kept) = (Edge::default(), std::collections::BTreeMap::new());
        let mut next = 0;
        for step in [1, 254, 1, 1, 255, 300, 65_000, 5_000, 66_000] {
            let tiles = edge.extend(all[next..next + step].iter().copied());
            next += step;
            kept.extend(tiles.into_iter().map(|tile| (tile.id, tile.hashes)));
            let partial = partial_tiles(next as u64)
                .map(|(id, width)| match id.level {
                    0 => all[next - width..next].to_vec(),
                    _ if width == 0 => Vec::new(),
                    _ => kept[&id].clone(),
                })
                .collect();
            assert_eq!(Edge::from_tiles(next as u64, partial), Some(edge.clone()), "{next}");
        }
        assert_eq!(edge.root(), mth(&all[..next]));
        assert_eq!(kept.iter().filter(|(id, _)| id.level == 0).count(), next / 256);
        for (id, hashes) in &kept {
            let span = 256_usize.pow(id.level);
            let first = usize::try_from(id.n).unwrap() * 256 * span;
            for (at, hash) in hashes.iter().enumerate() {
                assert_eq!(*hash, mth(&all[first + at * span..][..span]));
            }
        }
        assert_eq!(Edge::from_tiles(3, vec![leaves(2)]), None);
        assert_eq!(Edge::from_tiles(3, vec![leaves(3), leaves(1)]), None);
    }
}
