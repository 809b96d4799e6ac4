//! Tiles and entry bundles: their names and bytes in the layout of C2SP tlog-tiles. Not where they
//! are kept.

use std::str::FromStr;

use crate::domain::Digest;

/// How many hashes a full tile has, and how many entries a full bundle.
pub const TILE_WIDTH: usize = 256;
/// How many levels of the tree a tile spans.
pub(super) const TILE_HEIGHT: u32 = 8;

/// The place of a tile: its level, and its number within the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 for leaves; each hash of a higher level is the root over a full tile of the level below.
    pub level: u32,
    /// Its number, from 0.
    pub n: u64,
}

impl TileId {
    /// How many hashes the tile has in a tree of `size` leaves.
    #[must_use]
    pub fn width(self, size: u64) -> usize {
        let before = self.n.saturating_mul(TILE_WIDTH as u64);
        let there = count_at(size, self.level).saturating_sub(before);
        usize::try_from(there).map_or(TILE_WIDTH, |there| there.min(TILE_WIDTH))
    }
}

/// Consecutive hashes of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its place.
    pub id: TileId,
    /// At most 256 hashes.
    pub hashes: Vec<Digest>,
}

impl Tile {
    /// The hashes, one after the other.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }
}

/// The hashes in a tile's bytes; `None` when they are no whole number of hashes, or too many.
#[must_use]
pub fn read_tile(bytes: &[u8]) -> Option<Vec<Digest>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    let fits = rest.is_empty() && hashes.len() <= TILE_WIDTH;
    fits.then(|| hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
}

/// What a path below `tile/` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TilePath {
    /// The first `width` hashes of a tile.
    Hashes {
        /// The tile.
        id: TileId,
        /// 1 to 256.
        width: usize,
    },
    /// The first `width` entries of a bundle.
    Entries {
        /// The bundle: it begins with entry `256 * n`.
        n: u64,
        /// 1 to 256.
        width: usize,
    },
}

/// The path is not one of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "want `<level>/<number>` or `entries/<number>`, the number as in `x001/234`, with `.p/<width>` if partial"
)]
pub struct InvalidTilePath;

impl FromStr for TilePath {
    type Err = InvalidTilePath;

    /// Reads what stands behind `tile/`: `0/x001/234`, `entries/000.p/17`.
    fn from_str(path: &str) -> Result<Self, InvalidTilePath> {
        let (kind, rest) = path.split_once('/').ok_or(InvalidTilePath)?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => {
                let width = decimal(width).and_then(|width| usize::try_from(width).ok());
                let width = width.filter(|width| (1..TILE_WIDTH).contains(width));
                (number, width.ok_or(InvalidTilePath)?)
            }
            None => (rest, TILE_WIDTH),
        };
        let n = read_number(number).ok_or(InvalidTilePath)?;
        if kind == "entries" {
            return Ok(Self::Entries { n, width });
        }
        let level = decimal(kind).and_then(|level| u32::try_from(level).ok());
        let level = level.filter(|level| *level < 64).ok_or(InvalidTilePath)?;
        Ok(Self::Hashes { id: TileId { level, n }, width })
    }
}

impl std::fmt::Display for TilePath {
    /// `tile/0/x001/234`, `tile/entries/000.p/17`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, width) = match self {
            Self::Hashes { id, width } => {
                write!(f, "tile/{}/", id.level)?;
                (id.n, width)
            }
            Self::Entries { n, width } => {
                f.write_str("tile/entries/")?;
                (*n, width)
            }
        };
        f.write_str(&number(n))?;
        if *width < TILE_WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
    }
}

