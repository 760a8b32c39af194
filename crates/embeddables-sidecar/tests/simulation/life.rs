//! One life of the sidecar: its lanes, what they are set to, and by what names they go.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use embeddables_client::{ApiKey, BaseUrl, Endpoint};
use embeddables_core::ProjectId;
use embeddables_queue::LaneName;
use embeddables_sidecar::clock::Clock;
use embeddables_sidecar::dispatch::board::Board;
use embeddables_sidecar::dispatch::schedule::Schedule;
use embeddables_sidecar::dispatch::{GateSettings, LaneSettings, ProbeIntervals, Pulse, Stop};
use embeddables_sidecar::settle::rules::{Ambiguity, Policy};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::plan::{ENTRY_SCHEDULE, LanePlan};
use crate::planted::Planted;
use crate::store::SimStore;
use crate::upstream::KEYS;

/// Shortest time between probes.
pub(crate) const PROBE_MIN: Duration = Duration::from_secs(5);

/// One life of the sidecar.
pub(crate) struct Life {
    pub(crate) store: Arc<SimStore>,
    pub(crate) lanes: JoinSet<usize>,
    pub(crate) stop: watch::Sender<Stop>,
    pub(crate) board: Board,
    pub(crate) endpoints: Vec<watch::Sender<Arc<Endpoint>>>,
}

impl Life {
    /// Ends it as a crash does: nothing is finished.
    pub(crate) async fn end(mut self) {
        self.stop.send_replace(Stop::Abandon);
        while let Some(ended) = self.lanes.join_next().await {
            ended.expect("a lane does not panic");
        }
    }
}

/// What the plan sets a lane to.
pub(crate) fn settings(
    lane: usize,
    plan: &LanePlan,
    planted: Option<Planted>,
    clock: &dyn Clock,
) -> LaneSettings {
    let rate = plan.rate_per_second.map(|rate| format!("{rate}/s"));
    LaneSettings {
        name: lane_name(lane),
        gates: GateSettings {
            max_in_flight: NonZeroUsize::new(plan.max_in_flight).expect("not zero"),
            rate: rate.map(|rate| rate.parse().expect("a rate")),
            probes: ProbeIntervals {
                min: PROBE_MIN,
                max: Duration::from_secs(60),
            },
            ambiguous_is_final: plan.ambiguous_is_final,
            half_open_attempts: if planted == Some(Planted::HalfOpenLetsTwoThrough) {
                2
            } else {
                1
            },
        },
        policy: Arc::new(Policy {
            schedule: Schedule {
                retry_min: Duration::from_millis(500),
                retry_max: Duration::from_secs(60),
                max_age: plan.max_age,
                entry_schedule: ENTRY_SCHEDULE.to_vec(),
            },
            ambiguity: if plan.ambiguous_is_final {
                Ambiguity::DeadLetter
            } else {
                Ambiguity::Retry
            },
            ordered: plan.ordered,
        }),
        max_batch: NonZeroUsize::new(8).expect("not zero"),
        linger: Duration::ZERO,
        live_percent: 20,
        pulse: Pulse::new(clock.steady()),
        lost: Counter::default(),
    }
}

pub(crate) fn project(lane: usize) -> ProjectId {
    ProjectId::parse(&format!("pr_{lane}")).expect("a project")
}

pub(crate) fn lane_name(lane: usize) -> LaneName {
    LaneName::new(format!("pr_{lane}"))
}

pub(crate) fn endpoint(lane: usize, key: usize) -> Arc<Endpoint> {
    let url = BaseUrl::parse("http://127.0.0.1:1").expect("a URL");
    Arc::new(Endpoint::new(
        url,
        project(lane),
        ApiKey::parse(KEYS[key]).expect("a key"),
    ))
}
