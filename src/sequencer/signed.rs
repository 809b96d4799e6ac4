//! What this log's keys have signed: whether a head's tree is, and whether a row of the tables is an entry of
//! one. Who writes to the tables can move the head along and put an entry there; what this process signs or
//! does next would vouch for it.

use super::{continuation::is_in_tree, mark_file::signed};
use crate::{
    domain::Seq,
    ledger::{Checkpoint, Edge, Entry, Kind, Origin, Signer, VerifierKey, leaf_of},
    store::{Found, Head, MarkError, Store, StoreError, Stored},
};

/// Refuses a head whose tree none of this process's keys has signed.
pub(super) fn check(
    signer: &Signer,
    head: &Head,
    edge: &Edge,
    found: &Found,
) -> Result<(), MarkError> {
    let size = head.next.get();
    let text = found.checkpoint.as_ref();
    let tree = text.and_then(|text| tree_of(text, signer.origin(), signer.verifiers()));
    match tree.filter(|tree| tree.size == size && tree.root == edge.root()) {
        Some(_) => Ok(()),
        None => Err(MarkError::Unsigned { size }),
    }
}

/// The tree of the store's checkpoint, if one of `keys` has signed it for the log `origin`.
///
/// # Errors
/// When the store fails.
pub async fn signed_tree(
    store: &dyn Store,
    origin: &Origin,
    keys: &[VerifierKey],
) -> Result<Option<Checkpoint>, StoreError> {
    let text = store.checkpoint().await?;
    Ok(text.and_then(|text| tree_of(&text, origin, keys)))
}

/// Refuses a log with more entries than a tree that one of this log's keys has signed.
///
/// # Errors
/// When it has more, or the store fails.
pub async fn check_end(store: &dyn Store, signer: &Signer) -> Result<(), StoreError> {
    // Asked for before the checkpoint is, which may be of a later commit and is of no earlier one.
    let size = store.head().await?.map_or(Seq::new(0), |head| head.next).get();
    match signed_tree(store, signer.origin(), signer.verifiers()).await? {
        Some(tree) if tree.size >= size => Ok(()),
        None if size == 0 => Ok(()),
        _ => Err(MarkError::Unsigned { size }.into()),
    }
}

/// What a row says, if it is an entry of this kind at its place in `tree`.
///
/// # Errors
/// When the store fails.
pub async fn proven<'a>(
    store: &dyn Store,
    tree: &Checkpoint,
    stored: &'a Stored,
    kind: &Kind,
) -> Result<Option<Entry<'a>>, StoreError> {
    let Ok(entry) = Entry::parse(&stored.entry) else { return Ok(None) };
    if entry.kind != *kind || entry.seq != stored.seq || entry.log != tree.origin {
        return Ok(None);
    }
    // The leaf in its column is what somebody wrote there.
    let leaf = leaf_of(&stored.entry);
    Ok(is_in_tree(store, tree, stored.seq, leaf).await?.then_some(entry))
}

fn tree_of(text: &str, origin: &Origin, keys: &[VerifierKey]) -> Option<Checkpoint> {
    let (tree, _) = signed(text, keys).ok()?;
    (tree.origin == *origin).then_some(tree)
}
