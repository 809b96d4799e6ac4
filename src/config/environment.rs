//! `LEXGATE_…` variables: which setting each is about, in whatever case it is written, and which are about
//! none. Not how their values are read.

use std::collections::BTreeMap;

use figment::providers::Env;

use super::Config;
use crate::{
    dispatch::SecretSource,
    source::{Fault, Faults, SourceFile, alike, is_variable, nearest},
};

/// What the variables begin with.
pub(super) const PREFIX: &str = "LEXGATE_";
/// What parts a setting's table from its key.
const BETWEEN: &str = "__";

/// The settings of one value, as variables name them.
const SETTINGS: [&str; 30] = [
    "BACKENDS__CA_FILES",
    "LEDGER__CHECKPOINTS_FILE",
    "LEDGER__MARK_FILE",
    "LEDGER__MASTER_KEY_FILE",
    "LEDGER__MAX_CLOCK_SKEW",
    "LEDGER__ORIGIN",
    "LEDGER__READINGS_PER_MINUTE",
    "LEDGER__REQUIRE_WITNESS",
    "LEDGER__SIGNING_KEY_FILE",
    "LOG",
    "ORGANISATION__FILE",
    "POLICIES__ACTIVATE_ON_START",
    "POLICIES__ALLOW_REMOVAL",
    "POLICIES__DIR",
    "SECRETS__ENVIRONMENT",
    "SERVER__BODY_BUDGET",
    "SERVER__BODY_TIMEOUT",
    "SERVER__HEADER_TIMEOUT",
    "SERVER__IDLE_TIMEOUT",
    "SERVER__LISTEN",
    "SERVER__MAX_CONNECTIONS",
    "SERVER__MAX_CONNECTIONS_PER_ADDRESS",
    "STORE__INSECURE_TLS",
    "STORE__MIGRATE",
    "STORE__MIN_FREE",
    "STORE__PATIENCE",
    "STORE__REQUIRE_SYNCHRONOUS_STANDBY",
    "STORE__URL",
    "TELEMETRY__OTLP_ENDPOINT",
    "TELEMETRY__SAMPLE_RATIO",
];

/// What people write for `LEXGATE_LOG` and is not near to it letter by letter.
const LOG: [&str; 6] = ["LOGGING", "LOGLEVEL", "LOG_FILTER", "LOG_LEVEL", "RUST_LOG", "VERBOSITY"];

/// The variables that are about settings: each name without the prefix, and its setting's path.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay(BTreeMap<String, String>);

impl Overlay {
    /// The variables among `names` that name a table and a key; the secrets of `file` are named as it does.
    ///
    /// # Errors
    /// A fault for each variable of which it is not certain what it is about.
    pub(super) fn read(names: &[String], file: &toml::Table) -> Result<Self, Faults> {
        let secrets = file.get("secrets").and_then(toml::Value::as_table);
        let secrets: Vec<&str> =
            secrets.into_iter().flat_map(toml::Table::keys).map(String::as_str).collect();
        let (mut overlay, mut faults) = (Self::default(), Faults::default());
        let mut paths: BTreeMap<String, &str> = BTreeMap::new();
        for name in names {
            let Some(own) = own_part(name).filter(|own| own.contains(BETWEEN)) else { continue };
            let mut parts: Vec<String> = own.split(BETWEEN).map(str::to_lowercase).collect();
            if parts.iter().any(String::is_empty) {
                let help = "write `LEXGATE_`, the section, `__` and the key";
                faults.0.push(doubtful(name, "a section or a key is missing in the name", help));
                continue;
            }
            if let [table, secret, ..] = &mut parts[..]
                && table == "secrets"
            {
                let written = own.split(BETWEEN).nth(1).unwrap_or_default();
                match alike(secrets.iter().copied(), written)[..] {
                    [] => {}
                    [known] if known.contains('.') => faults.0.push(doubtful(
                        name,
                        "a variable cannot name a secret whose name has a `.`",
                        "rename it in `[secrets]`, with `-` or `_` in place of the `.`",
                    )),
                    [known] => known.clone_into(secret),
                    _ => faults.0.push(doubtful(
                        name,
                        "`[secrets]` has several names that differ only in case and separators",
                        "rename one of these secrets",
                    )),
                }
            }
            let path = parts.join(".");
            if let Some(other) = paths.insert(path.clone(), name) {
                let message = format!("`{}` is about the same setting", shown(other));
                faults.0.push(doubtful(name, &message, "remove one of the two"));
            }
            overlay.0.insert(own.to_owned(), path);
        }
        faults.or(overlay)
    }

