//! Values that identify persons: sealed with AES-256-GCM under a key of that person's own, which is
//! itself sealed under the master key. The ledger holds only commitments to them; who destroys the
//! key erases the person. Not what calls said (`content`), which is sealed under the same keys.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use uuid::Uuid;

use super::{
    Gate, GateError,
    content::{OpenedContent, committed},
    decide::refused,
    erasure::{AT_ONCE, Erased, UNDER_WAY},
};
use crate::{
    domain::{Digest, EndUser, Seq, TenantId},
    ledger::{Commitment, DespiteHold, Entry, ErasureBody, Kind, canonical, key_term},
    sequencer::{Draft, SubmitError},
    store::{Claim, DestroyedKey, KeptValue, RecordQuery, SealedValue, Store, SubjectKey},
};

/// The bytes of a salt, and of a key.
pub(super) const WIDTH: usize = 32;

/// The key above all other keys. It lies in a file, never in the database.
pub struct MasterKey {
    /// Hides who a person is from the database.
    naming: hmac::Key,
    wrapping: LessSafeKey,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// A text that is no master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want 64 hexadecimal digits, as `lexgate init` writes them")]
pub struct InvalidMasterKey;

impl MasterKey {
    /// A new key's text.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn generate() -> Result<String, GateError> {
        let bytes = random::<WIDTH>(&SystemRandom::new())?;
        Ok(format!("{}\n", Digest::from_bytes(bytes).hex()))
    }

    /// Reads a key's text.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = Digest::from_hex(text.trim_end()).ok_or(InvalidMasterKey)?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes.as_bytes());
        let derived = |label: &[u8]| hmac::sign(&root, label);
        let naming = hmac::Key::new(hmac::HMAC_SHA256, derived(b"lexgate/subject/v1").as_ref());
        let wrapping = aead(derived(b"lexgate/wrap/v1").as_ref()).ok_or(InvalidMasterKey)?;
        Ok(Self { naming, wrapping })
    }

    /// What only this key makes.
    fn proof(&self) -> Digest {
        self.name(&[b"lexgate/master/v1"])
    }

    /// How the database knows a person.
    pub(super) fn subject(&self, tenant: &TenantId, user: &str) -> Digest {
        self.name(&[b"subject", tenant.as_str().as_bytes(), user.as_bytes()])
    }

    /// How the database knows a tenant, whose key seals what belongs to no person that a call names.
    pub(super) fn tenant(&self, tenant: &TenantId) -> Digest {
        self.name(&[b"tenant", tenant.as_str().as_bytes()])
    }

    /// A keyed hash of these texts.
    fn name(&self, parts: &[&[u8]]) -> Digest {
        let mut name = hmac::Context::with_key(&self.naming);
        for part in parts {
            name.update(part);
            name.update(&[0]);
        }
        let mut bytes = [0; WIDTH];
        bytes.copy_from_slice(name.sign().as_ref());
        Digest::from_bytes(bytes)
    }
}

/// Keeps values sealed in the store.
#[derive(Debug)]
pub struct Vault {
    pub(super) master: MasterKey,
    store: Arc<dyn Store>,
    random: SystemRandom,
    /// Keys that stay, by whose they are.
    pub(super) tenants: Mutex<HashMap<TenantId, ValueKey>>,
}

/// A key that seals values.
#[derive(Clone)]
pub(super) struct ValueKey {
    id: Uuid,
    key: Arc<LessSafeKey>,
}

impl fmt::Debug for ValueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueKey({})", self.id)
    }
}

impl ValueKey {
    /// A key of these bytes; `None` when they are none.
    fn new(id: Uuid, bytes: &[u8]) -> Option<Self> {
        Some(Self { id, key: Arc::new(aead(bytes)?) })
    }

    /// Seals `text` under a number that is used once.
    pub(super) fn seal(
        &self,
        text: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<SealedValue, GateError> {
        let sealed = encrypt(&self.key, text, self.id.as_bytes(), nonce)?;
        Ok(SealedValue { key: self.id, sealed })
    }
}

/// A value that is about to be committed to.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) commitment: Commitment,
    pub(super) value: Arc<SealedValue>,
    /// The person's key, under which the rest of the call is sealed too.
    pub(super) key: ValueKey,
}

/// The value behind a commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The record commits to nothing.
    Nothing,
    /// What it says, and the salt with which the commitment can be made again.
    Value {
        /// The end user's identifier.
        end_user: String,
        /// The salt.
        salt: [u8; WIDTH],
        /// The commitment in the record.
        commitment: Commitment,
    },
    /// The input of a call, and what was answered, as far as they are kept.
    Content {
        /// What the client sent.
        input: Option<OpenedContent>,
        /// What the client was sent.
        output: Option<OpenedContent>,
    },
    /// It was erased, as this record says.
    Erased(Option<Seq>),
    /// It was never kept: the person was erased while the call was under way.
    NeverKept,
}

