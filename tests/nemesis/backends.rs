//! The model servers that the calls go to. They note when which call reached them, and do what the
//! nemesis wants.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::load::{MODEL, PROMPT};
use crate::backend::{
    Backend, Seen, Step, answer, chunk, completion, events, piece, stream, stream_head, whole,
};

/// The deployments of the virtual model, in order of preference. The last one is never approved.
pub(super) const DEPLOYMENTS: [&str; 4] =
    ["first@nemesis", "second@nemesis", "third@nemesis", "forbidden@nemesis"];
/// How long a deployment may take until its first byte.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(4);

/// What a backend does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Answers,
    /// Answers after a while.
    Slow(Duration),
    /// Fails after a while: the call goes on to the next one.
    Fails(Duration),
    /// Breaks off in the middle of its answer.
    Breaks,
    Hangs,
}

/// A call that reached a backend.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) deployment: usize,
    pub(super) at: Instant,
    /// Its number, if its body is one of ours, whole.
    pub(super) marker: Option<u64>,
    pub(super) body: Vec<u8>,
}

pub(super) struct Backends {
    all: Vec<Backend>,
    moods: Arc<Mutex<[Mood; 4]>>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Backends {
    pub(super) async fn start() -> Self {
        let moods = Arc::new(Mutex::new([Mood::Answers; 4]));
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let mut backends = Vec::new();
        for deployment in 0..DEPLOYMENTS.len() {
            let (moods, sent) = (moods.clone(), sent.clone());
            let script = move |seen: &Seen| {
                let body = serde_json::from_slice::<serde_json::Value>(&seen.body).ok();
                let content =
                    body.as_ref().and_then(|body| body["messages"][0]["content"].as_str());
                let marker = content.and_then(|text| text.strip_prefix(PROMPT)?.parse().ok());
                let call = Sent { deployment, at: Instant::now(), marker, body: seen.body.clone() };
                sent.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                let mood = moods.lock().unwrap_or_else(PoisonError::into_inner)[deployment];
                steps(mood, body.is_some_and(|body| body["stream"] == true))
            };
            backends.push(Backend::start(script).await);
        }
        Self { all: backends, moods, sent }
    }

    pub(super) fn set(&self, moods: [Mood; 3]) {
        let mut set = self.moods.lock().unwrap_or_else(PoisonError::into_inner);
        set[..3].copy_from_slice(&moods);
    }

    /// Every call that reached one, in order.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the organisation file says of them; `forbidden` is not approved.
    pub(super) fn organisation(&self, forbidden: Option<usize>) -> String {
        let mut text = String::new();
        for (n, (id, backend)) in DEPLOYMENTS.iter().zip(&self.all).enumerate() {
            let approved = n != DEPLOYMENTS.len() - 1 && Some(n) != forbidden;
            write!(
                text,
                "\n[[deployments]]\nid = \"{id}\"\nmodel = \"mistral-small\"\noperator = \"acme\"\n\
                 tier = \"hybrid_gpu\"\napproved = {approved}\nprocess = [\"DE\"]\nstore = [\"DE\"]\n\
                 access = []\nretention_hours = 0\n[deployments.backend]\nbase_url = \"{}\"\n\
                 model = \"mistral-small\"\nserved_as = [\"served-model\"]\nconnect_timeout = \"1s\"\n\
                 first_byte_timeout = \"{first}s\"\nanswer_timeout = \"{first}s\"\n\
                 chunk_timeout = \"4s\"\ntotal_timeout = \"10s\"\nbreaker_failures = 1000\n",
                backend.url,
                first = FIRST_BYTE.as_secs(),
            )
            .unwrap();
        }
        let names = DEPLOYMENTS.map(|id| format!("\"{id}\"")).join(", ");
        write!(text, "\n[[virtual_models]]\nid = \"{MODEL}\"\ndeployments = [{names}]\n").unwrap();
        text
    }
}

fn steps(mood: Mood, streamed: bool) -> Vec<Step> {
    let good = || if streamed { stream(&events()) } else { whole(&completion()) };
    let later = |time, steps: Vec<Step>| std::iter::once(Step::Wait(time)).chain(steps).collect();
    match mood {
        Mood::Answers => good(),
        Mood::Slow(time) => later(time, good()),
        Mood::Fails(time) => later(time, answer("500 Internal Server Error", "", b"")),
        Mood::Breaks if streamed => vec![stream_head(), piece(chunk("Good "))],
        Mood::Breaks => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{";
            vec![Step::Send(head.to_vec())]
        }
        Mood::Hangs => vec![Step::Hang],
    }
}
