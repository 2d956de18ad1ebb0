//! An answer's way onto the wire: how it is cut into frames, when each is due, and how it ends.
//!
//! Whatever must have left before something else happens (a piece of a `split` stream, what precedes a cut) is
//! followed by one `Pending` that wakes itself: hyper flushes its buffer whenever the body is not ready.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Controls, Point, events::EventStream, stats::AnswerGuard};

/// Frames nobody asked to be smaller: big enough to cost little, small enough to notice a client that left.
const FRAME_BYTES: usize = 64 * 1024;

/// The body of every answer. No allocation of its own unless a control asks for timing or a fault.
pub(super) struct MockBody {
    rest: Bytes,
    sent_bytes: usize,
    frames: Frames,
    pause: Pause,
    ending: Ending,
    length: Length,
    guard: Option<AnswerGuard>,
}

/// Where frames end.
enum Frames {
    Every(usize),
    /// At these offsets, in order.
    At(std::vec::IntoIter<usize>),
}

/// What separates a frame from the one before it.
enum Pause {
    Nothing,
    Flush {
        flushed: bool,
    },
    Timer {
        interval: Duration,
        due: Option<Pin<Box<Sleep>>>,
    },
}

enum Ending {
    Complete,
    Cut {
        flushed: bool,
    },
    /// Silent until the mock stops.
    Silent(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// What the head says of the length.
enum Length {
    Unknown,
    /// `Content-Length` counts these bytes too, which will never be sent.
    Withholding(usize),
}

impl MockBody {
    /// An answer of the mock's own: correct, whatever the controls.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            rest: bytes.into(),
            sent_bytes: 0,
            frames: Frames::Every(FRAME_BYTES),
            pause: Pause::Nothing,
            ending: Ending::Complete,
            length: Length::Withholding(0),
            guard: None,
        }
    }

    /// A plain answer, with the faults asked for.
    pub(super) fn plain(mut bytes: Vec<u8>, controls: &Controls, guard: AnswerGuard) -> Self {
        if controls.malformed.is_some() {
            bytes.pop();
        }
        let whole_bytes = bytes.len();
        let (chunks, ending) = first_fault(controls, &guard);
        match chunks {
            None => {}
            Some(0) => bytes.clear(),
            Some(_) => bytes.truncate(whole_bytes / 2),
        }
        let length = Length::Withholding(whole_bytes - bytes.len());
        let mut body = Self {
            ending,
            length,
            ..Self::whole(bytes)
        };
        body.watch(guard);
        body
    }

    /// A streamed answer, with the timing and faults asked for.
    pub(super) fn stream(mut events: EventStream, controls: &Controls, mut guard: AnswerGuard) -> Self {
        guard.begin_stream();
        let (chunks, ending) = first_fault(controls, &guard);
        let ending = match chunks {
            Some(chunks) if events.keep(chunks) => ending,
            _ => Ending::Complete,
        };
        let (bytes, ends) = events.into_parts();
        let frames = match controls.split {
            Some(piece_bytes) => Frames::Every(piece_bytes.get()),
            None if controls.chunk_interval.is_zero() => Frames::Every(FRAME_BYTES),
            None => Frames::At(ends.into_iter()),
        };
        let pause = if !controls.chunk_interval.is_zero() {
            Pause::Timer {
                interval: controls.chunk_interval,
                due: None,
            }
        } else if controls.split.is_some() {
            Pause::Flush { flushed: true }
        } else {
            Pause::Nothing
        };
        let mut body = Self {
            frames,
            pause,
            ending,
            length: Length::Unknown,
            ..Self::whole(bytes)
        };
        body.watch(guard);
        body
    }

    fn watch(&mut self, guard: AnswerGuard) {
        self.guard = Some(guard);
        self.finish_if_sent();
    }

    fn finish_if_sent(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.finish();
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pause {
            Pause::Nothing => Poll::Ready(()),
            Pause::Flush { flushed } => poll_flushed(flushed, cx).map(|()| *flushed = false),
            Pause::Timer { interval, due } => {
                if let Some(due) = due {
                    ready!(due.as_mut().poll(cx));
                    // Counted from when it was due, not from now: lateness does not add up.
                    let next = due.deadline() + *interval;
                    due.as_mut().reset(next);
                } else {
                    *due = Some(Box::pin(sleep_until(Instant::now() + *interval)));
                }
                Poll::Ready(())
            }
        }
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let end = match &mut self.ending {
            Ending::Complete => return Poll::Ready(None),
            Ending::Cut { flushed } => {
                ready!(poll_flushed(flushed, cx));
                deliberate_cut()
            }
            Ending::Silent(until_stopped) => {
                ready!(until_stopped.as_mut().poll(cx));
                stopped()
            }
        };
        self.finish();
        Poll::Ready(Some(Err(end)))
    }

    fn next_frame_bytes(&mut self) -> usize {
        let bytes = match &mut self.frames {
            Frames::Every(bytes) => *bytes,
            Frames::At(ends) => ends.next().map_or(usize::MAX, |end| end - self.sent_bytes),
        };
        bytes.min(self.rest.len())
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        if body.rest.is_empty() {
            return body.poll_ending(cx);
        }
        ready!(body.poll_pause(cx));
        let frame_bytes = body.next_frame_bytes();
        let frame = body.rest.split_to(frame_bytes);
        body.sent_bytes += frame_bytes;
        body.finish_if_sent();
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && matches!(self.ending, Ending::Complete)
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Length::Unknown => SizeHint::default(),
            Length::Withholding(bytes) => SizeHint::with_exact((self.rest.len() + bytes) as u64),
        }
    }
}

/// The error that makes hyper abandon the connection.
pub(super) fn deliberate_cut() -> io::Error {
    io::Error::other("cut by a mock control")
}

pub(super) fn stopped() -> io::Error {
    io::Error::other("mock provider stopped during a stall")
}

/// The earlier of cut and stall, after how many chunks, and how it ends the body.
fn first_fault(controls: &Controls, guard: &AnswerGuard) -> (Option<usize>, Ending) {
    let chunks = |point| match point {
        Some(Point::AfterChunks(chunks)) => Some(chunks),
        Some(Point::Head) | None => None,
    };
    match (chunks(controls.cut), chunks(controls.stall)) {
        (None, None) => (None, Ending::Complete),
        (Some(cut), stall) if stall.is_none_or(|stall| cut <= stall) => (Some(cut), Ending::Cut { flushed: false }),
        (_, stall) => (stall, Ending::Silent(Box::pin(guard.worker().until_stopped()))),
    }
}

fn poll_flushed(flushed: &mut bool, cx: &mut Context<'_>) -> Poll<()> {
    if std::mem::replace(flushed, true) {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn split_pieces_are_apart_by_a_pending_so_that_each_is_flushed() {
        let pause = Pause::Flush { flushed: true };
        let mut body = MockBody {
            frames: Frames::Every(2),
            pause,
            ..MockBody::whole("abc")
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame.map_or("end".into(), |frame| frame.unwrap().into_data().unwrap()),
            Poll::Pending => "pending".into(),
        };
        assert_eq!([next(), next(), next(), next()], ["ab", "pending", "c", "end"]);
    }
}
