//! Bulk moves within a draft: taking dead letters out, quarantine, forgetting old ids.

use rusqlite::{OptionalExtension, params};

use super::append::Incoming;
use super::codec::{sql, unsigned};
use super::command::Suspected;
use super::draft::{Draft, NewOutcome};
use super::rows::{self, DeadLetterRow, Read};
use super::trouble::Trouble;
use crate::{OutcomeKind, RECORD_OVERHEAD_BYTES, Sequence, TakeAs};

/// Least number of outcomes that one commit may forget.
pub(super) const EVICTION_STEP: u64 = 256;

impl Draft<'_> {
    /// Takes dead letters out; returns how many were still there.
    pub(super) fn take(&mut self, sequences: &[Sequence], take_as: &TakeAs) -> Result<usize, Trouble> {
        let mut taken = 0;
        for sequence in sequences {
            match rows::dead_letter_at(self.connection, sequence.0)? {
                None => {}
                Some(Read::Damaged) => self.quarantine_dead_letter(sequence.0)?,
                Some(Read::Good(row)) => taken += usize::from(self.take_one(row, take_as)?),
            }
        }
        Ok(taken)
    }

    fn take_one(&mut self, row: DeadLetterRow, take_as: &TakeAs) -> Result<bool, Trouble> {
        let Some(lane) = self.lane_of(row.lane) else {
            return Ok(false);
        };
        self.connection
            .prepare_cached("DELETE FROM dead_letters WHERE sequence = ?1")?
            .execute([sql(row.sequence)])?;
        let counters = self.counters(lane);
        counters.dead_lettered = counters.dead_lettered.saturating_sub(1);
        let freed = RECORD_OVERHEAD_BYTES + (row.payload.len() + row.progress.len()) as u64;
        counters.used_bytes = counters.used_bytes.saturating_sub(freed);
        counters.dead_letter_bytes = counters.dead_letter_bytes.saturating_sub(freed);
        match take_as {
            TakeAs::Discard { time } => {
                self.counters(lane).discarded += 1;
                self.write_outcome(&NewOutcome {
                    sequence: row.sequence,
                    lane,
                    kind: OutcomeKind::Discarded,
                    time: time.0,
                    id: &row.id,
                    reason: "",
                    note: &[],
                })?;
            }
            TakeAs::Replay { progress } => {
                let incoming = Incoming {
                    lane,
                    accept_time: row.accept_time,
                    deadline: None,
                    order_key: &row.order_key,
                    id: &row.id,
                    progress,
                    payload: &row.payload,
                };
                let sequence = self.insert_record(&incoming)?;
                self.connection
                    .prepare_cached("UPDATE ids SET sequence = ?3 WHERE lane = ?1 AND id = ?2")?
                    .execute(params![row.lane, &*row.id, sql(sequence)])?;
            }
        }
        Ok(true)
    }

    /// Looks again at rows that a reader found damaged, and moves those that are.
    pub(super) fn check_suspected(&mut self, suspected: &Suspected) -> Result<(), Trouble> {
        match *suspected {
            Suspected::Record(sequence) => {
                let row = self.read_record(sequence)?;
                // A leased one is found damaged when it is claimed again, or leaves by its settlement.
                if matches!(row, Some(Read::Damaged)) && !self.is_leased(sequence) {
                    self.quarantine_any_record(sequence)?;
                }
            }
            Suspected::DeadLetter(sequence) => {
                if let Some(Read::Damaged) = rows::dead_letter_at(self.connection, sequence)? {
                    self.quarantine_dead_letter(sequence)?;
                }
            }
            Suspected::Outcome(number) => self.quarantine_outcome(number)?,
        }
        Ok(())
    }

    fn quarantine_any_record(&mut self, sequence: u64) -> Result<(), Trouble> {
        let lane: Option<i64> = self
            .connection
            .prepare_cached("SELECT CAST(lane AS INTEGER) FROM records WHERE sequence = ?1")?
            .query_row([sql(sequence)], |row| row.get(0))
            .optional()?;
        match lane.and_then(|number| self.lane_of(number)) {
            Some(lane) => self.quarantine_record(sequence, lane),
            None => Err(Trouble::Damaged {
                what: "a record names a lane that is not there",
            }),
        }
    }

    /// Moves a damaged record out of the way and counts it. Should its state or size be the damaged part, the books of the
    /// lane contradict the index sooner or later, which counts everything anew.
    pub(super) fn quarantine_record(&mut self, sequence: u64, lane: usize) -> Result<(), Trouble> {
        let (waiting, bytes, id) = self
            .connection
            .prepare_cached(
                "SELECT CAST(due AS INTEGER) > 0, length(CAST(payload AS BLOB)) + length(CAST(progress AS BLOB)),
                    CAST(id AS BLOB) FROM records WHERE sequence = ?1",
            )?
            .query_row([sql(sequence)], |row| {
                Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })?;
        self.connection
            .prepare_cached(
                "INSERT INTO quarantine (from_table, sequence, lane, id, crc, columns)
                 SELECT 'records', sequence, lane, id, crc, json_array(due, settled_claim, accept_time, accept_running,
                    hex(order_key), hex(progress), hex(payload))
                 FROM records WHERE sequence = ?1",
            )?
            .execute([sql(sequence)])?;
        self.delete_record(sequence)?;
        self.forget_interruption(sequence)?;
        self.effects.closed.insert(sequence, true);
        self.effects.quarantined.insert(sequence);
        self.forget_deadline(lane, sequence)?;
        let counters = self.counters(lane);
        let left = if waiting {
            &mut counters.waiting
        } else {
            &mut counters.ready
        };
        *left = left.saturating_sub(1);
        self.count_quarantined(sequence, lane, bytes, &id)?;
        self.pass_any_gate(lane, sequence)?;
        Ok(())
    }

    fn quarantine_dead_letter(&mut self, sequence: u64) -> Result<(), Trouble> {
        let (lane, bytes, id) = self
            .connection
            .prepare_cached(
                "SELECT CAST(lane AS INTEGER), length(CAST(payload AS BLOB)) + length(CAST(progress AS BLOB)),
                    CAST(id AS BLOB) FROM dead_letters WHERE sequence = ?1",
            )?
            .query_row([sql(sequence)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })?;
        let Some(lane) = self.lane_of(lane) else {
            return Err(Trouble::Damaged {
                what: "a dead letter names a lane that is not there",
            });
        };
        self.connection
            .prepare_cached(
                "INSERT INTO quarantine (from_table, sequence, lane, id, crc, columns)
                 SELECT 'dead_letters', sequence, lane, id, crc, json_array(accept_time, accept_running, dead_time,
                    hex(order_key), hex(reason), hex(progress), hex(payload))
                 FROM dead_letters WHERE sequence = ?1",
            )?
            .execute([sql(sequence)])?;
        self.connection
            .prepare_cached("DELETE FROM dead_letters WHERE sequence = ?1")?
            .execute([sql(sequence)])?;
        let counters = self.counters(lane);
        counters.dead_lettered = counters.dead_lettered.saturating_sub(1);
        counters.dead_letter_bytes = counters
            .dead_letter_bytes
            .saturating_sub(RECORD_OVERHEAD_BYTES + unsigned(bytes));
        self.count_quarantined(sequence, lane, bytes, &id)
    }

    /// A damaged outcome is removed: what it told is lost, the books still count it.
    fn quarantine_outcome(&mut self, number: u64) -> Result<(), Trouble> {
        let row = self
            .connection
            .prepare_cached(&format!(
                "SELECT {} FROM outcomes WHERE number = ?1",
                rows::OUTCOME_COLUMNS
            ))?
            .query_row([sql(number)], rows::outcome)
            .optional()?;
        if matches!(row, Some(Read::Damaged)) {
            self.connection
                .prepare_cached(
                    "INSERT INTO quarantine (from_table, sequence, lane, id, crc, columns)
                     SELECT 'outcomes', sequence, lane, id, crc,
                        json_array(number, kind, outcome_time, running, hex(reason), hex(note))
                     FROM outcomes WHERE number = ?1",
                )?
                .execute([sql(number)])?;
            self.connection
                .prepare_cached("DELETE FROM outcomes WHERE number = ?1")?
                .execute([sql(number)])?;
        }
        Ok(())
    }

    fn count_quarantined(
        &mut self,
        sequence: u64,
        lane: usize,
        bytes: i64,
        id: &[u8],
    ) -> Result<(), Trouble> {
        let number = self.lane_number(lane);
        let counters = self.counters(lane);
        counters.quarantined += 1;
        counters.used_bytes = counters
            .used_bytes
            .saturating_sub(RECORD_OVERHEAD_BYTES + unsigned(bytes));
        // The damaged row's own id is not to be trusted unless the ledger agrees.
        let known = std::str::from_utf8(id).ok();
        let agreed = match known {
            Some(id) => rows::id(self.connection, number, id)?.is_some_and(|row| row.sequence == sequence),
            None => false,
        };
        let id = match known.filter(|_| agreed) {
            Some(id) => Some(id.to_owned()),
            None => self
                .connection
                .prepare_cached("SELECT id FROM ids WHERE lane = ?1 AND sequence = ?2")?
                .query_row(params![number, sql(sequence)], |row| row.get(0))
                .optional()?,
        };
        self.write_outcome(&NewOutcome {
            sequence,
            lane,
            kind: OutcomeKind::Quarantined,
            time: 0,
            id: id.as_deref().unwrap_or(""),
            reason: "",
            note: &[],
        })
    }

    /// Index of a lane by its number in the store.
    pub(super) fn lane_of(&self, number: i64) -> Option<usize> {
        self.state.lanes.iter().position(|lane| lane.number == number)
    }

    /// Forgets the oldest outcomes, and the ids of settled records with them: those older than the window, and those beyond
    /// the bound on their number, which are counted.
    pub(super) fn evict(&mut self, window_millis: u64, max_outcomes: u64) -> Result<bool, Trouble> {
        let running = self.effects.store.running;
        let step = EVICTION_STEP.max(2 * self.outcome_count);
        for _ in 0..step {
            let Some((number, written)) = self.effects.oldest_outcome else {
                return Ok(false);
            };
            let aged = running.saturating_sub(written) >= window_millis;
            let kept = self.effects.store.next_outcome.saturating_sub(number);
            if !aged && kept <= max_outcomes {
                return Ok(false);
            }
            self.evict_one(number, !aged)?;
        }
        Ok(true)
    }

    fn evict_one(&mut self, number: u64, early: bool) -> Result<(), Trouble> {
        let row = self
            .connection
            .prepare_cached("SELECT sequence, lane, kind, id FROM outcomes WHERE number = ?1")?
            .query_row([sql(number)], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .optional()?;
        if let Some((sequence, lane, kind, id)) = row {
            // A dead letter keeps its id; so does a replayed one, whose id names a newer sequence.
            if rows::kind_of(kind) != Some(OutcomeKind::DeadLettered) {
                let removed = self
                    .connection
                    .prepare_cached("DELETE FROM ids WHERE lane = ?1 AND id = ?2 AND sequence = ?3")?
                    .execute(params![lane, id, sequence])?;
                if removed == 0 && rows::kind_of(kind) == Some(OutcomeKind::Delivered) {
                    // Nothing but damage removes an id before its outcome; a repeat of it would not have been known.
                    tracing::warn!(sequence, "the ledger had lost an id before its time");
                }
                if early {
                    self.effects.store.evicted_ids += removed as u64;
                }
            }
            self.connection
                .prepare_cached("DELETE FROM outcomes WHERE number = ?1")?
                .execute([sql(number)])?;
        }
        self.effects.oldest_outcome = self
            .connection
            .prepare_cached("SELECT number, running FROM outcomes WHERE number > ?1 ORDER BY number LIMIT 1")?
            .query_row([sql(number)], |row| {
                Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)))
            })
            .optional()?;
        Ok(())
    }
}
