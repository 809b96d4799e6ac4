//! A key in a file: read only where no other user can read or change it. Not what the key is for.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::source;

/// The longest file that a key is read from.
const LONGEST: u64 = 64 << 10;

/// Why a key is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the {what} `{path}` cannot be read: {error}", path = source::shown_path(.path))]
    Unreadable {
        /// Which key.
        what: &'static str,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Others can read it, or change it.
    #[error("the key `{path}` can be read by others: `chmod 600 {path}`", path = .0.display())]
    Open(PathBuf),
    /// A group can read it, and the owner is another user than root and the service's.
    #[error("the key `{path}` belongs to another user and can be read by a group: give it to root or to the service's user", path = .0.display())]
    Foreign(PathBuf),
}

/// Reads the key in `path`, which is called `what`.
///
/// What is looked at is the file that is open, so that another cannot take its place in between.
///
/// # Errors
/// When it cannot be read, or not only by those who may.
pub fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, KeyFileError> {
    let unreadable = |error| KeyFileError::Unreadable { what, path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check(path, &metadata, rustix::process::geteuid().as_raw())?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// A mounted secret cannot be changed to mode 600: Kubernetes gives it to root and lets the pod's group read
/// it (`0440`, or `0640` where the volume says so). Whoever is in that group can sign as the log; that is for
/// root to decide. Of a file of the service's own user, only one that nobody can write is taken for such a
/// mount: no umask makes that mode by chance.
fn check(path: &Path, metadata: &Metadata, me: u32) -> Result<(), KeyFileError> {
    match verdict(metadata.mode() & 0o777, metadata.uid(), me) {
        Verdict::Ours => Ok(()),
        Verdict::Open => Err(KeyFileError::Open(path.to_owned())),
        Verdict::Foreign => Err(KeyFileError::Foreign(path.to_owned())),
    }
}

/// Whose a key is, by the mode and the owner of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ours,
    Open,
    Foreign,
}

fn verdict(mode: u32, owner: u32, me: u32) -> Verdict {
    let (group, others) = ((mode >> 3) & 7, mode & 7);
    match (group, others) {
        (0, 0) => Verdict::Ours,
        (4, 0) if owner == 0 && me != 0 => Verdict::Ours,
        (4, 0) if owner == me && mode & 0o222 == 0 => Verdict::Ours,
        (4, 0) if owner != me => Verdict::Foreign,
        _ => Verdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_secret_is_read_and_an_open_key_is_not() {
        let is_read = |mode, owner, me| verdict(mode, owner, me) == Verdict::Ours;
        for (mode, owner, me, want) in [
            (0o600, 1000, 1000, true),
            (0o400, 1000, 1000, true),
            (0o400, 0, 0, true),
            // Kubernetes, with and without `fsGroup`, and a pod that runs as root.
            (0o440, 0, 1000, true),
            (0o640, 0, 1000, true),
            (0o440, 0, 0, true),
            (0o440, 1000, 1000, true),
            // A file of one's own can be changed.
            (0o640, 1000, 1000, false),
            (0o640, 0, 0, false),
            // Somebody else's.
            (0o440, 1001, 1000, false),
            (0o640, 1001, 0, false),
            // Others, and groups that can write or run it.
            (0o444, 0, 1000, false),
            (0o604, 0, 1000, false),
            (0o660, 0, 1000, false),
            (0o460, 0, 1000, false),
            (0o450, 0, 1000, false),
            (0o777, 0, 0, false),
        ] {
            assert_eq!(is_read(mode, owner, me), want, "{mode:o} of {owner} for {me}");
        }
    }
}