/// `x001/x234/067` for 1,234,067.
fn number(n: u64) -> String {
    let mut path = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

/// Reads what [`number`] writes, and nothing else.
fn read_number(path: &str) -> Option<u64> {
    let mut n: u64 = 0;
    for digits in path.split('/') {
        let digits = digits.strip_prefix('x').unwrap_or(digits);
        n = n.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    (number(n) == path).then_some(n)
}

/// A number without leading zeros or a sign.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let n: u64 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

/// The bytes are not an entry bundle, or the entries do not fit into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// More than 256 entries.
    #[error("more than {TILE_WIDTH} entries in one bundle")]
    TooMany,
    /// An entry that is too long for its length prefix.
    #[error("entry {0} of the bundle is longer than 65535 bytes")]
    TooLong(usize),
    /// The bundle ends within an entry.
    #[error("the bundle ends within its entry {0}")]
    Truncated(usize),
}

/// The bundle of `entries`: before each, its length as a big-endian `u16`.
///
/// # Errors
/// When there are more than 256, or one is longer than 65,535 bytes.
pub fn write_bundle<T: AsRef<[u8]>>(entries: &[T]) -> Result<Vec<u8>, BundleError> {
    if entries.len() > TILE_WIDTH {
        return Err(BundleError::TooMany);
    }
    let mut bundle = Vec::with_capacity(entries.iter().map(|e| e.as_ref().len() + 2).sum());
    for (n, entry) in entries.iter().enumerate() {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong(n))?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// The entries of a bundle.
///
/// # Errors
/// When it ends within an entry, or holds more than 256.
pub fn read_bundle(mut bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let n = entries.len();
        if n == TILE_WIDTH {
            return Err(BundleError::TooMany);
        }
        let (length, rest) = bundle.split_first_chunk().ok_or(BundleError::Truncated(n))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(BundleError::Truncated(n))?;
        entries.push(entry);
        bundle = rest;
    }
    Ok(entries)
}

/// How many hashes a tree of `size` leaves has at a tile level.
pub(super) fn count_at(size: u64, level: u32) -> u64 {
    size.checked_shr(TILE_HEIGHT * level).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_that_of_the_specification() {
        let hashes = |level, n, width| TilePath::Hashes { id: TileId { level, n }, width };
        for (path, what) in [
            ("tile/entries/000", TilePath::Entries { n: 0, width: 256 }),
            ("tile/entries/x001/234.p/17", TilePath::Entries { n: 1_234, width: 17 }),
            ("tile/0/x001/x234/067", hashes(0, 1_234_067, 256)),
            ("tile/3/x001/000.p/1", hashes(3, 1_000, 1)),
        ] {
            assert_eq!(what.to_string(), path);
            assert_eq!(path.strip_prefix("tile/").unwrap().parse(), Ok(what));
        }
        for path in [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "0/x000/001",
            "0/x001",
            "0/001/002",
            "64/000",
            "00/000",
            "-1/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "entries/1",
            "0/x018/x446/x744/x073/x709/x551/616",
            "x/000",
            "0/+01",
            "0/000/",
            "0//000",
        ] {
            assert_eq!(path.parse::<TilePath>(), Err(InvalidTilePath), "{path}");
        }
    }

    #[test]
    fn a_tree_has_the_tiles_of_the_specification() {
        // Its own example: 70,000 leaves, and 256.
        let width = |level, n, size| TileId { level, n }.width(size);
        assert_eq!([272, 273, 274].map(|n| width(0, n, 70_000)), [256, 112, 0]);
        assert_eq!([0, 1, 2].map(|n| width(1, n, 70_000)), [256, 17, 0]);
        assert_eq!([0, 1].map(|n| width(2, n, 70_000)), [1, 0]);
        assert_eq!((width(0, 0, 256), width(1, 0, 256), width(2, 0, 256)), (256, 1, 0));
    }

    #[test]
    fn a_bundle_is_length_and_bytes() {
        assert_eq!(write_bundle(&[b"ab".as_slice(), b""]).unwrap(), b"\x00\x02ab\x00\x00");
        assert_eq!(write_bundle(&vec![b""; 257]), Err(BundleError::TooMany));
        assert_eq!(write_bundle(&[vec![0; 65_536]]), Err(BundleError::TooLong(0)));
        assert_eq!(read_bundle(b"\x00\x02ab\x00"), Err(BundleError::Truncated(1)));
        assert_eq!(read_bundle(b"\x00\x02a"), Err(BundleError::Truncated(0)));
        assert_eq!(read_bundle(&[0; 514]), Err(BundleError::TooMany));
    }

    proptest! {
        #[test]
        fn the_oracle_reads_the_same_path(level in 0u8..6, index in 0u64..1 << 50, partial in 1usize..=256) {
            let path = TilePath::Hashes { id: TileId { level: level.into(), n: index }, width: partial };
            let tile = tlog_tiles::Tile::from_path(&path.to_string().replacen('/', "/8/", 1)).unwrap();
            prop_assert_eq!(tile.level(), level);
            prop_assert_eq!(tile.level_index(), index);
            prop_assert_eq!(tile.width() as usize, partial);
        }

        #[test]
        fn a_bundle_reads_as_it_was_written(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..=256),
        ) {
            let bundle = write_bundle(&entries).unwrap();
            prop_assert_eq!(read_bundle(&bundle).unwrap(), entries);
        }
    }
}
