//! Whether the snapshot that the store calls active is one that this log has recorded. The tables that
//! say so are an index, which anybody may write who may write to the database; the tree is signed.

use super::GateError;
use crate::{
    domain::{Digest, Revision, Seq},
    ledger::{ActivationBody, Entry, Kind, Signer, leaf_of},
    sequencer::{is_in_tree, signed_tree},
    store::{Active, RecordQuery, Store, StoreError},
};

/// How often the tables are read again because another process is activating something.
const LOOKS: usize = 5;
/// How long to wait in between.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Why an active snapshot is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unconfirmed {
    /// The head names another revision than the table of activations.
    #[error("the head of the log names revision {head}, the table of activations {active}")]
    OtherRevision {
        /// What the head names.
        head: u64,
        /// What the table names.
        active: u64,
    },
    /// The active snapshot is older than the one before.
    #[error("the store names revision {active}, after revision {known} was active")]
    WentBack {
        /// What the store names.
        active: u64,
        /// What this process has confirmed.
        known: u64,
    },
    /// There is no such record.
    #[error("record {0} is not the activation of this snapshot")]
    NoActivation(u64),
    /// The tree is not signed by this log's key.
    #[error("the store's checkpoint is not signed by this log's key")]
    Unsigned,
    /// The head is not the end of the signed tree.
    #[error("the head of the log says {0} entries, its signed checkpoint {1}")]
    HeadBeyondTree(u64, u64),
    /// The record is not in the signed tree.
    #[error("record {0} is not in the signed tree")]
    NotInTree(u64),
    /// The log has a later activation.
    #[error(
        "record {later} activated another snapshot after record {active}, which the tables call active"
    )]
    Superseded {
        /// The activation that the store names.
        active: u64,
        /// The later one.
        later: u64,
    },
}

/// Why there is no answer: a store that fails, or one that is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfirmationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
}

impl From<ConfirmationError> for GateError {
    fn from(error: ConfirmationError) -> Self {
        match error {
            ConfirmationError::Store(error) => error.into(),
            ConfirmationError::Unconfirmed(fault) => {
                tracing::error!(%fault, "a record of the store was not signed by this log");
                Self::Corrupt
            }
        }
    }
}

/// The snapshot that the store calls active, if its tables agree on one. It may be forged.
pub(super) async fn named(store: &dyn Store) -> Result<Option<Active>, ConfirmationError> {
    let mut looks = 0;
    loop {
        let active = store.active().await?;
        let head = store.head().await?.map_or(Revision(0), |head| head.revision);
        let revision = active.map_or(Revision(0), |active| active.snapshot.revision);
        if head == revision {
            return Ok(active);
        }
        looks += 1;
        if looks == LOOKS {
            return Err(Unconfirmed::OtherRevision { head: head.0, active: revision.0 }.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether `active` was activated by a record of the signed tree, which names exactly its digests.
pub(super) async fn confirm(
    store: &dyn Store,
    signer: &Signer,
    active: &Active,
) -> Result<(), ConfirmationError> {
    let seq = active.seq.get();
    let stored = store.record(active.seq).await?.ok_or(Unconfirmed::NoActivation(seq))?;
    // The leaf in its column is what somebody wrote there.
    let leaf = leaf_of(&stored.entry);
    let entry = Entry::parse(&stored.entry).map_err(|_| Unconfirmed::NoActivation(seq))?;
    let body: Option<ActivationBody> = serde_json::from_str(entry.body.get()).ok();
    let is_its_own = entry.kind == Kind::BundleActivated
        && entry.seq == active.seq
        && entry.log == *signer.origin()
        && body.is_some_and(|body| body.snapshot == active.snapshot);
    if !is_its_own {
        return Err(Unconfirmed::NoActivation(seq).into());
    }
    in_signed_tree(store, signer, active.seq, leaf).await?;
    // The tables may have been set back to an activation that was one once.
    let later = RecordQuery {
        kind: Some(Kind::BundleActivated),
        after: Some(active.seq),
        limit: 1,
        ..RecordQuery::default()
    };
    let Some(later) = store.query(&later).await?.pop() else { return Ok(()) };
    // Or another process is activating it in this moment: the tables say so then.
    match named(store).await? {
        Some(now) if now.seq == active.seq => {
            Err(Unconfirmed::Superseded { active: seq, later: later.seq.get() }.into())
        }
        _ => Ok(()),
    }
}

/// Whether the entry with this leaf is in the tree that one of this process's own keys has signed.
pub(super) async fn in_signed_tree(
    store: &dyn Store,
    signer: &Signer,
    seq: Seq,
    leaf: Digest,
) -> Result<(), ConfirmationError> {
    let tree = signed_tree(store, signer.origin(), signer.verifiers()).await?;
    let tree = tree.ok_or(Unconfirmed::Unsigned)?;
    if is_in_tree(store, &tree, seq, leaf).await? {
        Ok(())
    } else {
        Err(Unconfirmed::NotInTree(seq.get()).into())
    }
}

/// Whether the log's head is the end of a tree that one of this process's own keys has signed.
pub(super) async fn check_head(
    store: &dyn Store,
    signer: &Signer,
) -> Result<(), ConfirmationError> {
    let mut looks = 0;
    loop {
        let Some(head) = store.head().await? else { return Ok(()) };
        let tree = signed_tree(store, signer.origin(), signer.verifiers()).await?;
        let tree = tree.ok_or(Unconfirmed::Unsigned)?;
        if tree.size == head.next.get() {
            return Ok(());
        }
        // An entry may have been written between the two.
        looks += 1;
        if looks == LOOKS {
            return Err(Unconfirmed::HeadBeyondTree(head.next.get(), tree.size).into());
        }
    }
}
