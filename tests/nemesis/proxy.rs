//! The network between the services and Postgres: a TCP proxy that delays, drops, cuts and is
//! switched over to another server.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Passes,
    /// Connections are open and nothing comes through, as behind a firewall that drops packets.
    Drops,
    /// Each piece is late.
    Delays(Duration),
    /// No connection is taken, and those that are open end at once.
    Refuses,
    /// So many bytes of the next piece come through, then the connection ends.
    CutsAfter(usize),
}

/// A proxy on a port of its own. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) port: u16,
    link: watch::Sender<Link>,
    target: Arc<Mutex<u16>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let (link, seen) = watch::channel(Link::Passes);
        let target = Arc::new(Mutex::new(target));
        let (to, mut tasks) = (target.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                if *seen.borrow() == Link::Refuses {
                    continue;
                }
                let port = *to.lock().unwrap_or_else(PoisonError::into_inner);
                connections.spawn(connection(stream, port, seen.clone()));
            }
        });
        Self { port, link, target, _tasks: tasks }
    }

    pub(super) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Ends every connection; the next ones go to `port`.
    pub(super) fn switch_to(&self, port: u16) {
        self.set(Link::Refuses);
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = port;
    }
}

async fn connection(stream: TcpStream, port: u16, seen: watch::Receiver<Link>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (stream.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (stream.into_split(), server.into_split());
    let other = seen.clone();
    // Where one direction ends, both do.
    tokio::select! {
        () = pump(from_client, to_server, seen) => {}
        () = pump(from_server, to_client, other) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut seen: watch::Receiver<Link>,
) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            ended = refused(&mut seen) => return ended,
        };
        let Ok(length @ 1..) = read else { return };
        let link = *seen.borrow_and_update();
        let length = match link {
            Link::Passes => length,
            Link::Refuses => return,
            Link::Delays(time) => {
                tokio::time::sleep(time).await;
                length
            }
            Link::Drops => {
                // What was on its way arrives when the network is back, if the ends still wait.
                while *seen.borrow_and_update() == Link::Drops {
                    if seen.changed().await.is_err() {
                        return;
                    }
                }
                length
            }
            Link::CutsAfter(bytes) => {
                let _ = to.write_all(&piece[..length.min(bytes)]).await;
                return;
            }
        };
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

async fn refused(seen: &mut watch::Receiver<Link>) {
    while *seen.borrow_and_update() != Link::Refuses {
        if seen.changed().await.is_err() {
            return;
        }
    }
}
