//! What must hold when events come to their end, after a restart, and when everything is over.

use std::time::Duration;

use embeddables_core::Fate;
use embeddables_queue::memory::MemoryQueue;
use embeddables_queue::{Disposition, EntryState, LaneName, Ledger as _, Settlement, UnixMillis};
use embeddables_sidecar::settle::progress::Progress;
use embeddables_sidecar::settle::rules::reason;
use tokio::time::Instant;

use super::{EventTruth, Inner, Oracle};
use crate::plan::ENTRY_SCHEDULE;
use crate::upstream::receipt;

/// Longest time to deliver in a lane in which nothing goes wrong.
const CLEAN: Duration = Duration::from_secs(5);

impl Oracle {
    /// Settlements were committed.
    pub(crate) async fn settled(&self, settlements: &[Settlement], store: &MemoryQueue) {
        for settlement in settlements {
            let delivered = {
                let mut inner = self.inner();
                let Some((lane, id)) = inner.by_sequence.get(&settlement.sequence).cloned() else {
                    continue;
                };
                let violation = self.check_settlement(&mut inner, lane, &id, &settlement.disposition);
                if let Some(violation) = violation {
                    self.fail_in(&mut inner, format!("{id}: {violation}"));
                }
                matches!(settlement.disposition, Disposition::Delivered { .. }).then_some((lane, id))
            };
            if let Some((lane, id)) = delivered {
                self.check_followers(lane, &id, store).await;
            }
        }
    }

    fn check_settlement(
        &self,
        inner: &mut Inner,
        lane: usize,
        id: &str,
        end: &Disposition,
    ) -> Option<String> {
        self.note(inner, format!("{id} settled {}", word(end)));
        let now = Instant::now();
        match end {
            Disposition::Wait { .. } | Disposition::Release => None,
            Disposition::Delivered { .. } => {
                let event = inner.lanes[lane].events.entry(id.to_owned()).or_default();
                event.ended = true;
                event.ends += 1;
                let accepted = event.requests.iter().any(|request| {
                    request.created
                        && request
                            .answered
                            .is_some_and(|answer| answer.fate == Fate::Accepted)
                });
                (!accepted).then(|| "settled as delivered although upstream never said so".to_owned())
            }
            Disposition::DeadLetter { reason, .. } => {
                let event = inner.lanes[lane].events.entry(id.to_owned()).or_default();
                event.ended = true;
                event.ends += 1;
                event.reason = Some(reason.to_string());
                let event = &inner.lanes[lane].events[id];
                self.check_reason(inner, lane, id, event, reason, now)
            }
        }
    }

    /// Whether an event was given up for a reason that holds.
    fn check_reason(
        &self,
        inner: &Inner,
        lane: usize,
        id: &str,
        event: &EventTruth,
        given: &str,
        now: Instant,
    ) -> Option<String> {
        let plan = self.event(lane, id);
        let before = event.replayed.map_or(0, |(_, requests)| requests);
        let first = event.requests.get(before).map(|request| request.began);
        let begin = event.begin();
        let up = |from: Instant| Self::time_up(inner, from, now);
        let holds = match given {
            reason::UPSTREAM_REJECTED => plan.bad,
            reason::ENTRY_NOT_FOUND => {
                let last = ENTRY_SCHEDULE[ENTRY_SCHEDULE.len() - 1];
                let unknown = self.plan.lanes[lane].users[plan.user]
                    .appears
                    .is_none_or(|appears| now - self.begin <= appears + Duration::from_secs(60));
                let waited = begin.or(first).is_some_and(|from| up(from) + SLACK >= last);
                // Whatever it waited for before counts for nothing.
                let told = inner.lanes[lane].unknown_since.get(&plan.user);
                unknown && waited && told.is_some_and(|from| up(*from) + SLACK >= last)
            }
            reason::MAX_AGE => {
                let held = self.operator_hold(inner, lane, event, now);
                let spent = begin.map(|from| up(from).saturating_sub(held));
                spent.is_none_or(|spent| spent + SLACK >= self.plan.lanes[lane].max_age)
            }
            reason::DELIVER_BEFORE_PASSED => {
                event.deadline.is_some_and(|deadline| deadline <= self.wall_now())
            }
            reason::AMBIGUOUS => self.plan.lanes[lane].ambiguous_is_final,
            _ => false,
        };
        (!holds).then(|| format!("given up for {given}, which does not hold"))
    }

    /// Time that an operator held the lane since the event was acknowledged, as far as no crash came near.
    fn operator_hold(&self, inner: &Inner, lane: usize, event: &EventTruth, now: Instant) -> Duration {
        let (Some((from, until)), Some(acknowledged)) = (inner.lanes[lane].operator, event.begin()) else {
            return Duration::ZERO;
        };
        let crashed = inner
            .crashed_at
            .iter()
            .any(|(down, up)| *down <= until + SLACK && *up + SLACK >= from);
        if crashed {
            return Duration::ZERO;
        }
        until.min(now).saturating_duration_since(from.max(acknowledged))
    }

