//! Tiles: whatever reads as the path of one, as its hashes or as a bundle of entries is written as
//! the same bytes.
#![no_main]

use lexgate::ledger::{Tile, TileId, TilePath, read_bundle, read_tile, write_bundle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(path) = text.parse::<TilePath>()
    {
        assert_eq!(path.to_string(), format!("tile/{text}"));
    }
    if let Some(hashes) = read_tile(bytes) {
        assert_eq!(Tile { id: TileId { level: 0, n: 0 }, hashes }.bytes(), bytes);
    }
    if let Ok(entries) = read_bundle(bytes) {
        assert_eq!(write_bundle(&entries), Ok(bytes.to_vec()));
    }
});
