//! What a round left to be judged: what was sent, answered, seen and shown, without the processes.

use std::{collections::BTreeSet, fs, time::Instant};

use super::{
    backends::Sent,
    history::History,
    load::Told,
    plan::Scene,
    watch::{Shown, Sighting, checkpoint},
    world::{Loss, World},
};

#[derive(Debug)]
pub(super) struct Story {
    pub(super) scene: Scene,
    pub(super) history: History,
    pub(super) sent: Vec<Sent>,
    pub(super) told: Vec<Told>,
    /// Every entry that was seen, in the order in which it was.
    pub(super) seen: Vec<Sighting>,
    pub(super) shown: Vec<Shown>,
    pub(super) published: BTreeSet<Published>,
    /// When each replica was stopped, and went on.
    pub(super) stops: Vec<Vec<(Instant, Option<Instant>)>>,
    pub(super) loss: Option<Loss>,
}

/// A checkpoint in a replica's file: whose, size and root.
pub(super) type Published = (String, u64, String);

impl Story {
    pub(super) fn of(world: &World) -> Self {
        Self {
            scene: world.scene,
            history: world.history.clone(),
            sent: world.backends.sent(),
            told: world.load.told(),
            seen: world.watch.epochs().into_iter().flatten().collect(),
            shown: world.watch.shown(),
            published: published(world),
            // A second writer is never stopped.
            stops: world
                .replicas
                .iter()
                .map(|replica| replica.stops.clone())
                .chain([Vec::new()])
                .collect(),
            loss: world.loss.clone(),
        }
    }
}

fn published(world: &World) -> BTreeSet<Published> {
    let mut all = BTreeSet::new();
    for name in ["0", "1", "writer"] {
        let path = world.site.path(&format!("data/ledger.checkpoints.{name}"));
        let text = fs::read_to_string(path).unwrap_or_default();
        // Each note begins with the log's name.
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let begins = *line == "lexgate.example/main";
            if let Some((size, root)) = begins.then(|| checkpoint(&lines[n..].join("\n"))).flatten()
            {
                all.insert((format!("file of replica {name}"), size, root));
            }
        }
    }
    all
}
