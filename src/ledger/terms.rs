//! The words by which a record is found, made from its bytes. What a writer puts beside a record says
//! the same; a record of an older version has fewer words beside it, and none is missing here.

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Attempt, DecisionBody, DecisionRef, Kind,
    body::{each_once, term},
};
use crate::domain::{KeyName, Seq};

/// What the name of an API key is put behind.
const KEY: &str = "key";

/// The word by which the records of an API key are found.
#[must_use]
pub fn key_term(key: &KeyName) -> String {
    term(KEY, key.as_str())
}

/// The words of one record, as far as its own bytes say them.
#[derive(Clone, Debug)]
pub enum DerivedTerms {
    /// All of them.
    Whole(Vec<String>),
    /// An outcome has those of its decision too.
    WithDecision {
        /// Where the decision is.
        decision: Seq,
        /// Where the call was tried.
        attempts: Vec<Attempt>,
    },
}

impl DerivedTerms {
    /// The words of the record with these bytes. One that this version cannot read has none.
    #[must_use]
    pub fn of(entry: &[u8]) -> Self {
        let Ok(envelope) = serde_json::from_slice::<Shape<'_>>(entry) else {
            return Self::Whole(Vec::new());
        };
        let body = envelope.body.get();
        match Kind::parse(envelope.kind) {
            Some(Kind::Decision) => {
                Self::Whole(read::<DecisionBody>(body).map_or_else(Vec::new, |body| body.terms()))
            }
            Some(Kind::Outcome | Kind::LateOutcome) => match read::<Tried>(body) {
                Some(Tried { decision, attempts }) => {
                    Self::WithDecision { decision: decision.seq, attempts }
                }
                None => Self::Whole(Vec::new()),
            },
            Some(Kind::AuditRead | Kind::Refused | Kind::Erasure | Kind::LegalHold) => {
                let key = read::<Keyed>(body).map(|body| key_term(&body.key));
                Self::Whole(key.into_iter().collect())
            }
            _ => Self::Whole(Vec::new()),
        }
    }

    /// All of them; `decision` is the bytes of the decision, where one is wanted and is still there.
    #[must_use]
    pub fn complete(self, decision: Option<&[u8]>) -> Vec<String> {
        let attempts = match self {
            Self::Whole(terms) => return terms,
            Self::WithDecision { attempts, .. } => attempts,
        };
        let decision = decision.and_then(|entry| serde_json::from_slice::<Shape<'_>>(entry).ok());
        let body = decision.and_then(|entry| read::<DecisionBody>(entry.body.get()));
        body.map_or_else(
            || {
                let tried = attempts.iter();
                each_once(tried.map(|at| term("deployment", at.deployment.as_str())).collect())
            },
            |body| body.outcome_terms(&attempts),
        )
    }

    /// Whether the words `beside` a record of `kind` may lack some that its bytes say: those of records
    /// that an older version wrote name no API key.
    #[must_use]
    pub fn may_lack(kind: &str, beside: &[String]) -> bool {
        let names_key = matches!(
            Kind::parse(kind),
            Some(
                Kind::Decision
                    | Kind::Outcome
                    | Kind::LateOutcome
                    | Kind::AuditRead
                    | Kind::Refused
                    | Kind::Erasure
                    | Kind::LegalHold
            )
        );
        let is_key = |term: &String| term.split_once(':').is_some_and(|(of, _)| of == KEY);
        names_key && !beside.iter().any(is_key)
    }
}

/// What of an envelope is wanted. That it is canonical was checked when it was written.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    body: &'a serde_json::value::RawValue,
    kind: &'a str,
}

#[derive(Deserialize)]
struct Tried {
    attempts: Vec<Attempt>,
    decision: DecisionRef,
}

#[derive(Deserialize)]
struct Keyed {
    key: KeyName,
}

fn read<T: DeserializeOwned>(body: &str) -> Option<T> {
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Digest,
        ledger::{canonical, fixture, seal},
    };

    fn entry(kind: &Kind, seq: u64, body: &impl serde::Serialize) -> bytes::Bytes {
        let envelope = crate::ledger::Envelope {
            id: uuid::Uuid::from_u128(u128::from(seq)),
            kind,
            log: &fixture::origin(),
            prev: Digest::from_bytes([0; 32]),
            seq: Seq::new(seq),
            ts: fixture::instant(),
        };
        seal(&envelope, &canonical::to_vec(body).unwrap()).0.into()
    }

    #[test]
    fn bytes_say_the_words_that_were_put_beside_them() {
        let body = fixture::decision(1, true, "1");
        let decision = entry(&Kind::Decision, 2, &body);
        let derived = DerivedTerms::of(&decision).complete(None);
        assert_eq!(derived, body.terms());
        assert!(!DerivedTerms::may_lack("decision", &derived));
        assert!(DerivedTerms::may_lack("decision", &["app:desk".to_owned()]));
        assert!(!DerivedTerms::may_lack("genesis", &[]));

        let outcome = fixture::outcome(Seq::new(2), Digest::of(b"leaf"));
        let derived = DerivedTerms::of(&entry(&Kind::Outcome, 3, &outcome));
        let DerivedTerms::WithDecision { decision: at, .. } = &derived else {
            panic!("an outcome has its decision's words");
        };
        assert_eq!(*at, Seq::new(2));
        assert_eq!(
            derived.clone().complete(Some(&decision)),
            body.outcome_terms(&outcome.attempts)
        );
        let alone = derived.complete(None);
        assert!(alone.iter().all(|term| term.starts_with("deployment:")), "{alone:?}");
    }

    #[test]
    fn what_a_decision_is_about_is_found_by_its_words() {
        let terms = fixture::decision(1, true, "1").terms();
        for kind in ["key:", "app:", "tenant:", "decision:"] {
            assert!(terms.iter().any(|term| term.starts_with(kind)), "{kind} in {terms:?}");
        }
    }

    #[test]
    fn bytes_of_another_shape_say_nothing() {
        for bytes in [&b""[..], b"{}", br#"{"body":{},"kind":"decision"}"#] {
            assert!(DerivedTerms::of(bytes).complete(None).is_empty());
        }
    }
}
