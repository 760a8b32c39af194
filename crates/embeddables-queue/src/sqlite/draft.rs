//! One transaction in the making: what it writes, and what memory must know of it once it is committed.
//!
//! # Invariants
//! 1. A draft reads the state and never changes it; its [`Effects`] are applied after the commit, or dropped.
//! 2. Whatever moves a record between states moves the books in the same draft.

use std::collections::btree_map::Entry;

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{OutcomeRow, claim_checksum, pack_sequences, sql};
use super::gates::LET_GO_STEP;
use super::lane_rows::{self, LaneStateRow};
use super::rows::{self, Read, RecordRow};
use super::state::{Effects, LaneCounters, LeaseMark, State};
use super::statements::Statements;
use super::trouble::Trouble;
use crate::{Durability, LaneName, LaneState, OutcomeKind};

/// How much may be kept, in bytes with overhead.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeBounds {
    pub(super) max: u64,
    pub(super) lane_share: u64,
    pub(super) dead_letter_share: u64,
}

/// One transaction in the making.
pub(super) struct Draft<'a> {
    pub(super) connection: &'a Connection,
    pub(super) statements: Statements<'a>,
    pub(super) state: &'a State,
    pub(super) effects: Effects,
    pub(super) bounds: SizeBounds,
    /// Durability that the commit will reach.
    pub(super) durability: Durability,
    /// Followers that it may still make due.
    pub(super) let_go_budget: usize,
    /// Claims of which a lease was given back, so that their mark must be rewritten.
    pub(super) marks_to_rewrite: Vec<u64>,
    /// Outcomes written by this draft.
    pub(super) outcome_count: u64,
}

/// An outcome to write.
pub(super) struct NewOutcome<'a> {
    pub(super) sequence: u64,
    pub(super) lane: usize,
    pub(super) kind: OutcomeKind,
    pub(super) time: i64,
    pub(super) id: &'a str,
    pub(super) reason: &'a str,
    pub(super) note: &'a [u8],
}

impl<'a> Draft<'a> {
    /// Begins with the state as it is. `running` is the running time now.
    pub(super) fn new(
        connection: &'a Connection,
        state: &'a State,
        bounds: SizeBounds,
        durability: Durability,
        running: u64,
    ) -> Self {
        let mut store = state.store;
        store.commit_number += 1;
        store.running = store.running.max(running);
        let effects = Effects {
            store,
            counters: state.lanes.iter().map(|lane| lane.counters).collect(),
            oldest_outcome: state.oldest_outcome,
            ..Effects::default()
        };
        Self {
            connection,
            statements: Statements::new(connection),
            state,
            effects,
            bounds,
            durability,
            let_go_budget: LET_GO_STEP,
            marks_to_rewrite: Vec::new(),
            outcome_count: 0,
        }
    }

    /// Index of a lane that takes part.
    pub(super) fn configured_lane(&self, name: &LaneName) -> Option<usize> {
        let index = *self.state.lane_index.get(name)?;
        self.state.lanes[index].configured.then_some(index)
    }

    /// Books of a lane, to be moved.
    pub(super) fn counters(&mut self, lane: usize) -> &mut LaneCounters {
        &mut self.effects.counters[lane]
    }

    /// Number of a lane in the store.
    pub(super) fn lane_number(&self, lane: usize) -> i64 {
        self.state.lanes[lane].number
    }

    /// What the clock of a lane shows as of this draft.
    pub(super) fn lane_clock(&self, lane: usize) -> u64 {
        self.effects
            .lane_states
            .get(&lane)
            .map_or(self.state.lanes[lane].clock, |(_, clock)| *clock)
            .at(self.effects.store.running)
    }

