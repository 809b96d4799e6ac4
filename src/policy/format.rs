//! The layout of policies: how a file looks, never what it says.

use cedar_policy::PolicySet;
use cedar_policy_formatter::{Config, policies_str_to_pretty};

use super::{bundle::parse, deep::on_deep_stack};
use crate::source::{Faults, SourceFile};

/// How wide lines are, and how far they are set in.
const LAYOUT: Config = Config { line_width: 100, indent_width: 2 };
/// A layout that has not settled by then does not settle.
const PASSES: usize = 4;

/// The text of `file` in Cedar's own layout, which laid out again stays as it is.
///
/// # Errors
/// Faults of a file that does not parse; and one of a file that must stay as it is, since its policies
/// would say something else afterwards, or a comment would be lost.
pub fn format(file: &SourceFile) -> Result<String, Faults> {
    on_deep_stack(|| lay_out(file))
}

fn lay_out(file: &SourceFile) -> Result<String, Faults> {
    let before = parse(file)?;
    let refuse = |why: String| {
        let fault = file.fault(0..0, format!("the file cannot be laid out: {why}"));
        Faults::from(fault.help("it stays as it is; lay it out by hand"))
    };
    let mut text = file.text.to_string();
    for _ in 0..PASSES {
        let next =
            policies_str_to_pretty(&text, &LAYOUT).map_err(|error| refuse(error.to_string()))?;
        let next = with_paragraphs(&text, next);
        if next == text {
            return match change(file, &before, &text) {
                Some(why) => Err(refuse(why)),
                None => Ok(text),
            };
        }
        text = next;
    }
    Err(refuse("its layout does not settle".to_owned()))
}

/// What is not the same in `text` as in `file`, whose policies are `before`, beside the layout.
fn change(file: &SourceFile, before: &PolicySet, text: &str) -> Option<String> {
    let after = parse(&SourceFile::new(&file.path, text)).ok();
    if !after.is_some_and(|after| same_policies(before, &after)) {
        return Some("its policies would say something else".to_owned());
    }
    let mut kept: Vec<&str> = comments(text).into_iter().map(|(_, comment)| comment).collect();
    let lost = comments(&file.text).into_iter().find(|(_, comment)| {
        let place = kept.iter().position(|other| other == comment);
        place.map(|place| kept.remove(place)).is_none()
    });
    lost.map(|(_, comment)| format!("the comment `{comment}` would be lost"))
}

/// `after` with the empty lines that follow comments in `before`: the formatter runs a file's first
/// words into what is said of its first policy.
fn with_paragraphs(before: &str, after: String) -> String {
    let (old, new) = (comments(before), comments(&after));
    if !old.iter().map(|(_, comment)| comment).eq(new.iter().map(|(_, comment)| comment)) {
        return after;
    }
    let is_empty =
        |text: &str, line: usize| text.lines().nth(line).is_some_and(|l| l.trim().is_empty());
    let ends = old.iter().zip(&new).filter(|((line, _), _)| is_empty(before, line + 1));
    let ends: Vec<usize> = ends.map(|(_, (line, _))| *line).collect();
    let mut text = String::new();
    for (number, line) in after.lines().enumerate() {
        text.push_str(line);
        text.push('\n');
        if ends.contains(&number)
            && after.lines().nth(number + 1).is_some_and(|next| !next.is_empty())
        {
            text.push('\n');
        }
    }
    text
}

/// Whether both sets say the same, annotations included, in the same order.
fn same_policies(a: &PolicySet, b: &PolicySet) -> bool {
    match (a.clone().to_json(), b.clone().to_json()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The comments of a text of policies, each with the number of its line.
fn comments(text: &str) -> Vec<(usize, &str)> {
    text.lines().enumerate().filter_map(|(number, line)| Some((number, comment(line)?))).collect()
}

fn comment(line: &str) -> Option<&str> {
    let mut in_string = false;
    let mut characters = line.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek().is_some_and(|(_, next)| *next == '/') => {
                return line.get(at..).map(str::trim_end);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROWDED: &str = r#"// first
@id("a // no comment") permit(principal,action,resource) // behind
// before when
when{context.data.personal&&resource==Jurisdiction::"DE"};
// last"#;

    fn laid_out(text: &str) -> Result<String, Faults> {
        format(&SourceFile::new("a.cedar", text))
    }

    #[test]
    fn a_layout_keeps_policies_and_comments_and_settles() {
        let text = laid_out(CROWDED).unwrap();
        let kept: Vec<&str> = comments(&text).into_iter().map(|(_, comment)| comment).collect();
        assert_eq!(kept, ["// first", "// behind", "// before when", "// last"]);
        assert_eq!(laid_out(&text).unwrap(), text);
        assert_ne!(text, CROWDED);
    }

    #[test]
    fn every_shipped_pack_can_be_laid_out_or_stays_as_it_is() {
        for file in shipped() {
            match format(&file) {
                Ok(text) => assert_eq!(laid_out(&text).unwrap(), text, "{}", file.path),
                Err(faults) => panic!("{faults}"),
            }
        }
    }

    #[test]
    fn what_is_said_of_the_file_stays_apart_from_what_is_said_of_a_policy() {
        let text =
            "// The file.\n\n// The policy.\n@id(\"a\")\npermit (principal, action, resource);\n";
        assert_eq!(laid_out(text).unwrap(), text);
    }

    #[test]
    fn what_does_not_parse_is_a_fault_at_its_place() {
        let faults = laid_out("permit (principal, action, resource)\nwhen { 1 + };\n").unwrap_err();
        assert_eq!((faults.0[0].line, &*faults.0[0].file), (2, "a.cedar"));
    }

    #[test]
    fn comments_are_told_from_strings() {
        let text = "a // b\n\"//\" // c \n\"\\\"//\"\n/ /\n//";
        assert_eq!(comments(text), [(0, "// b"), (1, "// c"), (4, "//")]);
    }

    fn shipped() -> Vec<SourceFile> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let folders = ["base", "sovereignty", "licensing", "duties"];
        let paths = folders.into_iter().flat_map(|folder| {
            std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path())
        });
        let read = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            SourceFile::new(&path.display().to_string(), &text)
        };
        paths.map(read).collect()
    }
}
