//! One round: a world of its own, a plan, and after it the rules.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    checker::{self, Final},
    history::{History, Tally},
    plan::{Action, Planned, Scene},
    story::Story,
    world::{START, World},
};

/// How long a world may take to be well again after the last disturbance: all leases run out, and a
/// debug build on a busy machine starts.
const WELL_AGAIN: Duration = Duration::from_secs(60);
/// How long a loss is looked at under load before an operator comes.
const AFTER_LOSS: Duration = Duration::from_secs(6);

/// Plays `plan` in a world of its own, and holds what happened against the rules.
pub(super) async fn play(name: &str, scene: Scene, seed: u64, plan: &[Planned]) -> Tally {
    let history = History::begin();
    history.say(format!("{name}: {scene:?}, LEXGATE_NEMESIS_SEED={seed}"));
    let mut world = World::build(scene, seed, history.clone()).await;
    history.say("the world is there");
    world.load.start();
    disturb(&mut world, plan).await;
    if scene.loses() {
        after_loss(&mut world).await;
    }
    world.heal().await;
    well_again(&mut world).await;
    // Some calls in peace: what was disturbed works as before.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.load.stop().await;
    quiet(&world).await;
    let done = Final::export(&world);
    for replica in &mut world.replicas {
        replica.terminate().await;
    }
    for replica in &world.replicas {
        world.panics(replica);
    }
    checker::check(&Story::of(&world), &done);
    summary(name, seed, &world, plan, &done)
}

/// Does what is planned when its time comes, and undoes it when it has lasted, however late it began.
async fn disturb(world: &mut World, plan: &[Planned]) {
    let began = Instant::now();
    let mut to_do: Vec<&Planned> = plan.iter().collect();
    to_do.sort_by_key(|planned| planned.at);
    let mut to_do = to_do.into_iter().peekable();
    let mut to_undo: Vec<(Instant, Action)> = Vec::new();
    loop {
        to_undo.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let doing = to_do.peek().map(|planned| began + planned.at);
        let undoing = to_undo.last().map(|(at, _)| *at);
        let Some(next) = doing.into_iter().chain(undoing).min() else { return };
        tokio::time::sleep_until(next.into()).await;
        if doing.is_some_and(|at| at <= next) {
            let planned = to_do.next().unwrap();
            world.perform(planned.action).await;
            to_undo.push((Instant::now() + planned.lasts, planned.action));
        } else {
            let (_, action) = to_undo.pop().unwrap();
            world.undo(action).await;
        }
        ended(world);
    }
}

/// No process ends by itself.
fn ended(world: &mut World) {
    for slot in 0..world.replicas.len() {
        if world.replicas[slot].has_ended() {
            let log = world.replicas[slot].log();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            world.history.finding("6 alive", format!("replica {slot} has ended: {last:?}"));
            world.replicas[slot].kill();
        }
    }
}

/// A loss is not told anew: everybody halts until an operator says that the log is to go on.
async fn after_loss(world: &mut World) {
    tokio::time::sleep(AFTER_LOSS).await;
    ended(world);
    world.load.stop().await;
    for slot in 0..world.replicas.len() {
        if world.replicas[slot].is_up() && ready(world, slot).await == Some(200) {
            let text = format!("replica {slot} is ready although the log was set back");
            world.history.finding("2 told once", text);
        }
    }
    let story = Story::of(world);
    checker::check_loss(&story);
    if let Some(loss) = &mut world.loss {
        (loss.recovered, loss.published) = (Some(Instant::now()), story.published);
    }
    // In order, it would wait for the outcomes of what it sent, which it may not write.
    for replica in &mut world.replicas {
        replica.kill();
    }
    let said = ["ledger", "recover", "--accept-loss", "--reason", "the nemesis set the store back"];
    for slot in 0..if world.scene.is_postgres() { 2 } else { 1 } {
        let ran = world.replicas[slot].command(&said).output().expect("the program runs");
        let text = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        world.history.say(format!("recover {slot}: {} {text}", ran.status));
        // 2: this mark has nothing against the log.
        if !matches!(ran.status.code(), Some(0 | 2)) {
            world.history.finding("6 alive", format!("`ledger recover` fails: {text}"));
        }
    }
    world.load.start();
}

/// Everything that should be up is, and is ready.
async fn well_again(world: &mut World) {
    let until = Instant::now() + WELL_AGAIN;
    // The first process on SQLite ended in order when its successor took over.
    let wanted: Vec<usize> = match world.scene.is_postgres() {
        true => vec![0, 1],
        false if world.replicas[1].is_up() => vec![1],
        false => vec![0],
    };
    for slot in wanted {
        loop {
            ended(world);
            world.start(slot, START).await;
            if ready(world, slot).await == Some(200) && world.load.decide(slot).await == Some(200) {
                world.history.say(format!("replica {slot} is well"));
                break;
            }
            if Instant::now() > until {
                let text = format!("replica {slot} is not well again after {WELL_AGAIN:?}");
                world.history.finding("6 alive", text);
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// The status of `/readyz`.
async fn ready(world: &World, slot: usize) -> Option<u16> {
    let url = world.replicas[slot].url()?;
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let answer = http.get(format!("{url}/readyz")).send().await.ok()?;
    Some(answer.status().as_u16())
}

/// Waits until each call that was sent has its outcome, and the last entry was seen.
async fn quiet(world: &World) {
    let until = Instant::now() + WELL_AGAIN;
    loop {
        let open = world.stage.open_dispatches().await;
        if matches!(open, Ok(0)) {
            break;
        }
        if Instant::now() > until {
            let text = format!("calls without an outcome after {WELL_AGAIN:?}: {open:?}");
            world.history.finding("3 one outcome", text);
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.history.say(format!("quiet, {} entries seen", world.watch.size()));
}

fn summary(name: &str, seed: u64, world: &World, plan: &[Planned], done: &Final) -> Tally {
    let told = world.load.told();
    let answered = told.iter().filter(|told| told.record.is_some()).count();
    let broken = told.iter().filter(|told| told.status.is_none()).count();
    let mut actions = BTreeMap::new();
    for planned in plan {
        *actions.entry(planned.action.kind()).or_default() += 1;
    }
    let logs: Vec<(&str, String)> =
        world.replicas.iter().map(|replica| (replica.name, replica.log())).collect();
    let file = world.history.keep(&format!("{name}-{seed}"), &logs);
    let finding = |finding: super::history::Finding| {
        let (rule, text) = (finding.rule, finding.text);
        format!(
            "FINDING {name} LEXGATE_NEMESIS_SEED={seed} rule {rule}: {text}\n        {}",
            file.display()
        )
    };
    Tally {
        rounds: 1,
        actions,
        calls: told.len(),
        answered,
        refused: told.len() - answered - broken,
        broken,
        at_backends: world.backends.sent().len(),
        records: done.entries.len(),
        findings: world.history.findings().into_iter().map(finding).collect(),
    }
}
