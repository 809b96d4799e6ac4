//! `lexgate migrate`

use clap::Args;

use super::{ConfigFile, Failure, output};
use crate::app::{self, AppError};

/// Bring the store's tables up to date.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    config: ConfigFile,
}

impl Migrate {
    pub(super) async fn run(self) -> Result<(), Failure> {
        super::log_warnings()?;
        let config = self.config.load()?;
        let store = app::reach_store(&config).await.map_err(AppError::from)?;
        store.migrate().await.map_err(AppError::from)?;
        output::line("the store's tables are up to date");
        Ok(())
    }
}
