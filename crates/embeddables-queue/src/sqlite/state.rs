//! What the writer keeps in memory: numbers, books, leases. Bounded by lanes and leases, never by what is queued. Keys
//! of its maps are numbers of its own, configured names and hashes: they do without the standard library's costlier hash.
//!
//! # Invariants
//! 1. It changes only by [`State::apply`], after the commit of the draft that it takes in; a failed commit leaves no trace.
//! 2. A sequence is in `leases` from the commit of its claim until the commit of its settlement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use tokio::sync::Notify;

use super::small_set::SmallSet;
use crate::clock::LaneClock;
use crate::turns::Turns;
use crate::{LaneBooks, LaneName, LaneState, OrderKey};

/// The one row of `store`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreRow {
    pub(super) commit_number: u64,
    pub(super) next_sequence: u64,
    pub(super) next_claim: u64,
    pub(super) next_outcome: u64,
    pub(super) running: u64,
    pub(super) evicted_ids: u64,
    pub(super) possible_losses: u64,
    pub(super) doubt_sequence: u64,
    pub(super) doubt_claim: u64,
}

/// Books of one lane as a row of `lanes` holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LaneCounters {
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) dead_lettered: u64,
    pub(super) discarded: u64,
    pub(super) erased: u64,
    pub(super) quarantined: u64,
    pub(super) ready: u64,
    pub(super) waiting: u64,
    pub(super) used_bytes: u64,
    /// Kept in the lane's row of `lane_states`, not in that of `lanes`.
    pub(super) dead_letter_bytes: u64,
}

impl LaneCounters {
    /// Records accepted that no other counter knows of.
    pub(super) fn missing(&self) -> i128 {
        let known = [
            self.delivered,
            self.dead_lettered,
            self.discarded,
            self.erased,
            self.quarantined,
            self.ready,
            self.waiting,
        ];
        i128::from(self.accepted) - known.into_iter().map(i128::from).sum::<i128>()
    }

    /// As the interface shows them.
    pub(super) fn books(&self, reasons: &BTreeMap<Box<str>, u64>) -> LaneBooks {
        LaneBooks {
            accepted: self.accepted,
            delivered: self.delivered,
            dead_lettered: self.dead_lettered,
            dead_lettered_total: reasons
                .iter()
                .map(|(reason, total)| (reason.clone(), *total))
                .collect(),
            discarded: self.discarded,
            erased: self.erased,
            quarantined: self.quarantined,
            ready: self.ready,
            waiting: self.waiting,
            used_bytes: self.used_bytes,
            dead_letter_bytes: self.dead_letter_bytes,
        }
    }
}

/// How far claims have come among a lane's never-settled records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    /// Every never-settled record up to here, and up to the line if there is one, is leased or in `released`.
    pub(super) cursor: u64,
    /// Where live records begin, while the lane is behind.
    pub(super) live: Option<Live>,
    pub(super) turns: Turns,
}

/// The line between records from before the lane fell behind and live ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    /// Newest sequence that is not live.
    pub(super) from: u64,
    /// Every live record up to here is leased or in `released`.
    pub(super) cursor: u64,
}

impl Reach {
    /// Whether claims have passed a never-settled record, so that only `released` leads back to it.
    pub(super) fn has_passed(&self, sequence: u64) -> bool {
        sequence <= self.cursor
            || self
                .live
                .is_some_and(|live| sequence > live.from && sequence <= live.cursor)
    }
}

/// A lane: its number in the store, its books and where claims have got to.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) number: i64,
    pub(super) name: LaneName,
    /// Whether the store was opened with it; else it takes no part.
    pub(super) configured: bool,
    pub(super) counters: LaneCounters,
    pub(super) reasons: BTreeMap<Box<str>, u64>,
    pub(super) ready: Arc<Notify>,
    pub(super) state: LaneState,
    pub(super) clock: LaneClock,
    /// Order keys that have a head or followers.
    pub(super) gated_keys: SmallSet<OrderKey>,
    /// Records that have a deadline.
    pub(super) timed: SmallSet<u64>,
    pub(super) reach: Reach,
    /// Never-settled records that claims have passed and whose lease was given back.
    pub(super) released: BTreeSet<u64>,
    /// Never-settled records that are leased.
    pub(super) leased_ready: i64,
    /// Newest `now` of a claim, and the running time then: tells whether a wait is over already.
    pub(super) last_now: Option<(i64, u64)>,
}

