//! Legal holds: records that are kept beyond their time. A hold is a record of the ledger, and nothing
//! else.

use std::collections::BTreeMap;

use super::{
    Gate, GateError,
    decide::{instant, refused},
};
use crate::{
    domain::Seq,
    ledger::{Entry, Kind, LegalHoldBody, canonical, key_term, parse_timestamp},
    sequencer::Draft,
    store::{RecordQuery, Store},
};

/// How many records are read at once.
const PAGE: usize = 500;

/// A hold that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// The records that it holds, as filters of `GET /v1/audit/records`.
    pub records: BTreeMap<String, String>,
    /// The record that set it.
    pub seq: Seq,
}

impl Hold {
    /// The search for the records that it holds. They were checked when it was set.
    #[must_use]
    pub fn query(&self) -> RecordQuery {
        let mut query = RecordQuery::default();
        for (name, value) in &self.records {
            match name.as_str() {
                "from" => query.from = parse_timestamp(value).or_else(|| value.parse().ok()),
                "to" => query.to = parse_timestamp(value).or_else(|| value.parse().ok()),
                "kind" => query.kind = Kind::parse(value),
                "id" => query.id = value.parse().ok(),
                _ => query.terms.push(format!("{name}:{value}")),
            }
        }
        query
    }
}

/// The holds in force, by their names.
///
/// # Errors
/// When the store cannot be read.
pub async fn holds(store: &dyn Store) -> Result<BTreeMap<String, Hold>, GateError> {
    let mut holds = BTreeMap::new();
    let mut query =
        RecordQuery { kind: Some(Kind::LegalHold), limit: PAGE, ..RecordQuery::default() };
    loop {
        let found = store.query(&query).await?;
        let Some(last) = found.last() else { return Ok(holds) };
        query.after = Some(last.seq);
        for stored in found {
            let entry = Entry::parse(&stored.entry).map_err(|_| GateError::Corrupt)?;
            let body: LegalHoldBody =
                serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
            match body.records {
                Some(records) => {
                    let hold = Hold { reason: body.reason, records, seq: stored.seq };
                    holds.insert(body.id, hold);
                }
                None => drop(holds.remove(&body.id)),
            }
        }
    }
}

impl Gate {
    /// Records that a hold was set, changed or lifted. Gives the record.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn record_hold(&self, hold: &LegalHoldBody) -> Result<Seq, GateError> {
        let body = canonical::to_vec(hold)?;
        let quota = Some(self.per_key(&hold.key, instant(&*self.clock)));
        let terms = [key_term(&hold.key)].into();
        let draft = Draft { terms, quota, ..Draft::new(self.fresh_id()?, Kind::LegalHold, body) };
        Ok(self.sequencer.submit(draft).await.map_err(refused)?.seq)
    }
}
