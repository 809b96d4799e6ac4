//! The keys of backends: kept no longer than they may be, asked for one run at a time, and never
//! printed. Not where they are ([`super::secret`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::header::HeaderValue;

use super::secret::{SecretFault, SecretSource, Secrets};
use crate::{facts::KeySource, source::alike};

/// How long a command that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a key is believed that a command has given twice, although a backend refused it in between:
/// it is refused for another reason than its age.
const CONFIRMED: Duration = Duration::from_secs(30);

/// The keys of all backends.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// The environment variables that may be read.
    environment: BTreeSet<String>,
    named: BTreeMap<String, Secret>,
}

/// A backend's key as headers hold it, marked so that it is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    bearer: HeaderValue,
    plain: HeaderValue,
}

/// Which key is not there, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the key `{name}` is not there: {fault}")]
pub struct KeyError {
    name: String,
    #[source]
    fault: SecretFault,
}

impl Credentials {
    /// The keys that `secrets` tell where to find.
    pub(super) fn new(secrets: Secrets) -> Self {
        let secret =
            |source| Secret { source, turn: tokio::sync::Mutex::default(), kept: Mutex::default() };
        let named = secrets.named.into_iter().map(|(name, source)| (name, secret(source)));
        Self { environment: secrets.environment, named: named.collect() }
    }

    /// The key as it is now.
    ///
    /// # Errors
    /// When it is not there, or no header can hold it.
    pub(super) async fn key(&self, source: &KeySource) -> Result<Key, KeyError> {
        let (name, key) = match source {
            KeySource::Environment(name) if !self.environment.contains(name) => {
                tracing::error!(
                    variable = name,
                    "the active organisation names an environment variable that `[secrets] environment` does not list: it is not read"
                );
                (name, Err(SecretFault::NotListed))
            }
            KeySource::Environment(name) => {
                (name, fresh(&SecretSource::Environment(name.clone())).await)
            }
            KeySource::Secret(name) => match self.secret(name) {
                Some(secret) => (name, secret.key(name).await),
                None => (name, Err(SecretFault::Unknown)),
            },
        };
        key.map_err(|fault| KeyError { name: name.clone(), fault })
    }

    /// The secret of this name, or the one whose name differs in capitals and separators alone.
    fn secret(&self, name: &str) -> Option<&Secret> {
        if let Some(secret) = self.named.get(name) {
            return Some(secret);
        }
        match alike(self.named.keys().map(String::as_str), name)[..] {
            [one] => self.named.get(one),
            _ => None,
        }
    }

    /// A backend has refused `key`, which came from `source`: a command is asked again.
    pub(super) fn refused(&self, source: &KeySource, key: &Key) {
        if let KeySource::Secret(name) = source
            && let Some(secret) = self.secret(name)
        {
            lock(&secret.kept).refused(Instant::now(), key);
        }
    }
}

impl Key {
    fn new(text: &str) -> Result<Self, SecretFault> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretFault::NoValue);
        }
        let header = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| SecretFault::NoValue)?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self { bearer: header(&format!("Bearer {text}"))?, plain: header(text)? })
    }

    /// The value of `Authorization`.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// The value of `x-api-key`.
    pub(super) fn plain(&self) -> HeaderValue {
        self.plain.clone()
    }
}

/// One entry of `[secrets]`.
#[derive(Debug)]
struct Secret {
    source: SecretSource,
    /// Held by whoever asks the command.
    turn: tokio::sync::Mutex<()>,
    kept: Mutex<Kept>,
}

impl Secret {
    async fn key(&self, name: &str) -> Result<Key, SecretFault> {
        // A file is read at each use: to ask whether it has changed would cost the same, and could err.
        let SecretSource::Command { refresh, .. } = &self.source else {
            return fresh(&self.source).await;
        };
        if let Some(known) = self.known(*refresh) {
            return known;
        }
        let former = lock(&self.kept).former();
        let _turn = match (former, self.turn.try_lock()) {
            (_, Ok(turn)) => turn,
            // Somebody else is asking, and this one may still do.
            (Some(key), Err(_)) => return Ok(key),
            (None, Err(_)) => self.turn.lock().await,
        };
        if let Some(known) = self.known(*refresh) {
            return known;
        }
        let read = fresh(&self.source).await;
        if let Err(error) = &read {
            tracing::warn!(secret = name, %error, "a key could not be asked for");
        }
        lock(&self.kept).learn(Instant::now(), read)
    }

