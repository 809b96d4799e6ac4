//! Whether a log that others have gone on with is one that its keys have signed. Who writes to the tables
//! can move the head along and put an entry there; what this process signs next would vouch for it.

use crate::{
    ledger::{Checkpoint, Edge, Note, Signer},
    store::{Found, Head, MarkError},
};

/// Refuses a head whose tree none of this process's keys has signed.
pub(super) fn check(
    signer: &Signer,
    head: &Head,
    edge: &Edge,
    found: &Found,
) -> Result<(), MarkError> {
    let size = head.next.get();
    let is_signed = |text: &String| {
        let note = Note::parse(text).ok()?;
        note.verify(signer.verifiers()).ok()?;
        let tree = Checkpoint::read(&note).ok()?;
        let same = tree.origin == *signer.origin() && tree.size == size && tree.root == edge.root();
        same.then_some(())
    };
    match found.checkpoint.as_ref().and_then(is_signed) {
        Some(()) => Ok(()),
        None => Err(MarkError::Unsigned { size }),
    }
}
