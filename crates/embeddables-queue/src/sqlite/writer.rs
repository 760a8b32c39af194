//! The writer: the one thread that changes `queue.db`. Bytes only; what they mean is unknown here.
//!
//! # Invariants
//! 1. A call is answered after the commit that holds its work, never before.
//! 2. After a failed write or sync nothing is appended to the log; everything is copied to a new file first.
//! 3. When the disk is full, settlements go on; appends are refused.
//! 4. Leases outlive every failure: they end by a settlement that was committed, or with the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockWriteGuard};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::answer;
use super::command::Group;
use super::commit::{self, Answers, CommitHook, Committed, Failure, Scope, Terms};
use super::config::CommitObserver;
use super::connection;
use super::intake::{Gathered, Intake};
use super::lane_rows::{self, LaneStateRow};
use super::load;
use super::mark::{Mark, MarkKeeper};
use super::open;
use super::rebuild;
use super::recount;
use super::reserve::Reserve;
use super::rows;
use super::salvage;
use super::shared::{Published, Shared};
use super::state::{LaneCounters, Reach, State};
use super::trouble::{Remedy, Trouble};
use super::volume::Paths;
use crate::Durability;
use crate::clock::{MonotonicClock, RunningClock as _};
use crate::running::RunningTime;

/// How long the loop waits for calls while it has chores.
const CHORE_INTERVAL: Duration = Duration::from_millis(50);
/// Pause after the first failed try to copy the store after a failed write.
const FIRST_RETRY_MILLIS: u64 = 100;
/// Free pages that are kept for new records while any are queued.
const FREE_PAGES_KEPT: i64 = 1_024;
/// Longest pause between two tries to copy the store after a failed write.
const MAX_RETRY_MILLIS: u64 = 10_000;

/// Whether the file can be written to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Health {
    /// It can.
    Good,
    /// A write failed: it must be copied first, which is tried again at this running time.
    Suspect {
        /// Running time in milliseconds.
        retry_at: u64,
        /// Pause after the next failure.
        pause_millis: u64,
    },
}

/// The thread's own data.
pub(super) struct Writer {
    pub(super) paths: Paths,
    /// `None` only where the file could not be opened again after a failure.
    pub(super) connection: Option<Connection>,
    pub(super) state: State,
    pub(super) shared: Arc<Shared>,
    pub(super) intake: Intake,
    pub(super) running: Arc<RunningTime>,
    pub(super) mark: MarkKeeper,
    pub(super) reserve: Reserve,
    pub(super) terms: Terms,
    /// Strongest durability on offer; settlements and claims always have it.
    pub(super) strongest: Durability,
    /// Whether commits of the connection are synced as it is set now.
    pub(super) syncs: bool,
    /// Pages in the log from which on it is written back.
    pub(super) log_limit_pages: i32,
    pub(super) health: Health,
    pub(super) more_to_evict: bool,
    pub(super) more_to_let_go: bool,
    pub(super) more_to_vacuum: bool,
    pub(super) hook: Option<CommitHook>,
    pub(super) on_commit: Option<CommitObserver>,
    /// Held for as long as the store may be written to.
    #[expect(dead_code, reason = "its lock matters, not its content")]
    pub(super) lock: std::fs::File,
}

impl Writer {
    /// Serves calls until closed or until every handle is gone.
    pub(super) fn run(mut self) {
        loop {
            let patience = if self.more_to_let_go && matches!(self.health, Health::Good) {
                // Whoever was held back waits for it.
                Some(Duration::ZERO)
            } else {
                self.has_chores().then_some(CHORE_INTERVAL)
            };
            match self.intake.gather(patience) {
                Gathered::Group(mut group) => {
                    let closes = std::mem::take(&mut group.closes);
                    self.serve(group);
                    if !closes.is_empty() {
                        let rest = self.intake.close();
                        let more = self.finish(rest);
                        drop(self);
                        for reply in closes.into_iter().chain(more) {
                            answer::tell(reply, ());
                        }
                        return;
                    }
                }
                Gathered::Idle => self.do_chores(),
                Gathered::Closed => return,
            }
        }
    }

