//! A stream of events, answered as they become safe.
//!
//! # Invariants
//! 1. Every message is answered once, or the stream ends with the reason why it is not.
//! 2. Only what concerns every event stops the reading (the queue is full, the disk does not keep up); a project that is at
//!    its share is refused event by event.
//! 3. What is read and not answered yet has a bound: [`STREAM_GROUPS`] groups of [`STREAM_GROUP`] messages.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use embeddables_core::Event;
use embeddables_proto::events::v1 as proto;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use futures_util::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::admission::Options;
use super::bad_call::EVENT_MISSING;
use super::convert;
use super::events_service::publish_result;
use super::refusal::Refusal;
use super::remap::remap;
use crate::pipeline::{Accepted, Pipeline, Verdict};

/// Most streamed events that are made safe as one group.
const STREAM_GROUP: usize = 256;

/// Most groups of one stream that are under way at once: the next is read while the last is synced.
const STREAM_GROUPS: usize = 4;

/// First and longest pause of a stream whose events find no room.
const STREAM_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Messages to the caller.
pub(super) type Answers = BoxStream<'static, Result<proto::StreamEventsResponse, Status>>;

/// Answers a caller's messages; an event that waits for its delivery waits for `limit` at most.
pub(super) fn answers(
    messages: Streaming<proto::StreamEventsRequest>,
    pipeline: Arc<Pipeline>,
    limit: Duration,
) -> Answers {
    let end = Arc::new(OnceLock::new());
    let answers = until_error(messages, Arc::clone(&pipeline), Arc::clone(&end))
        .ready_chunks(STREAM_GROUP)
        .map(move |group| answer_group(Arc::clone(&pipeline), group, limit))
        .flatten_unordered(STREAM_GROUPS)
        .map(|results| Ok(proto::StreamEventsResponse { results }));
    // Why it ended comes last, after every acknowledgement.
    let end = stream::once(async move { end.get().cloned() }).filter_map(|status| async { status.map(Err) });
    answers.chain(end).boxed()
}

/// Messages until the caller closes its side, an error, or the end of the process; why it ended goes into `end`.
fn until_error(
    messages: Streaming<proto::StreamEventsRequest>,
    pipeline: Arc<Pipeline>,
    end: Arc<OnceLock<Status>>,
) -> impl Stream<Item = proto::StreamEventsRequest> + Send {
    stream::unfold(
        (messages, pipeline, end),
        |(mut messages, pipeline, end)| async move {
            let message = tokio::select! {
                biased;
                () = pipeline.draining() => Err(Refusal::Draining.to_status("event")),
                message = messages.message() => message.map_err(remap),
            };
            match message {
                Ok(Some(message)) => Some((message, (messages, pipeline, end))),
                Ok(None) => None,
                Err(status) => {
                    // Set once: the stream ends here.
                    end.get_or_init(|| status);
                    None
                }
            }
        },
    )
}

/// Answers a group: what is safe as soon as it is, then each event that waits for its delivery.
fn answer_group(
    pipeline: Arc<Pipeline>,
    group: Vec<proto::StreamEventsRequest>,
    limit: Duration,
) -> BoxStream<'static, Vec<proto::StreamResult>> {
    let group = Group {
        pipeline: Arc::clone(&pipeline),
        messages: group,
        events: Vec::new(),
        pause: STREAM_PAUSE.0,
    };
    stream::unfold(group, Group::answer)
        .flat_map_unordered(None, move |(now, waiting)| {
            let pipeline = Arc::clone(&pipeline);
            let waits = waiting.into_iter().map(move |(sequence, mut accepted)| {
                let pipeline = Arc::clone(&pipeline);
                async move {
                    pipeline.wait_until_final(&mut accepted, limit).await;
                    vec![stream_result(sequence, Ok(accepted))]
                }
            });
            let now = (!now.is_empty()).then_some(now);
            stream::iter(now)
                .chain(waits.collect::<FuturesUnordered<_>>())
                .boxed()
        })
        .boxed()
}

/// Messages of a stream that are made safe together, and those of them that have found no room yet.
struct Group {
    pipeline: Arc<Pipeline>,
    messages: Vec<proto::StreamEventsRequest>,
    events: Vec<(i64, (Event, Options))>,
    pause: Duration,
}

/// Results that can be told now, and events that are safe and whose caller waits for their delivery.
type Told = (Vec<proto::StreamResult>, Vec<(i64, Accepted)>);

impl Group {
    /// Publishes what is left; waits for room, so that a full queue stops the reading and not the stream.
    async fn answer(mut self) -> Option<(Told, Self)> {
        let mut answers = self.read();
        if self.events.is_empty() {
            return (!answers.is_empty()).then_some(((answers, Vec::new()), self));
        }
        let (sequences, events): (Vec<_>, Vec<_>) = std::mem::take(&mut self.events).into_iter().unzip();
        let published = self.pipeline.publish(&events, false).await;
        let verdicts =
            published.unwrap_or_else(|refusal| events.iter().map(|_| Err(refusal.clone())).collect());
        let mut waiting = Vec::new();
        for ((sequence, event), verdict) in sequences.into_iter().zip(events).zip(verdicts) {
            match verdict {
                Err(Refusal::QueueFull | Refusal::DiskFull | Refusal::Busy)
                    if !self.pipeline.is_draining() =>
                {
                    self.events.push((sequence, event));
                }
                Ok(accepted) if event.1.wait => waiting.push((sequence, accepted)),
                Ok(accepted) => answers.push(stream_result(sequence, Ok(accepted))),
                Err(refusal) => answers.push(self.refused(sequence, refusal)),
            }
        }
        if !self.events.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                () = self.pipeline.draining() => {}
            }
            self.pause = (self.pause * 2).min(STREAM_PAUSE.1);
        }
        Some(((answers, waiting), self))
    }

    /// Turns messages into events; answers those that are none.
    fn read(&mut self) -> Vec<proto::StreamResult> {
        let mut answers = Vec::with_capacity(self.messages.len());
        for message in std::mem::take(&mut self.messages) {
            let options = Options::from_proto(message.options.as_ref());
            let event = message.event.ok_or(Refusal::BadCall(&EVENT_MISSING));
            match event.and_then(|event| Ok((convert::event(event), options?))) {
                Ok(event) => self.events.push((message.sequence, event)),
                Err(refusal) => answers.push(self.refused(message.sequence, refusal)),
            }
        }
        answers
    }

    fn refused(&self, sequence: i64, refusal: Refusal) -> proto::StreamResult {
        self.pipeline.count_refused(&refusal);
        stream_result(sequence, Err(refusal))
    }
}

fn stream_result(sequence: i64, verdict: Verdict) -> proto::StreamResult {
    proto::StreamResult {
        sequence,
        result: Some(publish_result(verdict, format_args!("event"))),
    }
}
