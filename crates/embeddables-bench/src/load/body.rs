//! The bodies of requests: encoded once, before the clock starts; ids patched in where the caller makes them.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use embeddables_proto::events::v1::{Event, PublishEventRequest, PublishEventsRequest, StreamEventsRequest};
use uuid::Uuid;

use super::framing::{FIRST_SEQUENCE, frame};
use crate::event::{EVENT_ID_BYTES, event};

/// Events that differ before they repeat.
const VARIANT_EVENTS: u32 = 1_024;
/// Fewest bodies to take turns, however large they are.
const MIN_BODIES: u32 = 8;

/// How events are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// One a call.
    #[default]
    One,
    /// So many a call.
    Batch(u32),
    /// One a message of a stream.
    Stream,
}

impl Form {
    /// Events of one request or message.
    pub(crate) fn events(self) -> u32 {
        match self {
            Self::One | Self::Stream => 1,
            Self::Batch(size) => size,
        }
    }
}

/// What requests hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contents {
    /// What kind of requests they are.
    pub(crate) form: Form,
    /// Whether each event has an id made here.
    pub(crate) with_ids: bool,
    /// Projects that events name in turn; 0 for events that name none.
    pub(crate) projects: u32,
}

/// Bodies that take turns.
#[derive(Debug)]
pub(crate) struct Bodies {
    bodies: Vec<Bytes>,
    /// Where an id stands in every body; empty where the server makes them.
    id_offsets: Vec<usize>,
    next: Cell<usize>,
}

impl Bodies {
    /// Encodes the requests of one workload.
    pub(crate) fn new(contents: Contents) -> Self {
        let count = (VARIANT_EVENTS / contents.form.events().max(1)).max(MIN_BODIES);
        let bodies: Vec<Bytes> = (0..count).map(|index| contents.encode(index).freeze()).collect();
        let id_offsets = if contents.with_ids {
            id_offsets(&bodies[0])
        } else {
            Vec::new()
        };
        Self {
            bodies,
            id_offsets,
            next: Cell::new(0),
        }
    }

    /// The next body, with ids of its own where the caller makes them.
    pub(crate) fn next(&self) -> Bytes {
        let index = self.next.get();
        self.next.set((index + 1) % self.bodies.len());
        let body = &self.bodies[index];
        if self.id_offsets.is_empty() {
            return body.clone();
        }
        let mut body = BytesMut::from(&**body);
        for &offset in &self.id_offsets {
            Uuid::now_v7()
                .hyphenated()
                .encode_lower(&mut body[offset..offset + EVENT_ID_BYTES]);
        }
        body.freeze()
    }

    /// Bytes of one request with its prefix; all have the same.
    pub(crate) fn body_bytes(&self) -> usize {
        self.bodies[0].len()
    }
}

impl Contents {
    fn encode(self, index: u32) -> BytesMut {
        let event = |index| event(index, self.with_ids, self.projects);
        match self.form {
            Form::One => frame(&PublishEventRequest {
                event: Some(event(index)),
                options: None,
            }),
            Form::Stream => frame(&StreamEventsRequest {
                sequence: FIRST_SEQUENCE.cast_signed(),
                event: Some(event(index)),
                options: None,
            }),
            Form::Batch(size) => {
                let events: Vec<Event> = (0..size).map(|place| event(index * size + place)).collect();
                frame(&PublishEventsRequest {
                    events,
                    ..PublishEventsRequest::default()
                })
            }
        }
    }
}

/// Where ids stand. All variants have one size, so what holds for one body holds for all.
fn id_offsets(body: &[u8]) -> Vec<usize> {
    let placeholder = event(0, true, 0).event_id;
    let is_id = |window: &[u8]| window == placeholder.as_bytes();
    body.windows(EVENT_ID_BYTES)
        .enumerate()
        .filter(|(_, window)| is_id(window))
        .map(|(offset, _)| offset)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;
    use crate::load::framing::only_message;

    fn events(body: &Bytes) -> Vec<Event> {
        let message = only_message(body).expect("framed");
        PublishEventsRequest::decode(message).expect("a batch").events
    }

    #[test]
    fn ids_made_here_are_in_every_event_and_never_the_same() {
        let bodies = Bodies::new(Contents {
            form: Form::Batch(10),
            with_ids: true,
            ..Contents::default()
        });
        let ids: BTreeSet<String> = (0..200)
            .flat_map(|_| events(&bodies.next()))
            .map(|event| event.event_id)
            .collect();
        assert_eq!(ids.len(), 2_000);
        assert!(
            ids.iter()
                .all(|id| Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7))
        );
    }

    #[test]
    fn without_ids_the_server_makes_them() {
        let bodies = Bodies::new(Contents {
            form: Form::Batch(3),
            ..Contents::default()
        });
        assert!(
            events(&bodies.next())
                .iter()
                .all(|event| event.event_id.is_empty())
        );
    }

    #[test]
    fn single_events_take_turns() {
        let bodies = Bodies::new(Contents::default());
        let first = bodies.next();
        let request = PublishEventRequest::decode(only_message(&first).expect("framed")).expect("a request");
        assert!(request.event.is_some());
        assert_ne!(first, bodies.next());
        assert_eq!(first.len(), bodies.body_bytes());
    }

    #[test]
    fn a_batch_of_as_many_events_as_projects_has_one_for_each() {
        let bodies = Bodies::new(Contents {
            form: Form::Batch(100),
            projects: 100,
            ..Contents::default()
        });
        for _ in 0..20 {
            let projects: BTreeSet<String> = events(&bodies.next())
                .into_iter()
                .map(|event| event.project_id)
                .collect();
            assert_eq!(projects.len(), 100);
        }
    }
}
