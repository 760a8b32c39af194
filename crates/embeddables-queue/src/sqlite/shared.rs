//! What the writer shows to callers and readers without I/O: books, room, and which file is the present one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::HashSet;
use tokio::sync::{Notify, watch};

use super::state::{LaneCounters, State};
use crate::{Books, LaneName, LaneState, OutcomeSpan, Sequence};

/// A lane as callers see it.
#[derive(Debug)]
pub(super) struct SharedLane {
    pub(super) number: i64,
    pub(super) name: LaneName,
    pub(super) configured: bool,
    pub(super) ready: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Figures {
    counters: Vec<LaneCounters>,
    reasons: Vec<BTreeMap<Box<str>, u64>>,
    lane_states: Vec<LaneState>,
    newest_sequence: u64,
    outcomes: OutcomeSpan,
    evicted_ids: u64,
    possible_losses: u64,
    /// Records that were leased in an earlier life; those settled since are told by their row.
    interrupted: HashSet<u64>,
    doubt: (u64, u64),
}

/// Which of the figures that rarely change are taken over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    pub(super) reasons: bool,
    pub(super) lane_states: bool,
}

impl Default for Published {
    /// All of them.
    fn default() -> Self {
        Self {
            reasons: true,
            lane_states: true,
        }
    }
}

/// Shared by the writer, the readers and every handle.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) lanes: Vec<SharedLane>,
    figures: Mutex<Figures>,
    used_bytes: AtomicU64,
    newest_outcome: watch::Sender<u64>,
    /// Rises when another file takes the place of `queue.db`: readers of an older one are closed.
    pub(super) generation: AtomicU64,
    /// Held by a reader during its query, and exclusively while files are swapped.
    pub(super) swap: RwLock<()>,
}

impl Shared {
    /// Shows a state.
    pub(super) fn of(state: &State) -> Self {
        let lanes = state
            .lanes
            .iter()
            .map(|lane| SharedLane {
                number: lane.number,
                name: lane.name.clone(),
                configured: lane.configured,
                ready: Arc::clone(&lane.ready),
            })
            .collect();
        let shared = Self {
            lanes,
            figures: Mutex::default(),
            used_bytes: AtomicU64::new(0),
            newest_outcome: watch::Sender::new(0),
            generation: AtomicU64::new(0),
            swap: RwLock::new(()),
        };
        shared.publish(state, &Published::default());
        shared
    }

    /// Takes over the figures of a state; what rarely changes only where it did.
    pub(super) fn publish(&self, state: &State, changed: &Published) {
        let mut figures = self.figures();
        figures.counters.clear();
        figures
            .counters
            .extend(state.lanes.iter().map(|lane| lane.counters));
        if changed.reasons {
            figures.reasons = state.lanes.iter().map(|lane| lane.reasons.clone()).collect();
        }
        if changed.lane_states {
            figures.lane_states = state.lanes.iter().map(|lane| lane.state.clone()).collect();
        }
        let newest_outcome = state.store.next_outcome.saturating_sub(1);
        figures.newest_sequence = state.store.next_sequence.saturating_sub(1);
        figures.outcomes = OutcomeSpan {
            oldest: state
                .oldest_outcome
                .map_or(newest_outcome + 1, |(number, _)| number),
            newest: newest_outcome,
        };
        figures.evicted_ids = state.store.evicted_ids;
        figures.possible_losses = state.store.possible_losses;
        figures.doubt = (state.store.doubt_sequence, state.store.doubt_claim);
        if figures.interrupted.len() != state.interrupted.len() {
            figures.interrupted = state.interrupted.keys().copied().collect();
        }
        drop(figures);
        self.used_bytes.store(state.used_bytes(), Ordering::Relaxed);
        self.newest_outcome.send_if_modified(|known| {
            let is_newer = newest_outcome > *known;
            *known = newest_outcome.max(*known);
            is_newer
        });
    }

    /// Room used, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Books of every lane that is configured or ever held something.
    pub(super) fn books(&self) -> Books {
        let figures = self.figures();
        let mut lanes: Vec<_> = self
            .lanes
            .iter()
            .zip(figures.counters.iter().zip(&figures.reasons))
            .filter(|(lane, (counters, _))| lane.configured || counters.accepted > 0)
            .map(|(lane, (counters, reasons))| (lane.name.clone(), counters.books(reasons)))
            .collect();
        lanes.sort_by(|left, right| left.0.cmp(&right.0));
        Books {
            newest_sequence: Sequence(figures.newest_sequence),
            outcomes: figures.outcomes,
            lanes,
            evicted_ids: figures.evicted_ids,
            possible_losses: figures.possible_losses,
        }
    }

    /// State of a lane.
    pub(super) fn lane_state(&self, name: &LaneName) -> LaneState {
        self.lane_by_name(name)
            .and_then(|index| self.figures().lane_states.get(index).cloned())
            .unwrap_or_default()
    }

    /// Tells the number of the newest outcome after each commit that wrote one.
    pub(super) fn newest_outcome(&self) -> watch::Receiver<u64> {
        self.newest_outcome.subscribe()
    }

    /// Counters of a lane.
    pub(super) fn counters(&self, lane: usize) -> LaneCounters {
        self.figures().counters[lane]
    }

    /// Whether a record may have been tried in an earlier life and was not settled since.
    pub(super) fn is_interrupted(&self, sequence: u64, settled_claim: u64) -> bool {
        let figures = self.figures();
        figures.interrupted.contains(&sequence)
            || (sequence < figures.doubt.0 && settled_claim < figures.doubt.1)
    }

    /// Index of a lane by its number in the store.
    pub(super) fn lane_by_number(&self, number: i64) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.number == number)
    }

    /// Index of a lane by its name.
    pub(super) fn lane_by_name(&self, name: &LaneName) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.name == *name)
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