    /// The values of these variables.
    pub(super) fn provider(self) -> Env {
        let paths = self.0;
        Env::prefixed(PREFIX)
            .filter_map(move |name| paths.get(name.as_str()).map(|path| path.clone().into()))
            .lowercase(false)
    }
}

/// The names of this process's variables, as far as they can be read.
pub(super) fn names() -> Vec<String> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    names.filter(|name| own_part(name).is_some()).collect()
}

/// The variables that begin as settings do and are none, where none was probably meant.
///
/// # Errors
/// A fault for each that was probably meant to be a setting: a protection that is misspelt is none.
pub(super) fn strangers(names: &[String], config: &Config) -> Result<Vec<String>, Faults> {
    let (mut strangers, mut faults) = (Vec::new(), Faults::default());
    let of_secrets = |name: &String| {
        let is_named =
            |source: &SecretSource| matches!(source, SecretSource::Environment(it) if it == name);
        config.secrets.environment.contains(name) || config.secrets.named.values().any(is_named)
    };
    for name in names.iter().filter(|name| !of_secrets(name)) {
        let Some(own) = own_part(name).map(str::to_uppercase) else { continue };
        if own.contains(BETWEEN)
            || own == "LOG" && *name == format!("{PREFIX}LOG")
            || is_of_a_cluster(&own)
        {
            continue;
        }
        if own == "CONFIG" || own == "CONFIG_FILE" {
            faults.0.push(doubtful(
                name,
                "it is not a setting",
                "name the file with `--config FILE`",
            ));
            continue;
        }
        let meant =
            if LOG.contains(&&*own) { Some("LOG") } else { nearest(&own, SETTINGS.into_iter()) };
        // `nearest` gives nothing for a name that is known: `lexgate_log`, which is read in capitals only.
        let meant = meant.or_else(|| SETTINGS.into_iter().find(|setting| *setting == own));
        match meant {
            Some(setting) => {
                let help = format!("did you mean `{PREFIX}{setting}`?");
                faults.0.push(doubtful(name, "it is not a setting", &help));
            }
            None => strangers.push(shown(name).to_owned()),
        }
    }
    faults.or(strangers)
}

/// What stands behind the prefix, in whatever case that is written.
fn own_part(name: &str) -> Option<&str> {
    let (prefix, own) = name.trim().split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(own)
}

/// What Kubernetes sets for a Service of this name, such as `LEXGATE_PORT_8080_TCP_ADDR`.
fn is_of_a_cluster(own: &str) -> bool {
    own.ends_with("SERVICE_HOST")
        || own.contains("SERVICE_PORT")
        || own == "PORT"
        || own.ends_with("_PORT")
        || own.contains("PORT_") && ["_TCP", "_UDP", "_SCTP"].iter().any(|kind| own.contains(kind))
}

fn doubtful(name: &str, message: &str, help: &str) -> Fault {
    SourceFile::new(shown(name), "").fault(0..0, message).help(help)
}

/// The name, unless somebody has written a secret in its place.
fn shown(name: &str) -> &str {
    if is_variable(&name.to_uppercase()) { name } else { "LEXGATE_…" }
}

#[cfg(test)]
mod tests {
    use figment::{
        Figment,
        error::Kind,
        providers::{Format, Toml},
    };

    use super::*;

