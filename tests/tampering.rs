//! What the verifier says of exports that somebody has tampered with. Not what a service does: the logs
//! here are made in memory, without one.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use jiff::Timestamp;
use lexgate::{
    config,
    domain::{CallRequest, Caller, Digest, Retention, Revision, Seq},
    facts::{Proposal, Snapshot},
    gate::{Decided, How, Judge},
    ledger::{
        ActivationBody, AuditReadBody, DecisionBody, DecisionRef, Edge, Engine, Envelope,
        GenesisBody, Kind, Origin, OutcomeBody, OutcomeStatus, Signer, SigningKey, TILE_WIDTH,
        TileId, TilePath, TokenCount, canonical, leaf_of, seal, write_bundle,
    },
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Ran, TempDir};

/// How many entries the log has: two full bundles and part of a third, so tiles on two levels.
const SIZE: usize = 700;
/// How many of them are in full bundles.
const FULL: usize = SIZE / TILE_WIDTH * TILE_WIDTH;
/// How many entries the log had when somebody kept its checkpoint.
const EARLIER: usize = 300;

const CHECKPOINT: &str = "checkpoint";

/// Files by their names below a folder.
type Files = BTreeMap<String, Vec<u8>>;

/// What a log is made of.
struct Parts {
    origin: Origin,
    signer: Signer,
    genesis: Vec<u8>,
    activation: Vec<u8>,
    reading: Vec<u8>,
    decisions: Vec<Arc<Decided>>,
    contents: Files,
}

impl Parts {
    fn new() -> Self {
        let policies = config::read_policies(Path::new("policies")).unwrap();
        let organisation = config::read_file(Path::new("config/organisation.toml")).unwrap();
        let proposal = Proposal::load(&policies, organisation).unwrap();
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let snapshot = Arc::new(Snapshot::at(&proposal, now, Revision(1)).unwrap());
        let origin: Origin = "lexgate.example/main".parse().unwrap();
        let key = SigningKey::generate(&SystemRandom::new()).unwrap();
        let signer = Signer::new(origin.clone(), vec![SigningKey::from_pkcs8(&key).unwrap()]);
        let genesis = GenesisBody {
            origin: origin.to_string(),
            public_key: signer.verifiers()[0].to_string(),
            software: Engine { name: "lexgate".into(), version: "0".into() },
        };
        let activation =
            ActivationBody { cause: "start".into(), snapshot: snapshot.digests, store: None };
        let reading = AuditReadBody {
            key: "auditor".into(),
            operation: "listRecords".into(),
            query: BTreeMap::new(),
            retention: Retention { class: "general".to_owned(), months: Some(6) },
        };
        let contents = snapshot
            .contents()
            .iter()
            .map(|content| (format!("contents/{}", content.digest.hex()), content.bytes.clone()));
        Self {
            genesis: canonical::to_vec(&genesis).unwrap(),
            activation: canonical::to_vec(&activation).unwrap(),
            reading: canonical::to_vec(&reading).unwrap(),
            decisions: decisions(&snapshot),
            contents: contents.collect(),
            origin,
            signer,
        }
    }

    /// Every entry. Another identifier of the one at `altered` makes another history from there on.
    fn entries(&self, altered: Option<usize>) -> Vec<Vec<u8>> {
        let (mut entries, mut leaves) = (Vec::new(), Vec::<Digest>::new());
        for n in 0..SIZE {
            let (kind, body) = self.record(n, &leaves);
            let id = (n as u128) | (u128::from(altered == Some(n)) << 64);
            let micros = 1_795_348_800_000_000 + i64::try_from(n).unwrap();
            let envelope = Envelope {
                id: Uuid::from_u128(id),
                kind: &kind,
                log: &self.origin,
                prev: leaves.last().copied().unwrap_or(Digest::from_bytes([0; 32])),
                seq: Seq::new(n as u64),
                ts: Timestamp::from_microsecond(micros).unwrap(),
            };
            let (entry, leaf) = seal(&envelope, &body);
            entries.push(entry);
            leaves.push(leaf);
        }
        entries
    }

