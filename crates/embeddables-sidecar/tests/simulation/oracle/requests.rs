//! What must hold when a request begins, and what its answer means for the next ones.

use std::sync::Arc;
use std::time::Duration;

use embeddables_core::{Fate, ValidEvent};
use tokio::time::Instant;

use super::{Answered, InFlight, Inner, Oracle, Request};
use crate::caller::properties;
use crate::life::PROBE_MIN;

/// Failures in a row after which one at a time finds out.
const BREAKS: u32 = 5;

impl Oracle {
    /// A request begins; gives its number.
    pub(crate) fn requested(
        &self,
        lane: usize,
        life: u32,
        id: &str,
        key: usize,
        event: &ValidEvent,
        created: bool,
    ) -> (usize, u64) {
        let mut inner = self.inner();
        let now = Instant::now();
        let plan = self.event(lane, id);
        self.note(&mut inner, format!("{id} sent in life {life} with key {key}"));
        for violation in [
            self.check_event(&inner, lane, id, event),
            self.check_gates(&inner, lane, key, now),
            self.check_identifier(&inner, lane, id, plan.user),
        ]
        .into_iter()
        .flatten()
        {
            self.fail_in(&mut inner, format!("{id}: {violation}"));
        }
        inner.next_request += 1;
        let number = inner.next_request;
        let truth = &mut inner.lanes[lane];
        truth.newest_request = Some(now);
        truth.begun.push(now);
        truth.in_flight.insert(
            number,
            InFlight {
                id: id.to_owned(),
                user: plan.user,
                key,
                began: now,
            },
        );
        truth
            .events
            .entry(id.to_owned())
            .or_default()
            .requests
            .push(Request {
                number,
                began: now,
                created,
                answered: None,
            });
        (lane, number)
    }

    fn check_event(&self, inner: &Inner, lane: usize, id: &str, event: &ValidEvent) -> Option<String> {
        let truth = inner.lanes[lane].events.get(id)?;
        let text = event.props_json();
        if text != properties(id) {
            return Some(format!("its bytes have changed: {text}"));
        }
        if truth.ended {
            return Some("sent after its end".to_owned());
        }
        if inner.lanes[lane].in_flight.values().any(|other| other.id == id) {
            return Some("sent twice at once".to_owned());
        }
        if truth.deadline.is_some_and(|deadline| deadline <= self.wall_now()) {
            return Some("sent after its deliver_before".to_owned());
        }
        // An operator who replays an event means it to be sent.
        let before = truth.replayed.map_or(0, |(_, requests)| requests);
        let unknown_fate = truth.requests.iter().skip(before).any(|request| {
            request
                .answered
                .is_none_or(|answered| answered.fate == Fate::Ambiguous)
        });
        if self.plan.lanes[lane].ambiguous_is_final && unknown_fate {
            return Some("sent again although its fate was unknown".to_owned());
        }
        None
    }

    /// Holds, pauses, breaker, rate and concurrency.
    fn check_gates(&self, inner: &Inner, lane: usize, key: usize, now: Instant) -> Option<String> {
        let (plan, truth) = (&self.plan.lanes[lane], &inner.lanes[lane]);
        if truth.unsettled_since.is_some_and(|since| since < now) {
            return Some("sent although what became of others cannot be written".to_owned());
        }
        if truth.in_flight.len() >= plan.max_in_flight {
            return Some(format!("more than {} at once", plan.max_in_flight));
        }
        // What begins in the same instant as the answer came did not know of it.
        if let Some((asked, until)) = truth.paused
            && asked < now
            && now < until
        {
            return Some(format!(
                "sent {:?} before upstream's Retry-After is over",
                until - now
            ));
        }
        if let Some(since) = truth.broken_since
            && truth.in_flight.values().any(|other| other.began > since)
        {
            return Some("a second attempt while a half-open breaker finds out".to_owned());
        }
        if let Some((rejected, at)) = truth.rejected
            && rejected == key
            && now > at
            && let Some(newest) = truth.newest_request
        {
            if now - newest.max(at) < PROBE_MIN {
                return Some(format!(
                    "sent {:?} after the last one although its key is rejected",
                    now - newest
                ));
            }
            if truth.in_flight.values().any(|other| other.began > at) {
                return Some("two probes at once".to_owned());
            }
        }
        if let Some((from, until)) = truth.operator
            && from < now
            && now < until
        {
            return Some("sent although an operator holds the lane".to_owned());
        }
        if let Some(rate) = plan.rate_per_second {
            let lately = truth
                .begun
                .iter()
                .filter(|begun| now - **begun < Duration::from_secs(1))
                .count();
            // A burst in the bucket and one in hand.
            let most = rate + 2 * (rate / 10).max(1) + 1;
            if lately >= usize::try_from(most).expect("few") {
                return Some(format!("more than {rate} a second"));
            }
        }
        None
    }

    /// Canaries and order.
    fn check_identifier(&self, inner: &Inner, lane: usize, id: &str, user: usize) -> Option<String> {
        let (plan, truth) = (&self.plan.lanes[lane], &inner.lanes[lane]);
        let other_under_way = truth.in_flight.values().any(|other| other.user == user);
        if plan.ordered {
            if other_under_way {
                return Some("two events of one user at once in an ordered lane".to_owned());
            }
            let own = truth.events.get(id)?.sequence?;
            let earlier = truth.events.iter().find(|(other, event)| {
                event.sequence.is_some_and(|sequence| sequence < own)
                    && !event.ended
                    && self.event(lane, other).user == user
            });
            return earlier
                .map(|(other, _)| format!("sent before {other}, an earlier event of the same user"));
        }
        (other_under_way && !truth.known.contains(&user))
            .then(|| "two events of one user at once although upstream may not know the user".to_owned())
    }

    /// A request was answered.
    pub(crate) fn answered(self: &Arc<Self>, (lane, number): (usize, u64), answered: &Answered) {
        let mut inner = self.inner();
        let now = Instant::now();
        let truth = &mut inner.lanes[lane];
        // Cut by a crash before its answer came.
        let Some(request) = truth.in_flight.remove(&number) else {
            return;
        };
        if let Some(event) = truth.events.get_mut(&request.id)
            && let Some(noted) = event.requests.iter_mut().find(|noted| noted.number == number)
        {
            noted.answered = Some(*answered);
        }
        if answered.served {
            truth.failures = 0;
            truth.broken_since = None;
            truth.served_at = now;
        } else if request.began > truth.served_at {
            truth.failures += 1;
            if truth.failures == BREAKS {
                truth.broken_since = Some(now);
            }
        }
        if let Some(time) = answered.retry_after {
            let known = truth.paused.map_or(now, |(_, until)| until);
            truth.paused = Some((now, known.max(now + time)));
        }
        if answered.key_rejected {
            truth.refused_keys.insert(request.key);
            if truth.key_in_file != request.key {
                // What another key was held for is lifted by then.
                let oracle = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    oracle.check_hold(lane);
                });
            }
            // Others that were under way say nothing new.
            let known = truth.rejected.filter(|(key, _)| *key == request.key);
            truth.rejected = known.or(Some((request.key, now)));
        } else if truth.rejected.is_some_and(|(key, _)| key == request.key)
            && (answered.delivered || answered.not_found)
        {
            truth.rejected = None;
        }
        if answered.delivered {
            truth.known.insert(request.user);
        } else if answered.not_found {
            truth.known.remove(&request.user);
            truth.unknown_since.entry(request.user).or_insert(now);
        }
        self.note(&mut inner, format!("{} answered {:?}", request.id, answered.fate));
    }
}
