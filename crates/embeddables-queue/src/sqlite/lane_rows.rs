//! Reading and writing the rows of lanes: their books, and their state.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codec::{Checksum, lane_state_checksum, sql, unsigned};
use super::rows::{Read, or_damaged};
use super::state::LaneCounters;
use crate::LaneState;
use crate::clock::LaneClock;

fn lane_numbers(number: i64, c: &LaneCounters) -> [i64; 10] {
    let [a, b, d, e, f, g, h, i, j] = [
        c.accepted,
        c.delivered,
        c.dead_lettered,
        c.discarded,
        c.erased,
        c.quarantined,
        c.ready,
        c.waiting,
        c.used_bytes,
    ]
    .map(sql);
    [number, a, b, d, e, f, g, h, i, j]
}

const LANE_COLUMNS: &str = "number, accepted, delivered, dead_lettered, discarded, erased, quarantined, ready, waiting, used_bytes, name, crc";

/// A lane as read: number, name, and books where their checksum is right.
type LaneRow = (i64, String, Option<LaneCounters>);

fn read_lane(row: &Row<'_>) -> rusqlite::Result<LaneRow> {
    let mut numbers = [0_i64; 10];
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = row.get(index)?;
    }
    let (name, crc): (String, i64) = (row.get(10)?, row.get(11)?);
    let good = i64::from(
        Checksum::default()
            .numbers(numbers)
            .bytes(name.as_bytes())
            .finish(),
    ) == crc;
    let [_, a, b, d, e, f, g, h, i, j] = numbers.map(unsigned);
    let counters = LaneCounters {
        accepted: a,
        delivered: b,
        dead_lettered: d,
        discarded: e,
        erased: f,
        quarantined: g,
        ready: h,
        waiting: i,
        used_bytes: j,
        dead_letter_bytes: 0,
    };
    Ok((numbers[0], name, good.then_some(counters)))
}

/// Every lane by number: its name and its books, `None` where their checksum is wrong.
pub(super) fn lanes(connection: &Connection) -> rusqlite::Result<Vec<LaneRow>> {
    connection
        .prepare_cached(&format!("SELECT {LANE_COLUMNS} FROM lanes ORDER BY number"))?
        .query_map([], read_lane)?
        .collect()
}

/// One lane: its name and its books.
pub(super) fn lane(
    connection: &Connection,
    number: i64,
) -> rusqlite::Result<Option<(String, Option<LaneCounters>)>> {
    connection
        .prepare_cached(&format!("SELECT {LANE_COLUMNS} FROM lanes WHERE number = ?1"))?
        .query_row([number], read_lane)
        .optional()
        .map(|row| row.map(|(_, name, counters)| (name, counters)))
}

/// Writes a lane with its books. One that is there under its name is updated: replaced, it would leave the index of names and come
/// back to it with every commit.
pub(super) fn write_lane(
    connection: &Connection,
    number: i64,
    name: &str,
    c: &LaneCounters,
) -> rusqlite::Result<()> {
    let n = lane_numbers(number, c);
    let crc = Checksum::default().numbers(n).bytes(name.as_bytes()).finish();
    let values = params![
        n[0], name, n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], crc
    ];
    let updated = connection
        .prepare_cached(
            "UPDATE lanes SET accepted = ?3, delivered = ?4, dead_lettered = ?5, discarded = ?6, erased = ?7,
                quarantined = ?8, ready = ?9, waiting = ?10, used_bytes = ?11, crc = ?12
             WHERE number = ?1 AND name = ?2",
        )?
        .execute(values)?;
    if updated == 0 {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO lanes (number, name, accepted, delivered, dead_lettered, discarded, erased,
                    quarantined, ready, waiting, used_bytes, crc)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(values)?;
    }
    Ok(())
}

/// A row of `lane_states`.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneStateRow {
    pub(super) clock: LaneClock,
    /// Dead letters as of the commit that wrote the row.
    pub(super) dead_letters: u64,
    pub(super) dead_letter_bytes: u64,
    pub(super) note: Bytes,
}

impl LaneStateRow {
    /// As a lane with these books has it.
    pub(super) fn of(state: &LaneState, clock: LaneClock, counters: &LaneCounters) -> Self {
        Self {
            clock,
            dead_letters: counters.dead_lettered,
            dead_letter_bytes: counters.dead_letter_bytes,
            note: state.note.clone(),
        }
    }

    /// As the interface shows it.
    pub(super) fn state(&self) -> LaneState {
        LaneState {
            ageing: self.clock.stopped_since.is_none(),
            note: self.note.clone(),
        }
    }

    fn numbers(&self, lane: i64) -> [i64; 5] {
        [
            lane,
            sql(self.clock.stopped_total),
            self.clock.stopped_since.map_or(-1, sql),
            sql(self.dead_letters),
            sql(self.dead_letter_bytes),
        ]
    }
}

/// Columns that [`read_lane_state`] reads, in its order.
pub(super) const LANE_STATE_COLUMNS: &str =
    "lane, stopped_total, stopped_since, dead_letters, dead_letter_bytes, crc, note";

/// Reads a row of [`LANE_STATE_COLUMNS`].
pub(super) fn read_lane_state(row: &Row<'_>) -> rusqlite::Result<Read<LaneStateRow>> {
    let read = || -> rusqlite::Result<Read<LaneStateRow>> {
        let mut numbers = [0_i64; 5];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = row.get(index)?;
        }
        let note = row.get_ref(6)?.as_blob()?;
        if i64::from(lane_state_checksum(numbers, note)) != row.get::<_, i64>(5)? {
            return Ok(Read::Damaged);
        }
        let [_, stopped_total, stopped_since, dead_letters, dead_letter_bytes] = numbers;
        Ok(Read::Good(LaneStateRow {
            clock: LaneClock {
                stopped_total: unsigned(stopped_total),
                stopped_since: u64::try_from(stopped_since).ok(),
            },
            dead_letters: unsigned(dead_letters),
            dead_letter_bytes: unsigned(dead_letter_bytes),
            note: Bytes::copy_from_slice(note),
        }))
    };
    or_damaged(read())
}

/// The state of a lane; that of a lane of which nothing was written where its row is missing or damaged.
pub(super) fn lane_state(connection: &Connection, lane: i64) -> rusqlite::Result<LaneStateRow> {
    let row = connection
        .prepare_cached(&format!(
            "SELECT {LANE_STATE_COLUMNS} FROM lane_states WHERE lane = ?1"
        ))?
        .query_row([lane], read_lane_state)
        .optional()?;
    Ok(match row {
        Some(Read::Good(row)) => row,
        Some(Read::Damaged) => {
            tracing::error!(
                lane,
                "the state of a lane is damaged: it begins anew, and time not aged counts"
            );
            LaneStateRow::default()
        }
        None => LaneStateRow::default(),
    })
}

/// Writes the state of a lane.
pub(super) fn write_lane_state(
    connection: &Connection,
    lane: i64,
    row: &LaneStateRow,
) -> rusqlite::Result<()> {
    let n = row.numbers(lane);
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO lane_states ({LANE_STATE_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        ))?
        .execute(params![
            n[0],
            n[1],
            n[2],
            n[3],
            n[4],
            lane_state_checksum(n, &row.note),
            &row.note[..]
        ])?;
    Ok(())
}
