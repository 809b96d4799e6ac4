//! TOML with places: what `serde` finds wrong, said with file and line.

use serde::de::DeserializeOwned;

use super::{Fault, SourceFile, nearest, without_secrets};

/// Reads `file` as a `T`.
///
/// # Errors
/// One fault, at its place: broken TOML, an unknown key, a missing key, a wrong type.
pub fn parse<T: DeserializeOwned>(file: &SourceFile) -> Result<T, Fault> {
    toml::from_str(&file.text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let fault = file.fault(span, error.message().trim().to_owned());
        let line = fault.source.clone();
        let mut fault = without_secrets(file, fault);
        if fault.source != line {
            fault.message = without_found(&fault.message);
        }
        match error.message() {
            text if text.starts_with("unknown field") => {
                let help =
                    meant(text).unwrap_or_else(|| "remove the key, or correct its spelling".into());
                fault.help(help)
            }
            text if text.starts_with("unknown variant") => match meant(text) {
                Some(help) => fault.help(help),
                None => fault,
            },
            text if text.starts_with("missing field") => fault.help("add the key"),
            _ => fault,
        }
    })
}

/// Which of the names that were expected is near to the one that was found, in serde's words for both.
fn meant(message: &str) -> Option<String> {
    let (found, expected) = message.split_once("`, expected ")?;
    let (_, found) = found.split_once('`')?;
    let near = nearest(found, expected.split('`').skip(1).step_by(2))?;
    Some(format!("did you mean `{near}`?"))
}

/// What was wanted, without the value that was found.
fn without_found(message: &str) -> String {
    let wanted = message.rsplit_once(", expected ").map(|(_, wanted)| wanted);
    match (message.split_once(": "), wanted) {
        (Some((what, _)), Some(wanted)) if what.starts_with("invalid ") => {
            format!("{what}: expected {wanted}")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "they are read, and looked at no further")]
    struct Row {
        tier: Option<bool>,
        api_key: Option<String>,
        password: Option<bool>,
    }

    #[test]
    fn a_misspelt_key_leads_to_the_right_one() {
        for (text, want) in [
            ("teir = true", Some("did you mean `tier`?")),
            ("API-KEY = 'x'", Some("did you mean `api_key`?")),
            ("placement = 'x'", Some("remove the key, or correct its spelling")),
        ] {
            let fault = parse::<Row>(&SourceFile::new("a.toml", text)).unwrap_err();
            assert_eq!(fault.help.as_deref(), want, "{text}");
        }
        let said = |text: &str| meant(text);
        let variant =
            "unknown variant `onprem`, expected one of `on_device`, `hybrid_gpu`, `remote`";
        assert_eq!(said(variant), None);
        let variant = "unknown variant `ondevice`, expected one of `on_device`, `hybrid_gpu`";
        assert_eq!(said(variant).as_deref(), Some("did you mean `on_device`?"));
        assert_eq!(said("unknown field `a`, there are no fields"), None);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_shown_unless_it_may_be_a_secret() {
        for (text, want) in [
            ("tier = 'x'", "invalid type: string \"x\", expected a boolean"),
            ("api_key = 4711", "invalid type: expected a string"),
            ("password = 'a, expected b: c'", "invalid type: expected a boolean"),
        ] {
            let fault = parse::<Row>(&SourceFile::new("a.toml", text)).unwrap_err();
            assert_eq!(fault.message, want, "{text}");
        }
    }
}
