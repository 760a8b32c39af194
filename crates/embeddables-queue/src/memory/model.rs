//! The maps behind [`super::MemoryQueue`], and what each call does to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::MemoryConfig;
use crate::{
    Append, Appended, Books, Claimed, DeadLetter, Disposition, Durability, Entry, EntryState, Fingerprint,
    LaneBooks, LaneName, Lease, NewRecord, Outcome, OutcomeKind, RECORD_OVERHEAD_BYTES, Refused, Sequence,
    Settlement, TakeAs, UnixMillis,
};

#[derive(Clone, Debug)]
struct Held {
    record: NewRecord,
    accepted_at: Duration,
    /// Due time of a waiting one.
    until: Option<UnixMillis>,
    progress: Bytes,
    /// Claim under which it is leased.
    leased: Option<u64>,
}

impl Held {
    fn bytes(&self) -> u64 {
        RECORD_OVERHEAD_BYTES + (self.record.payload.len() + self.progress.len()) as u64
    }
}

#[derive(Clone, Debug)]
struct Known {
    sequence: Sequence,
    fingerprint: Fingerprint,
    accept_time: UnixMillis,
}

/// Everything that the queue holds.
#[derive(Debug)]
pub(super) struct Model {
    config: MemoryConfig,
    pub(super) closed: bool,
    /// Lanes with something new to claim since the last call.
    pub(super) woken: BTreeSet<LaneName>,
    next_sequence: u64,
    next_claim: u64,
    next_outcome: u64,
    evicted_ids: u64,
    used_bytes: u64,
    books: BTreeMap<LaneName, LaneBooks>,
    records: BTreeMap<Sequence, Held>,
    /// What can be claimed, by lane: never settled ones first, then by due time.
    order: BTreeMap<LaneName, BTreeSet<(Option<UnixMillis>, Sequence)>>,
    dead: BTreeMap<Sequence, (Held, UnixMillis, Box<str>)>,
    ids: HashMap<(LaneName, Box<str>), Known>,
    outcomes: BTreeMap<u64, (Outcome, Duration)>,
    /// Newest outcome of a sequence.
    outcome_of: HashMap<Sequence, u64>,
}

