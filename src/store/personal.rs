//! Values that identify persons, sealed, beside the ledger that commits to them. What they say, the
//! store cannot know.

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::{SealedValue, StoreError};
use crate::domain::{Digest, Seq};

/// The key under which one person's values are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectKey {
    /// Its number, which says nothing of the person.
    pub id: Uuid,
    /// The key under the master key.
    pub wrapped: Vec<u8>,
}

/// What is kept of a record's committed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptValue {
    /// The value, and its key; `None` when that was destroyed and the value is about to follow.
    Sealed(SealedValue, Option<Vec<u8>>),
    /// It was erased, as this record says.
    Erased(Seq),
}

/// A key whose values have not all gone yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestroyedKey {
    /// Its number.
    pub id: Uuid,
    /// The API key that asked for it.
    pub by: String,
    /// Legal holds recorded before this position were looked at; `None` where a version before this one
    /// destroyed it.
    pub as_of: Option<Seq>,
    /// Which holds it went past, and why: what the record will say, in JSON.
    pub despite: Option<String>,
}

/// Whose keys are to be destroyed, and with which right.
#[derive(Clone, Debug)]
pub struct Destruction {
    /// Whose: one person may have had a key under each of several forms of their name.
    pub subjects: Vec<Digest>,
    /// When.
    pub at: Timestamp,
    /// The API key that asks for it.
    pub by: String,
    /// Legal holds recorded before this position were looked at.
    pub as_of: Seq,
    /// Which of them it goes past, and why, in JSON.
    pub despite: Option<String>,
}

/// Keeps sealed values, and destroys them.
#[async_trait]
pub trait PersonalStore {
    /// What only the right master key makes: as it was given first, or is given now.
    async fn master_key(&self, proof: Option<Digest>) -> Result<Option<Digest>, StoreError>;

    /// A person's key, while it is not destroyed.
    async fn subject_key(&self, subject: Digest) -> Result<Option<SubjectKey>, StoreError>;

    /// Keeps a person's first key; one that is there already stays.
    async fn keep_subject_key(&self, subject: Digest, key: &SubjectKey) -> Result<(), StoreError>;

    /// What is kept of the value to which the record at `seq` commits.
    async fn kept_value(&self, seq: Seq) -> Result<Option<KeptValue>, StoreError>;

    /// The keys of these subjects, living or destroyed, whose values have not all gone.
    async fn keys_of(&self, subjects: &[Digest]) -> Result<Vec<Uuid>, StoreError>;

    /// Destroys keys: nothing that is sealed under them can be read from now on. In one transaction, under
    /// the head's lock, and only while no legal hold has been recorded at `as_of` or behind it; gives
    /// whether it was so.
    async fn destroy_keys(&self, destruction: &Destruction) -> Result<bool, StoreError>;

    /// The destroyed keys of these subjects, or of all whose key was destroyed before an instant.
    async fn destroyed_keys(
        &self,
        subjects: Option<&[Digest]>,
        before: Timestamp,
    ) -> Result<Vec<DestroyedKey>, StoreError>;

    /// The first records behind `after`, at most `limit`, whose values are sealed under a key.
    async fn values_under(
        &self,
        key: Uuid,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError>;

    /// Deletes values of a key; the record `erasure` says that they are gone.
    async fn forget_values(
        &self,
        key: Uuid,
        values: &[Seq],
        erasure: Seq,
    ) -> Result<(), StoreError>;

    /// Deletes what was left of a destroyed key.
    async fn forget_key(&self, key: Uuid) -> Result<(), StoreError>;
}
