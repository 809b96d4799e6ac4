//! The law of the gateway: whatever fails, recovers, fills up or changes, no byte of a call reaches a
//! deployment outside the allowed set of its recorded decision. The real gate, ledger and policies; the
//! backends are an adversary that notes everything that it is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use lexgate::{
    config::Config,
    dispatch::{
        BackendReply, BackendRequest, Backends, Contradiction, Endpoint, Expected, Fields, Fleet,
        Probed, Question, SendError,
    },
    domain::{CallRequest, Caller, Clock, SystemClock},
    facts::{BackendAddress, Proposal},
    gate::{Activate, Gate, GateParts, Keeper, ModelCall, Reaper, Reply, ReplyBody},
    ledger::{Engine, GenesisBody, Signer},
    sequencer::{Mark, Sequencer, SequencerSettings},
    source::SourceFile,
    store,
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    harness::{Service, Site, Store},
    ledger::signing_key,
};

/// The deployments of the virtual model `assistant`, by where the adversary plays them.
const PLAYED: [(&str, &str); 3] = [
    ("http://laptop.test/v1", "smollm2@laptop"),
    ("http://frankfurt.test/v1", "mistral-small@dc-frankfurt"),
    ("http://singapore.test/v1", "qwen3-32b@dashscope-sg"),
];
/// How often the whole is tried.
const CASES: u32 = 24;

/// What a backend does with the next calls.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Answers,
    Status(u16),
    Hangs,
    Breaks,
    Lies,
    Errs,
    /// Its client fails in a way that nobody foresaw.
    Panics,
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Call { subjects: usize, model: usize, stream: bool, leaves: bool },
    Mood { at: usize, mood: Mood },
    Told { at: usize, is_well: bool, waiting: u64, contradicts: bool },
    Activate(usize),
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mood = prop_oneof![
        3 => Just(Mood::Answers),
        3 => prop_oneof![Just(500), Just(503), Just(429), Just(404), Just(401), Just(302)].prop_map(Mood::Status),
        1 => Just(Mood::Hangs),
        2 => Just(Mood::Breaks),
        1 => Just(Mood::Lies),
        1 => Just(Mood::Errs),
    ];
    let step = prop_oneof![
        6 => (0..4_usize, 0..3_usize, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(subjects, model, stream, leaves)| Step::Call { subjects, model, stream, leaves }),
        4 => (0..3_usize, mood).prop_map(|(at, mood)| Step::Mood { at, mood }),
        2 => (0..3_usize, any::<bool>(), 0..20_u64, prop::bool::weighted(0.1))
            .prop_map(|(at, is_well, waiting, contradicts)| Step::Told { at, is_well, waiting, contradicts }),
        1 => (0..4_usize).prop_map(Step::Activate),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 10..40)
}

/// The process that holds the lease.
const PROCESS: uuid::Uuid = uuid::Uuid::from_u128(1);

/// Plays all backends.
#[derive(Debug)]
struct Adversary {
    moods: Mutex<[Mood; 3]>,
    /// Who was sent which call.
    seen: Mutex<Vec<(usize, u64)>>,
}

impl Adversary {
    fn at(address: &BackendAddress) -> usize {
        PLAYED
            .iter()
            .position(|(url, _)| *url == address.base_url.as_str())
            .expect("a played backend")
    }
}

fn reply(status: u16, kind: &str, pieces: Vec<Result<Bytes, SendError>>) -> BackendReply {
    BackendReply {
        status,
        content_type: Some(kind.to_owned()),
        retry_after: Some("0".to_owned()),
        body: stream::iter(pieces).boxed(),
    }
}

#[async_trait]
impl Backends for Adversary {
    async fn send(
        &self,
        address: &BackendAddress,
        request: BackendRequest,
    ) -> Result<BackendReply, SendError> {
        let at = Self::at(address);
        if !request.permit.holds() && !request.permit.renew().await {
            return Err(SendError::NoLongerAllowed);
        }
        request.permit.begun();
        let body: Value = serde_json::from_slice(&request.body.concat()).unwrap();
        let seen = (at, body["marker"].as_u64().unwrap());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let mood = self.moods.lock().unwrap_or_else(PoisonError::into_inner)[at];
        tokio::time::sleep(Duration::from_millis(seen.1 % 7)).await;
        assert!(!matches!(mood, Mood::Panics), "it was told to");
        let model = if matches!(mood, Mood::Lies) { "another" } else { &address.model };
        let answer = match mood {
            Mood::Errs => json!({ "error": { "message": "no" } }),
            _ => json!({ "model": model, "choices": [{ "index": 0, "delta": {} }] }),
        };
        let event = Bytes::from(format!("data: {answer}\n\n"));
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        Ok(match (mood, request.stream) {
            (Mood::Hangs, _) => return Err(SendError::Timeout("first byte")),
            (Mood::Status(status), _) => reply(status, "application/json", vec![Ok("{}".into())]),
            (Mood::Breaks, true) => reply(
                200,
                "text/event-stream",
                vec![Ok(event), Err(SendError::Timeout("next chunk"))],
            ),
            (Mood::Breaks, false) => {
                reply(200, "application/json", vec![Err(SendError::TooLarge(1))])
            }
            (_, true) => {
                reply(200, "text/event-stream", vec![Ok(event.clone()), Ok(event), Ok(done)])
            }
            (_, false) => reply(200, "application/json", vec![Ok(answer.to_string().into())]),
        })
    }

