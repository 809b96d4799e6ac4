//! Loads for `scripts/bench ledger`: what the ledger's writer, its proofs and its verifier are measured
//! with. Records are real decisions of the shipped policies. Not a way to fill a log that anybody uses.
//!
//!   append URL SECONDS      the sequencer beside binary COPY of the same rows, in batches
//!   export DIR ENTRIES [fresh]  an export of so many entries; prints its verifier key. A thousand calls
//!                           come again and again; with `fresh`, no two records have the same body
//!   hash DIR                the entries of an export through SHA-256 alone, on one core and on all
//!   prove URL ENTRIES       inclusion proofs out of a tree of so many leaves

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a load ends where its input is wrong, prints, and rounds"
)]

use std::{
    env, fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lexgate::{
    config,
    domain::{CallRequest, Caller, DecisionId, Digest, Revision, Seq, SystemClock},
    facts::{Proposal, Snapshot},
    gate::{How, Judge},
    ledger::{
        ActivationBody, Edge, Engine, Envelope, GenesisBody, Kind, Origin, Plan, Signer,
        SigningKey, TILE_WIDTH, Tile, TileId, TilePath, canonical, leaf_of, read_bundle,
        root_of_inclusion, seal, write_bundle,
    },
    sequencer::{Draft, Mark, Sequencer, SequencerSettings},
    store,
};
use ring::rand::{SecureRandom, SystemRandom};
use sqlx::{Connection, Executor, PgConnection, Row as _};
use tokio_util::task::TaskTracker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The sizes of batches.
const BATCHES: [usize; 3] = [64, 256, 1024];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["append", url, seconds] => {
            let seconds = Duration::from_secs(seconds.parse().unwrap());
            runtime.block_on(append(url, seconds));
        }
        ["export", dir, entries] => export(Path::new(dir), entries.parse().unwrap(), false),
        ["export", dir, entries, "fresh"] => {
            export(Path::new(dir), entries.parse().unwrap(), true);
        }
        ["hash", dir] => hash(Path::new(dir)),
        ["prove", url, entries] => runtime.block_on(prove(url, entries.parse().unwrap())),
        _ => println!(
            "append URL SECONDS | export DIR ENTRIES [fresh] | hash DIR | prove URL ENTRIES"
        ),
    }
}

fn origin() -> Origin {
    "bench.example/load".parse().unwrap()
}

fn signer() -> Signer {
    let key = SigningKey::generate(&SystemRandom::new()).unwrap();
    Signer::new(origin(), vec![SigningKey::from_pkcs8(&key).unwrap()])
}

fn genesis(signer: &Signer) -> GenesisBody {
    GenesisBody {
        origin: origin().to_string(),
        public_key: signer.verifiers()[0].to_string(),
        software: Engine { name: "load".into(), version: "0".into() },
    }
}

/// Decisions of the shipped policies: bodies and the words by which they are found.
fn decisions(snapshot: &Arc<Snapshot>) -> Vec<(Bytes, Arc<[String]>)> {
    let judge = Judge::new(snapshot.clone());
    let caller = Caller {
        app: "support-copilot".into(),
        authenticated: "api_key".to_owned(),
        key: "support-copilot".into(),
        tenant: "meridian".into(),
    };
    let mut decisions = Vec::new();
    for category in ["dpv-pd:Health", "dpv-pd:Contact"] {
        for subject in ["DE", "SA", "IN", "FR", "SG"] {
            for model in ["assistant", "mistral-small"] {
                for count in 1..=50 {
                    let call = serde_json::json!({
                        "action": "infer", "model": model, "purpose": "dpv:ServiceProvision",
                        "data": {
                            "personal": true, "categories": [category],
                            "subjects": [subject], "subject_count": count,
                        },
                    });
                    let call: CallRequest = serde_json::from_value(call).unwrap();
                    let decided = judge.decide(&caller, &call, &How::default()).unwrap();
                    decisions.push((decided.json.clone(), decided.terms.clone()));
                }
            }
        }
    }
    decisions
}

fn snapshot() -> Arc<Snapshot> {
    let policies = config::read_policies(Path::new("policies")).unwrap();
    let organisation = config::read_file(Path::new("config/organisation.toml")).unwrap();
    let proposal = Proposal::load(&policies, organisation).unwrap();
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    Arc::new(Snapshot::at(&proposal, now, Revision(1)).unwrap())
}

