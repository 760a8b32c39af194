//! Events over a `StreamEvents`: as many unanswered as the window allows, and every answer looked at.
//!
//! # Invariants
//! 1. Each message has a sequence number of its own, and is answered exactly once; an answer to anything else ends the stream.
//! 2. Never more than a window of messages is unanswered.
//! 3. A message's latency is from when it was handed to the connection to when its result came.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::StatusCode;
use tokio::time::Instant;

use super::Shared;
use super::body::Bodies;
use super::connection::{CallError, Caller, status};
use super::framing::{FIRST_SEQUENCE, Results, next_message, put_sequence, stream_results};

/// Part of a window that must be free before more is sent: several messages share a frame, and a system call.
const REFILL_PART: u64 = 8;

/// A stream that has carried one message.
#[derive(Debug)]
pub(super) struct EventStream {
    send: SendStream<Bytes>,
    body: RecvStream,
    /// What has come and is no whole message yet.
    received: BytesMut,
    awaited: Awaited,
}

/// Messages that are not answered yet.
#[derive(Debug, Default)]
struct Awaited {
    /// When each was sent; `None` where it is answered. The first one is not.
    sent: VecDeque<Option<Instant>>,
    /// Sequence number of the first, counted from [`FIRST_SEQUENCE`].
    first: u64,
    unanswered: u64,
}

impl Awaited {
    /// Notes messages that are sent now; gives their sequence numbers.
    fn add(&mut self, count: u64, now: Instant) -> Range<u64> {
        let start = FIRST_SEQUENCE + self.first + self.sent.len() as u64;
        self.sent.extend((0..count).map(|_| Some(now)));
        self.unanswered += count;
        start..start + count
    }

    /// Notes an answer; gives when the message was sent.
    fn answer(&mut self, sequence: u64) -> Result<Instant, CallError> {
        let place = sequence.checked_sub(FIRST_SEQUENCE + self.first);
        let sent = place
            .and_then(|place| self.sent.get_mut(usize::try_from(place).ok()?)?.take())
            .ok_or_else(|| CallError::Answer(format!("sequence {sequence} was not awaited")))?;
        self.unanswered -= 1;
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
        Ok(sent)
    }
}

impl EventStream {
    /// Opens a stream and waits for the answer to its first message.
    pub(super) async fn open(mut caller: Caller, bodies: &Bodies) -> Result<Self, CallError> {
        let (response, mut send) = caller.begin().await?;
        let mut awaited = Awaited::default();
        send.send_data(messages(bodies, awaited.add(1, Instant::now())), false)?;
        let (head, body) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(CallError::Answer(format!("HTTP status {}", head.status)));
        }
        // A server that refuses at once puts the status into its headers.
        if let Some(code) = status(&head.headers) {
            return Err(CallError::Status(code));
        }
        let mut stream = Self {
            send,
            body,
            received: BytesMut::new(),
            awaited,
        };
        let mut refused = 0;
        while stream.awaited.unanswered > 0 {
            let goes_on = stream.receive(|_, results| refused += results.refused).await?;
            if !goes_on {
                return Err(CallError::Answer("the stream ended".to_owned()));
            }
        }
        if refused > 0 {
            return Err(CallError::Answer("the first message was refused".to_owned()));
        }
        Ok(stream)
    }

    /// Sends messages in one go.
    fn send(&mut self, bodies: &Bodies, count: u64) -> Result<(), CallError> {
        let sequences = self.awaited.add(count, Instant::now());
        self.send.send_data(messages(bodies, sequences), false)?;
        Ok(())
    }

    /// Waits for data and tells of each result in it: when its message was sent, and what became of it. False where the
    /// stream has ended with OK.
    async fn receive(&mut self, mut tell: impl FnMut(Instant, Results)) -> Result<bool, CallError> {
        let Some(chunk) = self.body.data().await else {
            let trailers = self.body.trailers().await?;
            return match trailers.as_ref().and_then(status) {
                Some(0) => Ok(false),
                Some(code) => Err(CallError::Status(code)),
                None => Err(CallError::Answer("no grpc-status".to_owned())),
            };
        };
        let chunk = chunk?;
        self.body.flow_control().release_capacity(chunk.len())?;
        self.received.extend_from_slice(&chunk);
        while let Some(message) = next_message(&mut self.received)? {
            for result in stream_results(&message) {
                let (sequence, results) = result?;
                tell(self.awaited.answer(sequence)?, results);
            }
        }
        Ok(true)
    }
}

