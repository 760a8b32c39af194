//! What the writer does when its file is suspect or damaged: another file takes its place.
//!
//! # Invariants
//! 1. Nothing is written while the store is suspect; copying it is tried again at growing intervals.
//! 2. Numbers only ever rise, whatever the new file says.
//! 3. Leases stay open; those of records that are lost end with a settlement that changes nothing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use super::lane_rows::{self, LaneStateRow};
use super::shared::Published;
use super::state::{LaneCounters, Reach};
use super::trouble::Trouble;
use super::volume::Paths;
use super::writer::{Health, Writer};
use super::{connection, load, open, rebuild, recount, rows, salvage};

/// Pause after the first failed try to copy the store after a failed write.
const FIRST_RETRY_MILLIS: u64 = 100;
/// Longest pause between two tries to copy the store after a failed write.
const MAX_RETRY_MILLIS: u64 = 10_000;

impl Writer {
    /// Sees to it that the store can be written to, where the time for another try has come.
    pub(super) fn heal(&mut self) -> bool {
        let Health::Suspect {
            retry_at,
            pause_millis,
        } = self.health
        else {
            return true;
        };
        let now = self.running.now();
        if now < retry_at {
            return false;
        }
        match self.rebuild_or_salvage() {
            Ok(()) => {
                tracing::warn!("the store was copied to a new file after a failed write");
                self.health = Health::Good;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be copied after a failed write; it refuses writes");
                let pause_millis = (pause_millis * 2).min(MAX_RETRY_MILLIS);
                self.health = Health::Suspect {
                    retry_at: now + pause_millis,
                    pause_millis,
                };
                false
            }
        }
    }

    fn rebuild_or_salvage(&mut self) -> Result<(), Trouble> {
        match self.rebuild() {
            // What cannot be read, for damage or a bad sector, must not keep the rest from being kept.
            Err(trouble) if trouble.is_unreadable() => {
                tracing::error!(error = %trouble, "the store cannot be copied as it is");
                self.try_salvage()
            }
            other => other,
        }
    }

    fn rebuild(&mut self) -> Result<(), Trouble> {
        if !self.paths.rebuilt().exists() {
            let fresh;
            let source = match &self.connection {
                Some(connection) => connection,
                None => {
                    fresh = connection::open_writer(&self.paths.db())?;
                    &fresh
                }
            };
            rebuild::copy(source, &self.paths)?;
        }
        self.swap_in()
    }

    /// Puts the finished copy into its place and goes on with it.
    fn swap_in(&mut self) -> Result<(), Trouble> {
        self.replace_file(rebuild::put_in_place)?;
        self.reload_books()
    }

    /// Closes the file, has it replaced while no reader is at work, and opens what is there then.
    fn replace_file<T>(&mut self, replace: impl FnOnce(&Paths) -> Result<T, Trouble>) -> Result<T, Trouble> {
        self.connection = None;
        self.log_keeper.close_file();
        let shared = Arc::clone(&self.shared);
        let swap: RwLockWriteGuard<'_, ()> = shared.swap.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = replace(&self.paths);
        shared.generation.fetch_add(1, Ordering::Release);
        drop(swap);
        self.connection = Some(connection::open_writer(&self.paths.db())?);
        self.syncs = true;
        replaced
    }

    /// Copies what can be read of a damaged file and goes on with that. Leases stay open: those of records that are lost end
    /// with a settlement that changes nothing.
    pub(super) fn salvage(&mut self) -> bool {
        match self.try_salvage() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the damaged store could not be salvaged; it refuses writes");
                self.distrust();
                false
            }
        }
    }

    fn try_salvage(&mut self) -> Result<(), Trouble> {
        let newest = self.present_mark();
        let secret = open::new_secret()?;
        self.replace_file(|paths| salvage::salvage(paths, newest, &secret))?;
        self.reload_books()
    }

    /// Lets nothing be written until the store was copied.
    pub(super) fn distrust(&mut self) {
        rebuild::mark_suspect(&self.paths);
        if matches!(self.health, Health::Good) {
            self.health = Health::Suspect {
                retry_at: 0,
                pause_millis: FIRST_RETRY_MILLIS,
            };
        }
    }

    /// Takes over the books of the file that took the place of another; numbers only ever rise.
    fn reload_books(&mut self) -> Result<(), Trouble> {
        let connection = self.connection.as_ref().ok_or(Trouble::Suspect)?;
        let found = rows::store(connection)?.ok_or(Trouble::Damaged {
            what: "a salvaged store has no numbers",
        })?;
        let store = &mut self.state.store;
        store.commit_number = store.commit_number.max(found.commit_number);
        store.next_sequence = store.next_sequence.max(found.next_sequence);
        store.next_claim = store.next_claim.max(found.next_claim);
        store.next_outcome = store.next_outcome.max(found.next_outcome);
        store.doubt_sequence = store.doubt_sequence.max(found.doubt_sequence);
        store.doubt_claim = store.doubt_claim.max(found.doubt_claim);
        let lanes = lane_rows::lanes(connection)?;
        self.state.has_openings = load::has_openings(connection)?;
        for lane in &mut self.state.lanes {
            let row = lanes
                .iter()
                .find(|(number, name, _)| *number == lane.number && name == lane.name.as_str());
            lane.counters = match row {
                Some((_, _, Some(counters))) => *counters,
                _ => {
                    let none = LaneCounters::default();
                    lane_rows::write_lane(connection, lane.number, lane.name.as_str(), &none)?;
                    none
                }
            };
            let row = lane_rows::lane_state(connection, lane.number)?;
            lane.counters.dead_letter_bytes = row.dead_letter_bytes;
            if row.dead_letters != lane.counters.dead_lettered
                || row.state() != lane.state
                || row.clock != lane.clock
            {
                // Its state is known here, whatever became of the row.
                lane.counters.dead_letter_bytes = recount::dead_letter_bytes(connection, lane.number)?;
                let row = LaneStateRow::of(&lane.state, lane.clock, &lane.counters);
                lane_rows::write_lane_state(connection, lane.number, &row)?;
            }
            load::review_unusual(connection, lane)?;
            // Which records are left is for the claims to find out again.
            lane.reach = Reach::default();
            lane.released.clear();
        }
        self.state
            .review_leases(|sequence| rows::due_of(connection, sequence))?;
        self.shared.publish(&self.state, &Published::default());
        Ok(())
    }
}
