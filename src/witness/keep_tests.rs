//! What a witness cosigns, and what it does not.

use ring::rand::SystemRandom;

use super::*;
use crate::{
    domain::Digest,
    ledger::{Edge, Plan, Signer, Tiles, hash_text, leaf_of},
};

struct Log {
    signer: Signer,
    leaves: Vec<Digest>,
}

impl Log {
    fn new() -> Self {
        let key = SigningKey::generate(&SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&key).unwrap();
        let leaves = (0..200_u8).map(|n| leaf_of(&[n])).collect();
        Self { signer: Signer::new("log.example".parse().unwrap(), vec![key]), leaves }
    }

    fn root(&self, size: usize) -> Digest {
        let mut edge = Edge::default();
        edge.extend(self.leaves[..size].iter().copied());
        edge.root()
    }

    fn request(&self, old: usize, new: usize) -> String {
        let mut edge = Edge::default();
        edge.extend(self.leaves[..new].iter().copied());
        let tiles: Tiles = edge.partial().into_iter().map(|tile| (tile.id, tile.hashes)).collect();
        let proof = Plan::consistency(old as u64, new as u64).unwrap().make(&tiles).unwrap();
        let lines: String = proof.iter().map(|hash| hash_text(hash) + "\n").collect();
        let note = self.signer.checkpoint(new as u64, self.root(new));
        format!("old {old}\n{lines}\n{note}")
    }
}

fn witness(log: &Log, dir: &Path) -> Witness {
    let key = SigningKey::generate(&SystemRandom::new()).unwrap();
    let key = SigningKey::from_pkcs8(&key).unwrap();
    Witness::new(key, "witness.example/w1", log.signer.verifiers().to_vec(), dir).unwrap()
}

/// A folder that removes itself.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("lexgate-witness-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_log_that_grows_is_cosigned() {
    let (log, dir) = (Log::new(), Folder::new("grows"));
    let witness = witness(&log, &dir.0);
    for (old, new) in [(0, 3), (3, 3), (3, 10), (10, 190)] {
        let request = log.request(old, new);
        let line = witness.add_checkpoint(&request, 1_679_315_147).unwrap();
        let note = log.signer.checkpoint(new as u64, log.root(new)).to_string() + &line;
        let note = Note::parse(&note).unwrap();
        let keys = [log.signer.verifiers()[0].clone(), witness.verifier().clone()];
        assert_eq!(note.verify(&keys).unwrap().len(), 2, "{old} to {new}");
    }
}

#[test]
fn a_witness_does_not_forget() {
    let (log, dir) = (Log::new(), Folder::new("forget"));
    let first = witness(&log, &dir.0);
    first.add_checkpoint(&log.request(0, 10), 1).unwrap();
    // Another process on the same folder, as after a restart.
    let second = witness(&log, &dir.0);
    for (old, new) in [(0, 20), (7, 20), (0, 7)] {
        let refused = second.add_checkpoint(&log.request(old, new), 1);
        assert!(matches!(refused, Err(Refusal::OtherSize(10))), "{old} to {new}: {refused:?}");
    }
    let mut other = Log::new();
    other.signer = log.signer;
    other.leaves[3] = leaf_of(b"rewritten");
    let forked = second.add_checkpoint(&other.request(10, 10), 1);
    assert!(matches!(forked, Err(Refusal::Forked(10))), "{forked:?}");
    let forked = second.add_checkpoint(&other.request(10, 20), 1);
    assert!(matches!(forked, Err(Refusal::Inconsistent(10))), "{forked:?}");
    // What it kept and cannot read is no clean slate.
    for entry in fs::read_dir(&dir.0).unwrap() {
        fs::write(entry.unwrap().path(), "nonsense").unwrap();
    }
    let refused = second.add_checkpoint(&other.request(0, 20), 1);
    assert!(matches!(refused, Err(Refusal::Storage(_))), "{refused:?}");
}

#[test]
fn strangers_and_nonsense_are_refused() {
    let (log, stranger, dir) = (Log::new(), Log::new(), Folder::new("strangers"));
    let witness = witness(&log, &dir.0);
    let answer = |request: &str| witness.add_checkpoint(request, 1);
    assert!(matches!(answer(&stranger.request(0, 3)), Err(Refusal::Unsigned)));
    let elsewhere = log.request(0, 3).replace("log.example", "other.example");
    assert!(matches!(answer(&elsewhere), Err(Refusal::UnknownLog)));
    for (from, to) in [
        ("old 0", "old 00"),
        ("old 0", "old -1"),
        ("old 0", "new 0"),
        ("old 0\n", "old 0\nnot a hash\n"),
        ("old 0", "old 4"),
        ("\n\n", "\n"),
    ] {
        let request = log.request(0, 3).replacen(from, to, 1);
        assert!(matches!(answer(&request), Err(Refusal::Malformed(_))), "{to:?}");
    }
    let many = format!("old 0\n{}", format!("{}\n", hash_text(&log.root(1))).repeat(64));
    let endless = log.request(0, 3).replacen("old 0\n", &many, 1);
    assert!(matches!(answer(&endless), Err(Refusal::Malformed(_))));
    let proven = format!("old 0\n{}\n", hash_text(&log.root(1)));
    let proven = log.request(0, 3).replacen("old 0\n", &proven, 1);
    assert!(matches!(answer(&proven), Err(Refusal::Inconsistent(0))), "from nothing, no proof");
    answer(&log.request(0, 3)).unwrap();
}
