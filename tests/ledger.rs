//! The ledger as those see it who do not trust whoever keeps it: proofs, exports, restored backups,
//! changed keys, power cuts in the middle of a commit.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lexgate::ledger::{
    Checkpoint, Edge, Note, Signer, SigningKey, TILE_WIDTH, TilePath, leaf_of, read_bundle,
    write_bundle,
};
use serde_json::{Value, json};
use signed_note::{Note as TheirNote, StandardVerifier, VerifierList};
use sqlx::{Connection, PgConnection};
use tlog_tiles::{Hash, check_record, check_tree};

use crate::harness::{Answer, Ran, Service, Site, Store, TempDir, both_stores, with_json};

fn call() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

pub(crate) async fn decide(service: &Service, times: usize) {
    for _ in 0..times {
        service.decide(&call()).await.expect(200);
    }
}

/// An export in a folder of its own.
pub(crate) struct Exported(TempDir);

impl Exported {
    pub(crate) fn of(site: &Site) -> Self {
        let exported = Self(TempDir::new());
        exported.again(site);
        exported
    }

    pub(crate) fn again(&self, site: &Site) {
        site.run_json(&["export", self.path(), "--json"]);
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Verifies from a folder without configuration, store or secret.
    pub(crate) fn verify(&self, key: &str, more: &[&str]) -> Ran {
        let elsewhere = TempDir::new();
        let mut arguments = vec!["verify", self.path(), "--key", key, "--json"];
        arguments.extend(more);
        Ran::in_dir(elsewhere.path(), &arguments)
    }

    /// What is found wrong, which must be something.
    pub(crate) fn fault(&self, key: &str, more: &[&str]) -> String {
        let ran = self.verify(key, more);
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(answer["holds"], false);
        answer["fault"].as_str().unwrap().to_owned()
    }

    /// Every file by its name below the folder.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.0.path(), self.0.path(), &mut files);
        files
    }