    async fn probe(&self, _: &Expected<'_>) -> Probed {
        Probed { is_well: true, ..Probed::default() }
    }
}

/// A gate's unchanging parts, and what may become active.
struct World {
    store: Arc<dyn store::Store>,
    sequencer: Sequencer,
    keeper: Arc<Keeper>,
    proposals: Vec<Proposal>,
    clock: Arc<dyn Clock>,
    tracker: TaskTracker,
    /// The calls' own, which end before the ledger is closed.
    tasks: TaskTracker,
    calls: u64,
}

fn caller() -> Caller {
    Caller {
        app: "support-copilot".into(),
        authenticated: "api_key".to_owned(),
        key: "support-copilot".into(),
        tenant: "acme".into(),
    }
}

/// The organisation as it is, and three others: each allows other deployments.
fn proposals(site: &Site) -> Vec<Proposal> {
    let text = site.read("config/organisation.toml");
    let assessment = "\n[[instruments]]\nid = \"assessment\"\nkind = \"eu-tia\"\nexporter = \"acme\"\n\
        recipient = \"alibaba-cloud\"\nvalid_from = \"2026-01-01\"\nreference = \"TIA\"\n";
    let frankfurt =
        "operator = \"acme\"\ntier = \"hybrid_gpu\"\napproved = true\nprocess = [\"DE\"]";
    assert!(text.contains(frankfurt));
    let moved = text.replacen(frankfurt, &frankfurt.replace("[\"DE\"]", "[\"CN\"]"), 1);
    let laptop = "id = \"smollm2@laptop\"\nmodel = \"smollm2-135m\"\noperator = \"acme\"\ntier = \"on_device\"\napproved = true";
    assert!(text.contains(laptop));
    let unapproved =
        text.replacen(laptop, &laptop.replace("approved = true", "approved = false"), 1);
    let texts = [text.clone(), format!("{text}{assessment}"), moved, unapproved];
    let load = |text: &String| {
        let file = SourceFile::new("config/organisation.toml", text);
        lexgate::app::propose(&site.path("policies"), file)
            .unwrap_or_else(|faults| panic!("{faults}"))
    };
    texts.iter().map(load).collect()
}

