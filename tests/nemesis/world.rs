//! What a round plays with, and how each action is done and undone.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::{
    backends::Backends,
    history::History,
    load::{Load, Url, Urls},
    plan::{Action, Scene},
    proxy::Link,
    replica::Replica,
    stage::{OTHERS, Postgres, Stage},
    story::Published,
    watch::{Entry, Watch},
};
use crate::harness::{Service, Site, Store};

/// How long a replica may take until it listens, on a busy machine.
pub(super) const START: Duration = Duration::from_secs(60);
/// Where half-open connections come from: another address than the clients'.
const STRANGER: &str = "127.0.0.9:0";

/// A store was set back, and what it had held.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// When the older store was there for the services.
    pub(super) visible: Instant,
    pub(super) lost: Vec<Entry>,
    /// When an operator said that the log is to go on.
    pub(super) recovered: Option<Instant>,
    /// The checkpoints in the replicas' files until then.
    pub(super) published: BTreeSet<Published>,
}

pub(super) struct World {
    pub(super) scene: Scene,
    pub(super) history: History,
    pub(super) site: Arc<Site>,
    pub(super) stage: Stage,
    pub(super) backends: Backends,
    pub(super) replicas: Vec<Replica>,
    pub(super) load: Load,
    pub(super) watch: Watch,
    pub(super) loss: Option<Loss>,
    writer: Option<Replica>,
    /// Clients call it too, while it is there.
    writer_url: Url,
    half_open: Vec<TcpStream>,
}

impl World {
    pub(super) async fn build(scene: Scene, seed: u64, history: History) -> Self {
        let backends = Backends::start().await;
        let mut stage = None;
        let setup = Service::setup(Store::Sqlite).patience_as_shipped();
        let mut setup = setup.organisation(&backends.organisation(None));
        if scene.is_postgres() {
            let postgres = Stage::postgres(scene == Scene::Promotion).await;
            setup = setup.env("LEXGATE_STORE__URL", &postgres.service_url(OTHERS));
            stage = Some(postgres);
        } else {
            setup = setup.env("LEXGATE_STORE__URL", "sqlite://small/lexgate.db");
        }
        let site = Arc::new(setup.prepare().await);
        let stage = stage.unwrap_or_else(|| Stage::sqlite(&site));
        for n in 0..3 {
            let was = site.read("config/organisation.toml");
            let forbidden = backends.organisation(Some(n));
            let new = was.replace(&backends.organisation(None), &forbidden);
            assert!(new.contains(&forbidden), "the organisation file holds the deployments");
            site.write(&format!("config/forbids-{n}.toml"), &new);
        }
        // Processes of one machine share a mark. Replicas are on machines of their own.
        let marks = if scene.is_postgres() { ["a", "b"] } else { ["a", "a"] };
        let replica = |(slot, mark): (usize, &str)| {
            let mark = format!("data/ledger.mark.{mark}");
            let url = stage.service_url(slot);
            let env = [("LEXGATE_LEDGER__MARK_FILE", mark), ("LEXGATE_STORE__URL", url)];
            Replica::of(&site, ["0", "1"][slot], &env)
        };
        let mut replicas: Vec<_> = marks.into_iter().enumerate().map(replica).collect();
        for replica in replicas.iter_mut().take(if scene.is_postgres() { 2 } else { 1 }) {
            replica.start_at_last().await;
        }
        let writer_url = Url::default();
        let urls = replicas.iter().map(|replica| replica.url.clone());
        let urls: Urls = urls.chain([writer_url.clone()]).collect();
        let load = Load::new(urls.clone(), site.key("caller"), seed);
        let watch = Watch::start(&stage.direct_url(), &urls);
        Self {
            scene,
            history,
            site,
            stage,
            backends,
            replicas,
            load,
            watch,
            loss: None,
            writer: None,
            writer_url,
            half_open: Vec::new(),
        }
    }

    pub(super) async fn perform(&mut self, action: Action) {
        self.history.say(format!("do {action:?}"));
        match action {
            Action::PauseReplica(slot) => self.replicas[slot].pause(),
            Action::KillReplica(slot) => self.replicas[slot].kill(),
            Action::Successor => {
                self.replicas[0].pause();
                self.start(1, Duration::from_secs(10)).await;
            }
            Action::PauseStore => self.stage.pause().await,
            Action::KillStore => self.postgres(Postgres::kill),
            Action::Clock(slot, seconds) => self.replicas[slot].set_clock(seconds),
            Action::Network(slot, link) => self.postgres(|stage| stage.networks[slot].set(link)),
            Action::HalfOpen(slot, count) => self.open_half(slot, count).await,
            Action::FullDisk => self.stage.fill(),
            Action::SecondWriter => self.second_writer("data/ledger.mark.writer", None).await,
            Action::ForeignRows => self.foreign_rows(true).await,
            Action::Policies(forbidden) => {
                let file = forbidden.map_or_else(
                    || "config/organisation.toml".to_owned(),
                    |n| format!("config/forbids-{n}.toml"),
                );
                self.second_writer("data/ledger.mark.writer", Some(&file)).await;
                self.end_writer().await;
            }
            Action::Backends(moods) => self.backends.set(moods),
            Action::Idle(slot) => self.load.leave(slot, true),
            Action::Copy => self.stage.copy().await,
            Action::CutReplication => self.postgres(Postgres::cut_replication),
            Action::Loss => self.lose().await,
        }
    }

