//! The `lexgate` command.

fn main() {}