impl World {
    async fn at(site: &Site) -> Self {
        let url = format!("sqlite://{}", site.path("data/lexgate.db").display());
        let store = store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        let config = Config::load(&site.path("config/lexgate.toml")).unwrap();
        let origin = config.ledger.origin.clone();
        let settings = SequencerSettings {
            process: PROCESS,
            queue: 4096,
            reserved: 4096,
            max_batch: 256,
            signer: Arc::new(Signer::new(origin.clone(), vec![signing_key(site)])),
            genesis: GenesisBody {
                origin: origin.to_string(),
                public_key: site.vkey.clone(),
                software: Engine { name: "test".into(), version: "0".into() },
            },
            origin,
        };
        let (clock, tracker): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), TaskTracker::new());
        let sequencer =
            Sequencer::start(store.clone(), settings, Mark::unkept(), clock.clone(), &tracker)
                .unwrap();
        let until = clock.now() + jiff::SignedDuration::from_hours(1);
        store.renew_lease(PROCESS, until).await.unwrap();
        let proposals = proposals(site);
        let keeper = activate(&proposals[0], &store, &sequencer, &clock).await;
        let tasks = TaskTracker::new();
        Self { store, sequencer, keeper, proposals, clock, tracker, tasks, calls: 0 }
    }

    /// A gate that knows nothing of its backends yet.
    fn gate(&self, adversary: &Arc<Adversary>, fleet: &Arc<Fleet>) -> Arc<Gate> {
        Arc::new(Gate::new(GateParts {
            keeper: self.keeper.clone(),
            sequencer: self.sequencer.clone(),
            store: self.store.clone(),
            vault: None,
            backends: adversary.clone(),
            fleet: fleet.clone(),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            halt: CancellationToken::new(),
        }))
    }

    async fn play(&mut self, steps: Vec<Step>) -> Vec<(usize, u64)> {
        let adversary =
            Arc::new(Adversary { moods: Mutex::new([Mood::Answers; 3]), seen: Mutex::default() });
        let fleet = Arc::<Fleet>::default();
        let gate = self.gate(&adversary, &fleet);
        Reaper::new(gate.clone(), PROCESS).take_lease().await.unwrap();
        let mut calls = JoinSet::new();
        for step in steps {
            match step {
                Step::Mood { at, mood } => {
                    adversary.moods.lock().unwrap_or_else(PoisonError::into_inner)[at] = mood;
                }
                Step::Told { at, is_well, waiting, contradicts } => {
                    let judge = self.keeper.current();
                    let row = judge.snapshot().deployment(&PLAYED[at].1.into()).unwrap();
                    let standing = fleet.standing(&row.id, row.backend.as_ref().unwrap());
                    let contradiction = contradicts.then(|| Contradiction {
                        question: Question::Models,
                        server: None,
                        reason: "it is another".to_owned(),
                    });
                    let answered = is_well.then_some(Question::Models).into_iter().collect();
                    let waiting = Some(waiting);
                    let says_unwell = !is_well && waiting.is_some_and(|n| n % 2 == 0);
                    standing.probed(&Probed {
                        says_unwell,
                        is_well,
                        complaint: None,
                        waiting,
                        contradiction,
                        server: None,
                        answered,
                    });
                }
                Step::Activate(n) => {
                    let proposal = &self.proposals[n];
                    drop(activate(proposal, &self.store, &self.sequencer, &self.clock).await);
                }
                Step::Settle => while calls.join_next().await.is_some() {},
                Step::Call { subjects, model, stream, leaves } => {
                    self.calls += 1;
                    let call = call(self.calls, subjects, model, stream);
                    let gate = gate.clone();
                    calls.spawn(async move {
                        let calling = gate.call(caller(), call);
                        if leaves {
                            let _ = tokio::time::timeout(Duration::from_millis(3), calling).await;
                        } else if let Ok(Reply::Answered(_, ReplyBody::Stream(mut pieces))) =
                            calling.await
                        {
                            while pieces.recv().await.is_some() {}
                        }
                    });
                }
            }
        }
        while calls.join_next().await.is_some() {}
        adversary.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn activate(
    proposal: &Proposal,
    store: &Arc<dyn store::Store>,
    sequencer: &Sequencer,
    clock: &Arc<dyn Clock>,
) -> Arc<Keeper> {
    let parts = (store.clone(), sequencer.clone(), clock.clone());
    let keeper = Keeper::start(proposal.clone(), Activate::Always, parts.0, parts.1, parts.2);
    Arc::new(keeper.await.unwrap())
}

/// A call about as many people as it has a number: so that its decision is found again.
fn call(number: u64, subjects: usize, model: usize, stream: bool) -> ModelCall {
    let subjects: &[&str] = [&["DE"][..], &["SG"], &["DE", "SG"], &["FR"]][subjects];
    let model = ["assistant", "assistant", "qwen3-32b@dashscope-sg"][model];
    let named = if model.contains('@') { "deployment" } else { "model" };
    let request = json!({
        "action": "infer", named: model, "purpose": "dpv:ServiceProvision",
        "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": subjects, "subject_count": number },
    });
    let body = json!({ "model": model, "marker": number, "stream": stream }).to_string();
    let request: CallRequest = serde_json::from_value(request).unwrap();
    ModelCall {
        request,
        endpoint: Endpoint::ChatCompletions,
        body: Fields::parse(&body.clone().into()).unwrap(),
        received: body.into(),
        headers: Vec::new(),
        stream,
        wants_usage: false,
        request_id: number.to_string(),
        trace: lexgate::telemetry::Trace::default(),
    }
}

