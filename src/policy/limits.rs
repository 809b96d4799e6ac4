//! How large and how deep policies may be. Looked at before Cedar's parser, which calls itself for each
//! level, as does everything that walks what it has read: a text that is deep enough ends the process.

use std::ops::Range;

use crate::source::{Fault, SourceFile};

/// How far brackets may lie within each other.
pub const DEEPEST: usize = 64;
/// How many operators, brackets and conditions may lie on one path through an expression. `a || b || c`
/// is read as `(a || b) || c`: a long chain is as deep as it is long.
pub const MOST_TERMS: usize = 256;
/// The longest policy, in bytes.
pub(super) const LONGEST_POLICY: usize = 64 << 10;
/// The most policies of a folder.
pub(super) const MOST_POLICIES: usize = 10_000;
/// The longest name of an entity, in bytes.
pub(super) const LONGEST_NAME: usize = 1 << 10;

/// What was found in a text of Cedar.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// How many statements there are.
    pub(super) statements: usize,
    /// The value of each `@id`, as it is written.
    pub(super) ids: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

/// Surveys policies, or a schema, whose `<` and `>` are brackets.
pub(super) fn survey(file: &SourceFile, is_schema: bool) -> Survey {
    let mut reader = Reader {
        file,
        is_schema,
        levels: vec![Level::default()],
        begun: None,
        found: Survey::default(),
    };
    let mut id = Annotation::None;
    for (span, token) in (Tokens { text: &file.text, at: 0 }) {
        id = id.follow(token, &mut reader.found.ids);
        reader.take(span, token);
        // One fault is enough: a text that is too deep is not read on.
        if !reader.found.faults.is_empty() {
            return reader.found;
        }
    }
    reader.end(file.text.len());
    reader.found
}

/// How far an `@id("…")` was read.
enum Annotation {
    None,
    At,
    Id,
    Open,
}

impl Annotation {
    fn follow(self, token: &str, ids: &mut Vec<String>) -> Self {
        match (self, token) {
            (_, "@") => Self::At,
            (Self::At, "id") => Self::Id,
            (Self::Id, "(") => Self::Open,
            (Self::Open, text) if text.starts_with('"') => {
                ids.push(text.trim_matches('"').to_owned());
                Self::None
            }
            _ => Self::None,
        }
    }
}

/// What lies between two brackets, up to now.
#[derive(Debug, Default)]
struct Level {
    /// `&&`, `||`, `if` and the like, which join one operand to the next.
    joins: usize,
    /// Operators within the operand at hand, and within the longest before it.
    here: usize,
    longest: usize,
    /// The deepest bracket in the part at hand.
    within: usize,
    /// The deepest part before it: parts are set apart by commas.
    deepest: usize,
}

impl Level {
    fn join(&mut self) {
        self.joins += 1;
        self.longest = self.longest.max(self.here);
        self.here = 0;
    }

    fn depth(&self) -> usize {
        self.deepest.max(self.joins + self.longest.max(self.here) + self.within)
    }

    fn part(&mut self) {
        *self = Self { deepest: self.depth(), ..Self::default() };
    }
}

struct Reader<'a> {
    file: &'a SourceFile,
    is_schema: bool,
    /// From the outermost to the one at hand; never empty.
    levels: Vec<Level>,
    /// Where the statement at hand began.
    begun: Option<usize>,
    found: Survey,
}

impl Reader<'_> {
    fn take(&mut self, span: Range<usize>, token: &str) {
        let begun = *self.begun.get_or_insert(span.start);
        if span.end - begun > LONGEST_POLICY && !self.is_schema {
            let message = format!("the policy is longer than {LONGEST_POLICY} bytes");
            return self.fault(begun..span.end, message, "split it into several policies");
        }
        match token {
            "(" | "[" | "{" => self.open(span, token),
            ")" | "]" | "}" => self.close(&span),
            "<" if self.is_schema => self.open(span, token),
            ">" if self.is_schema => self.close(&span),
            ";" if self.levels.len() == 1 => self.end(span.end),
            "," | ";" => self.with(&span, Level::part),
            "&&" | "||" | "if" | "then" | "else" => self.with(&span, Level::join),
            "." | "!" | "+" | "-" | "*" | "/" | "%" | "==" | "!=" | "<" | "<=" | ">" | ">="
            | "in" | "is" | "has" | "like" | "?" | ":" => self.with(&span, |level| level.here += 1),
            _ => {}
        }
    }

    fn open(&mut self, span: Range<usize>, token: &str) {
        if self.levels.len() > DEEPEST {
            let message = format!("brackets lie more than {DEEPEST} deep within each other");
            return self.fault(span, message, "give the inner part a policy of its own");
        }
        // Each `when` and `unless` is joined to those before it.
        if token == "{" && self.levels.len() == 1 {
            self.with(&span, Level::join);
        }
        self.levels.push(Level::default());
    }

    fn close(&mut self, span: &Range<usize>) {
        // A bracket too many is the parser's to tell.
        if self.levels.len() > 1
            && let Some(level) = self.levels.pop()
        {
            let depth = level.depth() + 1;
            self.with(span, |outer| outer.within = outer.within.max(depth));
        }
    }

    /// Changes the level at hand, which must not become too deep by it.
    fn with(&mut self, span: &Range<usize>, change: impl FnOnce(&mut Level)) {
        if let Some(level) = self.levels.last_mut() {
            change(level);
        }
        let depth: usize = self.levels.iter().map(|level| level.joins + level.here).sum();
        let deepest = self.levels.last().map_or(0, Level::depth);
        if depth + self.levels.len() > MOST_TERMS || deepest > MOST_TERMS {
            let message = format!("an expression joins more than {MOST_TERMS} terms");
            let help = "write a set and `contains`, or several policies: each alternative of an `||` can be one";
            self.fault(span.clone(), message, help);
        }
    }

    /// Ends the statement at hand.
    fn end(&mut self, at: usize) {
        while self.levels.len() > 1 && self.found.faults.is_empty() {
            self.close(&(at..at));
        }
        self.found.statements += usize::from(self.begun.take().is_some());
        self.levels = vec![Level::default()];
    }

    fn fault(&mut self, span: Range<usize>, message: String, help: &str) {
        self.found.faults.push(self.file.fault(span, message).help(help));
    }
}

/// The tokens of a text, without white space and comments.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Range<usize>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.text.get(self.at..)?;
            let first = rest.chars().next()?;
            let length = match first {
                _ if first.is_whitespace() => first.len_utf8(),
                '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                _ => break,
            };
            self.at += length;
        }
        let rest = self.text.get(self.at..)?;
        let length = length_of_token(rest);
        let span = self.at..self.at + length;
        self.at = span.end;
        Some((span.clone(), self.text.get(span)?))
    }
}

fn length_of_token(rest: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let first = rest.chars().next().unwrap_or_default();
    if first == '"' {
        let mut is_escaped = true;
        let end = rest.char_indices().find(|(_, c)| {
            let is_end = *c == '"' && !is_escaped;
            is_escaped = !is_escaped && *c == '\\';
            is_end
        });
        return end.map_or(rest.len(), |(at, _)| at + 1);
    }
    if is_word(first) {
        return rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    }
    let is_pair =
        ["&&", "||", "==", "!=", "<=", ">=", "::"].iter().any(|pair| rest.starts_with(pair));
    if is_pair { 2 } else { first.len_utf8() }
}
