//! Taking connections: how many, from where, for how long, and what becomes of those for which there is
//! no room. Not what is asked on them (`router`).

mod files;
mod places;
mod watched;

use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{
    Request, Response, body::Incoming, server::conn::http1, service::Service as HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use places::{Place, Places, Taken, Times};
use watched::{Answer, Watched};

/// How often it is looked for connections whose time is over.
const SWEEP: Duration = Duration::from_millis(250);
/// How long a connection must have been idle before it goes for another one.
const SETTLED: Duration = Duration::from_secs(1);
/// The pause when the system has nothing left for a new connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How many clients are told at once that there is no room, and how long each may listen.
const TOLD: usize = 32;
const LISTENS: Duration = Duration::from_secs(1);
/// What they are told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 27\r\n\r\ntoo many connections: wait\n";

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How long a connection may be idle, and a client not read its answer.
    pub idle_timeout: Duration,
    /// How many may be open; what the limit of open files allows when unset.
    pub max_connections: Option<u32>,
    /// How many of one address; a quarter when unset.
    pub max_connections_per_address: Option<u32>,
}

/// Serves `router` on `listener` until `draining` fires and every request that had begun is answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    draining: CancellationToken,
) {
    let most = files::connections(files::raise_limit(), bounds.max_connections);
    let per_address =
        bounds.max_connections_per_address.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let (header, idle) = (bounds.header_timeout, bounds.idle_timeout);
    let times = Times { header, idle, settled: SETTLED };
    let places = Arc::new(Places::new(most, per_address, times));
    let door = Door {
        places,
        connections: TaskTracker::new(),
        refusals: TaskTracker::new(),
        // As it is, the router would be copied for each connection.
        router: router.with_state(()),
        patience: bounds.idle_timeout,
        draining,
    };
    door.keep(listener).await;
}

struct Door {
    places: Arc<Places>,
    connections: TaskTracker,
    refusals: TaskTracker,
    router: Router,
    patience: Duration,
    draining: CancellationToken,
}

impl Door {
    async fn keep(self, listener: TcpListener) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.draining.cancelled() => break,
                _ = sweep.tick() => {
                    self.places.sweep(false);
                    let open = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                    metrics::gauge!("lexgate_connections").set(f64::from(open));
                }
                accepted = listener.accept() => self.accepted(accepted).await,
            }
        }
        drop(listener);
        self.connections.close();
        loop {
            tokio::select! {
                () = self.connections.wait() => return,
                _ = sweep.tick() => self.places.sweep(true),
            }
        }
    }

    async fn accepted(&self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => match self.places.take(peer.ip()) {
                Some(taken) => self.open(stream, taken),
                None => self.refuse(stream),
            },
            // The client has gone already.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                // Mostly that there is no file left: someone who only waits gives his away.
                tracing::warn!(%error, "a connection could not be accepted");
                self.places.make_room();
                sleep(PAUSE).await;
            }
        }
    }

    fn open(&self, stream: TcpStream, taken: Taken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let place = taken.place.clone();
        let service = Answering { router: self.router.clone(), place: place.clone() };
        let stream = TokioIo::new(Watched::new(stream, place, self.patience));
        let draining = self.draining.clone();
        self.connections.spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                // Its place knows better how long a header may take, and how long a rest.
                .header_read_timeout(None)
                .serve_connection(stream, service);
            let mut served = std::pin::pin!(served);
            let mut ending = false;
            loop {
                tokio::select! {
                    ended = served.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection broke off");
                        }
                        break;
                    }
                    () = taken.place.ended() => break,
                    () = draining.cancelled(), if !ending => {
                        ending = true;
                        served.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }

    /// Tells a client that there is no room; one of too many is told nothing.
    fn refuse(&self, mut stream: TcpStream) {
        metrics::counter!("lexgate_connections_refused_total").increment(1);
        if self.refusals.len() >= TOLD {
            return;
        }
        self.refusals.spawn(async move {
            let told = async {
                stream.write_all(FULL).await?;
                stream.shutdown().await?;
                // A connection that is closed over unread bytes is reset, and its answer lost.
                let mut nowhere = [0; 4096];
                while stream.read(&mut nowhere).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = timeout(LISTENS, told).await;
        });
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The router, for one connection.
struct Answering {
    router: Router,
    place: Arc<Place>,
}

impl HttpService<Request<Incoming>> for Answering {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let serving = self.place.serve();
        let answering = self.router.clone().call(request.map(Body::new));
        Box::pin(async move {
            let response = answering.await?;
            Ok(response.map(|body| Answer { body, _serving: serving }))
        })
    }
}
