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
    ledger::{Origin, SigningKey},
};

static CONFIG: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config");
static POLICIES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/policies");

/// The organisation of those who do not begin with the example.
const OWN: &str = include_str!("templates/own_organisation.toml");

/// The app of the example organisation that gets a key.
const CALLER: &str = "support-copilot";

/// The line of the shipped configuration with the log's name.
const EXAMPLE_ORIGIN: &str = "origin = \"lexgate.example/main\"";

const NEXT: &str = "\nNext: `lexgate demo`, then `lexgate serve`";
const NEXT_OWN: &str = "\nNext:
  1. fill in config/organisation.toml: a tenant and an app, an operator, a model, a deployment
     (a model whose licence is not on SPDX's list: `lexgate policies new licence LicenseRef-NAME`)
  2. `lexgate policies check` until nothing is missing
  3. `lexgate keys create --role caller --app APP`
  4. `lexgate serve`";

/// Words that the rest is written in, for those who read them for the first time.
const WORDS: [(&str, &str); 9] = [
    ("declared", "what a call says of its data; what is undeclared is denied"),
    ("pack", "one law as a file of policies, with its dated facts and its cases"),
    ("placement", "where a deployment processes and stores data, and who can read it from where"),
    ("tier", "how far from the caller it runs: on_device, hybrid_gpu or remote"),
    ("virtual model", "a name of your own for several deployments; the law leaves those allowed"),
    ("instrument", "a paper, such as contract clauses, that lifts a prohibition"),
    ("snapshot", "policies, facts and organisation at one instant: what a decision rests on"),
    ("duty", "what an allowed call must still do, such as label its answer"),
    ("outcome", "the record of what became of an allowed call"),
];

/// Write an organisation, a signing key and one API key for each role.
///
/// The organisation is the example's, a company with apps and deployments in many places, with which
/// `lexgate demo` works; or, with `--empty`, your own, to be filled in.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The folder; the current one unless given.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Write an organisation to be filled in instead of the example: nothing is stated, and no call can be made.
    #[arg(long)]
    empty: bool,
    /// The log's name, a host and a path without a scheme: `log.example/main`. It appears in every entry and
    /// in the verifier key, and cannot be changed later.
    #[arg(long, value_name = "NAME")]
    origin: Option<Origin>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(origin) = &self.origin
            && let Some((_, without)) = origin.as_str().split_once("://")
        {
            return Err(Failure::Usage(format!(
                "`--origin {origin}` has a scheme: write `{without}`; it appears in every entry and cannot be changed later"
            )));
        }
        let config = self.dir.join(DEFAULT_FILE);
        if config.exists() {
            return Err(Failure::Finding(format!(
                "`{}` is there already and is left as it is; `lexgate keys create` adds a key",
                config.display()
            )));
        }
        let mut written = Vec::new();
        let mut kept = Vec::new();
        let organisation = Path::new("config/organisation.toml");
        if self.empty {
            self.write(organisation, OWN.as_bytes(), &mut written, &mut kept)?;
        }
        for file in files(&CONFIG) {
            if file.path() != Path::new("lexgate.toml") && !self.empty {
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
        // A caller's key belongs to an app, and there is none yet.
        let all = [Role::Caller, Role::Auditor, Role::Officer];
        let roles = all.into_iter().filter(|role| !(self.empty && *role == Role::Caller));
        let keys = roles.map(|role| {
            let app = (role == Role::Caller).then(|| CALLER.to_owned());
            FreshKey::make(app.clone().unwrap_or_else(|| role.as_str().to_owned()), role, app)
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let template =
            CONFIG.get_file("lexgate.toml").and_then(File::contents_utf8).unwrap_or_default();
        let template = self.configuration(template);
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
        if self.origin.is_none() {
            output::line(&paint(
                Paint::Dim,
                "  (the log's name is the example's: `lexgate init --origin NAME` in an empty folder gives it one of your own)",
            ));
        }
        output::line(&paint(Paint::Strong, "\nThe words:"));
        for (word, meaning) in WORDS {
            output::line(&format!("  {word:<14} {meaning}"));
        }
        output::line(if self.empty { NEXT_OWN } else { NEXT });
        Ok(())
    }

    /// The configuration, with the log's name, and without what is the example organisation's.
    fn configuration(&self, template: &str) -> String {
        let mut text = template.to_owned();
        if let Some(origin) = &self.origin {
            text = text.replace(EXAMPLE_ORIGIN, &format!("origin = \"{origin}\""));
        }
        if self.empty
            && let Some((before, rest)) = text.split_once("environment = [\n")
            && let Some((_, after)) = rest.split_once("]\n")
        {
            text = format!("{before}environment = []\n{after}");
        }
        text
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts::Proposal, source::SourceFile};

    fn configuration(empty: bool, origin: Option<&str>) -> String {
        let origin = origin.map(|origin| origin.parse().unwrap());
        let init = Init { dir: PathBuf::new(), empty, origin, json: false };
        init.configuration(CONFIG.get_file("lexgate.toml").unwrap().contents_utf8().unwrap())
    }

    #[test]
    fn a_configuration_of_one_s_own_says_nothing_of_the_example() {
        let text = configuration(true, Some("log.acme.example/eu"));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["secrets"]["environment"].as_array().unwrap().len(), 0);
        assert_eq!(table["ledger"]["origin"].as_str(), Some("log.acme.example/eu"));
        assert!(!text.contains("lexgate.example") && !text.contains("DASHSCOPE"), "{text}");
        let shipped: toml::Table = configuration(false, None).parse().unwrap();
        assert!(shipped["secrets"]["environment"].as_array().unwrap().len() > 10);
        assert_eq!(shipped["ledger"]["origin"].as_str(), Some("lexgate.example/main"));
    }

    /// What is commented out is right once it is not.
    #[test]
    fn every_block_of_an_organisation_of_one_s_own_can_be_taken() {
        let is_toml = |line: &str| {
            line.starts_with('[')
                || line.split_once(" = ").is_some_and(|(key, _)| {
                    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                })
        };
        let taken: Vec<&str> = OWN
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| is_toml(line)))
            .collect();
        let taken = taken.join("\n").replace("LicenseRef-provider-terms", "MIT");
        let policies: Vec<_> = files(&POLICIES)
            .into_iter()
            .filter(|file| crate::config::decides(file.path()))
            .map(|file| {
                let text = file.contents_utf8().unwrap();
                SourceFile::new(file.path().to_str().unwrap(), text)
            })
            .collect();
        for (text, apps) in [(OWN, 0), (taken.as_str(), 1)] {
            let organisation = SourceFile::new("organisation.toml", text);
            let read = Proposal::load(&policies, organisation);
            let read = read.unwrap_or_else(|faults| panic!("{faults}"));
            assert_eq!(read.organisation.apps.len(), apps);
            assert_eq!(read.organisation.deployments.len(), 2 * apps);
        }
    }
}
