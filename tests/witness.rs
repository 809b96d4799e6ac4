//! A log and its witness: two programs, and what either sees of the other.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use lexgate::ledger::{Checkpoint, Note};

use crate::{
    harness::{Answer, Ran, Service, Store, TempDir, both_stores},
    ledger::{Exported, decide, forge, signing_key},
};

/// A process of `lexgate witness serve`.
pub(crate) struct Witness {
    child: Child,
    pub(crate) url: String,
    pub(crate) vkey: String,
}

impl Witness {
    fn start(dir: &Path, log: &str) -> Self {
        Self::listening(dir, log, "127.0.0.1:0")
    }

    /// The witness of `dir`, at an address: the one that it had, where it comes back.
    pub(crate) fn listening(dir: &Path, log: &str, address: &str) -> Self {
        let key = dir.join("witness.key");
        let key = key.to_str().unwrap();
        let name = ["--name", "witness.example/w1", "--key-file", key];
        let kept = dir.join("witness.vkey");
        let vkey = fs::read_to_string(&kept).unwrap_or_else(|_| {
            let mut init = vec!["witness", "init", "--json"];
            init.extend(name);
            let vkey = Ran::in_dir(dir, &init).json()["vkey"].as_str().unwrap().to_owned();
            fs::write(&kept, &vkey).unwrap();
            vkey
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_lexgate"))
            .args(["witness", "serve", "--listen", address, "--state", "seen", "--log", log])
            .args(name)
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit_once(' ').unwrap().1.to_owned();
        Self { child, url, vkey }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

both_stores! {
    async fn a_witness_cosigns_what_it_sees_and_nothing_that_contradicts_it(store: Store) {
        let site = Service::setup(store).prepare().await;
        let dir = TempDir::new();
        let witness = Witness::start(dir.path(), &site.vkey);
        site.append("config/lexgate.toml", &format!(
            "[[ledger.witnesses]]\nurl = \"{}\"\nkey = \"{}\"\n", witness.url, witness.vkey
        ));
        let site = Arc::new(site);
        let service = Service::on(site.clone()).await;
        decide(&service, 5).await;
        let witnessed = async |service: &Service, size: u64| {
            for _ in 0..150 {
                let answer = service.get("/v1/audit/checkpoint", "auditor").await.expect(200);
                if let Some(note) = answer["witnessed"].as_str() {
                    let note = Note::parse(note).unwrap();
                    if Checkpoint::read(&note).unwrap().size >= size {
                        return note;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("no cosignature came: {}", service.stderr());
        };
        let note = witnessed(&service, 7).await;
        let keys = [site.vkey.parse().unwrap(), witness.vkey.parse().unwrap()];
        assert_eq!(note.verify(&keys).unwrap().len(), 2, "{note}");
        decide(&service, 300).await;
        witnessed(&service, 307).await;
        let exported = Exported::of(&site);
        let kept = site.path("data/ledger.checkpoints");
        let options = ["--witness", &witness.vkey, "--since", kept.to_str().unwrap()];
        let report = exported.verify(&site.vkey, &options).json();
        assert_eq!(report["witnessed"], 307);
        let other = Witness::start(TempDir::new().path(), &site.vkey);
        let fault = exported.fault(&site.vkey, &["--witness", &other.vkey]);
        assert!(fault.contains("the witness `witness.example/w1`: none of the given keys"), "{fault}");

        // A log that was rewritten by whoever has its key: the witness does not take part.
        forge(&exported, signing_key(&site));
        let fault = exported.fault(&site.vkey, &[]);
        assert!(fault.contains("history was rewritten"), "what was cosigned is in the export: {fault}");
        let forged = fs::read_to_string(exported.file("checkpoint")).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = http.post(format!("{}/add-checkpoint", witness.url)).body(format!("old 307\n\n{forged}"));
        let answer = Answer::of(ask).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        // Nobody waits for a witness that is away.
        drop(witness);
        decide(&service, 3).await;
        assert_eq!(service.get("/readyz", "caller").await.status, 200);
    }
}
