//! Cases: calls with the answers that the law demands, so that a policy can be tested by whoever wrote
//! it. The policies judge them as they judge a real call.

mod file;
mod own;
mod run;
#[cfg(test)]
mod tests;

pub use file::Case;
pub use own::Own;
pub use run::{Missed, Outcome, Tested, test, test_cedar};
