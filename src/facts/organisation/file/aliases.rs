//! Reading how callers see the organisation: the names under which they ask for models, and the status
//! with which they are denied. A name that could mean two models means none.

use toml::Spanned;

use super::{
    Reader,
    rows::{File, Text},
};

/// The status of a denial where the organisation names none.
const DENIED: u16 = 403;
/// Those that it may name. Some agents take a 403 for something that passes, and none a 400.
const DENIALS: [u16; 2] = [400, DENIED];

impl Reader<'_> {
    pub(super) fn denial_status(&mut self, status: Option<&Spanned<u16>>) -> u16 {
        let Some(status) = status else { return DENIED };
        if !DENIALS.contains(status.get_ref()) {
            let message = format!("`denial_status` cannot be {}", status.get_ref());
            let help = "write 403, or 400 for agents that send a call again after a 403";
            self.faults.0.push(self.file.fault(status.span(), message).help(help));
        }
        *status.get_ref()
    }

    /// Checks the aliases of all virtual models against each other, and against every other name.
    pub(super) fn aliases(&mut self, rows: &File) {
        let names = rows.virtual_models.iter().map(|row| &row.id);
        let names = names.chain(rows.models.iter().map(|row| &row.id));
        let names = names.chain(rows.deployments.iter().map(|row| &row.id));
        let names: Vec<&str> = names.map(|id| id.get_ref().as_str()).collect();
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for row in &rows.virtual_models {
            let id = row.id.get_ref().as_str();
            for alias in &row.aliases {
                let text = alias.get_ref().as_str();
                if !is_alias(text) {
                    let help =
                        "write a name, or its beginning and `*` at its end, such as `gpt-5*`";
                    self.alias_fault(alias, format!("`{text}` is not an alias"), help);
                } else if names.contains(&text) {
                    let message = format!("the alias `{text}` is the name of a model already");
                    self.alias_fault(alias, message, "remove it: a name means itself");
                } else if let Some((other, of)) =
                    seen.iter().find(|(other, of)| clash(text, other, id == *of))
                {
                    let message = format!(
                        "the alias `{text}` of `{id}` and the alias `{other}` of `{of}` can mean the same name"
                    );
                    self.alias_fault(alias, message, "keep one, or make the two differ");
                }
                seen.push((text, id));
            }
        }
    }

    fn alias_fault(&mut self, alias: &Text, message: String, help: &str) {
        self.faults.0.push(self.file.fault(alias.span(), message).help(help));
    }
}

/// Whether a text can be an alias: a pattern that means every name would hide what is misspelt.
fn is_alias(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    text.len() <= 128
        && name.contains(char::is_alphanumeric)
        && !name.contains(|c: char| c == '*' || c.is_whitespace() || c.is_control())
}

/// Whether two aliases of virtual models, or of `one`, can mean the same name. A whole name goes before a
/// pattern.
fn clash(alias: &str, other: &str, one: bool) -> bool {
    match (alias.strip_suffix('*'), other.strip_suffix('*')) {
        (Some(alias), Some(other)) => {
            alias == other || (!one && (alias.starts_with(other) || other.starts_with(alias)))
        }
        _ => alias == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_name_or_its_beginning() {
        for good in ["gpt-5", "gpt-5*", "openai/gpt-5", "claude-haiku-4-5-20251001", "o3*"] {
            assert!(is_alias(good), "{good}");
        }
        for bad in ["", "*", "-*", "gpt*5", "gpt-5**", "gpt 5", "gpt-5\n"] {
            assert!(!is_alias(bad), "{bad:?}");
        }
    }

    #[test]
    fn patterns_of_two_models_may_not_overlap() {
        assert!(clash("gpt-5", "gpt-5", false) && clash("gpt-5*", "gpt-5*", true));
        assert!(clash("gpt-5*", "gpt-*", false) && clash("gpt-*", "gpt-5*", false));
        assert!(!clash("gpt-5*", "gpt-*", true), "they mean one model");
        assert!(!clash("gpt-5", "gpt-5*", false), "the whole name goes first");
        assert!(!clash("gpt-5*", "gpt-4*", false));
    }
}
