//! What happens in a round, and when: drawn from its seed, or written down.

use std::time::Duration;

use super::{backends::Mood, dice::Dice, proxy::Link};

/// Where a round plays, and what it is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// Two replicas on Postgres; nothing is lost.
    Postgres,
    /// A process and its successor on SQLite; nothing is lost.
    Sqlite,
    /// An asynchronous standby takes over: what it had not got is lost.
    Promotion,
    /// The database is set back to a copy.
    SetBackPostgres,
    /// The SQLite file is set back while it is used.
    SetBackSqlite,
    /// The SQLite file is set back between two processes.
    SetBackStopped,
}

impl Scene {
    pub(super) const fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres | Self::Promotion | Self::SetBackPostgres)
    }

    /// Whether records are lost by design: nobody may then answer until an operator has said so.
    pub(super) const fn loses(self) -> bool {
        !matches!(self, Self::Postgres | Self::Sqlite)
    }
}

/// Something that is done to the world, and undone after a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    PauseReplica(usize),
    KillReplica(usize),
    /// SQLite: another process takes the place of a stopped one.
    Successor,
    PauseStore,
    KillStore,
    /// So many seconds from the true time.
    Clock(usize, i64),
    /// Between a replica and the store.
    Network(usize, Link),
    /// So many connections that send half a request.
    HalfOpen(usize, usize),
    FullDisk,
    /// Another replica with another mark writes too.
    SecondWriter,
    /// Somebody with the service's role writes rows.
    ForeignRows,
    /// An organisation in which a deployment is no longer approved becomes active.
    Policies(Option<usize>),
    Backends([Mood; 3]),
    /// Clients leave a replica alone: it learns of others' records only by looking.
    Idle(usize),
    Copy,
    CutReplication,
    /// The store is an older one from here on.
    Loss,
}

impl Action {
    /// The word for it in tables.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::PauseReplica(_) => "replica paused",
            Self::KillReplica(_) => "replica killed",
            Self::Successor => "successor",
            Self::PauseStore => "store paused",
            Self::KillStore => "store killed",
            Self::Clock(..) => "clock moved",
            Self::Network(..) => "network disturbed",
            Self::HalfOpen(..) => "half-open sockets",
            Self::FullDisk => "disk full",
            Self::SecondWriter => "second writer",
            Self::ForeignRows => "foreign rows",
            Self::Policies(_) => "policies switched",
            Self::Backends(_) => "backends changed",
            Self::Idle(_) => "replica left alone",
            Self::Copy => "store copied",
            Self::CutReplication => "replication cut",
            Self::Loss => "store set back",
        }
    }
}

/// An action, when it begins, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) action: Action,
}

const fn secs(tenths: u64) -> Duration {
    Duration::from_millis(tenths * 100)
}

const fn planned(at: u64, lasts: u64, action: Action) -> Planned {
    Planned { at: secs(at), lasts: secs(lasts), action }
}

/// Clocks that NTP would not let happen, and one that it would.
const CLOCKS: [i64; 7] = [2, -2, 30, -30, 3_600, -86_400, 400 * 86_400];

/// A plan drawn from a seed.
pub(super) fn drawn(scene: Scene, seed: u64) -> Vec<Planned> {
    let mut dice = Dice::new(seed ^ 0x6e65_6d65_7369_7321);
    if scene.loses() {
        return loss(scene, &mut dice);
    }
    let mut plan = vec![planned(0, 0, Action::Backends(moods(&mut dice)))];
    let mut at = Duration::from_millis(500);
    for _ in 0..7 {
        let (lasts, action) = draw(scene, &mut dice);
        plan.push(Planned { at, lasts, action });
        // Often while the one before is still going on.
        at += dice.millis(300, 2_500);
    }
    plan
}

fn draw(scene: Scene, dice: &mut Dice) -> (Duration, Action) {
    let replica = if scene.is_postgres() { dice.below(2) } else { 0 };
    // Now and then longer than a lease.
    let long =
        if dice.below(3) == 0 { dice.millis(11_000, 14_000) } else { dice.millis(200, 3_000) };
    let short = dice.millis(300, 4_000);
    match dice.below(if scene.is_postgres() { 14 } else { 12 }) {
        0 | 1 => (long, Action::PauseReplica(replica)),
        2 => (dice.millis(0, 3_000), Action::KillReplica(replica)),
        3 => (short, Action::PauseStore),
        4 => (dice.millis(2_000, 8_000), Action::Clock(replica, dice.one_of(&CLOCKS))),
        5 => (short, Action::HalfOpen(replica, 8 + dice.below(56))),
        6 => (short, Action::FullDisk),
        7 => (dice.millis(500, 3_000), Action::SecondWriter),
        8 => (Duration::ZERO, Action::Policies(Some(dice.below(3)).filter(|n| *n > 0))),
        9 => (Duration::ZERO, Action::Backends(moods(dice))),
        10 | 11 if !scene.is_postgres() => (long, Action::Successor),
        10 => (Duration::ZERO, Action::Policies(Some(1))),
        11 => (dice.millis(500, 3_000), Action::KillStore),
        12 => {
            let links = [
                Link::Drops,
                Link::Refuses,
                Link::Delays(Duration::from_millis(700)),
                Link::CutsAfter(dice.below(600)),
            ];
            (short, Action::Network(replica, dice.one_of(&links)))
        }
        _ => (short, Action::ForeignRows),
    }
}

