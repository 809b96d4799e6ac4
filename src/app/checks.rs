//! What the configuration and the organisation say of each other, held against each other at start.

use std::path::{Path, PathBuf};

use crate::{
    config,
    config::{Config, Role},
    domain::{AppId, JurisdictionCode, meant_jurisdiction},
    facts::{ContentMode, KeySource, Organisation, Proposal},
    source,
    source::{Fault, Faults, nearest},
};

/// A template that is not filled in is not a law that somebody has read: neither in what decides nor in the
/// cases that show it.
///
/// # Errors
/// A fault for each line with a mark.
pub fn check_marks(dir: &Path) -> Result<(), Faults> {
    let folder = config::read_policy_folder(dir)?;
    let is_text = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "toml");
    let cases = folder.cases.iter().filter(is_text).map(|path| config::read_file(&dir.join(path)));
    let mut found = Faults::default();
    for file in &folder.files {
        let path = dir.join(&*file.path).display().to_string();
        let marks = source::marks(file).into_iter();
        found.0.extend(marks.map(|fault| Fault { file: path.as_str().into(), ..fault }));
    }
    for file in cases {
        found.0.extend(source::marks(&file?));
    }
    found.or(())
}

/// What the organisation asks of this machine's configuration: apps and places of API keys, secrets, and a
/// master key.
///
/// # Errors
/// Every fault found.
pub fn check_machine(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
    let checks = [
        check_keys(config, proposal),
        check_grants(config, proposal),
        check_content(config, &proposal.organisation),
    ];
    Faults(checks.into_iter().filter_map(Result::err).flat_map(|faults| faults.0).collect()).or(())
}

/// What to write instead of a jurisdiction that an API key cannot be limited to.
///
/// What is recorded names the country of a subdivision without a law of its own: an auditor of a part of it
/// would see all of it, or nothing.
#[must_use]
pub fn unknown_place(code: &JurisdictionCode) -> String {
    match (meant_jurisdiction(code.as_str()), code.parts()) {
        (Some(help), _) => help,
        (None, Some((country, _))) => {
            format!(
                "records name only the country: write `{country}`, and the key reads the records of that country"
            )
        }
        (None, None) => "write an ISO 3166 code such as `SA`".to_owned(),
    }
}

/// Every name in `[[api_keys]]` must lead somewhere.
fn check_keys(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
    let mut faults = Faults::default();
    for (index, key) in config.api_keys.iter().enumerate() {
        let at = index.to_string();
        let app = key.app.as_ref().filter(|_| key.roles.contains(&Role::Caller));
        if let Some(app) = app.filter(|app| !proposal.organisation.apps.contains_key(*app)) {
            let message = format!("API key `{}` names the unknown app `{app}`", key.name);
            let fault = config.fault(&["api_keys", &at, "app"], message);
            let known = proposal.organisation.apps.keys().map(AppId::as_str);
            faults.0.push(fault.help(match nearest(app.as_str(), known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "correct it, or declare it in an `[[apps]]` of the organisation file".to_owned()
                }
            }));
        }
        for code in &key.jurisdictions {
            if !proposal.world.knows_jurisdiction(code.as_str()) {
                let message =
                    format!("API key `{}` names the unknown jurisdiction `{code}`", key.name);
                let fault = config.fault(&["api_keys", &at, "jurisdictions"], message);
                faults.0.push(fault.help(unknown_place(code)));
            }
        }
    }
    faults.or(())
}

/// What the organisation names of this machine, this machine's configuration must grant: the organisation
/// is content, which others write too.
fn check_grants(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
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
            Some(KeySource::Secret(name)) => {
                // The key itself may be written where its name belongs.
                let shown = if source::is_name(name) { name.as_str() } else { "…" };
                let found = config.secrets.alike(name);
                match &found[..] {
                    [_] => {}
                    [] => fault(
                        "api_key",
                        format!(
                            "deployment `{id}` has the key `{shown}`, and `[secrets]` does not say where that is"
                        ),
                        format!(
                            "add `[secrets.{shown}]` with `env`, `file` or `command` to this machine's configuration, or correct the name"
                        ),
                    ),
                    several => fault(
                        "api_key",
                        format!(
                            "deployment `{id}` has the key `{shown}`, and `[secrets]` has {} that differ from it only in case and separators",
                            several.len()
                        ),
                        "write the name exactly as one of them has it".to_owned(),
                    ),
                }
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