    /// By turns a decision, a reading, the decision's outcome if it has one, and a reading.
    fn record(&self, n: usize, leaves: &[Digest]) -> (Kind, Vec<u8>) {
        let decision = |n: usize| &self.decisions[n / 4 % self.decisions.len()];
        match (n, n % 4) {
            (0, _) => (Kind::Genesis, self.genesis.clone()),
            (1, _) => (Kind::BundleActivated, self.activation.clone()),
            (_, 2) => (Kind::Decision, decision(n).json.to_vec()),
            (_, 0) if decision(n - 2).body.dispatch => {
                (Kind::Outcome, outcome(&decision(n - 2).body, n - 2, leaves[n - 2]))
            }
            _ => (Kind::AuditRead, self.reading.clone()),
        }
    }

    /// The export of a log with these entries.
    fn export(&self, entries: &[Vec<u8>]) -> Files {
        let mut files = self.contents.clone();
        let mut edge = Edge::default();
        let tiles = edge.extend(entries.iter().map(|entry| leaf_of(entry)));
        for tile in tiles.into_iter().chain(edge.partial()) {
            let path = TilePath::Hashes { id: tile.id, width: tile.hashes.len() };
            files.insert(path.to_string(), tile.bytes());
        }
        for (n, part) in entries.chunks(TILE_WIDTH).enumerate() {
            files.insert(bundle(n, entries.len()), write_bundle(part).unwrap());
        }
        let note = self.signer.checkpoint(edge.size(), edge.root());
        files.insert(CHECKPOINT.to_owned(), note.to_string().into_bytes());
        files
    }
}

/// Decisions of the shipped policies.
fn decisions(snapshot: &Arc<Snapshot>) -> Vec<Arc<Decided>> {
    let judge = Judge::new(snapshot.clone());
    let caller = Caller {
        app: "support-copilot".into(),
        authenticated: "api_key".to_owned(),
        key: "support-copilot".into(),
        tenant: "acme".into(),
    };
    let people = |category: &str, subject: &str| json!({ "personal": true, "categories": [category], "subjects": [subject] });
    let decide = |data: Value| {
        let call = json!({ "action": "infer", "model": "assistant", "data": data });
        let call: CallRequest = serde_json::from_value(call).unwrap();
        judge.decide(&caller, &call, &How { dispatch: true, ..How::default() }).unwrap()
    };
    vec![
        decide(json!({ "personal": false })),
        decide(people("dpv-pd:Contact", "DE")),
        decide(people("dpv-pd:Health", "SA")),
    ]
}

/// The outcome of the decision at `seq`.
fn outcome(decision: &DecisionBody, seq: usize, leaf: Digest) -> Vec<u8> {
    let body = OutcomeBody {
        attempts: Vec::new(),
        cost: None,
        decision: DecisionRef { leaf, seq: Seq::new(seq as u64) },
        input_commitment: None,
        model: None,
        output_commitment: None,
        reported: None,
        retention: decision.retention.clone(),
        skipped: Vec::new(),
        status: OutcomeStatus::Unknown,
        tokens: TokenCount::default(),
    };
    canonical::to_vec(&body).unwrap()
}

/// Where bundle `n` of a log of `size` entries lies.
fn bundle(n: usize, size: usize) -> String {
    let n = n as u64;
    TilePath::Entries { n, width: TileId { level: 0, n }.width(size as u64) }.to_string()
}

/// What somebody does to an export.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Turns one bit of a file round.
    Flip { file: Index, bit: Index },
    /// Turns one bit of an entry's length round.
    Length { entry: usize, bit: usize },
    /// Two entries change places.
    Swap(usize, usize),
    /// One stands in the log twice.
    Insert { copy: usize, at: usize },
    /// One is left out.
    Delete(usize),
    /// One is empty.
    Empty(usize),
    /// Only so many entries are there, and their tiles; the checkpoint stays.
    Truncate(usize),
    /// The checkpoint is the one of so many entries; perhaps with the files that only they had.
    Replay { size: usize, narrower: bool },
    /// The export is the one of so many entries, whole; a newer checkpoint was kept.
    Cut(usize),
    /// Chain and tree are made anew from an entry on; signed by the log's own key, only a checkpoint
    /// that was kept shows it.
    Rewrite { entry: usize, signed: bool },
}