/// What is kept of a value, under its key or no more.
pub(super) enum Unsealed {
    Text(Vec<u8>),
    Gone(Opened),
}

impl Vault {
    /// The vault of a store under its master key; `None` when there is to be none.
    ///
    /// # Errors
    /// When the store's values are sealed under another key, or under one and none is given.
    pub async fn open(
        master: Option<MasterKey>,
        store: Arc<dyn Store>,
    ) -> Result<Option<Self>, GateError> {
        let proof = master.as_ref().map(MasterKey::proof);
        if store.master_key(proof).await? != proof {
            return Err(GateError::MasterKey);
        }
        let random = SystemRandom::new();
        let tenants = Mutex::default();
        Ok(master.map(|master| Self { master, store, random, tenants }))
    }

    /// The digest of a request, from which nobody without the key learns what it says.
    pub(super) fn fingerprint(&self, request: &[u8]) -> Digest {
        self.master.name(&[b"request", request])
    }

    /// Seals a person's identifier.
    pub(super) async fn seal(&self, tenant: &TenantId, user: &EndUser) -> Result<Kept, GateError> {
        let user = user.as_str();
        let key = self.key_of(self.master.subject(tenant, user)).await?;
        let salt = self.random()?;
        let commitment = Commitment::to(user.as_bytes(), &salt);
        let value = key.seal(&[&salt, user.as_bytes()].concat(), self.random()?)?;
        Ok(Kept { commitment, value: Arc::new(value), key })
    }

    /// A person's or a tenant's key, made when there is none.
    pub(super) async fn key_of(&self, subject: Digest) -> Result<ValueKey, GateError> {
        // Once more when another process destroys it between the two.
        for _ in 0..3 {
            if let Some(SubjectKey { id, wrapped }) = self.store.subject_key(subject).await? {
                return self.unwrap(id, &wrapped).ok_or(GateError::MasterKey);
            }
            let id = Uuid::from_bytes(self.random()?);
            let key: [u8; WIDTH] = self.random()?;
            let wrapped = encrypt(&self.master.wrapping, &key, id.as_bytes(), self.random()?)?;
            self.store.keep_subject_key(subject, &SubjectKey { id, wrapped }).await?;
        }
        Err(GateError::LedgerUnavailable)
    }

    fn unwrap(&self, id: Uuid, wrapped: &[u8]) -> Option<ValueKey> {
        ValueKey::new(id, &decrypt(&self.master.wrapping, wrapped, id.as_bytes())?)
    }

    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N], GateError> {
        random(&self.random)
    }

    /// What is kept of the value to which the record at `seq` commits.
    pub(super) async fn unseal(&self, seq: Seq) -> Result<Unsealed, GateError> {
        let (value, wrapped) = match self.store.kept_value(seq).await? {
            None => return Ok(Unsealed::Gone(Opened::NeverKept)),
            Some(KeptValue::Sealed(_, None)) => return Ok(Unsealed::Gone(Opened::Erased(None))),
            Some(KeptValue::Erased(record)) => {
                return Ok(Unsealed::Gone(Opened::Erased(Some(record))));
            }
            Some(KeptValue::Sealed(value, Some(wrapped))) => (value, wrapped),
        };
        let ValueKey { id, key } = self.unwrap(value.key, &wrapped).ok_or(GateError::MasterKey)?;
        let text = decrypt(&key, &value.sealed, id.as_bytes()).ok_or(GateError::Corrupt)?;
        Ok(Unsealed::Text(text))
    }

    /// The end user to whom the record at `seq` commits.
    async fn open_user(&self, seq: Seq, commitment: Commitment) -> Result<Opened, GateError> {
        let text = match self.unseal(seq).await? {
            Unsealed::Text(text) => text,
            Unsealed::Gone(gone) => return Ok(gone),
        };
        let (salt, user) = text.split_first_chunk::<WIDTH>().ok_or(GateError::Corrupt)?;
        let end_user = String::from_utf8(user.to_vec()).map_err(|_| GateError::Corrupt)?;
        if Commitment::to(user, salt) != commitment {
            return Err(GateError::Corrupt);
        }
        Ok(Opened::Value { end_user, salt: *salt, commitment })
    }
}

