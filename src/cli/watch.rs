//! Doing something again whenever the policy folder changes.

use std::{path::Path, sync::mpsc, time::Duration};

use notify::{RecursiveMode, Watcher};

use super::{
    Failure,
    output::{self, Paint, paint},
};
use crate::domain::{Clock, SystemClock};

/// How long the folder must be quiet: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// Runs `again` at once and after every change below `dir`, whatever comes of it, until the process is
/// ended.
pub(super) fn watch(dir: &Path, again: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let blind = |error: &dyn std::error::Error| {
        Failure::Environment(format!("cannot watch `{}`: {error}", dir.display()))
    };
    let (sender, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(sender).map_err(|error| blind(&error))?;
    // Before the first run: a change during it is not missed.
    watcher.watch(dir, RecursiveMode::Recursive).map_err(|error| blind(&error))?;
    loop {
        if let Err(failure) = again() {
            failure.show();
        }
        let now = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).time();
        let now = now.strftime("%H:%M:%S");
        let text =
            format!("---- {now} UTC: waiting for a change in `{}`, Ctrl-C ends", dir.display());
        output::line(&paint(Paint::Dim, &text));
        // What this program reads is seen too.
        while changes
            .recv()
            .map_err(|error| blind(&error))?
            .is_ok_and(|event| event.kind.is_access())
        {}
        while changes.recv_timeout(QUIET).is_ok() {}
    }
}
