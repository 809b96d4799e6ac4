//! The body of a request on its way out: not one byte of it leaves before its permit holds, whatever went
//! before took how long. Not who gives the permit (`gate`).

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// How much of a body is handed over at a time: between two pieces it is asked whether it may go on.
const PIECE: usize = 256 << 10;
/// How often a permit is renewed that is past again before the body could be begun.
const RENEWALS: u32 = 3;

/// Whether a request may be sent, asked when connection and key are there.
#[async_trait]
pub trait Permit: fmt::Debug + Send + Sync {
    /// Whether the request may be begun at this instant, as far as it is known without asking. It takes no
    /// time: what it says is acted on at once.
    fn holds(&self) -> bool;

    /// Learns what is not known, in bounded time. Whether the request may be begun then.
    async fn renew(&self) -> bool;

    /// The first byte is handed over.
    fn begun(&self);

    /// Whether a request that was begun may go on.
    fn lasts(&self) -> bool;
}

/// A request was not, or not wholly, sent, because its permit ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the call may not be sent any more")]
pub(super) struct NoPermit;

/// Where a body is.
enum Stage {
    Waiting,
    /// A renewal is awaited; behind a lock only because a body must be `Sync`.
    Asking(Mutex<Pin<Box<dyn Future<Output = bool> + Send>>>),
    Sending,
    Over,
}

/// A body that asks its permit before its first byte. It can be sent once: no library repeats it by itself.
pub(super) struct Outgoing {
    pieces: VecDeque<Bytes>,
    left: u64,
    stage: Stage,
    renewals: u32,
    permit: Arc<dyn Permit>,
    refused: Arc<AtomicBool>,
}

/// Whether a body was refused before its first byte.
#[derive(Clone, Debug)]
pub(super) struct Refused(Arc<AtomicBool>);

impl Refused {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Outgoing {
    /// The body that `pieces` make, none of which is copied.
    pub(super) fn new(pieces: Vec<Bytes>, permit: Arc<dyn Permit>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|one| !one.is_empty()).collect();
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        let refused = Arc::default();
        Self { pieces, left, stage: Stage::Waiting, renewals: 0, permit, refused }
    }

    /// Tells later whether the permit was refused.
    pub(super) fn refused(&self) -> Refused {
        Refused(self.refused.clone())
    }

    fn refuse(&mut self, before_it_began: bool) -> NoPermit {
        self.refused.store(before_it_began, Ordering::Release);
        self.pieces.clear();
        self.stage = Stage::Over;
        NoPermit
    }

    /// The next piece. A long one is handed over in parts.
    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.front_mut()?;
        let part = if piece.len() > PIECE { Some(piece.split_to(PIECE)) } else { None };
        let part = part.or_else(|| self.pieces.pop_front())?;
        self.left -= part.len() as u64;
        Some(part)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = NoPermit;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NoPermit>>> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Waiting if this.permit.holds() => {
                    this.permit.begun();
                    this.stage = Stage::Sending;
                    return Poll::Ready(this.next().map(|piece| Ok(Frame::data(piece))));
                }
                Stage::Waiting if this.renewals == RENEWALS => {
                    return Poll::Ready(Some(Err(this.refuse(true))));
                }
                Stage::Waiting => {
                    this.renewals += 1;
                    let permit = this.permit.clone();
                    let asking = Box::pin(async move { permit.renew().await });
                    this.stage = Stage::Asking(Mutex::new(asking));
                }
                Stage::Asking(asking) => {
                    let asking = asking.get_mut().unwrap_or_else(PoisonError::into_inner);
                    if !ready!(asking.as_mut().poll(context)) {
                        return Poll::Ready(Some(Err(this.refuse(true))));
                    }
                    this.stage = Stage::Waiting;
                }
                Stage::Sending if this.pieces.is_empty() => {
                    this.stage = Stage::Over;
                    return Poll::Ready(None);
                }
                Stage::Sending if !this.permit.lasts() => {
                    return Poll::Ready(Some(Err(this.refuse(false))));
                }
                Stage::Sending => {
                    return Poll::Ready(this.next().map(|piece| Ok(Frame::data(piece))));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.stage {
            Stage::Over => true,
            Stage::Sending => self.left == 0,
            Stage::Waiting | Stage::Asking(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// A permit that must be renewed `renewals` times, and lasts for so many pieces.
    #[derive(Debug)]
    struct Scripted {
        renewals: AtomicU32,
        grants: bool,
        lasts: AtomicU32,
        begun: AtomicBool,
    }

    #[async_trait]
    impl Permit for Scripted {
        fn holds(&self) -> bool {
            self.renewals.load(Ordering::SeqCst) == 0
        }

        async fn renew(&self) -> bool {
            tokio::task::yield_now().await;
            self.renewals.fetch_sub(1, Ordering::SeqCst);
            self.grants
        }

        fn begun(&self) {
            self.begun.store(true, Ordering::SeqCst);
        }

        fn lasts(&self) -> bool {
            let left =
                self.lasts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            left.is_ok()
        }
    }

    /// The pieces that leave, whether it ends well, whether it was begun, and whether it was refused.
    async fn sent(
        renewals: u32,
        grants: bool,
        lasts: u32,
        pieces: &[usize],
    ) -> (Vec<usize>, bool, bool, bool) {
        let permit = Arc::new(Scripted {
            renewals: renewals.into(),
            grants,
            lasts: lasts.into(),
            begun: AtomicBool::new(false),
        });
        let pieces: Vec<Bytes> =
            pieces.iter().map(|length| Bytes::from(vec![7; *length])).collect();
        let all: usize = pieces.iter().map(Bytes::len).sum();
        let mut body = Outgoing::new(pieces, permit.clone());
        assert_eq!(body.size_hint().exact(), Some(all as u64));
        let (refused, mut left) = (body.refused(), Vec::new());
        let is_whole = loop {
            match std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(frame)) => left.push(frame.into_data().unwrap().len()),
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        assert!(body.is_end_stream());
        (left, is_whole, permit.begun.load(Ordering::SeqCst), refused.is_so())
    }

    #[tokio::test]
    async fn no_byte_leaves_before_the_permit_holds() {
        assert_eq!(sent(0, true, 9, &[3, 0, 2]).await, (vec![3, 2], true, true, false));
        assert_eq!(sent(2, true, 9, &[3]).await, (vec![3], true, true, false));
        assert_eq!(sent(1, false, 9, &[3]).await, (vec![], false, false, true));
        // One that is past whenever it was renewed is refused in the end.
        assert_eq!(sent(99, true, 9, &[3]).await, (vec![], false, false, true));
    }

    #[tokio::test]
    async fn a_long_body_stops_where_its_permit_ends() {
        let long = 3 * PIECE + 1;
        let parts = vec![PIECE, PIECE, PIECE, 1];
        assert_eq!(sent(0, true, 9, &[long]).await, (parts, true, true, false));
        assert_eq!(sent(0, true, 1, &[long]).await, (vec![PIECE, PIECE], false, true, false));
    }
}
