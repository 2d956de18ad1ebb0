//! Server-sent events, cut out of a byte stream however it is split.
//!
//! The original bytes are kept: what is forwarded is what came. An event is complete with its blank line; lines end in
//! CR, LF or CRLF; a byte order mark may come first.
//!
//! Source: WHATWG HTML, 9.2.6 Interpreting an event stream.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// An event longer than this is passed on without being understood.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Cuts chunks into events.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The start of an event whose end has not come.
    carry: BytesMut,
    /// Where the line being read starts in `carry`.
    line: usize,
    /// How far `carry` has been searched for that line's end.
    seen: usize,
    started: bool,
    /// Inside an event that was too long to keep.
    overlong: bool,
}

/// One piece of the stream.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// A complete event with its blank line.
    Event(Bytes),
    /// A part of an event that is too long to be understood.
    Opaque(Bytes),
}

impl Splitter {
    /// Takes a chunk and gives the complete events to `each`, in order.
    pub fn push(&mut self, chunk: Bytes, mut each: impl FnMut(Piece)) {
        let mut chunk = chunk;
        if !self.carry.is_empty() {
            // The rare way: the chunk continues an event. What belongs to that event is copied, no more.
            match self.complete_carry(&mut chunk) {
                Some(event) => each(self.piece(event)),
                None => {
                    if self.carry.len() > MAX_EVENT_BYTES {
                        self.overlong = true;
                        each(Piece::Opaque(self.take_carry()));
                    }
                    return;
                }
            }
        }
        while let Some(end) = event_end(&chunk, 0, 0, self.bom(&chunk)).end {
            let event = chunk.split_to(end);
            each(self.piece(event));
        }
        if !chunk.is_empty() {
            let search = event_end(&chunk, 0, 0, self.bom(&chunk));
            self.carry.extend_from_slice(&chunk);
            (self.line, self.seen) = (search.line, search.seen);
        }
    }

    /// Returns the bytes of an event that never ended.
    pub fn finish(&mut self) -> Bytes {
        self.take_carry()
    }

    fn piece(&mut self, event: Bytes) -> Piece {
        self.started = true;
        if std::mem::take(&mut self.overlong) {
            Piece::Opaque(event)
        } else {
            Piece::Event(event)
        }
    }

    fn bom(&self, chunk: &[u8]) -> usize {
        if !self.started && chunk.starts_with(BOM) {
            BOM.len()
        } else {
            0
        }
    }

    /// Moves bytes from `chunk` until the carried event is complete.
    fn complete_carry(&mut self, chunk: &mut Bytes) -> Option<Bytes> {
        let before = self.carry.len();
        self.carry.extend_from_slice(chunk);
        let bom = self.bom(&self.carry);
        let search = event_end(&self.carry, self.line, self.seen, bom);
        match search.end {
            None => {
                (self.line, self.seen) = (search.line, search.seen);
                None
            }
            Some(end) => {
                *chunk = chunk.split_off(end - before);
                self.carry.truncate(end);
                Some(self.take_carry())
            }
        }
    }

    fn take_carry(&mut self) -> Bytes {
        (self.line, self.seen) = (0, 0);
        self.carry.split().freeze()
    }
}

const BOM: &[u8] = b"\xEF\xBB\xBF";

struct Search {
    end: Option<usize>,
    line: usize,
    seen: usize,
}

/// Finds the end of the first event in `text`, whose current line starts at `line` and is searched up to `seen`.
fn event_end(text: &[u8], line: usize, seen: usize, bom: usize) -> Search {
    let mut line = line.max(bom);
    let mut seen = seen.max(line);
    while let Some(offset) = text.get(seen..).and_then(|rest| memchr::memchr2(b'\n', b'\r', rest)) {
        let at = seen + offset;
        let next = match (text[at], text.get(at + 1)) {
            (b'\r', Some(b'\n')) => at + 2,
            // A CR at the very end may be half of a CRLF, whose LF belongs to this event: wait for it. Only a blank line
            // of a stream whose lines end in CR alone is complete as it is.
            (b'\r', None) if at > line || text[..at].ends_with(b"\r\n") => {
                return Search {
                    end: None,
                    line,
                    seen: at,
                };
            }
            _ => at + 1,
        };
        if at == line {
            return Search {
                end: Some(next),
                line,
                seen,
            };
        }
        (line, seen) = (next, next);
    }
    Search {
        end: None,
        line,
        seen: text.len().max(seen),
    }
}

