//! Making heads and followers of a salvaged store agree with its records.
//!
//! What is lost of them must cost neither an event nor much time. Which waiting records were followers is told by their rows
//! alone: where any of those may be lost, every waiting record of the store becomes due at once and all keys are open. A record
//! that waited for itself is then tried early, once; a follower does not wait for its far fallback time.

use rusqlite::Connection;

use super::codec::{Checksum, record_checksum, sql};
use super::gates::AT_ONCE;
use super::rows::{self, Read};
use super::trouble::Trouble;

/// Rows that are looked at in one step.
const STEP: usize = 256;

/// Drops rows that name records which are gone, and makes due what nothing would wake.
pub(super) fn balance(target: &Connection, gates_are_whole: bool) -> Result<(), Trouble> {
    target.execute_batch(
        "DELETE FROM gates WHERE NOT EXISTS (SELECT 1 FROM records
            WHERE records.sequence = gates.sequence AND records.lane = gates.lane
              AND records.order_key = gates.order_key);
         DELETE FROM deadlines WHERE NOT EXISTS (SELECT 1 FROM records
            WHERE records.sequence = deadlines.sequence AND records.lane = deadlines.lane);",
    )?;
    if gates_are_whole {
        make_due(
            target,
            "SELECT sequence FROM gates AS followers WHERE head = 0 AND sequence > ?1 AND NOT EXISTS (
                SELECT 1 FROM gates WHERE lane = followers.lane AND order_key = followers.order_key AND head = 1)
             ORDER BY sequence LIMIT ?2",
        )?;
        target.execute_batch(
            "DELETE FROM gates WHERE head = 0 AND NOT EXISTS (SELECT 1 FROM gates AS heads
                WHERE heads.lane = gates.lane AND heads.order_key = gates.order_key AND heads.head = 1)",
        )?;
    } else {
        tracing::error!("heads and followers of order keys are lost: every waiting record is due at once");
        target.execute_batch("DELETE FROM gates; DELETE FROM openings")?;
        make_due(
            target,
            "SELECT sequence FROM records NOT INDEXED WHERE due > 1 AND sequence > ?1 ORDER BY sequence LIMIT ?2",
        )?;
    }
    Ok(())
}

/// Makes waiting records due at once: those that a statement selects, a page after a sequence at a time.
fn make_due(target: &Connection, select: &str) -> Result<(), Trouble> {
    let mut after = 0_i64;
    loop {
        let page: Vec<i64> = target
            .prepare_cached(select)?
            .query_map([after, sql(STEP as u64)], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = *last;
        for sequence in page {
            let row = rows::record_statement(target)?.query_row([sequence], rows::record)?;
            let Read::Good(row) = row else { continue };
            if row.due > AT_ONCE {
                let body = Checksum::resume(row.body_checksum);
                let crc = record_checksum(body, AT_ONCE, sql(row.settled_claim), &row.progress);
                target
                    .prepare_cached("UPDATE records SET due = ?2, crc = ?3 WHERE sequence = ?1")?
                    .execute([sequence, AT_ONCE, i64::from(crc)])?;
            }
        }
    }
}
