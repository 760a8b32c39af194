//! The embedded backend: one SQLite file, one writer thread, group commit. Reads top down: `open` makes the parts, calls go
//! through `intake` to the `writer`, which drafts (`settle`, `gates`, `take`, `append`, `claim`, `deadlines`) and commits a group
//! as one transaction; `repair`, `rebuild` and `salvage` are for bad days.
//!
//! # Invariants
//! Those of the crate, and:
//! 1. One process a directory; a second one changes nothing.
//! 2. A store of a newer major format is refused before anything is written.
//! 3. Memory is bounded by caches, channels and leases, never by what is queued; so is the time to open.
//!
//! Absent on purpose: any other thread that adds to the log, and any use of the log after a failed sync.

mod answer;
mod append;
mod chores;
mod claim;
mod codec;
mod command;
mod commit;
mod config;
mod connection;
mod deadlines;
mod draft;
#[cfg(test)]
mod faults;
mod format;
mod gates;
mod intake;
mod lane_rows;
mod load;
mod log_keeper;
mod mark;
mod migrate;
mod open;
mod query;
mod reader;
mod rebuild;
mod recount;
mod repair;
mod reserve;
mod rows;
mod salvage;
mod salvage_books;
mod salvage_gates;
mod salvage_ids;
mod salvage_tables;
mod settle;
mod shared;
mod small_set;
mod state;
mod statements;
mod take;
mod trouble;
mod volume;
mod writer;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::command::{
    AppendCall, ClaimCall, Control, ExpiredCall, LaneStateCall, SettleCall, TAKE_STEP, TakeCall,
};
use self::reader::{Finding, Readers};
use self::shared::Shared;
use crate::{
    Append, AppendError, Appended, Backlog, Books, Capacity, Claim, ClaimError, Claimed, DeadLetter,
    DeadLetters, Durability, Entry, LaneName, LaneState, Ledger, OpenError, Outcome, Queue, ReadError,
    Refused, Sequence, SettleError, Settlement, TakeAs, UnixMillis,
};

pub use self::config::{CommitObserver, OpenReport, PossibleLoss, Salvaged, SqliteConfig};

/// How long an append waits for room in the channel before it is told that the disk does not keep up.
const APPEND_PATIENCE: Duration = Duration::from_secs(1);