    /// All entries.
    fn entries(&self) -> Vec<Vec<u8>> {
        let files = self.files();
        let bundles = files.iter().filter(|(name, _)| name.starts_with("tile/entries"));
        let entries = bundles.flat_map(|(_, bytes)| read_bundle(bytes).unwrap());
        entries.map(<[u8]>::to_vec).collect()
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

pub(crate) fn hash(hex: &Value) -> Hash {
    let hex = hex.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    Hash(std::array::from_fn(byte))
}

pub(crate) fn hashes(list: &Value) -> Vec<Hash> {
    list.as_array().unwrap().iter().map(hash).collect()
}

/// Another implementation's word that `key` has signed the checkpoint; gives its size and root.
pub(crate) fn signed(checkpoint: &str, key: &str) -> (u64, Hash) {
    let note = TheirNote::from_bytes(checkpoint.as_bytes()).unwrap();
    let known = StandardVerifier::new(key).unwrap();
    let (signed, _) = note.verify(&VerifierList::new(vec![Box::new(known)])).unwrap();
    assert_eq!(signed.len(), 1);
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    (checkpoint.size(), *checkpoint.hash())
}

/// The key that signs for `site`, as an operator has it.
pub(crate) fn signing_key(site: &Site) -> SigningKey {
    SigningKey::from_pkcs8(&fs::read(site.path("data/ledger.key")).unwrap()).unwrap()
}

both_stores! {
    async fn a_proof_convinces_whoever_knows_the_key(store: Store) {
        let service = Service::start(store).await;
        let vkey = service.site.vkey.clone();
        decide(&service, 3).await;
        let kept = service.get("/v1/audit/checkpoint", "auditor").await.expect(200);
        assert_eq!(signed(kept["checkpoint"].as_str().unwrap(), &vkey).0, kept["size"]);
        decide(&service, 300).await;

        for seq in [0, 1, 2, 255, 256, 300] {
            let path = format!("/v1/audit/records/{seq}/proof");
            let proven = service.get(&path, "auditor").await.expect(200);
            let proof = &proven["proof"];
            let (size, root) = signed(proof["checkpoint"].as_str().unwrap(), &vkey);
            assert_eq!((&proof["size"], &hash(&proof["root"])), (&json!(size), &root));
            let leaf = Hash(*leaf_of(proven["entry"].to_string().as_bytes()).as_bytes());
            assert_eq!(leaf, hash(&proven["leaf"]), "the bytes are those that were hashed");
            check_record(&hashes(&proof["hashes"]), size, root, seq, leaf).unwrap();
            // The same as text.
            let request = service.request("GET", &path, "auditor").header("accept", "text/plain");
            let answer = Answer::of(request).await;
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            let text = answer.text();
            assert!(text.starts_with(&format!("c2sp.org/tlog-proof@v1\nindex {seq}\n")), "{text}");
            let parsed: lexgate::ledger::TlogProof = text.parse().unwrap();
            let (size, root) = signed(&parsed.checkpoint.to_string(), &vkey);
            let path: Vec<_> = parsed.hashes.iter().map(|hash| Hash(*hash.as_bytes())).collect();
            check_record(&path, size, root, seq, leaf).unwrap();
        }
        assert_eq!(service.get("/v1/audit/records/100000/proof", "auditor").await.status, 404);

        let now = service.get("/v1/audit/checkpoint", "auditor").await.expect(200);
        let path = format!("/v1/audit/consistency?from={}&to={}", kept["size"], now["size"]);
        let grown = service.get(&path, "auditor").await.expect(200);
        let (old, new) = (kept["size"].as_u64().unwrap(), now["size"].as_u64().unwrap());
        let proof = hashes(&grown["hashes"]);
        check_tree(&proof, new, hash(&now["root"]), old, hash(&kept["root"])).unwrap();
        for bad in ["", "?from=x", "?from=100000", "?from=9&to=3", "?from=0&to=100000"] {
            let path = format!("/v1/audit/consistency{bad}");
            assert_eq!(service.get(&path, "auditor").await.status, 400, "{bad}");
        }
        let keys = service.get("/v1/audit/keys", "auditor").await.expect(200);
        assert_eq!(keys, json!({ "keys": [{ "vkey": vkey, "from_seq": 0 }] }));

        // A decision's answer can carry its proof.
        let request = service.request("POST", "/v1/decisions?proof=true", "caller");
        let told = Answer::of(with_json(request, &call())).await.expect(200);
        let (record, proof) = (&told["record"], &told["record"]["proof"]);
        let (size, root) = signed(proof["checkpoint"].as_str().unwrap(), &vkey);
        let index = record["seq"].as_u64().unwrap();
        check_record(&hashes(&proof["hashes"]), size, root, index, hash(&record["leaf"])).unwrap();
        let request = service.request("POST", "/v1/decisions?proof=perhaps", "caller");
        let refused = Answer::of(with_json(request, &call())).await;
        assert_eq!(refused.expect(400)["type"], "urn:lexgate:problem:malformed-query");
    }

    async fn strangers_tools_read_the_files_of_the_log(store: Store) {
        let service = Service::start(store).await;
        decide(&service, 260).await;
        let get = async |path: &str| Answer::of(service.anonymous("GET", path)).await;
        let checkpoint = get("/tlog/checkpoint").await;
        assert_eq!(checkpoint.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
        let (size, root) = signed(&checkpoint.text(), &service.site.vkey);
        assert_eq!(size, 262);

        // The tree is made again from the entries, and from the tiles.
        let mut edge = Edge::default();
        for path in ["000".to_owned(), format!("001.p/{}", size - 256)] {
            let path = format!("/tlog/tile/entries/{path}");
            let bundle = service.get(&path, "auditor").await;
            let cached = Some("private, no-cache");
            assert_eq!((bundle.status, bundle.header("cache-control")), (200, cached));
            let leaves: Vec<_> = read_bundle(&bundle.body).unwrap().into_iter().map(leaf_of).collect();
            let tile = get(&path.replace("entries", "0")).await;
            assert_eq!(tile.header("content-type"), Some("application/octet-stream"));
            assert_eq!(tile.header("cache-control"), Some("public, max-age=31536000, immutable"));
            let flat: Vec<u8> = leaves.iter().flat_map(|leaf| *leaf.as_bytes()).collect();
            assert_eq!(tile.body, flat);
            edge.extend(leaves);
        }
        assert_eq!(Hash(*edge.root().as_bytes()), root);
        let above = get("/tlog/tile/1/000.p/1").await;
        assert_eq!(above.body.len(), 32);
        assert_eq!(get("/tlog/tile/0/000.p/100").await.body.len(), 3200, "of an earlier tree");
        for missing in ["1/000", "0/002", "0/001", "2/000.p/1", "0/1", "0/000.p/0", "x/000", "64/000"] {
            assert_eq!(get(&format!("/tlog/tile/{missing}")).await.status, 404, "{missing}");
        }
        assert_eq!(get("/tlog/tile/entries/000").await.status, 401);
        assert_eq!(service.get("/tlog/tile/entries/000", "caller").await.status, 403);
        let readings = service.records_of("audit_read").await;
        let read = readings.iter().filter(|read| read["entry"]["body"]["operation"] == "tlogEntries");
        assert_eq!(read.count(), 2);
    }

    async fn records_are_exported_as_lines_and_as_a_table(store: Store) {
        let service = Service::setup(store).key("sdaia", &["--role", "auditor", "--jurisdiction", "SA"]).start().await;
        decide(&service, 3).await;
        let lines = service.get("/v1/audit/export?kind=decision", "auditor").await;
        assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
        let text = lines.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(hash(&record["leaf"]).0, *leaf_of(record["entry"].to_string().as_bytes()).as_bytes());
        }
        let table = service.get("/v1/audit/export?format=csv&limit=4", "auditor").await;
        assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8"));
        let text = table.text();
        let rows: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(rows.len(), 6, "a head, four rows, and the end: {text}");
        assert!(rows[0].starts_with("seq,ts,kind,"), "{}", rows[0]);
        assert!(rows[3].contains(",decision,") && rows[3].contains(",allow,"), "{}", rows[3]);
        let refused = service.get("/v1/audit/export?format=xml", "auditor").await.expect(400);
        assert_eq!(refused["errors"][0]["parameter"], "format");
        assert_eq!(service.get("/v1/audit/records?format=csv", "auditor").await.status, 400);
        assert_eq!(service.get("/v1/audit/export?formt=csv", "auditor").await.status, 400);
        // A limited credential sees no more than the list shows it, and no whole bundle.
        assert_eq!(service.get("/v1/audit/export", "sdaia").await.text(), "");
        assert_eq!(service.get("/v1/audit/records/2/proof", "sdaia").await.status, 404);
        assert_eq!(service.get("/tlog/tile/entries/000.p/1", "sdaia").await.status, 403);
    }

    async fn any_change_of_an_export_is_found(store: Store) {
        let service = Service::start(store).await;
        decide(&service, 3).await;
        let (site, exported) = (&service.site, Exported::of(&service.site));
        let report = exported.verify(&site.vkey, &[]).json();
        assert_eq!((&report["holds"], &report["entries"]), (&json!(true), &json!(5)));
        assert_eq!(report["signed_by"], json!([site.vkey]));
        let mut changes = 0;
        for (name, bytes) in &exported.files() {
            for at in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                fs::write(exported.file(name), &flipped).unwrap();
                let fault = exported.fault(&site.vkey, &[]);
                let place = if name.starts_with("tile/entries") {
                    "entr"
                } else if name.starts_with("tile/") {
                    "tile"
                } else if name.starts_with("contents") {
                    "content"
                } else {
                    ""
                };
                assert!(fault.contains(place), "{name} byte {at}: {fault}");
                changes += 1;
            }
            for cut in [0, bytes.len() / 2, bytes.len() - 1] {
                fs::write(exported.file(name), &bytes[..cut]).unwrap();
                exported.fault(&site.vkey, &[]);
            }
            fs::remove_file(exported.file(name)).unwrap();
            exported.fault(&site.vkey, &[]);
            fs::write(exported.file(name), bytes).unwrap();
        }
        assert!(changes >= 80, "{changes}");

        // Entries changed, swapped, doubled and left out, and each time the place is named.
        let entries = exported.entries();
        let rewritten = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut others = entries.clone();
            change(&mut others);
            let path = TilePath::Entries { n: 0, width: 5 }.to_string();
            fs::write(exported.file(&path), write_bundle(&others).unwrap()).unwrap();
            exported.fault(&site.vkey, &[])
        };
        let forged = |from: &[u8], to: &[u8]| {
            rewritten(&|entries| {
                let at = entries[2].windows(from.len()).rposition(|part| part == from).unwrap();
                entries[2].splice(at..at + from.len(), to.iter().copied());
            })
        };
        let other = forged(br#""app":"support-copilot""#, br#""app":"billing""#);
        assert!(other.starts_with("entry 2: was changed"), "{other}");
        // This one says nothing that can be.
        let denied = forged(br#""decision":"allow""#, br#""decision":"deny""#);
        assert!(denied.starts_with("entry 2: is a `decision` that contradicts itself"), "{denied}");
        let swapped = rewritten(&|entries| entries.swap(2, 3));
        assert!(swapped.starts_with("entry 2: says that it is entry 3"), "{swapped}");
        let missing = rewritten(&|entries| drop(entries.remove(3)));
        assert!(missing.contains("entry 4: `tile/entries/000.p/5` holds 4"), "{missing}");
        let doubled = rewritten(&|entries| entries[4] = entries[3].clone());
        assert!(doubled.starts_with("entry 4: says that it is entry 3"), "{doubled}");

        // Another log's key, and something that is none.
        exported.again(site);
        let other = Service::setup(store).prepare().await;
        let fault = exported.fault(&other.vkey, &[]);
        assert!(fault.contains("the log was opened with the key"), "{fault}");
        assert_eq!(exported.verify("nonsense", &[]).code, Some(2));

        let ran = Ran::in_dir(Path::new("/"), &["verify", exported.path(), "--key", &site.vkey]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.starts_with("the log `lexgate.example/main` holds\n"), "{}", ran.stdout);
        assert!(ran.stdout.contains(&format!("signed by {}", site.vkey)), "{}", ran.stdout);
    }

    async fn a_checkpoint_that_was_kept_shows_what_a_signature_cannot(store: Store) {
        let service = Service::start(store).await;
        let (site, vkey) = (&service.site, service.site.vkey.as_str());
        decide(&service, 3).await;
        let (old, new) = (Exported::of(site), Exported::of(site));
        decide(&service, 300).await;
        new.again(site);
        let (before, after) = (old.file("checkpoint"), new.file("checkpoint"));
        let (before, after) = (before.to_str().unwrap(), after.to_str().unwrap());
        let report = new.verify(vkey, &["--since", before, "--since", after, "--replay"]).json();
        assert_eq!((&report["since"], &report["replayed"]), (&json!([5, 305]), &json!(303)));
        let fault = old.fault(vkey, &["--since", after]);
        assert!(fault.contains("entries are missing"), "{fault}");

        // An old checkpoint in a newer export.
        let newest = fs::read(after).unwrap();
        fs::copy(before, after).unwrap();
        let fault = new.fault(vkey, &[]);
        assert!(fault.contains("entry 0 and those after it are missing") || fault.contains("beyond"), "{fault}");
        fs::write(after, newest).unwrap();

        // Whoever has the signing key can rewrite history, until an outside checkpoint fixes it.
        forge(&new, signing_key(site));
        let forged = new.verify(vkey, &[]).json();
        assert_eq!(forged["entries"], 305, "nothing in the export itself tells");
        let fault = new.fault(vkey, &["--since", before]);
        assert!(fault.contains("history was rewritten"), "{fault}");
        let fault = new.fault(vkey, &["--replay"]);
        assert!(fault.contains("entry 2: the decision is the same, but not its reasons"), "{fault}");
    }

    async fn a_restored_backup_is_not_signed_until_an_operator_says_so(store: Store) {
        let mut service = Service::start(store).await;
        decide(&service, 3).await;
        let site = service.site.clone();
        assert!(service.terminate().success());
        let backup = Backup::of(&site, store).await;
        service = Service::on(site.clone()).await;
        decide(&service, 4).await;
        let newer = Exported::of(&site);
        let seen = service.get("/v1/audit/checkpoint", "auditor").await.expect(200);
        assert!(service.terminate().success());
        let ran = site.run(&["ledger", "recover"]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("there is nothing to recover"), "{}", ran.stderr);

        backup.restore(&site).await;
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains("an old backup was restored"), "{}", ran.stderr);
        assert!(ran.stderr.contains("`lexgate ledger recover`"), "{}", ran.stderr);
        let ran = site.run(&["ledger", "recover"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("the store holds 5 entries; the last signed checkpoint says"), "{}", ran.stderr);
        assert_eq!(site.run(&["ledger", "recover", "--accept-loss"]).code, Some(2), "a reason is wanted");
        let done = site.run_json(&["ledger", "recover", "--accept-loss", "--reason", "disk lost", "--json"]);
        assert_eq!((&done["found"], &done["lost"]), (&json!(5), &seen["size"]));

        service = Service::on(site.clone()).await;
        decide(&service, 1).await;
        let records = service.records_of("ledger_recovered").await;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0]["entry"]["body"]["lost"], seen["checkpoint"]);
        assert_eq!(records[0]["entry"]["body"]["reason"], "disk lost");
        let report = service.export_and_verify();
        assert_eq!(report["recoveries"], json!([done["record"]]));
        // Whoever kept the lost checkpoint sees that this is another history.
        let recovered = Exported::of(&site);
        let lost = newer.file("checkpoint");
        while recovered.verify(&site.vkey, &[]).json()["entries"].as_u64() < seen["size"].as_u64() {
            decide(&service, 1).await;
            recovered.again(&site);
        }
        let fault = recovered.fault(&site.vkey, &["--since", lost.to_str().unwrap()]);
        assert!(fault.contains("history was rewritten"), "{fault}");
    }

