//! What can be seen of the log from outside while it grows: each entry with the time at which it was
//! not there yet and the time at which it was, and every checkpoint that a replica shows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lexgate::domain::{Clock, SystemClock};
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row, SqliteConnection};
use tokio::task::JoinSet;

use super::load::Urls;

/// How often the log is looked at.
const EVERY: Duration = Duration::from_millis(40);
/// How long a look may take; a store that stands still is looked at again.
const PATIENCE: Duration = Duration::from_secs(2);
const SELECT: &str = "SELECT seq, leaf, entry FROM entries WHERE seq >= $1 ORDER BY seq LIMIT 1000";

/// An entry as its bytes say.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    /// As in the row or the tile.
    pub(super) leaf: [u8; 32],
    pub(super) kind: String,
    pub(super) ts: Timestamp,
    pub(super) body: Value,
}

impl Entry {
    /// `None`: the bytes are not an entry of the service's.
    pub(super) fn parse(seq: u64, leaf: &[u8], bytes: &[u8]) -> Option<Self> {
        let mut entry: Value = serde_json::from_slice(bytes).ok()?;
        let kind = entry["kind"].as_str()?.to_owned();
        let ts = entry["ts"].as_str()?.parse().ok()?;
        Some(Self { seq, leaf: leaf.try_into().ok()?, kind, ts, body: entry["body"].take() })
    }

    /// The number of the call that it decides.
    pub(super) fn marker(&self) -> Option<u64> {
        (self.kind == "decision").then(|| self.body["call"]["data"]["subject_count"].as_u64())?
    }

    /// The decision whose outcome it is.
    pub(super) fn decision(&self) -> Option<u64> {
        (self.kind == "outcome").then(|| self.body["decision"]["seq"].as_u64())?
    }
}

/// An entry, and when it became visible.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) entry: Entry,
    /// A look that began then did not show it.
    pub(super) absent: Instant,
    pub(super) seen: Instant,
    pub(super) wall: Timestamp,
}

/// A checkpoint that a replica answered.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) by: String,
    pub(super) at: Instant,
    pub(super) size: u64,
    pub(super) root: String,
}

/// Size and root of a checkpoint's text.
pub(super) fn checkpoint(text: &str) -> Option<(u64, String)> {
    let mut lines = text.lines().skip(1);
    let size = lines.next()?.parse().ok()?;
    Some((size, lines.next()?.to_owned()))
}

/// Which store is looked at. Another one begins another epoch.
#[derive(Debug, Default)]
struct View {
    url: String,
    /// Since when it is that one. What was there before is not known, however late the first look comes.
    since: Option<Instant>,
    epochs: Vec<Vec<Sighting>>,
    shown: Vec<Shown>,
}

#[derive(Debug)]
pub(super) struct Watch {
    view: Arc<Mutex<View>>,
    _tasks: JoinSet<()>,
}

impl Watch {
    pub(super) fn start(url: &str, urls: &Urls) -> Self {
        let (url, since) = (url.to_owned(), Some(Instant::now()));
        let view = View { url, since, epochs: vec![Vec::new()], ..View::default() };
        let view = Arc::new(Mutex::new(view));
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(view.clone()));
        for (slot, url) in urls.iter().enumerate() {
            let (url, view) = (url.clone(), view.clone());
            tasks.spawn(async move {
                let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
                loop {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    let url = url.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let Some(url) = url else { continue };
                    let at = Instant::now();
                    let answer = http.get(format!("{url}/tlog/checkpoint")).send().await;
                    let Ok(answer) = answer else { continue };
                    let Ok(text) = answer.text().await else { continue };
                    let Some((size, root)) = checkpoint(&text) else { continue };
                    let shown = Shown { by: format!("replica {slot}"), at, size, root };
                    view.lock().unwrap_or_else(PoisonError::into_inner).shown.push(shown);
                }
            });
        }
        Self { view, _tasks: tasks }
    }

    /// The store is another one from now on.
    pub(super) fn another(&self, url: &str) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        url.clone_into(&mut view.url);
        view.since = Some(Instant::now());
        view.epochs.push(Vec::new());
    }

    /// How many entries of the present store were seen.
    pub(super) fn size(&self) -> u64 {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.epochs.last().unwrap().last().map_or(0, |last| last.entry.seq + 1)
    }

    /// Everything that was seen, store by store.
    pub(super) fn epochs(&self) -> Vec<Vec<Sighting>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).epochs.clone()
    }

    pub(super) fn shown(&self) -> Vec<Shown> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).shown.clone()
    }
}

/// One look at a store, on a connection that is kept.
enum Eye {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Eye {
    async fn open(url: &str) -> Result<Self, sqlx::Error> {
        if url.starts_with("postgres") {
            return Ok(Self::Postgres(PgConnection::connect(url).await?));
        }
        Ok(Self::Sqlite(SqliteConnection::connect(&format!("{url}?mode=ro")).await?))
    }

    async fn look(&mut self, from: u64) -> Result<Vec<Entry>, sqlx::Error> {
        let from = i64::try_from(from).unwrap();
        let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = match self {
            Self::Postgres(connection) => {
                let rows = sqlx::query(SELECT).bind(from).fetch_all(connection).await?;
                rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
            }
            Self::Sqlite(connection) => {
                let rows = sqlx::query(SELECT).bind(from).fetch_all(connection).await?;
                rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
            }
        };
        let entry = |(seq, leaf, bytes): (i64, Vec<u8>, Vec<u8>)| {
            Entry::parse(seq.try_into().unwrap(), &leaf, &bytes)
        };
        // What is not an entry is looked at again.
        Ok(rows.into_iter().map_while(entry).collect())
    }
}

/// Every entry of a store.
pub(super) async fn all(url: &str) -> Vec<Entry> {
    let mut eye = Eye::open(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let mut all = Vec::new();
    loop {
        let more =
            eye.look(all.len() as u64).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

async fn follow(view: Arc<Mutex<View>>) {
    let (mut eye, mut epoch, mut absent) = (None, 0, Instant::now());
    let mut known: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let (url, since, now) = {
            let view = view.lock().unwrap_or_else(PoisonError::into_inner);
            (view.url.clone(), view.since, view.epochs.len())
        };
        if epoch != now {
            (eye, epoch, absent) = (None, now, since.unwrap_or_else(Instant::now));
            known.clear();
        }
        let began = Instant::now();
        let next = known.last_key_value().map_or(0, |(seq, _)| seq + 1);
        let look = async {
            let mut open = match eye.take() {
                Some(open) => open,
                None => Eye::open(&url).await?,
            };
            let seen = open.look(next).await?;
            Ok::<_, sqlx::Error>((open, seen))
        };
        let Ok(Ok((open, seen))) = tokio::time::timeout(PATIENCE, look).await else { continue };
        eye = Some(open);
        known.extend(seen.iter().map(|entry| (entry.seq, entry.leaf)));
        let (at, wall) = (Instant::now(), SystemClock.now());
        let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
        if view.epochs.len() == epoch {
            let sighting = |entry| Sighting { entry, absent, seen: at, wall };
            view.epochs[epoch - 1].extend(seen.into_iter().map(sighting));
        }
        absent = began;
    }
}
