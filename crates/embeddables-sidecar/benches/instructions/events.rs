//! What all benchmarks work with: the events of the figures, and the rooms that make records of them.

use std::sync::Arc;

use embeddables_bench::event::{event, project_name};
use embeddables_core::{ProjectId, Rules};
use embeddables_proto::events::v1 as proto;
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{LaneName, NewRecord, UnixMillis};
use embeddables_sidecar::enqueue::{Enqueuer, lane};
use embeddables_sidecar::ingest::convert;
use embeddables_sidecar::validate::Validator;
use tokio::runtime::Runtime;

use crate::PREPARED;

/// When every event comes: 2026-11-27T10:00:00Z.
const NOW: UnixMillis = UnixMillis(1_795_773_600_000);

/// All prepared events, each about a user of its own and with an id that its caller made.
pub(crate) fn events() -> impl Iterator<Item = proto::Event> {
    let count = u32::try_from(PREPARED).expect("a few events");
    (0..count).map(|index| proto::Event {
        event_id: format!("0197c1c2-7d3e-7c4a-9d6b-{index:012}"),
        ..event(index, true, 1)
    })
}

/// The project of all events.
pub(crate) fn project() -> ProjectId {
    ProjectId::parse(&project_name(0)).expect("a project id")
}

/// Its lane.
pub(crate) fn lane_name() -> LaneName {
    lane(&project())
}

/// A runtime without threads of its own.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The rooms before the queue.
pub(crate) struct Rooms {
    validator: Validator,
    enqueuer: Enqueuer,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        // It only gives the secret.
        let store = MemoryQueue::new(MemoryConfig::new(vec![lane_name()]));
        Self {
            validator: Validator::new(Some(project()), Rules::default()),
            enqueuer: Enqueuer::new(Arc::new(store)),
        }
    }

    /// What an accepted event is handed to the queue as.
    pub(crate) fn record(&self, event: proto::Event) -> NewRecord {
        let checked = self.validator.check(&convert::event(event), NOW);
        self.enqueuer.record(checked.expect("a valid event"), NOW, None)
    }
}

/// The records of all prepared events.
pub(crate) fn records() -> Vec<NewRecord> {
    let rooms = Rooms::new();
    events().map(|event| rooms.record(event)).collect()
}
