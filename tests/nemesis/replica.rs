//! A process of `lexgate serve` that the nemesis stops, kills and lies to about the time.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    process::{self, Watchdog},
    world::START,
};
use crate::harness::Site;

/// A slot for one process after another, with a mark, checkpoints and a clock of its own.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) name: &'static str,
    site: Arc<Site>,
    env: Vec<(String, String)>,
    running: Option<Running>,
    /// Where it listens, for clients.
    pub(super) url: Arc<Mutex<Option<String>>>,
    /// Everything that its processes wrote to standard error.
    log: Arc<Mutex<String>>,
    /// When it was stopped, and went on.
    pub(super) stops: Vec<(Instant, Option<Instant>)>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    #[expect(dead_code, reason = "it is kept, not read")]
    watchdog: Watchdog,
}

impl Replica {
    /// `env` beside the site's own.
    pub(super) fn of(site: &Arc<Site>, name: &'static str, env: &[(&str, String)]) -> Self {
        let mut env: Vec<_> =
            env.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let file = site.path(&format!("clock.{name}"));
        let own = [
            ("LEXGATE_LEDGER__CHECKPOINTS_FILE", format!("data/ledger.checkpoints.{name}")),
            ("LD_PRELOAD", faketime().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // The clock that an administrator sets, or a virtual machine takes over from its host.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        env.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let replica = Self {
            name,
            site: site.clone(),
            env,
            running: None,
            url: Arc::default(),
            log: Arc::default(),
            stops: Vec::new(),
        };
        replica.set_clock(0);
        replica
    }

    /// The same place with another environment on top, such as another organisation file.
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Moves its clock, while it runs too.
    pub(super) fn set_clock(&self, seconds: i64) {
        let (path, new) = (format!("clock.{}", self.name), format!("clock.{}.new", self.name));
        self.site.write(&new, &format!("{seconds:+}\n"));
        fs::rename(self.site.path(&new), self.site.path(&path)).expect("a file can be renamed");
    }

    /// A command of the program with the replica's environment and the true time.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.site.command(arguments);
        let time = |key: &str| key.contains("FAKE") || key == "LD_PRELOAD";
        let env = self.env.iter().filter(|(key, _)| !time(key));
        command.envs(env.map(|(key, value)| (key, value)));
        command
    }

    /// Starts a process and waits until it listens. Whether it does; else it has ended.
    pub(super) async fn start(&mut self, patience: Duration) -> bool {
        let serve = self.site.command(&["serve"]);
        // A file that may not grow is a failed write, as on a full disk, and no end of the process.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(serve.get_program());
        command.args(serve.get_args()).current_dir(serve.get_current_dir().expect("a folder"));
        for (key, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sh runs");
        let (url, log) = (self.url.clone(), self.log.clone());
        *url.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let told = url.clone();
        read(child.stdout.take().expect("a pipe"), move |line| {
            let Some((_, rest)) = line.split_once("lexgate listens on ") else { return };
            let url = rest.split(' ').next().unwrap_or(rest).to_owned();
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
        });
        read(child.stderr.take().expect("a pipe"), move |line| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(line);
            log.push('\n');
        });
        let watchdog = Watchdog::of(child.id());
        self.running = Some(Running { child, watchdog });
        let until = Instant::now() + patience;
        while self.url().is_none() {
            if self.has_ended() || Instant::now() > until {
                self.kill();
                return false;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        true
    }

    /// The same before anything is disturbed. A store on a busy machine may not answer in time, and then a
    /// start is refused, as it should be.
    pub(super) async fn start_at_last(&mut self) {
        for _ in 0..5 {
            if self.start(START).await {
                return;
            }
        }
        panic!("a replica does not start:\n{}", self.log());
    }

    pub(super) fn url(&self) -> Option<String> {
        self.url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its process ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        running.child.try_wait().expect("a child can be waited for").is_some()
    }

    pub(super) fn pause(&mut self) {
        let Some(running) = &self.running else { return };
        self.stops.push((Instant::now(), None));
        process::signal("STOP", &[running.child.id()]);
    }

    pub(super) fn resume(&mut self) {
        let Some(running) = &self.running else { return };
        process::signal("CONT", &[running.child.id()]);
        self.went_on();
    }

    fn went_on(&mut self) {
        for (_, end) in self.stops.iter_mut().filter(|(_, end)| end.is_none()) {
            *end = Some(Instant::now());
        }
    }

    /// Ends the process as a power cut would.
    pub(super) fn kill(&mut self) {
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.went_on();
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Ends the process in order; as a power cut would where it does not end.
    pub(super) async fn terminate(&mut self) {
        let Some(running) = &mut self.running else { return };
        process::signal("TERM", &[running.child.id()]);
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until && !self.has_ended() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.kill();
    }

    /// Everything that its processes wrote to standard error.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(from: impl Read + Send + 'static, mut told: impl FnMut(&str) + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            told(&line);
        }
    });
}

/// The library that gives a process another time.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("/usr/lib is there").filter_map(Result::ok);
    let files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists()).expect(
        "Debian's `faketime` is not installed: run the tests with `scripts/test` or `scripts/nemesis`",
    )
}
