//! Postgres clusters of the nemesis' own, which it stops, kills, copies and promotes. Durable, as the
//! service demands: `fsync` and `synchronous_commit` are on.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tokio::task::block_in_place;

use super::process::{self, Watchdog};
use crate::harness::TempDir;

/// Where a database lies that can be filled: on a small file system of its own.
pub(super) const SMALL: &str = "small";

/// A folder with servers.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) primary: Server,
    pub(super) standby: Option<Server>,
    /// Before the folder: the servers end first.
    #[expect(dead_code, reason = "it is kept, not read")]
    watchdog: Watchdog,
    folder: TempDir,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    data: PathBuf,
    pub(super) port: u16,
}

impl Cluster {
    /// A fresh server, with a tablespace on a file system that can be filled.
    pub(super) async fn start() -> Self {
        let folder = TempDir::new();
        let path = folder.path().to_owned();
        let small = path.join(SMALL);
        let watchdog = Watchdog::over(&path, &small);
        let primary = block_in_place(|| {
            process::mount(&small);
            for owned in [&path, &small] {
                own(owned);
            }
            let data = path.join("primary");
            let mut initdb = program("initdb", &path);
            initdb.arg("-D").arg(&data);
            initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
            process::run(initdb.arg("--no-sync"));
            Server::start(&data)
        });
        let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", small.display());
        primary.sql(&[&tablespace]).await;
        Self { primary, standby: None, watchdog, folder }
    }

    /// Makes an asynchronous standby that follows the primary through `port`.
    pub(super) fn follow(&mut self, port: u16) {
        let path = self.folder.path().to_owned();
        let standby = block_in_place(|| {
            // The copy's tablespace is the primary's own folder otherwise.
            let (data, small) = (path.join("standby"), path.join("standby-small"));
            fs::create_dir_all(&small).expect("a folder can be made");
            own(&small);
            let mut copy = program("pg_basebackup", &path);
            copy.arg("-D").arg(&data).args([
                "-R",
                "-X",
                "stream",
                "--checkpoint=fast",
                "--no-sync",
            ]);
            let from = path.join(SMALL).display().to_string();
            copy.arg("-T").arg(format!("{from}={}", small.display()));
            copy.arg("-d").arg(format!("host=127.0.0.1 port={port} user=postgres"));
            process::run(&mut copy);
            Server::start(&data)
        });
        self.standby = Some(standby);
    }

    /// The file system that can be filled.
    pub(super) fn small(&self) -> PathBuf {
        self.folder.path().join(SMALL)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in self.standby.iter().chain([&self.primary]) {
            server.kill();
        }
        process::unmount(&self.small());
    }
}

impl Server {
    fn start(data: &Path) -> Self {
        for _ in 0..3 {
            // Another program may take the free port first.
            let server = Self { data: data.to_owned(), port: process::free_port() };
            if server.up() {
                return server;
            }
        }
        let log = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        panic!("Postgres does not start:\n{log}");
    }

    /// Starts a server that was killed: what is left of it may still be going.
    pub(super) fn up_again(&self) -> bool {
        (0..10).any(|_| {
            self.up() || {
                std::thread::sleep(Duration::from_millis(300));
                false
            }
        })
    }

    /// What the server wrote last.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
        let mut last: Vec<&str> = log.lines().rev().take(15).collect();
        last.reverse();
        last.join("\n")
    }

    /// Starts the server, after [`Self::kill`] too. Whether it did.
    pub(super) fn up(&self) -> bool {
        let folder = self.data.parent().expect("it has a folder");
        let mut start = program("pg_ctl", folder);
        start.arg("-D").arg(&self.data).arg("-l").arg(self.data.with_extension("log"));
        start.args(["-w", "-t", "60", "-s", "start", "-o"]);
        start.arg(format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='{}'",
            self.port,
            folder.display()
        ));
        block_in_place(|| start.status().expect("pg_ctl runs").success())
    }

    /// Makes a standby the primary.
    pub(super) fn promote(&self) {
        let mut promote = program("pg_ctl", self.data.parent().expect("it has a folder"));
        promote.arg("-D").arg(&self.data).args(["-w", "-t", "60", "-s", "promote"]);
        process::run(&mut promote);
    }

    /// The server's processes, the first one first; none when it is down.
    fn processes(&self) -> Vec<u32> {
        let pid = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let Some(first) = pid.lines().next().and_then(|line| line.trim().parse::<u32>().ok())
        else {
            return Vec::new();
        };
        let children =
            Command::new("ps").args(["-o", "pid=", "--ppid", &first.to_string()]).output();
        let children = String::from_utf8(children.expect("ps runs").stdout).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(first).chain(children).collect()
    }

    pub(super) fn is_running(&self) -> bool {
        let first = self.processes().first().copied();
        first.is_some_and(|first| Path::new(&format!("/proc/{first}")).exists())
    }

    /// Stops every process of the server where it is.
    pub(super) fn pause(&self) {
        // The first one before its children, so that it starts no more of them.
        process::signal("STOP", self.processes().get(..1).unwrap_or_default());
        process::signal("STOP", &self.processes());
    }

    pub(super) fn resume(&self) {
        process::signal("CONT", &self.processes());
    }

    /// Ends every process of the server as a power cut would.
    pub(super) fn kill(&self) {
        process::signal("STOP", self.processes().get(..1).unwrap_or_default());
        process::signal("KILL", &self.processes());
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as the superuser.
    pub(super) async fn sql(&self, statements: &[&str]) {
        let connection = PgConnection::connect(&self.url("postgres")).await;
        let mut connection = connection.expect("the cluster answers");
        for statement in statements {
            let done = sqlx::query(statement).execute(&mut connection).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        let _ = connection.close().await;
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc is there").uid() == 0
}

fn own(path: &Path) {
    if is_root() {
        process::run(Command::new("chown").arg("postgres").arg(path));
    }
}

/// One of Postgres' own programs, which refuse to run as root.
fn program(name: &str, folder: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists());
    let found = found.unwrap_or_else(|| {
        panic!(
            "`{name}` is not on the PATH: run the tests with `scripts/test` or `scripts/nemesis`"
        )
    });
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(found);
        command
    } else {
        Command::new(found)
    };
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
