//! The body of a request on its way in: at a least pace, and never left unread under an answer.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Error,
    body::Body,
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use super::{Shared, pace::Pace};

/// The least pace of a body, in bytes a second.
const ARRIVES: u32 = 64 << 10;
/// How much of a body that is not wanted is read, and for how long, so that its client hears why.
const UNWANTED: usize = 64 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// Watches over the body of a request. What of it was not read is read before the answer goes out: a
/// connection that is closed over unread bytes is reset, and its client never sees the answer.
pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Such a client sends its body only when it is asked to.
    let waits = request.headers().contains_key(header::EXPECT);
    let rest = Rest::default();
    let pace = Pace::new(shared.bodies.patience, ARRIVES);
    let guarded = |body| {
        let (body, rest) = (Some(body), rest.clone());
        Body::new(Guarded { body, pace, touched: false, ended: false, rest })
    };
    let response = next.run(request.map(guarded)).await;
    let left = rest.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(left) = left.filter(|left| left.touched || !waits) {
        let reading = throw_away(left.body);
        let _ = tokio::time::timeout(UNWANTED_TIME, reading).await;
    }
    response
}

async fn throw_away(mut body: Body) {
    let mut room = UNWANTED;
    while let Some(Ok(frame)) = next_frame(&mut body).await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if bytes > room {
            return;
        }
        room -= bytes;
    }
}

/// The next part of a body.
pub(super) async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Whether a body failed because it came too slowly.
pub(super) fn is_slow(error: &Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What nobody has read of a body.
#[derive(Clone, Debug, Default)]
struct Rest(Arc<Mutex<Option<Left>>>);

#[derive(Debug)]
struct Left {
    body: Body,
    touched: bool,
}

/// A body at a least pace. What is left of it when it is dropped goes into `rest`.
#[derive(Debug)]
struct Guarded {
    body: Option<Body>,
    pace: Pace,
    touched: bool,
    ended: bool,
    rest: Rest,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.touched = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
            ready!(self.pace.stalls(context));
            self.ended = true;
            return Poll::Ready(Some(Err(Error::new(io::Error::from(io::ErrorKind::TimedOut)))));
        };
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.pace.moves(bytes);
                self.ended = self.body.as_ref().is_some_and(HttpBody::is_end_stream);
            }
            Some(Err(_)) | None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|_| !self.ended) else { return };
        let left = Left { body, touched: self.touched };
        *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
    }
}
