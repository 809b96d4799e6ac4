//! What a fault shows of the line that it is about: never what is, or may be, a secret. A slip of the pen
//! (a missing quote, a key in the wrong place) must not bring one into a log.

use std::path::Path;

use super::{Fault, SourceFile};

/// Keys of TOML files whose values are secrets, or hold them, or are where one is written by mistake.
const SECRET: [&str; 22] = [
    "api_key",
    "api_key_env",
    "apikey",
    "authorization",
    "base_url",
    "bearer",
    "command",
    "credential",
    "credentials",
    "env",
    "headers",
    "key",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "pw",
    "secret",
    "secrets",
    "sha256",
    "token",
    "url",
];

/// The key of a line `key = value`, as far as it is one.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim().trim_matches(['"', '\'']);
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!key.is_empty() && key.chars().all(is_key)).then_some(key)
}

/// Whether a key's value may be a secret: also where it is misspelt by a letter or two.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key).to_lowercase();
    let is_like = |secret: &&str| {
        let distance = strsim::damerau_levenshtein(&last, secret);
        distance == 0 || secret.len() > 3 && distance <= 2
    };
    SECRET.iter().any(is_like)
        || ["pass", "secret", "token", "key"].iter().any(|part| last.contains(part))
}

/// Leaves the fault's line out where the value that is written there, or that began on a line before it,
/// may be a secret. For files in which few values are.
#[must_use]
pub fn without_secrets(file: &SourceFile, mut fault: Fault) -> Fault {
    let before = file.text.lines().take(fault.line);
    let governing = before.filter_map(key_of).last();
    let holds_login = |line: &str| {
        line.split("://").skip(1).any(|rest| {
            rest.split(['/', '"', '\'', ' ']).next().is_some_and(|host| host.contains('@'))
        })
    };
    let is_named = fault
        .source
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .next()
        .is_some_and(|word| !word.is_empty() && is_secret(word));
    if governing.is_some_and(is_secret) || is_named || holds_login(&fault.source) {
        fault.source.clear();
    }
    fault
}

/// Shows of the fault's line the key alone, and nothing where the line is no `key = value` with one of the
/// keys that are `known`. For files in which many values are secrets.
#[must_use]
pub fn without_values(mut fault: Fault, known: &[&str]) -> Fault {
    let line = fault.source.trim_end();
    let indent = line.len() - line.trim_start().len();
    let is_known = |name: &str| name.split('.').all(|part| known.contains(&part.trim()));
    let shown = if let Some(key) = key_of(line).filter(|key| is_known(key)) {
        Some(format!("{}{key} = …", " ".repeat(indent)))
    } else {
        let name = line.trim().trim_start_matches('[').trim_end_matches(']');
        (line.trim().starts_with('[') && is_known(name)).then(|| line.to_owned())
    };
    fault.source = shown.unwrap_or_default();
    if fault.column > fault.source.chars().count() {
        fault.length = 0;
    }
    fault
}

/// Whether `name` has the look of a key that somebody meant to write, and not that of a secret.
#[must_use]
pub fn is_word(name: &str) -> bool {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    (1..=32).contains(&name.len())
        && digits <= 3
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
}

/// Whether `name` is a word in small letters or in capitals, with `-` or `_` between its parts.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_one_case = name.to_lowercase() == name || name.to_uppercase() == name;
    is_one_case && is_word(&name.to_lowercase().replace('-', "_"))
}

/// Whether `name` has the look of an environment variable's name, and not that of a secret.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// A path as it may be shown: whoever writes a key where the path of its file belongs shall not find it in a
/// log.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_short = name.len() <= 48 && name.bytes().filter(u8::is_ascii_digit).count() <= 10;
    if folder.is_some_and(Path::is_dir) && is_short || path.exists() {
        path.display().to_string()
    } else {
        "…".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: usize) -> String {
        let file = SourceFile::new("a.toml", text);
        let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        without_secrets(&file, file.fault(start..start, "x")).source
    }

    #[test]
    fn a_line_with_a_secret_is_not_shown() {
        for (text, line) in [
            ("url = \"a\nb\n", 1),
            ("url = \"a\nb\n", 2),
            ("a = 1\napi_keey = \"x", 2),
            ("[a]\nPassword = 'x'", 2),
            ("backend.api_key = 'x'", 1),
            ("api_key \"x\"", 1),
            ("home = \"https://u:p@host/\"", 1),
            ("token = '''\nx\ny\n", 3),
        ] {
            assert_eq!(shown(text, line), "", "{text}");
        }
        for (text, line) in [
            ("tier = \"on_device\"", 1),
            ("url = 'x'\nid = 'y'", 2),
            ("source = \"https://a.example/b@c\"", 1),
        ] {
            assert_ne!(shown(text, line), "", "{text}");
        }
    }

    #[test]
    fn of_a_configuration_the_key_is_shown_alone() {
        let known = ["store", "url", "migrate"];
        for (line, want) in [
            ("url = \"postgres://u:p@h\"", "url = …"),
            ("  migrate=perhaps", "  migrate = …"),
            ("store.url = 1", "store.url = …"),
            ("[store]", "[store]"),
            ("[store", "[store"),
            ("[[store]]", "[[store]]"),
            ("[hush]", ""),
            ("hush", ""),
            ("hush = 1", ""),
            ("url hush", ""),
            ("\"hush\",", ""),
        ] {
            let fault = SourceFile::new("a", line).fault(0..0, "x");
            assert_eq!(without_values(fault, &known).source, want, "{line}");
        }
    }

    #[test]
    fn a_secret_has_not_the_look_of_a_word() {
        for word in ["listne", "sha265", "api_keey", "x"] {
            assert!(is_word(word), "{word}");
        }
        for secret in ["", "Hunter", "sk-live-x", "a1b2c3d4e5", "0123456789abcdef"] {
            assert!(!is_word(secret), "{secret}");
        }
        for (name, want) in
            [("frankfurt-2", true), ("FRANKFURT", true), ("sk-Live-x", false), ("", false)]
        {
            assert_eq!(is_name(name), want, "{name}");
        }
        for (name, want) in [
            ("FRANKFURT_API_KEY", true),
            ("KEY_2", true),
            ("", false),
            ("hunter2", false),
            ("sk-live-x", false),
        ] {
            assert_eq!(is_variable(name), want, "{name}");
        }
        assert_eq!(shown_path(Path::new("src/no-such.key")), "src/no-such.key");
        for secret in
            ["hunter2", "nowhere/hunter2", "/nowhere/hunter2", &"0123456789abcdef".repeat(4)]
        {
            assert_eq!(shown_path(Path::new(secret)), "…", "{secret}");
        }
    }
}