    fn known(&self, refresh: Option<Duration>) -> Option<Result<Key, SecretFault>> {
        lock(&self.kept).known(Instant::now(), refresh)
    }
}

async fn fresh(source: &SecretSource) -> Result<Key, SecretFault> {
    Key::new(&source.read().await?)
}

/// What is known of a command's key.
#[derive(Debug, Default)]
struct Kept {
    held: Option<Held>,
    failed: Option<(Instant, SecretFault)>,
}

#[derive(Debug)]
struct Held {
    key: Key,
    since: Instant,
    is_refused: bool,
    /// Whether the command gave it again after it was refused.
    is_confirmed: bool,
}

impl Kept {
    /// The key or the fault that still holds; `None` when the command is to be asked.
    fn known(&self, now: Instant, refresh: Option<Duration>) -> Option<Result<Key, SecretFault>> {
        let is_young = |since| refresh.is_none_or(|refresh| now.duration_since(since) < refresh);
        let held = self.held.as_ref().filter(|held| !held.is_refused && is_young(held.since));
        if let Some(held) = held {
            return Some(Ok(held.key.clone()));
        }
        let (at, fault) = self.failed.as_ref()?;
        (now.duration_since(*at) < PAUSE).then(|| self.former().ok_or_else(|| fault.clone()))
    }

    /// A key that may be too old, and that nobody has refused.
    fn former(&self) -> Option<Key> {
        self.held.as_ref().filter(|held| !held.is_refused).map(|held| held.key.clone())
    }

    /// Takes what a command gave, and says what is to be used.
    fn learn(&mut self, now: Instant, read: Result<Key, SecretFault>) -> Result<Key, SecretFault> {
        match read {
            Ok(key) => {
                let again = |held: &Held| held.is_refused && held.key == key;
                let is_confirmed = self.held.as_ref().is_some_and(again);
                let held = Held { key: key.clone(), since: now, is_refused: false, is_confirmed };
                *self = Self { held: Some(held), failed: None };
                Ok(key)
            }
            Err(fault) => {
                self.failed = Some((now, fault.clone()));
                self.former().ok_or(fault)
            }
        }
    }

