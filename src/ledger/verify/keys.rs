//! The keys of a log: each endorsed by the one before it, and those that sign no more.

use super::endorsement;
use crate::{
    domain::Seq,
    ledger::{
        KeyChangeBody, KeyRetiredBody, Note, SignatureType, VerifierKey, entry::Origin,
        fault::ChainFault,
    },
};

/// The keys of a log, the first from its beginning.
#[derive(Debug, Default)]
pub(super) struct KeyChain {
    pub(super) keys: Vec<(VerifierKey, Seq)>,
    pub(super) retired: Vec<(VerifierKey, Seq)>,
}

impl KeyChain {
    /// Takes the key with which the log was opened.
    pub(super) fn open(&mut self, text: &str, log: &Origin) -> Result<(), ChainFault> {
        self.keys.push((own(text, log)?, Seq::new(0)));
        Ok(())
    }

    /// Only a key of the log says which key comes next.
    pub(super) fn change(
        &mut self,
        seq: Seq,
        log: &Origin,
        change: &KeyChangeBody,
    ) -> Result<(), ChainFault> {
        let fault = ChainFault::Key;
        let former =
            self.keys.last().map(|(key, _)| key).filter(|key| key.to_string() == change.former);
        let former = former.ok_or(fault("the former key is not the log's newest"))?;
        let key = own(&change.public_key, log)?;
        if self.keys.iter().any(|(known, _)| *known == key) {
            return Err(fault("the key has signed the log before, and was superseded"));
        }
        let note = Note::parse(&change.endorsement);
        let note = note.map_err(|_| fault("the endorsement is not a signed note"))?;
        if note.text() != endorsement(log, &key) {
            return Err(fault("the endorsement names another key"));
        }
        note.verify(std::slice::from_ref(former))
            .map_err(|_| fault("the former key has not signed the endorsement"))?;
        self.keys.push((key, seq));
        Ok(())
    }

    /// A key that was superseded signs no more from here on.
    pub(super) fn retire(&mut self, seq: Seq, body: &KeyRetiredBody) -> Result<(), ChainFault> {
        let fault = |why| Err(ChainFault::Retired(why));
        let known = self.keys.iter().position(|(key, _)| key.to_string() == body.retired);
        let Some(at) = known else { return fault("it is not a key of the log") };
        if at + 1 == self.keys.len() {
            return fault("it is the log's newest key");
        }
        let Some((key, _)) = self.keys.get(at) else { return Ok(()) };
        if self.retired.iter().any(|(retired, _)| retired == key) {
            return fault("it was retired before");
        }
        self.retired.push((key.clone(), seq));
        Ok(())
    }
}

/// A key that can be this log's.
fn own(text: &str, log: &Origin) -> Result<VerifierKey, ChainFault> {
    let key: VerifierKey =
        text.parse().map_err(|_| ChainFault::Key("the text is not a verifier key"))?;
    if key.name() != log.as_str() {
        return Err(ChainFault::Key("the key has another name than the log"));
    }
    if key.kind() != SignatureType::Ed25519 {
        return Err(ChainFault::Key("the key is a witness's, not a log's"));
    }
    Ok(key)
}
