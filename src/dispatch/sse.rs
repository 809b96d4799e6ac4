//! Server-sent events, cut out of the pieces in which they arrive (WHATWG HTML, section 9.2).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::SendError;

/// The largest event that is taken: an image, or the arguments of a tool, may be a whole answer by itself.
pub const MAX_EVENT: usize = 32 << 20;

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
    pub fn data(&self) -> Option<Cow<'_, str>> {
        match String::from_utf8_lossy(&self.0) {
            Cow::Borrowed(text) => data(text),
            Cow::Owned(text) => data(&text).map(|data| Cow::Owned(data.into_owned())),
        }
    }
}

/// One line, which most events have, is not copied.
fn data(text: &str) -> Option<Cow<'_, str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    let all: Vec<&str> = [first, second].into_iter().chain(lines).collect();
    Some(Cow::Owned(all.join("\n")))
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
        // What is held has been looked through for events: it is the beginning of one.
        if self.held.len() > MAX_EVENT {
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

    /// How many bytes are held of an event that is not whole.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What is held where nothing more comes: an event whose last blank line was not sent, with that line.
    /// Whether it is one shows its data.
    pub fn rest(&mut self) -> Option<Event> {
        let held = std::mem::take(self).held;
        let mut text = held.trim_ascii().to_vec();
        text.extend_from_slice(b"\n\n");
        (text.len() > 2).then(|| Event(text.into()))
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
                found.push(event.data().map(Cow::into_owned));
            }
        }
        assert_eq!(events.rest(), None);
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
        assert!(events.push(&vec![b'x'; MAX_EVENT]).is_ok());
        assert!(events.push(b"x").is_ok());
        assert_eq!(events.next_event(), None);
        assert!(matches!(events.push(b"x"), Err(SendError::TooLarge(_))));
    }

    #[test]
    fn one_event_may_be_as_large_as_an_answer() {
        let mut events = Events::default();
        let text = format!("data: {}\n\n", "x".repeat(MAX_EVENT - 8));
        for piece in text.as_bytes().chunks(1 << 20) {
            assert_eq!(events.next_event(), None);
            events.push(piece).unwrap();
        }
        let event = events.next_event().unwrap();
        assert!(matches!(event.data(), Some(Cow::Borrowed(data)) if data.len() == MAX_EVENT - 8));
        assert_eq!(events.held(), 0);
    }

    #[test]
    fn the_last_blank_line_may_be_missing() {
        for text in
            ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r\n", "data: 1\n\ndata: [DONE]"]
        {
            let mut events = Events::default();
            events.push(text.as_bytes()).unwrap();
            while events.next_event().is_some() {}
            let rest = events.rest().unwrap();
            assert_eq!(rest.bytes(), "data: [DONE]\n\n", "{text:?}");
            assert_eq!(events.rest(), None);
        }
        let mut events = Events::default();
        events.push(b"data: a\r\n\r\ndata: b\r\ndata: c").unwrap();
        assert!(events.next_event().is_some());
        assert_eq!(events.rest().unwrap().data().as_deref(), Some("b\nc"));
    }
}
