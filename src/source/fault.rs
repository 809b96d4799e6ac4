//! Faults in what people wrote: where, what is wrong, what to do. Not failures of the machine.

use std::{fmt, ops::Range, sync::Arc};

use serde::Serialize;

/// The longest line that a fault shows, in bytes.
const LONGEST: usize = 500;

/// A text that somebody wrote, with the name by which they know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the reader would type it.
    pub path: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
    /// Whether it was active before: what it says is then read as it was at that time.
    pub is_recorded: bool,
}

impl SourceFile {
    /// The text found at `path`.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), is_recorded: false }
    }

    /// The same text, which was active before.
    #[must_use]
    pub fn recorded(&self) -> Self {
        Self { is_recorded: true, ..self.clone() }
    }

    /// A fault at the bytes `span` of this file.
    #[must_use]
    pub fn fault(&self, span: Range<usize>, message: impl Into<String>) -> Fault {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.text.get(line_start..).unwrap_or("");
        let marked = self.text.get(span).and_then(|text| text.lines().next()).unwrap_or("");
        Fault {
            file: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            length: marked.trim_end().chars().count(),
            source: rest
                .lines()
                .next()
                .filter(|line| line.len() <= LONGEST)
                .unwrap_or("")
                .trim_end()
                .to_owned(),
            message: message.into(),
            help: None,
        }
    }
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// How many characters of the line are meant, from the column on; 0 where it is a point.
    pub length: usize,
    /// The line itself.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Fault {
    /// The same fault with the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if !self.source.is_empty() {
            write!(f, "\n    {} | {}", self.line, self.source)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n    help: {help}")?;
        }
        Ok(())
    }
}

/// Every fault found in one reading.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// `value` when nothing was found, else what was found.
    ///
    /// # Errors
    /// The faults themselves.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        // What is wrong in a file's defaults is found at each row that they stand for.
        self.0.dedup();
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(fault, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_names_line_and_column_in_characters() {
        let file = SourceFile::new("a.toml", "x = 1\nname = \"é\" bad\n");
        let at = file.text.find("bad").unwrap();
        let fault = file.fault(at..at + 3, "no").help("remove it");
        assert_eq!(fault.length, 3);
        assert_eq!(file.fault(at..at + 4, "").length, 3, "only what stands on the first line");
        assert_eq!(file.fault(at..99, "").length, 0, "a span that is none is a point");
        assert_eq!(
            fault.to_string(),
            "a.toml:2:12: no\n    2 | name = \"é\" bad\n    help: remove it"
        );
    }
}
