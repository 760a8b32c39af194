//! The books as metrics: what was accepted and what became of it, counted on disk, so that the sum holds over restarts.
//!
//! For each project: `ingest_accepted_events_total` = `settle_delivered_events_total` + discarded + quarantined +
//! `queue_events` over all states.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use embeddables_queue::{LaneBooks, Store, UnixMillis};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::clock::Clock;

/// Reads the books at every scrape.
pub struct BooksCollector {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Oldest record by project, as of the last [`BooksCollector::refresh`].
    oldest: Mutex<Vec<(String, UnixMillis)>>,
}

impl fmt::Debug for BooksCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BooksCollector").finish_non_exhaustive()
    }
}

impl BooksCollector {
    /// Collects from a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            oldest: Mutex::default(),
        }
    }

    /// Reads what needs the disk; call it before a scrape. After an error the former reading stands.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn refresh(&self) -> Result<(), embeddables_queue::ReadError> {
        let oldest = self.store.oldest().await?;
        let oldest = oldest
            .into_iter()
            .map(|(lane, time)| (lane.as_str().to_owned(), time))
            .collect();
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
        Ok(())
    }
}

type Value = fn(&LaneBooks) -> u64;

/// Counters with a label `project`.
const BY_PROJECT: [(&str, &str, Value); 2] = [
    (
        "ingest_accepted_events",
        "Events accepted since the store was made",
        |books| books.accepted,
    ),
    (
        "settle_delivered_events",
        "Events delivered since the store was made",
        |books| books.delivered,
    ),
];

/// Counters over all projects.
const OVERALL: [(&str, &str, Value); 2] = [
    (
        "settle_discarded_events",
        "Events removed by an operator since the store was made",
        |books| books.discarded,
    ),
    (
        "queue_quarantined_events",
        "Events damaged on disk since the store was made",
        |books| books.quarantined,
    ),
];

/// Values of the label `state` of `queue_events`.
const STATES: [(&str, Value); 3] = [
    ("queued", |books| books.ready),
    ("waiting", |books| books.waiting),
    ("dead_lettered", |books| books.dead_lettered),
];

impl Collector for BooksCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let books = self.store.books();
        for (name, help, value) in BY_PROJECT {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (lane, books) in &books.lanes {
                ConstCounter::new(value(books))
                    .encode(family.encode_family(&[("project", lane.as_str())])?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "settle_dead_lettered_events",
            "Events ever dead-lettered, also those replayed or discarded since, by reason",
            None,
            MetricType::Counter,
        )?;
        for (lane, books) in &books.lanes {
            for (reason, count) in &books.dead_lettered_total {
                let labels = [("project", lane.as_str()), ("reason", reason)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in OVERALL {
            let sum = books.lanes.iter().map(|(_, books)| value(books)).sum::<u64>();
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(sum).encode(encoder)?;
        }
        let mut family = encoder.encode_descriptor(
            "queue_events",
            "Events here now, by state",
            None,
            MetricType::Gauge,
        )?;
        for (lane, books) in &books.lanes {
            for (state, value) in STATES {
                let labels = [("project", lane.as_str()), ("state", state)];
                gauge(value(books)).encode(family.encode_family(&labels)?)?;
            }
        }
        self.encode_rest(encoder, &books)
    }
}

impl BooksCollector {
    fn encode_rest(
        &self,
        mut encoder: DescriptorEncoder<'_>,
        books: &embeddables_queue::Books,
    ) -> fmt::Result {
        let used = self.store.capacity().used_bytes;
        let help = "Bytes of events and dead letters here now, with their overhead";
        gauge(used).encode(encoder.encode_descriptor("queue_bytes", help, None, MetricType::Gauge)?)?;
        let help = "Starts at which the store ended below its mark: commits may have been lost";
        let losses = encoder.encode_descriptor("queue_possible_losses", help, None, MetricType::Counter)?;
        ConstCounter::new(books.possible_losses).encode(losses)?;
        let help = "Ids forgotten before queue.dedupe_window because of queue.dedupe_ids";
        let evicted = encoder.encode_descriptor("queue_evicted_ids", help, None, MetricType::Counter)?;
        ConstCounter::new(books.evicted_ids).encode(evicted)?;
        let mut family = encoder.encode_descriptor(
            "queue_oldest_event_age_seconds",
            "Time since the oldest event that is still to be delivered was accepted",
            None,
            MetricType::Gauge,
        )?;
        let now = self.clock.wall();
        for (project, accepted) in self.oldest.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let seconds = seconds_between(*accepted, now);
            ConstGauge::new(seconds).encode(family.encode_family(&[("project", project.as_str())])?)?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an age in seconds needs no more than 52 bits"
)]
fn seconds_between(from: UnixMillis, to: UnixMillis) -> f64 {
    to.0.saturating_sub(from.0).max(0) as f64 / 1_000.0
}
