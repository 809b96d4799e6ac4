//! `lexgate keys`: API keys; the signing key is in [`super::signing`].

use std::{fs::OpenOptions, io::Write};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

use super::{
    ConfigFile, Failure, log_warnings, output,
    signing::{Retire, Rotate},
};
use crate::{
    app,
    config::Role,
    domain::{AppId, Digest, JurisdictionCode},
    facts::{Organisation, World},
    source::nearest,
};

/// Manage API keys.
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make an API key, add it to the configuration and print its secret, once.
    Create(Create),
    /// Give the log a new signing key, endorsed by the old one; both sign until `retire`.
    Rotate(Rotate),
    /// Let the former signing key sign no more.
    Retire(Retire),
}

/// Make an API key.
#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    config: ConfigFile,
    /// What it may do: a caller asks for decisions and calls models, an auditor reads the ledger, an
    /// officer sets and lifts legal holds and erases persons. No key changes policies or registers: those
    /// are files, and read at start.
    #[arg(long)]
    role: Role,
    /// The app that calls with it: required for a caller.
    #[arg(long)]
    app: Option<String>,
    /// Its name, which records show; made from role and app unless given.
    #[arg(long)]
    name: Option<String>,
    /// Limit an auditor to a jurisdiction; may be given several times.
    #[arg(long, value_name = "CODE")]
    jurisdiction: Vec<JurisdictionCode>,
    /// Let an auditor read the sealed values of persons, one record at a time.
    #[arg(long)]
    personal_values: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An API key that nobody else has seen yet.
#[derive(Debug, Serialize)]
pub(super) struct FreshKey {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) app: Option<String>,
    /// Shown once and kept nowhere.
    pub(super) secret: String,
    #[serde(skip)]
    jurisdictions: Vec<JurisdictionCode>,
    #[serde(skip)]
    personal_values: bool,
}

impl FreshKey {
    /// Makes a key from the machine's randomness.
    pub(super) fn make(name: String, role: Role, app: Option<String>) -> Result<Self, Failure> {
        let mut random = [0; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Failure::Environment("the system's random source failed".to_owned()))?;
        let role = role.as_str();
        let secret = format!("lexgate_{role}_{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        Ok(Self { name, role, app, secret, jurisdictions: Vec::new(), personal_values: false })
    }

    /// The configuration's words for it.
    pub(super) fn to_toml(&self) -> String {
        let quote = |text: &str| toml::Value::from(text).to_string();
        let mut lines = vec![
            String::new(),
            "[[api_keys]]".to_owned(),
            format!("name = {}", quote(&self.name)),
            format!("sha256 = \"{}\"", Digest::of(self.secret.as_bytes()).hex()),
            format!("roles = [\"{}\"]", self.role),
        ];
        lines.extend(self.app.as_ref().map(|app| format!("app = {}", quote(app))));
        if !self.jurisdictions.is_empty() {
            let codes = self.jurisdictions.iter().map(|code| quote(code.as_str()));
            let codes: Vec<String> = codes.collect();
            lines.push(format!("jurisdictions = [{}]", codes.join(", ")));
        }
        if self.personal_values {
            lines.push("personal_values = true".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

impl Keys {
    pub(super) async fn run(self) -> Result<(), Failure> {
        log_warnings()?;
        match self {
            Self::Create(create) => create.run(),
            Self::Rotate(rotate) => rotate.run().await,
            Self::Retire(retire) => retire.run().await,
        }
    }
}

/// A key for an app that nobody declared would keep the service from starting.
fn require_app(app: &str, organisation: &Organisation) -> Result<(), Failure> {
    if organisation.apps.contains_key(app) {
        return Ok(());
    }
    let known: Vec<&str> = organisation.apps.keys().map(AppId::as_str).collect();
    let remedy = match (nearest(app, known.iter().copied()), &known[..]) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "declare it in `[[apps]]`; there is none yet".to_owned(),
        (None, known) => format!("declare it in `[[apps]]`, or take one of {}", known.join(", ")),
    };
    Err(Failure::Usage(format!("the organisation file has no app `{app}`: {remedy}")))
}

/// An auditor's key that is limited to a place that no record names would read nothing.
fn require_places(codes: &[JurisdictionCode], world: &World) -> Result<(), Failure> {
    match codes.iter().find(|code| !world.knows_jurisdiction(code.as_str())) {
        None => Ok(()),
        Some(code) => {
            let help = app::unknown_place(code);
            Err(Failure::Usage(format!("unknown jurisdiction `{code}`: {help}")))
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        if self.role == Role::Caller && self.app.is_none() {
            return Err(Failure::Usage("a caller's key needs `--app APP`".to_owned()));
        }
        if self.personal_values && self.role != Role::Auditor {
            return Err(Failure::Usage("`--personal-values` is for an auditor's key".to_owned()));
        }
        if let Some(app) = &self.app {
            require_app(app, &app::read_proposal(&config)?.organisation)?;
        }
        if !self.jurisdiction.is_empty() {
            require_places(&self.jurisdiction, &app::read_proposal(&config)?.world)?;
        }
        let given = self.name.clone().unwrap_or_else(|| match &self.app {
            Some(app) if self.role == Role::Caller => app.clone(),
            _ => self.role.as_str().to_owned(),
        });
        let taken = |name: &str| config.api_keys.iter().any(|key| key.name.as_str() == name);
        if self.name.is_some() && taken(&given) {
            return Err(Failure::Usage(format!(
                "there is an API key `{given}` already: choose another `--name`"
            )));
        }
        let name = (1..).map(|n| if n == 1 { given.clone() } else { format!("{given}-{n}") });
        let name = name.into_iter().find(|name| !taken(name)).unwrap_or(given);
        let mut key = FreshKey::make(name, self.role, self.app)?;
        key.jurisdictions = self.jurisdiction;
        key.personal_values = self.personal_values;
        let path = &self.config.config;
        let file = OpenOptions::new().append(true).open(path);
        file.and_then(|mut file| file.write_all(key.to_toml().as_bytes()))
            .map_err(|error| Failure::io("write", path, &error))?;
        if self.json {
            return output::json(&key);
        }
        output::line(&format!("API key `{}` (role {}): {}", key.name, key.role, key.secret));
        output::line(&format!(
            "It is shown this once; `{}` holds only its SHA-256. Restart `lexgate serve` to use it.",
            path.display()
        ));
        Ok(())
    }
}
