//! Claims within a draft.
//!
//! # Invariants
//! 1. What a claim returns is marked in `claims` in the same draft; the mark is on disk before the claim is answered.
//! 2. Never-settled records are found by a cursor that only rises; waiting ones by their due time alone, so that a clock that
//!    jumps loses none of them.
//! 3. A row whose checksum is wrong is moved to quarantine and counted, never returned.
//! 4. Records that the books know and the index does not are damage, not an empty queue.

use std::num::NonZeroUsize;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::codec::{sql, unsigned};
use super::draft::Draft;
use super::rows::{self, Read, RecordRow};
use super::state::LeaseMark;
use super::trouble::Trouble;
use crate::{Claimed, LaneName, Lease, Sequence, UnixMillis};

/// Candidates of one kind, one more than asked for where there are more.
struct Candidates {
    sequences: Vec<u64>,
    more: bool,
}

impl Draft<'_> {
    /// Leases due records of a lane.
    pub(super) fn claim(
        &mut self,
        name: &LaneName,
        max: NonZeroUsize,
        now: UnixMillis,
    ) -> Result<Claimed, Trouble> {
        let Some(lane) = self.configured_lane(name) else {
            return Ok(Claimed::default());
        };
        self.effects
            .last_now
            .insert(lane, (now.0, self.effects.store.running));
        let claim = self.effects.store.next_claim;
        let mut claimed = Claimed::default();
        let mut taken = Vec::new();
        // Damaged rows leave a gap that the next round fills; each round moves the damaged out of the way.
        while taken.len() < max.get() {
            let room = max.get() - taken.len();
            let mut found = self.fresh(lane, room)?;
            if !found.more {
                // Also where there is no room left: `more` must tell of waiting records whose time has come.
                let waiting = self.due(lane, now, room - found.sequences.len())?;
                found.more = waiting.more;
                found.sequences.extend(waiting.sequences);
            }
            claimed.more = found.more;
            let wanted = found.sequences.len();
            for sequence in found.sequences {
                if let Some(lease) = self.lease(lane, claim, sequence)? {
                    taken.push(sequence);
                    claimed.leases.push(lease);
                }
            }
            if wanted < room || !claimed.more {
                break;
            }
        }
        if !taken.is_empty() {
            self.effects.store.next_claim += 1;
            self.effects.claims.insert(claim, taken.len() as u64);
            self.write_mark(claim, lane, &taken)?;
        }
        if !claimed.more {
            claimed.next_due = self.next_due(lane, now)?;
        }
        Ok(claimed)
    }

    /// Never-settled records: those given back first, then those behind the cursor.
    fn fresh(&mut self, lane: usize, max: usize) -> Result<Candidates, Trouble> {
        let state = &self.state.lanes[lane];
        let mut sequences: Vec<u64> = Vec::new();
        let empty = std::collections::BTreeSet::new();
        let added = self.effects.released.get(&lane).unwrap_or(&empty);
        for &sequence in state.released.union(added) {
            if sequences.len() > max {
                break;
            }
            if !self.is_leased(sequence) {
                sequences.push(sequence);
            }
        }
        let mut cursor = self.effects.cursors.get(&lane).copied().unwrap_or(state.cursor);
        let from_released = sequences.len();
        if sequences.len() <= max {
            let mut statement = self.connection.prepare_cached(
                "SELECT sequence FROM records INDEXED BY records_due
                 WHERE lane = ?1 AND due = 0 AND sequence > ?2 ORDER BY sequence",
            )?;
            let mut rows = statement.query(params![state.number, sql(cursor)])?;
            while sequences.len() <= max
                && let Some(row) = rows.next()?
            {
                // Behind the cursor nothing is leased, unless a salvage has set it back.
                let sequence = unsigned(row.get(0)?);
                if !self.is_leased(sequence) {
                    sequences.push(sequence);
                }
            }
        }
        let exhausted = sequences.len() <= max;
        sequences.truncate(max);
        if sequences.len() > from_released
            && let Some(&last) = sequences.last()
        {
            cursor = last;
        }
        self.effects.cursors.insert(lane, cursor);
        if exhausted {
            self.check_ready_count(lane, sequences.len())?;
        }
        Ok(Candidates {
            sequences,
            more: !exhausted,
        })
    }

    /// The books must agree that nothing is left: found now, or leased before.
    fn check_ready_count(&self, lane: usize, found: usize) -> Result<(), Trouble> {
        let leased =
            self.state.lanes[lane].leased_ready + self.effects.leased_ready.get(&lane).copied().unwrap_or(0);
        if i64::try_from(found).unwrap_or(i64::MAX) + leased == sql(self.effects.counters[lane].ready) {
            Ok(())
        } else {
            Err(Trouble::Damaged {
                what: "the index does not know as many ready records as the books",
            })
        }
    }

    /// Waiting records whose time has come, in order of it.
    fn due(&self, lane: usize, now: UnixMillis, max: usize) -> Result<Candidates, Trouble> {
        let mut sequences = Vec::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due > 0 AND due <= ?2 ORDER BY due, sequence",
        )?;
        let mut rows = statement.query(params![self.lane_number(lane), now.0])?;
        while sequences.len() <= max
            && let Some(row) = rows.next()?
        {
            let sequence = unsigned(row.get(0)?);
            if !self.is_leased(sequence) {
                sequences.push(sequence);
            }
        }
        let more = sequences.len() > max;
        sequences.truncate(max);
        Ok(Candidates { sequences, more })
    }

    /// Leases one record, or puts it into quarantine.
    fn lease(&mut self, lane: usize, claim: u64, sequence: u64) -> Result<Option<Lease>, Trouble> {
        let row = rows::record_statement(self.connection)?
            .query_row([sql(sequence)], rows::record)
            .optional()?;
        let row = match row {
            Some(Read::Good(row)) if row.lane == self.lane_number(lane) => row,
            Some(Read::Good(_)) | None => {
                return Err(Trouble::Damaged {
                    what: "the index names a record that is not there",
                });
            }
            Some(Read::Damaged) => {
                self.quarantine_record(sequence, lane)?;
                return Ok(None);
            }
        };
        if row.due == 0 {
            *self.effects.leased_ready.entry(lane).or_default() += 1;
        }
        self.effects.leased.insert(
            sequence,
            LeaseMark {
                claim,
                lane,
                id: row.id.clone(),
                body_checksum: row.body_checksum,
                payload_bytes: row.payload.len() as u64,
                progress_bytes: row.progress.len() as u64,
                waiting: row.due > 0,
            },
        );
        Ok(Some(self.lease_of(lane, claim, row)))
    }

    fn lease_of(&self, lane: usize, claim: u64, row: RecordRow) -> Lease {
        let age = self
            .effects
            .store
            .running
            .saturating_sub(unsigned(row.accept_running));
        Lease {
            claim,
            sequence: Sequence(row.sequence),
            lane: self.state.lanes[lane].name.clone(),
            interrupted: self.state.is_interrupted(row.sequence, row.settled_claim)
                && !matches!(self.effects.closed.get(&row.sequence), Some(true)),
            id: row.id,
            order_key: row.order_key,
            accept_time: UnixMillis(row.accept_time),
            age: Duration::from_millis(age),
            progress: row.progress.into(),
            payload: row.payload.into(),
        }
    }

    /// When the next waiting record that nobody has leased is due.
    fn next_due(&self, lane: usize, now: UnixMillis) -> Result<Option<UnixMillis>, Trouble> {
        if self.effects.counters[lane].waiting == 0 {
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT due, sequence FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due > ?2 ORDER BY due, sequence",
        )?;
        let mut rows = statement.query(params![self.lane_number(lane), now.0.max(0)])?;
        while let Some(row) = rows.next()? {
            if !self.is_leased(unsigned(row.get(1)?)) {
                return Ok(Some(UnixMillis(row.get(0)?)));
            }
        }
        Ok(None)
    }
}
