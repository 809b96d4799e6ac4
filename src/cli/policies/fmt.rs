//! `lexgate policies fmt`

use std::{fs, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::{
    cli::{ConfigFile, Failure, output, output::count},
    config, policy,
    source::{Faults, SourceFile},
};

/// Lay policies out in Cedar's own style. What they say stays the same, and so do comments.
#[derive(Debug, Args)]
pub(in crate::cli) struct Fmt {
    /// A policy folder, or one file; the configuration's folder unless given.
    #[arg(value_name = "DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Change nothing; name what would change, and exit with 1 if anything would.
    #[arg(long)]
    check: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Fmt {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let (files, mut faults) = (self.files()?, Faults::default());
        let mut changed = Vec::new();
        for file in &files {
            match policy::format(file) {
                Ok(text) if *text != *file.text => changed.push((&file.path, text)),
                Ok(_) => {}
                Err(found) => faults.0.extend(found.0),
            }
        }
        if !self.check {
            for (path, text) in &changed {
                let path = std::path::Path::new(&***path);
                fs::write(path, text).map_err(|error| Failure::io("write", path, &error))?;
            }
        }
        let paths: Vec<&str> = changed.iter().map(|(path, _)| &***path).collect();
        if self.json {
            output::json(&json!({ "changed": paths, "faults": faults.0 }))?;
        } else {
            for path in &paths {
                output::line(&format!(
                    "{} {path}",
                    if self.check { "would change" } else { "laid out" }
                ));
            }
        }
        faults.or(())?;
        match paths.len() {
            n if self.check && n > 0 => {
                Err(Failure::Finding(format!("{} would change", count(n, "file"))))
            }
            n if !self.json => {
                let same = files.len() - n;
                output::line(&format!("{} laid out, {same} as before", count(n, "file")));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The policy files, under the paths that the reader would type.
    fn files(&self) -> Result<Vec<SourceFile>, Faults> {
        if let Some(path) = self.path.as_ref().filter(|path| path.is_file()) {
            return Ok(vec![config::read_file(path)?]);
        }
        let Folder { dir, .. } = Folder::find(self.path.as_deref(), &self.config)?;
        let files = config::read_policies(&dir)?.into_iter();
        let policies = files.filter(|file| file.path.ends_with(".cedar"));
        let placed = |file: SourceFile| {
            let path = dir.join(&*file.path).display().to_string();
            SourceFile { path: path.into(), ..file }
        };
        Ok(policies.map(placed).collect())
    }
}
