//! Measures the embedded queue on this machine: `cargo run --release -p embeddables-queue --example throughput [dir]`.
//!
//! Prints records a second for ids that come in no order and for the steady state (append, claim, settle), and the time to open
//! with records queued; `just bench store` measures appending alone. Bounded: a few hundred thousand records in a temporary directory, under a minute.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{
    Append, Claim, Disposition, Durability, Gate, LaneName, MonotonicClock, NewRecord, Queue, RunningClock,
    Settlement, UnixMillis,
};

const PAYLOAD_BYTES: usize = 305;

fn record(lane: &LaneName, number: u64, random: bool) -> NewRecord {
    // Rising ids look like UUIDv7, random ones like UUIDv4.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let head = if random { spread } else { number };
    NewRecord {
        lane: lane.clone(),
        id: format!("{head:016x}-{spread:016x}").into(),
        fingerprint: [1; 16],
        order_key: [2; 16],
        accept_time: UnixMillis(1),
        deadline: None,
        payload: Bytes::from(vec![7; PAYLOAD_BYTES]),
    }
}

fn append(records: Vec<NewRecord>) -> Append {
    Append {
        records,
        durability: Durability::Memory,
        atomic: false,
    }
}

fn open(dir: &Path) -> (Arc<SqliteQueue>, LaneName) {
    let lane = LaneName::new("lane");
    let (queue, _) = SqliteQueue::open(SqliteConfig::new(dir, vec![lane.clone()])).expect("opens");
    (Arc::new(queue), lane)
}

fn strongest(queue: &SqliteQueue) -> Durability {
    *queue.durabilities().last().expect("one is on offer")
}

fn print(what: &str, count: u64, spent: Duration) {
    let seconds = spent.as_secs_f64();
    println!(
        "{what:<44} {:>9.0}/s  {:>6.2} us each",
        count as f64 / seconds,
        seconds * 1e6 / count as f64
    );
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or("0 0");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

async fn random_ids(dir: &Path, callers: u64, each: u64) {
    let clock = MonotonicClock::start();
    let (queue, lane) = open(dir);
    let durability = strongest(&queue);
    let slowest: Arc<std::sync::Mutex<Vec<u128>>> = Arc::default();
    let started = clock.elapsed();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (queue, lane, times) = (Arc::clone(&queue), lane.clone(), Arc::clone(&slowest));
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for number in 0..each {
                    let before = clock.elapsed();
                    let record = record(&lane, number * callers + caller + 1, true);
                    let call = Append {
                        durability,
                        ..append(vec![record])
                    };
                    queue.append(call).await.expect("appends")[0]
                        .as_ref()
                        .expect("is taken");
                    mine.push((clock.elapsed() - before).as_micros());
                }
                times.lock().expect("no panic").extend(mine);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("ends");
    }
    let spent = clock.elapsed() - started;
    print(
        &format!("append, {callers} callers, random ids"),
        callers * each,
        spent,
    );
    let mut times = std::mem::take(&mut *slowest.lock().expect("no panic"));
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000];
    println!(
        "    p50 {} us, p99 {} us, p99.9 {} us, max {} us, rss {} MiB",
        at(500),
        at(990),
        at(999),
        at(1000),
        rss_mib()
    );
    queue.close().await;
}

async fn steady(dir: &Path, callers: u64, each: u64) {
    let clock = MonotonicClock::start();
    let (queue, lane) = open(dir);
    let durability = strongest(&queue);
    let total = callers * each;
    let started = clock.elapsed();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let (queue, lane) = (Arc::clone(&queue), lane.clone());
        tasks.push(tokio::spawn(async move {
            for number in 0..each {
                let record = record(&lane, number * callers + caller + 1, false);
                let call = Append {
                    durability,
                    ..append(vec![record])
                };
                queue.append(call).await.expect("appends")[0]
                    .as_ref()
                    .expect("is taken");
            }
        }));
    }
    let worker = tokio::spawn(deliver(Arc::clone(&queue), lane.clone(), total));
    for task in tasks {
        task.await.expect("ends");
    }
    worker.await.expect("ends");
    print(
        &format!("append, claim, settle, {callers} callers"),
        total,
        clock.elapsed() - started,
    );
    queue.close().await;
}

/// Claims and settles until so many are delivered.
async fn deliver(queue: Arc<SqliteQueue>, lane: LaneName, total: u64) {
    let most = NonZeroUsize::new(256).expect("not zero");
    let ready = queue.lane_ready(&lane);
    let mut done = 0;
    while done < total {
        let claim = Claim {
            lane: lane.clone(),
            max: most,
            max_waiting: most.get(),
            live_percent: 50,
            now: UnixMillis(1),
        };
        let claimed = queue.claim(claim).await.expect("claims");
        if claimed.leases.is_empty() {
            ready.notified().await;
            continue;
        }
        done += claimed.leases.len() as u64;
        let settlements = claimed
            .leases
            .into_iter()
            .map(|lease| Settlement {
                sequence: lease.sequence,
                claim: lease.claim,
                disposition: Disposition::Delivered {
                    time: UnixMillis(2),
                    note: Bytes::from_static(b"receipt"),
                },
                gate: Gate::Pass,
            })
            .collect();
        queue.settle(settlements).await.expect("settles");
    }
}

async fn reopen(dir: &Path, count: u64) {
    let clock = MonotonicClock::start();
    let (queue, lane) = open(dir);
    let started = clock.elapsed();
    let mut number = 0;
    while number < count {
        let records = (0..1_000)
            .map(|offset| record(&lane, number + offset + 1, false))
            .collect();
        queue.append(append(records)).await.expect("appends");
        number += 1_000;
    }
    print("append, batches of 1,000", count, clock.elapsed() - started);
    // Not closed: as after a kill, the log is left as it is.
    drop(queue);
    let path = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        loop {
            let before = clock.elapsed();
            match SqliteQueue::open(SqliteConfig::new(&path, vec![LaneName::new("lane")])) {
                Ok(_) => return clock.elapsed() - before,
                // The writer of the dropped queue has not let go yet.
                Err(_) => std::thread::yield_now(),
            }
        }
    });
    let spent = opened.await.expect("opens");
    println!(
        "open with {count} queued: {:.1} ms, rss {} MiB",
        spent.as_secs_f64() * 1e3,
        rss_mib()
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let base = std::env::args()
        .nth(1)
        .unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = |name: &str| {
        let path = Path::new(&base).join(format!("queue-throughput-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("makes a directory");
        path
    };
    let dirs = ["random", "steady", "reopen"].map(dir);
    random_ids(&dirs[0], 64, 4_000).await;
    steady(&dirs[1], 64, 3_000).await;
    reopen(&dirs[2], 500_000).await;
    for dir in dirs {
        std::fs::remove_dir_all(dir).expect("removes its directory");
    }
}
