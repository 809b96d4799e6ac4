//! The command line: one file for each subcommand. Arguments in, text and an exit code out.

mod correct_time;
mod demo;
mod explain;
mod export;
mod init;
mod keys;
mod ledger;
mod migrate;
mod openapi;
mod output;
mod policies;
mod prune;
mod serve;
mod signing;
mod verify;
mod watch;
mod witness;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

use crate::{
    app::AppError,
    config,
    config::Config,
    facts::{DATE_FORMS, read_instant},
    source::Faults,
    telemetry,
};

/// The checkpoint before an AI call: judged by Cedar policies, recorded in a verifiable ledger.
///
/// Exit codes: 0 done, 1 a finding (invalid policy, broken ledger), 2 wrong use, 3 environment.
#[derive(Debug, Parser)]
#[command(name = "lexgate", version)]
struct Command {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Write an organisation (the example's, or one to fill in), a signing key and API keys.
    Init(init::Init),
    /// Serve the decision API, the gateway and the audit API.
    Serve(serve::Serve),
    /// Run the example calls through the gate and show what becomes of each.
    Demo(demo::Demo),
    /// Work on policies.
    #[command(subcommand)]
    Policies(policies::Policies),
    /// Say why a call would be allowed or denied. Nothing is recorded, nothing is sent.
    Explain(explain::Explain),
    /// Write the ledger as static files that anybody can verify.
    Export(export::Export),
    /// Verify an exported ledger: no server, no secret.
    Verify(verify::Verify),
    /// Manage API keys and the log's signing key.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Look after the ledger.
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Witness logs for others.
    #[command(subcommand)]
    Witness(witness::Witnesses),
    /// Bring the store's tables up to date.
    Migrate(migrate::Migrate),
    /// Print the OpenAPI document.
    Openapi(openapi::Openapi),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file; paths in it are relative to the current folder.
    #[arg(long, default_value = config::DEFAULT_FILE, value_name = "FILE")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }
}

/// Why a command did not do what it was asked, and so its exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Something that was looked at is wrong.
    #[error("{0}")]
    Finding(String),
    /// What people wrote is wrong, at places that can be shown.
    #[error("{} found", output::count(.0.0.len(), "fault"))]
    Faults(Faults),
    /// The command was used wrongly.
    #[error("{0}")]
    Usage(String),
    /// The machine, a file or the store failed.
    #[error("{0}")]
    Environment(String),
    /// Another process has said what it is, and ended with this code.
    #[error("ended with exit code {0}")]
    Reported(u8),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Finding(_) | Self::Faults(_) => 1,
            Self::Usage(_) => 2,
            Self::Environment(_) => 3,
            Self::Reported(code) => *code,
        })
    }

    /// Prints it to standard error.
    fn show(&self) {
        match self {
            Self::Faults(faults) => output::faults(faults),
            Self::Reported(_) => return,
            _ => {}
        }
        output::error(&self.to_string());
    }

    /// An I/O error with what was being done.
    fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Environment(format!("cannot {doing} `{}`: {error}", path.display()))
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Faults(faults) => faults.into(),
            error => Self::Environment(chain(&error)),
        }
    }
}

/// Lets a command that a person runs say warnings in plain lines, as far as `LEXGATE_LOG` asks for them.
fn log_warnings() -> Result<(), Failure> {
    telemetry::check_filter(std::env::var(telemetry::FILTER).ok().as_deref())
        .map_err(Failure::Usage)?;
    telemetry::log_plain();
    Ok(())
}

/// Reads a day or an instant of the command line.
fn instant(text: &str) -> Result<Timestamp, String> {
    read_instant(text).ok_or_else(|| format!("write {DATE_FORMS}"))
}

/// An error with everything behind it, each part once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let Command { command } = Command::parse();
    let result = match command {
        Subcommands::Init(init) => init.run(),
        Subcommands::Serve(serve) => block_on(serve.run()),
        Subcommands::Demo(demo) => block_on(demo.run()),
        Subcommands::Policies(policies) => policies.run(),
        Subcommands::Explain(explain) => block_on(explain.run()),
        Subcommands::Export(export) => block_on(export.run()),
        Subcommands::Verify(verify) => verify.run(),
        Subcommands::Keys(keys) => block_on(keys.run()),
        Subcommands::Ledger(ledger) => block_on(ledger.run()),
        Subcommands::Witness(witness) => block_on(witness.run()),
        Subcommands::Migrate(migrate) => block_on(migrate.run()),
        Subcommands::Openapi(openapi) => openapi.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show();
            failure.exit_code()
        }
    }
}

fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::Environment(format!("the runtime cannot start: {error}")))?;
    runtime.block_on(future)
}
