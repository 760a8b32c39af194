//! The maps behind [`super::MemoryQueue`], and what an append does to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::MemoryConfig;
use super::gates::Key;
use crate::clock::LaneClock;
use crate::running::RunningTime;
use crate::turns::Turns;
use crate::{
    Append, Appended, Durability, Fingerprint, LaneBooks, LaneName, LaneState, NewRecord, OrderKey, Outcome,
    OutcomeKind, RECORD_OVERHEAD_BYTES, Refused, Sequence, UnixMillis,
};

/// A lease that is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leased {
    pub(super) claim: u64,
    /// Whether the record may be tried, so that its lease has a mark that outlives a kill.
    pub(super) marked: bool,
}

/// A record that is still here, or a dead letter.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) record: NewRecord,
    /// What the lane's clock showed when it was accepted or replayed.
    pub(super) accepted_at: u64,
    /// Due time of a waiting one.
    pub(super) until: Option<UnixMillis>,
    pub(super) progress: Bytes,
    pub(super) leased: Option<Leased>,
    pub(super) interrupted: bool,
}

impl Held {
    pub(super) fn bytes(&self) -> u64 {
        RECORD_OVERHEAD_BYTES + (self.record.payload.len() + self.progress.len()) as u64
    }
}

/// What the ledger knows of an id.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) sequence: Sequence,
    pub(super) fingerprint: Fingerprint,
    pub(super) accept_time: UnixMillis,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    pub(super) held: Held,
    pub(super) time: UnixMillis,
    pub(super) reason: Box<str>,
}

/// A lane, its books and what of it can be claimed.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// Whether it takes part.
    pub(super) configured: bool,
    pub(super) books: LaneBooks,
    pub(super) state: LaneState,
    pub(super) clock: LaneClock,
    /// Never-settled records that are not leased.
    pub(super) fresh: BTreeSet<Sequence>,
    /// Waiting records that are not leased, by due time.
    pub(super) waiting: BTreeSet<(UnixMillis, Sequence)>,
    /// Deadlines of all records that are here.
    pub(super) deadlines: BTreeSet<(UnixMillis, Sequence)>,
    pub(super) gates: BTreeMap<OrderKey, Key>,
    /// Newest sequence when the lane fell behind; never-settled records after it are live. `None` while it keeps up.
    pub(super) live_from: Option<Sequence>,
    pub(super) turns: Turns,
    /// Newest `now` of a claim, and the running time then: tells whether a wait is over already.
    pub(super) last_now: Option<(UnixMillis, u64)>,
}

/// Everything that the queue holds.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: MemoryConfig,
    running: RunningTime,
    /// Running time at which it was closed.
    closed_at: Option<u64>,
    /// Lanes with something new to claim since the last call.
    pub(super) woken: BTreeSet<LaneName>,
    pub(super) next_sequence: u64,
    pub(super) next_claim: u64,
    pub(super) next_outcome: u64,
    pub(super) evicted_ids: u64,
    pub(super) lanes: BTreeMap<LaneName, Lane>,
    pub(super) records: BTreeMap<Sequence, Held>,
    pub(super) dead: BTreeMap<Sequence, Dead>,
    pub(super) ids: HashMap<(LaneName, Box<str>), Known>,
    /// Outcomes, and the running time at which each was written.
    pub(super) outcomes: BTreeMap<u64, (Outcome, u64)>,
    /// Newest outcome of a sequence.
    pub(super) outcome_of: HashMap<Sequence, u64>,
}

impl Model {
    pub(super) fn new(config: MemoryConfig) -> Self {
        let mut model = Self {
            running: RunningTime::resume(0, Arc::clone(&config.clock)),
            config,
            closed_at: None,
            woken: BTreeSet::new(),
            next_sequence: 1,
            next_claim: 1,
            next_outcome: 1,
            evicted_ids: 0,
            lanes: BTreeMap::new(),
            records: BTreeMap::new(),
            dead: BTreeMap::new(),
            ids: HashMap::new(),
            outcomes: BTreeMap::new(),
            outcome_of: HashMap::new(),
        };
        model.configure_lanes();
        model
    }

