//! Counters of this process: refusals at the door, attempts, times. All start at zero with the process; the books, which
//! survive it, are in [`books`](super::books).
//!
//! Every metric is exported as `embeddables_<name>`; `docs/metrics.md` lists them.

use std::time::Duration;

use embeddables_core::Fate;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counts what the first room turns away.
#[derive(Clone, Debug, Default)]
pub struct IngestMetrics {
    refused: Family<RefusedLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

impl IngestMetrics {
    /// Registers `ingest_refused_events_total{reason}`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ingest_refused_events",
            "Events not taken, by reason",
            metrics.refused.clone(),
        );
        metrics
    }

    /// Counts an event that was not taken. `reason` is one of the closed set in `docs/errors.md`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
}

/// Counts and times attempts of all lanes.
#[derive(Clone, Debug)]
pub struct AttemptMetrics {
    attempts: Family<AttemptLabels, Counter>,
    seconds: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    project: String,
    outcome: OutcomeLabel,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label values")]
enum OutcomeLabel {
    not_sent,
    rejected,
    accepted,
    ambiguous,
}

impl AttemptMetrics {
    /// Registers `deliver_attempts_total{project,outcome}` and `deliver_attempt_seconds`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        registry.register(
            "deliver_attempts",
            "Attempts that ended, by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "deliver_attempt_seconds",
            "Time that an attempt took",
            metrics.seconds.clone(),
        );
        metrics
    }

    /// The counters of one configured project, looked up once.
    pub fn of_project(&self, project: &str) -> DeliverMetrics {
        let counter = |outcome| {
            self.attempts.get_or_create_owned(&AttemptLabels {
                project: project.to_owned(),
                outcome,
            })
        };
        DeliverMetrics {
            not_sent: counter(OutcomeLabel::not_sent),
            rejected: counter(OutcomeLabel::rejected),
            accepted: counter(OutcomeLabel::accepted),
            ambiguous: counter(OutcomeLabel::ambiguous),
            seconds: self.seconds.clone(),
        }
    }
}

/// Counts and times the attempts of one lane.
#[derive(Clone, Debug)]
pub struct DeliverMetrics {
    not_sent: Counter,
    rejected: Counter,
    accepted: Counter,
    ambiguous: Counter,
    seconds: Histogram,
}

impl DeliverMetrics {
    /// Counts an attempt that ended.
    pub fn observe(&self, fate: Fate, elapsed: Duration) {
        match fate {
            Fate::NotSent => &self.not_sent,
            Fate::Rejected => &self.rejected,
            Fate::Accepted => &self.accepted,
            Fate::Ambiguous => &self.ambiguous,
        }
        .inc();
        self.seconds.observe(elapsed.as_secs_f64());
    }
}

/// Times the queue's commits.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    /// `queue_fsync_seconds`: from the start of a commit to its being on disk.
    pub fsync_seconds: Histogram,
}

impl QueueMetrics {
    /// Registers `queue_fsync_seconds`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            fsync_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
        };
        registry.register(
            "queue_fsync_seconds",
            "Time from the start of a commit to its being on disk",
            metrics.fsync_seconds.clone(),
        );
        metrics
    }
}