impl Model {
    pub(super) fn new(config: MemoryConfig) -> Self {
        let books = config
            .lanes
            .iter()
            .map(|lane| (lane.clone(), LaneBooks::default()))
            .collect();
        Self {
            config,
            closed: false,
            woken: BTreeSet::new(),
            next_sequence: 1,
            next_claim: 1,
            next_outcome: 1,
            evicted_ids: 0,
            used_bytes: 0,
            books,
            records: BTreeMap::new(),
            order: BTreeMap::new(),
            dead: BTreeMap::new(),
            ids: HashMap::new(),
            outcomes: BTreeMap::new(),
            outcome_of: HashMap::new(),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
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
        let mut reserved = 0;
        let mut within: HashMap<(&LaneName, &str), Fingerprint> = HashMap::new();
        records
            .iter()
            .map(|record| {
                if let Some(first) = within.get(&(&record.lane, &*record.id)) {
                    return (*first != record.fingerprint).then_some(Refused::Conflict);
                }
                within.insert((&record.lane, &*record.id), record.fingerprint);
                match self.decide(record, reserved) {
                    Ok(Some(_)) => None,
                    Ok(None) => {
                        reserved += needed_bytes(record);
                        None
                    }
                    Err(refused) => Some(refused),
                }
            })
            .collect()
    }

    /// The known record of a repeat, `None` where it is new.
    fn decide(&self, record: &NewRecord, reserved: u64) -> Result<Option<Appended>, Refused> {
        if !self.books.contains_key(&record.lane) {
            return Err(Refused::UnknownLane);
        }
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
        let (used_bytes, requested_bytes) = (self.used_bytes + reserved, needed_bytes(record));
        if used_bytes + requested_bytes > self.config.max_bytes {
            return Err(Refused::Full {
                used_bytes,
                capacity_bytes: self.config.max_bytes,
                requested_bytes,
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
        if let Some(known) = self.decide(record, 0)? {
            return Ok(known);
        }
        let accepted_at = self.config.clock.elapsed();
        let sequence = self.insert(Held {
            record: record.clone(),
            accepted_at,
            until: None,
            progress: Bytes::new(),
            leased: None,
        });
        self.books_of(&record.lane).accepted += 1;
        Ok(Appended {
            sequence,
            durability: Durability::Memory,
            duplicate: false,
        })
    }

    /// Puts a never-settled record at the end and names it in the ledger.
    fn insert(&mut self, held: Held) -> Sequence {
        let sequence = Sequence(self.next_sequence);
        self.next_sequence += 1;
        let record = &held.record;
        let lane = record.lane.clone();
        self.ids.insert(
            (lane.clone(), record.id.clone()),
            Known {
                sequence,
                fingerprint: record.fingerprint,
                accept_time: record.accept_time,
            },
        );
        self.used_bytes += held.bytes();
        self.books_of(&lane).ready += 1;
        self.order
            .entry(lane.clone())
            .or_default()
            .insert((None, sequence));
        self.records.insert(sequence, held);
        self.woken.insert(lane);
        sequence
    }

    fn books_of(&mut self, lane: &LaneName) -> &mut LaneBooks {
        self.books.entry(lane.clone()).or_default()
    }

    pub(super) fn claim(&mut self, lane: &LaneName, max: usize, now: UnixMillis) -> Claimed {
        let Some(order) = self.order.get_mut(lane) else {
            return Claimed::default();
        };
        let due = |until: &Option<UnixMillis>| until.is_none_or(|until| until <= now);
        let chosen: Vec<_> = order
            .iter()
            .filter(|(until, _)| due(until))
            .take(max)
            .copied()
            .collect();
        for place in &chosen {
            order.remove(place);
        }
        let more = order.iter().next().is_some_and(|(until, _)| due(until));
        let next_due = order
            .iter()
            .find_map(|(until, _)| until.filter(|until| *until > now))
            .filter(|_| !more);
        let claim = self.next_claim;
        if !chosen.is_empty() {
            self.next_claim += 1;
        }
        let running = self.config.clock.elapsed();
        let leases = chosen
            .into_iter()
            .filter_map(|(_, sequence)| {
                let held = self.records.get_mut(&sequence)?;
                held.leased = Some(claim);
                Some(Lease {
                    claim,
                    sequence,
                    lane: lane.clone(),
                    id: held.record.id.clone(),
                    order_key: held.record.order_key,
                    accept_time: held.record.accept_time,
                    age: running.saturating_sub(held.accepted_at),
                    progress: held.progress.clone(),
                    payload: held.record.payload.clone(),
                    interrupted: false,
                })
            })
            .collect();
        Claimed {
            leases,
            more,
            next_due,
        }
    }

    pub(super) fn settle(&mut self, settlement: Settlement) {
        let sequence = settlement.sequence;
        let Some(mut held) = self.records.remove(&sequence) else {
            return;
        };
        if held.leased != Some(settlement.claim) {
            self.records.insert(sequence, held);
            return;
        }
        held.leased = None;
        let lane = held.record.lane.clone();
        match settlement.disposition {
            Disposition::Release => {
                self.put_back(sequence, held);
                self.woken.insert(lane);
            }
            Disposition::Wait { until, progress } => {
                self.leave(&held);
                held.until = Some(UnixMillis(until.0.max(1)));
                held.progress = progress;
                self.used_bytes += held.bytes();
                self.books_of(&lane).waiting += 1;
                self.put_back(sequence, held);
                self.woken.insert(lane);
            }
            Disposition::Delivered { time, note } => {
                self.leave(&held);
                self.books_of(&lane).delivered += 1;
                self.note(sequence, &held.record, time, OutcomeKind::Delivered, "", note);
            }
            Disposition::DeadLetter {
                time,
                reason,
                progress,
            } => {
                self.leave(&held);
                held.progress = progress.clone();
                self.used_bytes += held.bytes();
                self.note(
                    sequence,
                    &held.record,
                    time,
                    OutcomeKind::DeadLettered,
                    &reason,
                    progress,
                );
                let books = self.books_of(&lane);
                books.dead_lettered += 1;
                match books
                    .dead_lettered_total
                    .binary_search_by(|(known, _)| known.cmp(&reason))
                {
                    Ok(place) => books.dead_lettered_total[place].1 += 1,
                    Err(place) => books.dead_lettered_total.insert(place, (reason.clone(), 1)),
                }
                self.dead.insert(sequence, (held, time, reason));
            }
        }
    }

    /// Takes a record out of `ready` or `waiting` and out of the room used.
    fn leave(&mut self, held: &Held) {
        self.used_bytes -= held.bytes();
        let books = self.books_of(&held.record.lane);
        *(if held.until.is_some() {
            &mut books.waiting
        } else {
            &mut books.ready
        }) -= 1;
    }

    fn put_back(&mut self, sequence: Sequence, held: Held) {
        self.order
            .entry(held.record.lane.clone())
            .or_default()
            .insert((held.until, sequence));
        self.records.insert(sequence, held);
    }

    fn note(
        &mut self,
        sequence: Sequence,
        record: &NewRecord,
        time: UnixMillis,
        kind: OutcomeKind,
        reason: &str,
        note: Bytes,
    ) {
        let number = self.next_outcome;
        self.next_outcome += 1;
        let outcome = Outcome {
            number,
            lane: record.lane.clone(),
            id: record.id.clone(),
            sequence,
            time,
            kind,
            reason: reason.into(),
            note,
        };
        self.outcomes
            .insert(number, (outcome, self.config.clock.elapsed()));
        self.outcome_of.insert(sequence, number);
    }

    pub(super) fn take(&mut self, sequence: Sequence, take_as: &TakeAs) -> bool {
        let Some((mut held, _, _)) = self.dead.remove(&sequence) else {
            return false;
        };
        let lane = held.record.lane.clone();
        self.used_bytes -= held.bytes();
        self.books_of(&lane).dead_lettered -= 1;
        match take_as {
            TakeAs::Discard { time } => {
                self.books_of(&lane).discarded += 1;
                self.note(
                    sequence,
                    &held.record,
                    *time,
                    OutcomeKind::Discarded,
                    "",
                    Bytes::new(),
                );
            }
            TakeAs::Replay { progress } => {
                held.progress = progress.clone();
                held.until = None;
                self.insert(held);
            }
        }
        true
    }

    /// Forgets outcomes that are too old or too many, and the ids of settled records with them.
    pub(super) fn evict(&mut self) {
        let now = self.config.clock.elapsed();
        while let Some((&number, (outcome, written))) = self.outcomes.first_key_value() {
            let aged = now.saturating_sub(*written) >= self.config.dedupe_window;
            if !aged && self.next_outcome - number <= self.config.dedupe_ids {
                return;
            }
            let key = (outcome.lane.clone(), outcome.id.clone());
            let (sequence, kind) = (outcome.sequence, outcome.kind);
            self.outcomes.remove(&number);
            if self.outcome_of.get(&sequence) == Some(&number) {
                self.outcome_of.remove(&sequence);
            }
            if kind != OutcomeKind::DeadLettered
                && self.ids.get(&key).is_some_and(|known| known.sequence == sequence)
            {
                self.ids.remove(&key);
                self.evicted_ids += u64::from(!aged);
            }
        }
    }

    pub(super) fn find(&self, lane: &LaneName, id: &str) -> Option<Entry> {
        let known = self.ids.get(&(lane.clone(), id.into()))?;
        let entry = |state, progress: &Bytes| Entry {
            sequence: known.sequence,
            accept_time: known.accept_time,
            durability: Durability::Memory,
            state,
            interrupted: false,
            progress: progress.clone(),
        };
        if let Some(held) = self.records.get(&known.sequence) {
            let state = held
                .until
                .map_or(EntryState::Ready, |until| EntryState::Waiting { until });
            return Some(entry(state, &held.progress));
        }
        if let Some((held, time, reason)) = self.dead.get(&known.sequence) {
            let state = EntryState::DeadLettered {
                time: *time,
                reason: reason.clone(),
            };
            return Some(entry(state, &held.progress));
        }
        let (outcome, _) = self.outcomes.get(self.outcome_of.get(&known.sequence)?)?;
        let time = outcome.time;
        let state = match outcome.kind {
            OutcomeKind::Delivered => EntryState::Delivered { time },
            OutcomeKind::Discarded => EntryState::Discarded { time },
            OutcomeKind::DeadLettered | OutcomeKind::Quarantined => EntryState::Quarantined,
        };
        Some(entry(state, &outcome.note))
    }

    pub(super) fn outcomes(&self, after: u64, limit: usize) -> Vec<Outcome> {
        let from = after.saturating_add(1);
        self.outcomes
            .range(from..)
            .take(limit)
            .map(|(_, (outcome, _))| outcome.clone())
            .collect()
    }

    pub(super) fn books(&self) -> Books {
        Books {
            lanes: self
                .books
                .iter()
                .map(|(lane, books)| (lane.clone(), books.clone()))
                .collect(),
            evicted_ids: self.evicted_ids,
            possible_losses: 0,
        }
    }

    pub(super) fn oldest(&self) -> Vec<(LaneName, UnixMillis)> {
        let mut oldest = BTreeMap::new();
        for held in self.records.values() {
            oldest
                .entry(held.record.lane.clone())
                .or_insert(held.record.accept_time);
        }
        oldest.into_iter().collect()
    }

    pub(super) fn dead_letters(
        &self,
        lane: Option<&LaneName>,
        after: Sequence,
        limit: usize,
    ) -> Vec<DeadLetter> {
        self.dead
            .range(Sequence(after.0.saturating_add(1))..)
            .filter(|(_, (held, _, _))| lane.is_none_or(|lane| held.record.lane == *lane))
            .take(limit)
            .map(|(sequence, (held, time, reason))| DeadLetter {
                sequence: *sequence,
                lane: held.record.lane.clone(),
                id: held.record.id.clone(),
                order_key: held.record.order_key,
                accept_time: held.record.accept_time,
                time: *time,
                reason: reason.clone(),
                progress: held.progress.clone(),
                payload: held.record.payload.clone(),
            })
            .collect()
    }
}

fn needed_bytes(record: &NewRecord) -> u64 {
    RECORD_OVERHEAD_BYTES + record.payload.len() as u64
}
