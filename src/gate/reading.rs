//! Readings of the ledger, which are themselves recorded: no record, no reading.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Gate, GateError, Recorded,
    decide::{instant, refused},
};
use crate::{
    domain::{Caller, KeyName},
    ledger::{AuditReadBody, Kind, canonical, key_term},
    sequencer::Draft,
};

/// The longest parameter that is recorded whole, in characters.
const MAX_VALUE: usize = 256;

/// Somebody is about to read the ledger.
#[derive(Clone, Debug)]
pub struct Reading {
    /// With this API key.
    pub key: KeyName,
    /// This operation of the OpenAPI document.
    pub operation: &'static str,
    /// With these parameters.
    pub query: BTreeMap<String, String>,
}

impl Gate {
    /// Records a reading before it is answered.
    ///
    /// # Errors
    /// When it cannot be recorded, or its API key has made too many of them.
    pub async fn record_reading(&self, reading: Reading) -> Result<(), GateError> {
        self.has_room()?;
        let quota = self.per_key(&reading.key, instant(&*self.clock));
        let shorten = |text: String| text.chars().take(MAX_VALUE).collect();
        let query = reading.query.into_iter().map(|(name, value)| (name, shorten(value)));
        let body = AuditReadBody {
            key: reading.key,
            operation: reading.operation.to_owned(),
            query: query.collect(),
            retention: self.keeper.current().snapshot().facts.retention([]),
        };
        let draft = Draft {
            quota: Some(quota),
            terms: [key_term(&body.key)].into(),
            ..Draft::new(self.fresh_id()?, Kind::AuditRead, canonical::to_vec(&body)?)
        };
        self.sequencer.submit(draft).await.map(drop).map_err(refused)
    }

    /// The decision `id`, read again by the app that asked for it.
    ///
    /// # Errors
    /// [`GateError::NoSuchDecision`] when it is another app's, or its record was removed; or when the
    /// reading cannot be recorded, or the API key has made too many of them.
    pub async fn read_decision(&self, caller: &Caller, id: Uuid) -> Result<Recorded, GateError> {
        let key = caller.key.clone();
        let query = BTreeMap::from([("id".to_owned(), id.to_string())]);
        self.record_reading(Reading { key, operation: "readDecision", query }).await?;
        let stored = self.in_time(self.store.record_by_id(id)).await?;
        let stored = stored.filter(|stored| !stored.entry.is_empty());
        let recorded = Recorded::read(&stored.ok_or(GateError::NoSuchDecision)?)?;
        let (app, tenant) = (&recorded.body.caller.app, &recorded.body.caller.tenant);
        // The index of identifiers may lead elsewhere.
        let is_callers = *app == caller.app && *tenant == caller.tenant && recorded.id == id.into();
        if is_callers { Ok(recorded) } else { Err(GateError::NoSuchDecision) }
    }
}
