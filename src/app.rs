//! The wiring: from a configuration to a running gate, and back to nothing.

mod log;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{self, Config, Role},
    dispatch::OpenAiClient,
    domain::{Clock, Fault, Faults, Seq, SourceFile, SystemClock},
    facts::{ContentMode, KeySource, Organisation, Proposal},
    gate::{
        Activate, Gate, GateError, GateParts, Keeper, KeeperError, MasterKey, Reaper, Vault,
        fresh_id, log_keys,
    },
    http::{Keys, Shared, router},
    ledger::{Entry, GenesisBody, Signer, SigningKey},
    lifecycle::Lifecycle,
    policy::SCHEMA_FILE,
    sequencer::{Sequencer, SubmitError, check_clocks},
    store::{self, Store, StoreError},
    telemetry,
    witness::{Publisher, PublisherError, WitnessAddress},
};

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
    /// A record was not written.
    #[error("{0}")]
    Append(#[source] SubmitError),
    /// Metrics cannot be kept.
    #[error("metrics cannot be kept: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The address cannot be listened on, or signals not be heard.
    #[error("cannot listen on {address}: {error}")]
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
    propose(&config.policies.dir, organisation)
}

/// Reads the policy folder `dir` together with an organisation.
///
/// # Errors
/// Every fault found.
pub fn propose(dir: &Path, organisation: SourceFile) -> Result<Proposal, Faults> {
    let policies = config::read_policies(dir)?;
    Proposal::load(&policies, organisation).map_err(|faults| under(dir, faults, &policies))
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
    let bytes = std::fs::read(path).map_err(|error| {
        fault(format!("the signing key `{}` cannot be read: {error}", path.display()))
    })?;
    refuse_readable_by_others(path).map_err(fault)?;
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
    let text = std::fs::read_to_string(path).map_err(|error| {
        fault(format!("the master key `{}` cannot be read: {error}", path.display()))
    })?;
    refuse_readable_by_others(path).map_err(fault)?;
    let key = MasterKey::parse(&text);
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

fn refuse_readable_by_others(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    // The last six bits are the rights of group and others.
    if mode.trailing_zeros() >= 6 {
        return Ok(());
    }
    let path = path.display();
    Err(format!("the key `{path}` can be read by others: `chmod 600 {path}`"))
}

/// Opens the store that `config` names, with its tables as they must be.
///
/// # Errors
/// When it cannot be reached, or its tables are old and may not be migrated.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, AppError> {
    let store = store::open(config.store.url.expose()).await?;
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
        let signer = Arc::new(read_signer(config).map_err(Faults::from)?);
        let proposal = read_proposal(config)?;
        check_keys(config, &proposal)?;
        check_secrets(config, &proposal)?;
        check_content(config, &proposal.organisation)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let process = fresh_id(&*clock, &ring::rand::SystemRandom::new())?;
        let lifecycle = Lifecycle::default();
        let store = open_store(config).await?;
        let vkey = signer.verifiers().first().map(ToString::to_string).unwrap_or_default();
        check_log(config, &*store, &vkey).await?;
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
        let gate = Arc::new(Gate::new(GateParts {
            keeper: keeper.clone(),
            sequencer: sequencer.clone(),
            store: store.clone(),
            vault: open_vault(config, &store).await?,
            backends: Arc::new(OpenAiClient::new(config.secrets.clone())),
            fleet: Arc::default(),
            clock,
            tasks: lifecycle.calls.clone(),
            halt: lifecycle.halt.clone(),
        }));
        let closing = CancellationToken::new();
        gate.meet_backends().await;
        lifecycle.services.spawn(gate.clone().watch_backends(closing.clone()));
        let reaper = Reaper::new(gate.clone(), process);
        reaper.take_lease().await?;
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
        let service = router(Arc::new(Shared {
            gate: self.gate.clone(),
            keys: Keys::new(config.api_keys.clone()),
            metrics: telemetry::metrics()?,
            draining: draining.clone(),
        }));
        announce(address, &self.vkey);
        let listener = listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
        });
        // Made once: as it is, the router would be copied for each connection.
        let server = axum::serve(listener, service.into_make_service())
            .with_graceful_shutdown(draining.clone().cancelled_owned());
        // A client that does not read its answer must not keep the process for ever.
        let finished = async {
            draining.cancelled().await;
            self.lifecycle.finish_calls().await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            ended = async { server.await } => ended.map_err(failed)?,
            () = finished => tracing::warn!("connections that did not end are cut off"),
        }
        self.stop().await;
        Ok(())
    }

    /// Ends in order: calls, keeper and reaper, then the writer of the ledger.
    pub async fn stop(self) {
        self.lifecycle.finish_calls().await;
        self.closing.cancel();
        self.sequencer.close();
        self.lifecycle.finish_services().await;
        if let Err(error) = self.store.release_lease(self.process).await {
            tracing::warn!(%error, "the lease could not be released; it runs out by itself");
        }
        tracing::info!("the service has ended");
    }
}

