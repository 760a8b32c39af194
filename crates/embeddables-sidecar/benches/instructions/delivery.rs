//! The rooms behind the queue: a real lane and the real HTTP client on one thread, over a queue in memory and an upstream on the
//! loopback that answers at once. What the queue on disk costs stands beside it (`queue`).

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;

use embeddables_client::{ApiKey, BaseUrl, Client, ClientConfig, Endpoint};
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{Append, Durability, LaneName, Ledger as _, NewRecord, Queue as _};
use embeddables_sidecar::clock::{Clock, SystemClock};
use embeddables_sidecar::config::DeliveryConfig;
use embeddables_sidecar::deliver::stack;
use embeddables_sidecar::dispatch::board::Board;
use embeddables_sidecar::dispatch::schedule::Schedule;
use embeddables_sidecar::dispatch::{
    GateSettings, Lane, LaneParts, LaneSettings, ProbeIntervals, Pulse, Stop,
};
use embeddables_sidecar::enqueue::codec;
use embeddables_sidecar::settle::Feed;
use embeddables_sidecar::settle::rules::{Ambiguity, Policy};
use embeddables_sidecar::telemetry::metrics::AttemptMetrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::events::{lane_name, project, records, runtime};

/// What upstream answers, as documented.
const BODY: &str = concat!(
    r#"{"group_id":"gr_1","project_id":"pr_benchmark_000","embeddable_id":"flow_2bc58aj3a8g0d9ddd8j7jbd4g","#,
    r#""embeddable_version_number":"7","contact_id":"con_2bc58aj3a8g0d9ddd8j7jbd4g","entry_id":"ent_2bc58aj3a8g0d9ddd8","#,
    r#""timestamp":"2026-11-23T10:01:01.123Z","event_type":"custom_event:triggered"}"#,
);

/// From the payload of a record to the request: what the client makes of an event, body and headers.
pub(crate) fn encode(count: usize) {
    let client = Client::new(ClientConfig::default()).expect("a client");
    let endpoint = endpoint("http://127.0.0.1:1");
    for record in &records()[..count] {
        let stored = codec::decode(&record.payload).expect("a payload");
        black_box(client.request(&endpoint, &stored.event));
    }
}

/// Delivers events of one lane; what else is prepared lies in another one, which does not run.
pub(crate) fn deliver(count: usize) {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let upstream = tokio::spawn(serve(listener));
        let store = store(count).await;
        let (board, lane) = lane(&store, &format!("http://{address}"));
        let (_stop, stopped) = watch::channel(Stop::Drain);
        assert_eq!(lane.run(stopped).await, 0, "leases left open");
        let (_, books) = &store.books().lanes[0];
        assert_eq!(books.delivered, u64::try_from(count).expect("a few events"));
        drop(board);
        upstream.abort();
    });
}

/// A queue with so many events in the lane, and the other prepared ones in its neighbour.
async fn store(count: usize) -> Arc<MemoryQueue> {
    let neighbour = LaneName::new("pr_neighbour");
    let store = MemoryQueue::new(MemoryConfig::new(vec![lane_name(), neighbour.clone()]));
    let records = records()
        .into_iter()
        .enumerate()
        .map(|(index, record)| NewRecord {
            lane: if index < count {
                lane_name()
            } else {
                neighbour.clone()
            },
            ..record
        });
    let append = Append {
        records: records.collect(),
        durability: Durability::Memory,
        atomic: true,
    };
    let appended = store.append(append).await.expect("appends");
    assert!(appended.iter().all(Result::is_ok));
    Arc::new(store)
}

/// A lane with its defaults, and the board that keeps it company.
fn lane(store: &Arc<MemoryQueue>, url: &str) -> (Board, Lane) {
    let clock = Arc::new(SystemClock::start(embeddables_queue::UnixMillis(0)));
    let (board, mut posts) = Board::new([project()]);
    let metrics = AttemptMetrics::register(&mut Registry::default()).of_project(project().as_str());
    let client = Client::new(ClientConfig::default()).expect("a client");
    let parts = LaneParts {
        store: Arc::clone(store) as _,
        deliver: stack(client, metrics),
        clock: Arc::clone(&clock) as _,
        feed: Arc::new(Feed::default()),
        endpoint: watch::channel(endpoint(url)).1,
        post: posts.remove(&project()).expect("its post"),
        seed: 7,
    };
    (board, Lane::new(settings(&*clock), parts))
}

fn settings(clock: &dyn Clock) -> LaneSettings {
    let delivery = DeliveryConfig::default();
    let count = |number| NonZeroUsize::try_from(number).expect("fits");
    LaneSettings {
        name: lane_name(),
        gates: GateSettings {
            max_in_flight: count(delivery.max_in_flight),
            rate: delivery.rate,
            probes: ProbeIntervals {
                min: delivery.probe_min,
                max: delivery.probe_max,
            },
            ambiguous_is_final: false,
            half_open_attempts: 1,
        },
        policy: Arc::new(Policy {
            schedule: Schedule {
                retry_min: delivery.retry_min,
                retry_max: delivery.retry_max,
                max_age: delivery.max_age,
                entry_schedule: delivery.entry_schedule,
            },
            ambiguity: Ambiguity::Retry,
            ordered: false,
        }),
        max_batch: count(delivery.max_batch),
        linger: delivery.linger,
        live_percent: delivery.live_percent,
        pulse: Pulse::new(clock.steady()),
        lost: Counter::default(),
    }
}

fn endpoint(url: &str) -> Arc<Endpoint> {
    let url = BaseUrl::parse(url).expect("a URL");
    let key = ApiKey::parse("rk_benchmark_0123456789").expect("a key");
    Arc::new(Endpoint::new(url, project(), key))
}

/// Answers on every connection.
async fn serve(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        tokio::spawn(answer(stream));
    }
}

/// Answers whatever comes, at the least cost: a request of this size arrives at once.
async fn answer(mut stream: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
    let answer = format!("{head} {}\r\n\r\n{BODY}", BODY.len());
    let mut request = [0; 4_096];
    loop {
        let length = stream.read(&mut request).await.expect("reads");
        if length == 0 {
            return;
        }
        assert!(request[..length].starts_with(b"POST ") && request[..length].ends_with(b"]}"));
        stream.write_all(answer.as_bytes()).await.expect("writes");
    }
}
