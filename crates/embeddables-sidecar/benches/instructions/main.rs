//! Instructions an event, room by room, as callgrind counts them: the speed of the sidecar without the noise of a clock.
//! `just instructions` runs this and compares with `.ci/instructions.json`.
//!
//! # Invariants
//! 1. Each benchmark runs twice in a process of its own: with 500 and with 1,500 events of [`PREPARED`]. All threads of the
//!    process are counted, and the difference of both is what 1,000 events cost: start and set-up cancel out.
//! 2. The id of a run, `events_<count>`, says how many events it is about; nothing else tells them apart.
//! 3. Every run makes the same calls in the same order, from one thread, and no call waits for a time: what is left to chance
//!    are hash seeds and when the queue's writer wakes up.
//! 4. Every event is looked at: a benchmark that loses or refuses one panics.

#![expect(missing_docs, reason = "what gungraun's macros make has no documentation")]

mod delivery;
mod events;
mod ingest;
mod queue;

use gungraun::{
    Callgrind, EntryPoint, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

/// Events that every run prepares, whether it is about all of them or not.
const PREPARED: usize = 1_500;

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn ingest_single(count: usize) {
    ingest::single(count);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn ingest_batches_of_100(count: usize) {
    ingest::batches(count, 100);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn encode(count: usize) {
    delivery::encode(count);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn enqueue_single(count: usize) {
    queue::enqueue(count, 1, 1);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn enqueue_by_50_callers(count: usize) {
    queue::enqueue(count, 50, 1);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn enqueue_batches_of_100(count: usize) {
    queue::enqueue(count, 1, 100);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn settle_batches_of_100(count: usize) {
    queue::settle(count, 100);
}

#[library_benchmark]
#[bench::events_500(500)]
#[bench::events_1500(1_500)]
fn deliver(count: usize) {
    delivery::deliver(count);
}

library_benchmark_group!(
    name = rooms,
    benchmarks = [
        ingest_single,
        ingest_batches_of_100,
        encode,
        enqueue_single,
        enqueue_by_50_callers,
        enqueue_batches_of_100,
        settle_batches_of_100,
        deliver
    ]
);

main!(
    config = LibraryBenchmarkConfig::default().tool(
        Callgrind::with_args(["--cache-sim=no", "--separate-threads=no"]).entry_point(EntryPoint::None)
    ),
    library_benchmark_groups = rooms
);
