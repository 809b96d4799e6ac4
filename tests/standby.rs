//! A Postgres cluster with a synchronous standby, for drills: what was answered is on both.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sqlx::{Connection, PgConnection, Row};

use crate::{durability::Cluster, harness::signal};

/// A primary and the standby that it waits for.
pub(crate) struct Pair {
    primary: Cluster,
    folder: PathBuf,
    port: u16,
}

impl Pair {
    /// Starts both, and waits until the primary commits nothing without the standby.
    pub(crate) async fn start() -> Self {
        let primary = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
        let folder = Path::new(&primary.ctl).parent().unwrap().to_owned();
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let pair = Self { primary, folder, port };
        let (_, rest) = pair.primary.url.rsplit_once(':').unwrap();
        let of = rest.split('/').next().unwrap();
        let data = pair.data();
        let copy =
            ["-h", "127.0.0.1", "-p", of, "-U", "postgres", "-R", "-X", "stream", "-c", "fast"];
        pair.run("pg_basebackup", &[&["-D", &data], &copy[..]].concat());
        let mut connection = PgConnection::connect(&pair.primary.url).await.unwrap();
        // A standby that takes fewer connections than its primary does not start.
        let row = sqlx::query("SHOW max_connections").fetch_one(&mut connection).await.unwrap();
        let most: String = row.get(0);
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c cluster_name=s1 -c max_connections={most} -c unix_socket_directories='{}'",
            pair.folder.display()
        );
        let log = pair.folder.join("standby.log").display().to_string();
        pair.run("pg_ctl", &["-D", &data, "-l", &log, "-w", "-t", "60", "-o", &options, "start"]);
        for sql in ["ALTER SYSTEM SET synchronous_standby_names = 's1'", "SELECT pg_reload_conf()"]
        {
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
        let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        for _ in 0..300 {
            let row = sqlx::query(state).fetch_one(&mut connection).await.unwrap();
            if row.get::<i64, _>(0) == 1 {
                return pair;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the standby is not synchronous");
    }

    /// The address of the primary.
    pub(crate) fn primary(&self) -> &str {
        &self.primary.url
    }

    /// The address of the standby, which takes writes once it was promoted.
    pub(crate) fn standby(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends the primary as a power cut would.
    pub(crate) fn kill_primary(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        signal("KILL", pid.lines().next().unwrap().trim().parse().unwrap());
    }

    /// Makes the standby the primary.
    pub(crate) fn promote(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "promote"]);
    }

    fn data(&self) -> String {
        self.folder.join("standby").display().to_string()
    }

    /// One of Postgres's programs, as the user to whom the cluster belongs.
    fn run(&self, program: &str, arguments: &[&str]) {
        let ran = self.command(program, arguments).status().expect("Postgres's programs are there");
        let said = std::fs::read_to_string(self.folder.join("standby.log")).unwrap_or_default();
        assert!(ran.success(), "{program} {arguments:?}: {said}");
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let who = Command::new("id").arg("-u").output().expect("id runs");
        let mut command = if who.stdout == b"0\n" {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "env"]);
            command.arg(format!("PATH={}", std::env::var("PATH").unwrap_or_default()));
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(&self.folder);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]).status();
    }
}
