//! Judging again in a process of its own: policies come from the export, and whatever they do to the process
//! that reads them (a stack that overflows cannot be caught) must end in a fault.

use std::{
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    thread,
};

use serde_json::json;

use super::super::{Failure, output};

/// The argument by which a process knows that it is the contained one.
pub(super) const ARGUMENT: &str = "--contained";
/// The stack on which an export is read that is judged again, in bytes.
const STACK: usize = 256 << 20;

/// Runs this command again as a process of its own, and says how that ended.
pub(super) fn run(as_json: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Environment(format!("the process that judges again cannot be started: {error}"))
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg(ARGUMENT).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // Open as long as this process lives: the other one ends with it.
    let lifeline = child.stdin.take();
    let status = child.wait().map_err(failed)?;
    drop(lifeline);
    match status.code().map(u8::try_from) {
        Some(Ok(0)) => return Ok(()),
        Some(Ok(code @ 1..=3)) => return Err(Failure::Reported(code)),
        _ => {}
    }
    let how =
        status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
    let fault = format!(
        "the process that judges again was ended by {how}: a policy or a fact in the export cannot be read within its bounds; without `--replay`, the rest of the export can be verified"
    );
    if as_json {
        output::json(&json!({ "holds": false, "fault": fault }))?;
    }
    Err(Failure::Finding(fault))
}

/// Does the work of the contained process: on a large stack, and no longer than the process that started it
/// lives.
pub(super) fn within<T: Send>(
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    thread::spawn(|| {
        let mut end = [0];
        while std::io::stdin().read(&mut end).is_ok_and(|read| read > 0) {}
        std::process::exit(3);
    });
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| {
            Failure::Environment(format!("a thread that judges cannot be started: {error}"))
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
