//! Publishers that run until they are stopped or their sidecar is gone, and what was acknowledged to them.
//!
//! # Invariants
//! 1. An event is in doubt before its first byte is sent, and acknowledged only once an answer said so: whatever moment the
//!    sidecar dies in, the two sets are right.
//! 2. Ids and contents follow from the seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embeddables_proto::events::v1::publish_result::Result as Taken;
use embeddables_proto::events::v1::{PublishResult, StreamEventsRequest};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::calls::{self, Client};
use crate::event::TestEvent;
use crate::sidecar::Sidecar;
use crate::wait;

/// Events of one batch call.
const BATCH: usize = 20;

/// Most events that a stream has sent and not seen acknowledged.
const WINDOW: usize = 64;

/// What became of a load's events.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Those that were acknowledged, by id.
    pub acknowledged: BTreeMap<String, TestEvent>,
    /// Those that were sent and got no answer: each may have been accepted or not.
    pub in_doubt: BTreeMap<String, TestEvent>,
    /// How calls failed.
    pub errors: Vec<Status>,
}

impl Report {
    /// Adds what a later load found: what was in doubt before and is acknowledged now is in doubt no more.
    pub fn absorb(&mut self, later: Report) {
        self.in_doubt.extend(later.in_doubt);
        self.in_doubt.retain(|id, _| !later.acknowledged.contains_key(id));
        self.acknowledged.extend(later.acknowledged);
        self.errors.extend(later.errors);
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    report: Mutex<Report>,
    acknowledged_count: AtomicUsize,
    stopped: AtomicBool,
}

impl Load {
    /// Starts publishers of every kind against a sidecar: single calls over TCP, batches over the Unix socket, a stream.
    ///
    /// Ids start with `prefix`. `repeats` are published first, as a service repeats what it got no answer for.
    pub fn start(sidecar: &Sidecar, prefix: &str, seed: u64, repeats: Vec<TestEvent>) -> Self {
        let shared = Arc::new(Shared::default());
        let (tcp, unix) = (calls::client(sidecar), calls::unix(sidecar.ready("grpc_unix")));
        let publisher = |index: u64, client: &Client| Publisher {
            client: client.clone(),
            shared: Arc::clone(&shared),
            source: StdRng::seed_from_u64(seed.wrapping_add(index)),
            prefix: format!("{prefix}-{index}"),
            made: 0,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher(0, &tcp).singly(repeats));
        tasks.spawn(publisher(1, &unix).singly(Vec::new()));
        tasks.spawn(publisher(2, &unix).in_batches());
        tasks.spawn(publisher(3, &tcp).by_stream());
        Self { shared, tasks }
    }

    /// How many events have been acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        self.shared.acknowledged_count.load(Ordering::Acquire)
    }

    /// Waits until so many events have been acknowledged.
    ///
    /// # Panics
    /// Where that takes too long.
    pub async fn await_acknowledged(&self, count: usize) {
        let what = format!("{count} events to be acknowledged");
        wait::until(what, wait::SOON, async || {
            (self.acknowledged_count() >= count).then_some(())
        })
        .await;
    }

    /// Stops the publishers where they have not ended by themselves, and tells what became of their events.
    ///
    /// # Panics
    /// Where they do not end in time, or panicked.
    pub async fn finish(mut self) -> Report {
        self.shared.stopped.store(true, Ordering::Release);
        wait::within("the publishers to end", wait::SOON, async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.expect("no publisher panics");
            }
        })
        .await;
        std::mem::take(&mut *self.shared.report())
    }
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn sending(&self, event: &TestEvent) {
        self.report().in_doubt.insert(event.id.clone(), event.clone());
    }

    fn acknowledge(&self, id: &str) {
        let mut report = self.report();
        let event = report
            .in_doubt
            .remove(id)
            .unwrap_or_else(|| panic!("{id} was acknowledged but not in doubt"));
        report.acknowledged.insert(id.to_owned(), event);
        self.acknowledged_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes one result of many; a refusal that may be retried leaves the event in doubt.
    fn note(&self, id: &str, result: Option<PublishResult>) {
        match result.and_then(|result| result.result) {
            Some(Taken::Status(status)) => {
                assert_eq!(status.event_id, id, "the result of another event");
                self.acknowledge(id);
            }
            Some(Taken::Refusal(refusal)) => {
                let status = Status::new(
                    refusal.code.into(),
                    format!("{}: {}", refusal.reason, refusal.message),
                );
                self.report().errors.push(status);
            }
            None => panic!("an empty result for {id}"),
        }
    }
}

struct Publisher {
    client: Client,
    shared: Arc<Shared>,
    source: StdRng,
    prefix: String,
    made: usize,
}

impl Publisher {
    fn next_event(&mut self) -> TestEvent {
        self.made += 1;
        let event = TestEvent::random(format!("{}-{}", self.prefix, self.made), &mut self.source);
        self.shared.sending(&event);
        event
    }

    async fn singly(mut self, repeats: Vec<TestEvent>) {
        let mut repeats = repeats.into_iter();
        while !self.shared.is_stopped() {
            let event = match repeats.next() {
                Some(event) => {
                    self.shared.sending(&event);
                    event
                }
                None => self.next_event(),
            };
            match calls::publish(&self.client, event.to_proto()).await {
                Ok(_) => self.shared.acknowledge(&event.id),
                Err(status) => return self.shared.report().errors.push(status),
            }
        }
    }

    async fn in_batches(mut self) {
        while !self.shared.is_stopped() {
            let events: Vec<TestEvent> = (0..BATCH).map(|_| self.next_event()).collect();
            let protos = events.iter().map(TestEvent::to_proto).collect();
            match calls::publish_batch(&self.client, protos).await {
                Ok(results) => {
                    assert_eq!(results.len(), events.len(), "one result an event");
                    for (event, result) in events.iter().zip(results) {
                        self.shared.note(&event.id, Some(result));
                    }
                }
                Err(status) => return self.shared.report().errors.push(status),
            }
        }
    }

    async fn by_stream(mut self) {
        // As large as the window: what may be sent always fits.
        let (sender, receiver) = mpsc::channel(WINDOW);
        let mut client = self.client.clone();
        let mut answers = match client.stream_events(ReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.shared.report().errors.push(status),
        };
        let mut open: BTreeMap<i64, String> = BTreeMap::new();
        let mut sender = Some(sender);
        let mut sequence = self.source.random_range(0..1_000_000_i64);
        loop {
            if self.shared.is_stopped() {
                sender = None;
            }
            while let Some(sender) = sender
                .as_ref()
                .filter(|sender| open.len() < WINDOW && !sender.is_closed())
            {
                let event = self.next_event();
                let message = StreamEventsRequest {
                    sequence,
                    event: Some(event.to_proto()),
                    options: None,
                };
                if sender.try_send(message).is_ok() {
                    open.insert(sequence, event.id);
                }
                sequence += 1;
            }
            match answers.message().await {
                Ok(Some(answer)) => {
                    for result in answer.results {
                        let id = open
                            .remove(&result.sequence)
                            .expect("a result for a message that was sent");
                        self.shared.note(&id, result.result);
                    }
                }
                Ok(None) => return,
                Err(status) => return self.shared.report().errors.push(status),
            }
        }
    }
}
