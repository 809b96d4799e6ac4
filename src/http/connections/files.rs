//! How many files this process may have open, and how many of them are left for clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the store, the idle connections of backends, the log and the programs that give keys need.
const RESERVE: u64 = 96;
/// More connections than this are not taken unless the configuration says so.
const ENOUGH: u64 = 10_000;

/// Raises the limit of open files as far as the system lets it be raised, and gives it.
pub(super) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections clients may have where `files` may be open: each may need another one to a
/// backend. `wanted` is held to what is possible.
pub(super) fn connections(files: u64, wanted: Option<u32>) -> usize {
    // A process with a tiny limit serves few; it does not serve nobody.
    let reserve = RESERVE.min(files / 2);
    let possible = ((files - reserve) / 2).max(1);
    let most = match wanted.map(u64::from) {
        Some(wanted) if wanted > possible => {
            tracing::warn!(
                wanted,
                possible,
                files,
                "`[server] max_connections` is more than the limit of open files allows"
            );
            possible
        }
        Some(wanted) => wanted.max(1),
        None => possible.min(ENOUGH),
    };
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_for_a_backend_is_kept_for_each_client() {
        assert_eq!(connections(256, None), 80);
        assert_eq!(connections(1_024, None), 464);
        assert_eq!(connections(1 << 20, None), 10_000);
        assert_eq!(connections(u64::MAX, Some(50_000)), 50_000);
        assert_eq!(connections(256, Some(50_000)), 80);
        assert_eq!(connections(1_024, Some(7)), 7);
        assert_eq!(connections(4, None), 1);
    }
}