    /// After a success nobody waits any more for the user to be known.
    async fn check_followers(&self, lane: usize, id: &str, store: &MemoryQueue) {
        if self.plan.lanes[lane].ordered {
            return;
        }
        let user = self.event(lane, id).user;
        let others: Vec<String> = {
            let inner = self.inner();
            let events = inner.lanes[lane].events.iter();
            let pending = events.filter(|(other, event)| {
                *other != id && !event.ended && self.event(lane, other).user == user
            });
            pending.map(|(other, _)| other.clone()).collect()
        };
        for other in others {
            let entry = store.find(&LaneName::new(format!("pr_{lane}")), &other).await;
            let Ok(Some(entry)) = entry else {
                continue;
            };
            let progress = Progress::decode_bytes(&entry.progress).expect("progress of ours");
            let waits_for_user =
                progress.reason == reason::ENTRY_NOT_FOUND || progress.reason == reason::EARLIER_EVENT;
            if let EntryState::Waiting { until } = entry.state
                && waits_for_user
                && until > UnixMillis(1)
            {
                self.fail(format!(
                    "{other} still waits for its user although {id} was delivered"
                ));
            }
        }
    }

    /// A store was opened again, or everything is over: what was acknowledged must be known, and the books balance.
    pub(crate) async fn check_store(&self, store: &MemoryQueue, over: bool) {
        for lane in 0..self.plan.lanes.len() {
            let name = LaneName::new(format!("pr_{lane}"));
            let acknowledged: Vec<String> = {
                let inner = self.inner();
                let events = inner.lanes[lane].events.iter();
                events
                    .filter(|(_, event)| event.acknowledged.is_some())
                    .map(|(id, _)| id.clone())
                    .collect()
            };
            for id in acknowledged {
                match store.find(&name, &id).await {
                    Ok(Some(entry)) => {
                        if let Some(violation) = self.check_entry(lane, &id, &entry, over) {
                            self.fail(format!("{id}: {violation}"));
                        }
                    }
                    found => self.fail(format!("{id} was acknowledged and is not known: {found:?}")),
                }
            }
        }
        for (lane, books) in store.books().lanes {
            let known = books.delivered + books.dead_lettered + books.ready + books.waiting;
            if books.accepted != known {
                self.fail(format!("the books of {lane} do not balance: {books:?}"));
            }
        }
    }

    fn check_entry(
        &self,
        lane: usize,
        id: &str,
        entry: &embeddables_queue::Entry,
        over: bool,
    ) -> Option<String> {
        let inner = self.inner();
        let event = inner.lanes[lane].events.get(id)?;
        let progress = match Progress::decode_bytes(&entry.progress) {
            Ok(progress) => progress,
            Err(error) => return Some(format!("its progress cannot be read: {error}")),
        };
        match &entry.state {
            EntryState::Ready | EntryState::Waiting { .. } if over => {
                return Some(format!(
                    "never came to its end: {:?}, {}",
                    entry.state, progress.reason
                ));
            }
            EntryState::Delivered { .. } => {
                let expected = receipt(id).entry_id.unwrap_or_default();
                if progress
                    .receipt
                    .is_none_or(|receipt| receipt.entry_id != expected)
                {
                    return Some("delivered without its receipt".to_owned());
                }
                if let Some(late) = self.late(&inner, lane, event) {
                    return Some(format!(
                        "delivered {late:?} after it was acknowledged, in a lane without any trouble"
                    ));
                }
            }
            _ => {}
        }
        let ended = matches!(
            entry.state,
            EntryState::Delivered { .. } | EntryState::DeadLettered { .. }
        );
        if ended && event.may_be_twice() && !progress.possible_duplicate {
            return Some("upstream may have it twice, and nothing says so".to_owned());
        }
        None
    }

    /// By how much an event of a clean lane came too late.
    fn late(&self, inner: &Inner, lane: usize, event: &EventTruth) -> Option<Duration> {
        let acknowledged = event.acknowledged?;
        let accepted = event.requests.iter().find(|request| {
            request
                .answered
                .is_some_and(|answer| answer.fate == Fate::Accepted)
        })?;
        let took = Self::time_up(inner, acknowledged, accepted.began);
        (self.plan.lanes[lane].clean && took > CLEAN).then_some(took)
    }

    /// Everything that came to its end must have been told as an outcome, once.
    pub(crate) fn check_outcomes(&self, seen: &[(u64, String)]) {
        for (place, (number, id)) in seen.iter().enumerate() {
            let expected = u64::try_from(place).expect("few") + 1;
            if *number != expected {
                self.fail(format!(
                    "outcome {expected} was skipped: {number} ({id}) came instead"
                ));
                return;
            }
        }
        let ended: usize = {
            let inner = self.inner();
            let events = inner.lanes.iter().flat_map(|lane| lane.events.values());
            events.map(|event| event.ends).sum()
        };
        if ended != seen.len() {
            self.fail(format!(
                "{ended} events came to their end and {} outcomes were told",
                seen.len()
            ));
        }
    }
}

/// What rounding, commits and clocks may cost.
const SLACK: Duration = Duration::from_secs(2);

impl EventTruth {
    /// When its present life in the queue began.
    fn begin(&self) -> Option<Instant> {
        // It may have been taken although the caller was told otherwise.
        let taken = self.acknowledged.into_iter().chain(self.written).min();
        self.replayed.map(|(at, _)| at).or(taken)
    }

    /// Whether an attempt of unknown fate was followed by one that was sent.
    fn may_be_twice(&self) -> bool {
        let mut unknown = false;
        for request in &self.requests {
            let fate = request.answered.map_or(Fate::Ambiguous, |answered| answered.fate);
            if unknown && fate != Fate::NotSent {
                return true;
            }
            unknown |= fate == Fate::Ambiguous;
        }
        false
    }
}

fn word(end: &Disposition) -> String {
    match end {
        Disposition::Delivered { .. } => "delivered".to_owned(),
        Disposition::Wait { until, .. } => format!("waits {}", until.0),
        Disposition::DeadLetter { reason, .. } => format!("given up for {reason}"),
        Disposition::Release => "released".to_owned(),
    }
}
