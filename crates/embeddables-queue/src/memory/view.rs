//! What can be asked without changing anything.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::model::Model;
use crate::{
    Backlog, Books, DeadLetter, Durability, Entry, EntryState, LaneName, LaneState, Outcome, OutcomeKind,
    OutcomeSpan, Sequence, UnixMillis,
};

impl Model {
    pub(super) fn find(&self, lane: &LaneName, id: &str) -> Option<Entry> {
        let known = self.ids.get(&(lane.clone(), id.into()))?;
        let entry = |state, interrupted, progress: &Bytes| Entry {
            sequence: known.sequence,
            accept_time: known.accept_time,
            durability: Durability::Memory,
            state,
            interrupted,
            progress: progress.clone(),
        };
        if let Some(held) = self.records.get(&known.sequence) {
            let state = held
                .until
                .map_or(EntryState::Ready, |until| EntryState::Waiting { until });
            return Some(entry(state, held.interrupted, &held.progress));
        }
        if let Some(dead) = self.dead.get(&known.sequence) {
            let state = EntryState::DeadLettered {
                time: dead.time,
                reason: dead.reason.clone(),
            };
            return Some(entry(state, false, &dead.held.progress));
        }
        let (outcome, _) = self.outcomes.get(self.outcome_of.get(&known.sequence)?)?;
        let time = outcome.time;
        let state = match outcome.kind {
            OutcomeKind::Delivered => EntryState::Delivered { time },
            OutcomeKind::Discarded => EntryState::Discarded { time },
            OutcomeKind::DeadLettered | OutcomeKind::Quarantined => EntryState::Quarantined,
        };
        Some(entry(state, false, &outcome.note))
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
            newest_sequence: Sequence(self.next_sequence - 1),
            outcomes: OutcomeSpan {
                oldest: self
                    .outcomes
                    .first_key_value()
                    .map_or(self.next_outcome, |(number, _)| *number),
                newest: self.newest_outcome(),
            },
            lanes: self
                .lanes
                .iter()
                .filter(|(_, lane)| lane.configured || lane.books.accepted > 0)
                .map(|(name, lane)| (name.clone(), lane.books.clone()))
                .collect(),
            evicted_ids: self.evicted_ids,
            possible_losses: 0,
        }
    }

    pub(super) fn lane_state(&self, name: &LaneName) -> LaneState {
        self.lanes
            .get(name)
            .map(|lane| lane.state.clone())
            .unwrap_or_default()
    }

    pub(super) fn backlog(&self, name: &LaneName, up_to: Sequence) -> Backlog {
        let mut backlog = Backlog::default();
        for (_, held) in self.records.range(..=up_to) {
            if held.record.lane == *name {
                *(if held.until.is_some() {
                    &mut backlog.waiting
                } else {
                    &mut backlog.ready
                }) += 1;
            }
        }
        backlog
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
            .filter(|(_, dead)| lane.is_none_or(|lane| dead.held.record.lane == *lane))
            .take(limit)
            .map(|(sequence, dead)| DeadLetter {
                sequence: *sequence,
                lane: dead.held.record.lane.clone(),
                id: dead.held.record.id.clone(),
                order_key: dead.held.record.order_key,
                accept_time: dead.held.record.accept_time,
                time: dead.time,
                reason: dead.reason.clone(),
                progress: dead.held.progress.clone(),
                payload: dead.held.record.payload.clone(),
            })
            .collect()
    }
}
