//! Deadlines within a draft: rows beside the records, only in lanes that have any.
//!
//! # Invariants
//! 1. A record without a deadline costs nothing here, as long as few of its lane have one: memory knows which.
//! 2. A row whose checksum is wrong, or whose record is gone, is dropped when it is met; its record stays as it is.

use std::num::NonZeroUsize;

use rusqlite::{OptionalExtension, params};

use super::codec::{deadline_checksum, sql, unsigned};
use super::draft::Draft;
use super::rows;
use super::trouble::Trouble;
use crate::{Claimed, LaneName, UnixMillis};

/// Deadlines that have passed, of records that are not leased.
struct Passed {
    sequences: Vec<u64>,
    /// Rows with a wrong checksum.
    damaged: Vec<u64>,
    /// Whether the scan met any row at all.
    any: bool,
}

impl Draft<'_> {
    /// Leases records whose deadline has passed.
    pub(super) fn claim_expired(
        &mut self,
        name: &LaneName,
        max: NonZeroUsize,
        wall: UnixMillis,
    ) -> Result<Claimed, Trouble> {
        let Some(lane) = self.configured_lane(name).filter(|lane| !self.is_untimed(*lane)) else {
            return Ok(Claimed::default());
        };
        let mut passed = self.passed(lane, wall, max.saturating_add(1).get())?;
        let more = passed.sequences.len() > max.get();
        passed.sequences.truncate(max.get());
        for damaged in passed.damaged {
            tracing::warn!(sequence = damaged, "a deadline is damaged and is forgotten");
            self.forget_deadline(lane, damaged)?;
        }
        let mut leasing = self.begin_leasing(lane, false);
        for sequence in passed.sequences {
            if rows::due_of(self.connection, sequence)?.is_some() {
                self.lease(&mut leasing, sequence)?;
            } else {
                // An older release has settled it.
                self.forget_deadline(lane, sequence)?;
            }
        }
        let next_due = self.next_deadline(lane, wall)?;
        if !passed.any && next_due.is_none() {
            self.effects.untimed.insert(lane);
        }
        Ok(Claimed {
            leases: self.end_leasing(leasing)?,
            more,
            next_due: next_due.filter(|_| !more),
        })
    }

    fn passed(&self, lane: usize, wall: UnixMillis, most: usize) -> Result<Passed, Trouble> {
        let number = self.lane_number(lane);
        let mut passed = Passed {
            sequences: Vec::new(),
            damaged: Vec::new(),
            any: false,
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, lane, time, crc FROM deadlines INDEXED BY deadlines_time
             WHERE lane = ?1 AND time <= ?2 ORDER BY time, sequence",
        )?;
        let mut rows = statement.query(params![number, wall.0])?;
        while passed.sequences.len() + passed.damaged.len() < most
            && let Some(row) = rows.next()?
        {
            passed.any = true;
            let sequence: i64 = row.get(0)?;
            let checksum = deadline_checksum(sequence, row.get(1)?, row.get(2)?);
            if i64::from(checksum) != row.get::<_, i64>(3)? {
                passed.damaged.push(unsigned(sequence));
            } else if !self.is_leased(unsigned(sequence)) {
                passed.sequences.push(unsigned(sequence));
            }
        }
        Ok(passed)
    }

    fn next_deadline(&self, lane: usize, wall: UnixMillis) -> Result<Option<UnixMillis>, Trouble> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT time FROM deadlines INDEXED BY deadlines_time
                 WHERE lane = ?1 AND time > ?2 ORDER BY time LIMIT 1",
            )?
            .query_row(params![self.lane_number(lane), wall.0], |row| row.get(0))
            .optional()?
            .map(UnixMillis))
    }

    /// Notes the deadline of a new record.
    pub(super) fn set_deadline(
        &mut self,
        lane: usize,
        sequence: u64,
        time: UnixMillis,
    ) -> Result<(), Trouble> {
        let (sequence, number) = (sql(sequence), self.lane_number(lane));
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO deadlines (sequence, lane, time, crc) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                sequence,
                number,
                time.0,
                deadline_checksum(sequence, number, time.0)
            ])?;
        self.effects.timed.insert((lane, unsigned(sequence)), true);
        Ok(())
    }

    /// Forgets the deadline of a record that leaves.
    pub(super) fn forget_deadline(&mut self, lane: usize, sequence: u64) -> Result<(), Trouble> {
        let known = self.effects.timed.get(&(lane, sequence)).copied();
        if known.unwrap_or_else(|| self.state.lanes[lane].timed.may_hold(&sequence)) {
            self.connection
                .prepare_cached("DELETE FROM deadlines WHERE sequence = ?1")?
                .execute([sql(sequence)])?;
            self.effects.timed.insert((lane, sequence), false);
        }
        Ok(())
    }

    /// Whether certainly no record of a lane has a deadline.
    fn is_untimed(&self, lane: usize) -> bool {
        self.state.lanes[lane].timed.is_empty()
            && !self
                .effects
                .timed
                .iter()
                .any(|((of, _), is_timed)| *of == lane && *is_timed)
    }
}