fn change() -> impl Strategy<Value = Change> {
    let entry = 0..SIZE;
    // Bundles end at some of these.
    let edges = prop::sample::select(vec![255_usize, 256, 257, 511, 512, 513]);
    let size = prop_oneof![1..SIZE, edges].boxed();
    prop_oneof![
        6 => (any::<Index>(), any::<Index>()).prop_map(|(file, bit)| Change::Flip { file, bit }),
        1 => (entry.clone(), 0..16_usize).prop_map(|(entry, bit)| Change::Length { entry, bit }),
        1 => (entry.clone(), 1..SIZE).prop_map(|(one, by)| Change::Swap(one, (one + by) % SIZE)),
        1 => (entry.clone(), 0..=SIZE).prop_map(|(copy, at)| Change::Insert { copy, at }),
        1 => entry.clone().prop_map(Change::Delete),
        1 => entry.clone().prop_map(Change::Empty),
        1 => size.clone().prop_map(Change::Truncate),
        1 => (size.clone(), any::<bool>())
            .prop_map(|(size, narrower)| Change::Replay { size, narrower }),
        1 => size.prop_map(Change::Cut),
        1 => (entry, any::<bool>()).prop_map(|(entry, signed)| Change::Rewrite { entry, signed }),
    ]
}

/// An export that must not hold.
struct Tampered {
    files: Files,
    /// A checkpoint that was kept elsewhere. Without it, the export holds.
    kept: Option<Vec<u8>>,
    /// What the fault must say, with the line's end: one of these.
    places: Vec<String>,
}

impl Tampered {
    fn new(files: Files, places: Vec<String>) -> Self {
        Self { files, kept: None, places }
    }
}

/// A log and its export.
struct Log {
    parts: Parts,
    entries: Vec<Vec<u8>>,
    whole: Files,
    dir: TempDir,
}

impl Log {
    fn new() -> Self {
        let (parts, dir) = (Parts::new(), TempDir::new());
        let entries = parts.entries(None);
        let whole = parts.export(&entries);
        for (name, bytes) in &whole {
            write(&dir.path().join(name), bytes);
        }
        Self { parts, entries, whole, dir }
    }

    /// The checkpoint at the time when there were `size` entries.
    fn checkpoint(&self, size: usize) -> Vec<u8> {
        self.parts.export(&self.entries[..size]).remove(CHECKPOINT).unwrap()
    }

    /// Verifies an export. Files that are as they were are links to those.
    fn verify(&self, files: &Files, kept: Option<&[u8]>) -> Ran {
        let dir = TempDir::new();
        for (name, bytes) in files {
            let path = dir.path().join("export").join(name);
            if self.whole.get(name) == Some(bytes) {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::hard_link(self.dir.path().join(name), path).unwrap();
            } else {
                write(&path, bytes);
            }
        }
        let key = self.parts.signer.verifiers()[0].to_string();
        let mut arguments = vec!["verify", "export", "--key", &key, "--json"];
        if let Some(kept) = kept {
            write(&dir.path().join("kept"), kept);
            arguments.extend(["--since", "kept"]);
        }
        Ran::in_dir(dir.path(), &arguments)
    }

