//! One HTTP client for each way in which backends are connected to, with its idle connections. Not what
//! is sent through it ([`super::client`]).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Certificate;

use crate::facts::BackendAddress;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How many idle connections are kept to one host.
const MOST_IDLE: usize = 64;
/// How many clients are kept; more are of organisations that are no longer active.
const MOST_CLIENTS: usize = 64;
/// The largest file of certificates.
const LARGEST: u64 = 1 << 20;

/// Clients, made when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The certificate authorities that may be read.
    ca_files: BTreeSet<PathBuf>,
    made: Mutex<HashMap<Way, Made>>,
}

/// In what clients differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Way {
    ca_file: Option<PathBuf>,
    connect: Duration,
}

#[derive(Debug)]
struct Made {
    stamp: Option<Stamp>,
    client: reqwest::Client,
}

/// What changes when a file does: modification, length, inode.
type Stamp = ((i64, i64), u64, u64);

/// Why no connection can be made that would be safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The organisation names a file that this machine does not grant.
    #[error(
        "`[backends] ca_files` of this machine's configuration does not list the certificate authority `{0}`"
    )]
    NotListed(PathBuf),
    /// The file of the certificate authority cannot be read.
    #[error("the certificate authority `{0}` cannot be read: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It holds none.
    #[error("the certificate authority `{0}` holds no certificate in PEM that can be used")]
    NoCertificate(PathBuf),
    /// The client cannot be made.
    #[error("TLS cannot be set up: {0}")]
    Client(#[source] reqwest::Error),
    /// The machine gives it no thread.
    #[error("TLS cannot be set up: {0}")]
    Thread(#[source] io::Error),
}

impl Connections {
    /// Clients that trust the system's certificate authorities, and these where they are named.
    pub(super) fn new(ca_files: BTreeSet<PathBuf>) -> Self {
        Self { ca_files, made: Mutex::default() }
    }

    /// The client for `address`. A certificate authority that has changed is read again.
    pub(super) async fn client(
        &self,
        address: &BackendAddress,
    ) -> Result<reqwest::Client, TlsFault> {
        let way = Way { ca_file: address.ca_file.clone(), connect: address.timeouts.connect };
        let stamp = match &way.ca_file {
            None => None,
            Some(path) if !self.ca_files.contains(path) => {
                return Err(TlsFault::NotListed(path.clone()));
            }
            Some(path) => Some(stamp(path).await?),
        };
        if let Some(client) = self.made(&way, stamp) {
            return Ok(client);
        }
        // Reading the system's roots takes a while.
        let sought = way.clone();
        let built = tokio::task::spawn_blocking(move || build(&sought)).await;
        let client = built.map_err(|error| TlsFault::Thread(error.into()))??;
        // Another call may have made one too: whoever comes first keeps the connections.
        if let Some(client) = self.made(&way, stamp) {
            return Ok(client);
        }
        let mut all = self.lock();
        if all.len() >= MOST_CLIENTS {
            all.clear();
        }
        all.insert(way, Made { stamp, client: client.clone() });
        Ok(client)
    }

    fn made(&self, way: &Way, stamp: Option<Stamp>) -> Option<reqwest::Client> {
        let all = self.lock();
        all.get(way).filter(|made| made.stamp == stamp).map(|made| made.client.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Way, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stamp(path: &Path) -> Result<Stamp, TlsFault> {
    let unreadable = |error| TlsFault::Unreadable(path.to_owned(), error);
    let metadata = tokio::fs::metadata(path).await.map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(TlsFault::NoCertificate(path.to_owned()));
    }
    Ok(((metadata.mtime(), metadata.mtime_nsec()), metadata.len(), metadata.ino()))
}

fn build(way: &Way) -> Result<reqwest::Client, TlsFault> {
    let builder = reqwest::Client::builder()
        .connect_timeout(way.connect)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would be a place that no policy has judged.
        .no_proxy()
        // Each attempt is authorised and recorded by itself: the library repeats none.
        .retry(reqwest::retry::never())
        .tcp_nodelay(true)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MOST_IDLE);
    let Some(path) = &way.ca_file else {
        return builder.build().map_err(TlsFault::Client);
    };
    let pem = std::fs::read(path).map_err(|error| TlsFault::Unreadable(path.clone(), error))?;
    let none = |_| TlsFault::NoCertificate(path.clone());
    let certificates = Certificate::from_pem_bundle(&pem).map_err(none)?;
    if certificates.is_empty() {
        return Err(TlsFault::NoCertificate(path.clone()));
    }
    builder.tls_certs_only(certificates).build().map_err(none)
}
