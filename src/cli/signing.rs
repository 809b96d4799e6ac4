//! `lexgate keys rotate` and `retire`: the log's signing key.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt as _, path::Path};

use clap::Args;
use ring::rand::SystemRandom;
use serde_json::json;

use super::{ConfigFile, Failure, output};
use crate::{
    app,
    app::AppError,
    gate::log_keys,
    ledger::{
        KeyChangeBody, KeyRetiredBody, Kind, Note, Signer, SigningKey, canonical, endorsement,
    },
    source::Faults,
};

/// Give the log a new signing key.
///
/// The old key signs a note that names the new one; the log records it (`key_changed`). From then on
/// both sign every checkpoint, once the services of the log have been started anew, so that whoever
/// knows either key can verify. `lexgate keys retire` ends that.
#[derive(Debug, Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Rotate {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let ledger = &config.ledger;
        let (path, former, next) =
            (&ledger.signing_key_file, ledger.former_key_file(), ledger.next_key_file());
        if former.exists() {
            return Err(Failure::Usage(format!(
                "the former key `{}` still signs: `lexgate keys retire` first",
                former.display()
            )));
        }
        let old = app::read_key(&config, path).map_err(Faults::from)?;
        // What an attempt that was cut off has left is used.
        if !next.exists() {
            write_key(&next)?;
        }
        let new = app::read_key(&config, &next).map_err(Faults::from)?;
        let (was, is) = (old.log_verifier(&ledger.origin), new.log_verifier(&ledger.origin));
        let store = app::open_store(&config).await?;
        let recorded = log_keys(&*store).await.map_err(AppError::from)?;
        if recorded.last().is_none_or(|last| last.vkey != is.to_string()) {
            let mut note = Note::unsigned(endorsement(&ledger.origin, &is));
            let signature = old.sign(&was, note.text());
            note.signatures.push(signature);
            let body = KeyChangeBody {
                endorsement: note.to_string(),
                former: was.to_string(),
                public_key: is.to_string(),
            };
            let body = canonical::to_vec(&body)
                .map_err(|error| Failure::Environment(format!("the record: {error}")))?;
            // The old key alone knows the mark; both sign what follows.
            let known = Signer::new(ledger.origin.clone(), vec![old]);
            let mark = app::open_mark(&config, &*store, &known).await.map_err(AppError::from)?;
            let old = app::read_key(&config, path).map_err(Faults::from)?;
            let both = Signer::new(ledger.origin.clone(), vec![new, old]);
            app::append_alone(&config, both, mark, store, Kind::KeyChanged, body).await?;
        }
        fs::hard_link(path, &former).map_err(|error| Failure::io("write", &former, &error))?;
        fs::rename(&next, path).map_err(|error| Failure::io("write", path, &error))?;
        if self.json {
            return output::json(&json!({ "vkey": is.to_string(), "former": was.to_string() }));
        }
        output::line(&format!("the log's key is now\n  {is}"));
        output::line(&format!("endorsed by, and signing together with\n  {was}"));
        output::line(
            "Start every service of this log anew, publish the new key, then `lexgate keys retire`.",
        );
        Ok(())
    }
}

/// Let the former signing key sign no more.
///
/// The log records it (`key_retired`), and the key's file is removed. Checkpoints that the key signed
/// before can still be verified, and whoever knows only the old key still verifies the log through the
/// endorsement in it; but what it signs alone from here on is not the log's.
#[derive(Debug, Args)]
pub(super) struct Retire {
    #[command(flatten)]
    config: ConfigFile,
}

impl Retire {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let former = config.ledger.former_key_file();
        if !former.exists() {
            return Err(Failure::Usage("there is no former key: only one key signs".to_owned()));
        }
        let signer = app::read_signer(&config).map_err(Faults::from)?;
        let vkeys: Vec<_> = signer.verifiers().iter().map(ToString::to_string).collect();
        let [newest, retired] = &vkeys[..] else {
            return Err(Failure::Usage("the former key cannot be read".to_owned()));
        };
        let store = app::open_store(&config).await?;
        let recorded = log_keys(&*store).await.map_err(AppError::from)?;
        if recorded.last().is_none_or(|last| last.vkey != *newest) {
            return Err(Failure::Usage(format!(
                "`{newest}` is not the log's newest key: `lexgate keys rotate` finishes a change of key that was cut off"
            )));
        }
        let known = recorded.iter().find(|key| key.vkey == *retired);
        // What an attempt that was cut off has recorded is not recorded again.
        if known.is_some_and(|key| key.retired.is_none()) {
            let body = KeyRetiredBody { retired: retired.clone() };
            let body = canonical::to_vec(&body)
                .map_err(|error| Failure::Environment(format!("the record: {error}")))?;
            let mark = app::open_mark(&config, &*store, &signer).await.map_err(AppError::from)?;
            app::append_alone(&config, signer, mark, store, Kind::KeyRetired, body).await?;
        }
        fs::remove_file(&former).map_err(|error| Failure::io("remove", &former, &error))?;
        output::line(
            "the former key is retired and its file removed; start every service of this log anew, and it signs no more",
        );
        Ok(())
    }
}

/// Makes a signing key in a file of its own, which only its owner reads.
pub(super) fn write_key(path: &Path) -> Result<(), Failure> {
    let bytes = SigningKey::generate(&SystemRandom::new())
        .map_err(|error| Failure::Environment(error.to_string()))?;
    write_secret(path, &bytes)
}

/// Writes a new file that only its owner reads.
pub(super) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|error| Failure::io("write", path, &error))
}