    fn tamper(&self, change: Change) -> Tampered {
        match change {
            Change::Flip { file, bit } => {
                let file = self.whole.iter().nth(file.index(self.whole.len()));
                let (name, bytes) = file.unwrap();
                self.flipped(name, bit.index(8 * bytes.len()))
            }
            Change::Length { entry, bit } => {
                let n = entry / TILE_WIDTH;
                let before = self.entries[n * TILE_WIDTH..entry].iter();
                let at: usize = before.map(|entry| 2 + entry.len()).sum();
                self.flipped(&bundle(n, SIZE), 8 * at + bit)
            }
            Change::Swap(one, other) => self.reordered(|order| order.swap(one, other)),
            Change::Insert { copy, at } => self.reordered(|order| order.insert(at, copy)),
            Change::Delete(entry) => self.reordered(|order| {
                order.remove(entry);
            }),
            Change::Empty(entry) => self.emptied(entry),
            Change::Truncate(there) => {
                let mut files = self.parts.export(&self.entries[..there]);
                files.insert(CHECKPOINT.to_owned(), self.whole[CHECKPOINT].clone());
                Tampered::new(files, gap(there, SIZE))
            }
            Change::Replay { size, narrower } => {
                let (mut files, old) =
                    (self.whole.clone(), self.parts.export(&self.entries[..size]));
                files.extend(old.into_iter().filter(|(name, _)| narrower || name == CHECKPOINT));
                let beyond = vec![beyond(size)];
                Tampered::new(files, if narrower { beyond } else { gap(SIZE, size) })
            }
            Change::Cut(size) => Tampered {
                files: self.parts.export(&self.entries[..size]),
                kept: Some(self.whole[CHECKPOINT].clone()),
                places: vec![format!(
                    "the log has {size} entries; a checkpoint that was kept says {SIZE}: entries are missing\n"
                )],
            },
            Change::Rewrite { entry, signed } => self.rewritten(entry, signed),
        }
    }

    /// There is no bit of which it may go unsaid that it was turned round: every file is hashed, or
    /// signed, or (the line of the one signature) strict base64 of the right name and length.
    fn flipped(&self, name: &str, bit: usize) -> Tampered {
        let (mut files, at) = (self.whole.clone(), bit / 8);
        let bytes = files.get_mut(name).unwrap();
        bytes[at] ^= 1 << (bit % 8);
        let places = match name.strip_prefix("tile/").map(str::parse::<TilePath>) {
            Some(Ok(TilePath::Entries { n, .. })) => {
                let first = usize::try_from(n).unwrap() * TILE_WIDTH;
                let (entry, is_length) = self.entry_at(first, at);
                let mut places = vec![format!("entry {entry}: ")];
                // With another length, what is an entry and what is not is anybody's guess.
                places.extend(is_length.then(|| format!("`{name}`")));
                places
            }
            Some(Ok(TilePath::Hashes { id, .. })) => hash_places(name, id, at / 32),
            _ if name == CHECKPOINT => checkpoint_places(bytes),
            _ => {
                let digest = name.trim_start_matches("contents/");
                vec![format!("entry 1: the content of sha256:{digest} has been changed\n")]
            }
        };
        Tampered::new(files, places)
    }

    /// The entry to which byte `at` belongs of the bundle that begins with entry `first`, and whether
    /// the byte is one of its length's.
    fn entry_at(&self, first: usize, at: usize) -> (usize, bool) {
        let (mut entry, mut start) = (first, 0);
        while at >= start + 2 + self.entries[entry].len() {
            start += 2 + self.entries[entry].len();
            entry += 1;
        }
        (entry, at < start + 2)
    }

    /// The entries in another order, in bundles of the same names: the last has one more or less.
    fn reordered(&self, change: impl FnOnce(&mut Vec<usize>)) -> Tampered {
        let mut order: Vec<usize> = (0..SIZE).collect();
        change(&mut order);
        let mut files = self.whole.clone();
        let bundles = order[..FULL].chunks(TILE_WIDTH).chain([&order[FULL..]]);
        for (n, entries) in bundles.enumerate() {
            let entries: Vec<_> = entries.iter().map(|entry| &self.entries[*entry]).collect();
            files.insert(bundle(n, SIZE), write_bundle(&entries).unwrap());
        }
        let wrong = order.iter().enumerate().position(|(at, entry)| at != *entry);
        let at = wrong.unwrap_or(order.len());
        let place = if at < FULL || order.len() == SIZE {
            format!("entry {at}: says that it is entry {}: ", order[at])
        } else {
            let (last, there) = (bundle(FULL / TILE_WIDTH, SIZE), order.len() - FULL);
            format!("`{last}` holds {there} entries instead of {}\n", SIZE - FULL)
        };
        Tampered::new(files, vec![place])
    }

