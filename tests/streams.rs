//! Streams: what breaks never looks complete, whoever leaves frees the other, and a connection whose
//! stream has ended is used again.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, routing::post};
use futures_util::{StreamExt, stream::iter};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    backend::{Backend, Step, chunk, event, events, piece, stream, stream_end, stream_head},
    gateway::{
        CHAT, HARMLESS, chat, data, eventually, nothing_is_open, outcomes, statuses, streamed, with,
    },
    harness::{Service, Store, both_stores, with_json},
};

both_stores! {
    async fn a_broken_stream_never_looks_complete(store: Store) {
        let backend = Backend::start(|seen| {
            let mut steps = vec![stream_head(), piece(chunk("one ")), piece(chunk("two"))];
            match seen.json()["metadata"]["play"].as_str().unwrap() {
                "cut" => {}
                "ends" => steps.push(stream_end()),
                "half_event" => steps.extend([piece("data: {\"choices\":"), stream_end()]),
                "half_character" => steps.extend([piece(b"data: \xc3"), stream_end()]),
                "endless_event" => {
                    // More than a whole answer may have.
                    steps.extend(std::iter::repeat_n(piece(vec![b'x'; 1 << 20]), 34));
                    steps.push(Step::Hang);
                }
                "error" => {
                    steps.push(piece(event(&json!({ "error": { "message": "no memory" } }))));
                    steps.push(stream_end());
                }
                scenario => panic!("{scenario}"),
            }
            steps
        })
        .await;
        let service =
            with(store, &backend).reached("smollm2@laptop", "breaker_failures = 100").start().await;
        for scenario in ["cut", "ends", "half_event", "half_character", "endless_event", "error"] {
            let mut body = streamed("assistant");
            body["metadata"] = json!({ "play": scenario });
            let answer = service.openai(CHAT, &HARMLESS, &body).await;
            assert_eq!(answer.status, 200);
            let text = answer.text();
            let expected = format!("{}{}", chunk("one "), chunk("two"));
            let rest = text.strip_prefix(&expected).unwrap_or_else(|| panic!("{scenario}: {text}"));
            let last = data(rest).last().map(|text| serde_json::from_str::<Value>(text).unwrap());
            let last = last.unwrap_or_else(|| panic!("{scenario}: {text}"));
            assert_eq!(last["error"]["type"], "upstream_error", "{scenario}: {text}");
            assert!(!text.contains("[DONE]"), "{scenario}: {text}");
        }
        assert!(statuses(&outcomes(&service).await).iter().all(|status| *status == "upstream_error"));
        nothing_is_open(&service).await;
    }

    async fn a_stream_may_be_cut_anywhere(store: Store) {
        let text: String = [chunk("é€😀"), chunk("ü"), "data: [DONE]\n\n".to_owned()].concat();
        let bytes = text.clone().into_bytes();
        let backend = Backend::start(move |_| {
            let pieces = bytes.iter().map(|byte| piece([*byte]));
            let steps = std::iter::once(stream_head()).chain(pieces);
            // What follows the end is not waited for.
            steps.chain([Step::Hang]).collect()
        })
        .await;
        let service = with(store, &backend).start().await;
        let answer = service.openai(CHAT, &HARMLESS, &streamed("assistant")).await;
        assert_eq!(answer.text(), text);
        assert_eq!(statuses(&outcomes(&service).await), ["ok"]);
        eventually("the backend's connection is freed", || backend.freed() == 1).await;
    }

    async fn usage_beside_content_is_for_who_asked(store: Store) {
        let last = |usage: &str| format!("data: {{\"model\":\"served-model\",\"choices\":[{{\"delta\":{{}}}}]{usage}}}\n\n");
        let counted = last(",\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}");
        let told = counted.clone();
        let backend = Backend::start(move |_| {
            stream(&[chunk("Good morning"), told.clone(), "data: [DONE]\n\n".to_owned()])
        })
        .await;
        let service = with(store, &backend).start().await;
        let read = async |body: &Value| service.openai(CHAT, &HARMLESS, body).await.text();
        let text = read(&streamed("assistant")).await;
        assert_eq!(text, [&*chunk("Good morning"), &last(""), "data: [DONE]\n\n"].concat());
        let mut asking = streamed("assistant");
        asking["stream_options"] = json!({ "include_usage": true });
        assert!(read(&asking).await.contains(&counted));
        for outcome in outcomes(&service).await {
            assert_eq!(outcome["tokens"], json!({ "input": 11, "output": 7 }));
        }
    }

    async fn what_follows_the_end_is_not_read_for_long(store: Store) {
        const OFFERED: usize = 64 << 20;
        let backend = Backend::start(|_| {
            let rest = piece(vec![b'x'; 64 << 10]);
            let events = [stream_head(), piece(events().concat())];
            events.into_iter().chain(vec![rest; OFFERED / (64 << 10)]).collect()
        })
        .await;
        let service = with(store, &backend).start().await;
        let answer = service.openai(CHAT, &HARMLESS, &streamed("assistant")).await;
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
        eventually("the backend's connection is freed", || backend.open() == 0).await;
        // What is read, and what the system keeps for a connection.
        assert!(backend.written() < 20 << 20, "{} bytes were taken", backend.written());
        assert_eq!(statuses(&outcomes(&service).await), ["ok"]);
    }

    async fn a_client_that_leaves_frees_the_backend(store: Store) {
        let backend = Backend::start(|seen| {
            if seen.json()["stream"] == true {
                vec![stream_head(), piece(chunk("one")), Step::Hang]
            } else {
                vec![Step::Hang]
            }
        })
        .await;
        let service = with(store, &backend).start().await;
        let call = |body: &Value| {
            let request = service.request("POST", CHAT, "caller");
            with_json(request.header("x-lexgate-personal", "false"), body)
        };
        let answer = call(&streamed("assistant")).send().await.unwrap();
        let mut pieces = answer.bytes_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), chunk("one"));
        drop(pieces);
        eventually("a broken stream is noticed", || backend.freed() == 1).await;
        let short = Duration::from_millis(300);
        let answer = call(&chat("assistant")).timeout(short).send().await;
        assert!(answer.unwrap_err().is_timeout());
        eventually("a client that waits no more is noticed", || backend.freed() == 2).await;
        let outcomes = outcomes(&service).await;
        assert_eq!(statuses(&outcomes), ["client_disconnected", "client_disconnected"]);
        assert_eq!(backend.seen().len(), 2, "nobody waits: nothing else is tried");
        nothing_is_open(&service).await;
    }
}

/// A backend that ends its body a moment after the last event, and keeps its connections open: each call
/// comes over one that it knows.
#[tokio::test]
async fn sqlite_the_connection_of_a_finished_stream_is_used_again() {
    let callers = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let seen = callers.clone();
    let answer = async move |ConnectInfo(caller): ConnectInfo<SocketAddr>| {
        seen.lock().unwrap().push(caller);
        let pieces = iter(events().into_iter().chain([String::new()])).then(async |piece| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, Infallible>(piece)
        });
        ([("content-type", "text/event-stream")], Body::from_stream(pieces))
    };
    let app = Router::new().route(CHAT, post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await });
    let service = Service::setup(Store::Sqlite).backend("smollm2@laptop", &url).start().await;
    for _ in 0..6 {
        let request = service.request("POST", CHAT, "caller").header("x-lexgate-personal", "false");
        let answer = with_json(request, &streamed("assistant")).send().await.unwrap();
        assert!(answer.text().await.unwrap().ends_with("data: [DONE]\n\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let callers = callers.lock().unwrap();
    let distinct: BTreeSet<_> = callers.iter().collect();
    // One may be of the question who it is.
    assert!(callers.len() == 6 && distinct.len() <= 2, "{callers:?}");
}