    /// What opening it again after a kill finds.
    pub(super) fn reopened(&self, config: MemoryConfig) -> Self {
        let mut model = Self {
            running: RunningTime::resume(self.running(), Arc::clone(&config.clock)),
            config,
            closed_at: None,
            woken: BTreeSet::new(),
            next_sequence: self.next_sequence,
            next_claim: self.next_claim,
            next_outcome: self.next_outcome,
            evicted_ids: self.evicted_ids,
            lanes: self.lanes.clone(),
            records: self.records.clone(),
            dead: self.dead.clone(),
            ids: self.ids.clone(),
            outcomes: self.outcomes.clone(),
            outcome_of: self.outcome_of.clone(),
        };
        for lane in model.lanes.values_mut() {
            lane.configured = false;
            lane.live_from = None;
            lane.turns = Turns::default();
            lane.last_now = None;
        }
        model.configure_lanes();
        for (sequence, held) in &mut model.records {
            let Some(leased) = held.leased.take() else {
                continue;
            };
            held.interrupted |= leased.marked;
            if let Some(lane) = model.lanes.get_mut(&held.record.lane) {
                lane.offer(*sequence, held.until);
            }
        }
        model
    }

    fn configure_lanes(&mut self) {
        for lane in &self.config.lanes {
            self.lanes.entry(lane.clone()).or_default().configured = true;
        }
    }

    pub(super) fn lane_names(&self) -> impl Iterator<Item = &LaneName> {
        self.lanes.keys()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed_at.is_some()
    }

    pub(super) fn close(&mut self) {
        self.closed_at = Some(self.running());
    }

    /// For how long it has been open, over all lives, in milliseconds.
    pub(super) fn running(&self) -> u64 {
        self.closed_at.unwrap_or_else(|| self.running.now())
    }

    pub(super) fn newest_outcome(&self) -> u64 {
        self.next_outcome - 1
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.lanes.values().map(|lane| lane.books.used_bytes).sum()
    }

    /// A lane that takes part.
    pub(super) fn configured_lane(&mut self, name: &LaneName) -> Option<&mut Lane> {
        self.lanes.get_mut(name).filter(|lane| lane.configured)
    }

    /// The lane of a record.
    pub(super) fn lane(&mut self, name: &LaneName) -> &mut Lane {
        self.lanes.entry(name.clone()).or_default()
    }

    pub(super) fn append(&mut self, append: &Append) -> Vec<Result<Appended, Refused>> {
        if append.atomic {
            let refusals = self.refusals(&append.records);
            if refusals.iter().any(Option::is_some) {
                return refusals
                    .into_iter()
                    .map(|refusal| Err(refusal.unwrap_or(Refused::NotAlone)))
                    .collect();
            }
        }
        append
            .records
            .iter()
            .map(|record| self.append_one(record))
            .collect()
    }

    /// What an atomic call is refused for, record by record.
    fn refusals(&self, records: &[NewRecord]) -> Vec<Option<Refused>> {
        let mut reserved: BTreeMap<&LaneName, u64> = BTreeMap::new();
        let mut within: HashMap<(&LaneName, &str), Fingerprint> = HashMap::new();
        records
            .iter()
            .map(|record| {
                if let Some(first) = within.get(&(&record.lane, &*record.id)) {
                    return (*first != record.fingerprint).then_some(Refused::Conflict);
                }
                within.insert((&record.lane, &*record.id), record.fingerprint);
                match self.decide(record, &reserved) {
                    Ok(Some(_)) => None,
                    Ok(None) => {
                        *reserved.entry(&record.lane).or_default() += needed_bytes(record);
                        None
                    }
                    Err(refused) => Some(refused),
                }
            })
            .collect()
    }