/// What must be known of a leased record to settle it without reading it.
#[derive(Clone, Debug)]
pub(super) struct LeaseMark {
    pub(super) claim: u64,
    pub(super) lane: usize,
    pub(super) order_key: OrderKey,
    /// Whether it may be tried, so that `claims` has a mark of it.
    pub(super) marked: bool,
    pub(super) id: Box<str>,
    /// Checksum of the body, to be continued.
    pub(super) body_checksum: u32,
    pub(super) payload_bytes: u64,
    pub(super) progress_bytes: u64,
    /// Whether it had been settled before, to a wait.
    pub(super) waiting: bool,
}

/// All that the writer keeps in memory.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: StoreRow,
    pub(super) lanes: Vec<Lane>,
    pub(super) lane_index: HashMap<LaneName, usize>,
    pub(super) leases: HashMap<u64, LeaseMark>,
    /// Open claims of this life and how many of their leases are open.
    pub(super) claims: HashMap<u64, u64>,
    /// Records leased in an earlier life and not settled since, with the claims that say so.
    pub(super) interrupted: HashMap<u64, Vec<u64>>,
    /// Open claims of earlier lives and how many of their records are not settled yet.
    pub(super) old_claims: HashMap<u64, u64>,
    /// Oldest outcome kept and when it was written, in running time; `None` where there is none.
    pub(super) oldest_outcome: Option<(u64, u64)>,
    /// Whether followers of any key are being let go.
    pub(super) has_openings: bool,
}

/// What a committed draft changed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) store: StoreRow,
    pub(super) counters: Vec<LaneCounters>,
    pub(super) reasons: BTreeMap<(usize, Box<str>), u64>,
    pub(super) reaches: HashMap<usize, Reach>,
    pub(super) lane_states: HashMap<usize, (LaneState, LaneClock)>,
    /// Order keys that have got a head or followers, or lost all of them.
    pub(super) gated_keys: HashMap<(usize, OrderKey), bool>,
    /// Lanes that were found to have no head and no follower left.
    pub(super) ungated: HashSet<usize>,
    /// Records that have got a deadline, or lost it.
    pub(super) timed: HashMap<(usize, u64), bool>,
    /// Lanes that were found to have no deadline left.
    pub(super) untimed: HashSet<usize>,
    pub(super) has_openings: Option<bool>,
    /// Records that were moved to quarantine.
    pub(super) quarantined: HashSet<u64>,
    pub(super) released: BTreeMap<usize, BTreeSet<u64>>,
    pub(super) leased: HashMap<u64, LeaseMark>,
    /// By how much the number of leased never-settled records changed.
    pub(super) leased_ready: HashMap<usize, i64>,
    /// Leases that ended; `true` where the record was settled, `false` where it was given back.
    pub(super) closed: HashMap<u64, bool>,
    pub(super) claims: HashMap<u64, u64>,
    pub(super) old_claims: HashMap<u64, u64>,
    pub(super) last_now: HashMap<usize, (i64, u64)>,
    /// Lanes with something new to claim.
    pub(super) woken: HashSet<usize>,
    pub(super) oldest_outcome: Option<(u64, u64)>,
}

