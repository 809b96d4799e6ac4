//! What the nemesis does to processes and file systems of its own.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// The size of a file system that can be filled. The service wants some of it to be free.
const ROOM: &str = "size=2g";

/// Sends a signal to processes, of which some may have ended meanwhile.
pub(super) fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$@\" 2>/dev/null; true", name]);
    kill.args(processes.iter().map(u32::to_string));
    assert!(kill.status().expect("sh runs").success(), "SIG{name} could not be sent");
}

pub(super) fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
}

/// A TCP port that was free a moment ago, and that no client's connection takes while its server is
/// down: from below the range that Linux gives to those.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id() + 7 * NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + next % 12_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A file system of its own at `path`. A full disk cannot be had without.
pub(super) fn mount(path: &Path) {
    std::fs::create_dir_all(path).expect("a folder can be made");
    let mut mount = Command::new("mount");
    run(mount.args(["-t", "tmpfs", "-o", ROOM, "lexgate-nemesis"]).arg(path));
}

pub(super) fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
}

/// Leaves no room on the file system at `path`: it becomes as small as what is on it.
pub(super) fn fill(path: &Path) {
    let script =
        // What is written between the two questions makes it too small: then it is asked again.
        r#"for n in $(seq 50); do used=$(df -k --output=used "$0" | tail -n 1)
            mount -o remount,size="$((used))k" "$0" && exit; done; exit 1"#;
    run(Command::new("sh").args(["-c", script]).arg(path));
}

pub(super) fn drain(path: &Path) {
    run(Command::new("mount").arg("-o").arg(format!("remount,{ROOM}")).arg(path));
}

/// A shell that reads a pipe which nobody writes: its end is the end of the test program. It then ends
/// what is under `folder`, if the test did not.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    /// Over Postgres servers in `folder`, and a file system at `mounted`.
    pub(super) fn over(folder: &Path, mounted: &Path) -> Self {
        let script = r#"read -r _
            for pid in "$0"/*/postmaster.pid; do
                first=$(head -n 1 "$pid" 2>/dev/null) || continue
                kill -KILL $(ps -o pid= --ppid "$first") "$first"
            done
            umount -l "$1"; rm -rf "$0""#;
        Self::start(script, [folder.as_os_str(), mounted.as_os_str()])
    }

    /// Over one process.
    pub(super) fn of(process: u32) -> Self {
        Self::start("read -r _; kill -KILL \"$0\"", [process.to_string()])
    }

    fn start(script: &str, of: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).args(of).stdin(Stdio::piped());
        Self(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sh runs"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // What it would end has ended; its process number may belong to another by now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
