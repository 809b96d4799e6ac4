//! The test vectors of `docs/ledger-vectors.json`: made by the code, so that a verifier that somebody
//! else writes can be held against it.

use serde_json::{Value, json};

use super::*;
use crate::domain::Digest;

/// The seed of the vectors' key: 32 bytes, 0 to 31 (RFC 8410's form around them).
fn key() -> SigningKey {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(0..32_u8);
    SigningKey::from_pkcs8(&der).unwrap()
}

fn hex(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(Digest::hex).collect()
}

fn vectors() -> Value {
    let origin: Origin = "vectors.example/log".parse().unwrap();
    let signer = Signer::new(origin.clone(), vec![key()]);
    let witness = key().verifier("witness.example/w", SignatureType::Cosignature).unwrap();
    let (mut prev, mut edge, mut tiles) =
        (Digest::from_bytes([0; 32]), Edge::default(), Tiles::new());
    let (mut leaves, mut entries, mut roots) = (Vec::new(), Vec::new(), vec![edge.root().hex()]);
    for n in 0..600_u64 {
        let kind = Kind::parse(if n == 0 { "genesis" } else { "vector" }).unwrap();
        let ts =
            jiff::Timestamp::from_microsecond(1_795_348_800_000_000 + i64::try_from(n).unwrap());
        let envelope = Envelope {
            id: uuid::Uuid::from_u128(u128::from(n)),
            kind: &kind,
            log: &origin,
            prev,
            seq: crate::domain::Seq::new(n),
            ts: ts.unwrap(),
        };
        let body = canonical::to_vec(&json!({ "n": n, "text": "é\u{1f600}\n" })).unwrap();
        let (entry, leaf) = seal(&envelope, &body);
        prev = leaf;
        leaves.push(leaf);
        tiles.extend(edge.extend([leaf]).into_iter().map(|tile| (tile.id, tile.hashes)));
        if n < 8 {
            entries.push(String::from_utf8(entry).unwrap());
            roots.push(edge.root().hex());
        }
    }
    tiles.insert(TileId { level: 0, n: 2 }, leaves[512..].to_vec());
    let root_at = |size| Plan::root(size).make(&tiles).unwrap()[0];
    let inclusion = [(0, 1), (0, 8), (5, 7), (255, 600), (256, 600), (599, 600)].map(|(index, size)| {
        let hashes = Plan::inclusion(index, size).unwrap().make(&tiles).unwrap();
        let leaf = leaves[usize::try_from(index).unwrap()].hex();
        json!({ "index": index, "size": size, "leaf": leaf, "root": root_at(size).hex(), "hashes": hex(&hashes) })
    });
    let consistency = [(1, 2), (4, 8), (6, 8), (256, 600), (300, 600)].map(|(old, new)| {
        let hashes = Plan::consistency(old, new).unwrap().make(&tiles).unwrap();
        let (was, is) = (root_at(old).hex(), root_at(new).hex());
        json!({ "from": old, "to": new, "from_root": was, "to_root": is, "hashes": hex(&hashes) })
    });
    let mut checkpoint = signer.checkpoint(600, root_at(600));
    let hashes = Plan::inclusion(256, 600).unwrap().make(&tiles).unwrap();
    let proof = TlogProof { index: 256, hashes, checkpoint: checkpoint.clone() }.to_string();
    let note = checkpoint.to_string();
    checkpoint.signatures.push(key().cosign(&witness, checkpoint.text(), 1_795_348_800));
    let paths = [(0, 0, 600), (0, 2, 600), (1, 0, 600), (0, 1_234_067, 400_000_000)];
    let paths = paths.map(|(level, n, size)| {
        let id = TileId { level, n };
        let path = TilePath::Hashes { id, width: id.width(size) }.to_string();
        json!({ "level": level, "n": n, "size": size, "path": path })
    });
    let fresh = Note::unsigned(endorsement(&origin, &signer.verifiers()[0]));
    json!({
        "about": "Made by src/ledger/vectors_tests.rs; the private key is the 32 bytes 00 01 … 1f.",
        "vkey": signer.verifiers()[0].to_string(),
        "entries": entries,
        "leaves": hex(&leaves[..8]),
        "roots": roots,
        "tile_paths": paths,
        "tile_1_0": hex(&tiles[&TileId { level: 1, n: 0 }]),
        "inclusion": inclusion,
        "consistency": consistency,
        "checkpoint": note,
        "witness": witness.to_string(),
        "cosigned": checkpoint.to_string(),
        "tlog_proof": proof,
        "key_change_text": fresh.text(),
    })
}

#[test]
fn the_vectors_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ledger-vectors.json");
    let made = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("LEXGATE_WRITE_VECTORS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "write them anew: LEXGATE_WRITE_VECTORS=1 cargo test --lib vectors");
}
