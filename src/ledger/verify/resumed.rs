//! Where a log goes on after a loss, and where its time goes back after a clock was wrong.

use jiff::Timestamp;

use super::{Verifier, examine::Examined};
use crate::{
    domain::Seq,
    ledger::{Checkpoint, Note, RecoveryBody, TreeHead, fault::ChainFault, time::timestamp_text},
};

impl Verifier {
    /// Takes a record that says that the log was recovered.
    pub(super) fn recover(
        &mut self,
        entry: &Examined,
        recovery: &RecoveryBody,
    ) -> Result<(), ChainFault> {
        let fault = ChainFault::Recovery;
        let found = TreeHead { root: self.edge.root(), size: self.edge.size() };
        if recovery.found != found {
            return Err(fault("but the recovered tree differs from the tree before this record"));
        }
        let note = Note::parse(&recovery.lost);
        let lost = note.and_then(|note| {
            let keys: Vec<_> = self.keys.keys.iter().map(|(key, _)| key.clone()).collect();
            note.verify(&keys)?;
            Checkpoint::read(&note)
        });
        let lost = lost.ok().filter(|lost| lost.origin == entry.log);
        let lost = lost.ok_or(fault("but what was lost is not a checkpoint of this log"))?;
        self.recoveries.push((entry.seq, lost));
        Ok(())
    }

    /// Whether time may go back from `was` at this entry, where the last one whose time is known was
    /// written at `last`. Not where bodies were removed that had to be kept beyond the right time.
    pub(super) fn check_correction(
        &self,
        entry: &Examined,
        was: Timestamp,
        last: Timestamp,
    ) -> Result<(), ChainFault> {
        // Where the entry in front of it was removed, its time is not known, but what it followed.
        let is_gone = self.shelf.removed.has(Seq::new(entry.seq.get().saturating_sub(1)));
        let is_its_own = was == last || (is_gone && was > last);
        if !is_its_own || entry.ts > was {
            let [said, to, is] = [was, entry.ts, last].map(timestamp_text);
            return Err(ChainFault::Correction { said, to, is });
        }
        match self.shelf.latest {
            Some((before, record)) if before > entry.ts => {
                let [to, before] = [entry.ts, before].map(timestamp_text);
                Err(ChainFault::PrunedAhead { to, before, record })
            }
            _ => Ok(()),
        }
    }
}