fn fresh_id() -> uuid::Uuid {
    use lexgate::domain::Clock;
    let mut random = [0; 10];
    SystemRandom::new().fill(&mut random).unwrap();
    DecisionId::at(SystemClock.now(), random).uuid()
}

/// The sequencer, then bare COPY of rows of the same columns, indexes and storage with a one-row update,
/// one after the other for each size of batch.
async fn append(url: &str, seconds: Duration) {
    let decisions = decisions(&snapshot());
    let store = store::open(url).await.unwrap();
    store.migrate().await.unwrap();
    let mut bare = PgConnection::connect(url).await.unwrap();
    bare.execute("CREATE TABLE bare (LIKE entries INCLUDING ALL) WITH (toast_tuple_target = 8160)")
        .await
        .unwrap();
    bare.execute("CREATE TABLE bare_head AS SELECT 0::bigint AS next").await.unwrap();
    let mut next = 0;
    for size in BATCHES {
        let written = sequenced(&store, &decisions, size, seconds).await;
        bare.execute("CHECKPOINT").await.unwrap();
        let copied = copied(&mut bare, &decisions, (size, seconds), &mut next).await;
        bare.execute("CHECKPOINT").await.unwrap();
        println!("{size} {written:.0} {copied:.0} {:.2}", written / copied);
    }
}

/// Rows a second through the sequencer, in batches of `size`.
async fn sequenced(
    store: &Arc<dyn store::Store>,
    decisions: &[(Bytes, Arc<[String]>)],
    size: usize,
    seconds: Duration,
) -> f64 {
    let signer = Arc::new(signer());
    let settings = SequencerSettings {
        origin: origin(),
        process: fresh_id(),
        queue: 4 * size,
        reserved: 4096,
        max_batch: size,
        genesis: genesis(&signer),
        signer,
    };
    let tracker = TaskTracker::new();
    let sequencer =
        Sequencer::start(store.clone(), settings, Mark::unkept(), Arc::new(SystemClock), &tracker);
    let sequencer = sequencer.unwrap();
    let batch = |at: usize| {
        let drafts = (0..size).map(|n| {
            let (body, terms) = &decisions[(at + n) % decisions.len()];
            Draft { terms: terms.clone(), ..Draft::new(fresh_id(), Kind::Decision, body.clone()) }
        });
        drafts.collect::<Vec<_>>()
    };
    for _ in 0..3 {
        sequencer.submit_all(batch(0)).await.unwrap(); // opens the log, warms the statement
    }
    let began = Instant::now();
    // Two at once: the next batch waits while one is committed, as it does under load.
    let work = async || {
        let mut rows = 0;
        while began.elapsed() < seconds {
            for receipt in sequencer.submit_all(batch(rows)).await.unwrap() {
                receipt.unwrap();
            }
            rows += size;
        }
        rows
    };
    let (one, other) = futures_util::future::join(work(), work()).await;
    let rate = f64::from(u32::try_from(one + other).unwrap()) / began.elapsed().as_secs_f64();
    sequencer.close();
    rate
}

/// Rows a second by binary COPY in one session: BEGIN, COPY, UPDATE of one row, COMMIT.
async fn copied(
    connection: &mut PgConnection,
    decisions: &[(Bytes, Arc<[String]>)],
    (size, seconds): (usize, Duration),
    next: &mut u64,
) -> f64 {
    let mut batches = Vec::new();
    let first = *next;
    // Made before, so that only the database is measured.
    for _ in 0..(60_000 / size) {
        let mut out = b"PGCOPY\n\xff\r\n\0".to_vec();
        out.extend_from_slice(&[0; 8]);
        for _ in 0..size {
            let (body, terms) = &decisions[*next as usize % decisions.len()];
            encode(&mut out, *next, body, terms);
            *next += 1;
        }
        out.extend_from_slice(&(-1_i16).to_be_bytes());
        batches.push(out);
    }
    let (began, mut rows) = (Instant::now(), 0);
    for batch in batches {
        if began.elapsed() >= seconds {
            break;
        }
        connection.execute("BEGIN").await.unwrap();
        let copy =
            "COPY bare (seq, id, ts, kind, about, leaf, entry, terms) FROM STDIN (FORMAT binary)";
        let mut copy = connection.copy_in_raw(copy).await.unwrap();
        copy.send(batch).await.unwrap();
        copy.finish().await.unwrap();
        rows += size;
        let update =
            sqlx::query("UPDATE bare_head SET next = $1").bind((first as usize + rows) as i64);
        update.execute(&mut *connection).await.unwrap();
        connection.execute("COMMIT").await.unwrap();
    }
    rows as f64 / began.elapsed().as_secs_f64()
}

