//! From the bytes of a call to the records that are handed to the queue: decode, convert, validate, canonicalise, hash.

use std::hint::black_box;

use embeddables_proto::events::v1 as proto;
use prost::Message as _;

use crate::events::{Rooms, events};

/// Calls with one event each.
pub(crate) fn single(count: usize) {
    let rooms = Rooms::new();
    let request = |event| proto::PublishEventRequest {
        event: Some(event),
        options: None,
    };
    let calls: Vec<_> = events().map(|event| request(event).encode_to_vec()).collect();
    for call in &calls[..count] {
        let request = proto::PublishEventRequest::decode(&call[..]).expect("a request");
        black_box(rooms.record(request.event.expect("an event")));
    }
}

/// Calls with `size` events each.
pub(crate) fn batches(count: usize, size: usize) {
    let rooms = Rooms::new();
    let events: Vec<_> = events().collect();
    let request = |events: &[proto::Event]| proto::PublishEventsRequest {
        events: events.to_vec(),
        ..proto::PublishEventsRequest::default()
    };
    let calls: Vec<_> = events
        .chunks(size)
        .map(|events| request(events).encode_to_vec())
        .collect();
    for call in &calls[..count / size] {
        let request = proto::PublishEventsRequest::decode(&call[..]).expect("a request");
        let records: Vec<_> = request
            .events
            .into_iter()
            .map(|event| rooms.record(event))
            .collect();
        assert_eq!(black_box(records).len(), size);
    }
}