    fn emptied(&self, entry: usize) -> Tampered {
        let (mut files, n) = (self.whole.clone(), entry / TILE_WIDTH);
        let mut entries = self.entries.chunks(TILE_WIDTH).nth(n).unwrap().to_vec();
        entries[entry % TILE_WIDTH].clear();
        files.insert(bundle(n, SIZE), write_bundle(&entries).unwrap());
        let mut places = vec![format!("entry {entry}: ")];
        if entry == 1 {
            // Without its activation, the first decision is what shows it.
            places.push("entry 2: decided under revision 1, ".to_owned());
        }
        Tampered::new(files, places)
    }

    fn rewritten(&self, entry: usize, signed: bool) -> Tampered {
        let mut files = self.parts.export(&self.parts.entries(Some(entry)));
        if !signed {
            files.insert(CHECKPOINT.to_owned(), self.whole[CHECKPOINT].clone());
            let place = format!("the {SIZE} entries make another tree than the checkpoint says");
            return Tampered::new(files, vec![place]);
        }
        let kept = EARLIER.max(entry + 1);
        let place =
            format!("the first {kept} entries are not those of the checkpoint that was kept");
        Tampered { files, kept: Some(self.checkpoint(kept)), places: vec![place] }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// What is said of an export of `there` entries whose checkpoint says `said`.
fn gap(there: usize, said: usize) -> Vec<String> {
    let mut bundles = 0..said.div_ceil(TILE_WIDTH);
    if let Some(n) = bundles.find(|n| bundle(*n, said) != bundle(*n, there)) {
        let (first, path) = (n * TILE_WIDTH, bundle(n, said));
        return vec![format!(
            "entry {first} and those after it are missing: there is no `{path}`, which a checkpoint of {said} entries needs\n"
        )];
    }
    // Only full bundles, and all of them there.
    let width = said / TILE_WIDTH;
    vec![beyond(said), format!("the tile `tile/1/000.p/{width}` is missing\n")]
}

fn beyond(size: usize) -> String {
    format!("there are entries beyond the {size} of the checkpoint")
}

/// What is said of another hash in a tile. Of the last one in a bundle it cannot be told at once
/// whether it is the hash or the entry that was changed.
fn hash_places(name: &str, id: TileId, at: usize) -> Vec<String> {
    if id.level > 0 {
        let what = format!("its hash {at} is not that of the entries");
        return vec![format!("the tile `{name}` was changed: {what}\n")];
    }
    let entry = id.n * TILE_WIDTH as u64 + at as u64;
    vec![
        format!("the tile `{name}` was changed: it holds another hash for entry {entry}\n"),
        format!("entry {entry}: was changed: its hash is not the one in the tile `{name}`\n"),
    ]
}

/// What is said of a changed checkpoint. With another size, it is files that seem to be missing.
fn checkpoint_places(note: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(note);
    match text.lines().nth(1).map(str::parse::<usize>) {
        Some(Ok(size)) if size != SIZE => gap(SIZE, size),
        _ => vec![CHECKPOINT.to_owned()],
    }
}

#[test]
fn whatever_is_done_to_an_export_is_found_and_named() {
    let log = Log::new();
    let report = log.verify(&log.whole, Some(&log.checkpoint(EARLIER))).json();
    assert_eq!((&report["entries"], &report["since"]), (&json!(SIZE), &json!([EARLIER])));
    assert!(report["kinds"]["outcome"].as_u64() > Some(50), "{report}");
    let config =
        ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    let found = TestRunner::new(config).run(&change(), |change| {
        let Tampered { files, kept, places } = log.tamper(change);
        let ran = log.verify(&files, kept.as_deref());
        prop_assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
        prop_assert_eq!(&answer["holds"], &json!(false));
        let fault = format!("{}\n", answer["fault"].as_str().unwrap());
        prop_assert!(places.iter().any(|place| fault.contains(place)), "{fault}{places:#?}");
        if kept.is_some() {
            let alone = log.verify(&files, None);
            prop_assert_eq!(alone.code, Some(0), "{}", alone.stdout);
        }
        Ok(())
    });
    found.unwrap_or_else(|error| panic!("{error}"));
}
