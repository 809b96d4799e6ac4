//! Proofs beside two implementations that nobody here wrote, and altered proofs.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;

use super::*;
use crate::ledger::{Edge, leaf_of, partial_tiles};

/// A tree in memory, with the tiles that a store would keep.
struct Grown {
    leaves: Vec<Digest>,
    tiles: Tiles,
    edge: Edge,
}

impl Grown {
    fn to(size: u64) -> Self {
        let mut grown = Self { leaves: Vec::new(), tiles: Tiles::new(), edge: Edge::default() };
        grown.extend(size);
        grown
    }

    fn extend(&mut self, by: u64) {
        let from = self.leaves.len() as u64;
        self.leaves.extend((from..from + by).map(|n| leaf_of(&n.to_be_bytes())));
        let new = self.leaves.iter().skip(usize::try_from(from).unwrap()).copied();
        let tiles = self.edge.extend(new);
        self.tiles.extend(tiles.into_iter().map(|tile| (tile.id, tile.hashes)));
        let size = self.edge.size();
        if let Some((id, width)) =
            partial_tiles(size).find(|(id, width)| id.level == 0 && *width > 0)
        {
            let first = self.leaves.len() - width;
            self.tiles.insert(id, self.leaves[first..].to_vec());
        }
    }

    fn prove(&self, plan: Option<Plan>) -> Vec<Digest> {
        plan.unwrap().make(&self.tiles).unwrap()
    }
}

