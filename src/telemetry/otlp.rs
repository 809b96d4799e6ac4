//! Exporting spans to a collector: OTLP over HTTP, in batches, behind the calls. Whatever becomes of the
//! collector, no call waits for it or fails by it. Not which spans there are (`trace`).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use tokio::runtime::Handle;

/// How long a connection to the collector may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one batch may take, with all that is tried again.
const BATCH: Duration = Duration::from_secs(5);
/// How long the last spans may take when the service ends.
const FLUSH: Duration = Duration::from_secs(2);
/// The largest answer that is taken from a collector.
const MAX_ANSWER: usize = 1 << 20;
/// How often a log may say that the collector does not answer.
const COMPLAIN: Duration = Duration::from_secs(300);

/// Where spans go, and how many of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// The whole address, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// Of the traces that begin here, how many are kept: 0 to 1. Unset: as `OTEL_TRACES_SAMPLER` says,
    /// else all. A trace that a caller began is kept when the caller keeps it.
    pub sample_ratio: Option<f64>,
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// TLS cannot be set up.
    #[error("the client for the collector cannot be made")]
    Client(#[source] reqwest::Error),
    /// A setting of the environment is of no use.
    #[error("spans cannot be exported")]
    Exporter(#[source] ExporterBuildError),
}

/// The way out for spans, which is closed at the end.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Opens the way to `collector`, on the runtime that this is called on.
    pub(super) fn start(collector: &Collector) -> Result<Self, ExportError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new()?)
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&collector.url)
            .with_timeout(BATCH)
            .build()
            .map_err(ExportError::Exporter)?;
        let outlet = Outlet { exporter, silence: Mutex::default() };
        // Its queue holds 2,048 spans and drops what comes on top.
        let mut provider =
            SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(outlet);
        if let Some(ratio) = collector.sample_ratio {
            let sampler = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(sampler)));
        }
        Ok(Self(provider.build()))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("lexgate")
    }

    /// Sends what is still queued, within two seconds.
    pub async fn finish(self) {
        let flushed = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH));
        if !matches!(flushed.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

/// Who exports: what the environment says of it, else `lexgate`.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let found = Resource::builder().with_attribute(version.clone()).build();
    let name = found.get(&"service.name".into());
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return found;
    }
    Resource::builder().with_attribute(version).with_service_name("lexgate").build()
}

/// Says it when spans are lost, though not of each of them.
#[derive(Debug)]
struct Outlet {
    exporter: opentelemetry_otlp::SpanExporter,
    silence: Mutex<Silence>,
}

/// What was not said yet.
#[derive(Debug, Default)]
struct Silence {
    /// When it was last said that spans are lost; `None` while all is well.
    since: Option<Instant>,
    lost: usize,
}

impl SpanExporter for Outlet {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        match &exported {
            Ok(()) if silence.since.is_some() => {
                tracing::info!(lost = silence.lost, "spans are exported again");
                *silence = Silence::default();
            }
            Ok(()) => {}
            Err(error) => {
                silence.lost += spans;
                if silence.since.is_none_or(|since| since.elapsed() >= COMPLAIN) {
                    silence.since = Some(Instant::now());
                    tracing::warn!(%error, lost = silence.lost, "spans cannot be exported");
                }
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The client that speaks to the collector, and to nobody else.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    /// Batches are sent from a thread of their own, which has no runtime.
    runtime: Handle,
}

impl Client {
    fn new() -> Result<Self, ExportError> {
        // A second call finds the provider installed already, by itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(BATCH)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(ExportError::Client)?;
        Ok(Self { client, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let request = reqwest::Request::try_from(request)?;
        // No task of the lifecycle: the last spans go out when its tasks have ended.
        let sent = self.runtime.spawn(async move {
            let mut response = client.execute(request).await?;
            let mut answer = Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                headers.clone_from(response.headers());
            }
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await? {
                // A collector says little; what says more is none.
                if body.len() + piece.len() > MAX_ANSWER {
                    return Err("the answer is too large to be a collector's".into());
                }
                body.extend_from_slice(&piece);
            }
            Ok::<_, HttpError>(answer.body(body.into())?)
        });
        sent.await?
    }
}
