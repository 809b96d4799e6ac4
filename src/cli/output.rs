//! What commands print: text for people, JSON for machines. Colour and progress only on a terminal.

use std::{
    fmt,
    io::{IsTerminal, Write},
};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use serde::Serialize;

use super::Failure;
use crate::source::{Fault, Faults};

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
    std::io::stdout().is_terminal() && wants_colour()
}

fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none()
}

/// How wide tables are.
pub(super) fn width() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(WIDTH).clamp(60, 200)
}

/// Prints a line to standard output. A reader that has gone is no failure.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints to standard error what a reader of the output has to know beside it.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
}

/// Prints a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Environment(format!("cannot write JSON: {error}")))?;
    line(&text);
    Ok(())
}

/// A number of things: `1 fault`, `2 policies`.
pub(super) fn count(n: usize, noun: &str) -> String {
    match (n, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (n, Some(stem)) => format!("{n} {stem}ies"),
        (n, None) => format!("{n} {noun}s"),
    }
}

/// Prints faults to standard error as a compiler does: what is wrong, the line with the text that is
/// meant, and the remedy.
pub(super) fn faults(faults: &Faults) {
    let mut stderr = std::io::stderr().lock();
    let theme = match (stderr.is_terminal(), wants_colour()) {
        (false, _) => GraphicalTheme::none(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (true, true) => GraphicalTheme::unicode(),
    };
    // Where nobody reads along, a line stays a line: programs search for what it says.
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width().into())
        .with_break_words(false)
        .with_wrap_lines(stderr.is_terminal());
    for fault in &faults.0 {
        let mut text = String::new();
        if handler.render_report(&mut text, &Shown::new(fault)).is_err() {
            text = format!("{fault}\n");
        }
        let _ = writeln!(stderr, "{text}");
    }
}

/// A fault as the renderer wants it.
#[derive(Debug)]
struct Shown<'a> {
    fault: &'a Fault,
    line: String,
    /// The bytes of the line that are meant.
    span: SourceSpan,
}

impl<'a> Shown<'a> {
    fn new(fault: &'a Fault) -> Self {
        let (mut line, start) = (fault.source.clone(), fault.column.saturating_sub(1));
        let byte = |character: usize| {
            line.char_indices().nth(character).map_or(line.len(), |(byte, _)| byte)
        };
        let (start, end) = (byte(start), byte(start + fault.length));
        // The mark at what is missing at the end of a line needs something to stand under.
        if start == line.len() && start > 0 {
            line.push(' ');
        }
        Self { fault, line, span: (start, end - start).into() }
    }

    /// Whether there is a line to show.
    fn has_line(&self) -> bool {
        !self.line.is_empty()
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { file, line, column, message, .. } = self.fault;
        if !self.has_line() {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        f.write_str(message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.fault.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(None, self.span);
        self.has_line().then(|| Box::new(std::iter::once(label)) as Box<_>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.has_line().then_some(self)
    }
}

/// One line, which is somewhere in its file.
impl SourceCode for Shown<'_> {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        lines_before: usize,
        _lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let Fault { file, line, column, .. } = self.fault;
        // The renderer asks for no lines around where it wants to know the place alone.
        let column = if lines_before == 0 { column.saturating_sub(1) } else { 0 };
        Ok(Box::new(MietteSpanContents::new_named(
            file.to_string(),
            self.line.as_bytes(),
            (0, self.line.len()).into(),
            line.saturating_sub(1),
            column,
            1,
        )))
    }
}

/// Prints an error.
pub(super) fn error(text: &str) {
    let colour = std::io::stderr().is_terminal() && wants_colour();
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
