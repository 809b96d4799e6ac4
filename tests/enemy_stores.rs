//! Stores that are not what a ledger may rest on: roles and databases that say otherwise, servers that
//! forget, somebody between here and the server, disks that are full.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    durability::Cluster,
    harness::{Answer, Service, Site, Store, TempDir, both_stores},
};

const PATIENCE: Duration = Duration::from_secs(40);

fn harmless() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

pub(crate) async fn ready(service: &Service) -> Answer {
    Answer::of(service.anonymous("GET", "/readyz")).await
}

/// Waits until `/readyz` answers so.
pub(crate) async fn becomes(service: &Service, status: u16) -> Value {
    let since = Instant::now();
    loop {
        let answer = ready(service).await;
        if answer.status == status {
            return answer.json();
        }
        assert!(since.elapsed() < PATIENCE, "not {status}: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Does something in the database, past the service.
async fn sql(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    connection.close().await.unwrap();
}

/// Sets something for whoever connects to the site's database next.
async fn database_says(site: &Site, setting: &str) {
    let (server, database) = site.store_url().rsplit_once('/').unwrap();
    sql(&format!("{server}/postgres"), &format!("ALTER DATABASE {database} SET {setting}")).await;
}

#[tokio::test]
async fn what_a_database_says_of_a_session_is_overridden() {
    let site = Service::setup(Store::Postgres).prepare().await;
    sql(
        site.store_url(),
        "CREATE SCHEMA evil; CREATE TABLE evil.head (n int); CREATE TABLE evil.entries (n int)",
    )
    .await;
    for setting in [
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "bytea_output = escape",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "array_nulls = off",
        "IntervalStyle = iso_8601",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kolkata'",
        "client_encoding = LATIN1",
        "gin_fuzzy_search_limit = 1",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "idle_session_timeout = '1ms'",
        "search_path = evil, pg_catalog",
    ] {
        database_says(&site, setting).await;
    }
    let service = Service::on(site.into()).await;
    let said = becomes(&service, 200).await;
    assert_eq!(said["store"]["settings"]["synchronous_commit"], "on", "{said}");
    service.decide(&harmless()).await.expect(200);
    let activated = &service.records_of("bundle_activated").await[0]["entry"]["body"]["store"];
    assert_eq!(activated["engine"], "postgres", "{activated}");
    assert_eq!(activated["settings"]["fsync"], "on", "{activated}");
    let terms = service.records_matching("tenant=acme").await;
    assert_eq!(terms.len(), 1, "a search finds what is there");
    service.export_and_verify();
}

#[tokio::test]
async fn what_cannot_be_overridden_is_refused_by_its_name() {
    for (name, value) in [
        ("session_replication_role", "replica"),
        ("zero_damaged_pages", "on"),
        ("ignore_checksum_failure", "on"),
    ] {
        let site = Service::setup(Store::Postgres).prepare().await;
        database_says(&site, &format!("{name} = {value}")).await;
        let ran = site.run(&["migrate"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        let said = format!("the store's `{name}` is `{value}`: ");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    }
    let site = Service::setup(Store::Postgres).prepare().await;
    let ran = site
        .command(&["serve"])
        .env("LEXGATE_STORE__REQUIRE_SYNCHRONOUS_STANDBY", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.contains("`synchronous_standby_names`"), "{said}");
}

#[tokio::test]
async fn tables_of_another_schema_are_not_made_anew() {
    let site = Service::setup(Store::Postgres).prepare().await;
    let url = site.store_url().to_owned();
    sql(&url, "CREATE SCHEMA audit").await;
    let there = format!("{url}?options=-c%20search_path%3Daudit");
    let run = |url: &str| {
        let ran = site.command(&["migrate"]).env("LEXGATE_STORE__URL", url).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    assert_eq!(run(&there).0, Some(0));
    let (code, said) = run(&url);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("`search_path` is `public`"), "{said}");
    assert_eq!(run(&there).0, Some(0));
}

#[tokio::test]
async fn a_server_that_begins_to_forget_is_not_written_to() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let setup = Service::setup(Store::Postgres).env("LEXGATE_STORE__URL", &cluster.url);
    let service = setup.start().await;
    becomes(&service, 200).await;
    let server_says = async |setting: &str| {
        sql(&cluster.url, &format!("ALTER SYSTEM SET {setting}")).await;
        sql(&cluster.url, "SELECT pg_reload_conf()").await;
    };
    // A session that has set it is not reached by the server's configuration.
    server_says("synchronous_commit = off").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said = becomes(&service, 200).await;
    assert_eq!(said["store"]["settings"]["synchronous_commit"], "on");
    for name in ["fsync", "full_page_writes"] {
        server_says(&format!("{name} = off")).await;
        let said = becomes(&service, 503).await;
        assert!(said["detail"].as_str().unwrap().contains(&format!("`{name}` is `off`")), "{said}");
        assert_eq!(said["errors"][0]["pointer"], "/checks/store", "{said}");
        service.decide(&harmless()).await.expect(503);
        server_says(&format!("{name} = on")).await;
        becomes(&service, 200).await;
        service.decide(&harmless()).await.expect(200);
    }
    service.export_and_verify();
}

both_stores! {
    async fn entries_behind_the_head_are_seen(store: Store) {
        let service = Service::start(store).await;
        becomes(&service, 200).await;
        let copy = match store {
            Store::Sqlite => "INSERT INTO entries (seq, id, ts, kind, leaf, entry)
                SELECT 1000000, randomblob(16), ts, kind, leaf, entry FROM entries WHERE seq = 1",
            Store::Postgres => "INSERT INTO entries (seq, id, ts, kind, leaf, entry, terms)
                SELECT 1000000, gen_random_uuid(), ts, kind, leaf, entry, terms FROM entries WHERE seq = 1",
        };
        crate::enemy_tables::write(&service.site, copy).await;
        let said = becomes(&service, 503).await;
        assert!(said["detail"].as_str().unwrap().contains("behind the head"), "{said}");
    }
}

/// The service of `site`, started by a shell that makes a file that may not grow an error instead of an
/// end.
struct Limited {
    child: Child,
    url: String,
}

impl Limited {
    fn start(site: &Site) -> Self {
        let mut command = Command::new("sh");
        let serve = site.command(&["serve"]);
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["-c", "trap '' XFSZ; exec \"$0\" serve"]).arg(serve.get_program());
        command.current_dir(serve.get_current_dir().unwrap()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| {
            Some(line.unwrap().split_once("listens on ")?.1.split(' ').next()?.to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: line.expect("it listens") }
    }

    /// How large its files may be, by the soft limit: only some may raise a hard one again.
    fn files(&self, size: &str) {
        let process = self.child.id().to_string();
        let mut set = Command::new("prlimit");
        set.args(["--pid", &process, &format!("--fsize={size}:")]);
        assert!(set.status().unwrap().success(), "prlimit");
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_full_disk_is_not_ready_and_recovers() {
    let site = Service::setup(Store::Sqlite).prepare().await;
    let service = Limited::start(&site);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let readyz = async || {
        let answer = client.get(format!("{}/readyz", service.url)).send().await.unwrap();
        let status = answer.status().as_u16();
        let said: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, said)
    };
    let decide = async || {
        let request = client.post(format!("{}/v1/decisions", service.url));
        let request = request.bearer_auth(site.key("caller")).body(harmless().to_string());
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        answer.status().as_u16()
    };
    let until = async |want: u16| {
        let since = Instant::now();
        loop {
            let (status, said) = readyz().await;
            if status == want {
                return said;
            }
            assert!(since.elapsed() < PATIENCE, "not {want}: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    until(200).await;
    assert_eq!(decide().await, 200);
    service.files("4096");
    let said = until(503).await;
    assert_eq!(said["errors"][0]["pointer"], "/checks/write", "{said}");
    assert_eq!(decide().await, 503);
    // It stays so, whoever asks how often.
    let asked = futures_util::future::join_all((0..100).map(|_| readyz())).await;
    assert!(asked.iter().all(|(status, _)| *status == 503));
    service.files("unlimited");
    until(200).await;
    assert_eq!(decide().await, 200);
}

/// A certificate authority, and a server's certificate for a name.
fn certificates(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    (authority, certificate, key.serialize_pem())
}

/// Passes everything on to `server`; or first says that the server speaks no TLS.
async fn between(server: &str, denies_tls: bool) -> (u16, JoinSet<()>) {
    let server = server.to_owned();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            connections.spawn(async move {
                if denies_tls {
                    let mut request = [0; 8];
                    if client.read_exact(&mut request).await.is_err() {
                        return;
                    }
                    let _ = client.write_all(b"N").await;
                }
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_proves_that_it_is_the_one() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let host = String::from_utf8(Command::new("hostname").output().unwrap().stdout).unwrap();
    let host = host.trim();
    // The server takes certificates from its own folder.
    let serves = async |name: &str| {
        let (authority, certificate, key) = certificates(name);
        for (file, text) in [("server.crt", &certificate), ("server.key", &key)] {
            let text = STANDARD.encode(text);
            let program = format!("umask 077; base64 -d > {file}");
            sql(&cluster.url, &format!("COPY (SELECT '{text}') TO PROGRAM '{program}'")).await;
        }
        sql(&cluster.url, "ALTER SYSTEM SET ssl = on").await;
        sql(&cluster.url, "SELECT pg_reload_conf()").await;
        authority
    };
    let address = cluster.url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let ((open, _a), (denying, _b)) =
        (between(&address, false).await, between(&address, true).await);
    let folder = TempDir::new();
    let ca = folder.path().join("ca.pem");
    let site = Service::setup(Store::Sqlite).prepare().await;
    let migrate = async |port: u16, more: &str, insecure: bool| {
        let url = format!(
            "postgres://postgres@{host}:{port}/postgres?sslrootcert={}{more}",
            ca.display()
        );
        let mut command = site.command(&["migrate"]);
        command.env("LEXGATE_STORE__URL", url);
        if insecure {
            command.env("LEXGATE_STORE__INSECURE_TLS", "true");
        }
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    std::fs::write(&ca, serves(host).await).unwrap();
    let since = Instant::now();
    loop {
        let (code, said) = migrate(open, "", false).await;
        if code == Some(0) {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (code, said) = migrate(denying, "", false).await;
    assert_eq!(code, Some(3), "a server that says it speaks no TLS: {said}");
    for mode in ["disable", "prefer", "require", "verify-ca"] {
        let (code, said) = migrate(open, &format!("&sslmode={mode}"), false).await;
        assert_eq!(code, Some(3), "{mode}: {said}");
        assert!(said.contains(mode) && said.contains("insecure_tls"), "{said}");
    }
    let (code, said) = migrate(denying, "&sslmode=prefer", true).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("`[store] insecure_tls` is set"), "{said}");
    std::fs::write(&ca, serves("other.example").await).unwrap();
    let since = Instant::now();
    loop {
        let (code, said) = migrate(open, "", false).await;
        assert_ne!(code, Some(0), "a certificate of another name was taken");
        if said.contains("NotValidForName") || said.contains("not valid for name") {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut connection = PgConnection::connect(&cluster.url).await.unwrap();
    let row = connection.fetch_one("SELECT count(*) FROM entries").await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}
