//! Claims.

use std::ops::Bound;
use std::time::Duration;

use super::model::{Lane, Leased, Model};
use crate::turns::{Bounds, Kinds};
use crate::{Claim, Claimed, LaneName, Lease, Sequence, UnixMillis};

/// Records chosen for a claim, in the order in which to try them.
struct Chosen {
    sequences: Vec<Sequence>,
    more: bool,
}

impl Model {
    pub(super) fn claim(&mut self, claim: &Claim) -> Claimed {
        let running = self.running();
        let newest = Sequence(self.next_sequence - 1);
        let Some(lane) = self.configured_lane(&claim.lane) else {
            return Claimed::default();
        };
        lane.last_now = Some((claim.now, running));
        let chosen = lane.choose(claim, newest);
        let leases = self.lease(&claim.lane, &chosen.sequences, true);
        let next_due = self
            .lane(&claim.lane)
            .waiting
            .first()
            .map(|(due, _)| *due)
            .filter(|_| !chosen.more);
        Claimed {
            leases,
            more: chosen.more,
            next_due,
        }
    }

    pub(super) fn claim_expired(&mut self, name: &LaneName, max: usize, wall: UnixMillis) -> Claimed {
        let Some(lane) = self.lanes.get(name).filter(|lane| lane.configured) else {
            return Claimed::default();
        };
        let mut expired: Vec<Sequence> = lane
            .deadlines
            .range(..=(wall, Sequence(u64::MAX)))
            .map(|(_, sequence)| *sequence)
            .filter(|sequence| {
                self.records
                    .get(sequence)
                    .is_some_and(|held| held.leased.is_none())
            })
            .take(max.saturating_add(1))
            .collect();
        let more = expired.len() > max;
        expired.truncate(max);
        let next_due = lane
            .deadlines
            .range((Bound::Excluded((wall, Sequence(u64::MAX))), Bound::Unbounded))
            .next()
            .map(|(time, _)| *time)
            .filter(|_| !more);
        Claimed {
            leases: self.lease(name, &expired, false),
            more,
            next_due,
        }
    }

    /// Leases records of a lane. Those that may be tried, where any is to be tried, have a claim number of their own.
    fn lease(&mut self, name: &LaneName, sequences: &[Sequence], to_try: bool) -> Vec<Lease> {
        let running = self.running();
        let (tried_claim, other_claim) = (self.next_claim, self.next_claim + 1);
        let Some(lane) = self.lanes.get_mut(name) else {
            return Vec::new();
        };
        let mut leases = Vec::with_capacity(sequences.len());
        for &sequence in sequences {
            let Some(held) = self.records.get_mut(&sequence) else {
                continue;
            };
            let behind = lane
                .head(&held.record.order_key)
                .is_some_and(|head| head != sequence);
            let marked = to_try && !behind;
            let claim = if marked { tried_claim } else { other_claim };
            lane.withdraw(sequence, held.until);
            held.leased = Some(Leased { claim, marked });
            leases.push(Lease {
                claim,
                sequence,
                lane: name.clone(),
                id: held.record.id.clone(),
                order_key: held.record.order_key,
                accept_time: held.record.accept_time,
                age: Duration::from_millis(lane.clock.at(running).saturating_sub(held.accepted_at)),
                progress: held.progress.clone(),
                payload: held.record.payload.clone(),
                interrupted: held.interrupted,
                behind,
            });
        }
        if !leases.is_empty() {
            self.next_claim += 2;
        }
        leases
    }
}

impl Lane {
    /// Chooses what to lease and moves the line between live records and older ones.
    fn choose(&mut self, claim: &Claim, newest: Sequence) -> Chosen {
        let bounds = Bounds {
            max: claim.max,
            max_waiting: claim.max_waiting,
            live_percent: claim.live_percent,
        };
        let most = claim.max.saturating_add(1).get();
        let line = self.live_from.unwrap_or(Sequence(u64::MAX));
        let old: Vec<Sequence> = self.fresh.range(..=line).take(most).copied().collect();
        let live: Vec<Sequence> = self
            .fresh
            .range((Bound::Excluded(line), Bound::Unbounded))
            .take(most)
            .copied()
            .collect();
        let waiting: Vec<Sequence> = self
            .waiting
            .range(..=(claim.now, Sequence(u64::MAX)))
            .take(most)
            .map(|(_, sequence)| *sequence)
            .collect();
        let found = Kinds {
            live: live.len(),
            old: old.len(),
            waiting: waiting.len(),
        };
        let taken = self.turns.divide(&bounds, &found);
        let leaves_live = taken.live < found.live;
        if taken.old == found.old {
            self.live_from = leaves_live.then_some(newest);
        } else {
            self.live_from.get_or_insert(newest);
        }
        let (live, old) = (&live[..taken.live], &old[..taken.old]);
        // Without a percentage the order of sequence is kept.
        let (first, second) = if claim.live_percent == 0 {
            (old, live)
        } else {
            (live, old)
        };
        Chosen {
            sequences: [first, second, &waiting[..taken.waiting]].concat(),
            more: taken.leaves_more(&found, &bounds),
        }
    }
}
