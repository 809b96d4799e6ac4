//! Clients that call all the time, and remember what they were answered. Each call has a number of its
//! own, which its record names as the number of people, and its prompt too: so that what a backend was
//! sent is found in the log.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::dice::Dice;

/// The virtual model that everybody calls.
pub(super) const MODEL: &str = "nemesis";
/// How many clients call each replica.
const WORKERS: usize = 3;
/// When a client gives up. No answer may take so long.
const GIVEN_UP: Duration = Duration::from_secs(90);

/// How a call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Decide,
    Whole,
    Stream,
}

/// A call and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) marker: u64,
    pub(super) slot: usize,
    pub(super) manner: Manner,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// `None`: the connection broke, or there was none.
    pub(super) status: Option<u16>,
    /// The position of its record, and the leaf where the answer names it.
    pub(super) record: Option<(u64, Option<String>)>,
    pub(super) text: String,
}

/// Where a replica listens, while it does.
pub(super) type Url = Arc<Mutex<Option<String>>>;
pub(super) type Urls = Vec<Url>;

#[derive(Debug)]
struct Shared {
    urls: Urls,
    key: String,
    http: reqwest::Client,
    next: AtomicU64,
    stop: AtomicBool,
    /// Who is left alone.
    idle: [AtomicBool; 3],
    told: Mutex<Vec<Told>>,
}

#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    seed: Dice,
}

impl Load {
    pub(super) fn new(urls: Urls, key: &str, seed: u64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(GIVEN_UP).build().unwrap();
        let shared = Shared {
            urls,
            key: key.to_owned(),
            http,
            next: AtomicU64::new(1),
            stop: AtomicBool::new(true),
            idle: Default::default(),
            told: Mutex::default(),
        };
        Self { shared: Arc::new(shared), tasks: JoinSet::new(), seed: Dice::new(seed) }
    }

    pub(super) fn start(&mut self) {
        self.shared.stop.store(false, Ordering::SeqCst);
        for slot in 0..self.shared.urls.len() {
            for _ in 0..WORKERS {
                let dice = Dice::new(self.seed.roll());
                self.tasks.spawn(work(self.shared.clone(), slot, dice));
            }
        }
    }

    /// Leaves a replica alone, or calls it again.
    pub(super) fn leave(&self, slot: usize, alone: bool) {
        self.shared.idle[slot].store(alone, Ordering::SeqCst);
    }

    /// Lets the calls under way end.
    pub(super) async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        while self.tasks.join_next().await.is_some() {}
    }

    /// One decision. `None`: no answer.
    pub(super) async fn decide(&self, slot: usize) -> Option<u16> {
        let told = self.shared.call(slot, Manner::Decide).await;
        let status = told.as_ref().and_then(|told| told.status);
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        status
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn work(shared: Arc<Shared>, slot: usize, mut dice: Dice) {
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.idle[slot].load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let manner = dice.one_of(&[
            Manner::Decide,
            Manner::Decide,
            Manner::Whole,
            Manner::Whole,
            Manner::Stream,
        ]);
        let told = shared.call(slot, manner).await;
        let served = told.as_ref().is_some_and(|told| told.record.is_some());
        shared.told.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        let pause = if served { dice.millis(5, 120) } else { dice.millis(80, 250) };
        tokio::time::sleep(pause).await;
    }
}

impl Shared {
    /// `None`: there is nobody to call.
    async fn call(&self, slot: usize, manner: Manner) -> Option<Told> {
        let url = self.urls[slot].lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let marker = self.next.fetch_add(1, Ordering::SeqCst);
        let request = match manner {
            Manner::Decide => self.decision(&url, marker),
            Manner::Whole | Manner::Stream => self.chat(&url, marker, manner == Manner::Stream),
        };
        let began = Instant::now();
        let mut told = Told {
            marker,
            slot,
            manner,
            began,
            ended: began,
            status: None,
            record: None,
            text: String::new(),
        };
        let answer = request.bearer_auth(&self.key).send().await;
        if let Ok(answer) = answer {
            let named = answer.headers().get("x-lexgate-record");
            let named = named.map(|text| text.to_str().unwrap().parse().expect("a position"));
            told.status = Some(answer.status().as_u16());
            // An answer that names a record has been given, also if its body breaks off.
            told.record = named.map(|seq| (seq, None));
            match answer.text().await {
                Ok(text) => {
                    let json: Value = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(seq) = json["record"]["seq"].as_u64() {
                        told.record =
                            Some((seq, json["record"]["leaf"].as_str().map(str::to_owned)));
                    }
                    told.text = text;
                }
                Err(error) => told.text = error.to_string(),
            }
        }
        told.ended = Instant::now();
        Some(told)
    }

    fn decision(&self, url: &str, marker: u64) -> reqwest::RequestBuilder {
        let call = json!({
            "action": "infer", "model": MODEL, "purpose": "dpv:CustomerCare",
            "data": {
                "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["DE"],
                "subject_count": marker,
            },
        });
        let request = self.http.post(format!("{url}/v1/decisions"));
        request.header("content-type", "application/json").body(call.to_string())
    }

    fn chat(&self, url: &str, marker: u64, stream: bool) -> reqwest::RequestBuilder {
        let body = json!({
            "model": MODEL, "stream": stream,
            "messages": [{ "role": "user", "content": format!("{PROMPT}{marker}") }],
        });
        let request = self.http.post(format!("{url}/v1/chat/completions"));
        request
            .header("content-type", "application/json")
            .header("x-lexgate-personal", "true")
            .header("x-lexgate-data", "dpv-pd:Contact")
            .header("x-lexgate-subjects", "DE")
            .header("x-lexgate-subject-count", marker.to_string())
            .header("x-lexgate-purpose", "dpv:CustomerCare")
            .body(body.to_string())
    }
}

/// What stands in front of a call's number in its prompt.
pub(super) const PROMPT: &str = "nemesis call ";
