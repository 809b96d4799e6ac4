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
    /// Where the line begins that has no end yet.
    line: usize,
    /// Up to where no end of it was found: nothing is looked at twice, however small the pieces are.
    seen: usize,
}

impl Events {
    /// Adds what has arrived.
    ///
    /// # Errors
    /// When an event grows beyond what is taken, or a line ends in a mere carriage return: no backend
    /// writes that, and a client would see events where none were looked at.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SendError> {
        let ends_no_line = |next: Option<&u8>| next.is_some_and(|byte| *byte != b'\n');
        let held = self.held.last() == Some(&b'\r') && ends_no_line(piece.first());
        let mut returns = memchr::memchr_iter(b'\r', piece);
        if held || returns.any(|at| ends_no_line(piece.get(at + 1))) {
            return Err(SendError::NoEvents);
        }
        if self.held.len() + piece.len() > 2 * MAX_EVENT {
            return Err(SendError::TooLarge(MAX_EVENT));
        }
        self.held.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole event: up to a blank line, lines ending in LF or CRLF as every backend writes
    /// them.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let unseen = self.held.get(self.seen..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', unseen) else {
                self.seen = self.held.len();
                return None;
            };
            let end = self.seen + end;
            let line = self.held.get(self.line..end).unwrap_or_default();
            let is_last = self.line > 0 && (line.is_empty() || line == b"\r");
            (self.line, self.seen) = (end + 1, end + 1);
            if is_last {
                (self.line, self.seen) = (0, 0);
                return Some(Event(self.held.split_to(end + 1).freeze()));
            }
        }
    }

    /// Whether nothing of an unfinished event is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.iter().all(u8::is_ascii_whitespace)
    }
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
    fn a_mere_carriage_return_ends_no_line() {
        let hidden: [&[&str]; 3] =
            [&[": x\r\rdata: [DONE]\r\r\n\n"], &[": x\r", "\rdata"], &[": x\r", "data"]];
        for pieces in hidden {
            let mut events = Events::default();
            let mut pushed = pieces.iter().map(|piece| events.push(piece.as_bytes()));
            assert!(pushed.any(|pushed| matches!(pushed, Err(SendError::NoEvents))), "{pieces:?}");
        }
        assert_eq!(read(&["data: 1\r", "\n\r", "\n"]), [Some("1".to_owned())]);
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
