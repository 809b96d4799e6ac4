//! Proofs: one that is made holds, and with any bit of it altered does not; whatever is given as one
//! is judged without a panic.
#![no_main]

use std::sync::LazyLock;

use lexgate::{
    domain::Digest,
    ledger::{Edge, Plan, Tiles, is_consistent, leaf_of, root_of_inclusion},
};
use libfuzzer_sys::fuzz_target;

/// How many leaves the tree has: enough for three levels of tiles.
const LEAVES: u64 = 70_000;

/// A tree. The beginnings of it are the trees of every smaller size.
struct Grown {
    leaves: Vec<Digest>,
    tiles: Tiles,
}

static TREE: LazyLock<Grown> = LazyLock::new(|| {
    let leaves: Vec<Digest> = (0..LEAVES).map(|n| leaf_of(&n.to_be_bytes())).collect();
    let mut edge = Edge::default();
    let mut tiles = edge.extend(leaves.iter().copied());
    tiles.extend(edge.partial());
    let tiles = tiles.into_iter().map(|tile| (tile.id, tile.hashes)).collect();
    Grown { leaves, tiles }
});

// Three numbers, and hashes: a position, a size, a bit; and what is given as a proof.
fuzz_target!(|bytes: &[u8]| {
    let Some((index, rest)) = number(bytes) else { return };
    let Some((size, rest)) = number(rest) else { return };
    let Some((bit, rest)) = number(rest) else { return };
    let (hashes, _) = rest.as_chunks::<32>();
    let hashes: Vec<Digest> = hashes.iter().copied().map(Digest::from_bytes).collect();
    given(index, size, &hashes);
    planned(index, size);
    made(index, size, bit);
});

/// The number in front, and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// Anything may be given as a proof.
fn given(index: u64, size: u64, hashes: &[Digest]) {
    let [one, other, proof @ ..] = hashes else { return };
    if root_of_inclusion(*one, index, size, proof).is_some() {
        assert!(index < size && proof.len() < 65);
    }
    if is_consistent((index, *one), (size, *other), proof) {
        assert!(index <= size && proof.len() < 66);
    }
}

/// A proof is made from the tiles that it asks for, whatever others there are.
fn planned(index: u64, size: u64) {
    assert_eq!(Plan::inclusion(index, size).is_some(), index < size);
    assert_eq!(Plan::consistency(index, size).is_some(), index <= size);
    for plan in [Plan::inclusion(index, size), Plan::consistency(index, size)].into_iter().flatten()
    {
        let found = |id| Some((id, TREE.tiles.get(&id)?.clone()));
        let wanted: Tiles = plan.tiles().into_iter().filter_map(found).collect();
        let made = plan.make(&wanted);
        assert!(made.is_some() || size > LEAVES);
        assert_eq!(made, plan.make(&TREE.tiles));
    }
}

/// Both proofs about a place in a tree that there is.
fn made(index: u64, size: u64, bit: u64) {
    let size = 1 + size % LEAVES;
    let index = index % size;
    let make = |plan: Option<Plan>| {
        plan.and_then(|plan| plan.make(&TREE.tiles)).expect("every tile is there")
    };
    let root_of = |size| make(Some(Plan::root(size)))[0];
    let root = root_of(size);

    let mut hashes = vec![TREE.leaves[index as usize]];
    hashes.extend(make(Plan::inclusion(index, size)));
    holds_as_it_is(&hashes, bit, |hashes| match hashes {
        [leaf, proof @ ..] => root_of_inclusion(*leaf, index, size, proof) == Some(root),
        [] => false,
    });

    let old = index + 1;
    let mut hashes = vec![root_of(old), root];
    hashes.extend(make(Plan::consistency(old, size)));
    holds_as_it_is(&hashes, bit, |hashes| match hashes {
        [was, is, proof @ ..] => is_consistent((old, *was), (size, *is), proof),
        _ => false,
    });
}

/// `hold` accepts `hashes`, and neither with one bit altered nor with a hash more or less.
fn holds_as_it_is(hashes: &[Digest], bit: u64, hold: impl Fn(&[Digest]) -> bool) {
    assert!(hold(hashes));
    let bit = (bit % (256 * hashes.len() as u64)) as usize;
    let mut altered = hashes.to_vec();
    let mut hash = *altered[bit / 256].as_bytes();
    hash[bit % 256 / 8] ^= 1 << (bit % 8);
    altered[bit / 256] = Digest::from_bytes(hash);
    assert!(!hold(&altered));
    let mut longer = hashes.to_vec();
    longer.push(hashes[bit / 256]);
    assert!(!hold(&longer));
    assert!(!hold(&hashes[..hashes.len() - 1]));
}
