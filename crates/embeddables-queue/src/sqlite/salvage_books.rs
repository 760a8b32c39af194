//! Making the books of a salvaged store balance with what its tables hold.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::codec::{OutcomeRow, sql, unsigned};
use super::lane_rows::{self, LaneStateRow};
use super::mark::Mark;
use super::salvage_tables::Copied;
use super::state::LaneCounters;
use super::trouble::Trouble;
use super::{load, recount, rows};
use crate::OutcomeKind;

/// Writes lanes, books and numbers of a salvaged store; returns how many records were quarantined by that.
pub(super) fn balance(target: &Connection, copied: &Copied, newest: Mark) -> Result<u64, Trouble> {
    let mut store = match copied.store {
        Some(store) => store,
        None => load::recover_numbers(target, newest)?,
    };
    if !copied.claims_are_whole {
        // Leases that cannot be read may be of any record.
        store.doubt_sequence = store.next_sequence;
        store.doubt_claim = store.next_claim;
    }
    restore_ids(target)?;
    let mut quarantined = 0;
    for (number, name, known) in lanes(target, copied)? {
        let before = known.map_or(0, |counters| counters.quarantined);
        let counters = match known {
            Some(known) => reconciled(target, number, known)?,
            None => recount::count_lane(target, number)?,
        };
        quarantined += counters.quarantined.saturating_sub(before);
        lane_rows::write_lane(target, number, &name, &counters)?;
        write_state(target, number, &counters)?;
    }
    write_lane_names(target)?;
    for (sequence, lane, id) in orphans(target)? {
        let row = OutcomeRow {
            number: sql(store.next_outcome),
            sequence,
            lane,
            kind: rows::kind_code(OutcomeKind::Quarantined),
            time: 0,
            running: sql(store.running),
            id: &id,
            reason: "",
            note: &[],
        };
        rows::write_outcome(&mut rows::outcome_statement(target)?, &row)?;
        store.next_outcome += 1;
    }
    rows::write_store(target, &store)?;
    Ok(quarantined)
}

/// Adds the dead letters found to what was kept of a lane's state.
fn write_state(target: &Connection, number: i64, counters: &LaneCounters) -> rusqlite::Result<()> {
    let known = lane_rows::lane_state(target, number)?;
    let row = LaneStateRow::of(&known.state(), known.clock, counters);
    lane_rows::write_lane_state(target, number, &row)
}

/// Repeats the names of all lanes in `meta`, in case their table is lost.
pub(super) fn write_lane_names(connection: &Connection) -> rusqlite::Result<()> {
    let mut names = String::new();
    for (number, name, _) in lane_rows::lanes(connection)? {
        names.push_str(&format!("{number}\t{name}\n"));
    }
    rows::write_meta(connection, "lanes", names.as_bytes())
}

/// Lanes that were read, and those whose name is lost but whose rows are there.
fn lanes(target: &Connection, copied: &Copied) -> Result<Vec<(i64, String, Option<LaneCounters>)>, Trouble> {
    let mut lanes: Vec<_> = copied
        .lanes
        .iter()
        .map(|(number, (name, counters))| (*number, name.clone(), *counters))
        .collect();
    let mut seen = BTreeSet::new();
    lanes.retain(|(_, name, _)| seen.insert(name.clone()));
    let mut statement = target.prepare(
        "SELECT lane FROM records UNION SELECT lane FROM dead_letters UNION SELECT lane FROM outcomes
         UNION SELECT lane FROM ids",
    )?;
    for number in statement.query_map([], |row| row.get::<_, i64>(0))? {
        let number = number?;
        if !lanes.iter().any(|(known, _, _)| *known == number) {
            tracing::error!(number, "the name of a lane is lost");
            lanes.push((number, format!("lost-lane-{number}"), None));
        }
    }
    Ok(lanes)
}

/// Intact books, with what is there counted anew and what is missing quarantined.
fn reconciled(target: &Connection, number: i64, mut counters: LaneCounters) -> Result<LaneCounters, Trouble> {
    let present = recount::count_present(target, number)?;
    counters.ready = present.ready;
    counters.waiting = present.waiting;
    counters.dead_lettered = present.dead_lettered;
    counters.used_bytes = present.used_bytes;
    counters.dead_letter_bytes = present.dead_letter_bytes;
    let missing = counters.missing();
    match u64::try_from(missing) {
        Ok(lost) => counters.quarantined += lost,
        // More is there than the books know: they are of an older commit than the rows.
        Err(_) => counters.accepted += u64::try_from(-missing).unwrap_or(0),
    }
    Ok(counters)
}

/// Records and dead letters keep their ids, even where the ledger lost them. Their fingerprint is unknown then: it is left empty,
/// and a repeat is taken for what it most probably is, the same content.
fn restore_ids(target: &Connection) -> rusqlite::Result<()> {
    for table in ["records", "dead_letters"] {
        target.execute(
            &format!(
                "INSERT OR IGNORE INTO ids (lane, id, sequence, fingerprint, accept_time, durability)
                 SELECT lane, id, sequence, x'', accept_time, 1 FROM {table}"
            ),
            [],
        )?;
    }
    Ok(())
}

/// Ids that lead nowhere.
fn orphans(target: &Connection) -> Result<Vec<(i64, i64, String)>, Trouble> {
    let mut statement = target.prepare(
        "SELECT sequence, lane, id FROM ids
         WHERE NOT EXISTS (SELECT 1 FROM records WHERE records.sequence = ids.sequence)
           AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.sequence = ids.sequence)
           AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.sequence = ids.sequence AND outcomes.kind <> ?1)",
    )?;
    let found = statement.query_map(params![rows::kind_code(OutcomeKind::DeadLettered)], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, String>(2)?,
        ))
    })?;
    let mut orphans = Vec::new();
    for orphan in found {
        let (sequence, lane, id) = orphan?;
        if unsigned(sequence) > 0 {
            orphans.push((sequence, lane, id));
        }
    }
    Ok(orphans)
}
