//! The `lexgate` command.

use std::process::ExitCode;

/// Judging a call allocates and frees thousands of small values.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lexgate::cli::main()
}