#[test]
fn no_byte_leaves_the_allowed_set() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut setup = Service::setup(Store::Sqlite);
    for (url, deployment) in PLAYED {
        setup = setup.backend(deployment, url).reached(
            deployment,
            "breaker_failures = 3\nbreaker_cool_down = \"20ms\"\nmax_waiting = 10",
        );
    }
    let site = runtime.block_on(setup.prepare());
    let mut world = runtime.block_on(World::at(&site));
    let mut seen = Vec::new();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (played, sent) = (std::cell::RefCell::new(&mut world), std::cell::RefCell::new(&mut seen));
    runner
        .run(&steps(), |steps| {
            let found = runtime.block_on(played.borrow_mut().play(steps).boxed());
            sent.borrow_mut().extend(found);
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        world.tasks.close();
        world.tasks.wait().await;
        world.tracker.close();
        world.sequencer.close();
        world.tracker.wait().await;
    });
    check(&runtime, &world, &seen);
}

/// Its process lives, and holds its lease: nobody else would close it.
#[test]
fn a_call_whose_task_fails_is_given_up() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut setup = Service::setup(Store::Sqlite);
    for (url, deployment) in PLAYED {
        setup = setup.backend(deployment, url);
    }
    runtime.block_on(async {
        let site = setup.prepare().await;
        let world = World::at(&site).await;
        let moods = Mutex::new([Mood::Panics; 3]);
        let adversary = Arc::new(Adversary { moods, seen: Mutex::default() });
        let gate = world.gate(&adversary, &Arc::default());
        Reaper::new(gate.clone(), PROCESS).take_lease().await.unwrap();
        let reply = gate.call(caller(), call(1, 0, 0, false)).await;
        assert!(reply.is_err(), "{reply:?}");
        assert_eq!(world.store.open_dispatches().await.unwrap(), 1);
        let patience = std::time::Instant::now() + Duration::from_secs(5);
        let expired =
            async || world.store.expired_dispatches(world.clock.now(), None, 9).await.unwrap();
        while expired().await.is_empty() {
            assert!(std::time::Instant::now() < patience, "it stays open as long as its process");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Every send, against what the ledger says of its call; and every outcome against its decision.
fn check(runtime: &tokio::runtime::Runtime, world: &World, seen: &[(usize, u64)]) {
    let stored =
        runtime.block_on(world.store.range(lexgate::domain::Seq::new(0), 100_000)).unwrap();
    let (mut allowed, mut decided, mut outcomes) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for record in &stored {
        let entry: Value = serde_json::from_slice(&record.entry).unwrap();
        let body = &entry["body"];
        if entry["kind"] == "decision" {
            let candidates = body["candidates"].as_array().unwrap();
            let may = candidates.iter().filter(|one| one["decision"] == "allow");
            let may: BTreeSet<String> =
                may.map(|one| one["deployment"].as_str().unwrap().to_owned()).collect();
            let number = body["call"]["data"]["subject_count"].as_u64().unwrap();
            if body["dispatch"] == true {
                decided.insert(entry["seq"].as_u64().unwrap(), (number, may.clone()));
            }
            assert!(allowed.insert(number, may).is_none(), "call {number} was decided twice");
        } else if entry["kind"] == "outcome" {
            let seq = body["decision"]["seq"].as_u64().unwrap();
            assert!(
                outcomes.insert(seq, body.clone()).is_none(),
                "decision {seq} has two outcomes"
            );
        }
    }
    for (at, number) in seen {
        let deployment = PLAYED[*at].1;
        let may = allowed.get(number).unwrap_or_else(|| panic!("call {number} has no decision"));
        assert!(
            may.contains(deployment),
            "call {number} went to {deployment}, allowed was {may:?}"
        );
    }
    for (seq, (number, may)) in &decided {
        let outcome = outcomes.get(seq).unwrap_or_else(|| panic!("decision {seq} has no outcome"));
        for attempt in outcome["attempts"].as_array().unwrap() {
            let deployment = attempt["deployment"].as_str().unwrap();
            assert!(may.contains(deployment), "{outcome}");
        }
        let sent = seen.iter().filter(|(_, of)| of == number).count();
        // One attempt may have been given up before it was sent.
        let recorded = outcome["attempts"].as_array().unwrap().len();
        assert!(recorded == sent || recorded == sent + 1, "{number}: {sent} sent, {outcome}");
    }
    assert_eq!(decided.len(), outcomes.len());
    // The test has shown something: calls went everywhere, and some found a way around a failure.
    for (at, played) in PLAYED.iter().enumerate() {
        assert!(seen.iter().any(|(seen, _)| *seen == at), "nothing went to {}", played.1);
    }
    let some = |what: &str, count: usize| {
        let shown = outcomes
            .values()
            .any(|outcome| outcome[what].as_array().is_some_and(|all| all.len() >= count));
        assert!(shown, "no outcome has {count} {what}");
    };
    some("attempts", 2);
    some("skipped", 1);
    assert!(decided.len() > 50, "{}", decided.len());
}
