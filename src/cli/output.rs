//! What commands print: text for people, JSON for machines. Colour and progress only on a terminal.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::Failure;

/// The width of tables where no terminal says otherwise.
const WIDTH: u16 = 120;

/// A colour, where there is a terminal to show it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Good,
    Bad,
    Dim,
    Strong,
}

/// `text` in a colour.
pub(super) fn paint(paint: Paint, text: &str) -> String {
    if !is_colourful() {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Good => "32",
        Paint::Bad => "31",
        Paint::Dim => "2",
        Paint::Strong => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Whether standard output is a terminal that may be coloured.
pub(super) fn is_colourful() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// How wide tables are.
pub(super) fn width() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(WIDTH).clamp(60, 200)
}

/// Prints a line to standard output. A reader that has gone is no failure.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Environment(format!("cannot write JSON: {error}")))?;
    line(&text);
    Ok(())
}

/// Prints an error.
pub(super) fn error(text: &str) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let word = if colour { "\x1b[31merror\x1b[0m" } else { "error" };
    let _ = writeln!(std::io::stderr().lock(), "{word}: {text}");
}

/// Shows how far long work is, on a terminal only.
pub(super) fn progress(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

/// Takes the last progress away.
pub(super) fn end_progress() {
    progress("");
}
