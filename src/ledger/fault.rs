//! What can be wrong with a row of entries.

use super::entry::{EntryError, Kind, Origin};
use crate::domain::{DeploymentId, Seq};

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("entry {seq}: {fault}")]
pub struct Finding {
    /// The position at which the row stops being what it should.
    pub seq: Seq,
    /// What is wrong there.
    pub fault: ChainFault,
}

/// What can be wrong with a row of entries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// The bytes are not an entry.
    #[error("{0}")]
    Entry(#[from] EntryError),
    /// Another position than the next one.
    #[error("says that it is entry {0}: one was removed, added or moved")]
    Position(Seq),
    /// The entry before it is not the one that it was chained to.
    #[error("was chained to {said}, but the entry before it is {is}: one of the two was changed")]
    Chain {
        /// The leaf hash that the entry names.
        said: String,
        /// The leaf hash of the entry before it.
        is: String,
    },
    /// Another log's entry.
    #[error("belongs to the log `{said}`, not to `{is}`")]
    OtherLog {
        /// The log that it names.
        said: String,
        /// The log.
        is: Origin,
    },
    /// An instant before that of the entry before it.
    #[error("was written at {said}, before the entry in front of it ({is})")]
    Time {
        /// When it says that it was written.
        said: String,
        /// When the one before it was.
        is: String,
    },
    /// A correction of another time than that of the entry before it, or to a later one.
    #[error(
        "says that time went back from {said} to {to}, and the entry in front of it was written at {is}"
    )]
    Correction {
        /// The wrong time that it names.
        said: String,
        /// When it was written.
        to: String,
        /// When the one before it was.
        is: String,
    },
    /// The log does not begin with a genesis entry, or has another one.
    #[error("a log has one `genesis` entry, its first; here is `{0}`")]
    Genesis(Kind),
    /// The body is not what its kind says.
    #[error("not a body of kind `{kind}`: {error}")]
    Body {
        /// The kind.
        kind: Kind,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
    /// A snapshot was skipped or activated twice.
    #[error("activates revision {said} after revision {is}")]
    Revision {
        /// The revision that it activates.
        said: u64,
        /// The revision before it.
        is: u64,
    },
    /// A decision under another snapshot than the active one.
    #[error("decided under revision {said}, while another snapshot (revision {is}) was active")]
    Superseded {
        /// The revision that it names.
        said: u64,
        /// The active revision.
        is: u64,
    },
    /// An outcome of something that is not a decision before it.
    #[error("is the outcome of entry {0}, which is not a decision before it")]
    NoDecision(Seq),
    /// An outcome that names another leaf than its decision's.
    #[error("is the outcome of decision {0}, but names another leaf hash")]
    OtherDecision(Seq),
    /// An outcome of a denial, which has none.
    #[error("is the outcome of decision {0}, which was a denial")]
    OfDenial(Seq),
    /// A second outcome.
    #[error("is a second outcome of decision {0}")]
    SecondOutcome(Seq),
    /// A record whose parts do not agree.
    #[error("is a `{kind}` that contradicts itself: {what}")]
    Contradiction {
        /// Its kind.
        kind: Kind,
        /// What does not agree.
        what: &'static str,
    },
    /// An outcome that is kept for another time than its decision.
    #[error("is kept {said}, but its decision {decision} is kept {is}")]
    Retention {
        /// The decision.
        decision: Seq,
        /// How long the outcome says that it is kept.
        said: String,
        /// How long the decision is.
        is: String,
    },
    /// An outcome of Lexgate's of a call that the caller was to send, or the other way round.
    #[error("is the outcome of decision {0}: {1}")]
    Sender(Seq, &'static str),
    /// A call that went, or might have gone, where its decision does not let it go.
    #[error(
        "the call of decision {decision} {verb} `{deployment}`, which is not an allowed candidate of that decision"
    )]
    Unlawful {
        /// The decision.
        decision: Seq,
        /// The deployment.
        deployment: DeploymentId,
        /// What was done.
        verb: &'static str,
    },
    /// An attempt at a time at which it cannot have been made.
    #[error("the attempt at `{deployment}` for decision {decision} {what}")]
    AttemptTime {
        /// The decision.
        decision: Seq,
        /// The deployment.
        deployment: DeploymentId,
        /// When it was, and when it should have been.
        what: String,
    },
    /// A late outcome that adds to nothing, or to something else.
    #[error("is a late outcome of decision {0}, {1}")]
    Late(Seq, &'static str),
    /// A key that the one before it did not endorse.
    #[error("names another key for the log: {0}")]
    Key(&'static str),
    /// A key that cannot be retired.
    #[error("says that a key was retired: {0}")]
    Retired(&'static str),
    /// A hold that is lifted, and was never set.
    #[error("says that the legal hold `{0}` was lifted, but it was never set")]
    NoHold(String),
    /// A recovery that says something else of the log than what it is.
    #[error("says that the log was recovered: {0}")]
    Recovery(&'static str),
    /// An erasure of what was never committed to, or is erased already.
    #[error("says that the values of entry {0} were erased, {1}")]
    Erasure(Seq, &'static str),
    /// Records said to be removed that are not before the one that says so.
    #[error(
        "says that entries {} to {} were removed: such ranges must be in order, and before the record", .0.first, .0.last
    )]
    Pruned(super::SeqRange),
    /// A removal for which a later instant counts than that of its record.
    #[error(
        "says that records went whose retention period had ended at {said}, but it was written at {is}"
    )]
    PrunedLater {
        /// The instant that it names.
        said: String,
        /// When it was written.
        is: String,
    },
    /// A removal of what is never removed.
    #[error("says that entry {0} was removed: {1}")]
    KeptForEver(Seq, &'static str),
    /// A removal before the retention period can have ended.
    #[error(
        "says that the retention period of entry {seq} had ended at {before}: {} {written}, and is kept for {months} months{}, until {until}",
        if *.is_here { "it was written at" } else { "it was written no earlier than" },
        if *.is_here { "" } else { " at least" },
    )]
    PrunedEarly {
        /// The entry.
        seq: Seq,
        /// Whether it is here, so that its own times are known.
        is_here: bool,
        /// When it was written, or the soonest instant.
        written: String,
        /// For how many months it is kept.
        months: u32,
        /// Until when.
        until: String,
        /// When its retention period is said to have ended.
        before: String,
    },
    /// A correction to a time that had not come yet for what was removed.
    #[error(
        "set the log's time back to {to}, before the instant {before} until which entry {record} had pruned: bodies were removed whose retention had not ended"
    )]
    PrunedAhead {
        /// When it was written.
        to: String,
        /// The instant that counted at the removal.
        before: String,
        /// The record of the removal.
        record: Seq,
    },
    /// A body that is not there, and no record says why.
    #[error("is missing: its leaf is in the tree, and no record says that it was removed")]
    Missing,
}
