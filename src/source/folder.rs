//! The walk through a policy folder. Every file is taken, is known to be none, or is named: a file that
//! is left out in silence is a law that is not applied.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{Fault, Faults, SourceFile};

/// The schema's place; there is one.
const SCHEMA: &str = "schema.cedarschema";
/// Where cases lie, which `lexgate policies test` reads.
const CASES: &str = "cases";
/// Where dated facts lie.
const FACTS: &str = "facts";
/// How far folders may lie within each other.
const DEEPEST: usize = 16;
/// How many names a policy folder may hold, hidden ones apart.
const MOST: usize = 20_000;
/// The longest file, in bytes.
const LONGEST: u64 = 4 << 20;

/// The files of a policy folder.
#[derive(Clone, Debug, Default)]
pub struct PolicyFolder {
    /// Those that decide, with paths relative to the folder, sorted.
    pub files: Vec<SourceFile>,
    /// The files of cases, with paths relative to the folder, sorted. They are not read here.
    pub cases: Vec<PathBuf>,
    /// Those that do neither, beside hidden files.
    pub not_taken: Vec<String>,
}

/// What a file's name says that it is.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// Schema, policy or dated facts.
    Deciding,
    /// A case, or what belongs to one.
    Case,
    /// Nothing that decides, although its name looks as if it did.
    Lookalike(&'static str),
    /// Anything else.
    Other,
}

/// Reads the files of the policy folder `dir` that decide. Links are followed; what is reached by two
/// names is a fault, since which of the two says what it is (a rule or a duty) would be chance.
///
/// # Errors
/// A fault for each file or folder that cannot be read, that is no regular file, or that looks like a
/// policy and would not be taken.
pub fn read_policy_folder(dir: &Path) -> Result<PolicyFolder, Faults> {
    let mut walk = Walk { dir, found: PolicyFolder::default(), seen: BTreeMap::new(), names: 0 };
    let mut faults = Faults::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = match walk.enter(&folder) {
            Ok(entries) => entries,
            Err(fault) => {
                faults.0.push(fault);
                continue;
            }
        };
        for path in entries {
            match walk.look_at(path) {
                Ok(Some(folder)) => folders.push(folder),
                Ok(None) => {}
                Err(fault) => faults.0.push(fault),
            }
        }
        if walk.names > MOST {
            let message = format!("the policy folder holds more than {MOST} files and folders");
            let fault = walk.place(Path::new("")).fault(0..0, message);
            return Err(fault
                .help("name the folder that holds the policies, and nothing else")
                .into());
        }
    }
    let mut found = walk.found;
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    found.cases.sort();
    found.not_taken.sort();
    faults.0.sort_by(|a, b| a.file.cmp(&b.file));
    faults.or(found)
}

struct Walk<'a> {
    dir: &'a Path,
    found: PolicyFolder,
    /// Where each file and folder really lies, and the name under which it was reached.
    seen: BTreeMap<PathBuf, PathBuf>,
    names: usize,
}