fn bytes(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Some places in `0..n`: the ends, the middle, and others.
fn some_of(n: u64) -> impl Iterator<Item = u64> {
    let places = [0, 1, n / 3, n / 2, n.saturating_sub(2), n.saturating_sub(1), n * 7 / 11];
    places.into_iter().filter(move |place| *place < n)
}

#[test]
fn proofs_are_those_of_another_implementation() {
    let (mut tree, mut other) = (Grown::to(0), MemoryBackedTree::<Sha256, _>::new());
    for size in 1_u64..=1_000 {
        tree.extend(1);
        other.push((size - 1).to_be_bytes());
        let root = tree.edge.root();
        for index in some_of(size) {
            let at = usize::try_from(index).unwrap();
            let proof = tree.prove(Plan::inclusion(index, size));
            assert_eq!(bytes(&proof), other.prove_inclusion(at).as_bytes(), "{index} of {size}");
            assert_eq!(root_of_inclusion(tree.leaves[at], index, size, &proof), Some(root));
        }
        for old in some_of(size).filter(|old| *old > 0) {
            let proof = tree.prove(Plan::consistency(old, size));
            let added = usize::try_from(size - old).unwrap();
            assert_eq!(bytes(&proof), other.prove_consistency(added).as_bytes(), "{old} to {size}");
            let old_root = tree.prove(Some(Plan::root(old)))[0];
            assert!(is_consistent((old, old_root), (size, root), &proof), "{old} to {size}");
        }
    }
}

/// Gives our tiles to the other implementation, which authenticates each against the root.
impl tlog_tiles::TileReader for Grown {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            let id = TileId { level: tile.level().into(), n: tile.level_index() };
            bytes(&self.tiles[&id][..tile.width() as usize])
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn another_implementation_reads_our_tiles() {
    let hash = |digest: &Digest| tlog_tiles::Hash(*digest.as_bytes());
    let mut tree = Grown::to(0);
    for grow_by in [1, 254, 1, 1, 255, 488, 69_000, 1_537] {
        tree.extend(grow_by);
        let size = tree.edge.size();
        let root = tree.edge.root();
        let reader = tlog_tiles::TileHashReader::new(size, hash(&root), &tree);
        for index in some_of(size) {
            let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
            let ours = tree.prove(Plan::inclusion(index, size));
            assert_eq!(ours.iter().map(hash).collect::<Vec<_>>(), proof, "{index} of {size}");
        }
        for old in some_of(size).filter(|old| *old > 0) {
            let ours = tree.prove(Plan::consistency(old, size));
            let theirs = ours.iter().map(hash).collect();
            let old_root = tree.prove(Some(Plan::root(old)))[0];
            tlog_tiles::check_tree(&theirs, size, hash(&root), old, hash(&old_root)).unwrap();
        }
    }
}

#[test]
fn a_proof_needs_few_tiles() {
    for (size, most) in [(200, 1), (70_000, 5), (10_000_000, 6), (1 << 40, 8)] {
        for index in some_of(size) {
            let tiles = Plan::inclusion(index, size).unwrap().tiles();
            assert!(tiles.len() <= most, "{index} of {size}: {tiles:?}");
        }
    }
}

#[test]
fn there_is_no_proof_of_what_cannot_be() {
    assert_eq!(Plan::inclusion(0, 0), None);
    assert_eq!(Plan::inclusion(7, 7), None);
    assert_eq!(Plan::consistency(8, 7), None);
    let tree = Grown::to(300);
    let mut narrow = tree.tiles.clone();
    narrow.get_mut(&TileId { level: 0, n: 1 }).unwrap().pop();
    assert_eq!(Plan::inclusion(0, 300).unwrap().make(&narrow), None);
    assert_eq!(Plan::inclusion(0, 300).unwrap().make(&Tiles::new()), None);
}

proptest! {
    #[test]
    fn an_altered_proof_never_holds(
        size in 2_u64..600,
        index in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        bit in 0_usize..256,
        change in 0..6,
    ) {
        let tree = Grown::to(size);
        let root = tree.edge.root();
        let index = index.index(usize::try_from(size).unwrap()) as u64;
        let leaf = tree.leaves[usize::try_from(index).unwrap()];
        let proof = tree.prove(Plan::inclusion(index, size));
        let mut altered = proof.clone();
        let at = place.index(proof.len());
        match change {
            0 => {
                let mut hash = *altered[at].as_bytes();
                hash[bit / 8] ^= 1 << (bit % 8);
                altered[at] = Digest::from_bytes(hash);
            }
            1 => drop(altered.remove(at)),
            2 => altered.insert(at, altered[at]),
            3 => altered.push(root),
            4 => altered.reverse(),
            _ => altered.rotate_left(1),
        }
        prop_assume!(altered != proof);
        prop_assert_ne!(root_of_inclusion(leaf, index, size, &altered), Some(root));
        // At another place, or as another leaf, the same proof shows nothing.
        prop_assert_ne!(root_of_inclusion(root, index, size, &proof), Some(root));
        for other in [index ^ 1, index + 1, size, u64::MAX] {
            if other != index {
                prop_assert_ne!(root_of_inclusion(leaf, other, size, &proof), Some(root));
            }
        }
    }

    #[test]
    fn an_altered_consistency_proof_never_holds(
        new in 2_u64..600,
        old in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        bit in 0_usize..256,
        change in 0..5,
    ) {
        let tree = Grown::to(new);
        let old = 1 + old.index(usize::try_from(new - 1).unwrap()) as u64;
        let roots = ((old, tree.prove(Some(Plan::root(old)))[0]), (new, tree.edge.root()));
        let proof = tree.prove(Plan::consistency(old, new));
        prop_assert!(is_consistent(roots.0, roots.1, &proof));
        let mut altered = proof.clone();
        let at = place.index(proof.len());
        match change {
            0 => {
                let mut hash = *altered[at].as_bytes();
                hash[bit / 8] ^= 1 << (bit % 8);
                altered[at] = Digest::from_bytes(hash);
            }
            1 => drop(altered.remove(at)),
            2 => altered.insert(at, altered[at]),
            3 => altered.push(roots.1.1),
            _ => altered.reverse(),
        }
        prop_assume!(altered != proof);
        prop_assert!(!is_consistent(roots.0, roots.1, &altered));
        prop_assert!(!is_consistent((old, roots.1.1), roots.1, &proof));
        prop_assert!(!is_consistent(roots.1, roots.0, &proof));
        prop_assert!(old + 1 == new || !is_consistent((old + 1, roots.0.1), roots.1, &proof));
    }
}
