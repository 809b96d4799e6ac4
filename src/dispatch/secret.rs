//! Where this machine has a secret, and reading it there: `[secrets.NAME]` of the configuration. Not how
//! long it is kept ([`super::credentials`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::source::{alike, is_variable, shown_path};

/// How long a command may take: a call waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a file or of a command's output is read.
const LONGEST: u64 = 64 << 10;

/// What this machine's configuration grants to what an organisation names: nothing else of the machine is
/// read for a backend, or sent to one.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// `[secrets]`.
    pub secrets: Secrets,
    /// `[backends] ca_files`: certificate authorities that a `ca_file` may name.
    pub ca_files: BTreeSet<PathBuf>,
}

/// `[secrets]`: the keys of backends that an organisation may name.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The environment variables that `api_key_env` may name.
    pub environment: BTreeSet<String>,
    /// `[secrets.NAME]`: where this machine has what `api_key` names.
    pub named: BTreeMap<String, SecretSource>,
}

impl Secrets {
    /// The names of the secrets that `name` may mean: of itself, or else of those that differ from it in
    /// capitals and separators alone, as environment variables must.
    #[must_use]
    pub fn alike(&self, name: &str) -> Vec<&str> {
        alike(self.named.keys().map(String::as_str), name)
    }
}

/// The one key of `[secrets]` that is no secret's name.
const ENVIRONMENT: &str = "environment";

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Secrets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of secrets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<Secrets, A::Error> {
                let mut secrets = Secrets::default();
                while let Some(name) = rows.next_key::<String>()? {
                    if name == ENVIRONMENT {
                        secrets.environment = rows.next_value()?;
                    } else {
                        secrets.named.insert(name, rows.next_value()?);
                    }
                }
                Ok(secrets)
            }
        }
        deserializer.deserialize_map(Rows)
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Row")]
pub enum SecretSource {
    /// In the environment variable of this name.
    Environment(String),
    /// In this file, alone.
    File(PathBuf),
    /// In the first line that a command prints.
    Command {
        /// The program and its arguments; no shell reads them.
        argv: Vec<String>,
        /// How long the answer is kept. Without it: until a backend refuses it.
        refresh: Option<Duration>,
    },
}

/// Why a secret is not there. It says nothing of what was read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFault {
    /// Nobody says where it is.
    #[error("`[secrets]` of this machine's configuration does not name it")]
    Unknown,
    /// The organisation names an environment variable that this machine does not grant.
    #[error("`[secrets] environment` of this machine's configuration does not list it")]
    NotListed,
    /// Its environment variable is not set.
    #[error("the environment variable `{}` is not set, or is no text", shown(.0))]
    Unset(String),
    /// Its file cannot be read.
    #[error("the file `{path}` cannot be read: {1}", path = shown_path(.0))]
    File(PathBuf, #[source] Arc<io::Error>),
    /// Its file is none, such as a pipe, for which a call would wait.
    #[error("`{}` is not a regular file", shown_path(.0))]
    NotAFile(PathBuf),
    /// Its command cannot be run.
    #[error("its command cannot be run: {0}")]
    Run(#[source] Arc<io::Error>),
    /// Its command failed.
    #[error("its command failed ({0})")]
    Failed(ExitStatus),
    /// Its command took too long, and was ended.
    #[error("its command did not end within {} seconds", PATIENCE.as_secs())]
    Slow,
    /// What was read cannot be sent.
    #[error("it is empty, or no value of a header")]
    NoValue,
}

/// The name of a variable, unless it has the look of the secret itself.
fn shown(variable: &str) -> &str {
    if is_variable(variable) { variable } else { "…" }
}

impl SecretSource {
    /// Reads it anew. Nothing here holds up the runtime.
    pub(super) async fn read(&self) -> Result<String, SecretFault> {
        match self {
            Self::Environment(name) => {
                std::env::var(name).map_err(|_| SecretFault::Unset(name.clone()))
            }
            Self::File(path) => {
                let (path, at) = (path.clone(), path.clone());
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.unwrap_or_else(|error| Err(SecretFault::File(at, Arc::new(error.into()))))
            }
            Self::Command { argv, .. } => {
                let (program, arguments) = argv.split_first().ok_or(SecretFault::NoValue)?;
                let mut command = Command::new(program);
                command.args(arguments);
                timeout(PATIENCE, run(command)).await.unwrap_or(Err(SecretFault::Slow))
            }
        }
    }
}

fn read_file(path: &Path) -> Result<String, SecretFault> {
    let failed = |error| SecretFault::File(path.to_owned(), Arc::new(error));
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretFault::NotAFile(path.to_owned()));
    }
    let mut read = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LONGEST).read_to_end(&mut read).map_err(failed)?;
    text(read)
}

/// The first line that `command` prints. What it says of errors is not read: it may quote the secret.
async fn run(mut command: Command) -> Result<String, SecretFault> {
    let failed = |error| SecretFault::Run(Arc::new(error));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let mut line = Vec::new();
    let status = match child.stdout.take() {
        None => child.wait().await,
        Some(stdout) => {
            let mut stdout = BufReader::new(stdout);
            let first_line = (&mut stdout).take(LONGEST).read_until(b'\n', &mut line).await;
            first_line.map_err(failed)?;
            // Whoever writes more is not stopped; what a process left behind holds open is not waited for.
            let mut nowhere = tokio::io::sink();
            tokio::select! {
                status = child.wait() => status,
                _ = tokio::io::copy(&mut stdout, &mut nowhere) => child.wait().await,
            }
        }
    };
    let status = status.map_err(failed)?;
    if status.success() { text(line) } else { Err(SecretFault::Failed(status)) }
}

