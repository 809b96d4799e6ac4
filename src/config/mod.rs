//! The configuration: one typed tree from `lexgate.toml` and the environment. It holds no secret
//! that it would print.

mod amount;
mod server;
mod telemetry;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

use crate::{
    dispatch::SecretSource,
    domain::{AppId, Digest, Fault, Faults, JurisdictionCode, KeyName, SourceFile},
    facts::parse_toml,
    ledger::{Origin, SignatureType, VerifierKey},
};

pub use amount::Bytes;
pub use server::ServerConfig;
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
    /// `[secrets.NAME]`: where this machine has the keys of backends that the organisation names.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// The file that was read, for the places of faults.
    #[serde(skip)]
    pub file: Option<SourceFile>,
}

/// `[store]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite://path` or `postgres://user@host/db`.
    pub url: StoreUrl,
    /// Whether `serve` migrates the store by itself.
    pub migrate: bool,
    /// How much room is left to what closes calls: with less than this on the disk of a `SQLite` store,
    /// nothing else is written.
    pub min_free: Bytes,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl("sqlite://data/lexgate.db".to_owned()),
            migrate: true,
            min_free: Bytes::from_mib(512),
        }
    }
}

/// A store's address, which may hold a password and so is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The address, password and all.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("?", |(scheme, _)| scheme);
        write!(f, "{scheme}://…")
    }
}

/// `[ledger]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// The log's name, as in its checkpoints: a host and a path, without a scheme.
    #[serde(deserialize_with = "origin")]
    pub origin: Origin,
    /// The log's Ed25519 key, PKCS#8.
    pub signing_key_file: PathBuf,
    /// Where the signer keeps how far it has gone: outside the database, on this machine.
    #[serde(default = "mark_file")]
    pub mark_file: PathBuf,
    /// The file to which checkpoints are appended; best on another machine's disk.
    #[serde(default = "checkpoints_file")]
    pub checkpoints_file: PathBuf,
    /// The key under which values that identify persons are sealed. Without one, none is kept.
    #[serde(default)]
    pub master_key_file: Option<PathBuf>,
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
    #[serde(deserialize_with = "witness_key")]
    pub key: VerifierKey,
}

fn witness_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<VerifierKey, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let key: VerifierKey = text.parse().map_err(D::Error::custom)?;
    if key.kind() == SignatureType::Cosignature {
        return Ok(key);
    }
    Err(D::Error::custom(format!("`{text}` is a log's key, not a witness's")))
}

