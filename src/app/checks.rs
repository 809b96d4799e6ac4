//! What the configuration and the organisation say of each other, held against each other at start.

use crate::{
    config::{self, Config, Role},
    domain::Faults,
    facts::{ContentMode, KeySource, Organisation, Proposal},
    source,
};

/// Every name in `[[api_keys]]` must lead somewhere.
pub(super) fn check_keys(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
    let mut faults = Faults::default();
    for (index, key) in config.api_keys.iter().enumerate() {
        let at = index.to_string();
        let app = key.app.as_ref().filter(|_| key.roles.contains(&Role::Caller));
        if let Some(app) = app.filter(|app| !proposal.organisation.apps.contains_key(*app)) {
            let message = format!("API key `{}` names the unknown app `{app}`", key.name);
            let fault = config.fault(&["api_keys", &at, "app"], message);
            faults.0.push(
                fault.help("correct it, or declare it in an `[[apps]]` of the organisation file"),
            );
        }
        for code in &key.jurisdictions {
            if !proposal.world.knows_jurisdiction(code.as_str()) {
                let message =
                    format!("API key `{}` names the unknown jurisdiction `{code}`", key.name);
                let fault = config.fault(&["api_keys", &at, "jurisdictions"], message);
                faults.0.push(fault.help("write an ISO 3166 code such as `SA`"));
            }
        }
    }
    faults.or(())
}

/// What the organisation names of this machine, this machine's configuration must grant: the organisation
/// is content, which others write too.
pub(super) fn check_grants(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let file = &proposal.organisation_file;
    for (index, deployment) in proposal.organisation.deployments.iter().enumerate() {
        let Some(backend) = &deployment.backend else { continue };
        let mut fault = |key: &str, message: String, help: String| {
            let place = ["deployments", &index.to_string(), "backend", key];
            let fault = file.fault(config::locate(file, &place), message);
            faults.0.push(source::without_secrets(file, fault).help(help));
        };
        let id = &deployment.id;
        match &backend.key {
            // The key itself may be written where its name belongs.
            Some(KeySource::Secret(name)) if !config.secrets.named.contains_key(name) => {
                let name = if source::is_word(name) { name.as_str() } else { "…" };
                fault(
                    "api_key",
                    format!(
                        "deployment `{id}` has the key `{name}`, and `[secrets]` does not say where that is"
                    ),
                    format!(
                        "add `[secrets.{name}]` with `env`, `file` or `command` to this machine's configuration, or correct the name"
                    ),
                );
            }
            Some(KeySource::Environment(name)) if !config.secrets.environment.contains(name) => {
                let hidden = "…".to_owned();
                let name = if source::is_variable(name) { name } else { &hidden };
                fault(
                    "api_key_env",
                    format!(
                        "deployment `{id}` names the environment variable `{name}`, which `[secrets] environment` does not list"
                    ),
                    format!(
                        "if its value may be sent to that backend, write `environment = {}` below `[secrets]` of this machine's configuration",
                        listed(config.secrets.environment.iter().chain([name]))
                    ),
                );
            }
            _ => {}
        }
        if let Some(path) = &backend.ca_file
            && !config.backends.ca_files.contains(path)
        {
            let paths: Vec<_> = config.backends.ca_files.iter().chain([path]).collect();
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            fault(
                "ca_file",
                format!(
                    "deployment `{id}` names the certificate authority `{}`, which `[backends] ca_files` does not list",
                    path.display()
                ),
                format!(
                    "write `ca_files = {}` below `[backends]` of this machine's configuration",
                    listed(paths.iter())
                ),
            );
        }
    }
    faults.or(())
}

/// A list as TOML has it.
fn listed<'a>(words: impl Iterator<Item = &'a String>) -> String {
    format!("[{}]", words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "))
}

/// What calls say is kept under a key, or not at all.
pub(super) fn check_content(config: &Config, organisation: &Organisation) -> Result<(), Faults> {
    let mut faults = Faults::default();
    if config.ledger.master_key_file.is_none() {
        for (id, app) in &organisation.apps {
            if app.content == ContentMode::Sealed {
                let message = format!(
                    "app `{id}` has `content = \"sealed\"`, and there is no key to seal it under"
                );
                let fault = config.fault(&["ledger", "master_key_file"], message);
                faults.0.push(fault.help(
                    "set `[ledger] master_key_file` to a file of 64 random hexadecimal digits, or write `content = \"none\"` in the organisation file",
                ));
            }
        }
    }
    faults.or(())
}