impl State {
    /// Room used by all lanes, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.counters.used_bytes).sum()
    }

    /// Whether any record is still to be settled.
    pub(super) fn holds_records(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| lane.counters.ready + lane.counters.waiting > 0)
    }

    /// Whether a record may have been tried in an earlier life and was not settled since.
    pub(super) fn is_interrupted(&self, sequence: u64, settled_claim: u64) -> bool {
        self.interrupted.contains_key(&sequence)
            || (sequence < self.store.doubt_sequence && settled_claim < self.store.doubt_claim)
    }

    /// Looks at open leases anew after the file was replaced: `look_up` tells due time and bytes of progress of a record that
    /// is still there.
    pub(super) fn review_leases<E>(
        &mut self,
        look_up: impl Fn(u64) -> Result<Option<(i64, u64)>, E>,
    ) -> Result<(), E> {
        for lane in &mut self.lanes {
            lane.leased_ready = 0;
        }
        let mut lost = Vec::new();
        for (sequence, mark) in &mut self.leases {
            match look_up(*sequence)? {
                Some((due, progress_bytes)) => {
                    mark.waiting = due > 0;
                    mark.progress_bytes = progress_bytes;
                    self.lanes[mark.lane].leased_ready += i64::from(due == 0);
                }
                None => lost.push((*sequence, mark.claim)),
            }
        }
        for (sequence, claim) in lost {
            self.leases.remove(&sequence);
            self.interrupted.remove(&sequence);
            if let Some(open) = self.claims.get_mut(&claim) {
                *open = open.saturating_sub(1);
            }
        }
        // The mark of a claim without leases is removed at the next start.
        self.claims.retain(|_, open| *open > 0);
        Ok(())
    }

    /// Takes in what a commit changed.
    pub(super) fn apply(&mut self, effects: Effects) {
        self.store = effects.store;
        self.oldest_outcome = effects.oldest_outcome;
        for (lane, counters) in self.lanes.iter_mut().zip(effects.counters) {
            lane.counters = counters;
        }
        for ((lane, reason), total) in effects.reasons {
            self.lanes[lane].reasons.insert(reason, total);
        }
        for (lane, reach) in effects.reaches {
            self.lanes[lane].reach = reach;
        }
        for (lane, (state, clock)) in effects.lane_states {
            self.lanes[lane].state = state;
            self.lanes[lane].clock = clock;
        }
        for lane in effects.ungated {
            self.lanes[lane].gated_keys = SmallSet::default();
        }
        for ((lane, key), is_gated) in effects.gated_keys {
            self.lanes[lane].gated_keys.set(key, is_gated);
        }
        for lane in effects.untimed {
            self.lanes[lane].timed = SmallSet::default();
        }
        for ((lane, sequence), is_timed) in effects.timed {
            self.lanes[lane].timed.set(sequence, is_timed);
        }
        self.has_openings = effects.has_openings.unwrap_or(self.has_openings);
        for (lane, change) in effects.leased_ready {
            self.lanes[lane].leased_ready += change;
        }
        for (lane, seen) in effects.last_now {
            self.lanes[lane].last_now = Some(seen);
        }
        for (sequence, settled) in effects.closed {
            self.leases.remove(&sequence);
            if settled {
                self.interrupted.remove(&sequence);
            }
        }
        for (lane, sequences) in effects.released {
            self.lanes[lane].released.extend(sequences);
        }
        for sequence in effects.quarantined {
            for lane in &mut self.lanes {
                lane.released.remove(&sequence);
            }
        }
        for (sequence, mark) in effects.leased {
            self.lanes[mark.lane].released.remove(&sequence);
            self.leases.insert(sequence, mark);
        }
        merge_counts(&mut self.claims, effects.claims);
        merge_counts(&mut self.old_claims, effects.old_claims);
    }

    /// Wakes whoever waits for these lanes.
    pub(super) fn wake(&self, lanes: &HashSet<usize>) {
        for &lane in lanes {
            self.lanes[lane].ready.notify_one();
        }
    }
}

fn merge_counts(into: &mut HashMap<u64, u64>, changed: HashMap<u64, u64>) {
    for (claim, open) in changed {
        if open == 0 {
            into.remove(&claim);
        } else {
            into.insert(claim, open);
        }
    }
}
