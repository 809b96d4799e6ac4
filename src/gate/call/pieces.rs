//! The pieces of a streamed answer on their way to its client: some of them, and not too many bytes of
//! them, wait for one that reads slowly.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, OwnedPermit},
};

use super::{Budget, Room};

/// How many bytes wait for a client; one piece alone may be larger.
const BYTES: u32 = 256 << 10;
/// From how many bytes on a piece is counted among the answers under way.
pub(in crate::gate) const LARGE: usize = 64 << 10;

/// The pieces of an answer. They end when the answer has.
#[derive(Debug)]
pub struct Pieces(mpsc::Receiver<Piece>);

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
    _held: Option<Room>,
}

/// Where the pieces of an answer go.
#[derive(Clone, Debug)]
pub(in crate::gate) struct PieceSender {
    pieces: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
    budget: Arc<Budget>,
    holder: Arc<str>,
}

/// A place kept free for one piece.
#[derive(Debug)]
pub(in crate::gate) struct LastWord(OwnedPermit<Piece>);

/// The client has gone.
#[derive(Clone, Copy, Debug)]
pub(in crate::gate) struct Gone;

/// A way for `buffer` pieces at once; large ones take room of `budget`, for `holder`.
pub(in crate::gate) fn pieces(
    buffer: usize,
    budget: Arc<Budget>,
    holder: &str,
) -> (PieceSender, Pieces) {
    let (sender, receiver) = mpsc::channel(buffer);
    let room = usize::try_from(BYTES).unwrap_or(usize::MAX >> 3);
    let room = Arc::new(Semaphore::new(room));
    (PieceSender { pieces: sender, room, budget, holder: holder.into() }, Pieces(receiver))
}

impl Pieces {
    /// The next piece.
    pub async fn recv(&mut self) -> Option<Bytes> {
        Some(self.0.recv().await?.bytes)
    }
}

impl PieceSender {
    /// Hands over a piece, as soon as there is room for it; a large one with the room `held` for it, which
    /// stays taken while the client is waited for.
    pub(in crate::gate) async fn send(&self, bytes: Bytes, held: Option<Room>) -> Result<(), Gone> {
        let mut held = held.filter(|_| bytes.len() >= LARGE);
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(BYTES);
        let room = self.room.clone().acquire_many_owned(wanted).await.ok();
        if bytes.len() >= LARGE {
            let held = held.get_or_insert_with(|| self.budget.holder(&self.holder));
            held.need(bytes.len()).await;
        }
        self.pieces.send(Piece { bytes, _room: room, _held: held }).await.map_err(|_| Gone)
    }

    /// Hands over a short piece, if there is room for it now.
    pub(in crate::gate) fn try_send(&self, bytes: Bytes) {
        let _ = self.pieces.try_send(Piece { bytes, _room: None, _held: None });
    }

    /// Comes back once the client has gone.
    pub(in crate::gate) async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// A place kept free for a last piece, where one is free.
    pub(in crate::gate) fn last_word(&self) -> Option<LastWord> {
        self.pieces.clone().try_reserve_owned().ok().map(LastWord)
    }
}

impl LastWord {
    /// Takes the place.
    pub(in crate::gate) fn send(self, bytes: Bytes) {
        self.0.send(Piece { bytes, _room: None, _held: None });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_few_bytes() {
        let budget = Arc::new(Budget::new(8 << 20));
        let (sender, mut received) = pieces(32, budget.clone(), "desk");
        let event = Bytes::from(vec![b'x'; 1 << 20]);
        let mut sent = 0;
        let soon = Duration::from_millis(20);
        while timeout(soon, sender.send(event.clone(), None)).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 1, "one large piece waits by itself");
        assert_eq!(budget.free(), 7 << 20, "and is counted");
        assert_eq!(received.recv().await, Some(event));
        assert_eq!(budget.free(), 8 << 20);
        let event = Bytes::from(vec![b'x'; 16 << 10]);
        for _ in 0..16 {
            assert!(timeout(soon, sender.send(event.clone(), None)).await.is_ok());
        }
        assert!(timeout(soon, sender.send(event, None)).await.is_err());
        assert_eq!(budget.free(), 8 << 20, "small ones are not");
    }
}
