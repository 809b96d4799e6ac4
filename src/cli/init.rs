//! `lexgate init`

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use clap::Args;
use include_dir::{Dir, File, include_dir};
use serde_json::json;

use super::{
    Failure,
    keys::FreshKey,
    output::{self, Paint, paint},
    signing::{write_key, write_secret},
};
use crate::{
    config::{Config, DEFAULT_FILE, Role},
    gate::MasterKey,
    ledger::SigningKey,
};

static CONFIG: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config");
static POLICIES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/policies");

/// The app of the example organisation that gets a key.
const CALLER: &str = "support-copilot";

/// Write an example organisation, a signing key and one API key for each role.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The folder; the current one unless given.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.dir.join(DEFAULT_FILE);
        if config.exists() {
            return Err(Failure::Finding(format!(
                "`{}` is there already and is left as it is; `lexgate keys create` adds a key",
                config.display()
            )));
        }
        let mut written = Vec::new();
        let mut kept = Vec::new();
        for file in files(&CONFIG) {
            if file.path() != Path::new("lexgate.toml") {
                self.write(
                    &Path::new("config").join(file.path()),
                    file.contents(),
                    &mut written,
                    &mut kept,
                )?;
            }
        }
        for file in files(&POLICIES) {
            self.write(
                &Path::new("policies").join(file.path()),
                file.contents(),
                &mut written,
                &mut kept,
            )?;
        }
        let keys = [Role::Caller, Role::Auditor, Role::Officer].map(|role| {
            let app = (role == Role::Caller).then(|| CALLER.to_owned());
            FreshKey::make(app.clone().unwrap_or_else(|| role.as_str().to_owned()), role, app)
        });
        let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
        let template =
            CONFIG.get_file("lexgate.toml").and_then(File::contents_utf8).unwrap_or_default();
        let added: String = keys.iter().map(FreshKey::to_toml).collect();
        let vkey = self.signing_key(&mut written, &mut kept)?;
        let master = self.dir.join("data/master.key");
        if master.exists() {
            kept.push(master);
        } else {
            let text = MasterKey::generate()
                .map_err(|error| Failure::Environment(format!("the master key: {error}")))?;
            write_secret(&master, text.as_bytes())?;
            written.push(master);
        }
        // Last: while it is missing, `init` can be run again.
        self.write(
            Path::new(DEFAULT_FILE),
            format!("{template}{added}").as_bytes(),
            &mut written,
            &mut kept,
        )?;
        let vkey = vkey.log_verifier(&Config::load(&config)?.ledger.origin).to_string();
        self.report(&keys, &vkey, &written, &kept)
    }

    fn report(
        &self,
        keys: &[FreshKey],
        vkey: &str,
        written: &[PathBuf],
        kept: &[PathBuf],
    ) -> Result<(), Failure> {
        if self.json {
            return output::json(
                &json!({ "keys": keys, "vkey": vkey, "written": written, "kept": kept }),
            );
        }
        output::line(&format!("wrote {} files in `{}`", written.len(), self.dir.display()));
        for path in kept {
            output::line(&paint(Paint::Dim, &format!("kept what was there: {}", path.display())));
        }
        output::line(&paint(
            Paint::Strong,
            "\nAPI keys, shown this once; the configuration holds only their SHA-256:",
        ));
        for key in keys {
            let app = key.app.as_ref().map(|app| format!(" of {app}")).unwrap_or_default();
            output::line(&format!("  {:<26} {}", format!("{}{app}", key.role), key.secret));
        }
        output::line(&paint(
            Paint::Strong,
            "\nThe log's verifier key, for everybody who is to check it:",
        ));
        output::line(&format!("  {vkey}"));
        output::line("\nNext: `lexgate demo`, then `lexgate serve`");
        Ok(())
    }

    fn signing_key(
        &self,
        written: &mut Vec<PathBuf>,
        kept: &mut Vec<PathBuf>,
    ) -> Result<SigningKey, Failure> {
        let path = self.dir.join("data/ledger.key");
        if path.exists() {
            kept.push(path.clone());
        } else {
            let folder = path.parent().unwrap_or(&path);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Failure::io("make", folder, &error))?;
            write_key(&path)?;
            written.push(path.clone());
        }
        let bytes = fs::read(&path).map_err(|error| Failure::io("read", &path, &error))?;
        SigningKey::from_pkcs8(&bytes)
            .map_err(|error| Failure::Finding(format!("`{}`: {error}", path.display())))
    }

    fn write(
        &self,
        path: &Path,
        bytes: &[u8],
        written: &mut Vec<PathBuf>,
        kept: &mut Vec<PathBuf>,
    ) -> Result<(), Failure> {
        let path = self.dir.join(path);
        if path.exists() {
            kept.push(path);
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
        fs::write(&path, bytes).map_err(|error| Failure::io("write", &path, &error))?;
        written.push(path);
        Ok(())
    }
}

/// Every file below `dir`.
fn files<'a>(dir: &'a Dir<'a>) -> Vec<&'a File<'a>> {
    let below = dir.dirs().flat_map(files);
    dir.files().chain(below).collect()
}
