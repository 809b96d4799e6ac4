//! The client against sockets that do one thing each: every way of not answering has its error.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    BackendReply, BackendRequest, Backends, Grants, OpenAiClient, Permit, SecretSource, Secrets,
    SendError,
};
use crate::facts::{BackendAddress, BreakerSettings, KeySource, Timeouts};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

/// A client that may read every authority that `address` names, and no variable.
fn client(address: &BackendAddress) -> OpenAiClient {
    let file = SecretSource::File("/nowhere/at/all".into());
    let named = BTreeMap::from([("x".to_owned(), file)]);
    let environment = BTreeSet::from(["LEXGATE_NO_SUCH_KEY".to_owned()]);
    let ca_files = address.ca_file.iter().cloned().collect();
    OpenAiClient::new(Grants { secrets: Secrets { environment, named }, ca_files })
}

fn address(base_url: &str) -> BackendAddress {
    BackendAddress {
        base_url: base_url.parse().unwrap(),
        model: "m".to_owned(),
        served_as: Vec::new(),
        api: None,
        usage_in_streams: true,
        key: None,
        ca_file: None,
        timeouts: Timeouts {
            connect: LONG,
            first_byte: LONG,
            answer: LONG,
            between_chunks: LONG,
            total: LONG,
        },
        breaker: BreakerSettings::default(),
        probe_interval: None,
        tenant: None,
        max_waiting: None,
    }
}

/// A permit that always says the same.
#[derive(Debug)]
struct Always(bool);

#[async_trait]
impl Permit for Always {
    fn holds(&self) -> bool {
        self.0
    }

    async fn renew(&self) -> bool {
        self.0
    }

    fn begun(&self) {}

    fn lasts(&self) -> bool {
        self.0
    }
}

async fn send(address: &BackendAddress, stream: bool) -> Result<BackendReply, SendError> {
    permitted(address, stream, true).await
}

async fn permitted(
    address: &BackendAddress,
    stream: bool,
    is_allowed: bool,
) -> Result<BackendReply, SendError> {
    let request = BackendRequest {
        path: "/chat/completions",
        body: vec!["{".into(), "}".into()],
        permit: Arc::new(Always(is_allowed)),
        headers: Vec::new(),
        stream,
        request_id: "r".to_owned(),
        trace: None,
    };
    client(address).send(address, request).await
}

/// The error of an attempt that must fail before it has an answer.
async fn refusal(address: &BackendAddress) -> SendError {
    send(address, false).await.expect_err("nobody answers")
}

/// A server that sends `pieces` to whoever asks, with a pause after each, and hangs at the end.
async fn server(pieces: &'static [&'static str], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            for piece in pieces {
                let _ = stream.write_all(piece.as_bytes()).await;
                tokio::time::sleep(pause).await;
            }
            let _ = stream.read(&mut [0; 1]).await;
        });
    });
    format!("http://{at}/v1")
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 4\r\n\r\n";

/// The error at which the body of an answer ends.
async fn broken(address: &BackendAddress, stream: bool) -> SendError {
    let mut body = send(address, stream).await.unwrap().body;
    while let Some(piece) = body.next().await {
        if let Err(error) = piece {
            assert!(body.next().await.is_none(), "nothing comes after an error");
            return error;
        }
    }
    panic!("the answer looks complete");
}

#[tokio::test]
async fn who_cannot_be_reached_was_sent_nothing() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = nobody.local_addr().unwrap();
    drop(nobody);
    for url in [format!("http://{at}/v1"), "http://no-such-host.invalid/v1".to_owned()] {
        let error = refusal(&address(&url)).await;
        assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
        assert!(!error.to_string().contains("/v1"), "{error}");
    }
}

#[tokio::test]
async fn what_may_not_be_sent_is_not_when_all_else_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address(&format!("http://{}/v1", listener.local_addr().unwrap()));
    let reading = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        String::from_utf8(read).unwrap()
    };
    let (refused, read) = tokio::join!(permitted(&address, false, false), reading);
    assert!(matches!(refused, Err(SendError::NoLongerAllowed)), "{refused:?}");
    assert!(!read.contains('{'), "a byte of the body left: {read}");

    // And what may be, with its length and in one go.
    let echo = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"{}") {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{read:?}");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(read).unwrap().to_lowercase()
    };
    let (sent, read) = tokio::join!(send(&address, false), echo);
    assert_eq!(sent.unwrap().status, 200);
    assert!(read.contains("content-length: 2\r\n") && !read.contains("chunked"), "{read}");
}