    fn refused(&mut self, now: Instant, key: &Key) {
        // Of an older key nothing new is learnt.
        let Some(held) = self.held.as_mut().filter(|held| held.key == *key) else { return };
        let is_believed = held.is_confirmed && now.duration_since(held.since) < CONFIRMED;
        held.is_refused |= !is_believed;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn secret() -> KeySource {
        KeySource::Secret("x".to_owned())
    }

    fn credentials(source: SecretSource) -> Credentials {
        let named = BTreeMap::from([("x".to_owned(), source)]);
        Credentials::new(Secrets { environment: BTreeSet::default(), named })
    }

    fn shell(script: &str, refresh: Option<Duration>) -> Credentials {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        credentials(SecretSource::Command { argv, refresh })
    }

    /// A path that no other test has.
    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("lexgate-{name}-{}", std::process::id()))
    }

    #[tokio::test]
    async fn no_variable_is_read_that_is_not_listed() {
        let named = |name: &str| KeySource::Environment(name.to_owned());
        let environment = BTreeSet::from(["PATH".to_owned()]);
        let secrets = Secrets { environment, named: BTreeMap::default() };
        let credentials = Credentials::new(secrets);
        assert!(credentials.key(&named("PATH")).await.is_ok());
        let refused = credentials.key(&named("HOME")).await.unwrap_err();
        assert!(matches!(refused.fault, SecretFault::NotListed), "{refused}");
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = key(" sk-hush \n");
        assert_eq!(key.bearer(), "Bearer sk-hush");
        assert_eq!(key.plain(), "sk-hush");
        let mut kept = Kept::default();
        kept.learn(Instant::now(), Ok(key.clone())).unwrap();
        let shown = format!("{key:?} {kept:?}");
        assert!(shown.contains("Sensitive") && !shown.contains("hush"), "{shown}");
        for text in ["", " \n", "sk-hush\nx: y", "sk-hush\0"] {
            let error = Key::new(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn a_refused_key_is_asked_for_again() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        assert!(kept.known(now, None).is_none());
        kept.learn(now, Ok(key("a"))).unwrap();
        assert_eq!(kept.known(now + PAUSE * 1000, None).unwrap().unwrap(), key("a"));
        // A call that was sent with another key says nothing of this one.
        kept.refused(now, &key("old"));
        assert!(kept.known(now, None).is_some());
        kept.refused(now, &key("a"));
        assert!(kept.known(now, None).is_none() && kept.former().is_none());
        // The command says the same: the backend has another reason.
        kept.learn(now, Ok(key("a"))).unwrap();
        kept.refused(now, &key("a"));
        assert!(kept.known(now, None).is_some());
        kept.refused(now + CONFIRMED, &key("a"));
        assert!(kept.known(now + CONFIRMED, None).is_none());
        kept.learn(now + CONFIRMED, Ok(key("b"))).unwrap();
        kept.refused(now + CONFIRMED, &key("b"));
        assert!(kept.known(now + CONFIRMED, None).is_none());
    }

    #[test]
    fn a_key_that_is_due_outlives_a_command_that_fails() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let refresh = Some(Duration::from_secs(60));
        assert!(kept.learn(now, Err(SecretFault::Slow)).is_err());
        assert!(kept.known(now, refresh).unwrap().is_err());
        assert!(kept.known(now + PAUSE, refresh).is_none());
        kept.learn(now, Ok(key("a"))).unwrap();
        let due = now + Duration::from_secs(60);
        assert!(kept.known(now + PAUSE, refresh).is_some());
        assert!(kept.known(due, refresh).is_none());
        assert_eq!(kept.learn(due, Err(SecretFault::Slow)).unwrap(), key("a"));
        assert_eq!(kept.known(due, refresh).unwrap().unwrap(), key("a"));
        assert!(kept.known(due + PAUSE, refresh).is_none());
        kept.refused(due, &key("a"));
        assert!(kept.known(due, refresh).unwrap().is_err());
    }

    #[tokio::test]
    async fn a_command_runs_once_for_many() {
        let log = path("runs");
        let script = format!("echo ran >> '{0}'; sleep 0.2; wc -l < '{0}'", log.display());
        let credentials = shell(&script, None);
        let source = secret();
        let all = futures_util::future::join_all((0..20).map(|_| credentials.key(&source))).await;
        for found in all {
            assert_eq!(found.unwrap(), key("1"));
        }
        credentials.refused(&source, &key("1"));
        assert_eq!(credentials.key(&source).await.unwrap(), key("2"));
        fs::remove_file(log).unwrap();
    }

    #[tokio::test]
    async fn a_secret_is_found_in_any_case_and_never_a_doubtful_one() {
        let at = path("case");
        fs::write(&at, "one").unwrap();
        let file = || SecretSource::File(at.clone());
        let named = |names: &[&str]| {
            let named = names.iter().map(|name| ((*name).to_owned(), file())).collect();
            Credentials::new(Secrets { environment: BTreeSet::default(), named })
        };
        let wanted = KeySource::Secret("FRANKFURT-2".to_owned());
        assert_eq!(named(&["frankfurt_2"]).key(&wanted).await.unwrap(), key("one"));
        let doubtful = named(&["frankfurt_2", "Frankfurt-2"]).key(&wanted).await.unwrap_err();
        assert!(matches!(doubtful.fault, SecretFault::Unknown), "{doubtful}");
        fs::remove_file(&at).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let at = path("key");
        fs::write(&at, "one\n").unwrap();
        let credentials = credentials(SecretSource::File(at.clone()));
        assert_eq!(credentials.key(&secret()).await.unwrap(), key("one"));
        fs::write(&at, "two\n").unwrap();
        assert_eq!(credentials.key(&secret()).await.unwrap(), key("two"));
        fs::remove_file(&at).unwrap();
        assert!(credentials.key(&secret()).await.is_err());
    }

    #[tokio::test]
    async fn errors_name_the_secret_and_nothing_of_it() {
        let unknown = Credentials::default().key(&secret()).await.unwrap_err().to_string();
        assert!(unknown.contains("`x`") && unknown.contains("`[secrets]`"), "{unknown}");
        let unset = KeySource::Environment("LEXGATE_NOT_SET".to_owned());
        let environment = BTreeSet::from(["LEXGATE_NOT_SET".to_owned()]);
        let granted = Credentials { environment, ..Credentials::default() };
        let unset = granted.key(&unset).await.unwrap_err().to_string();
        assert!(unset.contains("`LEXGATE_NOT_SET` is not set"), "{unset}");
        let scripts = ["echo sk-hush; exit 1", "echo sk-hush >&2", "printf 'sk-hush\\377'"];
        for script in scripts {
            let error = shell(script, None).key(&secret()).await.unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains("`x`") && !said.contains("hush"), "{said}");
        }
    }
}
