//! The writer: the one thread that decides what `queue.db` holds. Bytes only; what they mean is unknown here. Copying its commits
//! from the log to the main file is mostly left to `log_keeper`.
//!
//! # Invariants
//! 1. A call is answered after the commit that holds its work, never before.
//! 2. After a failed write or sync nothing is appended to the log; everything is copied to a new file first.
//! 3. When the disk is full, settlements go on; appends are refused.
//! 4. Leases outlive every failure: they end by a settlement that was committed, or with the process.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::answer;
use super::command::Group;
use super::commit::{self, Answers, Committed, Failure, FaultHook, Scope, Terms};
use super::config::CommitObserver;
use super::intake::{Gathered, Intake};
use super::log_keeper::LogKeeper;
use super::mark::{Mark, MarkKeeper};
use super::reserve::Reserve;
use super::shared::{Published, Shared};
use super::state::State;
use super::trouble::{Remedy, Trouble};
use super::volume::Paths;
use crate::Durability;
use crate::clock::{MonotonicClock, RunningClock as _};
use crate::running::RunningTime;

/// How long the loop waits for calls while it has chores.
const CHORE_INTERVAL: Duration = Duration::from_millis(50);

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
    /// Behind the connection, so that it is dropped after it: see `LogFile`.
    pub(super) log_keeper: LogKeeper,
    /// Pages of the log not yet written back from which on they are.
    pub(super) log_limit_pages: i32,
    pub(super) health: Health,
    pub(super) more_to_evict: bool,
    pub(super) more_to_let_go: bool,
    pub(super) more_to_vacuum: bool,
    pub(super) hook: Option<FaultHook>,
    pub(super) on_commit: Option<CommitObserver>,
    /// Held for as long as the store may be written to.
    #[expect(dead_code, reason = "its lock matters, not its content")]
    pub(super) lock: std::fs::File,
}

impl Writer {
    /// Serves calls until closed or until every handle is gone.
    pub(super) fn run(mut self) {
        loop {
            let patience = if self.more_to_let_go && self.is_good() {
                // Whoever was held back waits for it.
                Some(Duration::ZERO)
            } else {
                self.has_chores().then_some(CHORE_INTERVAL)
            };
            match self.intake.gather(patience) {
                Gathered::Group(mut group) => {
                    let closes = std::mem::take(&mut group.closes);
                    self.serve(*group);
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
        if self.is_good() {
            self.write_back_or_warn(CheckpointMode::TRUNCATE);
        }
        closes
    }

    /// Whether the file can be written to.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.health, Health::Good)
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
                    if !self.is_good() {
                        return Err((failure, Remedy::Rebuild));
                    }
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
    pub(super) fn attempt(&mut self, group: &Group, scope: Scope) -> Result<Answers, Failure> {
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
        } = commit::commit(connection, &self.state, group, &terms, self.hook.as_ref())?;
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

    pub(super) fn present_mark(&self) -> Mark {
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
}