/// Returns an event's data: its `data:` lines joined by line feeds; `None` if it has none.
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let event = event.strip_prefix(BOM).unwrap_or(event);
    let mut data: Option<Cow<'_, [u8]>> = None;
    let mut rest = event;
    while !rest.is_empty() {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest[end..]
            .strip_prefix(b"\r\n")
            .unwrap_or_else(|| rest.get(end + 1..).unwrap_or_default());
        let Some(value) = line.strip_prefix(b"data") else {
            continue;
        };
        let value = match value {
            [] => value,
            [b':', value @ ..] => value.strip_prefix(b" ").unwrap_or(value),
            _ => continue,
        };
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(first) => {
                let joined = first.to_mut();
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = "\u{feff}data: one\n\ndata:two\r\ndata: zwo\r\n\r\n: comment\r\revent: x\rdata\r\r\n\ndata: \u{e9}\u{1f600}\n\n"
        .as_bytes();

    fn events(chunks: impl Iterator<Item = Bytes>) -> (Vec<u8>, Vec<String>) {
        let mut splitter = Splitter::default();
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |piece| {
                let (Piece::Event(event) | Piece::Opaque(event)) = piece;
                bytes.extend_from_slice(&event);
                found.extend(data(&event).map(|data| String::from_utf8(data.into_owned()).unwrap()));
            });
        }
        bytes.extend_from_slice(&splitter.finish());
        (bytes, found)
    }

    #[test]
    fn every_split_gives_the_same_events_and_bytes() {
        let expected = ["one", "two\nzwo", "", "é😀"];
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let chunks = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                let (bytes, found) = events(chunks.into_iter().map(Bytes::copy_from_slice));
                assert_eq!(found, expected, "cut at {first} and {second}");
                assert_eq!(bytes, STREAM);
            }
        }
        let (bytes, found) = events(STREAM.iter().map(|byte| Bytes::copy_from_slice(&[*byte])));
        assert_eq!(
            (bytes.as_slice(), found.as_slice()),
            (STREAM, &expected.map(str::to_owned)[..])
        );
    }

    #[test]
    fn crlf_torn_apart_at_the_blank_line_stays_with_its_event() {
        let mut splitter = Splitter::default();
        let mut pieces = Vec::new();
        for chunk in ["data: a\r\n\r", "\ndata: b\r\r"] {
            splitter.push(Bytes::from_static(chunk.as_bytes()), |piece| pieces.push(piece));
        }
        let event = |text: &'static str| Piece::Event(Bytes::from_static(text.as_bytes()));
        assert_eq!(pieces, [event("data: a\r\n\r\n"), event("data: b\r\r")]);
    }

    #[test]
    fn unterminated_tail_is_kept_for_forwarding_but_is_no_event() {
        let (bytes, found) = events([Bytes::from_static(b"data: a\n\ndata: b\n")].into_iter());
        assert_eq!(found, ["a"]);
        assert_eq!(bytes, b"data: a\n\ndata: b\n");
    }

    #[test]
    fn overlong_event_passes_without_being_kept() {
        let mut splitter = Splitter::default();
        let mut pieces = Vec::new();
        for _ in 0..3 {
            splitter.push(Bytes::from(vec![b'x'; MAX_EVENT_BYTES]), |piece| pieces.push(piece));
        }
        splitter.push(Bytes::from_static(b"\n\ndata: a\n\n"), |piece| pieces.push(piece));
        assert!(matches!(pieces[0], Piece::Opaque(_)));
        assert_eq!(pieces.last(), Some(&Piece::Event(Bytes::from_static(b"data: a\n\n"))));
        assert!(splitter.carry.is_empty());
    }
}
