//! The wiring: from a configuration to a running gate, and back to nothing.

mod checks;
mod key_file;
mod keys;
mod log;
mod removals;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::checks::check_content;
use crate::{
    config,
    config::Config,
    dispatch::OpenAiClient,
    domain::{Clock, Patience, Seq, SystemClock},
    facts::Proposal,
    gate,
    gate::{
        Activate, Gate, GateError, GateParts, Keeper, KeeperError, MasterKey, Reaper, Vault,
        fresh_id, log_keys,
    },
    http,
    http::{Bodies, Keys, Shared, router},
    ledger::{Entry, GenesisBody, Signer, SigningKey},
    lifecycle::Lifecycle,
    policy::SCHEMA_FILE,
    sequencer::{Sequencer, SubmitError, check_clocks},
    source::{Fault, Faults, SourceFile},
    store,
    store::{Store, StoreError, StoreOptions},
    telemetry,
    witness::{Publisher, PublisherError, WitnessAddress},
};

pub use checks::{check_machine, check_marks, unknown_place};
pub use key_file::{KeyFileError, read as read_key_file};
use log::settings;
pub use log::{append_alone, append_draft, mark_settings, open_mark};

/// How long clients have to read their answers once all calls have ended.
const FLUSH: Duration = Duration::from_secs(5);
/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// Something that a person wrote is wrong.
    #[error("{0}")]
    Faults(#[from] Faults),
    /// The store's tables are not there.
    #[error(
        "the store's tables are missing or old: run `lexgate migrate`, or leave `[store] migrate` on"
    )]
    NotMigrated,
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// No snapshot can decide.
    #[error("{0}")]
    Keeper(#[from] KeeperError),
    /// The gate cannot work.
    #[error("{0}")]
    Gate(#[from] GateError),
    /// The client for witnesses cannot be made.
    #[error("{0}")]
    Publisher(#[from] PublisherError),
    /// The machine gives the ledger no thread.
    #[error("the thread that writes the ledger cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// Signals cannot be listened to.
    #[error("the signal handlers cannot be installed: {0}")]
    Signals(#[source] std::io::Error),
    /// A record was not written.
    #[error("{0}")]
    Append(#[source] SubmitError),
    /// Metrics cannot be kept.
    #[error("metrics cannot be kept: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The address cannot be listened on, or signals not be heard.
    #[error(
        "cannot listen on {address}: {error}; if another program listens there, name a free port as `server.listen` or in LEXGATE_SERVER__LISTEN"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

/// A gate with everything that keeps it going.
#[derive(Debug)]
pub struct App {
    /// The gate.
    pub gate: Arc<Gate>,
    /// The log's verifier key.
    pub vkey: String,
    store: Arc<dyn Store>,
    sequencer: Sequencer,
    lifecycle: Lifecycle,
    process: Uuid,
    /// Fires when keeper and reaper are to end, after the calls.
    closing: CancellationToken,
}

/// Reads the files that `config` names, as one proposal.
///
/// # Errors
/// Every fault found.
pub fn read_proposal(config: &Config) -> Result<Proposal, Faults> {
    let organisation = config::read_file(&config.organisation.file).map_err(|fault| {
        fault.help("`[organisation] file` names it; `lexgate init` writes an example")
    })?;
    let (proposal, not_taken) = propose_folder(&config.policies.dir, organisation)?;
    for file in not_taken {
        tracing::warn!(file, "a file of the policy folder is not a policy and was not taken");
    }
    Ok(proposal)
}

/// Reads the policy folder `dir` together with an organisation.
///
/// # Errors
/// Every fault found.
pub fn propose(dir: &Path, organisation: SourceFile) -> Result<Proposal, Faults> {
    propose_folder(dir, organisation).map(|(proposal, _)| proposal)
}

/// The same, with the files of the folder that were not taken.
///
/// # Errors
/// Every fault found.
pub fn propose_folder(
    dir: &Path,
    organisation: SourceFile,
) -> Result<(Proposal, Vec<String>), Faults> {
    let config::PolicyFolder { files, not_taken, .. } = config::read_policy_folder(dir)?;
    let proposal = Proposal::load(&files, organisation);
    Ok((proposal.map_err(|faults| under(dir, faults, &files))?, not_taken))
}

/// Reads the keys that sign the log: its key, and the former one as long as that is kept.
///
/// # Errors
/// A fault that says what to do.
pub fn read_signer(config: &Config) -> Result<Signer, Fault> {
    let mut keys = vec![read_key(config, &config.ledger.signing_key_file)?];
    let former = config.ledger.former_key_file();
    if former.exists() {
        keys.push(read_key(config, &former)?);
    }
    Ok(Signer::new(config.ledger.origin.clone(), keys))
}

/// Reads a signing key of the log.
///
/// # Errors
/// A fault that says what to do.
pub fn read_key(config: &Config, path: &Path) -> Result<SigningKey, Fault> {
    let fault = |message: String| {
        config
            .fault(&["ledger", "signing_key_file"], message)
            .help("`lexgate init` makes a key; restore this one from its backup if the log exists already")
    };
    let bytes = key_file::read(path, "signing key").map_err(|error| fault(error.to_string()))?;
    SigningKey::from_pkcs8(&bytes).map_err(|error| fault(format!("`{}`: {error}", path.display())))
}

/// Reads the key under which values of persons are sealed, where there is to be one.
fn read_master_key(config: &Config) -> Result<Option<MasterKey>, Faults> {
    let Some(path) = &config.ledger.master_key_file else { return Ok(None) };
    let fault = |message: String| {
        config.fault(&["ledger", "master_key_file"], message).help(
            "`lexgate init` makes a key; restore this one from its backup if the log exists already",
        )
    };
    let bytes = key_file::read(path, "master key").map_err(|error| fault(error.to_string()))?;
    let key = MasterKey::parse(&String::from_utf8_lossy(&bytes));
    Ok(Some(key.map_err(|error| fault(format!("`{}`: {error}", path.display())))?))
}

async fn open_vault(config: &Config, store: &Arc<dyn Store>) -> Result<Option<Vault>, AppError> {
    let master = read_master_key(config)?;
    match Vault::open(master, store.clone()).await {
        Err(error @ GateError::MasterKey) => {
            let fault = config.fault(&["ledger", "master_key_file"], error.to_string());
            Err(Faults::from(fault.help("restore the key from its backup")).into())
        }
        vault => Ok(vault?),
    }
}

/// Opens the store that `config` names, whatever its tables are.
///
/// # Errors
/// When the address names no store, or an unsafe way to one.
pub async fn reach_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let options = StoreOptions {
        insecure_tls: config.store.insecure_tls,
        require_synchronous_standby: config.store.require_synchronous_standby,
        patience: Patience::new(config.store.patience),
    };
    store::open_with(config.store.url.expose(), options).await
}

/// Opens the store that `config` names, with its tables as they must be.
///
/// # Errors
/// When it cannot be reached, or its tables are old and may not be migrated.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, AppError> {
    let store = reach_store(config).await?;
    if config.store.migrate {
        store.migrate().await?;
    } else if !store.is_migrated().await? {
        return Err(AppError::NotMigrated);
    }
    Ok(store)
}

impl App {
    /// Builds everything that `config` describes, and starts what keeps it going.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, the files or the store; nothing is served then.
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let lifecycle = Lifecycle::default();
        lifecycle.outlive_hangup().map_err(AppError::Signals)?;
        let signer = Arc::new(read_signer(config).map_err(Faults::from)?);
        let proposal = read_proposal(config)?;
        check_marks(&config.policies.dir)?;
        if proposal.organisation.apps.is_empty() {
            let file = &*proposal.organisation_file.path;
            tracing::warn!(file, "the organisation declares no app: no call can be made");
        }
        check_machine(config, &proposal)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let process = fresh_id(&*clock, &ring::rand::SystemRandom::new())?;
        let store = open_store(config).await?;
        store.examine().await?;
        let vkey = signer.verifiers().first().map(ToString::to_string).unwrap_or_default();
        check_log(config, &*store, &signer).await?;
        removals::check_removals(config, &*store, &proposal).await?;
        let mark = open_mark(config, &*store, &signer).await?;
        check_clocks(config.ledger.max_clock_skew, &*clock, &*store).await?;
        let settings = settings(config, process, signer);
        let sequencer = Sequencer::start(
            store.clone(),
            settings,
            mark.clone(),
            clock.clone(),
            &lifecycle.services,
        )
        .map_err(AppError::Thread)?;
        let keeper = Keeper::start(
            proposal,
            activation(config),
            store.clone(),
            sequencer.clone(),
            clock.clone(),
        );
        let keeper = Arc::new(keeper.await?);
        // What is active may be another organisation than the files say.
        check_content(config, &keeper.current().snapshot().organisation)?;
        let gate = Gate::new(GateParts {
            keeper: keeper.clone(),
            sequencer: sequencer.clone(),
            store: store.clone(),
            vault: open_vault(config, &store).await?,
            backends: Arc::new(OpenAiClient::new(config.grants())),
            fleet: Arc::default(),
            clock,
            tasks: lifecycle.calls.clone(),
            halt: lifecycle.halt.clone(),
        });
        let gate = Arc::new(gate.with_bounds(&gate::Bounds {
            answers: config.server.body_budget.get(),
            readings_per_minute: config.ledger.readings_per_minute,
            min_free: config.store.min_free.get(),
        }));
        gate.look_for_room().await;
        let closing = CancellationToken::new();
        gate.meet_backends().await;
        lifecycle.services.spawn(gate.clone().watch_backends(closing.clone()));
        lifecycle.services.spawn(gate.clone().watch_room(closing.clone()));
        lifecycle.services.spawn(gate.clone().watch_index(closing.clone()));
        let reaper = Reaper::new(gate.clone(), process);
        reaper.take_lease().await?;
        // It looks at once, and without a lease this process is not ready.
        lifecycle.services.spawn(gate.clone().watch_readiness(closing.clone()));
        lifecycle.services.spawn(keeper.run(closing.clone()));
        let witnesses = config
            .ledger
            .witnesses
            .iter()
            .map(|witness| WitnessAddress { url: witness.url.clone(), key: witness.key.clone() });
        let publisher = Publisher::new(store.clone(), mark, witnesses.collect())?;
        lifecycle.services.spawn(publisher.run(closing.clone()));
        lifecycle.services.spawn(reaper.run(closing.clone()));
        Ok(Self { gate, vkey, store, sequencer, lifecycle, process, closing })
    }

    /// Serves HTTP until a signal comes, then ends in order.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(self, config: &Config) -> Result<(), AppError> {
        let address = config.server.listen;
        let failed = |error| AppError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        self.lifecycle.listen().map_err(failed)?;
        let draining = self.lifecycle.draining.clone();
        let server = &config.server;
        let service = router(Arc::new(Shared {
            gate: self.gate.clone(),
            keys: Keys::new(config.api_keys.clone()),
            metrics: telemetry::metrics()?,
            draining: draining.clone(),
            bodies: Bodies {
                room: Arc::new(gate::Budget::new(server.body_budget.get())),
                patience: server.body_timeout,
            },
            cors_origins: server.cors_origins.clone(),
        }));
        announce(address, &self.vkey);
        let bounds = http::Bounds {
            header_timeout: server.header_timeout,
            idle_timeout: server.idle_timeout,
            max_connections: server.max_connections,
            max_connections_per_address: server.max_connections_per_address,
        };
        let server = http::serve(listener, service, bounds, draining.clone());
        // A client that does not read its answer must not keep the process for ever.
        let finished = async {
            draining.cancelled().await;
            self.lifecycle.finish_calls().await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            () = server => {}
            () = finished => tracing::warn!("connections that did not end are cut off"),
        }
        self.stop().await;
        Ok(())
    }

    /// Ends in order: calls, keeper and reaper, then the writer of the ledger.
    pub async fn stop(self) {
        self.lifecycle.finish_calls().await;
        self.gate.record_counted_refusals(true).await;
        self.closing.cancel();
        self.sequencer.close();
        self.lifecycle.finish_services().await;
        if let Err(error) = self.store.release_lease(self.process).await {
            tracing::warn!(%error, "the lease could not be released; it runs out by itself");
        }
        tracing::info!("the service has ended");
    }
}

/// A log is continued only under its own name and with its newest key.
async fn check_log(config: &Config, store: &dyn Store, signer: &Signer) -> Result<(), AppError> {
    let Some(genesis) = store.record(Seq::new(0)).await? else { return Ok(()) };
    let body = Entry::parse(&genesis.entry).ok();
    let body = body.and_then(|entry| serde_json::from_str::<GenesisBody>(entry.body.get()).ok());
    let Some(body) = body else { return Err(GateError::Corrupt.into()) };
    let (at, message, help) = if body.origin == *config.ledger.origin.as_str() {
        match keys::check(&log_keys(store).await?, signer) {
            Ok(()) => return Ok(()),
            Err((message, help)) => ("signing_key_file", message, help),
        }
    } else {
        (
            "origin",
            format!("the store holds the log `{}`, not `{}`", body.origin, config.ledger.origin),
            "name the store's own log, or another store",
        )
    };
    Err(Faults::from(config.fault(&["ledger", at], message).help(help)).into())
}

#[expect(clippy::print_stdout, reason = "the one line by which a person finds the service")]
fn announce(address: SocketAddr, vkey: &str) {
    tracing::info!(%address, vkey, "listening");
    println!("lexgate listens on http://{address} (documentation: http://{address}/docs)");
}

/// SQLite has one machine's files beside it; on Postgres replicas must not fight.
fn activation(config: &Config) -> Activate {
    match config.policies.activate_on_start {
        Some(true) => Activate::Always,
        Some(false) => Activate::Never,
        None if config.store.url.expose().starts_with("sqlite") => Activate::Always,
        None => Activate::WhenNone,
    }
}

/// Faults of policy files under the paths that the reader would type.
fn under(dir: &Path, mut faults: Faults, files: &[SourceFile]) -> Faults {
    for fault in &mut faults.0 {
        if files.iter().any(|file| file.path == fault.file) || *fault.file == *SCHEMA_FILE {
            fault.file = dir.join(&*fault.file).display().to_string().into();
        }
    }
    faults
}
