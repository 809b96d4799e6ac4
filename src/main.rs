//! The `lexgate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    lexgate::cli::main()
}
