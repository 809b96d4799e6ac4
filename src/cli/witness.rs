//! `lexgate witness`

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::net::TcpListener;

use super::{Failure, output, signing::write_key};
use crate::{
    app,
    domain::SystemClock,
    ledger::{SignatureType, SigningKey, VerifierKey},
    lifecycle::Lifecycle,
    telemetry,
    witness::{Witness, router},
};

/// Witness logs for others: cosign their checkpoints as long as they only grow (C2SP tlog-witness).
#[derive(Debug, Subcommand)]
pub(super) enum Witnesses {
    /// Make a witness's key and print the verifier key that logs and auditors need.
    Init(Init),
    /// Serve `POST /add-checkpoint` for the given logs.
    Serve(Serve),
}

impl Witnesses {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(),
            Self::Serve(serve) => serve.run().await,
        }
    }
}

/// Make a witness's key.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The witness's name, a host and a path without a scheme: `witness.example/w1`.
    #[arg(long)]
    name: String,
    /// Where the key is written (Ed25519, PKCS#8).
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Init {
    fn run(self) -> Result<(), Failure> {
        write_key(&self.key_file)?;
        let (_, verifier) = read_key(&self.key_file, &self.name)?;
        if self.json {
            return output::json(&json!({ "vkey": verifier.to_string() }));
        }
        output::line(&format!("the witness's verifier key, for logs and auditors:\n  {verifier}"));
        Ok(())
    }
}

/// Serve `POST /add-checkpoint`.
///
/// Remembers, for each log, the last checkpoint that it has cosigned; the folder with these must not be
/// lost or set back. Run it where the log's operator has no access.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The witness's name, as `init` had it.
    #[arg(long)]
    name: String,
    /// The witness's key.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// A log to witness, by its verifier key. May be given several times.
    #[arg(long = "log", value_name = "VKEY", required = true)]
    logs: Vec<String>,
    /// The folder of what was seen.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The address to listen on; without TLS: put a TLS proxy in front.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

impl Serve {
    async fn run(self) -> Result<(), Failure> {
        telemetry::check_filter(std::env::var(telemetry::FILTER).ok().as_deref())
            .map_err(Failure::Usage)?;
        telemetry::log_json();
        let (key, _) = read_key(&self.key_file, &self.name)?;
        let logs = self.logs.iter().map(|vkey| {
            let key = vkey.parse::<VerifierKey>();
            let key = key.map_err(|error| Failure::Usage(format!("--log: {error}")))?;
            if key.kind() == SignatureType::Ed25519 {
                return Ok(key);
            }
            Err(Failure::Usage(format!("--log: `{vkey}` is a witness's key, not a log's")))
        });
        let logs = logs.collect::<Result<Vec<_>, _>>()?;
        let witness = Witness::new(key, &self.name, logs, &self.state)
            .map_err(|error| Failure::Usage(format!("--name: {error}")))?;
        let failed = |error: std::io::Error| {
            Failure::Environment(format!("cannot listen on {}: {error}", self.listen))
        };
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let lifecycle = Lifecycle::default();
        lifecycle.outlive_hangup().and_then(|()| lifecycle.listen()).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        output::line(&format!("the witness {} listens on http://{address}", witness.verifier()));
        let draining = lifecycle.draining.clone();
        axum::serve(listener, router(Arc::new(witness), Arc::new(SystemClock)))
            .with_graceful_shutdown(draining.clone().cancelled_owned())
            .await
            .map_err(failed)?;
        lifecycle.finish_services().await;
        Ok(())
    }
}

fn read_key(path: &std::path::Path, name: &str) -> Result<(SigningKey, VerifierKey), Failure> {
    let bytes = app::read_key_file(path, "witness's key")
        .map_err(|error| Failure::Environment(error.to_string()))?;
    let key = SigningKey::from_pkcs8(&bytes)
        .map_err(|error| Failure::Finding(format!("`{}`: {error}", path.display())))?;
    let verifier = key
        .verifier(name, SignatureType::Cosignature)
        .map_err(|error| Failure::Usage(format!("--name: {error}")))?;
    Ok((key, verifier))
}
