//! `deep`: what accepting and delivering an event costs with ten million queued, against ten thousand.
//!
//! Two sidecars, each with a mock of its own, take turns. In a round a queue is topped up to its depth, which does not count;
//! then further events are accepted, with deliveries switched off; then the sidecar is started again and delivers what is
//! looked at. Both sides do the same: as many events, as many connections, as many starts. What differs is how much is queued.
//!
//! The shallow queue holds up to three times its depth in a round, and nearly nothing at its end: what the sidecar does at the
//! very beginning of its deliveries, and where its queue ends, is left out on both sides.

mod side;

use serde_json::json;

use self::side::{Mean, Phase, Side};
use super::Context;
use super::reading::{Bound, Figure, Reading};
use crate::run::disk::ensure_room;

const ACCEPT_CPU: Figure = Figure::told("accept_cpu_ratio", "accepting: CPU an event, deep to shallow", 3)
    .keeping(MOST)
    .aiming_at(GOAL);
const DRAIN_CPU: Figure = Figure::told("drain_cpu_ratio", "draining: CPU an event, deep to shallow", 3)
    .keeping(MOST)
    .aiming_at(GOAL);
const ACCEPT_TIME: Figure = Figure::told(
    "accept_time_ratio",
    "accepting: time an event, deep to shallow",
    3,
);
const DRAIN_TIME: Figure = Figure::told("drain_time_ratio", "draining: time an event, deep to shallow", 3);
const ACCEPT_MICROS: Figure = Figure::told("accept_cpu_us", "accepting, deep: CPU µs an event", 2);
const DRAIN_MICROS: Figure = Figure::told("drain_cpu_us", "draining, deep: CPU µs an event", 1);
const ACCEPT_RATE: Figure = Figure::told("accepted_per_second", "accepting, deep: events/s", 0);
const DRAIN_RATE: Figure = Figure::told("delivered_per_second", "draining, deep: events/s", 0);
const ACCEPT_RSS: Figure =
    Figure::told("accept_peak_mib", "accepting, deep: most RSS in MiB", 1).keeping(MOST_MIB);
const DRAIN_RSS: Figure =
    Figure::told("drain_peak_mib", "draining, deep: most RSS in MiB", 1).keeping(MOST_MIB);
const READY: Figure = Figure::told("ready_ms", "deep: longest ms from start to ready", 0);

/// Bar and goal of the ratios of CPU.
const MOST: Bound = Bound::AtMost(1.3);
const GOAL: Bound = Bound::AtMost(1.05);
/// Bar of the resident memory.
const MOST_MIB: Bound = Bound::AtMost(64.0);

/// Events queued on the one side, and on the other.
const SHALLOW_EVENTS: f64 = 10_000.0;
const DEEP_EVENTS: f64 = 10_000_000.0;
/// Disk for each event: row, id and indexes with room to spare.
const BYTES_AN_EVENT: u64 = 1_200;
/// Rounds of each side.
const ROUNDS: u32 = 10;

/// One pair.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let depth = context.events(DEEP_EVENTS);
    ensure_room(&context.places.work_dir, depth * BYTES_AN_EVENT)?;
    let mut deep = Side::fill(context, depth).await?;
    let mut shallow = Side::fill(context, context.events(SHALLOW_EVENTS)).await?;
    for round in 0..ROUNDS {
        if (context.repetition + round).is_multiple_of(2) {
            shallow = shallow.round(context).await?;
            deep = deep.round(context).await?;
        } else {
            deep = deep.round(context).await?;
            shallow = shallow.round(context).await?;
        }
    }
    let (shallow, deep) = (shallow.finish().await?, deep.finish().await?);
    let ratio = |part: fn(&Phase) -> &Mean, deep: &Phase, shallow: &Phase| {
        part(deep).micros() / part(shallow).micros()
    };
    Ok(Reading {
        figures: vec![
            (ACCEPT_CPU, ratio(Phase::cpu, &deep.accept, &shallow.accept)),
            (DRAIN_CPU, ratio(Phase::cpu, &deep.drain, &shallow.drain)),
            (ACCEPT_TIME, ratio(Phase::time, &deep.accept, &shallow.accept)),
            (DRAIN_TIME, ratio(Phase::time, &deep.drain, &shallow.drain)),
            (ACCEPT_MICROS, deep.accept.cpu().micros()),
            (DRAIN_MICROS, deep.drain.cpu().micros()),
            (ACCEPT_RATE, deep.accept.time().per_second()),
            (DRAIN_RATE, deep.drain.time().per_second()),
            (ACCEPT_RSS, deep.accept.peak_mib()),
            (DRAIN_RSS, deep.drain.peak_mib()),
            (READY, deep.longest_ready_ms),
        ],
        details: json!({ "shallow": shallow.details(), "deep": deep.details() }),
        faults: [shallow.faults, deep.faults].concat(),
    })
}
