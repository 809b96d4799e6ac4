//! `lexgate serve`

use clap::Args;

use super::{ConfigFile, Failure, chain};
use crate::{app::App, telemetry};

/// Serve the decision API, the gateway and the audit API.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        telemetry::check_filter(std::env::var(telemetry::FILTER).ok().as_deref())
            .map_err(Failure::Usage)?;
        let config = self.config.load()?;
        let collector = config.telemetry.collector(|name| std::env::var(name).ok())?;
        let exporting = if let Some(collector) = collector {
            let exporting = telemetry::log_json_and_export(&collector);
            Some(exporting.map_err(|error| Failure::Environment(chain(&error)))?)
        } else {
            telemetry::log_json();
            None
        };
        for variable in &config.strange_variables {
            tracing::warn!(
                variable,
                "this variable has the prefix of settings but is not a setting: it is ignored"
            );
        }
        // Before the first measurement, which would else go nowhere.
        telemetry::metrics().map_err(crate::app::AppError::from)?;
        let app = App::start(&config).await?;
        let served = app.serve(&config).await;
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        Ok(served?)
    }
}
