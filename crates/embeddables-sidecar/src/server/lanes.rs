//! Starting one lane a project, with its key and its end of the board.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use embeddables_client::{Client, Endpoint};
use embeddables_core::ProjectId;
use embeddables_queue::Store;
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::key_files::KeyFile;
use crate::clock::Clock;
use crate::config::{Ambiguity, Loaded, Order, ProjectSettings};
use crate::deliver;
use crate::dispatch::board::LanePost;
use crate::dispatch::schedule::Schedule;
use crate::dispatch::{GateSettings, Lane, LaneParts, LaneSettings, ProbeIntervals, Pulse, Stop};
use crate::enqueue::lane;
use crate::settle::{Feed, rules};
use crate::telemetry::metrics::AttemptMetrics;

/// What all lanes share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) feed: Arc<Feed>,
    pub(super) client: Client,
    pub(super) attempts: AttemptMetrics,
    pub(super) lost: Counter,
}

/// The lanes at work.
pub(super) struct Lanes {
    /// Each ends with how many leases it left open.
    pub(super) running: JoinSet<usize>,
    /// Asks them to end.
    pub(super) stop: watch::Sender<Stop>,
    /// Their signs of life.
    pub(super) pulses: Vec<Pulse>,
    /// Watches key files for as long as it lives.
    key_files: JoinSet<()>,
}

/// Where each project's events go.
pub(super) fn endpoints(loaded: &Loaded) -> HashMap<ProjectId, Arc<Endpoint>> {
    let endpoint = |project: &ProjectSettings| {
        Arc::new(Endpoint::new(
            project.base_url.clone(),
            project.id.clone(),
            project.api_key.clone(),
        ))
    };
    loaded
        .projects
        .iter()
        .map(|project| (project.id.clone(), endpoint(project)))
        .collect()
}

/// Starts the lanes whose end of the board is among `posts` on a runtime.
pub(super) fn start(
    loaded: &Loaded,
    shared: &Shared,
    endpoints: &HashMap<ProjectId, Arc<Endpoint>>,
    mut posts: BTreeMap<ProjectId, LanePost>,
    runtime: &Handle,
) -> Lanes {
    let (stop, stopped) = watch::channel(Stop::Run);
    let mut lanes = Lanes {
        running: JoinSet::new(),
        stop,
        pulses: Vec::new(),
        key_files: JoinSet::new(),
    };
    let mut files = Vec::new();
    for project in &loaded.projects {
        let (Some(post), Some(endpoint)) = (posts.remove(&project.id), endpoints.get(&project.id)) else {
            continue;
        };
        let (sender, endpoint) = watch::channel(Arc::clone(endpoint));
        if let Some(path) = &project.api_key_file {
            files.push(KeyFile::new(path.clone(), sender));
        }
        let settings = settings(loaded, project, shared);
        lanes.pulses.push(settings.pulse.clone());
        let parts = LaneParts {
            store: Arc::clone(&shared.store),
            deliver: deliver::stack(
                shared.client.clone(),
                shared.attempts.of_project(project.id.as_str()),
            ),
            clock: Arc::clone(&shared.clock),
            feed: Arc::clone(&shared.feed),
            endpoint,
            post,
            seed: rand::random(),
        };
        lanes
            .running
            .spawn_on(Lane::new(settings, parts).run(stopped.clone()), runtime);
    }
    lanes.key_files.spawn_on(super::key_files::watch(files), runtime);
    lanes
}

fn settings(loaded: &Loaded, project: &ProjectSettings, shared: &Shared) -> LaneSettings {
    let delivery = &loaded.config.delivery;
    let count = |number| NonZeroUsize::try_from(number).unwrap_or(NonZeroUsize::MAX);
    let ambiguity = match project.ambiguity {
        Ambiguity::Retry => rules::Ambiguity::Retry,
        Ambiguity::DeadLetter => rules::Ambiguity::DeadLetter,
    };
    LaneSettings {
        name: lane(&project.id),
        gates: GateSettings {
            max_in_flight: count(project.max_in_flight),
            rate: project.rate,
            probes: ProbeIntervals {
                min: delivery.probe_min,
                max: delivery.probe_max,
            },
            ambiguous_is_final: ambiguity == rules::Ambiguity::DeadLetter,
            half_open_attempts: 1,
        },
        policy: Arc::new(rules::Policy {
            schedule: Schedule {
                retry_min: delivery.retry_min,
                retry_max: delivery.retry_max,
                max_age: delivery.max_age,
                entry_schedule: delivery.entry_schedule.clone(),
            },
            ambiguity,
            ordered: project.order == Order::Identifier,
        }),
        max_batch: count(delivery.max_batch),
        linger: delivery.linger,
        live_percent: project.live_percent(delivery),
        pulse: Pulse::new(shared.clock.steady()),
        lost: shared.lost.clone(),
    }
}
