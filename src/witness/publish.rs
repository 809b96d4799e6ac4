//! A log's way to those who are to see it: its checkpoints into a file, and to its witnesses. Beside
//! the sequencer, every few seconds: no decision waits for it.

use std::{
    fmt::Write as _, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf, sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Digest,
    ledger::{Checkpoint, Note, NoteSignature, Plan, VerifierKey, hash_text},
    store::{Store, StoreError},
};

/// How often a new checkpoint is published.
const EVERY: Duration = Duration::from_secs(2);
/// How long a witness may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer of a witness that is read, in bytes.
const ANSWER: usize = 64 << 10;

/// Where a witness is, and the key by which it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessAddress {
    /// Its submission prefix: `https://witness.example`.
    pub url: String,
    /// Its key.
    pub key: VerifierKey,
}

/// Why a checkpoint was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherError {
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The client for witnesses failed.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// The file cannot be written.
    #[error("`{path}` cannot be written: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The store's checkpoint or tree cannot be read.
    #[error("the store's checkpoint or its tiles cannot be read")]
    Corrupt,
    /// The witness has seen more than there is.
    #[error(
        "the witness `{witness}` has seen {seen} entries, the log has {size}: the log was set back"
    )]
    Behind {
        /// The witness.
        witness: String,
        /// How many it has seen.
        seen: u64,
        /// How many there are.
        size: u64,
    },
    /// The witness refused.
    #[error("the witness `{witness}` answered {status}: {text}")]
    Refused {
        /// The witness.
        witness: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
    /// What the witness sent is not its cosignature.
    #[error("the witness `{0}` sent no cosignature of this checkpoint")]
    NoCosignature(String),
}

/// Publishes a log's checkpoints.
#[derive(Debug)]
pub struct Publisher {
    store: Arc<dyn Store>,
    file: Option<PathBuf>,
    witnesses: Vec<WitnessAddress>,
    client: reqwest::Client,
}

impl Publisher {
    /// Appends to `file`, and asks `witnesses`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(
        store: Arc<dyn Store>,
        file: Option<PathBuf>,
        witnesses: Vec<WitnessAddress>,
    ) -> Result<Self, PublisherError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { store, file, witnesses, client })
    }

    /// Publishes what is new until `stop` fires, and then once more.
    pub async fn run(self, stop: CancellationToken) {
        let mut sizes = vec![0; self.witnesses.len()];
        let mut last = String::new();
        loop {
            let stopped = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none();
            match self.store.checkpoint().await {
                Ok(Some(checkpoint)) if checkpoint != last => {
                    self.publish(&checkpoint, &mut sizes).await;
                    last = checkpoint;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the checkpoint could not be published"),
            }
            if stopped {
                return;
            }
        }
    }

    async fn publish(&self, checkpoint: &str, sizes: &mut [u64]) {
        if let Err(error) = self.append(checkpoint) {
            report(&error);
        }
        let Ok(mut note) = Note::parse(checkpoint) else { return report(&PublisherError::Corrupt) };
        let asked =
            self.witnesses.iter().zip(sizes).map(|(witness, size)| self.ask(witness, &note, size));
        let answers = join_all(asked).await;
        let size = Checkpoint::read(&note).map_or(0, |checkpoint| checkpoint.size);
        let mut cosigned = false;
        for answer in answers {
            match answer {
                Ok(signatures) => {
                    note.signatures.extend(signatures);
                    cosigned = true;
                }
                Err(error) => report(&error),
            }
        }
        if !cosigned {
            return;
        }
        let text = note.to_string();
        if let Err(error) = self.append(&text) {
            report(&error);
        }
        if let Err(error) = self.store.keep_witnessed(size, &text).await {
            report(&error.into());
        }
    }

    fn append(&self, note: &str) -> Result<(), PublisherError> {
        let Some(path) = &self.file else { return Ok(()) };
        let append = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.append(true).create(true).mode(0o644).open(path)?;
            // One write: two processes may share the file.
            file.write_all(format!("{note}\n").as_bytes())?;
            file.sync_data()
        };
        append().map_err(|error| PublisherError::File { path: path.display().to_string(), error })
    }

    /// Asks one witness; tells it once more from where it knows the log, if it says so.
    async fn ask(
        &self,
        witness: &WitnessAddress,
        note: &Note,
        known: &mut u64,
    ) -> Result<Vec<NoteSignature>, PublisherError> {
        let checkpoint = Checkpoint::read(note).map_err(|_| PublisherError::Corrupt)?;
        let name = || witness.key.name().to_owned();
        for last in [false, true] {
            let request = self.request(*known, &checkpoint, note).await?;
            let url = format!("{}/add-checkpoint", witness.url.trim_end_matches('/'));
            let response = self.client.post(url).body(request).send().await?;
            let status = response.status().as_u16();
            let text = beginning(response).await?;
            match (status, text.trim().parse::<u64>()) {
                (200, _) => {
                    *known = checkpoint.size;
                    return cosignatures(witness, note, &text)
                        .ok_or(PublisherError::NoCosignature(name()));
                }
                (409, Ok(seen)) if seen > checkpoint.size => {
                    let size = checkpoint.size;
                    return Err(PublisherError::Behind { witness: name(), seen, size });
                }
                (409, Ok(seen)) if !last => *known = seen,
                _ => {
                    let text = text.chars().take(200).collect();
                    return Err(PublisherError::Refused { witness: name(), status, text });
                }
            }
        }
        Err(PublisherError::NoCosignature(name()))
    }

    async fn request(
        &self,
        known: u64,
        checkpoint: &Checkpoint,
        note: &Note,
    ) -> Result<String, PublisherError> {
        let plan = Plan::consistency(known, checkpoint.size).ok_or(PublisherError::Corrupt)?;
        let ids: Vec<_> = plan.tiles().into_iter().collect();
        let tiles = self.store.tiles(&ids).await?.into_iter().map(|tile| (tile.id, tile.hashes));
        let proof: Vec<Digest> = plan.make(&tiles.collect()).ok_or(PublisherError::Corrupt)?;
        let mut request = format!("old {known}\n");
        for hash in &proof {
            let _ = writeln!(request, "{}", hash_text(hash));
        }
        let _ = write!(request, "\n{note}");
        Ok(request)
    }
}

/// The beginning of an answer. What comes behind it is not waited for, however much it is.
async fn beginning(mut response: reqwest::Response) -> Result<String, reqwest::Error> {
    let mut read = Vec::new();
    while read.len() < ANSWER
        && let Some(piece) = response.chunk().await?
    {
        let room = piece.len().min(ANSWER - read.len());
        read.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// The witness's own signatures among the lines that it sent, if they hold.
fn cosignatures(witness: &WitnessAddress, note: &Note, text: &str) -> Option<Vec<NoteSignature>> {
    let lines = text.strip_suffix('\n')?.split('\n');
    let signatures = lines.filter_map(|line| line.parse::<NoteSignature>().ok());
    let own: Vec<_> = signatures
        .filter(|signature| {
            signature.name == witness.key.name()
                && signature.key_id == witness.key.id()
                && witness.key.verifies(note.text(), &signature.bytes)
        })
        .collect();
    (!own.is_empty()).then_some(own)
}

fn report(error: &PublisherError) {
    metrics::counter!("lexgate_publish_failures_total").increment(1);
    if matches!(error, PublisherError::Behind { .. }) {
        tracing::error!(%error, "a checkpoint was not published");
    } else {
        tracing::warn!(%error, "a checkpoint was not published");
    }
}