    /// Changes the state of a lane that takes part; `false` where there is none of that name.
    pub(super) fn change_lane_state(&mut self, name: &LaneName, state: &LaneState) -> bool {
        let Some(lane) = self.configured_lane(name) else {
            return false;
        };
        let known = self.effects.lane_states.get(&lane).map(|(known, _)| known);
        if known.unwrap_or(&self.state.lanes[lane].state) == state {
            return true;
        }
        let mut clock = self
            .effects
            .lane_states
            .get(&lane)
            .map_or(self.state.lanes[lane].clock, |(_, clock)| *clock);
        clock.set_ageing(state.ageing, self.effects.store.running);
        self.effects.lane_states.insert(lane, (state.clone(), clock));
        true
    }

    /// Room used as of this draft.
    pub(super) fn used_bytes(&self) -> u64 {
        self.effects
            .counters
            .iter()
            .map(|counters| counters.used_bytes)
            .sum()
    }

    /// Whether a record is under a lease as of this draft.
    pub(super) fn is_leased(&self, sequence: u64) -> bool {
        self.lease_mark(sequence).is_some()
    }

    /// Whether this draft has moved a record to quarantine.
    pub(super) fn is_quarantined(&self, sequence: u64) -> bool {
        self.effects.quarantined.contains(&sequence)
    }

    /// The lease of a record that is under one as of this draft.
    pub(super) fn lease_mark(&self, sequence: u64) -> Option<&LeaseMark> {
        self.effects.leased.get(&sequence).or_else(|| {
            self.state
                .leases
                .get(&sequence)
                .filter(|_| !self.effects.closed.contains_key(&sequence))
        })
    }

    /// The lease of a record, if it is under that claim and this draft has not ended it.
    pub(super) fn open_lease(&self, sequence: u64, claim: u64) -> Option<LeaseMark> {
        if self.effects.closed.contains_key(&sequence) {
            return None;
        }
        self.state
            .leases
            .get(&sequence)
            .filter(|mark| mark.claim == claim)
            .cloned()
    }

    /// Reads a record; `None` where it is gone.
    pub(super) fn read_record(&mut self, sequence: u64) -> rusqlite::Result<Option<Read<RecordRow>>> {
        let statement = self.statements.read_record.get()?;
        statement.query_row([sql(sequence)], rows::record).optional()
    }

    /// Deletes a record and nothing else; `false` where it was gone.
    pub(super) fn delete_record(&mut self, sequence: u64) -> rusqlite::Result<bool> {
        let deleted = self.statements.delete_record.get()?.execute([sql(sequence)])?;
        Ok(deleted > 0)
    }