impl Walk<'_> {
    /// `path` as the reader would type it.
    fn place(&self, path: &Path) -> SourceFile {
        let path = if path == Path::new("") { self.dir.to_owned() } else { self.dir.join(path) };
        SourceFile::new(&path.display().to_string(), "")
    }

    fn unreadable(&self, path: &Path, error: &io::Error) -> Fault {
        let fault = self.place(path).fault(0..0, format!("cannot be read: {error}"));
        fault.help("`[policies] dir` names the policy folder; `lexgate init` writes one")
    }

    /// The names in `folder` that are not hidden, in order.
    fn enter(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Fault> {
        if folder.components().count() > DEEPEST {
            let message = format!("lies more than {DEEPEST} folders deep");
            return Err(self.place(folder).fault(0..0, message).help("lay it out flatter"));
        }
        self.reach(folder)?;
        let mut names = Vec::new();
        let entries = fs::read_dir(self.dir.join(folder));
        for entry in entries.map_err(|error| self.unreadable(folder, &error))? {
            let name = entry.map_err(|error| self.unreadable(folder, &error))?.file_name();
            // `.git`, `..data` of a ConfigMap, `._x.cedar`, an editor's `.#x.cedar`.
            if !name.as_encoded_bytes().starts_with(b".") {
                names.push(folder.join(name));
            }
        }
        self.names += names.len();
        names.sort();
        Ok(names)
    }

    /// Takes what lies at `path`, or gives it back where it is a folder.
    fn look_at(&mut self, path: PathBuf) -> Result<Option<PathBuf>, Fault> {
        let metadata = fs::metadata(self.dir.join(&path));
        let metadata = metadata.map_err(|error| self.unreadable(&path, &error))?;
        if metadata.is_dir() {
            return Ok(Some(path));
        }
        if !metadata.is_file() {
            let fault = self.place(&path).fault(0..0, "is neither a file nor a folder");
            return Err(fault.help("move it out of the policy folder"));
        }
        match role(&path) {
            Role::Deciding => self.take(&path, &metadata)?,
            Role::Case => self.found.cases.push(path),
            Role::Lookalike(remedy) => {
                let fault =
                    self.place(&path).fault(0..0, "looks like a policy and would not be one");
                return Err(fault.help(remedy));
            }
            Role::Other => self.found.not_taken.push(path.to_string_lossy().replace('\\', "/")),
        }
        Ok(None)
    }

    fn take(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Fault> {
        let Some(name) = path.to_str() else {
            let fault = self.place(path).fault(0..0, "has a name that is not Unicode");
            return Err(fault.help("rename it"));
        };
        self.reach(path)?;
        if metadata.len() > LONGEST {
            let message = format!("is longer than {LONGEST} bytes");
            return Err(self.place(path).fault(0..0, message).help("split it into several files"));
        }
        let text = read_file(&self.dir.join(path))?.text;
        self.found.files.push(SourceFile {
            path: name.replace('\\', "/").into(),
            text,
            is_recorded: false,
        });
        Ok(())
    }

    /// Refuses what was reached already by another name.
    fn reach(&mut self, path: &Path) -> Result<(), Fault> {
        let real = fs::canonicalize(self.dir.join(path));
        let real = real.map_err(|error| self.unreadable(path, &error))?;
        match self.seen.insert(real, path.to_owned()) {
            None => Ok(()),
            Some(before) => {
                let before = self.place(&before).path;
                let message = format!("is the same as `{before}`, by another name");
                let fault = self.place(path).fault(0..0, message);
                Err(fault.help("remove the link: each file and folder is read once"))
            }
        }
    }
}

/// Schema, policies and dated facts decide; cases and notes do not.
#[must_use]
pub fn decides(path: &Path) -> bool {
    role(path) == Role::Deciding
}

fn role(path: &Path) -> Role {
    let is_kind = |kind: &str| path.extension().is_some_and(|is| is == kind);
    let is_facts = path.starts_with(FACTS);
    if is_kind("cedarschema") && path == Path::new(SCHEMA)
        || is_kind("cedar")
        || is_facts && is_kind("toml")
    {
        return Role::Deciding;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.contains(".cedarschema") {
        return Role::Lookalike(
            "the one schema is `schema.cedarschema` in the policy folder itself: rename it, or move it away",
        );
    }
    if name.contains(".cedar") {
        return Role::Lookalike(
            "a policy's file ends in `.cedar`: rename it, or move it out of the policy folder",
        );
    }
    if path.starts_with(CASES) {
        return Role::Case;
    }
    let first =
        path.components().next().map(|part| part.as_os_str().to_string_lossy().to_lowercase());
    if first.as_deref() == Some(FACTS) && name.contains(".toml") {
        return Role::Lookalike(
            "dated facts lie in `facts/` and end in `.toml`: rename it, or move it out of the policy folder",
        );
    }
    Role::Other
}

/// The text of the file at `path`.
///
/// # Errors
/// A fault that names the file.
pub fn read_file(path: &Path) -> Result<SourceFile, Fault> {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => Ok(SourceFile::new(&name, &text)),
        Err(error) => {
            Err(SourceFile::new(&name, "").fault(0..0, format!("cannot be read: {error}")))
        }
    }
}

/// A regular file's text, as far as it is one that a person writes.
fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        let message = format!("it is longer than {LONGEST} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> &'static str {
        match role(Path::new(path)) {
            Role::Deciding => "deciding",
            Role::Case => "case",
            Role::Lookalike(_) => "lookalike",
            Role::Other => "other",
        }
    }

    #[test]
    fn a_name_says_what_a_file_is() {
        for (path, want) in [
            ("schema.cedarschema", "deciding"),
            ("own.cedar", "deciding"),
            ("a/b/own.cedar", "deciding"),
            ("cases/own.cedar", "deciding"),
            ("facts/zones.toml", "deciding"),
            ("facts/own/zones.toml", "deciding"),
            ("cases/own.toml", "case"),
            ("cases/own.json", "case"),
            ("own.CEDAR", "lookalike"),
            ("own.Cedar", "lookalike"),
            ("own.cedar.txt", "lookalike"),
            ("own.cedar.bak", "lookalike"),
            ("own.cedar~", "lookalike"),
            ("#own.cedar#", "lookalike"),
            ("own.cedars", "lookalike"),
            ("cases/own.cedar.txt", "lookalike"),
            ("Schema.CedarSchema", "lookalike"),
            ("sub/schema.cedarschema", "lookalike"),
            ("facts/zones.TOML", "lookalike"),
            ("facts/zones.toml.orig", "lookalike"),
            ("Facts/zones.toml", "lookalike"),
            ("README.md", "other"),
            ("facts/README.md", "other"),
            ("zones.toml", "other"),
            ("case/own.toml", "other"),
        ] {
            assert_eq!(of(path), want, "{path}");
        }
    }
}
