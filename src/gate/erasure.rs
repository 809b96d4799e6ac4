//! Erasing an end user: who is meant, whether a legal hold keeps what is theirs, and the destruction of
//! their keys. Not how values are sealed (`vault`), nor the removal of records whose time is over.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    Gate, GateError, Vault,
    holds::{Hold, holds},
};
use crate::{
    domain::{Digest, EndUser, KeyName, Seq, TenantId},
    ledger::{DespiteHold, canonical},
    store::Destruction,
};

/// How long a record may be on its way into the ledger, and some more.
pub(super) const UNDER_WAY: SignedDuration = SignedDuration::from_secs(3);
/// How many values are read at once, and named by one record.
pub(super) const AT_ONCE: usize = 5_000;
/// How often holds are looked at again because one was set, changed or lifted meanwhile.
const ATTEMPTS: usize = 5;

/// Who is to be erased, and who says so.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// The officer's API key.
    pub officer: KeyName,
    /// The tenant whose apps named the end user.
    pub tenant: TenantId,
    /// The end user, as the officer wrote them.
    pub end_user: String,
    /// Why legal holds on their records do not keep them.
    pub despite_hold: Option<String>,
}

/// What an erasure came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many values were destroyed.
    pub values: u64,
    /// The records that say so.
    pub records: Vec<Seq>,
}

impl Gate {
    /// Destroys everything by which the ledger could be traced to a person. Takes some seconds: what
    /// is under way is written first.
    ///
    /// # Errors
    /// When nothing is kept of such a person, or a legal hold keeps it. When it cannot be destroyed, or
    /// not be recorded; it is then finished by itself, or by asking again.
    pub async fn erase(&self, erasure: &Erasure) -> Result<Erased, GateError> {
        let Some(vault) = &self.vault else { return Err(GateError::NoSuchPerson) };
        // What cannot be recorded is not destroyed.
        self.sequencer.standing()?;
        let subjects = subjects(vault, &erasure.tenant, &erasure.end_user);
        let keys = self.store.keys_of(&subjects).await?;
        if keys.is_empty() {
            return Err(GateError::NoSuchPerson);
        }
        // What an earlier request has destroyed and not yet recorded is finished, whatever holds say now.
        let before = self.store.destroyed_keys(Some(&subjects), Timestamp::MAX).await?;
        let is_living = |key: &Uuid| before.iter().all(|destroyed| destroyed.id != *key);
        let living: Vec<Uuid> = keys.into_iter().filter(is_living).collect();
        if !living.is_empty() {
            self.destroy(erasure, subjects.clone(), &living).await?;
        }
        let destroyed = self.store.destroyed_keys(Some(&subjects), Timestamp::MAX).await?;
        if !destroyed.is_empty() {
            tokio::time::sleep(UNDER_WAY.unsigned_abs()).await;
        }
        let mut erased = Erased::default();
        for key in &destroyed {
            self.forget(key, &mut erased).await?;
        }
        Ok(erased)
    }

    /// Destroys `keys`, unless a hold keeps one of the records whose values they seal. A hold that is set
    /// while this looks is looked at: the store destroys nothing if one was recorded since.
    async fn destroy(
        &self,
        erasure: &Erasure,
        subjects: Vec<Digest>,
        keys: &[Uuid],
    ) -> Result<(), GateError> {
        for _ in 0..ATTEMPTS {
            let as_of = self.store.head().await?.map_or(Seq::new(0), |head| head.next);
            let despite = match (self.held(keys).await?, &erasure.despite_hold) {
                (held, _) if held.is_empty() => None,
                (held, None) => return Err(GateError::Held(held)),
                (holds, Some(reason)) => Some(DespiteHold { holds, reason: reason.clone() }),
            };
            let despite = despite.as_ref().map(canonical::to_vec).transpose()?;
            let destruction = Destruction {
                subjects: subjects.clone(),
                at: self.store.now().await?,
                by: erasure.officer.as_str().to_owned(),
                as_of,
                despite: despite.and_then(|json| String::from_utf8(json).ok()),
            };
            if self.store.destroy_keys(&destruction).await? {
                return Ok(());
            }
        }
        Err(GateError::LedgerUnavailable)
    }

    /// The names of the holds that keep a record whose values one of these keys seals.
    async fn held(&self, keys: &[Uuid]) -> Result<Vec<String>, GateError> {
        let holds = holds(&*self.store).await?;
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = Vec::new();
        for key in keys {
            let mut after = None;
            loop {
                let found = self.store.values_under(*key, after, AT_ONCE).await?;
                let Some(last) = found.last() else { break };
                after = Some(*last);
                values.extend(found);
            }
        }
        values.sort_unstable();
        // One record is enough for a hold: those that keep none so far go on.
        let (mut held, mut others) = (Vec::new(), holds);
        for some in values.chunks(AT_ONCE) {
            let queries: Vec<_> = others.values().map(Hold::query).collect();
            let mut kept = self.store.matching(&queries, some).await?.into_iter();
            others.retain(|name, _| {
                let keeps_one = kept.next().is_some_and(|kept| !kept.is_empty());
                if keeps_one {
                    held.push(name.clone());
                }
                !keeps_one
            });
            if others.is_empty() {
                break;
            }
        }
        held.sort_unstable();
        Ok(held)
    }
}

/// How the database may know the person whom `given` names: in the one form that names have, and in
/// those under which versions before this one sealed them.
fn subjects(vault: &Vault, tenant: &TenantId, given: &str) -> Vec<Digest> {
    let form = EndUser::parse(given).ok();
    let mut names = EndUser::former_forms(given);
    names.extend(form.map(|user| user.as_str().to_owned()));
    let mut subjects: Vec<_> =
        names.iter().map(|name| vault.master.subject(tenant, name)).collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}
