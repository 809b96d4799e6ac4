//! The configuration: one typed tree from `lexgate.toml` and the environment. It holds no secret
//! that it would print.

mod amount;
mod environment;
mod faults;
mod ledger;
mod server;
mod store;
mod telemetry;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format, Toml},
};
use jiff::SignedDuration;
use serde::Deserialize;

use crate::{
    dispatch::{Grants, Secrets},
    domain::{AppId, Digest, JurisdictionCode, KeyName},
    ledger::{Origin, VerifierKey},
    source::{Fault, Faults, SourceFile, parse_toml},
};

pub use crate::source::{PolicyFolder, decides, read_file, read_policy_folder};
pub use amount::Bytes;
pub use faults::locate;
pub use server::ServerConfig;
pub use store::{StoreConfig, StoreUrl};
pub use telemetry::TelemetryConfig;

/// Where the configuration lies unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "config/lexgate.toml";

/// Everything that an operator decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[server]`.
    #[serde(default)]
    pub server: ServerConfig,
    /// `[store]`.
    #[serde(default)]
    pub store: StoreConfig,
    /// `[ledger]`.
    pub ledger: LedgerConfig,
    /// `[policies]`.
    #[serde(default)]
    pub policies: PoliciesConfig,
    /// `[organisation]`.
    #[serde(default)]
    pub organisation: OrganisationConfig,
    /// `[telemetry]`.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// `[[api_keys]]`.
    #[serde(default)]
    pub api_keys: Vec<ApiKeyConfig>,
    /// `[secrets]`: the keys of backends that the organisation may name.
    #[serde(default)]
    pub secrets: Secrets,
    /// `[backends]`.
    #[serde(default)]
    pub backends: BackendsConfig,
    /// Environment variables that begin as settings do and are none.
    #[serde(skip)]
    pub strange_variables: Vec<String>,
    /// The file that was read, for the places of faults.
    #[serde(skip)]
    pub file: Option<SourceFile>,
}

/// `[backends]`: what else of this machine the organisation may name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendsConfig {
    /// The certificate authorities that a `ca_file` may name.
    pub ca_files: BTreeSet<PathBuf>,
}

/// `[ledger]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// The log's name, as in its checkpoints: a host and a path, without a scheme.
    #[serde(deserialize_with = "ledger::origin")]
    pub origin: Origin,
    /// The log's Ed25519 key, PKCS#8.
    pub signing_key_file: PathBuf,
    /// Where the signer keeps how far it has gone: outside the database, on this machine.
    #[serde(default = "ledger::mark_file")]
    pub mark_file: PathBuf,
    /// The file to which checkpoints are appended; best on another machine's disk.
    #[serde(default = "ledger::checkpoints_file")]
    pub checkpoints_file: PathBuf,
    /// The key under which values that identify persons are sealed. Without one, none is kept.
    #[serde(default)]
    pub master_key_file: Option<PathBuf>,
    /// How far this machine's clock, and the times of entries, may be from the store's clock.
    #[serde(default = "ledger::max_clock_skew", deserialize_with = "ledger::skew")]
    pub max_clock_skew: SignedDuration,
    /// How long ago a witness must have cosigned all of the log, at most, for calls to be decided.
    #[serde(default, deserialize_with = "ledger::witness_within")]
    pub require_witness: Option<Duration>,
    /// `[[ledger.witnesses]]`.
    #[serde(default)]
    pub witnesses: Vec<WitnessConfig>,
    /// How many recorded requests an auditor's or officer's API key may make in a minute.
    #[serde(default = "server::readings_per_minute")]
    pub readings_per_minute: u32,
}

/// `[[ledger.witnesses]]`: whoever cosigns the log's checkpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its address: `https://witness.example`.
    pub url: String,
    /// Its verifier key, as `lexgate witness init` printed it.
    #[serde(deserialize_with = "ledger::witness_key")]
    pub key: VerifierKey,
}

impl LedgerConfig {
    /// Where the former signing key lies while it still signs: `ledger.key.former`.
    #[must_use]
    pub fn former_key_file(&self) -> PathBuf {
        self.beside_key("former")
    }

    /// Where the next signing key lies until the log has recorded it.
    #[must_use]
    pub fn next_key_file(&self) -> PathBuf {
        self.beside_key("next")
    }

    fn beside_key(&self, end: &str) -> PathBuf {
        let mut name = self.signing_key_file.clone().into_os_string();
        name.push(".");
        name.push(end);
        name.into()
    }
}

/// `[policies]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoliciesConfig {
    /// The policy folder.
    pub dir: PathBuf,
    /// Whether `serve` makes the files' snapshot the active one. Unset: yes on SQLite; on Postgres
    /// only while none is active.
    pub activate_on_start: Option<bool>,
    /// Policies, files or folders that are active and may be in no file any more.
    pub allow_removal: Vec<String>,
}

impl Default for PoliciesConfig {
    fn default() -> Self {
        Self { dir: "policies".into(), activate_on_start: None, allow_removal: Vec::new() }
    }
}

