//! What the oracle is told by callers, the store, operators and crashes.

use std::time::Duration;

use embeddables_queue::{Append, LaneName, Lease, OrderKey, Sequence, Settlement, UnixMillis};
use tokio::time::Instant;

use super::{Oracle, lane_index};
use crate::plan::Refusal;

impl Oracle {
    /// A call with an event begins.
    pub(crate) fn offered(&self, lane: usize, id: &str, order_key: OrderKey, deadline: Option<UnixMillis>) {
        let mut inner = self.inner();
        let event = inner.lanes[lane].events.entry(id.to_owned()).or_default();
        event.order_key = order_key;
        if event.replayed.is_none() {
            event.deadline = deadline;
        }
    }

    /// An event was acknowledged.
    pub(crate) fn acknowledged(&self, lane: usize, id: &str, sequence: Sequence, duplicate: bool) {
        let mut inner = self.inner();
        let event = inner.lanes[lane].events.entry(id.to_owned()).or_default();
        let before = event.acknowledged;
        event.acknowledged = before.or(Some(Instant::now()));
        event.sequence = Some(sequence);
        inner.by_sequence.insert(sequence, (lane, id.to_owned()));
        if before.is_some() && !duplicate {
            self.fail_in(&mut inner, format!("{id} was acknowledged twice as a new event"));
        }
        self.note(&mut inner, format!("{id} acknowledged {duplicate}"));
    }

    /// Records were written, whatever their caller is told.
    pub(crate) fn written(&self, append: &Append) {
        let mut inner = self.inner();
        for record in &append.records {
            if let Some(lane) = lane_index(&record.lane) {
                let events = &mut inner.lanes[lane].events;
                let event = events.entry(record.id.to_string()).or_default();
                event.written.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Settlements of a lane come to the store, which refuses them or not.
    pub(crate) fn offered_settlements(&self, settlements: &[Settlement], refused: bool) {
        let mut inner = self.inner();
        let first = settlements.first();
        let lane = first.and_then(|settlement| inner.by_sequence.get(&settlement.sequence));
        if let Some((lane, _)) = lane.cloned() {
            let since = &mut inner.lanes[lane].unsettled_since;
            *since = refused.then(|| since.unwrap_or_else(Instant::now));
        }
    }

    /// Records were leased: what is told of them must be known, also where their acknowledgement is still on its way.
    pub(crate) fn claimed(&self, lane: &LaneName, leases: &[Lease]) {
        let Some(lane) = lane_index(lane) else {
            return;
        };
        let mut inner = self.inner();
        for lease in leases {
            inner
                .by_sequence
                .insert(lease.sequence, (lane, lease.id.to_string()));
            let event = inner.lanes[lane].events.entry(lease.id.to_string()).or_default();
            event.sequence = Some(lease.sequence);
            event.order_key = lease.order_key;
        }
    }

    /// An operator has replayed an event: it begins again as the newest of its lane.
    pub(crate) fn replayed(&self, lane: usize, id: &str, sequence: Sequence, taken: usize) {
        let mut inner = self.inner();
        let event = inner.lanes[lane].events.entry(id.to_owned()).or_default();
        let was_ended = std::mem::take(&mut event.ended);
        event.sequence = Some(sequence);
        event.deadline = None;
        event.reason = None;
        event.replayed = Some((Instant::now(), event.requests.len()));
        inner.by_sequence.insert(sequence, (lane, id.to_owned()));
        if taken != 1 || !was_ended {
            self.fail_in(&mut inner, format!("{id} was replayed, and was no dead letter"));
        }
        self.note(&mut inner, format!("{id} replayed"));
    }

    /// With which probability the store refuses a call of a kind now.
    pub(crate) fn store_refuses(&self, is_kind: impl Fn(&Refusal) -> bool) -> Option<f64> {
        self.plan.refuses(self.begin.elapsed(), is_kind)
    }

    /// The sidecar has crashed: what was under way is cut. It is back at `until`.
    pub(crate) fn crashed(&self, until: Instant) {
        let mut inner = self.inner();
        inner.crashed_at.push((Instant::now(), until));
        for lane in &mut inner.lanes {
            lane.in_flight.clear();
            lane.unsettled_since = None;
            lane.known.clear();
            lane.begun.clear();
            // What a lane had not written down yet it may learn again.
            lane.paused = None;
            lane.failures = 0;
            lane.broken_since = None;
            lane.rejected = None;
        }
        self.note(&mut inner, "crash".to_owned());
    }

    /// An operator holds a lane, or lets it go.
    pub(crate) fn operated(&self, lane: usize, holds: bool) {
        let mut inner = self.inner();
        let now = Instant::now();
        let lane = &mut inner.lanes[lane];
        if holds {
            lane.operator = Some((now, now + Duration::from_hours(1)));
        } else {
            if let Some((_, until)) = &mut lane.operator {
                *until = now.min(*until);
            }
            lane.paused = None;
            lane.failures = 0;
            lane.broken_since = None;
            lane.rejected = None;
        }
    }
}
