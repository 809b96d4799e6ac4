//! One connection to a gateway: HTTP/1.1, kept alive, nothing between the socket and the clock that
//! would cost more than the gateways do. No client for anything else.

use std::{env, io, time::Instant};

use memchr::memmem;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::mock::{PIECES, SLOWLY, text};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Whole,
    Stream,
    Slow,
}

/// Whom to ask, and the request up to what differs from call to call.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    host: String,
    head: String,
    whole: String,
    stream: String,
    slow: String,
}

impl Target {
    pub(crate) fn new(url: &str, model: &str) -> Self {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let of = |name| env::var(name).unwrap_or_default();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             authorization: Bearer {}\r\nx-portkey-provider: openai\r\n\
             x-portkey-custom-host: {}\r\nx-lexgate-data: dpv-pd:Contact\r\n\
             x-lexgate-subjects: DE\r\nx-lexgate-purpose: dpv:CustomerCare\r\n",
            of("GATEWAY_LOAD_KEY"),
            of("GATEWAY_LOAD_BACKEND"),
        );
        let body = |manner: &str, stream| {
            let body = json!({
                "model": model, "max_tokens": 256, "stream": stream,
                "messages": [
                    {"role": "system", "content": "You answer the customers of a maker of devices, in plain words."},
                    {"role": "user", "content": format!("Where is the order that I placed on 12 March? Tell me {manner}.")},
                ],
            });
            body.to_string()
        };
        Self {
            host: host.to_owned(),
            head,
            whole: body("at once", false),
            stream: body("at once", true),
            slow: body(SLOWLY, true),
        }
    }

    /// A thousand calls that differ in what they are about, in turn.
    fn request(&self, asked: Asked, turn: u32) -> Vec<u8> {
        let body = match asked {
            Asked::Whole => &self.whole,
            Asked::Stream => &self.stream,
            Asked::Slow => &self.slow,
        };
        let (head, count, length) = (&self.head, turn % 1000 + 1, body.len());
        format!("{head}x-lexgate-subject-count: {count}\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// When the first byte of the body came.
    pub(crate) first: Option<Instant>,
    /// Whether the connection ends with it.
    pub(crate) closes: bool,
    length: Option<usize>,
}

impl Answer {
    /// Whether it looks like the mock's: its first and its last words, and every piece.
    pub(crate) fn is_plausible(&self, asked: Asked) -> bool {
        let holds = |word: &str| memmem::find(&self.body, word.as_bytes()).is_some();
        let is_whole = holds("word 00 of") && holds("word 49 of");
        let has_pieces = || memmem::find_iter(&self.body, b" of the answer ").count() == PIECES;
        let has_ended = || asked == Asked::Whole || holds("data: [DONE]");
        self.status == 200 && is_whole && has_pieces() && has_ended()
    }

    /// Whether it is the mock's answer, to the last word.
    pub(crate) fn is_right(&self, asked: Asked) -> bool {
        self.is_plausible(asked) && self.content(asked) == text()
    }

    fn content(&self, asked: Asked) -> String {
        let content = |value: &Value, part: &str| {
            value["choices"][0][part]["content"].as_str().unwrap_or_default().to_owned()
        };
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let body = String::from_utf8_lossy(&self.body);
        if asked == Asked::Whole {
            return content(&read(&body), "message");
        }
        let events = body.lines().filter_map(|line| line.strip_prefix("data: "));
        events.map(|event| content(&read(event), "delta")).collect()
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect(&target.host).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(4096, stream)))
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn call(
        &mut self,
        target: &Target,
        asked: Asked,
        turn: u32,
    ) -> io::Result<Answer> {
        self.send(target, asked, turn).await?;
        let begun = self.begin().await?;
        self.end(begun).await
    }

    pub(crate) async fn send(
        &mut self,
        target: &Target,
        asked: Asked,
        turn: u32,
    ) -> io::Result<()> {
        self.0.get_mut().write_all(&target.request(asked, turn)).await
    }

    /// Reads up to the first byte of the body.
    pub(crate) async fn begin(&mut self) -> io::Result<Answer> {
        let head = self.line().await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer {
            status: status.ok_or_else(|| broken("no status"))?,
            body: Vec::new(),
            first: None,
            closes: false,
            length: None,
        };
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else { break };
            match (name, value.trim()) {
                ("content-length", length) => answer.length = length.parse().ok(),
                ("connection", "close") => answer.closes = true,
                _ => {}
            }
        }
        if self.0.fill_buf().await?.is_empty() {
            return Err(broken("no body"));
        }
        answer.first = Some(Instant::now());
        Ok(answer)
    }

    /// Reads the rest.
    pub(crate) async fn end(&mut self, mut answer: Answer) -> io::Result<Answer> {
        if let Some(length) = answer.length {
            answer.body.resize(length, 0);
            self.0.read_exact(&mut answer.body).await?;
            return Ok(answer);
        }
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken("no chunk"))?;
            let from = answer.body.len();
            answer.body.resize(from + size + 2, 0);
            self.0.read_exact(answer.body.get_mut(from..).unwrap_or_default()).await?;
            answer.body.truncate(from + size);
            if size == 0 {
                return Ok(answer);
            }
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        if line.is_empty() {
            return Err(broken("closed"));
        }
        Ok(line.trim_end().to_owned())
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