impl Gate {
    /// The value to which the record at `seq` commits.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open_value(&self, seq: Seq) -> Result<Opened, GateError> {
        let stored = self.store.record(seq).await?.ok_or(GateError::NoSuchDecision)?;
        let entry = Entry::parse(&stored.entry).map_err(|_| GateError::NoSuchDecision)?;
        if entry.kind.ends_a_call() {
            let commitments = committed(&entry)?;
            return match &self.vault {
                _ if commitments.is_none() => Ok(Opened::Nothing),
                None => Err(GateError::MasterKey),
                Some(vault) => vault.open_content(seq, commitments).await,
            };
        }
        if entry.kind != Kind::Decision {
            return Ok(Opened::Nothing);
        }
        let body: crate::ledger::DecisionBody =
            serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
        match (&self.vault, body.user_commitment) {
            (_, None) => Ok(Opened::Nothing),
            (None, Some(_)) => Err(GateError::MasterKey),
            (Some(vault), Some(commitment)) => vault.open_user(seq, commitment).await,
        }
    }

    /// The tenant of this name: of the organisation, or of a record.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn known_tenant(&self, name: &str) -> Result<Option<TenantId>, GateError> {
        let tenant = TenantId::from(name);
        let judge = self.keeper.current();
        if judge.snapshot().organisation.tenants.contains_key(&tenant) {
            return Ok(Some(tenant));
        }
        let terms = vec![format!("tenant:{tenant}")];
        let query = RecordQuery { terms, limit: 1, ..RecordQuery::default() };
        Ok(self.store.query(&query).await?.first().map(|_| tenant))
    }

    /// Finishes erasures that were cut off.
    pub(super) async fn finish_erasures(&self, now: Timestamp) -> Result<(), GateError> {
        let before = now.checked_sub(4 * UNDER_WAY).unwrap_or(Timestamp::MIN);
        let mut last = Ok(());
        for key in self.store.destroyed_keys(None, before).await? {
            // What cannot be finished for one person is no reason to leave the others waiting.
            if let Err(error) = self.forget(&key, &mut Erased::default()).await {
                tracing::error!(%error, key = %key.id, "an erasure could not be finished; it is tried again");
                last = Err(error);
            }
        }
        last
    }

    /// Records that a destroyed key's values are gone, and deletes them.
    pub(super) async fn forget(
        &self,
        key: &DestroyedKey,
        erased: &mut Erased,
    ) -> Result<(), GateError> {
        let despite_hold: Option<DespiteHold> =
            key.despite.as_deref().map(serde_json::from_str).transpose().unwrap_or_default();
        let term = format!("erasure:{}", key.id);
        // What was recorded, but not deleted, when this was cut off.
        let (kind, terms) = (Some(Kind::Erasure), vec![term.clone()]);
        let query = RecordQuery { kind, terms, limit: 1_000, ..RecordQuery::default() };
        for stored in self.store.query(&query).await? {
            let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
            let body: ErasureBody =
                serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
            self.store.forget_values(key.id, &body.erased, stored.seq).await?;
        }
        loop {
            let values = self.store.values_under(key.id, None, AT_ONCE).await?;
            let Some(first) = values.first() else { break };
            // Two that do this at once claim the same, and only one gets it.
            let claim = Claim {
                scope: "erasure".to_owned(),
                key: format!("{}/{first}", key.id),
                request: Digest::of(term.as_bytes()),
            };
            let body = ErasureBody {
                as_of: key.as_of,
                despite_hold: despite_hold.clone(),
                erased: values.clone(),
                key: key.by.as_str().into(),
            };
            let by = key_term(&body.key);
            let body = canonical::to_vec(&body)?;
            let draft = Draft {
                terms: [by, term.clone()].into(),
                claim: Some(Arc::new(claim)),
                ..Draft::new(self.fresh_id()?, Kind::Erasure, body)
            };
            match self.sequencer.submit(draft).await {
                Ok(receipt) => {
                    self.store.forget_values(key.id, &values, receipt.seq).await?;
                    erased.values += values.len() as u64;
                    erased.records.push(receipt.seq);
                }
                // Somebody else is at it, and has recorded the same.
                Err(SubmitError::Claimed(seq)) => {
                    self.store.forget_values(key.id, &values, seq).await?;
                    erased.values += values.len() as u64;
                    erased.records.push(seq);
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(self.store.forget_key(key.id).await?)
    }
}

fn aead(bytes: &[u8]) -> Option<LessSafeKey> {
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?))
}

fn encrypt(
    key: &LessSafeKey,
    text: &[u8],
    about: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Result<Vec<u8>, GateError> {
    let mut sealed = Vec::with_capacity(NONCE_LEN + text.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(text);
    let text = sealed.get_mut(NONCE_LEN..).unwrap_or_default();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(about), text)
        .map_err(|_| GateError::NoRandomness)?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn decrypt(key: &LessSafeKey, sealed: &[u8], about: &[u8]) -> Option<Vec<u8>> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut text = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    Some(key.open_in_place(nonce, Aad::from(about), &mut text).ok()?.to_vec())
}

fn random<const N: usize>(random: &SystemRandom) -> Result<[u8; N], GateError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| GateError::NoRandomness)?;
    Ok(bytes)
}
