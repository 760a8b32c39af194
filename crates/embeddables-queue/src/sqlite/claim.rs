//! Claims within a draft.
//!
//! # Invariants
//! 1. What a claim hands out to be tried is marked in `claims` in the same draft; the mark is on disk before the claim is
//!    answered. What is not to be tried has a claim number of its own and no mark.
//! 2. Never-settled records are found by cursors that only rise; waiting ones by their due time alone, so that a clock that
//!    jumps loses none of them.
//! 3. A row whose checksum is wrong is moved to quarantine and counted, never returned.
//! 4. Records that the books know and the index does not are damage, not an empty queue.

use std::num::NonZeroUsize;
use std::time::Duration;

use rusqlite::params;

use super::codec::{sql, unsigned};
use super::draft::Draft;
use super::rows::{Read, RecordRow};
use super::state::{LeaseMark, Live, Reach};
use super::trouble::Trouble;
use crate::turns::{Bounds, Kinds};
use crate::{Claim, Claimed, Lease, Sequence, UnixMillis};

/// Records that can be leased, by kind, each in its order: as many as fit and one more, if there are so many.
struct Candidates {
    live: Vec<u64>,
    old: Vec<u64>,
    waiting: Vec<u64>,
}

/// Numbers and leases of one claim.
pub(super) struct Leasing {
    lane: usize,
    /// Claim number of what is to be tried; the next one is for what is not.
    claim: u64,
    to_try: bool,
    marked: Vec<u64>,
    leases: Vec<Lease>,
}

