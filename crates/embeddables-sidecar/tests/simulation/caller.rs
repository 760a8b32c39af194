//! Callers: each publishes one event, and knows nothing of lives and crashes but that the door is shut at times.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use embeddables_core::{
    Defaults, Event, EventId, Identifier, IdentifierValue, Properties, Rules, Timestamp, ValidEvent,
};
use embeddables_queue::{Append, Durability, Queue as _, Store, UnixMillis};
use embeddables_sidecar::clock::Clock;
use embeddables_sidecar::enqueue::Enqueuer;
use embeddables_sidecar::validate::Checked;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::LifeClock;
use crate::life::project;
use crate::oracle::Oracle;
use crate::plan::EventPlan;
use crate::store::SimStore;

/// Where callers find the present life of the sidecar.
#[derive(Default)]
pub(crate) struct Door {
    open: Mutex<Option<(Arc<SimStore>, Arc<LifeClock>)>>,
    closed: Notify,
}

impl Door {
    /// Lets callers in to a life.
    pub(crate) fn open(&self, store: Arc<SimStore>, clock: Arc<LifeClock>) {
        *self.open.lock().expect("the door") = Some((store, clock));
    }

    /// Sends everybody away: that life is over.
    pub(crate) fn close(&self) {
        self.open.lock().expect("the door").take();
        self.closed.notify_waiters();
    }
}

/// Somebody who publishes one event, as often as it takes.
pub(crate) struct Caller {
    pub(crate) lane: usize,
    pub(crate) event: EventPlan,
    pub(crate) begin: Instant,
    pub(crate) door: Arc<Door>,
    pub(crate) oracle: Arc<Oracle>,
}

impl Caller {
    pub(crate) async fn call(self) {
        tokio::time::sleep_until(self.begin + self.event.at).await;
        let mut deadline = None;
        self.publish(&mut deadline).await;
        if let Some(after) = self.event.repeat_after {
            tokio::time::sleep(after).await;
            self.publish(&mut deadline).await;
        }
    }

    /// Tries until the event is acknowledged; says the same each time.
    async fn publish(&self, deadline: &mut Option<UnixMillis>) {
        loop {
            let open = self.door.open.lock().expect("the door").clone();
            if let Some((store, clock)) = open {
                let wall = clock.wall();
                let within = self.event.deliver_within.map(crate::clock::millis);
                *deadline = deadline.or(within.map(|within| UnixMillis(wall.0 + within)));
                let closed = self.door.closed.notified();
                tokio::select! {
                    biased;
                    () = closed => {}
                    acknowledged = self.try_once(&store, wall, *deadline) => if acknowledged {
                        return;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn try_once(&self, store: &Arc<SimStore>, wall: UnixMillis, deadline: Option<UnixMillis>) -> bool {
        let enqueuer = Enqueuer::new(Arc::clone(store) as Arc<dyn Store>);
        let record = enqueuer.record(checked(self.lane, &self.event), wall, deadline);
        let id = &self.event.id;
        self.oracle.offered(self.lane, id, record.order_key, deadline);
        let append = Append {
            records: vec![record],
            durability: Durability::Memory,
            atomic: false,
        };
        match store.append(append).await {
            Ok(results) => match results.first() {
                Some(Ok(appended)) => {
                    self.oracle
                        .acknowledged(self.lane, id, appended.sequence, appended.duplicate);
                    true
                }
                refused => {
                    self.oracle.fail(format!("{id} was refused: {refused:?}"));
                    true
                }
            },
            Err(_) => false,
        }
    }
}

fn checked(lane: usize, plan: &EventPlan) -> Checked {
    let event = Event {
        embeddable_id: "flow_1".to_owned(),
        name: "visit".to_owned(),
        identifier: Some(Identifier {
            key: "email".to_owned(),
            value: Some(IdentifierValue::String(format!("user-{}", plan.user))),
        }),
        properties: Properties::Json(properties(&plan.id)),
        ..Event::default()
    };
    let project = project(lane);
    let defaults = Defaults {
        project_id: Some(&project),
        event_id: EventId::parse(&plan.id).expect("an id"),
        now: Timestamp::from_unix(0, 0).expect("a time"),
    };
    let valid: ValidEvent = event
        .validate(&defaults, &Rules::default())
        .expect("a valid event");
    Checked {
        canonical: embeddables_core::canonical(&event),
        event: valid,
    }
}

/// Properties that tell one event from another.
pub(crate) fn properties(id: &str) -> String {
    let id = id.split('~').next().unwrap_or(id);
    format!("{{ \"of\": \"{id}\" }}")
}