/// One row in Postgres' binary COPY format.
fn encode(out: &mut Vec<u8>, seq: u64, body: &[u8], terms: &[String]) {
    let ts: i64 = 1_700_000_000_000_000 + seq as i64;
    let envelope = Envelope {
        id: fresh_id(),
        kind: &Kind::Decision,
        log: &origin(),
        prev: Digest::of(&seq.to_be_bytes()),
        seq: Seq::new(seq),
        ts: jiff::Timestamp::from_microsecond(ts).unwrap(),
    };
    let (entry, leaf) = seal(&envelope, body);
    let mut array = 1_i32.to_be_bytes().to_vec();
    array.extend_from_slice(&0_i32.to_be_bytes());
    array.extend_from_slice(&25_i32.to_be_bytes()); // text
    array.extend_from_slice(&(terms.len() as i32).to_be_bytes());
    array.extend_from_slice(&1_i32.to_be_bytes());
    for term in terms {
        field(&mut array, term.as_bytes());
    }
    out.extend_from_slice(&8_i16.to_be_bytes());
    field(out, &(seq as i64).to_be_bytes());
    field(out, envelope.id.as_bytes());
    field(out, &ts.to_be_bytes());
    field(out, b"decision");
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    field(out, leaf.as_bytes());
    field(out, &entry);
    field(out, &array);
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes a whole export: what `lexgate export` would write of a log with so many decisions.
fn export(dir: &Path, entries: u64, fresh: bool) {
    let (snapshot, signer) = (snapshot(), signer());
    let decisions = decisions(&snapshot);
    for content in snapshot.contents() {
        write(&dir.join("contents").join(content.digest.hex()), &content.bytes);
    }
    let activation =
        ActivationBody { cause: "start".into(), snapshot: snapshot.digests, store: None };
    let (log, mut prev, mut edge) = (origin(), Digest::from_bytes([0; 32]), Edge::default());
    let mut bundle = Vec::new();
    for seq in 0..entries {
        let genesis_body;
        let activation_body;
        let fresh_body;
        let (kind, body): (Kind, &[u8]) = match seq {
            0 => {
                genesis_body = canonical::to_vec(&genesis(&signer)).unwrap();
                (Kind::Genesis, &genesis_body)
            }
            1 => {
                activation_body = canonical::to_vec(&activation).unwrap();
                (Kind::BundleActivated, &activation_body)
            }
            _ if fresh => {
                fresh_body = renumbered(&decisions[seq as usize % decisions.len()].0, seq);
                (Kind::Decision, &fresh_body)
            }
            _ => (Kind::Decision, &decisions[seq as usize % decisions.len()].0),
        };
        let ts = jiff::Timestamp::from_microsecond(1_795_348_800_000_000 + seq as i64).unwrap();
        let id = uuid::Uuid::from_u128(u128::from(seq));
        let (entry, leaf) =
            seal(&Envelope { id, kind: &kind, log: &log, prev, seq: Seq::new(seq), ts }, body);
        prev = leaf;
        bundle.push(entry);
        for tile in edge.extend([leaf]) {
            if tile.hashes.len() == TILE_WIDTH {
                write_tile(dir, &tile);
            }
        }
        if bundle.len() == TILE_WIDTH || seq + 1 == entries {
            let path = TilePath::Entries { n: seq / TILE_WIDTH as u64, width: bundle.len() };
            write(&dir.join(path.to_string()), &write_bundle(&bundle).unwrap());
            bundle.clear();
        }
    }
    for tile in edge.partial() {
        write_tile(dir, &tile);
    }
    let note = signer.checkpoint(edge.size(), edge.root());
    write(&dir.join("checkpoint"), note.to_string().as_bytes());
    println!("{}", signer.verifiers()[0]);
}

/// A decision's body with another time of evaluation.
fn renumbered(body: &[u8], number: u64) -> Vec<u8> {
    let text = std::str::from_utf8(body).unwrap();
    let (head, tail) = text.split_once("\"evaluation_us\":").unwrap();
    let tail = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{head}\"evaluation_us\":{number}{tail}").into_bytes()
}