fn moods(dice: &mut Dice) -> [Mood; 3] {
    let mut mood = || match dice.below(6) {
        0 | 1 => Mood::Answers,
        2 => Mood::Slow(dice.millis(100, 2_000)),
        3 => Mood::Fails(dice.millis(0, 2_500)),
        4 => Mood::Breaks,
        _ => Mood::Hangs,
    };
    // A call goes on to the next one only where the first fails, and comes to an end somewhere.
    let first = mood();
    let second = mood();
    [first, second, Mood::Answers]
}

fn loss(scene: Scene, dice: &mut Dice) -> Vec<Planned> {
    let keep = if scene == Scene::Promotion { Action::CutReplication } else { Action::Copy };
    let moods = [Mood::Slow(dice.millis(0, 400)), Mood::Answers, Mood::Answers];
    let (keep_at, lost_at) = (dice.millis(2_500, 3_500), dice.millis(9_000, 11_000));
    let mut plan = vec![
        planned(0, 0, Action::Backends(moods)),
        Planned { at: keep_at, lasts: Duration::ZERO, action: keep },
        Planned { at: lost_at, lasts: Duration::ZERO, action: Action::Loss },
    ];
    // What is lost was then written by one replica alone; the other has looked at it often enough.
    if scene.is_postgres() && (scene == Scene::Promotion || dice.below(2) == 0) {
        let (at, lasts) = (keep_at.saturating_sub(secs(5)), lost_at.saturating_sub(keep_at));
        plan.push(Planned { at, lasts: lasts + secs(6), action: Action::Idle(1) });
    }
    plan
}

/// Everything that can happen on Postgres, once.
pub(super) fn everything_postgres() -> Vec<Planned> {
    use Action::{
        Backends, Clock, ForeignRows, FullDisk, HalfOpen, KillReplica, KillStore, Network,
        PauseReplica, PauseStore, Policies, SecondWriter,
    };
    let backends = |first, second| {
        Backends([Mood::Fails(secs(first)), Mood::Fails(secs(second)), Mood::Answers])
    };
    vec![
        // A call goes on to the next deployment after a pause that is longer than a lease.
        planned(0, 0, Backends([Mood::Fails(secs(15)), Mood::Answers, Mood::Answers])),
        planned(5, 170, PauseReplica(0)),
        planned(10, 0, Policies(Some(1))),
        planned(60, 40, HalfOpen(1, 60)),
        planned(185, 0, Policies(None)),
        // The next deployment is forbidden while the store cannot say so.
        planned(225, 0, backends(34, 30)),
        planned(245, 70, Network(0, Link::Drops)),
        planned(246, 0, Policies(Some(2))),
        planned(320, 0, backends(5, 5)),
        planned(321, 0, Policies(None)),
        planned(360, 12, Network(1, Link::Delays(secs(5)))),
        planned(361, 10, Network(0, Link::CutsAfter(100))),
        planned(375, 8, Network(0, Link::Refuses)),
        planned(390, 25, PauseStore),
        planned(425, 10, KillStore),
        planned(465, 20, FullDisk),
        planned(500, 15, ForeignRows),
        planned(525, 20, SecondWriter),
        planned(535, 10, KillReplica(1)),
        planned(580, 20, Clock(0, 2)),
        planned(581, 20, Clock(1, -3_600)),
    ]
}

/// A clock that is far ahead, on one replica of two.
pub(super) fn clock_postgres() -> Vec<Planned> {
    vec![planned(10, 50, Action::Clock(1, 400 * 86_400))]
}

/// Everything that can happen on SQLite, once.
pub(super) fn everything_sqlite() -> Vec<Planned> {
    use Action::{
        Backends, FullDisk, HalfOpen, KillReplica, PauseReplica, PauseStore, Policies,
        SecondWriter, Successor,
    };
    let fails = Mood::Fails(secs(15));
    vec![
        planned(0, 0, Backends([fails, Mood::Answers, Mood::Answers])),
        planned(5, 10, PauseReplica(0)),
        planned(20, 25, PauseStore),
        planned(50, 20, FullDisk),
        planned(80, 0, Policies(Some(1))),
        planned(90, 20, HalfOpen(0, 60)),
        planned(100, 10, KillReplica(0)),
        planned(130, 20, SecondWriter),
        planned(155, 130, Successor),
    ]
}

/// A clock that jumps on SQLite.
pub(super) fn clock_sqlite() -> Vec<Planned> {
    vec![planned(10, 50, Action::Clock(0, 400 * 86_400))]
}
