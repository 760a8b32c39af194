//! Copying tables out of a damaged file, row by row, past what cannot be read.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::codec::{claim_checksum, deadline_checksum, unsigned};
use super::mark::Mark;
use super::rows::{self, Read};
use super::state::{LaneCounters, StoreRow};
use super::trouble::Trouble;
use super::{lane_rows, salvage_ids};
use crate::OrderKey;

/// What was copied, and what must be known of it.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) row_count: u64,
    /// The row of `store`, if it was intact.
    pub(super) store: Option<StoreRow>,
    /// Lanes by number: name, and books where they were intact.
    pub(super) lanes: BTreeMap<i64, (String, Option<LaneCounters>)>,
    /// Whether every lease mark was read.
    pub(super) claims_are_whole: bool,
    /// Whether every head and follower was read.
    pub(super) gates_are_whole: bool,
}

/// A table with an integer key.
struct Table {
    name: &'static str,
    key: &'static str,
    columns: &'static str,
    /// Whether a row, with the key first, is what was written.
    is_good: fn(&Row<'_>) -> bool,
}

const TABLES: [Table; 5] = [
    Table {
        name: "records",
        key: "sequence",
        columns: rows::RECORD_COLUMNS,
        is_good: |row| matches!(rows::record(row), Ok(Read::Good(_))),
    },
    Table {
        name: "dead_letters",
        key: "sequence",
        columns: rows::DEAD_LETTER_COLUMNS,
        is_good: |row| matches!(rows::dead_letter(row), Ok(Read::Good(_))),
    },
    Table {
        name: "outcomes",
        key: "number",
        columns: rows::OUTCOME_COLUMNS,
        is_good: |row| matches!(rows::outcome(row), Ok(Read::Good(_))),
    },
    Table {
        name: "deadlines",
        key: "sequence",
        columns: "sequence, lane, time, crc",
        is_good: |row| {
            let read = || -> rusqlite::Result<bool> {
                let checksum = deadline_checksum(row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(i64::from(checksum) == row.get::<_, i64>(3)?)
            };
            read().unwrap_or(false)
        },
    },
    Table {
        name: "lane_states",
        key: "lane",
        columns: lane_rows::LANE_STATE_COLUMNS,
        is_good: |row| matches!(lane_rows::read_lane_state(row), Ok(Read::Good(_))),
    },
];

const CLAIMS: Table = Table {
    name: "claims",
    key: "number",
    columns: "number, lane, sequences, crc",
    is_good: |row| {
        let read = || -> rusqlite::Result<bool> {
            let packed = row.get_ref(2)?.as_blob()?;
            Ok(i64::from(claim_checksum(row.get(0)?, row.get(1)?, packed)) == row.get::<_, i64>(3)?)
        };
        read().unwrap_or(false)
    },
};

/// Without checksums: whether a row tells of a record that is there is looked at when all of it was copied.
const GATES: [Table; 2] = [
    Table {
        name: "gates",
        key: "sequence",
        columns: "sequence, lane, order_key, head",
        is_good: |row| {
            let read = || -> rusqlite::Result<bool> {
                let (_, _key, head): (i64, OrderKey, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
                Ok(matches!(head, 0 | 1))
            };
            read().unwrap_or(false)
        },
    },
    Table {
        name: "openings",
        key: "number",
        columns: "number, lane, order_key, reached, up_to",
        is_good: |row| {
            let read = || -> rusqlite::Result<bool> {
                let (_, _key): (i64, OrderKey) = (row.get(1)?, row.get(2)?);
                Ok(row.get::<_, i64>(3)? <= row.get::<_, i64>(4)?)
            };
            read().unwrap_or(false)
        },
    },
];

const QUARANTINE: Table = Table {
    name: "quarantine",
    key: "number",
    columns: "number, from_table, sequence, lane, id, crc, columns",
    is_good: |row| row.get_ref(1).is_ok_and(|value| value.as_str().is_ok()),
};

/// Copies every table as far as it can be read.
pub(super) fn copy_all(source: &Connection, target: &Connection, newest: Mark) -> Result<Copied, Trouble> {
    let store = rows::store(source).ok().flatten();
    let mut copied = Copied {
        store,
        lanes: read_lanes(source),
        ..Copied::default()
    };
    // Nothing has a higher number, unless both this row and the mark are lost.
    let known = store.unwrap_or_default();
    let highest = known
        .next_sequence
        .max(newest.next_sequence)
        .max(known.next_outcome.max(newest.next_outcome))
        .max(known.next_claim.max(newest.next_claim));
    let bound = i64::try_from(highest.max(1) + (1 << 24)).unwrap_or(i64::MAX);
    for table in &TABLES {
        let outcome = copy_table(source, target, table, bound)?;
        copied.row_count += outcome.kept;
    }
    copied.row_count += copy_table(source, target, &QUARANTINE, bound)?.kept;
    let claims = copy_table(source, target, &CLAIMS, bound)?;
    copied.claims_are_whole = claims.damaged == 0 && claims.failures == 0;
    copied.row_count += claims.kept;
    copied.gates_are_whole = true;
    for table in &GATES {
        let gates = copy_table(source, target, table, bound)?;
        copied.gates_are_whole &= gates.damaged == 0 && gates.failures == 0;
        copied.row_count += gates.kept;
    }
    copied.row_count += salvage_ids::copy(source, target, copied.lanes.keys())?;
    copy_reasons(source, target)?;
    Ok(copied)
}

#[derive(Debug, Default)]
struct TableCopy {
    kept: u64,
    damaged: u64,
    failures: u64,
}

fn copy_table(
    source: &Connection,
    target: &Connection,
    table: &Table,
    bound: i64,
) -> Result<TableCopy, Trouble> {
    let mut copy = TableCopy::default();
    if !has_table(source, table.name) {
        return Ok(copy);
    }
    let (mut from, mut step) = (0_i64, 1_i64);
    while from < bound {
        let before = copy.kept + copy.damaged;
        let Some(reached) = scan(source, target, table, from, bound, false, &mut copy)? else {
            break;
        };
        copy.failures += 1;
        if copy.kept + copy.damaged > before {
            if step > 1 {
                // The step may have passed over rows that can be read from this side.
                scan(
                    source,
                    target,
                    table,
                    from.saturating_sub(step),
                    from,
                    true,
                    &mut copy,
                )?;
            }
            step = 1;
        }
        from = reached.saturating_add(step);
        step = step.saturating_mul(2);
    }
    if copy.failures > 0 {
        // What lies behind the last damage can be read from the end.
        scan(source, target, table, 0, i64::MAX, true, &mut copy)?;
        tracing::warn!(
            table = table.name,
            kept = copy.kept,
            failures = copy.failures,
            "parts of a table are unreadable"
        );
    }
    Ok(copy)
}

/// Whether a store has a table: one of an older minor lacks some.
fn has_table(source: &Connection, name: &str) -> bool {
    source
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")
        .and_then(|mut statement| statement.exists([name]))
        // What cannot be told is tried.
        .unwrap_or(true)
}

/// Copies rows in order of their key until the end or a failure; returns the key up to which it came in the latter case.
fn scan(
    source: &Connection,
    target: &Connection,
    table: &Table,
    from: i64,
    to: i64,
    backwards: bool,
    copy: &mut TableCopy,
) -> Result<Option<i64>, Trouble> {
    let Table {
        name, key, columns, ..
    } = table;
    let direction = if backwards { "DESC" } else { "ASC" };
    let select = format!(
        "SELECT {columns} FROM {name} NOT INDEXED WHERE {key} >= ?1 AND {key} < ?2 ORDER BY {key} {direction}"
    );
    let mut last = if backwards { to } else { from.saturating_sub(1) };
    let failed_at = |last: i64| Ok(Some(last.saturating_add(1).max(from)));
    let Ok(mut statement) = source.prepare_cached(&select) else {
        return failed_at(last);
    };
    let Ok(mut read) = statement.query([from, to]) else {
        return failed_at(last);
    };
    loop {
        let row = match read.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            Err(_) => return failed_at(last),
        };
        let Ok(number) = row.get::<_, i64>(0) else {
            return failed_at(last);
        };
        if (backwards && number >= last) || (!backwards && number <= last) {
            return failed_at(last);
        }
        last = number;
        if (table.is_good)(row) {
            copy.kept += insert(target, name, columns, row)?;
        } else {
            copy.damaged += 1;
        }
    }
}

/// Inserts a row as it was read; returns how many rows were inserted.
pub(super) fn insert(target: &Connection, table: &str, columns: &str, row: &Row<'_>) -> Result<u64, Trouble> {
    let count = row.as_ref().column_count();
    let places: Vec<String> = (1..=count).map(|place| format!("?{place}")).collect();
    let values = (0..count)
        .map(|index| row.get::<_, Value>(index))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let inserted = target
        .prepare_cached(&format!(
            "INSERT OR IGNORE INTO {table} ({columns}) VALUES ({})",
            places.join(", ")
        ))?
        .execute(params_from_iter(values))?;
    Ok(inserted as u64)
}

/// Lanes are named in their table and once more in `meta`.
fn read_lanes(source: &Connection) -> BTreeMap<i64, (String, Option<LaneCounters>)> {
    let mut lanes = BTreeMap::new();
    if let Ok(Some(names)) = rows::meta(source, "lanes") {
        for line in String::from_utf8_lossy(&names).lines() {
            if let Some((number, name)) = line.split_once('\t')
                && let Ok(number) = number.parse()
            {
                lanes.insert(number, (name.to_owned(), None));
            }
        }
    }
    for number in 1..=i64::try_from(lanes.len()).unwrap_or(0).max(1_024) {
        match lane_rows::lane(source, number) {
            Ok(Some((name, Some(counters)))) => {
                lanes.insert(number, (name, Some(counters)));
            }
            Ok(Some((name, None))) => {
                lanes.entry(number).or_insert((name, None));
            }
            Ok(None) | Err(_) => {}
        }
    }
    lanes
}

fn copy_reasons(source: &Connection, target: &Connection) -> Result<(), Trouble> {
    let Ok(mut statement) = source.prepare("SELECT lane, reason, total FROM reasons") else {
        return Ok(());
    };
    let Ok(mut read) = statement.query([]) else {
        return Ok(());
    };
    while let Ok(Some(row)) = read.next() {
        let is_good = row.get::<_, i64>(0).is_ok()
            && row.get::<_, String>(1).is_ok()
            && row.get::<_, i64>(2).is_ok_and(|total| unsigned(total) > 0);
        if is_good {
            insert(target, "reasons", "lane, reason, total", row)?;
        }
    }
    Ok(())
}
