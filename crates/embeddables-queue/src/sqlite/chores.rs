//! What the writer does besides calls: writing the log back, giving room back, forgetting old ids, letting followers go.
//!
//! # Invariants
//! 1. Each chore is a small step; calls that came in meanwhile are served before the next.
//! 2. A chore that fails is not tried again before something was written.

use rusqlite::wal::CheckpointMode;

use super::command::Group;
use super::commit::Scope;
use super::log_keeper::{self, LogStep};
use super::trouble::{Remedy, Trouble};
use super::writer::Writer;

/// Free pages that are kept for new records while any are queued.
const FREE_PAGES_KEPT: i64 = 1_024;

impl Writer {
    /// Sees to it that the log is written back once it is long enough.
    pub(super) fn tend_log(&mut self) {
        if self.is_good()
            && let Err(trouble) = self.try_tend_log()
        {
            self.after_failed_chore(trouble, "the log could not be written back");
        }
    }

    fn try_tend_log(&mut self) -> Result<(), Trouble> {
        self.log_keeper.look()?;
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        let (pages, done) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::NOOP)?;
        match log_keeper::next_step(self.log_limit_pages, pages, done, self.log_keeper.is_under_way()) {
            LogStep::Wait => Ok(()),
            LogStep::Pass => self.pass_log_on(),
            LogStep::Finish => self.write_back(CheckpointMode::PASSIVE),
        }
    }

    /// Has the keeper write the log back, or does it here where it cannot.
    fn pass_log_on(&mut self) -> Result<(), Trouble> {
        if self.log_keeper.begin() {
            return Ok(());
        }
        self.write_back(CheckpointMode::PASSIVE)
    }

    /// Writes the log back on this thread, once no pass of the keeper is under way.
    fn write_back(&mut self, mode: CheckpointMode) -> Result<(), Trouble> {
        self.log_keeper.wait()?;
        if let Some(connection) = &self.connection {
            connection.wal_checkpoint_v2(None::<&str>, mode)?;
        }
        Ok(())
    }

    /// As [`write_back`](Self::write_back), where it is of no use to try anything else after a failure.
    pub(super) fn write_back_or_warn(&mut self, mode: CheckpointMode) {
        if let Err(trouble) = self.write_back(mode) {
            if trouble.remedy(|| self.reserve.room_left()) == Remedy::Rebuild {
                self.distrust();
            }
            tracing::warn!(error = %trouble, "the log could not be written back; it stays where it is");
        }
    }

    pub(super) fn make_room(&mut self) {
        self.reserve.release();
        // The log's pages find their place in the file, and its room can be written again from the start.
        self.write_back_or_warn(CheckpointMode::RESTART);
    }

    pub(super) fn has_chores(&self) -> bool {
        self.more_to_evict
            || self.more_to_let_go
            || self.more_to_vacuum
            || self.reserve.is_released()
            || self.log_keeper.is_under_way()
            || !self.is_good()
    }

    /// Work that waits for a quiet moment, in small steps.
    pub(super) fn do_chores(&mut self) {
        if !self.heal() {
            return;
        }
        if self.more_to_evict
            && let Err(failure) = self.attempt(&Group::default(), Scope::SettlementsOnly)
        {
            self.more_to_evict = false;
            self.after_failed_chore(failure.trouble, "old ids could not be forgotten");
        }
        if self.more_to_let_go
            && self.is_good()
            && let Err(failure) = self.attempt(&Group::default(), Scope::WithoutAppends)
        {
            self.more_to_let_go = false;
            self.after_failed_chore(failure.trouble, "followers could not be let go");
        }
        self.tend_log();
        if self.more_to_vacuum && self.is_good() && !self.log_keeper.is_under_way() {
            match self.vacuum_step() {
                Ok(more) => self.more_to_vacuum = more,
                Err(trouble) => {
                    self.more_to_vacuum = false;
                    self.after_failed_chore(trouble, "free pages could not be given back");
                }
            }
        }
        self.tend_full_disk();
    }

    /// Gives some free pages back to the volume, where there are many or the disk is full; returns whether there are more.
    fn vacuum_step(&mut self) -> Result<bool, Trouble> {
        let Some(connection) = &self.connection else {
            return Ok(false);
        };
        let free_pages: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        let wanted = if self.reserve.is_released() || !self.state.holds_records() {
            1
        } else {
            FREE_PAGES_KEPT
        };
        if free_pages < wanted {
            // The file shrinks when the log is written back.
            self.pass_log_on()?;
            return Ok(false);
        }
        // Each step of the statement frees one page.
        let mut statement = connection.prepare_cached("PRAGMA incremental_vacuum(256)")?;
        let mut freed = statement.query([])?;
        while freed.next()?.is_some() {}
        Ok(true)
    }

    /// While the disk is full: makes room step by step also when there is no quiet moment, and takes the reserve back.
    pub(super) fn tend_full_disk(&mut self) {
        if !self.reserve.is_released() || !self.is_good() {
            return;
        }
        let shrunk = self.vacuum_step().and_then(|more| {
            self.write_back(CheckpointMode::RESTART)?;
            Ok(more)
        });
        match shrunk {
            Ok(more) => self.more_to_vacuum = more,
            Err(trouble) => {
                self.after_failed_chore(trouble, "free pages could not be given back on a full disk")
            }
        }
        self.reserve.restore();
    }

    fn after_failed_chore(&mut self, trouble: Trouble, what: &str) {
        match trouble.remedy(|| self.reserve.room_left()) {
            Remedy::MakeRoom => self.reserve.release(),
            Remedy::Rebuild => self.distrust(),
            Remedy::Salvage => {
                self.salvage();
            }
            Remedy::Fail => {}
        }
        tracing::warn!(error = %trouble, "{what}");
    }
}