#[tokio::test]
async fn a_handshake_that_fails_or_hangs_is_no_connection() {
    let speaks_http = server(&["HTTP/1.1 400 Bad Request\r\n\r\n"], Duration::ZERO).await;
    let error = refusal(&address(&speaks_http.replace("http:", "https:"))).await;
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
    let mut hangs = address(&server(&[], Duration::ZERO).await.replace("http:", "https:"));
    hangs.timeouts.connect = SHORT;
    let error = refusal(&hangs).await;
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
}

/// A listener that never accepts, and the connections that fill its queue: later ones get no answer.
async fn full() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(SHORT, TcpStream::connect(at)).await {
        waiting.push(connected.unwrap());
    }
    (at, waiting, listener)
}

#[tokio::test]
async fn a_connection_has_its_own_limit() {
    let (at, _waiting, _listener) = full().await;
    let mut address = address(&format!("http://{at}/v1"));
    address.timeouts.connect = SHORT;
    let error = refusal(&address).await;
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn each_phase_of_an_answer_has_its_own_limit() {
    let mut silent = address(&server(&[], Duration::ZERO).await);
    silent.timeouts.first_byte = SHORT;
    assert!(matches!(refusal(&silent).await, SendError::Timeout("first byte")));

    let mut stalls = address(&server(&[HEAD, "ab"], Duration::ZERO).await);
    stalls.timeouts.between_chunks = SHORT;
    assert!(matches!(broken(&stalls, false).await, SendError::Timeout("next piece")));

    let mut slow = address(&server(&[HEAD, "a", "b", "c"], SHORT).await);
    slow.timeouts.total = SHORT * 2;
    assert!(matches!(broken(&slow, true).await, SendError::Timeout("end of the answer")));

    let mut cut = address(&server(&[], Duration::ZERO).await);
    cut.timeouts.total = SHORT;
    assert!(matches!(refusal(&cut).await, SendError::Timeout(_)));
}

#[tokio::test]
async fn a_streamed_answer_may_think_after_its_headers() {
    let mut thinks = address(&server(&[HEAD, "ab"], SHORT * 2).await);
    thinks.timeouts.between_chunks = SHORT;
    let mut body = send(&thinks, true).await.unwrap().body;
    assert_eq!(body.next().await.unwrap().unwrap(), "ab");
    assert!(matches!(body.next().await, Some(Err(SendError::Timeout("next piece")))));
}

#[tokio::test]
async fn a_question_stays_on_the_host_and_is_answered_shortly() {
    const TOLD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell";
    let told = address(&server(&[TOLD], Duration::ZERO).await);
    let at = told.base_url.as_str().replace("/v1", "/health");
    assert_eq!(client(&told).get(&told, &at, LONG).await.unwrap(), (200, "well".into()));
    for url in [
        "http://elsewhere.example/health".to_owned(),
        at.replace("http:", "https:"),
        at.replace("127.0.0.1", "127.0.0.1.example"),
        at.replace("127.0.0.1", "someone:secret@127.0.0.1"),
        "/health".to_owned(),
    ] {
        let error = client(&told).get(&told, &url, LONG).await.unwrap_err();
        assert!(matches!(error, SendError::Elsewhere), "{url}: {error:?}");
    }
    let silent = address(&server(&[], Duration::ZERO).await);
    let error = client(&silent).get(&silent, silent.base_url.as_str(), SHORT).await.unwrap_err();
    assert!(matches!(error, SendError::Timeout(_)), "{error:?}");
    let much: &'static str = {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n";
        Box::leak(format!("{head}{}", "x".repeat(2 << 20)).into_boxed_str())
    };
    let much = address(&server(Box::leak(Box::new([much])), Duration::ZERO).await);
    let error = client(&much).get(&much, much.base_url.as_str(), LONG).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge(_)), "{error:?}");
}

#[tokio::test]
async fn without_its_key_or_its_certificates_nothing_is_sent() {
    let mut keyless = address("http://no-such-host.invalid/v1");
    keyless.key = Some(KeySource::Secret("x".to_owned()));
    let error = refusal(&keyless).await;
    assert!(matches!(error, SendError::NoKey(_)), "{error:?}");

    let folder = std::env::temp_dir();
    let name = |kind: &str| folder.join(format!("lexgate-ca-{kind}-{}", std::process::id()));
    let write = |kind: &str, text: &str| -> PathBuf {
        let path = name(kind);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let files = [name("missing"), write("empty", ""), write("broken", broken), folder.clone()];
    for file in files {
        let mut address = address("https://no-such-host.invalid/v1");
        address.ca_file = Some(file.clone());
        let error = refusal(&address).await;
        assert!(matches!(error, SendError::Tls(_)), "{error:?}");
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        if file.is_file() {
            std::fs::remove_file(file).unwrap();
        }
    }
}
