//! A log's way to those who are to see it: its checkpoints into a file, and to its witnesses. Beside
//! the sequencer, every few seconds: no decision waits for it, but where a witness is required.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Digest,
    ledger::{Checkpoint, Note, NoteSignature, Plan, VerifierKey, hash_text},
    sequencer::{CheckpointsError, Mark},
    store::{Store, StoreError},
};

/// How often a new checkpoint is published.
const EVERY: Duration = Duration::from_secs(2);
/// How often the checkpoint is looked at: what one replica has signed, another must have seen before the
/// database is set back.
const LOOK: Duration = Duration::from_millis(500);
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
    #[error("the checkpoints file `{path}` cannot be written: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// What was published before cannot be read, or contradicts the log.
    #[error("{0}")]
    Published(#[from] CheckpointsError),
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

/// Publishes a log's checkpoints. What does not go on from all that was published before, it does not
/// publish, and the process signs nothing any more.
#[derive(Debug)]
pub struct Publisher {
    store: Arc<dyn Store>,
    mark: Mark,
    witnesses: Vec<WitnessAddress>,
    client: reqwest::Client,
    every: Duration,
    state: State,
}

/// What was published.
#[derive(Debug, Default)]
struct State {
    /// The last note that was published.
    last: String,
    /// Whether a witness has cosigned it.
    is_cosigned: bool,
    /// How much of the file the log was held against.
    length: Option<u64>,
    /// How much of the log each witness is known to have seen.
    sizes: Vec<u64>,
    /// Why nothing was published the last time.
    fault: Option<String>,
}

impl Publisher {
    /// Appends to the file of checkpoints that `mark` knows, and asks `witnesses`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(
        store: Arc<dyn Store>,
        mark: Mark,
        witnesses: Vec<WitnessAddress>,
    ) -> Result<Self, PublisherError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (mut every, mut patience) = (EVERY, PATIENCE);
        if let Some(within) = mark.requires_witness() {
            // A witness that does not answer must not use up the time that another one has.
            every = EVERY.min(within / 4);
            patience = PATIENCE.min(within / 4);
        }
        let client = reqwest::Client::builder()
            .timeout(patience)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let state = State { sizes: vec![0; witnesses.len()], ..State::default() };
        Ok(Self { store, mark, witnesses, client, every, state })
    }

    /// Looks at the log's checkpoint again and again, and publishes what is new, until `stop` fires, and
    /// then once more.
    pub async fn run(mut self, stop: CancellationToken) {
        let (store, mark) = (self.store.clone(), self.mark.clone());
        // Beside the publishing, which may wait for witnesses.
        let look = async {
            while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
                if let Err(error) = mark.read(&*store).await {
                    tracing::debug!(%error, "the checkpoint could not be looked at");
                }
            }
        };
        let publish = async {
            let mut is_last = false;
            while !is_last {
                let asked = stop.run_until_cancelled(tokio::time::sleep(self.every)).await;
                is_last = asked.is_none();
                let fault = self.round().await.err();
                let text = fault.as_ref().map(ToString::to_string);
                match fault {
                    Some(_) if text == self.state.fault => count_failure(),
                    Some(error) => report(&error),
                    None => {}
                }
                self.state.fault = text;
            }
        };
        tokio::join!(look, publish);
    }

    async fn round(&mut self) -> Result<(), PublisherError> {
        let looked = Instant::now();
        let Some((checkpoint, note)) = self.mark.read(&*self.store).await? else { return Ok(()) };
        let text = note.to_string();
        let is_new = text != self.state.last;
        if !is_new && self.state.is_cosigned {
            self.mark.cover(looked);
        }
        if is_new {
            self.append(&text).await?;
            self.state.last = text;
            self.state.is_cosigned = false;
        }
        // One that did not answer is asked again where something waits for it.
        if is_new || (!self.state.is_cosigned && self.mark.requires_witness().is_some()) {
            self.ask_all(checkpoint, note, looked).await?;
        }
        Ok(())
    }

    async fn ask_all(
        &mut self,
        checkpoint: Checkpoint,
        mut note: Note,
        looked: Instant,
    ) -> Result<(), PublisherError> {
        let mut sizes = std::mem::take(&mut self.state.sizes);
        let asked = self.witnesses.iter().zip(&mut sizes).map(async |(witness, size)| {
            let answer = self.ask(witness, &note, size).await;
            if answer.is_ok() {
                self.mark.cover(looked);
            }
            answer
        });
        let answers = join_all(asked).await;
        self.state.sizes = sizes;
        let mut is_cosigned = false;
        for answer in answers {
            match answer {
                Ok(signatures) => {
                    note.signatures.extend(signatures);
                    is_cosigned = true;
                }
                Err(error) => report(&error),
            }
        }
        if !is_cosigned {
            return Ok(());
        }
        self.state.is_cosigned = true;
        let text = note.to_string();
        self.append(&text).await?;
        Ok(self.store.keep_witnessed(checkpoint.size, &text).await?)
    }

    /// Appends a note to the file, unless the log contradicts what other processes have appended there. A
    /// file that cannot be used keeps nothing from the witnesses.
    async fn append(&mut self, note: &str) -> Result<(), PublisherError> {
        let Some(file) = self.mark.checkpoints() else { return Ok(()) };
        match self.mark.hold_against_published(&*self.store, self.state.length).await {
            Ok(length) => self.state.length = Some(length),
            Err(error @ CheckpointsError::File { .. }) => {
                report(&error.into());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = file.append(note) {
            report(&PublisherError::File { path: file.path().display().to_string(), error });
        }
        Ok(())
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

fn count_failure() {
    metrics::counter!("lexgate_publish_failures_total").increment(1);
}

fn report(error: &PublisherError) {
    count_failure();
    if matches!(error, PublisherError::Behind { .. }) {
        tracing::error!(%error, "a checkpoint was not published");
    } else {
        tracing::warn!(%error, "a checkpoint was not published");
    }
}