    async fn a_key_is_changed_and_old_notes_still_hold(store: Store) {
        let mut service = Service::start(store).await;
        decide(&service, 2).await;
        let (site, first) = (service.site.clone(), service.site.vkey.clone());
        let old = Exported::of(&site);
        let told = site.run_json(&["keys", "rotate", "--json"]);
        let second = told["vkey"].as_str().unwrap().to_owned();
        assert_eq!(told["former"], first.as_str());
        assert_ne!(second, first);
        let again = site.run(&["keys", "rotate"]);
        assert_eq!(again.code, Some(2));
        assert!(again.stderr.contains("`lexgate keys retire` first"), "{}", again.stderr);
        // The running service signs with the key that it has read.
        decide(&service, 1).await;
        assert!(service.terminate().success());
        service = Service::on(site.clone()).await;
        decide(&service, 1).await;
        let checkpoint = Answer::of(service.anonymous("GET", "/tlog/checkpoint")).await.text();
        assert_eq!(signed(&checkpoint, &first), signed(&checkpoint, &second), "both sign");
        let keys = service.get("/v1/audit/keys", "auditor").await.expect(200);
        assert_eq!(keys["keys"][0], json!({ "vkey": first, "from_seq": 0 }));
        assert_eq!(keys["keys"][1]["vkey"], second.as_str());

        let ran = site.run(&["keys", "retire"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(site.run(&["keys", "retire"]).code, Some(2));
        assert!(service.terminate().success());
        service = Service::on(site.clone()).await;
        decide(&service, 1).await;
        let new = Exported::of(&site);
        let checkpoint = fs::read_to_string(new.file("checkpoint")).unwrap();
        signed(&checkpoint, &second);
        assert_eq!(checkpoint.matches('\u{2014}').count(), 1, "one signature: {checkpoint}");
        let before = old.file("checkpoint");
        for key in [&first, &second] {
            let report = new.verify(key, &["--since", before.to_str().unwrap()]).json();
            assert_eq!(report["signed_by"], json!([second]), "known by either key");
        }
        assert_eq!(old.verify(&first, &[]).json()["holds"], true);
        drop(service);
    }

    async fn a_power_cut_between_any_two_steps_loses_nothing(store: Store) {
        let steps: &[&str] = match store {
            Store::Sqlite => &["locked", "sealed", "written", "committed", "marked"],
            // The first commits of a process take the lock; later ones are one statement.
            Store::Postgres => {
                &["locked", "sealed", "written", "committed", "marked", "sealed:9", "committed:9", "marked:9"]
            }
        };
        let mut service = Service::start(store).await;
        let mut acknowledged = Vec::new();
        for step in steps {
            let published = Answer::of(service.anonymous("GET", "/tlog/checkpoint")).await.text();
            service.crash();
            // A start appends nothing when nothing has changed: the crash comes with a call.
            let cut = Service::on_with(service.site.clone(), &[("LEXGATE_CRASH_AT", step)]).await;
            let mut asked = 0;
            for n in 0..20 {
                asked = n;
                let request = cut.request("POST", "/v1/decisions", "caller");
                let request = request.header("idempotency-key", format!("{step}-{n}"));
                let Ok(answer) = with_json(request, &call()).send().await else { break };
                let Ok(answer) = answer.bytes().await else { break };
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                acknowledged.push(answer["record"].clone());
                assert!(n < 19, "{step}: the process did not end");
            }
            drop(cut);
            service.start_again().await;
            // The same request again: it is written now, or was written before the cut.
            for n in 0..=asked {
                let request = service.request("POST", "/v1/decisions", "caller");
                let request = request.header("idempotency-key", format!("{step}-{n}"));
                let answer = Answer::of(with_json(request, &call())).await.expect(200);
                acknowledged.push(answer["record"].clone());
            }
            let exported = Exported::of(&service.site);
            let kept = exported.file("kept");
            fs::write(&kept, published).unwrap();
            let report = exported.verify(&service.site.vkey, &["--since", kept.to_str().unwrap()]);
            assert_eq!(report.code, Some(0), "{step}: {}", report.stdout);
        }
        let records = service.records_of("decision").await;
        let mut seqs: Vec<_> = acknowledged.iter().map(|record| record["seq"].as_u64()).collect();
        for record in &acknowledged {
            let stored = records.iter().find(|stored| stored["seq"] == record["seq"]);
            assert_eq!(stored.expect("it was acknowledged")["leaf"], record["leaf"]);
        }
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs.len(), records.len(), "every record was acknowledged, and none is there twice");
    }
}

/// Writes the export anew with the reason of one decision altered, as its keeper could: chain, tree,
/// signature.
pub(crate) fn forge(exported: &Exported, key: SigningKey) {
    let mut entries = exported.entries();
    let (mut edge, mut prev) = (Edge::default(), "0".repeat(64));
    for entry in &mut entries {
        let text = String::from_utf8(entry.clone()).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        let was = value["prev"].as_str().unwrap().to_owned();
        let mut text = text.replace(&format!(r#""prev":"{was}""#), &format!(r#""prev":"{prev}""#));
        if value["seq"].take() == 2 {
            let at = text.find(r#""citation":""#).unwrap() + 12;
            text.insert_str(at, "Forged ");
        }
        *entry = text.into_bytes();
        prev = leaf_of(entry).hex();
    }
    for (n, bundle) in entries.chunks(TILE_WIDTH).enumerate() {
        let path = TilePath::Entries { n: n as u64, width: bundle.len() };
        fs::write(exported.file(&path.to_string()), write_bundle(bundle).unwrap()).unwrap();
    }
    let tiles = edge.extend(entries.iter().map(|entry| leaf_of(entry)));
    for tile in tiles.into_iter().chain(edge.partial()) {
        let path = TilePath::Hashes { id: tile.id, width: tile.hashes.len() };
        fs::write(exported.file(&path.to_string()), tile.bytes()).unwrap();
    }
    let text = fs::read_to_string(exported.file("checkpoint")).unwrap();
    let origin = Checkpoint::read(&Note::parse(&text).unwrap()).unwrap().origin;
    let note = Signer::new(origin, vec![key]).checkpoint(edge.size(), edge.root());
    fs::write(exported.file("checkpoint"), note.to_string()).unwrap();
}

/// The script of docs/LEDGER.md, which needs nothing but Python's own library.
#[tokio::test]
async fn sqlite_the_documented_verifier_verifies() {
    let service = Service::start(Store::Sqlite).await;
    decide(&service, 300).await;
    let (site, exported) = (&service.site, Exported::of(&service.site));
    let doc = include_str!("../docs/LEDGER.md");
    let script = doc.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let run = |key: &str| {
        let run = Command::new("python3").args(["-c", script, exported.path(), key]).output();
        let run = run.expect("python3");
        (
            run.status.success(),
            String::from_utf8(run.stdout).unwrap() + &String::from_utf8_lossy(&run.stderr),
        )
    };
    let (holds, said) = run(&site.vkey);
    assert!(holds && said.starts_with("302 entries of lexgate.example/main"), "{said}");
    let other = Service::setup(Store::Sqlite).prepare().await;
    assert!(run(&other.vkey).1.contains("the key has not signed the checkpoint"));
    for (name, why) in [
        ("tile/entries/000", "entry 0: was changed, or its tile was"),
        ("checkpoint", "the checkpoint was changed"),
    ] {
        let bytes = fs::read(exported.file(name)).unwrap();
        let mut flipped = bytes.clone();
        // A digit of the first entry's time; a letter of the checkpoint's root.
        let at = bytes.windows(5).position(|part| part == b"\"ts\":").map_or(30, |at| at + 8);
        flipped[at] ^= 1;
        fs::write(exported.file(name), flipped).unwrap();
        let (holds, said) = run(&site.vkey);
        assert!(!holds && said.contains(why), "{name}: {said}");
        fs::write(exported.file(name), bytes).unwrap();
    }
}

/// A copy of a store, made while nobody uses it.
pub(crate) enum Backup {
    Files(Vec<(PathBuf, Vec<u8>)>),
    /// The server, the database and its copy.
    Database(String, String, String),
}

impl Backup {
    pub(crate) async fn of(site: &Site, store: Store) -> Self {
        if store == Store::Sqlite {
            let ends = ["", "-wal", "-shm"];
            let paths = ends.map(|end| site.path(&format!("data/lexgate.db{end}")));
            let files = paths.into_iter().filter(|path| path.exists());
            return Self::Files(
                files.map(|path| (path.clone(), fs::read(path).unwrap())).collect(),
            );
        }
        let (server, name) = site.store_url().rsplit_once('/').unwrap();
        let copy = format!("{name}_backup");
        let backup = Self::Database(format!("{server}/postgres"), name.to_owned(), copy.clone());
        backup.sql(&[format!("CREATE DATABASE {copy} TEMPLATE {name}")]).await;
        backup
    }

    pub(crate) async fn restore(&self, site: &Site) {
        match self {
            Self::Files(files) => {
                for end in ["-wal", "-shm"] {
                    let _ = fs::remove_file(site.path(&format!("data/lexgate.db{end}")));
                }
                for (path, bytes) in files {
                    fs::write(path, bytes).unwrap();
                }
            }
            Self::Database(_, name, copy) => {
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                self.sql(&[drop, format!("CREATE DATABASE {name} TEMPLATE {copy}")]).await;
            }
        }
    }

    async fn sql(&self, statements: &[String]) {
        let Self::Database(server, ..) = self else { return };
        let mut connection = PgConnection::connect(server).await.unwrap();
        for statement in statements {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
    }
}

/// The page in a real browser, with what a regulator would paste into it.
#[tokio::test]
async fn sqlite_a_browser_verifies_a_record() {
    let service = Service::start(Store::Sqlite).await;
    decide(&service, 20).await;
    let page = Answer::of(service.anonymous("GET", "/verify.html")).await.text();
    let proven = service.get("/v1/audit/records/7/proof", "auditor").await.text();
    let size = serde_json::from_str::<Value>(&proven).unwrap()["proof"]["size"].as_u64().unwrap();
    let other = Service::setup(Store::Sqlite).prepare().await;
    let dir = TempDir::new();
    let show = |json: &str, key: &str| {
        let text = |text: &str| serde_json::to_string(text).unwrap().replace('<', "\\u003c");
        let fill = format!(
            "<script>document.getElementById('record').value = {}; document.getElementById('key').value = {}; verify();</script></html>",
            text(json),
            text(key)
        );
        let path = dir.path().join("page.html");
        fs::write(&path, page.replace("</html>", &fill)).unwrap();
        let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
        let shown = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args([&profile, "--virtual-time-budget=10000", "--dump-dom"])
            .arg(format!("file://{}", path.display()))
            .output()
            .expect("chromium: `scripts/test` installs it");
        let dom = String::from_utf8_lossy(&shown.stdout).into_owned();
        let verdict = dom.split("id=\"verdict\"").nth(1).unwrap_or_else(|| panic!("{dom}"));
        verdict.split("<script>").next().unwrap().to_owned()
    };
    let good = show(&proven, &service.site.vkey);
    assert!(good.contains("Record 7 stands in the log lexgate.example/main"), "{good}");
    // As it is answered once the body was removed.
    let mut removed: Value = serde_json::from_str(&proven).unwrap();
    removed.as_object_mut().unwrap().remove("entry");
    let good = show(&removed.to_string(), &service.site.vkey);
    assert!(good.contains("Record 7 stood in the log lexgate.example/main"), "{good}");
    removed["leaf"] = "00".repeat(32).into();
    for (json, key, why) in [
        (removed.to_string(), &service.site.vkey, "the proof does not lead to the root"),
        (proven.replacen("allow", "deny", 1), &service.site.vkey, "the entry was changed"),
        (proven.replacen("\"index\":7", "\"index\":6", 1), &service.site.vkey, "another position"),
        (proven.clone(), &other.vkey, "this key has not signed the checkpoint"),
        (
            proven.replacen(&format!("main\\n{size}"), &format!("main\\n{}", size + 1), 1),
            &service.site.vkey,
            "the signature does not hold",
        ),
        ("{}".to_owned(), &service.site.vkey, "there is no `proof`"),
    ] {
        let bad = show(&json, key);
        assert!(bad.contains("This does not hold.") && bad.contains(why), "{why}: {bad}");
    }
}
