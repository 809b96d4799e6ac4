//! `lexgate serve`

use clap::Args;

use super::{ConfigFile, Failure};
use crate::{app::App, telemetry};

/// Serve the decision API, the gateway and the audit API.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        telemetry::log_json();
        let config = self.config.load()?;
        // Before the first measurement, which would else go nowhere.
        telemetry::metrics().map_err(crate::app::AppError::from)?;
        let app = App::start(&config).await?;
        Ok(app.serve(&config).await?)
    }
}
