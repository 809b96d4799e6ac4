//! What every black-box test stands on: the real program in a folder of its own, on a store of its
//! own. Nothing here knows what a policy says.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_lexgate");
/// How long a service may take until it listens.
const START: Duration = Duration::from_secs(60);

/// Makes each test twice, as `sqlite::name` and `postgres::name`. The test takes the store.
macro_rules! both_stores {
    ($($(#[$meta:meta])* async fn $name:ident($store:ident: $kind:ident) $body:block)+) => {
        mod sqlite {
            $($(#[$meta])* #[tokio::test]
            async fn $name() {
                super::$name($crate::harness::Store::Sqlite).await;
            })+
        }
        mod postgres {
            $($(#[$meta])* #[tokio::test]
            async fn $name() {
                super::$name($crate::harness::Store::Postgres).await;
            })+
        }
        $(async fn $name($store: $kind) $body)+
    };
}
pub(crate) use both_stores;

/// The database behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Postgres,
}

impl Store {
    /// The address of a store that nobody else uses.
    async fn fresh(self) -> String {
        match self {
            Self::Sqlite => "sqlite://data/lexgate.db".to_owned(),
            Self::Postgres => fresh_database().await,
        }
    }
}

async fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let base = std::env::var("LEXGATE_TEST_POSTGRES").expect(
        "LEXGATE_TEST_POSTGRES names no Postgres: run the tests with `scripts/test`, \
         or under `scripts/with-postgres`",
    );
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("lexgate_{}_{count}", std::process::id());
    let mut connection = PgConnection::connect(&base).await.expect("Postgres answers");
    let create = format!("CREATE DATABASE {name}");
    sqlx::query(&create).execute(&mut connection).await.expect("a database can be made");
    connection.close().await.expect("the connection ends");
    let (server, _) = base.rsplit_once('/').expect("the address names a database");
    format!("{server}/{name}")
}

/// A folder that removes itself.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lexgate-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder can be made");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is to differ from the example that `lexgate init` writes.
#[derive(Debug)]
pub(crate) struct Setup {
    store: Store,
    edits: Vec<Edit>,
    keys: Vec<Vec<String>>,
    env: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Edit {
    Append(String, String),
    Replace(String, String, String),
    Write(String, String),
    Backend(String, String),
    Reach(String, String),
}

impl Setup {
    /// Adds text to the organisation file.
    pub(crate) fn organisation(self, text: &str) -> Self {
        self.append("config/organisation.toml", text)
    }

    /// Replaces text in the organisation file; it must be there.
    pub(crate) fn organisation_with(self, from: &str, to: &str) -> Self {
        self.replace("config/organisation.toml", from, to)
    }

    /// Adds text to a file of the example.
    pub(crate) fn append(mut self, path: &str, text: &str) -> Self {
        self.edits.push(Edit::Append(path.to_owned(), text.to_owned()));
        self
    }

    /// Replaces text in a file of the example; it must be there.
    pub(crate) fn replace(mut self, path: &str, from: &str, to: &str) -> Self {
        self.edits.push(Edit::Replace(path.to_owned(), from.to_owned(), to.to_owned()));
        self
    }

    /// Writes a file of the example anew.
    pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
        self.edits.push(Edit::Write(path.to_owned(), text.to_owned()));
        self
    }

    /// Sends what is meant for `deployment` to `base_url`.
    pub(crate) fn backend(mut self, deployment: &str, base_url: &str) -> Self {
        self.edits.push(Edit::Backend(deployment.to_owned(), base_url.to_owned()));
        self
    }

    /// Adds a line to how `deployment` is reached, such as `max_waiting = 2`.
    pub(crate) fn reached(mut self, deployment: &str, line: &str) -> Self {
        self.edits.push(Edit::Reach(deployment.to_owned(), line.to_owned()));
        self
    }

    /// Makes one more API key, named `name`, as `lexgate keys create` does: `["--role", …]`.
    pub(crate) fn key(mut self, name: &str, arguments: &[&str]) -> Self {
        let named = ["--name", name].into_iter().chain(arguments.iter().copied());
        self.keys.push(named.map(str::to_owned).collect());
        self
    }

    /// Makes one more caller's API key, for `app`, named after it.
    pub(crate) fn caller(self, app: &str) -> Self {
        self.key(app, &["--role", "caller", "--app", app])
    }

    /// Sets an environment variable, such as `LEXGATE_STORE__MIGRATE`.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// How long the store is waited for, as it is unless an operator says otherwise: for tests of that time.
    pub(crate) fn patience_as_shipped(self) -> Self {
        self.env("LEXGATE_STORE__PATIENCE", "1500ms")
    }

    /// Writes everything, and starts nothing.
    pub(crate) async fn prepare(self) -> Site {
        let dir = TempDir::new();
        let made = Command::new(PROGRAM)
            .args(["init", "--json"])
            .arg(dir.path())
            .output()
            .expect("`lexgate init` runs");
        assert!(made.status.success(), "{}", text(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).expect("`init --json` prints JSON");
        let mut secrets = BTreeMap::new();
        for key in made["keys"].as_array().expect("it lists keys") {
            let role = key["role"].as_str().expect("a key has a role");
            secrets.insert(role.to_owned(), key["secret"].as_str().unwrap().to_owned());
        }
        let vkey = made["vkey"].as_str().expect("it prints the verifier key").to_owned();
        let mut env = self.env;
        env.entry("LEXGATE_STORE__URL".to_owned()).or_insert(self.store.fresh().await);
        env.entry("LEXGATE_SERVER__LISTEN".to_owned()).or_insert("127.0.0.1:0".to_owned());
        // The machine may be busy; a test that is about this time sets it.
        env.entry("LEXGATE_STORE__PATIENCE".to_owned()).or_insert("5s".to_owned());
        // Tests ask again and again until something has happened.
        let readings = "LEXGATE_LEDGER__READINGS_PER_MINUTE".to_owned();
        env.entry(readings).or_insert("1000000".to_owned());
        let mut site = Site { dir, env, secrets, vkey };
        for edit in &self.edits {
            site.apply(edit);
        }
        for key in &self.keys {
            let create = ["keys", "create", "--json"].into_iter();
            let arguments: Vec<&str> = create.chain(key.iter().map(String::as_str)).collect();
            let made = site.run_json(&arguments);
            let (name, secret) = (made["name"].as_str().unwrap(), made["secret"].as_str().unwrap());
            site.secrets.insert(name.to_owned(), secret.to_owned());
        }
        site
    }

    /// Writes everything and starts the service.
    pub(crate) async fn start(self) -> Service {
        Service::on(Arc::new(self.prepare().await)).await
    }
}

/// A folder with configuration, organisation, policies and signing key, and a store.
#[derive(Debug)]
pub(crate) struct Site {
    dir: TempDir,
    env: BTreeMap<String, String>,
    /// The secrets: `caller`, `auditor` and `officer` from `init`, others by their names.
    secrets: BTreeMap<String, String>,
    /// The log's verifier key.
    pub(crate) vkey: String,
}

impl Site {
    /// The path of a file in the folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Where the ledger lies.
    pub(crate) fn store_url(&self) -> &str {
        &self.env["LEXGATE_STORE__URL"]
    }

    /// The secret of a key: `caller`, `auditor`, `officer`, or the name given to [`Setup::key`].
    pub(crate) fn key(&self, name: &str) -> &str {
        self.secrets.get(name).unwrap_or_else(|| panic!("no API key `{name}` was made"))
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("it can be made");
        fs::write(path, text).expect("a file can be written");
    }

    /// Replaces text in a file; it must be there.
    pub(crate) fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "`{path}` does not hold `{from}`");
        self.write(path, &text.replacen(from, to, 1));
    }

    /// Adds text to a file.
    pub(crate) fn append(&self, path: &str, text: &str) {
        self.write(path, &format!("{}\n{text}\n", self.read(path)));
    }

    fn apply(&self, edit: &Edit) {
        match edit {
            Edit::Append(path, text) => self.append(path, text),
            Edit::Replace(path, from, to) => self.replace(path, from, to),
            Edit::Write(path, text) => self.write(path, text),
            // What the tests' own backends call the model.
            Edit::Backend(deployment, url) => {
                let lines = format!("base_url = \"{url}\"\nserved_as = [\"served-model\"]");
                self.reach(deployment, |_| lines.clone());
            }
            Edit::Reach(deployment, more) => {
                self.reach(deployment, |line| format!("{line}\n{more}"));
            }
        }
    }

    /// Rewrites the line with the address of `deployment`.
    pub(crate) fn reach(&self, deployment: &str, rewrite: impl Fn(&str) -> String) {
        let path = "config/organisation.toml";
        let text = self.read(path);
        let table = format!("[[deployments]]\nid = \"{deployment}\"\n");
        let table = text.find(&table).unwrap_or_else(|| panic!("no deployment `{deployment}`"));
        let (before, rest) = text.split_at(table);
        let line = rest.lines().find(|line| line.starts_with("base_url = ")).expect("a backend");
        let rest = rest.replacen(line, &rewrite(line), 1);
        self.write(path, &format!("{before}{rest}"));
    }

    /// The program with `arguments`, in the folder, with the environment of its service.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        // What whoever runs the tests logs is not what a test asks for.
        command.args(arguments).current_dir(self.dir.path()).env_remove("LEXGATE_LOG");
        command.envs(&self.env).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let ran = self.command(arguments).output().expect("the program runs");
        Ran::new(&ran)
    }

    /// Runs the program to its good end, and reads the JSON that it prints.
    pub(crate) fn run_json(&self, arguments: &[&str]) -> Value {
        self.run(arguments).json()
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs the program in `dir`, with nothing of the tests' environment that it would read.
    pub(crate) fn in_dir(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(dir).stdin(Stdio::null());
        Self::new(&command.output().expect("the program runs"))
    }

    /// The JSON that a command printed that went well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).expect("the command prints JSON")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) site: Arc<Site>,
    process: Process,
}

impl Service {
    /// The example as `lexgate init` writes it, on a fresh store.
    pub(crate) async fn start(store: Store) -> Self {
        Self::setup(store).start().await
    }

    /// The example, to be altered before it starts.
    pub(crate) fn setup(store: Store) -> Setup {
        Setup { store, edits: Vec::new(), keys: Vec::new(), env: BTreeMap::new() }
    }

    /// The example on a store that tests share which only ask. It ends with the test program.
    pub(crate) async fn shared(store: Store) -> &'static Self {
        static SQLITE: OnceCell<Service> = OnceCell::const_new();
        static POSTGRES: OnceCell<Service> = OnceCell::const_new();
        let cell = match store {
            Store::Sqlite => &SQLITE,
            Store::Postgres => &POSTGRES,
        };
        cell.get_or_init(|| Self::start(store)).await
    }

    /// A service on what `site` holds.
    pub(crate) async fn on(site: Arc<Site>) -> Self {
        let process = Process::start(site.clone()).await;
        Self { site, process }
    }

    /// The same, with more in its environment.
    pub(crate) async fn on_with(site: Arc<Site>, env: &[(&str, &str)]) -> Self {
        let process = Process::start_with(site.clone(), env).await;
        Self { site, process }
    }

    /// The same, started by another program, such as `["prlimit", "--nofile=256"]`.
    pub(crate) async fn on_by(site: Arc<Site>, starter: &'static [&'static str]) -> Self {
        let (of, env) = (site.clone(), Vec::new());
        let process =
            tokio::task::spawn_blocking(move || Process::start_blocking(&of, env, starter));
        Self { site, process: process.await.expect("it starts") }
    }

    /// Another process on the same configuration and the same store.
    pub(crate) async fn second(&self) -> Self {
        Self::on(self.site.clone()).await
    }

    /// Where the service listens: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.process.url
    }

    /// Everything that the service has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.process.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill9(mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// Ends in order and starts again on the same data, with the files as they are now.
    pub(crate) async fn restart(&mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "{}", self.stderr());
        self.process = Process::start(self.site.clone()).await;
    }

    /// Starts again on the same data after [`Self::crash`].
    pub(crate) async fn start_again(&mut self) {
        self.process = Process::start(self.site.clone()).await;
    }

    /// Ends the process as a power cut would, to be started again.
    pub(crate) fn crash(&mut self) {
        self.process.kill();
    }

    /// A request, with the key `key` of [`Site::key`].
    pub(crate) fn request(&self, method: &str, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.site.key(key))
    }

    /// A request without a key.
    pub(crate) fn anonymous(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        client().request(method, format!("{}{path}", self.url()))
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        Answer::of(self.request("GET", path, key)).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        Answer::of(with_json(self.request("POST", path, key), body)).await
    }

    /// Asks for a decision as the app of the example's key.
    pub(crate) async fn decide(&self, call: &Value) -> Answer {
        self.post("/v1/decisions", "caller", call).await
    }

    /// Calls a model through the gateway, with claims: `("subjects", "DE")` is `x-lexgate-subjects`.
    pub(crate) async fn openai(&self, path: &str, claims: &[(&str, &str)], body: &Value) -> Answer {
        let request = with_json(self.request("POST", path, "caller"), body);
        let request = claims.iter().fold(request, |request, (name, value)| {
            request.header(format!("x-lexgate-{name}"), *value)
        });
        Answer::of(request).await
    }

    /// Every record, oldest first, as an auditor reads them. Leaves a record of the reading.
    pub(crate) async fn records(&self) -> Vec<Value> {
        self.records_matching("").await
    }

    /// Every record of one kind.
    pub(crate) async fn records_of(&self, kind: &str) -> Vec<Value> {
        self.records_matching(&format!("kind={kind}")).await
    }

    /// Every record that the query finds.
    pub(crate) async fn records_matching(&self, query: &str) -> Vec<Value> {
        let mut records = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/audit/records?limit=1000{after}&{query}");
            let page = self.get(path.trim_end_matches('&'), "auditor").await.expect(200);
            records.extend(page["records"].as_array().expect("a page").iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return records,
            }
        }
    }

    /// Exports the ledger and verifies the export with nothing but the verifier key.
    pub(crate) fn export_and_verify(&self) -> Value {
        let dir = TempDir::new();
        let dir = dir.path().to_str().expect("a temporary folder's name is text");
        self.site.run_json(&["export", dir, "--json"]);
        let report = self.site.run_json(&["verify", dir, "--key", &self.site.vkey, "--json"]);
        assert_eq!(report["holds"], true, "{report}");
        report
    }
}