impl Draft<'_> {
    /// Leases due records of a lane.
    pub(super) fn claim(&mut self, claim: &Claim) -> Result<Claimed, Trouble> {
        let Some(lane) = self.configured_lane(&claim.lane) else {
            return Ok(Claimed::default());
        };
        self.effects
            .last_now
            .insert(lane, (claim.now.0, self.effects.store.running));
        let mut bounds = Bounds {
            max: claim.max,
            max_waiting: claim.max_waiting,
            live_percent: claim.live_percent,
        };
        let mut leasing = self.begin_leasing(lane, true);
        // Damaged rows leave a gap that the next round fills; each round moves the damaged out of the way.
        let more = loop {
            let found = self.find_candidates(lane, claim.now, &bounds)?;
            let before = leasing.leases.len();
            let (taken, more) = self.take_turns(lane, &bounds, &found);
            let (first, second) = if bounds.live_percent == 0 {
                (&found.old[..taken.old], &found.live[..taken.live])
            } else {
                (&found.live[..taken.live], &found.old[..taken.old])
            };
            for &sequence in first.iter().chain(second) {
                self.lease(&mut leasing, sequence)?;
            }
            let never_settled = leasing.leases.len() - before;
            for &sequence in &found.waiting[..taken.waiting] {
                self.lease(&mut leasing, sequence)?;
            }
            let leased = leasing.leases.len() - before;
            let is_short = leased < taken.live + taken.old + taken.waiting;
            match NonZeroUsize::new(bounds.max.get() - leased) {
                Some(room) if is_short && more => {
                    bounds.max = room;
                    bounds.max_waiting = bounds.max_waiting.saturating_sub(leased - never_settled);
                }
                _ => break more,
            }
        };
        let next_due = if more { None } else { self.next_due(lane)? };
        Ok(Claimed {
            leases: self.end_leasing(leasing)?,
            more,
            next_due,
        })
    }

    /// Begins to lease; of what is not to be tried no mark is written.
    pub(super) fn begin_leasing(&self, lane: usize, to_try: bool) -> Leasing {
        Leasing {
            lane,
            claim: self.effects.store.next_claim,
            to_try,
            marked: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Writes the mark of what was leased.
    pub(super) fn end_leasing(&mut self, leasing: Leasing) -> Result<Vec<Lease>, Trouble> {
        if !leasing.leases.is_empty() {
            self.effects.store.next_claim += 2;
        }
        if !leasing.marked.is_empty() {
            self.effects
                .claims
                .insert(leasing.claim, leasing.marked.len() as u64);
            self.write_mark(leasing.claim, leasing.lane, &leasing.marked)?;
        }
        Ok(leasing.leases)
    }

    fn reach(&self, lane: usize) -> Reach {
        self.effects
            .reaches
            .get(&lane)
            .copied()
            .unwrap_or(self.state.lanes[lane].reach)
    }

    fn find_candidates(&self, lane: usize, now: UnixMillis, bounds: &Bounds) -> Result<Candidates, Trouble> {
        let most = bounds.max.saturating_add(1).get();
        let reach = self.reach(lane);
        let line = reach.live.map_or(u64::MAX, |live| live.from);
        let old = self.never_settled(lane, reach.cursor, (0, line), most)?;
        let live = match reach.live {
            Some(live) => self.never_settled(lane, live.cursor, (live.from, u64::MAX), most)?,
            None => Vec::new(),
        };
        let waiting = if self.effects.counters[lane].waiting > 0 && bounds.max_waiting > 0 {
            self.due(lane, now, most.min(bounds.max_waiting.saturating_add(1)))?
        } else {
            Vec::new()
        };
        if old.len() < most && live.len() < most {
            self.check_ready_count(lane, old.len() + live.len())?;
        }
        Ok(Candidates { live, old, waiting })
    }

    /// Divides the slots among the candidates and moves the cursors and the line between live records and older ones; returns
    /// how many to take of each kind, and whether more is left within the bounds.
    fn take_turns(&mut self, lane: usize, bounds: &Bounds, candidates: &Candidates) -> (Kinds, bool) {
        let found = Kinds {
            live: candidates.live.len(),
            old: candidates.old.len(),
            waiting: candidates.waiting.len(),
        };
        let mut reach = self.reach(lane);
        let taken = reach.turns.divide(bounds, &found);
        let last_of = |kind: &[u64], count: usize| kind[..count].last().copied().unwrap_or(0);
        reach.cursor = reach.cursor.max(last_of(&candidates.old, taken.old));
        if let Some(live) = &mut reach.live {
            live.cursor = live.cursor.max(last_of(&candidates.live, taken.live));
        }
        let newest = self.effects.store.next_sequence - 1;
        let line = Live {
            from: newest,
            cursor: newest,
        };
        if taken.old < found.old {
            reach.live.get_or_insert(line);
        } else {
            // The backlog is claimed: what was live is the backlog now.
            reach.cursor = reach.cursor.max(reach.live.map_or(0, |live| live.cursor));
            reach.live = (taken.live < found.live).then_some(line);
        }
        self.effects.reaches.insert(lane, reach);
        (taken, taken.leaves_more(&found, bounds))
    }

    /// Never-settled records after the first and up to the second of two sequences, in order: those given back, and those that
    /// the cursor has not come to.
    fn never_settled(
        &self,
        lane: usize,
        cursor: u64,
        (after, up_to): (u64, u64),
        most: usize,
    ) -> Result<Vec<u64>, Trouble> {
        let state = &self.state.lanes[lane];
        let empty = std::collections::BTreeSet::new();
        let added = self.effects.released.get(&lane).unwrap_or(&empty);
        let mut sequences: Vec<u64> = state
            .released
            .union(added)
            .copied()
            .filter(|sequence| *sequence > after && *sequence <= up_to)
            .filter(|sequence| !self.is_leased(*sequence) && !self.is_quarantined(*sequence))
            .take(most)
            .collect();
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due = 0 AND sequence > ?2 AND sequence <= ?3 ORDER BY sequence",
        )?;
        let mut rows = statement.query(params![state.number, sql(cursor.max(after)), sql(up_to)])?;
        while sequences.len() < most
            && let Some(row) = rows.next()?
        {
            // Behind the cursor only what was claimed for its deadline is leased, unless a salvage has set the cursor back.
            let sequence = unsigned(row.get(0)?);
            if !self.is_leased(sequence) {
                sequences.push(sequence);
            }
        }
        Ok(sequences)
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
    fn due(&self, lane: usize, now: UnixMillis, most: usize) -> Result<Vec<u64>, Trouble> {
        let mut sequences = Vec::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due > 0 AND due <= ?2 ORDER BY due, sequence",
        )?;
        let mut rows = statement.query(params![self.lane_number(lane), now.0])?;
        while sequences.len() < most
            && let Some(row) = rows.next()?
        {
            let sequence = unsigned(row.get(0)?);
            if !self.is_leased(sequence) {
                sequences.push(sequence);
            }
        }
        Ok(sequences)
    }

    /// Leases one record, or puts it into quarantine.
    pub(super) fn lease(&mut self, leasing: &mut Leasing, sequence: u64) -> Result<(), Trouble> {
        let lane = leasing.lane;
        if self.is_quarantined(sequence) {
            // Found damaged when it was to take over from a head that is gone.
            return Ok(());
        }
        let row = match self.read_record(sequence)? {
            Some(Read::Good(row)) if row.lane == self.lane_number(lane) => row,
            Some(Read::Good(_)) | None => {
                return Err(Trouble::Damaged {
                    what: "the index names a record that is not there",
                });
            }
            Some(Read::Damaged) => return self.quarantine_record(sequence, lane),
        };
        if row.due == 0 {
            *self.effects.leased_ready.entry(lane).or_default() += 1;
        }
        let behind = self.is_behind(lane, &row.order_key, sequence)?;
        let marked = leasing.to_try && !behind;
        let claim = leasing.claim + u64::from(!marked);
        self.effects.leased.insert(
            sequence,
            LeaseMark {
                claim,
                lane,
                order_key: row.order_key,
                marked,
                id: row.id.clone(),
                body_checksum: row.body_checksum,
                payload_bytes: row.payload.len() as u64,
                progress_bytes: row.progress.len() as u64,
                waiting: row.due > 0,
            },
        );
        if marked {
            leasing.marked.push(sequence);
        }
        leasing.leases.push(self.lease_of(lane, claim, row, behind));
        Ok(())
    }

    fn lease_of(&self, lane: usize, claim: u64, row: RecordRow, behind: bool) -> Lease {
        let age = self.lane_clock(lane).saturating_sub(unsigned(row.accept_running));
        Lease {
            claim,
            sequence: Sequence(row.sequence),
            lane: self.state.lanes[lane].name.clone(),
            interrupted: self.state.is_interrupted(row.sequence, row.settled_claim)
                && self.effects.closed.get(&row.sequence) != Some(&true),
            id: row.id,
            order_key: row.order_key,
            accept_time: UnixMillis(row.accept_time),
            age: Duration::from_millis(age),
            progress: row.progress.into(),
            payload: row.payload.into(),
            behind,
        }
    }

    /// When the next waiting record that nobody has leased is due.
    fn next_due(&self, lane: usize) -> Result<Option<UnixMillis>, Trouble> {
        if self.effects.counters[lane].waiting == 0 {
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT due, sequence FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due > 0 ORDER BY due, sequence",
        )?;
        let mut rows = statement.query(params![self.lane_number(lane)])?;
        while let Some(row) = rows.next()? {
            if !self.is_leased(unsigned(row.get(1)?)) {
                return Ok(Some(UnixMillis(row.get(0)?)));
            }
        }
        Ok(None)
    }
}