/// `[organisation]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrganisationConfig {
    /// The organisation file.
    pub file: PathBuf,
}

impl Default for OrganisationConfig {
    fn default() -> Self {
        Self { file: "config/organisation.toml".into() }
    }
}

/// What a credential may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Ask for decisions and call models.
    Caller,
    /// Read the ledger.
    Auditor,
    /// Set and lift legal holds, and erase persons. Policies and the organisation are changed in their files.
    Officer,
}

impl Role {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Auditor => "auditor",
            Self::Officer => "officer",
        }
    }
}

/// `[[api_keys]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Its name, which records show.
    pub name: KeyName,
    /// SHA-256 of the secret; the secret is kept nowhere.
    #[serde(with = "crate::ledger::leaf_hex")]
    pub sha256: Digest,
    /// What it may do.
    pub roles: Vec<Role>,
    /// The app that calls with it: required for callers.
    #[serde(default)]
    pub app: Option<AppId>,
    /// Whether an auditor may read the sealed values of persons, one record at a time.
    #[serde(default)]
    pub personal_values: bool,
    /// The jurisdictions to which an auditor is limited; empty for all.
    #[serde(default)]
    pub jurisdictions: Vec<JurisdictionCode>,
}

impl Config {
    /// Reads `path`, then what the environment overrides (`LEXGATE_SERVER__LISTEN`).
    ///
    /// # Errors
    /// One fault: an unreadable file, an unknown key, a wrong value, a missing key.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let file = read_file(path).map_err(|fault| {
            fault.help("`lexgate init` writes a configuration; `--config FILE` names another")
        })?;
        // Figment would say where broken TOML breaks in a text of its own.
        let table: toml::Table = parse_toml(&file).map_err(faults::broken)?;
        let names = environment::names();
        let overlay = environment::Overlay::read(&names, &table)?;
        let figment = Figment::new().merge(Toml::string(&file.text)).merge(overlay.provider());
        let mut config: Self = figment.extract().map_err(|error| faults::explain(&file, &error))?;
        config.strange_variables = environment::strangers(&names, &config)?;
        check(&config, &file)?;
        config.file = Some(file);
        Ok(config)
    }

    /// What an organisation may name of this machine.
    #[must_use]
    pub fn grants(&self) -> Grants {
        Grants { secrets: self.secrets.clone(), ca_files: self.backends.ca_files.clone() }
    }

    /// A fault at the value of `path` in the configuration file.
    #[must_use]
    pub fn fault(&self, path: &[&str], message: impl Into<String>) -> Fault {
        match &self.file {
            Some(file) => faults::concealed(file.fault(locate(file, path), message)),
            None => SourceFile::new(DEFAULT_FILE, "").fault(0..0, message),
        }
    }
}

fn check(config: &Config, file: &SourceFile) -> Result<(), Faults> {
    let mut found = Faults::default();
    let mut fault = |path: &[&str], message: String, help: &str| {
        let fault = faults::concealed(file.fault(locate(file, path), message));
        found.0.push(fault.help(help));
    };
    for (index, key) in config.api_keys.iter().enumerate() {
        let at = index.to_string();
        if config.api_keys.iter().take(index).any(|other| other.name == key.name) {
            fault(
                &["api_keys", &at, "name"],
                format!("API key `{}` is declared twice", key.name),
                "keep one",
            );
        }
        if key.roles.is_empty() {
            fault(
                &["api_keys", &at, "roles"],
                format!("API key `{}` has no role", key.name),
                "give it `caller`, `auditor` or `officer`",
            );
        }
        if key.roles.contains(&Role::Caller) && key.app.is_none() {
            fault(
                &["api_keys", &at, "name"],
                format!("API key `{}` is a caller's and names no app", key.name),
                "add `app`: tenant and place of a call come from it",
            );
        }
    }
    if config.ledger.require_witness.is_some() && config.ledger.witnesses.is_empty() {
        fault(
            &["ledger", "require_witness"],
            "`require_witness` is set, and no witness is named".to_owned(),
            "name one in `[[ledger.witnesses]]`, or remove `require_witness`",
        );
    }
    for (index, witness) in config.ledger.witnesses.iter().enumerate() {
        if !is_plain_url(&witness.url) {
            fault(
                &["ledger", "witnesses", &index.to_string(), "url"],
                "the value is not the address of a witness".to_owned(),
                "write `https://` or `http://`, a host and perhaps a path; no user, no password, no `?`",
            );
        }
    }
    found.or(())
}

/// Scheme, host and path: what may be shown when it cannot be reached.
fn is_plain_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"@?#".contains(&b))
    })
}

/// The files of a policy folder that decide, with paths relative to it, sorted.
///
/// # Errors
/// As [`read_policy_folder`].
pub fn read_policies(dir: &Path) -> Result<Vec<SourceFile>, Faults> {
    read_policy_folder(dir).map(|folder| folder.files)
}