/// Messages one after the other, each with its number.
fn messages(bodies: &Bodies, sequences: Range<u64>) -> Bytes {
    let count = sequences.clone().count();
    let mut data = BytesMut::with_capacity(count * bodies.body_bytes());
    for sequence in sequences {
        let start = data.len();
        data.extend_from_slice(&bodies.next());
        put_sequence(&mut data[start..], sequence);
    }
    data.freeze()
}

impl Shared {
    /// Streams until the load ends, then waits for the answers that are missing.
    pub(super) async fn keep_streaming(self: Rc<Self>, mut stream: EventStream, window: u32) {
        if let Err(error) = self.stream(&mut stream, u64::from(window)).await {
            self.tally.borrow_mut().record(Duration::ZERO, &Err(error));
        }
    }

    async fn stream(&self, stream: &mut EventStream, window: u64) -> Result<(), CallError> {
        let mut is_open = true;
        loop {
            let free = window - stream.awaited.unanswered;
            if is_open && free >= (window / REFILL_PART).max(1) {
                let count = self.take_calls(free);
                if count > 0 {
                    stream.send(&self.bodies, count)?;
                    self.open_calls.update(|calls| calls + count);
                } else {
                    stream.send.send_data(Bytes::new(), true)?;
                    is_open = false;
                }
            }
            let now = std::cell::OnceCell::new();
            let goes_on = stream
                .receive(|sent, results| {
                    let now = *now.get_or_init(Instant::now);
                    self.open_calls.update(|calls| calls - 1);
                    self.last_answer.set(now);
                    self.tally.borrow_mut().record(now - sent, &Ok(results));
                })
                .await?;
            if !goes_on && is_open {
                return Err(CallError::Answer("the stream ended".to_owned()));
            }
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// How many of so many messages may still be sent.
    fn take_calls(&self, most: u64) -> u64 {
        if Instant::now() >= self.end {
            return 0;
        }
        let count = most.min(self.calls_left.get());
        self.calls_left.update(|left| left - count);
        count
    }
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::StreamEventsRequest;
    use prost::Message as _;

    use super::*;
    use crate::load::body::{Contents, Form};

    #[test]
    fn messages_have_their_numbers_and_events() {
        let bodies = Bodies::new(Contents {
            form: Form::Stream,
            ..Contents::default()
        });
        let first = FIRST_SEQUENCE + 1_000_000;
        let mut data = BytesMut::from(&*messages(&bodies, first..first + 3));
        for sequence in first..first + 3 {
            let message = next_message(&mut data).expect("framed").expect("whole");
            let request = StreamEventsRequest::decode(message).expect("a request");
            assert_eq!(u64::try_from(request.sequence), Ok(sequence));
            assert_eq!(
                request.event.map(|event| event.name),
                Some("appointment_completed".into())
            );
        }
        assert!(data.is_empty());
    }

    #[test]
    fn each_message_is_answered_once_in_any_order() {
        let mut awaited = Awaited::default();
        let start = Instant::now();
        let sequences = awaited.add(3, start);
        let last = sequences.end - 1;
        assert_eq!(awaited.answer(last).expect("awaited"), start);
        for wrong in [last, last + 1, FIRST_SEQUENCE - 1] {
            awaited.answer(wrong).expect_err("not awaited");
        }
        awaited.answer(sequences.start).expect("awaited");
        awaited.answer(sequences.start).expect_err("answered already");
        awaited.answer(last - 1).expect("awaited");
        assert_eq!((awaited.unanswered, awaited.sent.len()), (0, 0));
        assert_eq!(awaited.add(1, start).start, sequences.end);
    }
}
