//! A folder that somebody else wrote, read without trust: regular files only, no links below it, and none
//! longer than such a file can be.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::super::Failure;

/// A folder of files that are not trusted.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    root: OwnedFd,
}

impl Folder {
    /// Opens a folder. It may be a link itself: its name comes from the person who asks.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let root = File::open(path).map_err(|error| Failure::io("read", path, &error))?;
        let metadata = root.metadata().map_err(|error| Failure::io("read", path, &error))?;
        if !metadata.is_dir() {
            let path = path.display();
            return Err(Failure::Usage(format!("`{path}` is not a folder: want an export")));
        }
        Ok(Self { path: path.to_owned(), root: root.into() })
    }

    /// Reads a file of at most `limit` bytes in place of what is in `bytes`. Whether it is there.
    pub(super) fn read(
        &self,
        name: &str,
        limit: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        bytes.clear();
        let Some(file) = self.file(name, limit)? else { return Ok(false) };
        read_bounded(file, limit, bytes)
            .map_err(|error| Failure::io("read", &self.path.join(name), &error))?;
        if bytes.len() as u64 > limit {
            return Err(too_long(name, limit));
        }
        Ok(true)
    }

    /// Whether there is something of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok()
    }

    /// Opens a file below the folder, going through no link.
    fn file(&self, name: &str, limit: u64) -> Result<Option<File>, Failure> {
        let failed = |error: Errno| Failure::io("read", &self.path.join(name), &error.into());
        let (folders, last) = name.rsplit_once('/').unwrap_or(("", name));
        let mut folder: Option<OwnedFd> = None;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            let at = folder.as_ref().unwrap_or(&self.root);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = match openat(at, part, flags, Mode::empty()) {
                Ok(opened) => Some(opened),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(Failure::Finding(format!(
                        "`{name}`: `{part}` is not a folder; an export holds folders and regular files, and no links"
                    )));
                }
                Err(error) => return Err(failed(error)),
            };
        }
        let at = folder.as_ref().unwrap_or(&self.root);
        // A device may act on being opened: what it is must be known before.
        let kind = match statat(at, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if kind != FileType::RegularFile {
            return Err(not_regular(name, kind));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(at, last, flags, Mode::empty()).map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(not_regular(name, kind));
        }
        if u64::try_from(stat.st_size).is_ok_and(|size| size > limit) {
            return Err(too_long(name, limit));
        }
        Ok(Some(file.into()))
    }

    /// The names of all files, links and other things below the folder that `is_known` does not know: the
    /// first `most` of them, and how many there are.
    pub(super) fn others(
        &self,
        most: usize,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(Vec<String>, u64), Failure> {
        let (mut names, mut count) = (Vec::new(), 0);
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            let failed = |error| Failure::io("read", &folder, &error);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = entry.path();
                if entry.file_type().map_err(failed)?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&self.path).unwrap_or(&path).to_string_lossy();
                if !is_known(&name) {
                    count += 1;
                    if names.len() < most {
                        names.push(name.chars().take(200).flat_map(char::escape_debug).collect());
                    }
                }
            }
        }
        names.sort_unstable();
        Ok((names, count))
    }
}

/// Reads a file that a person named, whatever it is, up to a bound.
pub(super) fn read_named(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| read_bounded(file, limit, &mut bytes));
    file.map_err(|error| Failure::io("read", path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(too_long(&path.display().to_string(), limit));
    }
    Ok(bytes)
}

/// Reads a byte more than there may be, to see that there is none.
fn read_bounded(file: File, limit: u64, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    file.take(limit.saturating_add(1)).read_to_end(bytes).map(drop)
}

fn too_long(name: &str, limit: u64) -> Failure {
    Failure::Finding(format!("`{name}` is longer than {limit} bytes, the most that it can be"))
}

fn not_regular(name: &str, kind: FileType) -> Failure {
    let what = match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a folder",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "not a file",
    };
    Failure::Finding(format!("`{name}` is {what}; an export holds regular files only"))
}
