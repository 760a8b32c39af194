//! Counting a lane from its rows, where its books are damaged. A full scan: never on the usual way.

use rusqlite::{Connection, params};

use super::codec::unsigned;
use super::rows;
use super::state::LaneCounters;
use crate::{OutcomeKind, RECORD_OVERHEAD_BYTES};

/// Counts what is there: `ready`, `waiting`, `dead_lettered` and the room used. The totals of what has left stay zero.
pub(super) fn count_present(connection: &Connection, lane: i64) -> rusqlite::Result<LaneCounters> {
    let (ready, waiting, bytes): (i64, i64, i64) = connection.query_row(
        "SELECT count(*) FILTER (WHERE due = 0), count(*) FILTER (WHERE due <> 0),
            coalesce(sum(length(payload) + length(progress)), 0) FROM records WHERE lane = ?1",
        [lane],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let (dead_lettered, dead_bytes): (i64, i64) = connection.query_row(
        "SELECT count(*), coalesce(sum(length(payload) + length(progress)), 0) FROM dead_letters WHERE lane = ?1",
        [lane],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let rows = unsigned(ready) + unsigned(waiting) + unsigned(dead_lettered);
    Ok(LaneCounters {
        ready: unsigned(ready),
        waiting: unsigned(waiting),
        dead_lettered: unsigned(dead_lettered),
        used_bytes: unsigned(bytes) + unsigned(dead_bytes) + rows * RECORD_OVERHEAD_BYTES,
        dead_letter_bytes: unsigned(dead_bytes) + unsigned(dead_lettered) * RECORD_OVERHEAD_BYTES,
        ..LaneCounters::default()
    })
}

/// Bytes of a lane's dead letters, with their overhead.
pub(super) fn dead_letter_bytes(connection: &Connection, lane: i64) -> rusqlite::Result<u64> {
    let bytes: i64 = connection.query_row(
        "SELECT coalesce(sum(length(payload) + length(progress) + ?2), 0) FROM dead_letters WHERE lane = ?1",
        params![lane, RECORD_OVERHEAD_BYTES.cast_signed()],
        |row| row.get(0),
    )?;
    Ok(unsigned(bytes))
}

/// Books of a lane whose row is lost: what is there, and what the ledger still tells of what has left. Ids that lead nowhere
/// count as quarantined.
pub(super) fn count_lane(connection: &Connection, lane: i64) -> rusqlite::Result<LaneCounters> {
    let mut counters = count_present(connection, lane)?;
    let left = |kind: OutcomeKind| -> rusqlite::Result<u64> {
        connection
            .query_row(
                "SELECT count(*) FROM outcomes WHERE lane = ?1 AND kind = ?2",
                params![lane, rows::kind_code(kind)],
                |row| row.get::<_, i64>(0),
            )
            .map(unsigned)
    };
    counters.delivered = left(OutcomeKind::Delivered)?;
    counters.discarded = left(OutcomeKind::Discarded)?;
    counters.quarantined = left(OutcomeKind::Quarantined)? + unsigned(count_orphans(connection, lane)?);
    counters.accepted = counters.ready
        + counters.waiting
        + counters.dead_lettered
        + counters.delivered
        + counters.discarded
        + counters.quarantined;
    Ok(counters)
}

fn count_orphans(connection: &Connection, lane: i64) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT count(*) FROM ids WHERE lane = ?1
            AND NOT EXISTS (SELECT 1 FROM records WHERE records.sequence = ids.sequence)
            AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.sequence = ids.sequence)
            AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.sequence = ids.sequence)",
        [lane],
        |row| row.get(0),
    )
}