    pub(super) async fn undo(&mut self, action: Action) {
        self.history.say(format!("undo {action:?}"));
        match action {
            Action::PauseReplica(slot) => self.replicas[slot].resume(),
            Action::KillReplica(slot) => self.start(slot, Duration::from_secs(10)).await,
            Action::Successor => {
                // Two of them for a moment, then the first one ends.
                self.replicas[0].resume();
                tokio::time::sleep(Duration::from_secs(2)).await;
                if self.replicas[1].is_up() {
                    self.replicas[0].terminate().await;
                }
            }
            Action::PauseStore => self.stage.resume().await,
            Action::KillStore => self.postgres(|stage| {
                stage.up();
            }),
            Action::Clock(slot, _) => self.replicas[slot].set_clock(0),
            Action::Network(slot, _) => {
                self.postgres(|stage| stage.networks[slot].set(Link::Passes));
            }
            Action::HalfOpen(..) => self.half_open.clear(),
            Action::FullDisk => self.stage.drain(),
            Action::SecondWriter => self.end_writer().await,
            Action::ForeignRows => self.foreign_rows(false).await,
            Action::Idle(slot) => self.load.leave(slot, false),
            Action::Policies(_)
            | Action::Backends(_)
            | Action::Copy
            | Action::CutReplication
            | Action::Loss => {}
        }
    }

    fn postgres(&self, act: impl FnOnce(&Postgres)) {
        act(self.stage.as_postgres().expect("the scene is on Postgres"));
    }

    /// Writes them, or takes them out; a store that is away lets nobody.
    async fn foreign_rows(&self, write: bool) {
        let Some(stage) = self.stage.as_postgres() else { return };
        let act = async {
            if write { stage.write_foreign_rows().await } else { stage.remove_foreign_rows().await }
        };
        let done = tokio::time::timeout(Duration::from_secs(3), act).await;
        self.history.say(format!("foreign rows: {done:?}"));
    }

    /// Starts what is not up; a store that is away may not let it.
    pub(super) async fn start(&mut self, slot: usize, patience: Duration) {
        if self.replicas[slot].is_up() {
            return;
        }
        let started = self.replicas[slot].start(patience).await;
        let what = if started { "listens" } else { "does not start" };
        self.history.say(format!("replica {slot} {what}"));
    }

    async fn open_half(&mut self, slot: usize, count: usize) {
        let Some(url) = self.replicas[slot].url() else { return };
        let address = url.trim_start_matches("http://").parse().expect("an address");
        for n in 0..count {
            let socket = TcpSocket::new_v4().expect("a socket can be made");
            socket.bind(STRANGER.parse().unwrap()).expect("the whole of 127/8 is this machine");
            let connect = tokio::time::timeout(Duration::from_secs(1), socket.connect(address));
            let Ok(Ok(mut stream)) = connect.await else { continue };
            // Nothing, half a head, or half a body.
            let half: &[u8] = match n % 3 {
                0 => b"",
                1 => b"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-le",
                _ => b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{\"mod",
            };
            let _ = stream.write_all(half).await;
            self.half_open.push(stream);
        }
    }

    /// A replica with a mark of its own, which activates an organisation file where one is named.
    async fn second_writer(&mut self, mark: &str, activates: Option<&str>) {
        if self.writer.is_some() {
            return;
        }
        let mark = [("LEXGATE_LEDGER__MARK_FILE", mark.to_owned())];
        let mut writer = Replica::of(&self.site, "writer", &mark);
        let file = activates.unwrap_or("config/organisation.toml");
        writer = writer.with("LEXGATE_ORGANISATION__FILE", file).with(
            "LEXGATE_POLICIES__ACTIVATE_ON_START",
            if activates.is_some() { "true" } else { "false" },
        );
        writer.url = self.writer_url.clone();
        let started = writer.start(Duration::from_secs(15)).await;
        let what = if started { "listens" } else { "does not start" };
        self.history.say(format!("the second writer {what}"));
        self.writer = Some(writer);
    }

    async fn end_writer(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            writer.terminate().await;
            self.panics(&writer);
        }
    }

    /// The store becomes an older one under everybody's hands.
    async fn lose(&mut self) {
        match self.scene {
            Scene::Promotion => self.stage.promote(),
            Scene::SetBackStopped => {
                self.replicas[0].terminate().await;
                self.stage.set_back().await;
            }
            Scene::SetBackSqlite => {
                // Between two of its commits, so that it is known what was lost.
                self.stage.pause().await;
                self.replicas[0].pause();
                self.stage.resume().await;
                self.stage.set_back().await;
                self.replicas[0].resume();
            }
            _ => self.stage.set_back().await,
        }
        let visible = Instant::now();
        self.watch.another(&self.stage.direct_url());
        let lost = self.stage.lost().await;
        self.history.say(format!("{} entries were there", lost.len()));
        self.loss = Some(Loss { visible, lost, recovered: None, published: BTreeSet::new() });
        if self.scene == Scene::SetBackStopped {
            self.start(0, START).await;
        }
    }

    /// Ends every disturbance, whether it is going on or not.
    pub(super) async fn heal(&mut self) {
        self.history.say("heal");
        self.stage.drain();
        self.stage.resume().await;
        if let Some(stage) = self.stage.as_postgres() {
            assert!(stage.up(), "Postgres does not start again");
            stage.remove_foreign_rows().await.expect("foreign rows can be taken out");
            stage.all(Link::Passes);
        }
        self.half_open.clear();
        self.end_writer().await;
        for replica in &mut self.replicas {
            replica.resume();
            replica.set_clock(0);
        }
    }

    /// Findings in what a replica wrote, and in how it ended.
    pub(super) fn panics(&self, replica: &Replica) {
        for sign in ["panicked at", "has overflowed its stack", "SIGABRT"] {
            if let Some(line) = replica.log().lines().find(|line| line.contains(sign)) {
                self.history.finding("6 alive", format!("{}: {line}", replica.name));
            }
        }
    }
}