    fn overlay(names: &[&str], file: &str) -> Result<BTreeMap<String, String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let read = Overlay::read(&names, &file.parse().unwrap());
        read.map(|overlay| overlay.0).map_err(|faults| faults.to_string())
    }

    fn config() -> Config {
        let text = "[ledger]\norigin = 'a.example/b'\nsigning_key_file = 'k'\n\
                    [secrets]\nenvironment = ['LEXGATE_OWN_LOG']\nx = { env = 'LEXGATE_LOGS' }\n";
        Figment::new().merge(Toml::string(text)).extract().unwrap()
    }

    #[test]
    fn a_variable_is_about_its_setting_in_any_case() {
        let file = "[secrets.FRANKFURT]\nfile = 'x'\n[secrets.osaka-2]\nfile = 'y'\n";
        let found = overlay(
            &[
                "LEXGATE_SECRETS__FRANKFURT__FILE",
                "lexgate_secrets__osaka_2__env",
                "LEXGATE_SECRETS__RIYADH__FILE",
                "LEXGATE_SECRETS__ENVIRONMENT",
                "Lexgate_Server__Listen",
                "LEXGATE_LOG",
                "PATH",
            ],
            file,
        );
        let want = [
            ("SECRETS__FRANKFURT__FILE", "secrets.FRANKFURT.file"),
            ("SECRETS__RIYADH__FILE", "secrets.riyadh.file"),
            ("SECRETS__ENVIRONMENT", "secrets.environment"),
            ("Server__Listen", "server.listen"),
            ("secrets__osaka_2__env", "secrets.osaka-2.env"),
        ];
        let want = want.map(|(name, path)| (name.to_owned(), path.to_owned()));
        assert_eq!(found.unwrap(), BTreeMap::from(want));
    }

    #[test]
    fn what_may_be_about_two_settings_is_refused() {
        let both = "[secrets.frankfurt]\nfile = 'x'\n[secrets.Frankfurt]\nfile = 'y'\n";
        let said = overlay(&["LEXGATE_SECRETS__FRANKFURT__FILE"], both).unwrap_err();
        assert!(said.contains("`[secrets]` has several names"), "{said}");
        assert!(overlay(&["LEXGATE_SECRETS__Frankfurt__FILE"], both).is_ok(), "its own name");
        let said = overlay(&["LEXGATE_STORE__URL", "lexgate_store__url"], "").unwrap_err();
        assert!(said.contains("is about the same setting"), "{said}");
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_a_stranger_is_told_of() {
        let found = |name: &str| {
            let names = [name.to_owned()];
            strangers(&names, &config()).map_err(|faults| faults.to_string())
        };
        for (name, meant) in [
            ("LEXGATE_SERVER_LISTEN", "LEXGATE_SERVER__LISTEN"),
            ("LEXGATE_LISTEN", "LEXGATE_SERVER__LISTEN"),
            ("LEXGATE_STORE_ULR", "LEXGATE_STORE__URL"),
            ("LEXGATE_LEGDER_ORIGIN", "LEXGATE_LEDGER__ORIGIN"),
            ("LEXGATE_MASTER_KEY_FILE", "LEXGATE_LEDGER__MASTER_KEY_FILE"),
            ("LEXGATE_LOG_LEVEL", "LEXGATE_LOG"),
            ("LEXGATE_LOGLEVEL", "LEXGATE_LOG"),
            ("lexgate_log", "LEXGATE_LOG"),
            ("LEXGATE_CONFIG", "--config FILE"),
        ] {
            let said = found(name).unwrap_err();
            assert!(said.starts_with(name) && said.contains(meant), "{name}: {said}");
        }
        for name in [
            "LEXGATE_KEY",
            "LEXGATE_URL",
            "LEXGATE_API_KEY",
            "LEXGATE_TEST_POSTGRES",
            "LEXGATE_CRASH_AT",
        ] {
            assert_eq!(found(name), Ok(vec![name.to_owned()]), "{name}");
        }
        for name in [
            "LEXGATE_LOG",
            "LEXGATE_SERVER__LISTNE",
            "LEXGATE_PORT",
            "LEXGATE_PORT_8080_TCP_ADDR",
            "LEXGATE_SERVICE_HOST",
            "LEXGATE_STORE_SERVICE_PORT_PG",
            "LEXGATE_OWN_LOG",
            "LEXGATE_LOGS",
            "PATH",
        ] {
            assert_eq!(found(name), Ok(vec![]), "{name}");
        }
    }

    #[test]
    fn every_setting_that_is_proposed_is_one() {
        for setting in SETTINGS.into_iter().filter(|setting| *setting != "LOG") {
            let (table, key) = setting.split_once(BETWEEN).unwrap();
            let text = format!("[{}]\n{} = {{ }}\n", table.to_lowercase(), key.to_lowercase());
            let read = Figment::new().merge(Toml::string(&text)).extract::<Config>();
            let unknown = |error: figment::Error| matches!(error.kind, Kind::UnknownField(..));
            assert!(!read.unwrap_err().into_iter().any(unknown), "{setting}");
        }
    }
}
