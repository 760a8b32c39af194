//! An upstream and a sidecar on an empty directory: what most tests begin with.

use std::collections::BTreeMap;
use std::time::Duration;

use embeddables_proto::events::v1::{EventStatus, PublishOptions, State};
use serde_json::Value;
use tempfile::TempDir;

use crate::calls::{self, Client};
use crate::event::TestEvent;
use crate::metrics::{self, Books};
use crate::settings::Settings;
use crate::sidecar::Sidecar;
use crate::upstream::Upstream;
use crate::wait;

/// Events that a failure tells all about.
const SHOWN: usize = 3;

/// An upstream and a sidecar that delivers to it.
#[derive(Debug)]
pub struct Stage {
    /// The sidecar. Dropped before the directory that it writes to.
    pub sidecar: Sidecar,
    /// The upstream; outlives every life of the sidecar.
    pub upstream: Upstream,
    /// What the sidecar is started with, now and after each restart.
    pub settings: Settings,
    directory: TempDir,
}

impl Stage {
    /// A stage with the tests' usual settings.
    ///
    /// # Panics
    /// Where the sidecar does not become ready.
    pub async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    /// A stage with settings of its own.
    ///
    /// # Panics
    /// Where the sidecar does not become ready.
    pub async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::on(Upstream::start().await, change).await
    }

    /// A stage in front of `upstream`.
    ///
    /// # Panics
    /// Where the sidecar does not become ready.
    pub async fn on(upstream: Upstream, change: impl FnOnce(Settings) -> Settings) -> Self {
        let directory = directory();
        let settings = change(Settings::new(directory.path(), &upstream.url()));
        let sidecar = Sidecar::start(&settings).await;
        Self {
            sidecar,
            upstream,
            settings,
            directory,
        }
    }

    /// A client over TCP of the sidecar's present life.
    pub fn client(&self) -> Client {
        calls::client(&self.sidecar)
    }

    /// Publishes an event, which must be taken.
    ///
    /// # Panics
    /// Where it is not.
    pub async fn publish(&self, event: &TestEvent) -> EventStatus {
        let published = calls::publish(&self.client(), event.to_proto()).await;
        published.unwrap_or_else(|status| panic!("{} was not taken: {status:?}", event.id))
    }

    /// Publishes an event with options; it must be taken.
    ///
    /// # Panics
    /// Where it is not.
    pub async fn publish_with(&self, event: &TestEvent, options: PublishOptions) -> EventStatus {
        let published = calls::publish_with(&self.client(), event.to_proto(), options).await;
        published.unwrap_or_else(|status| panic!("{} was not taken: {status:?}", event.id))
    }

    /// Publishes many events in one call; each must be taken.
    ///
    /// # Panics
    /// Where one is not.
    pub async fn publish_all<'e>(&self, events: impl IntoIterator<Item = &'e TestEvent>) {
        let protos = events.into_iter().map(TestEvent::to_proto).collect();
        let results = calls::publish_batch(&self.client(), protos).await;
        for result in results.expect("a batch of good events") {
            calls::taken(result);
        }
    }

    /// What is told of an event now.
    ///
    /// # Panics
    /// Where it is unknown.
    pub async fn status(&self, event: &TestEvent) -> EventStatus {
        let status = calls::get_in(&self.client(), &event.project, &event.id).await;
        status.unwrap_or_else(|status| panic!("{} is unknown: {status:?}", event.id))
    }

    /// Waits until an event is in `state`.
    ///
    /// # Panics
    /// Where that takes too long.
    pub async fn await_state(&self, event: &TestEvent, state: State) -> EventStatus {
        let is_there = |status: &EventStatus| status.state() == state;
        let (client, what) = (self.client(), state.as_str_name());
        calls::await_status(&client, &event.project, &event.id, what, wait::SOON, is_there).await
    }

    /// Waits until an event is in `state` for `reason`.
    ///
    /// # Panics
    /// Where that takes too long.
    pub async fn await_reason(&self, event: &TestEvent, state: State, reason: &str) -> EventStatus {
        let is_there = |status: &EventStatus| status.state() == state && status.reason == reason;
        let (client, what) = (self.client(), format!("{} for {reason}", state.as_str_name()));
        calls::await_status(&client, &event.project, &event.id, &what, wait::SOON, is_there).await
    }

    /// Ends the sidecar with SIGKILL and starts it again on the same directory.
    ///
    /// # Panics
    /// Where the new one does not become ready.
    pub async fn kill_and_restart(&mut self) {
        self.sidecar.kill_nine().await;
        self.restart().await;
    }

    /// Starts the sidecar again on the same directory; its former life must have ended.
    ///
    /// # Panics
    /// Where it has not, or the new one does not become ready.
    pub async fn restart(&mut self) {
        assert!(!self.sidecar.is_running(), "the former life has not ended");
        self.sidecar = Sidecar::start(&self.settings).await;
    }

    /// Waits until the upstream has created an event for each of these, each with exactly the body that was acknowledged.
    ///
    /// # Panics
    /// Where one does not come within `bound`, or comes with another body.
    pub async fn await_delivered<'e>(
        &self,
        events: impl IntoIterator<Item = &'e TestEvent>,
        bound: Duration,
    ) {
        let events: BTreeMap<&str, &TestEvent> = events
            .into_iter()
            .map(|event| (event.id.as_str(), event))
            .collect();
        let wanted: BTreeMap<&str, Value> = events.iter().map(|(id, event)| (*id, event.body())).collect();
        let is_complete = async || {
            // The count is cheap to ask for; the record is read once it can be complete.
            let enough = self.upstream.created_count() >= wanted.len();
            let complete = enough
                && self
                    .upstream
                    .look(|created| wanted.keys().all(|id| created.contains_key(*id)));
            complete.then_some(())
        };
        if !wait::holds_within(bound, is_complete).await {
            let missing = self.upstream.look(|created| {
                let missing = events.iter().filter(|(id, _)| !created.contains_key(**id));
                missing.map(|(_, event)| *event).collect::<Vec<_>>()
            });
            let mut told = Vec::new();
            for event in missing.iter().take(SHOWN) {
                told.push(self.status(event).await);
            }
            panic!(
                "waited {bound:?} in vain for {} of {} deliveries, among them {told:#?}",
                missing.len(),
                wanted.len()
            );
        }
        self.upstream.look(|created| {
            for (id, body) in &wanted {
                for delivered in &created[*id] {
                    assert_eq!(delivered, body, "event {id} was delivered with another body");
                }
            }
        });
    }

    /// Waits until nothing is queued or waiting any more, and balances the books.
    ///
    /// # Panics
    /// Where that takes longer than `bound`, or they do not balance.
    pub async fn drain(&self, bound: Duration) -> Books {
        wait::until("the queue to be empty", bound, async || {
            let books = self.balance_books().await;
            (books.here == 0.0).then_some(books)
        })
        .await
    }

    /// Scrapes the sidecar and asserts that its books balance.
    ///
    /// # Panics
    /// Where they do not.
    pub async fn balance_books(&self) -> Books {
        metrics::balance_books(&self.sidecar).await
    }

    /// A folder for files of the test's own, gone with the stage.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

/// A new empty directory; its path is short, since a Unix socket's may have 108 bytes at most.
///
/// # Panics
/// Where none can be made.
pub fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("e2e-")
        .tempdir()
        .expect("a temporary directory")
}
