//! The body of a request on its way out, in the pieces in which it lies in memory. None is copied.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// How much of a body is handed over at a time.
const PIECE: usize = 256 << 10;

/// A body of several pieces, whose length is known.
#[derive(Debug)]
pub(super) struct Outgoing {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Outgoing {
    pub(super) fn new(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into(), left }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.front_mut() else { return Poll::Ready(None) };
        let part = (piece.len() > PIECE).then(|| piece.split_to(PIECE));
        let part = part.or_else(|| self.pieces.pop_front()).unwrap_or_default();
        self.left -= part.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