/// A process of `lexgate serve`, ended when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Ends the service when the test program ends without dropping it, as statics are.
    watchdog: Child,
    url: String,
    log: Arc<Mutex<String>>,
}

impl Process {
    async fn start(site: Arc<Site>) -> Self {
        Self::start_with(site, &[]).await
    }

    async fn start_with(site: Arc<Site>, env: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let env: Vec<_> = env.iter().map(own).collect();
        let started =
            tokio::task::spawn_blocking(move || Self::start_blocking(&site, env, &[])).await;
        started.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn start_blocking(site: &Site, env: Vec<(String, String)>, starter: &[&str]) -> Self {
        let mut command = site.command(&["serve"]);
        command.envs(env);
        if let Some((program, arguments)) = starter.split_first() {
            let mut outer = Command::new(program);
            outer.args(arguments).arg(PROGRAM).arg("serve").stdin(Stdio::null());
            outer.current_dir(site.dir.path()).env_remove("LEXGATE_LOG").envs(&site.env);
            command = outer;
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`lexgate serve` starts");
        let watchdog = watchdog(&child, site);
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let sink = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let stdout = child.stdout.take().expect("stdout is piped");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for line in lines {
                let Some((_, rest)) = line.split_once("lexgate listens on ") else { continue };
                let _ = tell.send(rest.split(' ').next().unwrap_or(rest).to_owned());
            }
        });
        let mut process = Self { child, watchdog, url: String::new(), log };
        if let Ok(url) = told.recv_timeout(START) {
            process.url = url;
            return process;
        }
        process.kill();
        let log = process.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        panic!("`lexgate serve` does not listen:\n{log}");
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    fn terminate(&mut self) -> ExitStatus {
        signal("TERM", self.child.id());
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("the service ends");
        // After this the process number may belong to somebody else.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal. The standard library can send SIGKILL only.
pub(crate) fn signal(name: &str, process: u32) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -\"$0\" \"$1\"", name, &process.to_string()]);
    assert!(kill.status().expect("sh runs").success(), "SIG{name} could not be sent");
}

/// A shell that reads a pipe which nobody writes: its end is the end of the test program.
fn watchdog(child: &Child, site: &Site) -> Child {
    Command::new("sh")
        .args(["-c", "read -r _; kill -KILL \"$0\"; rm -rf \"$1\"", &child.id().to_string()])
        .arg(site.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs")
}

/// Keeps no connection: each test has a runtime of its own, which would take it along.
fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client can be made")
    })
}

/// A request with a JSON body.
pub(crate) fn with_json(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

/// What a service answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Sends the request and reads the whole answer.
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("the service answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("the answer has an end").to_vec();
        Self { status, headers, body }
    }

    /// The JSON of an answer that must have this status.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        text(&self.body)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header is text"))
    }
}