fn checkpoints_file() -> PathBuf {
    PathBuf::from("data/ledger.checkpoints")
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

fn mark_file() -> PathBuf {
    PathBuf::from("data/ledger.mark")
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
}

impl Default for PoliciesConfig {
    fn default() -> Self {
        Self { dir: "policies".into(), activate_on_start: None }
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
    /// Change policies and registers.
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
        let _: toml::Table = parse_toml(&file)?;
        let figment = Figment::new()
            .merge(Toml::string(&file.text))
            // Only names with a section are the configuration's: LEXGATE_LOG is not.
            .merge(Env::prefixed("LEXGATE_").filter(|key| key.as_str().contains("__")).split("__"));
        let mut config: Self = figment.extract().map_err(|error| explain(&file, &error))?;
        check(&config, &file)?;
        config.file = Some(file);
        Ok(config)
    }

    /// A fault at the value of `path` in the configuration file.
    #[must_use]
    pub fn fault(&self, path: &[&str], message: impl Into<String>) -> Fault {
        match &self.file {
            Some(file) => file.fault(locate(file, path), message),
            None => SourceFile::new(DEFAULT_FILE, "").fault(0..0, message),
        }
    }
}

fn origin<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Origin, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn check(config: &Config, file: &SourceFile) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let mut fault = |path: &[&str], message: String, help: &str| {
        faults.0.push(file.fault(locate(file, path), message).help(help));
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
    faults.or(())
}

/// Figment's error with the line of the file that it is about.
fn explain(file: &SourceFile, error: &figment::Error) -> Faults {
    let faults = error.clone().into_iter().map(|error| {
        let path: Vec<&str> = error.path.iter().map(String::as_str).collect();
        let from_environment =
            error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        let span = match &error.kind {
            figment::error::Kind::UnknownField(name, _) => {
                let mut path = path.clone();
                path.push(name);
                locate(file, &path)
            }
            _ => locate(file, &path),
        };
        let help = match &error.kind {
            figment::error::Kind::UnknownField(..) => "remove the key, or correct its spelling",
            figment::error::Kind::MissingField(_) => "add the key",
            _ => "correct the value",
        };
        let is_secret = path.first() == Some(&"secrets");
        let message = match &error.kind {
            figment::error::Kind::InvalidType(..) | figment::error::Kind::InvalidValue(..)
                if is_secret =>
            {
                "a secret is a table of one of `env = \"VARIABLE\"`, `file = \"PATH\"` and `command = [\"PROGRAM\", …]`".to_owned()
            }
            // Figment quotes its list of names once more.
            kind => kind.to_string().replace("``", "`").replace("`one of `", "one of `"),
        };
        if from_environment {
            let name = format!("LEXGATE_{}", path.join("__").to_uppercase());
            return SourceFile::new(&name, "").fault(0..0, message).help(help);
        }
        let mut fault = file.fault(span, message).help(help);
        // Whoever wrote a secret itself where its place belongs shall not find it in a log.
        if is_secret && !fault.source.starts_with('[') {
            fault.source.clear();
        }
        fault
    });
    Faults(faults.collect())
}

/// The bytes of the value at `path`, or of the nearest table around it.
#[must_use]
pub fn locate(file: &SourceFile, path: &[&str]) -> std::ops::Range<usize> {
    use toml::de::{DeTable, DeValue};
    let Ok(table) = DeTable::parse(&file.text) else { return 0..0 };
    let mut span = 0..0;
    let mut here = DeValue::Table(table.into_inner());
    for key in path {
        let next = match here {
            DeValue::Table(mut table) => {
                let found = table.remove_entry(*key);
                found.map(|(key, value)| (key.span(), value))
            }
            DeValue::Array(items) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| items.into_iter().nth(index))
                .map(|value| (value.span(), value)),
            _ => None,
        };
        let Some((at, value)) = next else { break };
        span = at;
        here = value.into_inner();
    }
    span
}

/// The text of the file at `path`.
///
/// # Errors
/// A fault that names the file.
pub fn read_file(path: &Path) -> Result<SourceFile, Fault> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(SourceFile::new(&name, &text)),
        Err(error) => {
            Err(SourceFile::new(&name, "").fault(0..0, format!("cannot be read: {error}")))
        }
    }
}

/// The files of a policy folder that decide, with paths relative to it, sorted.
///
/// # Errors
/// A fault for each file or folder that cannot be read.
pub fn read_policies(dir: &Path) -> Result<Vec<SourceFile>, Faults> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = dir.join(&folder);
        let unreadable = |error: std::io::Error| {
            let place = SourceFile::new(&at.display().to_string(), "");
            place
                .fault(0..0, format!("cannot be read: {error}"))
                .help("`[policies] dir` names the policy folder; `lexgate init` writes one")
        };
        for entry in std::fs::read_dir(&at).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = folder.join(entry.file_name());
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path);
            } else if decides(&path) {
                let name = path.to_string_lossy().replace('\\', "/");
                let text = read_file(&dir.join(&path))?.text;
                files.push(SourceFile { path: name.into(), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Schema, policies and dated facts decide; cases and notes do not.
#[must_use]
pub fn decides(path: &Path) -> bool {
    let facts = path.starts_with("facts") && path.extension().is_some_and(|kind| kind == "toml");
    facts || path.extension().is_some_and(|kind| kind == "cedar" || kind == "cedarschema")
}
