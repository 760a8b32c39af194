//! What the writer does besides calls: writing the log back, giving room back, forgetting old ids, letting followers go.
//!
//! # Invariants
//! 1. Each chore is a small step; calls that came in meanwhile are served before the next.
//! 2. A chore that fails is not tried again before something was written.

use rusqlite::wal::CheckpointMode;

use super::command::Group;
use super::commit::Scope;
use super::trouble::{Remedy, Trouble};
use super::writer::{Health, Writer};

/// Free pages that are kept for new records while any are queued.
const FREE_PAGES_KEPT: i64 = 1_024;

impl Writer {
    /// Writes the log back once it is long enough.
    pub(super) fn tend_log(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        if !matches!(self.health, Health::Good) {
            return;
        }
        let tended = connection
            .wal_checkpoint_v2(None::<&str>, CheckpointMode::NOOP)
            .and_then(|(pages, done)| {
                if pages - done >= self.log_limit_pages {
                    connection
                        .wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE)
                        .map(|_| ())
                } else {
                    Ok(())
                }
            });
        if let Err(error) = tended {
            self.after_failed_chore(error.into(), "the log could not be written back");
        }
    }

    pub(super) fn make_room(&mut self) {
        self.reserve.release();
        let Some(connection) = &self.connection else {
            return;
        };
        // The log's pages find their place in the file, and its room can be written again from the start.
        if let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART) {
            tracing::warn!(%error, "the log could not be written back on a full disk");
        }
    }

    pub(super) fn has_chores(&self) -> bool {
        self.more_to_evict
            || self.more_to_let_go
            || self.more_to_vacuum
            || self.reserve.is_released()
            || matches!(self.health, Health::Suspect { .. })
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
            && let Err(failure) = self.attempt(&Group::default(), Scope::WithoutAppends)
        {
            self.more_to_let_go = false;
            self.after_failed_chore(failure.trouble, "followers could not be let go");
        }
        self.tend_log();
        if self.more_to_vacuum {
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
    fn vacuum_step(&self) -> Result<bool, Trouble> {
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
            connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE)?;
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
        if !self.reserve.is_released() || !matches!(self.health, Health::Good) {
            return;
        }
        let shrunk = self.vacuum_step().and_then(|more| {
            if let Some(connection) = &self.connection {
                connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART)?;
            }
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
