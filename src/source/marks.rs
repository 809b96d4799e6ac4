//! The mark that templates leave where a person has to write something.

use super::{Fault, SourceFile};

/// What stands in a template in place of what only its reader can know.
const MARK: &str = "REPLACE";

/// A fault for each line of `file` that still has the mark of a template.
#[must_use]
pub fn marks(file: &SourceFile) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut start = 0;
    for line in file.text.split_inclusive('\n') {
        if let Some(at) = find(line) {
            let fault =
                file.fault(start + at..start + at + MARK.len(), "the template is not filled in");
            faults.push(fault.help(
                "write what the line asks for in place of `REPLACE`; if it is a comment, remove the line once it is done",
            ));
        }
        start += line.len();
    }
    faults
}

/// Where the mark is a word of its own: `REPLACES` is not the mark.
fn find(line: &str) -> Option<usize> {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(MARK).map(|(at, _)| at).find(|at| {
        let before = line.get(..*at).and_then(|before| before.chars().next_back());
        let after = line.get(at + MARK.len()..).and_then(|after| after.chars().next());
        !is_part(before) && !is_part(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_where_it_is_a_word() {
        let file = SourceFile::new(
            "a.toml",
            "# é REPLACE the source\nx = 1\nsource = \"the Act, REPLACE: the article\"\n",
        );
        let found: Vec<_> = marks(&file).iter().map(|f| (f.line, f.column, f.length)).collect();
        assert_eq!(found, [(1, 5, 7), (3, 20, 7)]);
        for other in ["replace", "REPLACES", "NO_REPLACE", "REPLACED x"] {
            assert!(marks(&SourceFile::new("a", other)).is_empty(), "{other}");
        }
        assert_eq!(marks(&SourceFile::new("a", "REPLACES and REPLACE")).len(), 1);
    }
}
