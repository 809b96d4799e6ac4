//! Names that some reader of JSON takes for one another.

/// The form that all names have in common which a reader without regard to case takes for one: Go's
/// `encoding/json`, .NET's web defaults. Under Unicode's case folding `ſ` is an `s` and the Kelvin sign a
/// `k`; the two Turkish letters are an `i` here too, as they are to some readers.
#[must_use]
pub fn fold(name: &str) -> String {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return name.to_owned();
    }
    // First up: `ſ` is small already, and only its capital is that of `s`.
    let folded = name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    folded.filter(|c| *c != '\u{307}').collect()
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn names_fold_as_readers_without_regard_to_case_take_them() {
        for other in ["MODEL", "Model", "mODEL"] {
            assert_eq!(fold(other), "model", "{other}");
        }
        for (other, name) in [
            ("\u{17f}tream", "stream"),
            ("me\u{17f}\u{17f}ages", "messages"),
            ("bac\u{212a}ground", "background"),
            ("f\u{131}le_id", "file_id"),
            ("F\u{130}LE_ID", "file_id"),
        ] {
            assert_eq!(fold(other), name, "{other}");
        }
        assert_ne!(fold("modeL2"), "model");
    }
}
