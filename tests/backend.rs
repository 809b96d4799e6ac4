//! A backend that does what a test tells it: raw HTTP, so that it can misbehave in every way, and
//! it remembers what it was sent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What a backend was sent.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The request line and the headers, as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a backend is sent JSON")
    }

    /// The value of a header; each stands once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// One thing that a backend does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Waits until it is told to go on.
    Until(Arc<AtomicBool>),
    /// Waits until the other side closes the connection.
    Hang,
}

/// What a backend says of itself: status and body under each path, for `GET`.
type Told = Arc<Mutex<BTreeMap<String, (String, String)>>>;
type Script = Arc<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

/// A listening backend. It ends when it is dropped.
pub(crate) struct Backend {
    /// The base URL of its API.
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    told: Told,
    freed: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Does for each request what `script` says, then closes the connection.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let script: Script = Arc::new(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/v1", listener.local_addr().expect("it has an address"));
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let freed = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        let (told, open) = (Told::default(), Arc::<AtomicUsize>::default());
        let (held, written) = (open.clone(), Arc::<AtomicUsize>::default());
        let writes = written.clone();
        let (sink, count, tells) = (seen.clone(), freed.clone(), told.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, sink, count) = (script.clone(), sink.clone(), count.clone());
                let (tells, held, writes) = (tells.clone(), held.clone(), writes.clone());
                connections.spawn(async move {
                    held.fetch_add(1, Ordering::SeqCst);
                    let _ = serve(stream, &script, &sink, (&count, &writes), &tells).await;
                    held.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, seen, told, freed, open, written, _tasks: tasks }
    }

    /// Answers every request with a short completion, streamed where that is asked for.
    pub(crate) async fn polite() -> Self {
        Self::start(|seen| {
            if seen.json()["stream"] == true { stream(&events()) } else { whole(&completion()) }
        })
        .await
    }

    /// Answers `GET path` with this from now on, such as `/v1/models`.
    pub(crate) fn tell(&self, path: &str, body: &(impl ToString + ?Sized)) {
        self.answer(path, "200 OK", body.to_string());
    }

    /// Answers `GET path` with this status from now on, and nothing else.
    pub(crate) fn refuse(&self, path: &str, status: &str) {
        self.answer(path, status, String::new());
    }

    fn answer(&self, path: &str, status: &str, body: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(path.to_owned(), (status.to_owned(), body));
    }

    /// Everything that it was sent so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How many bytes of its answers the other side has taken.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }

    /// How many connections the other side closed while this one hung.
    pub(crate) fn freed(&self) -> usize {
        self.freed.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Script,
    sink: &Mutex<Vec<Seen>>,
    (freed, written): (&AtomicUsize, &AtomicUsize),
    told: &Told,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut seen = Seen { head, body: read.split_off(end) };
    let length: usize = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
    while seen.body.len() < length && stream.read_buf(&mut seen.body).await? > 0 {}
    // Somebody asks who and how it is.
    if let Some(path) = seen.head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) {
        let found = told.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let (status, body) = found.unwrap_or(("404 Not Found".to_owned(), String::new()));
        let json = "content-type: application/json\r\n";
        for step in answer(&status, json, body.as_bytes()) {
            let Step::Send(bytes) = step else { continue };
            stream.write_all(&bytes).await?;
        }
        return stream.shutdown().await;
    }
    let steps = script(&seen);
    sink.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    for step in steps {
        match step {
            Step::Send(bytes) => {
                stream.write_all(&bytes).await?;
                written.fetch_add(bytes.len(), Ordering::SeqCst);
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Until(told) => {
                while !told.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Step::Hang => {
                // Whatever ends the connection, it is free again.
                let _ = stream.read(&mut [0; 1]).await;
                freed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    stream.shutdown().await
}

/// A whole HTTP answer.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// A good answer in one piece.
pub(crate) fn whole(body: &Value) -> Vec<Step> {
    answer("200 OK", "content-type: application/json\r\n", body.to_string().as_bytes())
}

/// The head of a streamed answer.
pub(crate) fn stream_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    Step::Send(head.as_bytes().to_vec())
}

/// One piece of a streamed answer.
pub(crate) fn piece(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    Step::Send(chunk)
}

/// The regular end of a streamed answer's bytes.
pub(crate) fn stream_end() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// A streamed answer of these events.
pub(crate) fn stream(events: &[String]) -> Vec<Step> {
    let pieces = events.iter().map(piece);
    std::iter::once(stream_head()).chain(pieces).chain([stream_end()]).collect()
}

pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// A chunk of a chat, in OpenAI's shape.
pub(crate) fn chunk(text: &str) -> String {
    event(&json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "served-model",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
    }))
}

/// The chunk that holds nothing but usage.
pub(crate) fn usage() -> String {
    event(&json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "served-model",
        "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }))
}

pub(crate) fn events() -> Vec<String> {
    vec![chunk("Good "), chunk("morning"), usage(), "data: [DONE]\n\n".to_owned()]
}

/// A chat's answer in one piece.
pub(crate) fn completion() -> Value {
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "served-model",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "Good morning"}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    })
}