/// A queue in a directory. Dropping it without [`Queue::close`] is as safe as a kill.
#[derive(Debug)]
pub struct SqliteQueue {
    shared: Arc<Shared>,
    readers: Readers,
    controls: mpsc::Sender<Control>,
    appends: mpsc::Sender<AppendCall>,
    durabilities: Vec<Durability>,
    max_bytes: u64,
    secret: [u8; 32],
    /// For lanes that it was not opened with: never notified.
    no_lane: Arc<Notify>,
    closed: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteQueue {
    /// Opens the store of a directory, makes it where there is none, and repairs what a crash or damage has left behind.
    /// Blocks: reads and writes files.
    ///
    /// # Errors
    /// Where the directory cannot be used, is in use, or holds the store of a newer release.
    pub fn open(config: SqliteConfig) -> Result<(Self, OpenReport), OpenError> {
        open::open(config)
    }

    async fn ask<T>(&self, control: impl FnOnce(oneshot::Sender<T>) -> Control) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.controls.send(control(reply)).await.ok()?;
        answer.await.ok()
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.closed.load(Ordering::Acquire) {
            Err(ReadError::Closed)
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn append(&self, append: Append) -> Result<Vec<Result<Appended, Refused>>, AppendError> {
        if !query::is_on_offer(&self.durabilities, append.durability) {
            return Err(AppendError::DurabilityNotOnOffer);
        }
        let (reply, answer) = oneshot::channel();
        let call = AppendCall { append, reply };
        if let Err(error) = self.appends.try_send(call) {
            let call = match error {
                mpsc::error::TrySendError::Full(call) => call,
                mpsc::error::TrySendError::Closed(_) => return Err(AppendError::Closed),
            };
            match tokio::time::timeout(APPEND_PATIENCE, self.appends.send(call)).await {
                Ok(Ok(())) => {}
                Ok(Err(_closed)) => return Err(AppendError::Closed),
                Err(_elapsed) => return Err(AppendError::Busy),
            }
        }
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, ClaimError> {
        self.ask(|reply| Control::Claim(ClaimCall { claim, reply }))
            .await
            .unwrap_or(Err(ClaimError::Closed))
    }

    async fn claim_expired(
        &self,
        lane: &LaneName,
        max: NonZeroUsize,
        wall: UnixMillis,
    ) -> Result<Claimed, ClaimError> {
        let lane = lane.clone();
        self.ask(|reply| {
            Control::ClaimExpired(ExpiredCall {
                lane,
                max,
                wall,
                reply,
            })
        })
        .await
        .unwrap_or(Err(ClaimError::Closed))
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), SettleError> {
        if settlements.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Control::Settle(SettleCall { settlements, reply }))
            .await
            .unwrap_or(Err(SettleError::Closed))
    }

    async fn write_lane_state(&self, lane: &LaneName, state: LaneState) -> Result<(), SettleError> {
        let lane = lane.clone();
        self.ask(|reply| Control::WriteLaneState(LaneStateCall { lane, state, reply }))
            .await
            .unwrap_or(Err(SettleError::Closed))
    }

    fn lane_ready(&self, lane: &LaneName) -> Arc<Notify> {
        let found = self.shared.lane_by_name(lane);
        Arc::clone(found.map_or(&self.no_lane, |index| &self.shared.lanes[index].ready))
    }

    async fn ping(&self) -> Result<(), ReadError> {
        self.ask(Control::Ping).await.ok_or(ReadError::Closed)
    }

    fn durabilities(&self) -> &[Durability] {
        &self.durabilities
    }

    fn capacity(&self) -> Capacity {
        Capacity {
            used_bytes: self.shared.used_bytes(),
            max_bytes: self.max_bytes,
        }
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.readers.close();
        // Without an answer the writer had ended before.
        if self.ask(Control::Close).await.is_none() {
            tracing::debug!("the queue was closed already");
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            match tokio::task::spawn_blocking(move || thread.join()).await {
                Ok(Ok(())) => {}
                _ => tracing::error!("the writer thread panicked"),
            }
        }
    }
}

#[async_trait]
impl Ledger for SqliteQueue {
    async fn find(&self, lane: &LaneName, id: &str) -> Result<Option<Entry>, ReadError> {
        self.check_open()?;
        let Some(index) = self.shared.lane_by_name(lane) else {
            return Ok(None);
        };
        let (number, id) = (self.shared.lanes[index].number, Box::<str>::from(id));
        self.readers
            .read(move |connection, shared| {
                query::find(connection, number, &id, |sequence, claim| {
                    shared.is_interrupted(sequence, claim)
                })
            })
            .await
    }

    async fn outcomes(&self, after: u64, limit: usize) -> Result<Vec<Outcome>, ReadError> {
        self.check_open()?;
        self.readers
            .read(move |connection, shared| query::outcomes(connection, shared, after, limit))
            .await
    }

    fn books(&self) -> Books {
        self.shared.books()
    }

    fn lane_state(&self, lane: &LaneName) -> LaneState {
        self.shared.lane_state(lane)
    }

    fn newest_outcome(&self) -> watch::Receiver<u64> {
        self.shared.newest_outcome()
    }

    async fn backlog(&self, lane: &LaneName, up_to: Sequence) -> Result<Backlog, ReadError> {
        self.check_open()?;
        let Some(index) = self.shared.lane_by_name(lane) else {
            return Ok(Backlog::default());
        };
        let number = self.shared.lanes[index].number;
        self.readers
            .read(move |connection, _| query::backlog(connection, number, up_to.0).map(Finding::clean))
            .await
    }

    async fn oldest(&self) -> Result<Vec<(LaneName, UnixMillis)>, ReadError> {
        self.check_open()?;
        self.readers
            .read(|connection, shared| query::oldest(connection, shared).map(Finding::clean))
            .await
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

#[async_trait]
impl DeadLetters for SqliteQueue {
    async fn list(
        &self,
        lane: Option<&LaneName>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadError> {
        self.check_open()?;
        let lane = match lane.map(|lane| self.shared.lane_by_name(lane)) {
            None => None,
            Some(Some(index)) => Some(self.shared.lanes[index].number),
            Some(None) => return Ok(Vec::new()),
        };
        self.readers
            .read(move |connection, shared| query::dead_letters(connection, shared, lane, after.0, limit))
            .await
    }

    async fn take(&self, sequences: &[Sequence], take_as: TakeAs) -> Result<usize, SettleError> {
        let distinct: Vec<Sequence> = sequences
            .iter()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut taken = 0;
        for step in distinct.chunks(TAKE_STEP) {
            let (sequences, take_as) = (step.to_vec(), take_as.clone());
            taken += self
                .ask(|reply| {
                    Control::Take(TakeCall {
                        sequences,
                        take_as,
                        reply,
                    })
                })
                .await
                .unwrap_or(Err(SettleError::Closed))?;
        }
        Ok(taken)
    }
}
