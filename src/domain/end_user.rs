//! The end user of a call: one form for one person, whichever way their name arrives.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use unicode_normalization::UnicodeNormalization as _;

/// The longest identifier, in bytes.
const LONGEST: usize = 256;
/// The longest text that is brought into its form at all: composing shortens a text to a third at most.
const LONGEST_GIVEN: usize = 4 * LONGEST;

/// Who an end user is, in the one form under which they are sealed, found and erased: without white
/// space around it, composed (Unicode normalization form C), without characters that nobody sees.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EndUser(String);

/// A text that names no end user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndUser {
    /// Nothing is left of it.
    #[error("an end user's name is empty: leave the field out where there is no end user")]
    Empty,
    /// It is longer than is taken.
    #[error("an end user's name is longer than {LONGEST} bytes")]
    TooLong,
    /// Two names that look alike would be two persons.
    #[error("an end user's name holds a control character, or one that is not visible")]
    Invisible,
}

impl EndUser {
    /// The end user whom `text` names.
    ///
    /// # Errors
    /// When it is empty, too long, or holds what nobody sees.
    pub fn parse(text: &str) -> Result<Self, InvalidEndUser> {
        let text = text.trim();
        if text.len() > LONGEST_GIVEN {
            return Err(InvalidEndUser::TooLong);
        }
        let composed: String = text.nfc().collect();
        let name = composed.trim();
        if name.is_empty() {
            return Err(InvalidEndUser::Empty);
        }
        if name.len() > LONGEST {
            return Err(InvalidEndUser::TooLong);
        }
        if name.chars().any(is_invisible) {
            return Err(InvalidEndUser::Invisible);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every form under which a version before this one may have sealed the person whom `given` names:
    /// as it is, and composed or taken apart, with and without white space around it.
    #[must_use]
    pub fn former_forms(given: &str) -> Vec<String> {
        if given.len() > LONGEST_GIVEN {
            return Vec::new();
        }
        let inner = given.trim();
        let composed: String = inner.nfc().collect();
        let apart: String = inner.nfd().collect();
        let mut forms = vec![given.to_owned(), given.nfc().collect(), given.nfd().collect()];
        for name in [inner, composed.as_str(), apart.as_str()] {
            for (before, after) in [
                ("", ""),
                (" ", ""),
                ("", " "),
                (" ", " "),
                ("", "\n"),
                ("", "\r\n"),
                ("\t", ""),
                ("", "\t"),
            ] {
                forms.push([before, name, after].concat());
            }
        }
        forms.sort();
        forms.dedup();
        forms
    }
}

/// Control and format characters, but for the joiners that Persian, Hindi and others write with.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Who it is stays out of logs.
impl fmt::Debug for EndUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndUser")
    }
}

impl<'de> Deserialize<'de> for EndUser {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Result<String, InvalidEndUser> {
        EndUser::parse(text).map(|user| user.0)
    }

    #[test]
    fn one_person_has_one_form() {
        for text in [
            "J\u{fc}rgen",
            "Ju\u{308}rgen",
            " J\u{fc}rgen",
            "Ju\u{308}rgen\r\n",
            "\u{3000}J\u{fc}rgen\u{a0}",
        ] {
            assert_eq!(name(text), Ok("J\u{fc}rgen".to_owned()), "{text:?}");
        }
        assert_eq!(
            name("\u{212b}ngstr\u{f6}m").unwrap(),
            "\u{c5}ngstr\u{f6}m",
            "the sign is the letter"
        );
        assert_eq!(name("Doe, Jane").unwrap(), "Doe, Jane", "what is inside stays");
        assert_eq!(name("\u{646}\u{200c}\u{634}").unwrap(), "\u{646}\u{200c}\u{634}");
        assert_ne!(name("U-9"), name("u-9"), "case tells persons apart");
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for text in ["", " ", "\t\r\n", "\u{3000}\u{a0}"] {
            assert_eq!(name(text), Err(InvalidEndUser::Empty), "{text:?}");
        }
        for text in [
            "u\u{0}9",
            "u\n9",
            "u-9\u{200b}",
            "\u{feff}u-9",
            "\u{202e}9-u",
            "u\u{ad}9",
            "u\u{e0041}",
        ] {
            assert_eq!(name(text), Err(InvalidEndUser::Invisible), "{text:?}");
        }
        assert_eq!(name(&"u".repeat(257)), Err(InvalidEndUser::TooLong));
        assert_eq!(name(&"u\u{308}".repeat(10_000)), Err(InvalidEndUser::TooLong));
        assert!(name(&"u".repeat(256)).is_ok());
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form_and_that_of_all_former_ones(text in "\\PC{0,12}|[ a-z\u{300}-\u{30f}\u{1100}-\u{11ff}]{0,12}") {
            if let Ok(form) = name(&text) {
                prop_assert_eq!(name(&form), Ok(form.clone()));
                let formers = EndUser::former_forms(&text);
                prop_assert!(formers.contains(&text) && formers.contains(&form));
                for former in formers {
                    prop_assert_eq!(name(&former), Ok(form.clone()));
                }
            }
        }
    }
}
