//! Asking every backend of the active snapshot who and how it is: once before anything is served, then
//! again and again. What it finds is noted in the fleet, which calls look at.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Gate;
use crate::{
    dispatch::{Expected, Standing},
    domain::{DeploymentId, Tier},
};

/// How often it is looked up whose turn it is.
const TICK: Duration = Duration::from_millis(200);
/// How long the start waits for the first answers.
const FIRST: Duration = Duration::from_secs(2);

impl Gate {
    /// Asks every backend that the organisation runs itself once, so that none takes a call before it
    /// has said who it is. One that does not answer in time is left for later.
    pub async fn meet_backends(self: &Arc<Self>) {
        self.open_series();
        let (mut questions, mut silent) = (JoinSet::new(), BTreeSet::new());
        for (standing, tier) in self.standings() {
            if tier != Tier::Remote {
                let (gate, deployment) = (self.clone(), standing.deployment().clone());
                silent.insert(deployment.clone());
                questions.spawn(async move {
                    gate.ask(standing).await;
                    deployment
                });
            }
        }
        let all = async {
            while let Some(asked) = questions.join_next().await {
                if let Ok(deployment) = asked {
                    silent.remove(&deployment);
                }
            }
        };
        let _ = timeout(FIRST, all).await;
        for deployment in silent {
            tracing::warn!(%deployment, "a backend did not identify itself in time; it is asked again");
        }
    }

    /// Asks every backend when its turn comes, until `stop` fires.
    pub async fn watch_backends(self: Arc<Self>, stop: CancellationToken) {
        let mut due: HashMap<DeploymentId, Instant> = HashMap::new();
        let mut questions = JoinSet::new();
        let mut revision = self.keeper.current().snapshot().digests.revision;
        while stop.run_until_cancelled(sleep(TICK)).await.is_some() {
            while questions.try_join_next().is_some() {}
            let now_active = self.keeper.current().snapshot().digests.revision;
            if revision != now_active {
                revision = now_active;
                self.open_series();
            }
            let standings = self.standings();
            self.fleet.retain(|id| standings.iter().any(|(known, _)| known.deployment() == id));
            due.retain(|id, _| standings.iter().any(|(known, _)| known.deployment() == id));
            for (standing, _) in &standings {
                let now = std::time::Instant::now();
                let (fit, away) = (standing.is_fit(now), standing.kept_away(now));
                let deployment = standing.deployment().to_string();
                metrics::gauge!("lexgate_deployment_fit", "deployment" => deployment.clone())
                    .set(f64::from(u8::from(fit)));
                metrics::gauge!("lexgate_breakers_open", "deployment" => deployment)
                    .set(f64::from(u32::try_from(away).unwrap_or(u32::MAX)));
            }
            let now = Instant::now();
            for (standing, tier) in standings {
                let turn = due.entry(standing.deployment().clone()).or_insert(now);
                // Where the calls of several apps fail, or name another model, its own word is wanted.
                if standing.take_doubt() || *turn <= now {
                    *turn = now + standing.probe_interval(tier);
                    questions.spawn(self.clone().ask(standing));
                }
            }
        }
    }

    async fn ask(self: Arc<Self>, standing: Arc<Standing>) {
        let judge = self.keeper.current();
        let organisation = &judge.snapshot().organisation;
        let Some(row) = organisation.deployment(standing.deployment().as_str()) else { return };
        let Some(model) = organisation.models.get(&row.model) else { return };
        let expected = Expected {
            address: standing.address(),
            tier: row.tier,
            licence: &model.license,
            licences: &organisation.licence_names,
        };
        // A question that is still under way when it is asked again says nothing new.
        if let Some(_asking) = standing.asking() {
            let probed = self.backends.probe(&expected).await;
            standing.probed(&probed);
        }
    }

    /// The approved deployments that have a backend.
    fn standings(&self) -> Vec<(Arc<Standing>, Tier)> {
        let judge = self.keeper.current();
        let rows = judge.snapshot().organisation.deployments.iter();
        let reachable = rows.filter(|row| row.approved).filter_map(|row| {
            let standing = self.fleet.standing(&row.id, row.backend.as_ref()?);
            Some((standing, row.tier))
        });
        reachable.collect()
    }
}