/// A log is continued only under its own name and with a key of its own.
async fn check_log(config: &Config, store: &dyn Store, vkey: &str) -> Result<(), AppError> {
    let Some(genesis) = store.record(Seq::new(0)).await? else { return Ok(()) };
    let body = Entry::parse(&genesis.entry).ok();
    let body = body.and_then(|entry| serde_json::from_str::<GenesisBody>(entry.body.get()).ok());
    let Some(body) = body else { return Err(GateError::Corrupt.into()) };
    let keys = log_keys(store).await?;
    let (at, message, help) = if body.origin != *config.ledger.origin.as_str() {
        (
            "origin",
            format!("the store holds the log `{}`, not `{}`", body.origin, config.ledger.origin),
            "name the store's own log, or another store",
        )
    } else if !keys.iter().any(|key| key.vkey == vkey) {
        (
            "signing_key_file",
            format!("the log was opened with the key `{}`; this one is `{vkey}`", body.public_key),
            "restore the log's key from its backup",
        )
    } else {
        return Ok(());
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

/// Every name in `[[api_keys]]` must lead somewhere.
fn check_keys(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
    let mut faults = Faults::default();
    for (index, key) in config.api_keys.iter().enumerate() {
        let at = index.to_string();
        let app = key.app.as_ref().filter(|_| key.roles.contains(&Role::Caller));
        if let Some(app) = app.filter(|app| !proposal.organisation.apps.contains_key(*app)) {
            let message = format!("API key `{}` names the unknown app `{app}`", key.name);
            let fault = config.fault(&["api_keys", &at, "app"], message);
            faults.0.push(
                fault.help("correct it, or declare it in an `[[apps]]` of the organisation file"),
            );
        }
        for code in &key.jurisdictions {
            if !proposal.world.knows_jurisdiction(code.as_str()) {
                let message =
                    format!("API key `{}` names the unknown jurisdiction `{code}`", key.name);
                let fault = config.fault(&["api_keys", &at, "jurisdictions"], message);
                faults.0.push(fault.help("write an ISO 3166 code such as `SA`"));
            }
        }
    }
    faults.or(())
}

/// Every backend's key must be somewhere: the organisation names it, and this machine says where it is.
fn check_secrets(config: &Config, proposal: &Proposal) -> Result<(), Faults> {
    let mut faults = Faults::default();
    for (index, deployment) in proposal.organisation.deployments.iter().enumerate() {
        let key = deployment.backend.as_ref().and_then(|backend| backend.key.as_ref());
        let Some(KeySource::Secret(name)) = key else { continue };
        if !config.secrets.contains_key(name) {
            let file = &proposal.organisation_file;
            let place = ["deployments", &index.to_string(), "backend", "api_key"];
            let message = format!(
                "deployment `{}` has the key `{name}`, and `[secrets]` does not say where that is",
                deployment.id
            );
            faults.0.push(file.fault(config::locate(file, &place), message).help(format!(
                "add `[secrets.{name}]` with `env`, `file` or `command` to this machine's configuration, or correct the name"
            )));
        }
    }
    faults.or(())
}

/// What calls say is kept under a key, or not at all.
fn check_content(config: &Config, organisation: &Organisation) -> Result<(), Faults> {
    let mut faults = Faults::default();
    if config.ledger.master_key_file.is_none() {
        for (id, app) in &organisation.apps {
            if app.content == ContentMode::Sealed {
                let message = format!(
                    "app `{id}` has `content = \"sealed\"`, and there is no key to seal it under"
                );
                let fault = config.fault(&["ledger", "master_key_file"], message);
                faults.0.push(fault.help(
                    "set `[ledger] master_key_file` to a file of 64 random hexadecimal digits, or write `content = \"none\"` in the organisation file",
                ));
            }
        }
    }
    faults.or(())
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
