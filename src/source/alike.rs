//! Names that an environment variable cannot spell: it has no small letters, as most write it, and neither
//! `-` nor `.`. Not what was probably meant by a name that is wrong.

/// Those of `names` that are meant by `name`: itself, or else each that differs in capitals and separators
/// alone.
pub fn alike<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Vec<&'a str> {
    let folded = fold(name);
    let mut found = Vec::new();
    for other in names {
        if other == name {
            return vec![other];
        }
        if fold(other) == folded {
            found.push(other);
        }
    }
    found
}

fn fold(name: &str) -> String {
    let separators = |c: char| if matches!(c, '-' | '.') { '_' } else { c.to_ascii_lowercase() };
    name.chars().map(separators).collect()
}

#[cfg(test)]
mod tests {
    use super::alike;

    #[test]
    fn a_name_is_found_in_any_case() {
        let names = ["FRANKFURT", "osaka-2", "Riyadh", "riyadh"];
        let found = |name| alike(names.into_iter(), name);
        assert_eq!(found("frankfurt"), ["FRANKFURT"]);
        assert_eq!(found("OSAKA_2"), ["osaka-2"]);
        assert_eq!(found("Riyadh"), ["Riyadh"], "its own name is meant");
        assert_eq!(found("RIYADH"), ["Riyadh", "riyadh"]);
        assert_eq!(found("osaka2"), Vec::<&str>::new());
    }
}
