//! Settlements within a draft.
//!
//! # Invariants
//! 1. A settlement needs no room that a record did not give back before, but for its outcome; it is never refused for size.
//! 2. The record's row, its outcome, its lease mark and the books change in the same draft.

use rusqlite::{CachedStatement, Connection, params};

use super::codec::{Checksum, dead_letter_checksum, record_checksum, sql};
use super::draft::{Draft, NewOutcome};
use super::gates::{AT_ONCE, Subject};
use super::state::LeaseMark;
use super::trouble::Trouble;
use crate::{Disposition, OutcomeKind, RECORD_OVERHEAD_BYTES, Settlement};

/// The statement that deletes a record.
pub(super) fn delete_statement(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached("DELETE FROM records WHERE sequence = ?1")
}

impl Draft<'_> {
    /// Ends a lease. One that is not open under that claim is left alone.
    pub(super) fn settle(&mut self, settlement: &Settlement) -> Result<(), Trouble> {
        let sequence = settlement.sequence.0;
        let Some(mark) = self.open_lease(sequence, settlement.claim) else {
            return Ok(());
        };
        let subject = Subject {
            lane: mark.lane,
            key: mark.order_key,
            sequence,
        };
        let settled = match &settlement.disposition {
            Disposition::Delivered { time, note } => {
                self.deliver(sequence, &mark, time.0, note)?;
                self.leave_gate(subject, settlement.gate)?;
                true
            }
            Disposition::Wait { until, progress } => {
                let until = self.wait_at_gate(subject, settlement.gate, until.0.max(AT_ONCE))?;
                self.wait(sequence, &mark, until, progress)?;
                true
            }
            Disposition::DeadLetter {
                time,
                reason,
                progress,
            } => {
                self.give_up(sequence, &mark, time.0, reason, progress)?;
                self.leave_gate(subject, settlement.gate)?;
                true
            }
            Disposition::Release => {
                if !mark.waiting && self.state.lanes[mark.lane].reach.has_passed(sequence) {
                    self.effects
                        .released
                        .entry(mark.lane)
                        .or_default()
                        .insert(sequence);
                }
                self.effects.woken.insert(mark.lane);
                false
            }
        };
        self.close_lease(sequence, &mark, settled)
    }

    fn deliver(&mut self, sequence: u64, mark: &LeaseMark, time: i64, note: &[u8]) -> Result<(), Trouble> {
        if !self.remove_record(sequence, mark)? {
            return Ok(());
        }
        self.counters(mark.lane).delivered += 1;
        self.write_outcome(&NewOutcome {
            sequence,
            lane: mark.lane,
            kind: OutcomeKind::Delivered,
            time,
            id: &mark.id,
            reason: "",
            note,
        })
    }

    fn wait(&mut self, sequence: u64, mark: &LeaseMark, until: i64, progress: &[u8]) -> Result<(), Trouble> {
        let claim = sql(mark.claim);
        let crc = record_checksum(Checksum::resume(mark.body_checksum), until, claim, progress);
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE records SET due = ?2, settled_claim = ?3, progress = ?4, crc = ?5 WHERE sequence = ?1",
            )?
            .execute(params![sql(sequence), until, claim, progress, crc])?;
        if changed == 0 {
            // Taken by a salvage.
            self.pass_any_gate(mark.lane, sequence)?;
            return Ok(());
        }
        let counters = self.counters(mark.lane);
        if !mark.waiting {
            counters.ready = counters.ready.saturating_sub(1);
            counters.waiting += 1;
        }
        counters.used_bytes = counters.used_bytes.saturating_sub(mark.progress_bytes) + progress.len() as u64;
        if self.is_over(mark.lane, until) {
            self.effects.woken.insert(mark.lane);
        }
        Ok(())
    }

    fn give_up(
        &mut self,
        sequence: u64,
        mark: &LeaseMark,
        time: i64,
        reason: &str,
        progress: &[u8],
    ) -> Result<(), Trouble> {
        let crc = dead_letter_checksum(Checksum::resume(mark.body_checksum), time, reason, progress);
        // The payload is copied inside the store: it need not be read, and rot in it still shows.
        let copied = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO dead_letters (sequence, lane, crc, accept_time, accept_running, dead_time,
                    order_key, id, reason, progress, payload)
                 SELECT sequence, lane, ?2, accept_time, accept_running, ?3, order_key, id, ?4, ?5, payload
                 FROM records WHERE sequence = ?1",
            )?
            .execute(params![sql(sequence), crc, time, reason, progress])?;
        if copied == 0 || !self.remove_record(sequence, mark)? {
            return Ok(());
        }
        let counters = self.counters(mark.lane);
        counters.dead_lettered += 1;
        let taken = RECORD_OVERHEAD_BYTES + mark.payload_bytes + progress.len() as u64;
        counters.used_bytes += taken;
        counters.dead_letter_bytes += taken;
        self.count_reason(mark.lane, reason)?;
        self.write_outcome(&NewOutcome {
            sequence,
            lane: mark.lane,
            kind: OutcomeKind::DeadLettered,
            time,
            id: &mark.id,
            reason,
            note: progress,
        })
    }

    /// Removes a leased record from the queue and the books; `false` where it was gone, taken by a salvage.
    fn remove_record(&mut self, sequence: u64, mark: &LeaseMark) -> Result<bool, Trouble> {
        if !self.delete_record(sequence)? {
            return Ok(false);
        }
        self.forget_deadline(mark.lane, sequence)?;
        let counters = self.counters(mark.lane);
        let left = if mark.waiting {
            &mut counters.waiting
        } else {
            &mut counters.ready
        };
        *left = left.saturating_sub(1);
        let freed = RECORD_OVERHEAD_BYTES + mark.payload_bytes + mark.progress_bytes;
        counters.used_bytes = counters.used_bytes.saturating_sub(freed);
        Ok(true)
    }

    /// Whether a due time has passed, as far as the claims of the lane have told the time.
    fn is_over(&self, lane: usize, until: i64) -> bool {
        until <= AT_ONCE
            || self.state.lanes[lane].last_now.is_some_and(|(now, running)| {
                let since = self.effects.store.running.saturating_sub(running);
                until <= now.saturating_add(sql(since))
            })
    }
}
