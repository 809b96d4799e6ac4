//! Proofs that somebody has altered: out of trees that are made here, without a log.

use std::sync::OnceLock;

use lexgate::{
    domain::Digest,
    ledger::{Edge, Plan, Tiles, is_consistent, leaf_of, root_of_inclusion},
};
use proptest::{prelude::*, sample::Index};

/// How many leaves the largest tree has.
const LARGEST: usize = 2_000;

/// A tree, its tiles, and the roots of all trees that it has grown from.
struct Grown {
    leaves: Vec<Digest>,
    tiles: Tiles,
    roots: Vec<Digest>,
}

impl Grown {
    fn tree() -> &'static Self {
        static TREE: OnceLock<Grown> = OnceLock::new();
        TREE.get_or_init(|| {
            let leaves = (0..LARGEST).map(|n| leaf_of(&n.to_be_bytes())).collect::<Vec<_>>();
            let (mut edge, mut tiles) = (Edge::default(), Vec::new());
            let mut roots = vec![edge.root()];
            for leaf in &leaves {
                tiles.extend(edge.extend([*leaf]));
                roots.push(edge.root());
            }
            tiles.extend(edge.partial());
            let tiles = tiles.into_iter().map(|tile| (tile.id, tile.hashes)).collect();
            Self { leaves, tiles, roots }
        })
    }

    fn prove(&self, plan: Option<Plan>) -> Vec<Digest> {
        plan.unwrap().make(&self.tiles).unwrap()
    }
}

/// The proof with one bit turned round; `None` of a proof without hashes.
fn turned(proof: &[Digest], bit: Index) -> Option<Vec<Digest>> {
    let mut turned = proof.to_vec();
    let bit = (!proof.is_empty()).then(|| bit.index(256 * proof.len()))?;
    let mut hash = *turned[bit / 256].as_bytes();
    hash[bit % 256 / 8] ^= 1 << (bit % 8);
    turned[bit / 256] = Digest::from_bytes(hash);
    Some(turned)
}

// A size is no part of any hash: a proof can hold for another size under the same root. It is the
// checkpoint that binds the two, so another size comes with its own root here.
proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_inclusion_proof_shows_one_entry_of_one_tree(
        size in 1..=LARGEST,
        other in 1..=LARGEST,
        index in any::<Index>(),
        elsewhere in any::<Index>(),
        bit in any::<Index>(),
    ) {
        let (tree, index) = (Grown::tree(), index.index(size));
        let proof = tree.prove(Plan::inclusion(index as u64, size as u64));
        let shown = |at: usize, size: usize, proof: &[Digest]| {
            root_of_inclusion(tree.leaves[index], at as u64, size as u64, proof)
        };
        prop_assert_eq!(shown(index, size, &proof), Some(tree.roots[size]));
        if let Some(turned) = turned(&proof, bit) {
            prop_assert_ne!(shown(index, size, &turned), Some(tree.roots[size]));
        }
        let places = [elsewhere.index(size), index ^ 1, index + 1, size];
        for at in places.into_iter().filter(|at| *at != index) {
            prop_assert_ne!(shown(at, size, &proof), Some(tree.roots[size]));
        }
        for other in [other, size - 1, size + 1].into_iter().filter(|other| *other != size) {
            let Some(root) = tree.roots.get(other) else { continue };
            prop_assert_ne!(shown(index, other, &proof), Some(*root));
        }
    }

    #[test]
    fn a_consistency_proof_joins_two_trees_and_no_others(
        new in 2..=LARGEST,
        old in any::<Index>(),
        other in 1..=LARGEST,
        bit in any::<Index>(),
    ) {
        let (tree, old) = (Grown::tree(), 1 + old.index(new - 1));
        let proof = tree.prove(Plan::consistency(old as u64, new as u64));
        let holds = |old: usize, new: usize, proof: &[Digest]| {
            let [old, new] = [old, new].map(|size| (size as u64, tree.roots[size]));
            is_consistent(old, new, proof)
        };
        prop_assert!(holds(old, new, &proof));
        let turned = turned(&proof, bit).unwrap();
        prop_assert!(!holds(old, new, &turned));
        let sizes = [other, old - 1, old + 1, new - 1, new + 1];
        for other in sizes.into_iter().filter(|size| *size <= LARGEST) {
            prop_assert!(other == old || !holds(other, new, &proof), "from {other}");
            prop_assert!(other == new || !holds(old, other, &proof), "to {other}");
        }
    }
}
