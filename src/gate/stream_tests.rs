//! The last word of a stream that breaks, however slowly its client reads; and what a client hears while
//! it waits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Budget,
    call::pieces,
    content::Sent,
    stream::{KEEPALIVE, Pump, Reader, STILL_HERE, begin},
};
use crate::{
    dispatch::Endpoint,
    facts::{BackendAddress, BreakerSettings, Timeouts},
    ledger::OutcomeStatus,
};

/// How many pieces wait for the client.
const BUFFER: usize = 4;

fn address() -> BackendAddress {
    BackendAddress {
        base_url: "http://127.0.0.1:9/v1".parse().unwrap(),
        model: "m".to_owned(),
        served_as: Vec::new(),
        api: None,
        usage_in_streams: true,
        key: None,
        ca_file: None,
        timeouts: Timeouts::default(),
        breaker: BreakerSettings::default(),
        probe_interval: None,
        tenant: None,
        max_waiting: None,
    }
}

/// What a client reads that begins only once the pump can do no more, and how the stream ended.
async fn read_late(events: usize, end: &'static str) -> (Vec<String>, OutcomeStatus) {
    let (client, mut received) = pieces(BUFFER, Arc::new(Budget::new(8 << 20)), "desk");
    let come: Vec<_> = (0..events)
        .map(|n| Ok(Bytes::from(format!("data: {{\"n\":{n}}}\n\n"))))
        .chain([Ok(Bytes::from_static(end.as_bytes()))])
        .collect();
    let halt = CancellationToken::new();
    let mut sent = Sent::default();
    let address = address();
    let reader = Reader::new(stream::iter(come).boxed(), &Arc::new(Budget::new(8 << 20)), "desk");
    let begun = begin(Endpoint::ChatCompletions, &address, reader);
    let begun = begun.await.unwrap_or_else(|why| panic!("{why:?}"));
    let pump =
        Pump::new(client, Endpoint::ChatCompletions, &address, false).run(begun, &halt, &mut sent);
    let read = async {
        // The pump runs first, until it waits for this client or has ended.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let mut read = Vec::new();
        while let Some(piece) = received.recv().await {
            read.push(String::from_utf8(piece.to_vec()).unwrap());
        }
        read
    };
    let (pumped, read) = tokio::join!(pump, read);
    (read, pumped.status)
}

#[tokio::test]
async fn a_slow_client_hears_that_the_stream_broke() {
    for events in 1..3 * BUFFER {
        let (read, status) = read_late(events, "").await;
        assert_eq!(status, OutcomeStatus::UpstreamError);
        let (last, before) = read.split_last().expect("there is a last word");
        assert!(last.contains("\"error\""), "after {events} events: {read:?}");
        assert_eq!(before.len(), events);
    }
}

#[tokio::test]
async fn a_slow_client_gets_all_of_a_whole_stream() {
    for events in 0..3 * BUFFER {
        let (read, status) = read_late(events, "data: [DONE]\n\n").await;
        assert_eq!(status, OutcomeStatus::Ok);
        assert_eq!(read.len(), events + 1);
        assert_eq!(read.last().unwrap(), "data: [DONE]\n\n");
    }
}

#[tokio::test]
async fn what_this_process_cuts_off_is_not_the_backend_s_fault() {
    for endpoint in [Endpoint::ChatCompletions, Endpoint::Responses, Endpoint::Messages] {
        let (client, mut received) = pieces(BUFFER, Arc::new(Budget::new(8 << 20)), "desk");
        let first = stream::iter([Ok(Bytes::from_static(b"data: {\"n\":0}\n\n"))]);
        let come = first.chain(stream::pending()).boxed();
        let (halt, mut sent, address) = (CancellationToken::new(), Sent::default(), address());
        let reader = Reader::new(come, &Arc::new(Budget::new(8 << 20)), "desk");
        let begun = begin(endpoint, &address, reader).await;
        let begun = begun.unwrap_or_else(|why| panic!("{why:?}"));
        let pump = Pump::new(client, endpoint, &address, false).run(begun, &halt, &mut sent);
        let read = async {
            let mut read = Vec::new();
            while let Some(piece) = received.recv().await {
                read.push(String::from_utf8(piece.to_vec()).unwrap());
                halt.cancel();
            }
            read
        };
        let (pumped, read) = tokio::join!(pump, read);
        assert_eq!((pumped.status, pumped.failure), (OutcomeStatus::Unknown, None), "{endpoint:?}");
        let last = read.last().expect("there is a last word");
        assert!(last.contains("the service is shutting down"), "{last}");
        assert!(!last.contains("backend") && last.ends_with("\n\n"), "{last}");
    }
}

/// In real time: it takes as long as a client is left without a word.
#[tokio::test]
async fn a_client_that_waits_is_told_that_the_stream_goes_on() {
    let (client, mut received) = pieces(BUFFER, Arc::new(Budget::new(8 << 20)), "desk");
    let first = stream::iter([Ok(Bytes::from_static(b"data: {\"n\":0}\n\n"))]);
    let last = stream::once(async {
        sleep(KEEPALIVE + Duration::from_secs(1)).await;
        Ok(Bytes::from_static(b"data: [DONE]\n\n"))
    });
    let (halt, mut sent, address) = (CancellationToken::new(), Sent::default(), address());
    let reader = Reader::new(first.chain(last).boxed(), &Arc::new(Budget::new(8 << 20)), "desk");
    let begun = begin(Endpoint::ChatCompletions, &address, reader).await;
    let begun = begun.unwrap_or_else(|why| panic!("{why:?}"));
    let pump = Pump::new(client, Endpoint::ChatCompletions, &address, false);
    let read = async {
        let mut read = Vec::new();
        while let Some(piece) = received.recv().await {
            read.push(piece);
        }
        read
    };
    let (pumped, read) = tokio::join!(pump.run(begun, &halt, &mut sent), read);
    assert_eq!(pumped.status, OutcomeStatus::Ok);
    assert_eq!(read, [&b"data: {\"n\":0}\n\n"[..], STILL_HERE, b"data: [DONE]\n\n"]);
}