    /// The known record of a repeat, `None` where it is new.
    fn decide(
        &self,
        record: &NewRecord,
        reserved: &BTreeMap<&LaneName, u64>,
    ) -> Result<Option<Appended>, Refused> {
        let lane = self
            .lanes
            .get(&record.lane)
            .filter(|lane| lane.configured)
            .ok_or(Refused::UnknownLane)?;
        if let Some(known) = self.ids.get(&(record.lane.clone(), record.id.clone()))
            && !self.is_discarded(known.sequence)
        {
            return if known.fingerprint == record.fingerprint {
                Ok(Some(Appended {
                    sequence: known.sequence,
                    durability: Durability::Memory,
                    duplicate: true,
                }))
            } else {
                Err(Refused::Conflict)
            };
        }
        let requested_bytes = needed_bytes(record);
        let used_bytes = self.used_bytes() + reserved.values().sum::<u64>();
        if used_bytes + requested_bytes > self.config.max_bytes {
            return Err(Refused::Full {
                used_bytes,
                capacity_bytes: self.config.max_bytes,
                requested_bytes,
            });
        }
        let used_bytes = lane.books.used_bytes + reserved.get(&record.lane).copied().unwrap_or(0);
        if used_bytes + requested_bytes > self.config.lane_share_bytes {
            return Err(Refused::LaneFull {
                used_bytes,
                share_bytes: self.config.lane_share_bytes,
            });
        }
        if lane.books.dead_letter_bytes >= self.config.dead_letter_share_bytes {
            return Err(Refused::DeadLettersFull {
                used_bytes: lane.books.dead_letter_bytes,
                share_bytes: self.config.dead_letter_share_bytes,
            });
        }
        Ok(None)
    }

    fn is_discarded(&self, sequence: Sequence) -> bool {
        self.outcome_of
            .get(&sequence)
            .and_then(|number| self.outcomes.get(number))
            .is_some_and(|(outcome, _)| outcome.kind == OutcomeKind::Discarded)
    }

    fn append_one(&mut self, record: &NewRecord) -> Result<Appended, Refused> {
        if let Some(known) = self.decide(record, &BTreeMap::new())? {
            return Ok(known);
        }
        let sequence = self.insert(record.clone(), Bytes::new());
        self.lane(&record.lane).books.accepted += 1;
        Ok(Appended {
            sequence,
            durability: Durability::Memory,
            duplicate: false,
        })
    }

    /// Puts a never-settled record at the end and names it in the ledger.
    pub(super) fn insert(&mut self, record: NewRecord, progress: Bytes) -> Sequence {
        let sequence = Sequence(self.next_sequence);
        self.next_sequence += 1;
        let running = self.running();
        let name = record.lane.clone();
        self.ids.insert(
            (name.clone(), record.id.clone()),
            Known {
                sequence,
                fingerprint: record.fingerprint,
                accept_time: record.accept_time,
            },
        );
        let lane = self.lane(&name);
        let held = Held {
            accepted_at: lane.clock.at(running),
            until: None,
            progress,
            leased: None,
            interrupted: false,
            record,
        };
        lane.books.used_bytes += held.bytes();
        lane.books.ready += 1;
        lane.fresh.insert(sequence);
        lane.deadlines
            .extend(held.record.deadline.map(|time| (time, sequence)));
        self.records.insert(sequence, held);
        self.woken.insert(name);
        sequence
    }

    /// Writes the state of a lane that takes part; `false` where there is none of that name.
    pub(super) fn write_lane_state(&mut self, name: &LaneName, state: LaneState) -> bool {
        let running = self.running();
        let Some(lane) = self.configured_lane(name) else {
            return false;
        };
        lane.clock.set_ageing(state.ageing, running);
        lane.state = state;
        true
    }
}

impl Lane {
    /// Puts a record among those that can be claimed.
    pub(super) fn offer(&mut self, sequence: Sequence, until: Option<UnixMillis>) {
        match until {
            None => self.fresh.insert(sequence),
            Some(until) => self.waiting.insert((until, sequence)),
        };
    }

    /// Takes a record from among those that can be claimed.
    pub(super) fn withdraw(&mut self, sequence: Sequence, until: Option<UnixMillis>) {
        match until {
            None => self.fresh.remove(&sequence),
            Some(until) => self.waiting.remove(&(until, sequence)),
        };
    }
}

fn needed_bytes(record: &NewRecord) -> u64 {
    RECORD_OVERHEAD_BYTES + record.payload.len() as u64
}
