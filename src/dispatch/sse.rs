//! Server-sent events, cut out of the pieces in which they arrive (WHATWG HTML, section 9.2).

use bytes::{Bytes, BytesMut};

use super::SendError;

/// The largest event that is taken.
const MAX_EVENT: usize = 1 << 20;

/// One event, with the blank line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(Bytes);

impl Event {
    /// The event as it was sent.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// What follows `data:`, several lines joined by line feeds; `None` for a mere comment.
    #[must_use]
    pub fn data(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let lines: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Collects pieces until they hold whole events.
#[derive(Debug, Default)]
pub struct Events {
    held: BytesMut,
    /// How much of it is known to hold no end of an event: whole lines only.
    seen: usize,
}

impl Events {
    /// Adds what has arrived.
    ///
    /// # Errors
    /// When an event grows beyond what is taken.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SendError> {
        if self.held.len() + piece.len() > 2 * MAX_EVENT {
            return Err(SendError::TooLarge(MAX_EVENT));
        }
        self.held.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Option<Event> {
        match event_end(&self.held, self.seen) {
            Ok(end) => {
                self.seen = 0;
                Some(Event(self.held.split_to(end).freeze()))
            }
            Err(seen) => {
                self.seen = seen;
                None
            }
        }
    }

    /// Whether nothing of an unfinished event is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.iter().all(u8::is_ascii_whitespace)
    }
}

/// Where the first event ends: after a blank line, lines ending in LF or CRLF as every backend
/// writes them. Else the start of the last line, from where to look when there is more.
fn event_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut line_start = from;
    for (index, byte) in bytes.iter().enumerate().skip(from) {
        if *byte == b'\n' {
            let line = bytes.get(line_start..index).unwrap_or_default();
            if line_start > 0 && (line.is_empty() || line == b"\r") {
                return Ok(index + 1);
            }
            line_start = index + 1;
        }
    }
    Err(line_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Vec<Option<String>> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for piece in pieces {
            events.push(piece.as_bytes()).unwrap();
            while let Some(event) = events.next_event() {
                found.push(event.data());
            }
        }
        assert!(events.is_empty());
        found
    }

    #[test]
    fn events_do_not_depend_on_how_they_are_cut() {
        let want = vec![Some("{\"a\":1}".to_owned()), None, Some("[DONE]".to_owned())];
        let text = "data: {\"a\":1}\n\n: keepalive\n\ndata: [DONE]\n\n";
        assert_eq!(read(&[text]), want);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(read(&letters.iter().map(String::as_str).collect::<Vec<_>>()), want);
        assert_eq!(read(&[&text.replace('\n', "\r\n")]), want);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut events = Events::default();
        let piece = vec![b'x'; MAX_EVENT];
        assert!(events.push(&piece).is_ok());
        assert!(events.push(&piece).is_ok());
        assert!(matches!(events.push(b"x"), Err(SendError::TooLarge(_))));
    }
}
