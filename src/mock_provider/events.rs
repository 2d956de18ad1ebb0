//! A whole stream of server-sent events, built in one buffer before its first byte is sent.

use super::{Controls, json::put};

/// Events as they will be on the wire, and where each of them ends.
///
/// Faults within events (`malformed`, `no-done`, `crlf`, `pad-comments`, `error-in-stream`) are made here;
/// those of time and connection are the body's.
pub(super) struct EventStream {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    line_end: &'static str,
    pad_comments: bool,
    no_done: bool,
    /// Counted from 1; 0 is none.
    malformed: usize,
}

impl EventStream {
    /// Starts a stream of about so many events of about so many bytes each.
    pub(super) fn new(controls: &Controls, events: usize, event_bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(events * event_bytes),
            ends: Vec::with_capacity(events),
            line_end: if controls.crlf { "\r\n" } else { "\n" },
            pad_comments: controls.pad_comments,
            no_done: controls.no_done,
            malformed: controls.malformed.map_or(0, usize::from),
        }
    }

    /// Appends an event; `write_data` adds its JSON, which is one line.
    pub(super) fn push(&mut self, name: Option<&str>, write_data: impl FnOnce(&mut Vec<u8>)) {
        if self.pad_comments {
            put(&mut self.bytes, ": keep-alive");
            self.end_lines(2);
        }
        if let Some(name) = name {
            put(&mut self.bytes, "event: ");
            put(&mut self.bytes, name);
            self.end_lines(1);
        }
        put(&mut self.bytes, "data: ");
        write_data(&mut self.bytes);
        if self.ends.len() + 1 == self.malformed {
            self.bytes.pop();
        }
        self.end_lines(2);
        self.ends.push(self.bytes.len());
    }

    /// Appends OpenAI's mark of a complete stream, unless told to leave it out.
    pub(super) fn push_done(&mut self) {
        if !self.no_done {
            self.push(None, |out| put(out, "[DONE]"));
        }
    }

    /// Ends the stream with an error event after so many events, if it has more than those.
    pub(super) fn break_off(&mut self, after: usize, name: Option<&str>, error: &[u8]) {
        if self.keep(after) {
            self.push(name, |out| out.extend_from_slice(error));
        }
    }

    /// Keeps only the first so many events; says whether any were left out.
    pub(super) fn keep(&mut self, events: usize) -> bool {
        let shortened = events < self.ends.len();
        if shortened {
            self.bytes.truncate(self.end_of(events));
            self.ends.truncate(events);
        }
        shortened
    }

    /// The bytes, and the offset at which each event ends.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<usize>) {
        (self.bytes, self.ends)
    }

    fn end_of(&self, events: usize) -> usize {
        events.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    fn end_lines(&mut self, count: usize) {
        for _ in 0..count {
            put(&mut self.bytes, self.line_end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(controls: &Controls) -> EventStream {
        let mut events = EventStream::new(controls, 3, 16);
        events.push(None, |out| put(out, "{1}"));
        events.push(Some("two"), |out| put(out, "{2}"));
        events.push_done();
        events
    }

    fn text(events: EventStream) -> String {
        String::from_utf8(events.into_parts().0).unwrap()
    }

    #[test]
    fn stream_is_events_in_order_with_their_ends() {
        let (bytes, ends) = three(&Controls::default()).into_parts();
        assert_eq!(bytes, b"data: {1}\n\nevent: two\ndata: {2}\n\ndata: [DONE]\n\n");
        assert_eq!(ends, [11, 33, bytes.len()]);
    }

    #[test]
    fn stream_faults_change_what_they_name_only() {
        let with = |set: fn(&mut Controls)| {
            let mut controls = Controls::default();
            set(&mut controls);
            text(three(&controls))
        };
        assert_eq!(with(|c| c.no_done = true), "data: {1}\n\nevent: two\ndata: {2}\n\n");
        assert_eq!(
            with(|c| c.crlf = true),
            "data: {1}\r\n\r\nevent: two\r\ndata: {2}\r\n\r\ndata: [DONE]\r\n\r\n"
        );
        let malformed = with(|c| c.set("malformed", "2").unwrap());
        assert_eq!(malformed, "data: {1}\n\nevent: two\ndata: {2\n\ndata: [DONE]\n\n");
        let padded = with(|c| c.pad_comments = true);
        assert!(
            padded.starts_with(": keep-alive\n\ndata: {1}\n\n: keep-alive\n\nevent: two\n"),
            "{padded}"
        );
    }

    #[test]
    fn break_off_ends_with_the_error_or_comes_too_late() {
        let mut events = three(&Controls::default());
        events.break_off(1, Some("error"), b"{E}");
        assert_eq!(text(events), "data: {1}\n\nevent: error\ndata: {E}\n\n");
        let mut events = three(&Controls::default());
        events.break_off(3, None, b"{E}");
        assert!(text(events).ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn keep_says_whether_it_shortened() {
        let mut events = three(&Controls::default());
        assert!(!events.keep(3));
        assert!(events.keep(1));
        assert!(events.keep(0));
        assert_eq!(text(events), "");
    }
}
