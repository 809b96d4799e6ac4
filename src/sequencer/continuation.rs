//! Whether a tree goes on from another one: by the head alone, by the edge under the head's lock, or
//! proven from the tiles. Not where the earlier one is kept ([`super::mark`]).

use crate::{
    domain::{Digest, Seq},
    ledger::{Checkpoint, Edge, Plan, is_consistent, root_of_inclusion},
    store::{Found, Head, MarkError, Store, StoreError},
};

/// The last tree that is known to have been signed and committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many entries.
    pub(super) size: Seq,
    /// The leaf of the last one, which is chained to all before it.
    pub(super) leaf: Digest,
    /// The root over all of them.
    pub(super) root: Digest,
}

impl Seen {
    /// The entry that shows whether a log goes on from here.
    pub(super) fn last(self) -> Option<Seq> {
        self.size.get().checked_sub(1).map(Seq::new)
    }

    /// Whether the log with this head, whose tree ends in `edge`, goes on from here.
    pub(super) fn check(self, head: &Head, edge: &Edge, found: &Found) -> Result<(), Halt> {
        self.check_head(head)?;
        let same = if head.next == self.size {
            edge.root() == self.root
        } else {
            found.leaf == Some(self.leaf)
        };
        if same { Ok(()) } else { Err(Halt::Forked { mark: self.size.get() }) }
    }

    /// What the head alone tells of that.
    pub(super) fn check_head(self, head: &Head) -> Result<(), Halt> {
        let mark = self.size.get();
        if head.next < self.size {
            return Err(Halt::RolledBack { size: head.next.get(), mark });
        }
        if head.next == self.size && head.leaf != self.leaf {
            return Err(Halt::Forked { mark });
        }
        Ok(())
    }
}

/// Why nothing is signed any more, until an operator has acted and the process was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// Entries are gone.
    RolledBack {
        /// How many there are.
        size: u64,
        /// How many have been signed.
        mark: u64,
    },
    /// Entries are others than before.
    Forked {
        /// How many have been signed.
        mark: u64,
    },
}

impl From<Halt> for StoreError {
    fn from(halt: Halt) -> Self {
        Self::Mark(match halt {
            Halt::RolledBack { size, mark } => MarkError::RolledBack { size, mark },
            Halt::Forked { mark } => MarkError::Forked { mark },
        })
    }
}

/// The root over the first `size` leaves of the log in `store`, if it has so many.
///
/// # Errors
/// When the store fails.
pub async fn root_at(store: &dyn Store, size: u64) -> Result<Option<Digest>, StoreError> {
    if size == 0 {
        return Ok(Some(crate::ledger::empty_root()));
    }
    let plan = Plan::root(size);
    let ids: Vec<_> = plan.tiles().into_iter().collect();
    let tiles = store.tiles(&ids).await?.into_iter().map(|tile| (tile.id, tile.hashes));
    Ok(plan.make(&tiles.collect()).and_then(|roots| roots.first().copied()))
}

/// Whether the entry at `seq` with this leaf is in the tree of `checkpoint`, proven from the tiles in `store`.
///
/// # Errors
/// When the store fails.
pub async fn is_in_tree(
    store: &dyn Store,
    checkpoint: &Checkpoint,
    seq: Seq,
    leaf: Digest,
) -> Result<bool, StoreError> {
    let (seq, size) = (seq.get(), checkpoint.size);
    let Some(plan) = Plan::inclusion(seq, size) else { return Ok(false) };
    let ids: Vec<_> = plan.tiles().into_iter().collect();
    let tiles = store.tiles(&ids).await?.into_iter().map(|tile| (tile.id, tile.hashes));
    let proof = plan.make(&tiles.collect());
    let root = proof.and_then(|proof| root_of_inclusion(leaf, seq, size, &proof));
    Ok(root == Some(checkpoint.root))
}

/// The tree of `checkpoint`, proven from the tiles in `store`: that it is the one before with more behind
/// it, and that it ends with the entry that is there. `None` when that cannot be proven.
pub(super) async fn continuation(
    store: &dyn Store,
    before: Option<Seen>,
    checkpoint: &Checkpoint,
) -> Result<Option<Seen>, StoreError> {
    let Some(last) = checkpoint.size.checked_sub(1) else { return Ok(None) };
    let Some(stored) = store.record(Seq::new(last)).await? else { return Ok(None) };
    let old = before.map_or((0, crate::ledger::empty_root()), |seen| (seen.size.get(), seen.root));
    let new = (checkpoint.size, checkpoint.root);
    let plans = (Plan::consistency(old.0, new.0), Plan::inclusion(last, new.0));
    let (Some(consistency), Some(inclusion)) = plans else { return Ok(None) };
    let ids: Vec<_> = consistency.tiles().union(&inclusion.tiles()).copied().collect();
    let tiles = store.tiles(&ids).await?.into_iter().map(|tile| (tile.id, tile.hashes));
    let tiles = tiles.collect();
    let proofs = (consistency.make(&tiles), inclusion.make(&tiles));
    let (Some(consistency), Some(inclusion)) = proofs else { return Ok(None) };
    let holds = is_consistent(old, new, &consistency)
        && root_of_inclusion(stored.leaf, last, new.0, &inclusion) == Some(new.1);
    Ok(holds.then_some(Seen { size: Seq::new(new.0), leaf: stored.leaf, root: new.1 }))
}