    fn finish(&mut self, mut rest: Group) -> Vec<tokio::sync::oneshot::Sender<()>> {
        let closes = std::mem::take(&mut rest.closes);
        self.serve(rest);
        if let (Some(connection), Health::Good) = (&self.connection, self.health)
            && let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)
        {
            tracing::warn!(%error, "the log could not be written back at the end; it will be at the next start");
        }
        closes
    }

    /// Does the work of a group and answers its calls.
    fn serve(&mut self, group: Group) {
        if group.salvage {
            self.salvage();
        }
        if group.is_idle() {
            answer::committed(group, Answers::default(), Scope::All);
            return;
        }
        if !self.heal() {
            answer::failed(
                group,
                Failure {
                    committing: false,
                    trouble: Trouble::Suspect,
                },
                false,
            );
            return;
        }
        match self.write(&group) {
            Ok((answers, scope)) => answer::committed(group, answers, scope),
            Err((failure, remedy)) => {
                tracing::error!(error = %failure.trouble, committing = failure.committing, "a commit failed");
                if remedy == Remedy::Rebuild {
                    self.distrust();
                }
                answer::failed(group, failure, remedy == Remedy::MakeRoom);
                self.heal();
            }
        }
        self.tend_log();
        self.tend_full_disk();
    }

    fn write(&mut self, group: &Group) -> Result<(Answers, Scope), (Failure, Remedy)> {
        let mut scope = if self.reserve.is_released() {
            Scope::WithoutAppends
        } else {
            Scope::All
        };
        let mut salvaged = false;
        loop {
            let failure = match self.attempt(group, scope) {
                Ok(answers) => return Ok((answers, scope)),
                Err(failure) => failure,
            };
            let remedy = failure.trouble.remedy(|| self.reserve.room_left());
            match remedy {
                Remedy::MakeRoom if scope != Scope::SettlementsOnly => {
                    let first = !self.reserve.is_released();
                    self.make_room();
                    scope = match scope {
                        Scope::All => Scope::WithoutAppends,
                        // With the reserve given up just now the same is worth another try.
                        Scope::WithoutAppends if first => Scope::WithoutAppends,
                        _ => Scope::SettlementsOnly,
                    };
                }
                Remedy::Salvage if !salvaged => {
                    tracing::error!(error = %failure.trouble, "the store is damaged");
                    salvaged = true;
                    if !self.salvage() {
                        return Err((failure, remedy));
                    }
                }
                _ => return Err((failure, remedy)),
            }
        }
    }

    /// One try at one transaction.
    fn attempt(&mut self, group: &Group, scope: Scope) -> Result<Answers, Failure> {
        let before = |trouble| Failure {
            committing: false,
            trouble,
        };
        let durability = self.durability_for(group);
        self.set_syncs(durability).map_err(|error| before(error.into()))?;
        let connection = self.connection.as_ref().ok_or_else(|| before(Trouble::Suspect))?;
        let terms = Terms {
            scope,
            durability,
            running: self.running.now(),
            ..self.terms
        };
        let begun = MonotonicClock::start();
        let Committed {
            answers,
            effects,
            wrote,
        } = commit::commit(connection, &self.state, group, &terms, self.hook.as_mut())?;
        let woken = effects.woken.clone();
        let changed = Published {
            reasons: !effects.reasons.is_empty(),
            lane_states: !effects.lane_states.is_empty(),
        };
        self.state.apply(effects);
        self.more_to_evict = answers.more_to_evict;
        self.more_to_let_go = self.state.has_openings;
        if wrote {
            if let Some(observer) = &self.on_commit {
                observer.observe(begun.elapsed());
            }
            self.more_to_vacuum = true;
            self.shared.publish(&self.state, &changed);
            self.mark.note(self.present_mark(), self.state.holds_records());
            self.state.wake(&woken);
        }
        Ok(answers)
    }

    fn present_mark(&self) -> Mark {
        let store = &self.state.store;
        Mark {
            commit_number: store.commit_number,
            running: store.running,
            next_sequence: store.next_sequence,
            next_claim: store.next_claim,
            next_outcome: store.next_outcome,
        }
    }

    /// Weakest durability that serves the whole group. Leases and settlements ask for the strongest.
    fn durability_for(&self, group: &Group) -> Durability {
        let only_appends = group.settles.is_empty()
            && group.takes.is_empty()
            && group.claims.is_empty()
            && group.lane_states.is_empty()
            && group.suspected.is_empty();
        let asked = group.appends.iter().map(|call| call.append.durability).max();
        match asked {
            Some(asked) if only_appends && asked < Durability::Fsynced => {
                self.strongest.min(Durability::Buffered)
            }
            _ => self.strongest,
        }
    }

    fn set_syncs(&mut self, durability: Durability) -> rusqlite::Result<()> {
        let wanted = durability >= Durability::Fsynced;
        if wanted != self.syncs
            && let Some(connection) = &self.connection
        {
            let mode = if wanted {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            };
            connection.prepare_cached(mode)?.raw_execute()?;
            self.syncs = wanted;
        }
        Ok(())
    }

    /// Writes the log back once it is long enough.
    fn tend_log(&mut self) {
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

    /// Sees to it that the store can be written to, where the time for another try has come.
    fn heal(&mut self) -> bool {
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
    fn salvage(&mut self) -> bool {
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
    fn distrust(&mut self) {
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
            load::review_flags(connection, lane)?;
            // Which records are left is for the claims to find out again.
            lane.reach = Reach::default();
            lane.released.clear();
        }
        self.state
            .review_leases(|sequence| rows::due_of(connection, sequence))?;
        self.shared.publish(&self.state, &Published::default());
        Ok(())
    }

    fn make_room(&mut self) {
        self.reserve.release();
        let Some(connection) = &self.connection else {
            return;
        };
        // The log's pages find their place in the file, and its room can be written again from the start.
        if let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART) {
            tracing::warn!(%error, "the log could not be written back on a full disk");
        }
    }

    fn has_chores(&self) -> bool {
        self.more_to_evict
            || self.more_to_let_go
            || self.more_to_vacuum
            || self.reserve.is_released()
            || matches!(self.health, Health::Suspect { .. })
    }

    /// Work that waits for a quiet moment, in small steps.
    fn do_chores(&mut self) {
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
    fn tend_full_disk(&mut self) {
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