fn write_tile(dir: &Path, tile: &Tile) {
    let path = TilePath::Hashes { id: tile.id, width: tile.hashes.len() };
    write(&dir.join(path.to_string()), &tile.bytes());
}

/// Megabytes of entries a second through SHA-256, from memory: one core, then all.
fn hash(dir: &Path) {
    let threads = thread::available_parallelism().unwrap().get();
    let mut bundles = Vec::new();
    for n in 0.. {
        let path = TilePath::Entries { n, width: TILE_WIDTH };
        let Ok(bytes) = fs::read(dir.join(path.to_string())) else { break };
        bundles.push(bytes);
        if bundles.len() == 2_000 {
            break; // about a gigabyte
        }
    }
    for threads in [1, threads] {
        let began = Instant::now();
        let bytes: usize = thread::scope(|scope| {
            let share = bundles.len().div_ceil(threads);
            let workers: Vec<_> = bundles
                .chunks(share)
                .map(|bundles| {
                    scope.spawn(|| {
                        let entries =
                            bundles.iter().flat_map(|bundle| read_bundle(bundle).unwrap());
                        entries
                            .map(|entry| {
                                std::hint::black_box(leaf_of(entry));
                                entry.len()
                            })
                            .sum::<usize>()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        println!("{threads} {:.1}", bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
    }
}

/// A tree of `entries` leaves, put into the store as it would lie there; then proofs out of it.
async fn prove(url: &str, entries: u64) {
    let store = store::open(url).await.unwrap();
    store.migrate().await.unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    let leaf = |n: u64| leaf_of(&n.to_be_bytes());
    let mut edge = Edge::default();
    let (mut levels, mut numbers, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for first in (0..entries).step_by(65_536) {
        let tiles = edge.extend((first..entries.min(first + 65_536)).map(leaf));
        for tile in tiles {
            levels.push(i64::from(tile.id.level));
            numbers.push(tile.id.n as i64);
            hashes.push(tile.bytes());
        }
        let insert =
            "INSERT INTO tiles SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
            ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes";
        sqlx::query(insert)
            .bind(std::mem::take(&mut levels))
            .bind(std::mem::take(&mut numbers))
            .bind(std::mem::take(&mut hashes))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    for n in entries / 256 * 256..entries {
        sqlx::query("INSERT INTO entries VALUES ($1, $2::uuid, 0, 'load', NULL, $3, '', '{}')")
            .bind(n as i64)
            .bind(uuid::Uuid::from_u128(u128::from(n)).to_string())
            .bind(leaf(n).as_bytes().as_slice())
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.execute("VACUUM ANALYZE").await.unwrap();
    let row = connection
        .fetch_one("SELECT count(*), pg_total_relation_size('tiles') FROM tiles")
        .await
        .unwrap();
    let (tiles, bytes): (i64, i64) = (row.get(0), row.get(1));
    let mut took = Vec::new();
    let mut most = 0;
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..2_000 {
        // xorshift: the same places in each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let index = state % entries;
        let began = Instant::now();
        let plan = Plan::inclusion(index, entries).unwrap();
        let ids: Vec<TileId> = plan.tiles().into_iter().collect();
        most = most.max(ids.len());
        let found = store.tiles(&ids).await.unwrap();
        let tiles = found.into_iter().map(|tile| (tile.id, tile.hashes)).collect();
        let proof = plan.make(&tiles).unwrap();
        took.push(began.elapsed());
        assert_eq!(root_of_inclusion(leaf(index), index, entries, &proof), Some(edge.root()));
    }
    took.sort();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    println!("{tiles} {bytes} {most} {:.2} {:.2}", ms(took.len() / 2), ms(took.len() * 99 / 100));
}
