//! Opening the queue as configured, and saying what was found.

use std::num::NonZeroUsize;
use std::sync::Arc;

use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::sqlite::{CommitObserver, OpenReport, SqliteConfig, SqliteQueue};
use embeddables_queue::{LaneName, OpenError, Store};
use prometheus_client::registry::Registry;

use crate::config::{Backend, Loaded, QueueConfig};
use crate::enqueue::lane;
use crate::telemetry::metrics::QueueMetrics;

/// Opens the configured backend with one lane a project.
pub(super) fn open(loaded: &Loaded, registry: &mut Registry) -> Result<Arc<dyn Store>, OpenError> {
    let queue = &loaded.config.queue;
    let lanes = loaded.projects.iter().map(|project| lane(&project.id)).collect();
    match queue.backend {
        Backend::Memory => Ok(Arc::new(MemoryQueue::new(memory(queue, lanes)))),
        Backend::Sqlite => {
            let (store, report) = SqliteQueue::open(sqlite(queue, lanes, registry))?;
            tell(&report);
            Ok(Arc::new(store))
        }
    }
}

fn memory(queue: &QueueConfig, lanes: Vec<LaneName>) -> MemoryConfig {
    MemoryConfig {
        max_bytes: queue.max_bytes.as_u64(),
        lane_share_bytes: lane_share_bytes(queue, lanes.len()),
        dead_letter_share_bytes: share_of(queue, queue.dead_letter_share_percent),
        dedupe_window: queue.dedupe_window,
        dedupe_ids: queue.dedupe_ids.into(),
        ..MemoryConfig::new(lanes)
    }
}

fn sqlite(queue: &QueueConfig, lanes: Vec<LaneName>, registry: &mut Registry) -> SqliteConfig {
    let metrics = QueueMetrics::register(registry);
    SqliteConfig {
        max_bytes: queue.max_bytes.as_u64(),
        lane_share_bytes: lane_share_bytes(queue, lanes.len()),
        dead_letter_share_bytes: share_of(queue, queue.dead_letter_share_percent),
        max_batch: NonZeroUsize::try_from(queue.max_batch).unwrap_or(NonZeroUsize::MIN),
        linger: queue.linger,
        dedupe_window: queue.dedupe_window,
        dedupe_ids: queue.dedupe_ids.into(),
        durability: queue.durability.map(Into::into),
        on_commit: Some(CommitObserver::new(move |elapsed| {
            metrics.fsync_seconds.observe(elapsed.as_secs_f64())
        })),
        ..SqliteConfig::new(&queue.dir, lanes)
    }
}

/// Most bytes of one project: all where there is no other.
fn lane_share_bytes(queue: &QueueConfig, lane_count: usize) -> u64 {
    match lane_count {
        0 | 1 => queue.max_bytes.as_u64(),
        _ => share_of(queue, queue.project_share_percent),
    }
}

fn share_of(queue: &QueueConfig, percent: u8) -> u64 {
    // Divided first: the product might not fit.
    let max_bytes = queue.max_bytes.as_u64();
    max_bytes / 100 * u64::from(percent) + max_bytes % 100 * u64::from(percent) / 100
}

/// Tells the operator what an opened store says of the past.
fn tell(report: &OpenReport) {
    if let Some(loss) = report.possible_loss {
        tracing::error!(
            store_commit = loss.store_commit,
            mark_commit = loss.mark_commit,
            "the store ends before its mark: acknowledged events may be lost, for example because the volume was restored"
        );
    }
    if let Some(salvaged) = &report.salvaged {
        tracing::error!(
            ?salvaged,
            "the store was damaged: what could be read was kept, the damaged file was set aside"
        );
    }
    if report.rebuilt {
        tracing::warn!("the disk had failed to sync: the store was copied to a new file");
    }
    if report.copied {
        tracing::warn!(
            "the queue directory is a copy: every event in it may have been sent by the original too"
        );
    }
    if report.interrupted > 0 {
        tracing::warn!(
            events = report.interrupted,
            "attempts were under way when the last process ended: these events may reach upstream twice"
        );
    }
    tracing::info!(created = report.created, format = report.format, durabilities = ?report.durabilities, "queue opened");
}

impl From<crate::config::Durability> for embeddables_queue::Durability {
    fn from(durability: crate::config::Durability) -> Self {
        match durability {
            crate::config::Durability::Memory => Self::Memory,
            crate::config::Durability::Buffered => Self::Buffered,
            crate::config::Durability::Fsynced => Self::Fsynced,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    #[test]
    fn shares_are_parts_of_the_whole_and_a_lonely_project_has_all() {
        let queue = QueueConfig {
            max_bytes: ByteSize::b(1_050),
            ..QueueConfig::default()
        };
        assert_eq!(lane_share_bytes(&queue, 1), 1_050);
        assert_eq!(lane_share_bytes(&queue, 2), 525);
        assert_eq!(share_of(&queue, 25), 262);
        let huge = QueueConfig {
            max_bytes: ByteSize::b(u64::MAX),
            ..QueueConfig::default()
        };
        assert_eq!(share_of(&huge, 100), u64::MAX);
    }
}