    /// Counts a dead letter by its reason.
    pub(super) fn count_reason(&mut self, lane: usize, reason: &str) -> Result<(), Trouble> {
        let total = match self.effects.reasons.entry((lane, reason.into())) {
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                *entry.get()
            }
            Entry::Vacant(entry) => {
                *entry.insert(self.state.lanes[lane].reasons.get(reason).copied().unwrap_or(0) + 1)
            }
        };
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO reasons (lane, reason, total) VALUES (?1, ?2, ?3)")?
            .execute(params![self.lane_number(lane), reason, sql(total)])?;
        Ok(())
    }

    /// Writes an outcome under the next number.
    pub(super) fn write_outcome(&mut self, outcome: &NewOutcome<'_>) -> Result<(), Trouble> {
        let number = self.effects.store.next_outcome;
        let running = self.effects.store.running;
        let row = OutcomeRow {
            number: sql(number),
            sequence: sql(outcome.sequence),
            lane: self.lane_number(outcome.lane),
            kind: rows::kind_code(outcome.kind),
            time: outcome.time,
            running: sql(running),
            id: outcome.id,
            reason: outcome.reason,
            note: outcome.note,
        };
        rows::write_outcome(self.statements.insert_outcome.get()?, &row)?;
        self.effects.store.next_outcome += 1;
        self.effects.oldest_outcome.get_or_insert((number, running));
        self.outcome_count += 1;
        Ok(())
    }

    /// Notes that a lease ended; `settled` is false where it was given back untouched.
    pub(super) fn close_lease(
        &mut self,
        sequence: u64,
        mark: &LeaseMark,
        settled: bool,
    ) -> Result<(), Trouble> {
        self.effects.closed.insert(sequence, settled);
        if !mark.waiting {
            *self.effects.leased_ready.entry(mark.lane).or_default() -= 1;
        }
        if mark.marked {
            let open = self.open_count(mark.claim) - 1;
            self.effects.claims.insert(mark.claim, open);
            if open == 0 {
                self.delete_mark(mark.claim)?;
            } else if !settled {
                self.marks_to_rewrite.push(mark.claim);
            }
        }
        if settled {
            self.forget_interruption(sequence)?;
        }
        Ok(())
    }

    /// Takes a record out of the marks of earlier lives.
    pub(super) fn forget_interruption(&mut self, sequence: u64) -> Result<(), Trouble> {
        let state = self.state;
        for claim in state.interrupted.get(&sequence).into_iter().flatten() {
            let known = self
                .effects
                .old_claims
                .get(claim)
                .or_else(|| state.old_claims.get(claim));
            let open = known.copied().unwrap_or(1).saturating_sub(1);
            self.effects.old_claims.insert(*claim, open);
            if open == 0 {
                self.delete_mark(*claim)?;
            }
        }
        Ok(())
    }

    /// Rewrites the marks of claims that got leases back untouched, without these: nothing of them was tried.
    pub(super) fn rewrite_marks(&mut self) -> Result<(), Trouble> {
        let mut claims = std::mem::take(&mut self.marks_to_rewrite);
        claims.sort_unstable();
        claims.dedup();
        for claim in claims {
            if self.open_count(claim) == 0 {
                continue;
            }
            let mut lane = 0;
            let mut open: Vec<u64> = Vec::new();
            for (sequence, mark) in &self.state.leases {
                if mark.claim == claim && !self.effects.closed.contains_key(sequence) {
                    open.push(*sequence);
                    lane = mark.lane;
                }
            }
            open.sort_unstable();
            self.write_mark(claim, lane, &open)?;
        }
        Ok(())
    }

    /// Writes a lease mark, or writes it anew.
    pub(super) fn write_mark(&self, claim: u64, lane: usize, sequences: &[u64]) -> Result<(), Trouble> {
        let packed = pack_sequences(sequences);
        let lane = self.lane_number(lane);
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO claims (number, lane, sequences, crc) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                sql(claim),
                lane,
                packed,
                claim_checksum(sql(claim), lane, &packed)
            ])?;
        Ok(())
    }

    /// Writes the numbers and the books that changed; the last step before the commit.
    pub(super) fn write_books(&self) -> Result<(), Trouble> {
        for (index, (lane, counters)) in self.state.lanes.iter().zip(&self.effects.counters).enumerate() {
            let changed = self.effects.lane_states.get(&index);
            if changed.is_some()
                || lane.counters.dead_lettered != counters.dead_lettered
                || lane.counters.dead_letter_bytes != counters.dead_letter_bytes
            {
                let (state, clock) =
                    changed.map_or((&lane.state, lane.clock), |(state, clock)| (state, *clock));
                let row = LaneStateRow::of(state, clock, counters);
                lane_rows::write_lane_state(self.connection, lane.number, &row)?;
            }
            if lane.counters != *counters {
                lane_rows::write_lane(self.connection, lane.number, lane.name.as_str(), counters)?;
            }
        }
        rows::write_store(self.connection, &self.effects.store)?;
        Ok(())
    }

    fn open_count(&self, claim: u64) -> u64 {
        self.effects
            .claims
            .get(&claim)
            .or_else(|| self.state.claims.get(&claim))
            .copied()
            .unwrap_or(1)
    }

    fn delete_mark(&self, claim: u64) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("DELETE FROM claims WHERE number = ?1")?
            .execute([sql(claim)])?;
        Ok(())
    }
}
