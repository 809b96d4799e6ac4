//! `lexgate export`

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{ConfigFile, Failure, output};
use crate::{
    app::AppError,
    domain::{Digest, Seq},
    ledger::{ActivationBody, BUNDLE_WIDTH, Entry, Kind, bundle_path, write_bundle},
    store::{self, Store, Stored},
};

/// The folder of the contents that snapshots pin, each under its digest.
pub(super) const CONTENTS: &str = "contents";

/// Write the ledger as static files that anybody can verify.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The folder to write; it must be empty, or hold an earlier export of the same log.
    dir: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let store = store::open(config.store.url.expose()).await.map_err(AppError::from)?;
        // What is appended meanwhile belongs to the next export.
        let head = store.head().await.map_err(AppError::from)?;
        let size = head.map_or(0, |head| head.next.get());
        let contents = self.write_entries(&*store, size).await?;
        for digest in &contents {
            let bytes = store.content(*digest).await.map_err(AppError::from)?;
            let bytes = bytes.ok_or_else(|| {
                Failure::Finding(format!(
                    "the store does not hold the content {digest} that a record names"
                ))
            })?;
            write(&self.dir.join(CONTENTS).join(digest.hex()), &bytes)?;
        }
        if self.json {
            return output::json(
                &json!({ "entries": size, "contents": contents.len(), "dir": self.dir }),
            );
        }
        let dir = self.dir.display();
        output::line(&format!(
            "{size} entries and {} contents of snapshots are in `{dir}`",
            contents.len()
        ));
        output::line(&format!("verify them with: lexgate verify {dir} --key VKEY"));
        Ok(())
    }

    /// Writes `size` entries in bundles; gives the digests that activations among them name.
    async fn write_entries(
        &self,
        store: &dyn Store,
        size: u64,
    ) -> Result<BTreeSet<Digest>, Failure> {
        let mut contents = BTreeSet::new();
        let mut next = 0;
        while next < size {
            let width =
                usize::try_from(size - next).map_or(BUNDLE_WIDTH, |left| left.min(BUNDLE_WIDTH));
            let stored = store.range(Seq::new(next), width).await.map_err(AppError::from)?;
            if stored.len() != width {
                return Err(Failure::Finding(format!(
                    "the store does not hold all entries after {next}"
                )));
            }
            for stored in &stored {
                contents.extend(contents_of(stored)?);
            }
            let entries: Vec<_> = stored.into_iter().map(|stored| stored.entry).collect();
            let bundle = write_bundle(&entries)
                .map_err(|error| Failure::Finding(format!("entries after {next}: {error}")))?;
            write(&self.dir.join(bundle_path(next / BUNDLE_WIDTH as u64, width)), &bundle)?;
            next += width as u64;
            output::progress(&format!("{next} of {size} entries"));
        }
        output::end_progress();
        Ok(contents)
    }
}

fn contents_of(stored: &Stored) -> Result<Vec<Digest>, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Finding(format!("entry {} cannot be read: {error}", stored.seq))
    };
    let entry = Entry::parse(&stored.entry).map_err(|error| broken(&error))?;
    if entry.kind != Kind::BundleActivated {
        return Ok(Vec::new());
    }
    let body: ActivationBody =
        serde_json::from_str(entry.body.get()).map_err(|error| broken(&error))?;
    let digests = body.snapshot;
    Ok(vec![digests.bundle, digests.facts, digests.organisation, digests.registers])
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
    std::fs::write(path, bytes).map_err(|error| Failure::io("write", path, &error))
}