fn text(read: Vec<u8>) -> Result<String, SecretFault> {
    // The error would hold the bytes.
    String::from_utf8(read).map_err(|_| SecretFault::NoValue)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    env: Option<String>,
    file: Option<PathBuf>,
    command: Option<Vec<String>>,
    refresh: Option<String>,
}

/// Why an entry of `[secrets]` says nothing.
#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error("a secret has exactly one of `env`, `file` and `command`")]
    NotOne,
    #[error("`command` names no program")]
    NoProgram,
    #[error(
        "`refresh` is for a `command`: an environment variable and a file are read at each use"
    )]
    NotACommand,
    #[error("`refresh` is no duration from a second to a day, such as `5m`")]
    Refresh,
}

impl TryFrom<Row> for SecretSource {
    type Error = RowError;

    fn try_from(row: Row) -> Result<Self, RowError> {
        let refresh = row.refresh.map(|refresh| {
            let parsed = refresh.parse::<SignedDuration>().ok();
            let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
            let fits = |duration: &Duration| {
                *duration >= Duration::from_secs(1) && *duration <= Duration::from_secs(86_400)
            };
            parsed.filter(fits).ok_or(RowError::Refresh)
        });
        let refresh = refresh.transpose()?;
        let source = match (row.env, row.file, row.command) {
            (Some(name), None, None) => Self::Environment(name),
            (None, Some(path), None) => Self::File(path),
            (None, None, Some(argv)) => {
                if argv.first().is_none_or(String::is_empty) {
                    return Err(RowError::NoProgram);
                }
                return Ok(Self::Command { argv, refresh });
            }
            _ => return Err(RowError::NotOne),
        };
        if refresh.is_some() { Err(RowError::NotACommand) } else { Ok(source) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn parsed(toml: &str) -> Result<SecretSource, String> {
        toml::from_str(toml).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    fn command(argv: &[&str]) -> SecretSource {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        SecretSource::Command { argv, refresh: None }
    }

    #[test]
    fn an_entry_says_one_place() {
        assert_eq!(parsed("env = 'X'"), Ok(SecretSource::Environment("X".into())));
        assert_eq!(parsed("file = '/run/x'"), Ok(SecretSource::File("/run/x".into())));
        let refresh = Some(Duration::from_secs(300));
        let want = SecretSource::Command { argv: vec!["pass".into(), "x".into()], refresh };
        assert_eq!(parsed("command = ['pass', 'x']\nrefresh = '5m'"), Ok(want));
        let refused = [
            ("", "exactly one"),
            ("env = 'X'\nfile = '/run/x'", "exactly one"),
            ("env = 'X'\ncommand = ['pass']", "exactly one"),
            ("command = []", "no program"),
            ("command = ['']", "no program"),
            ("env = 'X'\nrefresh = '5m'", "is for a `command`"),
            ("command = ['pass']\nrefresh = '-5m'", "no duration"),
            ("command = ['pass']\nrefresh = '2d'", "no duration"),
            ("command = ['pass']\nrefresh = '10ms'", "no duration"),
            ("command = ['pass']\nrefresh = 'soon'", "no duration"),
            ("env = 'X'\nvalue = 'secret'", "unknown field"),
        ];
        for (toml, want) in refused {
            let message = parsed(toml).unwrap_err();
            assert!(message.contains(want), "{toml}: {message}");
        }
    }

    #[tokio::test]
    async fn a_command_gives_its_first_line() {
        let read = command(&["printf", "first\\nsecond\\n"]).read().await;
        assert_eq!(read.unwrap(), "first\n");
        // No shell reads the arguments.
        assert_eq!(command(&["echo", "$HOME"]).read().await.unwrap(), "$HOME\n");
        // Its standard input is empty, and output without end does no harm.
        assert_eq!(command(&["cat"]).read().await.unwrap(), "");
        let much = command(&["sh", "-c", "echo it; head -c 1000000 /dev/zero"]).read().await;
        assert_eq!(much.unwrap(), "it\n");
        let failed = command(&["sh", "-c", "echo it; echo it >&2; exit 3"]).read().await;
        assert_eq!(failed.unwrap_err().to_string(), "its command failed (exit status: 3)");
        let none = command(&["/nowhere/at/all"]).read().await.unwrap_err();
        assert!(matches!(none, SecretFault::Run(_)), "{none}");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_not_waited_for() {
        let started = Instant::now();
        let read = command(&["sh", "-c", "echo it; sleep 20 & exit 0"]).read().await;
        assert_eq!(read.unwrap(), "it\n");
        assert!(started.elapsed() < PATIENCE);
    }

    #[tokio::test]
    async fn a_slow_command_is_ended() {
        let read = command(&["sleep", "20"]).read().await.unwrap_err();
        assert!(matches!(read, SecretFault::Slow), "{read}");
    }

    #[tokio::test]
    async fn a_file_is_read_and_nothing_else_is() {
        let none = SecretSource::File("/nowhere_at_all".into()).read().await.unwrap_err();
        assert!(
            none.to_string().starts_with("the file `/nowhere_at_all` cannot be read"),
            "{none}"
        );
        let device = SecretSource::File("/dev/zero".into()).read().await.unwrap_err();
        assert!(matches!(device, SecretFault::NotAFile(_)), "{device}");
    }
}
