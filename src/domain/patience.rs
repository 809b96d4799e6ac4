//! How long the store is waited for, and how that time is divided. Not what happens when it is over.

use std::time::Duration;

/// How long a record may wait for the store before its call is refused: `[store] patience`. The other waits in
/// front of a call follow from it, so that a caller is refused within four thirds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(Duration);

impl Patience {
    /// The shortest that leaves a lookup time enough.
    pub const SHORTEST: Duration = Duration::from_millis(100);
    /// The longest under which a process that stopped in front of a send is noticed by its lease.
    pub const LONGEST: Duration = Duration::from_secs(5);

    /// A record may wait for so long.
    #[must_use]
    pub const fn new(append: Duration) -> Self {
        Self(append)
    }

    /// For a record, from its submission until its commit is confirmed.
    #[must_use]
    pub const fn append(self) -> Duration {
        self.0
    }

    /// For a connection.
    #[must_use]
    pub fn connect(self) -> Duration {
        self.0 * 2 / 3
    }

    /// For what is looked up in front of a decision.
    #[must_use]
    pub fn lookup(self) -> Duration {
        self.0 * 4 / 15
    }

    /// For the answer whether a call that was decided may still be sent: a busy store is not a reason to throw
    /// a decision away.
    #[must_use]
    pub fn confirmation(self) -> Duration {
        self.0 * 4 / 3
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_millis(1_500))
    }
}
