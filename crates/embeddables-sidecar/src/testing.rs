//! The rooms before the queue over a queue in memory, for the unit tests of what looks into it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use embeddables_client::{ApiKey, BaseUrl, Client, ClientConfig, Endpoint};
use embeddables_core::{Event, Identifier, IdentifierValue, ProjectId, Properties, Rules};
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{Claim, Disposition, Durability, Lease, Settlement, Store, UnixMillis};

use crate::clock::SystemClock;
use crate::dispatch::board::{Board, Condition, HoldReason, HoldView, LanePost, LaneView};
use crate::enqueue::lane;
use crate::ingest::admission::Options;
use crate::pipeline::{Accepted, Pipeline, Rooms, Verdict};
use crate::settle::Feed;
use crate::settle::progress::Progress;
use crate::telemetry::metrics::IngestMetrics;
use crate::validate::Validator;

/// Wall time of everything that a bench settles.
pub(crate) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A pipeline with two projects whose lanes are the test itself.
pub(crate) struct Bench {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) board: Board,
    pub(crate) posts: BTreeMap<ProjectId, LanePost>,
    pub(crate) feed: Arc<Feed>,
}

/// One of the two projects.
pub(crate) fn project(id: &str) -> ProjectId {
    ProjectId::parse(id).expect("a project id")
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A bench whose queue `change` has a say in.
    pub(crate) fn with(change: impl FnOnce(&mut MemoryConfig)) -> Self {
        let projects = ["pr_a", "pr_b"].map(project);
        let mut config = MemoryConfig::new(projects.iter().map(lane).collect());
        change(&mut config);
        let store: Arc<dyn Store> = Arc::new(MemoryQueue::new(config));
        let (board, posts) = Board::new(projects.clone());
        let feed = Arc::new(Feed::default());
        let endpoint = |project: &ProjectId| {
            let key = ApiKey::parse("rk_test_key").expect("a key");
            Arc::new(Endpoint::new(BaseUrl::default(), project.clone(), key))
        };
        let endpoints: HashMap<_, _> = projects
            .iter()
            .map(|project| (project.clone(), endpoint(project)))
            .collect();
        let pipeline = Arc::new(Pipeline::new(Rooms {
            store: Arc::clone(&store),
            validator: Validator::new(None, Rules::default()),
            clock: Arc::new(SystemClock::start(embeddables_queue::UnixMillis(0))),
            feed: Arc::clone(&feed),
            board: board.clone(),
            metrics: IngestMetrics::default(),
            endpoints,
            client: Client::new(ClientConfig::default()).expect("a client"),
            default_durability: Durability::Memory,
        }));
        Self {
            pipeline,
            store,
            board,
            posts,
            feed,
        }
    }

    /// Publishes an event about a user of its own.
    pub(crate) async fn publish(&self, project: &str, id: &str) -> Accepted {
        self.try_publish(project, id).await.expect("the event is taken")
    }

    /// Publishes an event about a user of its own; it may be refused.
    pub(crate) async fn try_publish(&self, project: &str, id: &str) -> Verdict {
        let event = Event {
            event_id: Some(id.to_owned()),
            project_id: Some(project.to_owned()),
            embeddable_id: "flow_1".to_owned(),
            name: "visit_completed".to_owned(),
            identifier: Some(Identifier {
                key: "email".to_owned(),
                value: Some(IdentifierValue::String(format!("{id}@example.com"))),
            }),
            properties: Properties::Json("{\"amount\":7}".to_owned()),
            ..Event::default()
        };
        let published = self.pipeline.publish(&[(event, Options::default())], false).await;
        published.expect("the call is taken").pop().expect("a verdict")
    }

    /// Claims up to `count` events of a project.
    pub(crate) async fn claim(&self, project: &str, count: usize) -> Vec<Lease> {
        let max = NonZeroUsize::new(count).expect("at least one");
        let claim = Claim {
            lane: lane(&self::project(project)),
            max,
            max_waiting: count,
            live_percent: 0,
            now: NOW,
        };
        self.store.claim(claim).await.expect("a claim").leases
    }

    /// Claims events and settles each as `disposition` says.
    pub(crate) async fn settle(&self, project: &str, count: usize, disposition: &Disposition) {
        let leases = self.claim(project, count).await;
        assert_eq!(leases.len(), count, "due in {project}");
        let sequences: Vec<_> = leases.iter().map(|lease| lease.sequence).collect();
        let settlements = leases.iter().map(|lease| Settlement {
            sequence: lease.sequence,
            claim: lease.claim,
            disposition: disposition.clone(),
            gate: embeddables_queue::Gate::Pass,
        });
        let settled = self.store.settle(settlements.collect()).await;
        settled.expect("settles");
        self.feed.announce(sequences);
    }

    /// Delivers the oldest due events.
    pub(crate) async fn deliver(&self, project: &str, count: usize) {
        let note = Progress::default().encode_bytes();
        self.settle(project, count, &Disposition::Delivered { time: NOW, note })
            .await;
    }

    /// Gives the oldest due events up for a reason.
    pub(crate) async fn give_up(&self, project: &str, count: usize, reason: &str) {
        let mut progress = Progress {
            reason: reason.to_owned(),
            message: "given up".to_owned(),
            http_status: 400,
            upstream_body: "no such field".to_owned(),
            ..Progress::default()
        };
        progress.note_interruption(NOW);
        let disposition = Disposition::DeadLetter {
            time: NOW,
            reason: reason.into(),
            progress: progress.encode_bytes(),
        };
        self.settle(project, count, &disposition).await;
    }

    /// Has a lane show itself as held.
    pub(crate) fn show_held(&self, project: &str) {
        let view = LaneView {
            condition: Condition::Held,
            hold: Some(HoldView {
                reason: HoldReason::KeyRejected,
                message: "give it another key".to_owned(),
                since: NOW,
            }),
            next_try: Some(UnixMillis(NOW.0 + 5_000)),
            ..LaneView::default()
        };
        self.posts[&self::project(project)].view.send_replace(view);
    }
}
