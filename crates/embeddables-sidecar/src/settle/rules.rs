//! What an answer does to its event, and to those that wait behind the same identifier: the event column of the design's table,
//! as a pure function.
//!
//! # Invariants
//! 1. A 2xx is delivered, whatever its body.
//! 2. An event is dead-lettered only for an answer against the event itself, for the end of the entry schedule, for its age,
//!    for the caller's `deliver_before`, or, where so configured, because its fate is unknown; never because a key was rejected.
//! 3. Every decision leaves a reason and a sentence in the progress.
//! 4. Only what upstream does not know, and in an ordered lane whatever waits, makes others wait.

use std::time::Duration;

use embeddables_core::{Attempt, Fate, Receipt, Verdict};
use embeddables_queue::{Disposition, Gate, Sequence, UnixMillis};
use rand::Rng;

use super::progress::{self, Progress, millis};
use crate::dispatch::schedule::Schedule;

/// Longest wait behind another event before the queue is asked again; only a damaged store ever lets it pass.
const FOLLOW_AT_MOST: Duration = Duration::from_hours(1);

/// Stable codes of why an event waits or was given up; listed in `docs/errors.md`.
pub mod reason {
    /// No entry of the Embeddable matches the identifier yet, or ever.
    pub const ENTRY_NOT_FOUND: &str = "ENTRY_NOT_FOUND";
    /// Upstream does not accept the key.
    pub const KEY_REJECTED: &str = "KEY_REJECTED";
    /// Something before or at upstream refuses the project or the route, not the event.
    pub const UPSTREAM_REFUSED: &str = "UPSTREAM_REFUSED";
    /// Upstream rejects the event as it is.
    pub const UPSTREAM_REJECTED: &str = "UPSTREAM_REJECTED";
    /// Upstream cannot be reached or answers that it cannot serve now.
    pub const UPSTREAM_UNAVAILABLE: &str = "UPSTREAM_UNAVAILABLE";
    /// Upstream asks to slow down.
    pub const UPSTREAM_THROTTLED: &str = "UPSTREAM_THROTTLED";
    /// An earlier event of the same identifier has to be settled first.
    pub const EARLIER_EVENT: &str = "EARLIER_EVENT";
    /// Upstream may have it, and `delivery.ambiguity` forbids another try.
    pub const AMBIGUOUS: &str = "AMBIGUOUS";
    /// The configured `delivery.max_age` has passed.
    pub const MAX_AGE: &str = "MAX_AGE";
    /// The caller's `deliver_before` has passed.
    pub const DELIVER_BEFORE_PASSED: &str = "DELIVER_BEFORE_PASSED";
    /// The stored event cannot be read by this release.
    pub const UNREADABLE: &str = "UNREADABLE";
}

/// What is known of an event when its attempt ends.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its age at the end of the attempt.
    pub age: Duration,
    /// The caller's limit, in wall time.
    pub deliver_before: Option<UnixMillis>,
    /// Whether the event before it of the same identifier was given up because upstream did not know the identifier.
    pub succeeds_unknown: bool,
    /// The wall clock now.
    pub wall: UnixMillis,
    /// The steady clock now, on which due times are kept.
    pub steady: UnixMillis,
}

/// What becomes of an event whose fate is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguity {
    /// It is tried again: upstream may then have it twice.
    #[default]
    Retry,
    /// It becomes a dead letter: upstream may then not have it.
    DeadLetter,
}

/// The rules of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When events are tried again.
    pub schedule: Schedule,
    /// What becomes of an event whose fate is unknown.
    pub ambiguity: Ambiguity,
    /// Whether the events of an identifier keep their order.
    pub ordered: bool,
}

/// What becomes of an event, and of those behind it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Of the event.
    pub disposition: Disposition,
    /// Of those behind it.
    pub gate: Gate,
}

/// Decides what becomes of an event after an attempt, and writes why into its progress.
pub fn decide(
    attempt: &Attempt,
    facts: Facts,
    progress: &mut Progress,
    policy: &Policy,
    random: &mut impl Rng,
) -> Decision {
    progress.http_status = attempt.http_status.map_or(0, u32::from);
    progress.upstream_body = attempt.excerpt.clone().unwrap_or_default();
    let in_line_age_ms = progress.in_line_age_ms.take();
    let disposition = match &attempt.verdict {
        Verdict::Delivered(receipt) => delivered(receipt, facts, progress),
        Verdict::EntryNotFound => {
            // It was unknown all the time that it waited behind one that was.
            let parked_at = in_line_age_ms.filter(|_| facts.succeeds_unknown);
            entry_not_found(parked_at, facts, progress, &policy.schedule)
        }
        Verdict::Invalid => {
            let message = format!("upstream rejected the event: {}", attempt.detail);
            dead_letter(reason::UPSTREAM_REJECTED, message, facts, progress)
        }
        Verdict::KeyRejected => {
            let message = format!("upstream does not accept the project's key: {}", attempt.detail);
            wait(Duration::ZERO, reason::KEY_REJECTED, message, facts, progress)
        }
        Verdict::Refused => {
            let message = format!("refused on the way, not for the event's sake: {}", attempt.detail);
            let retry = Retry {
                code: reason::UPSTREAM_REFUSED,
                message,
                retry_after: None,
            };
            retry.until_max_age(attempt, facts, progress, &policy.schedule, random)
        }
        Verdict::Unavailable { .. } if is_final(attempt.fate, policy) => {
            ambiguous(&attempt.detail, facts, progress)
        }
        Verdict::Unavailable { retry_after } => {
            let code = match attempt.http_status {
                Some(429) => reason::UPSTREAM_THROTTLED,
                _ => reason::UPSTREAM_UNAVAILABLE,
            };
            let fate = if attempt.fate == Fate::Ambiguous {
                ", upstream may have it"
            } else {
                ""
            };
            let retry = Retry {
                code,
                message: format!("{}{fate}", attempt.detail),
                retry_after: *retry_after,
            };
            retry.until_max_age(attempt, facts, progress, &policy.schedule, random)
        }
    };
    let gate = gate(&attempt.verdict, &disposition, progress, policy);
    Decision { disposition, gate }
}

fn is_final(fate: Fate, policy: &Policy) -> bool {
    fate == Fate::Ambiguous && policy.ambiguity == Ambiguity::DeadLetter
}

/// What an answer means for the events of the same identifier.
fn gate(verdict: &Verdict, disposition: &Disposition, progress: &Progress, policy: &Policy) -> Gate {
    let waits = matches!(disposition, Disposition::Wait { .. });
    match verdict {
        _ if policy.ordered && waits => Gate::Lead,
        Verdict::Delivered(_) if !policy.ordered => Gate::Open,
        Verdict::EntryNotFound if waits => Gate::Lead,
        // It goes back as it was: a canary stays one.
        Verdict::KeyRejected if progress.parked_age_ms.is_some() => Gate::Lead,
        _ => Gate::Pass,
    }
}

/// Lets an event wait behind another one of its identifier: `head` where that is under way, else the one that the queue knows.
pub fn follow(head: Option<Sequence>, facts: Facts, progress: &mut Progress, policy: &Policy) -> Decision {
    progress.in_line_age_ms.get_or_insert(millis(facts.age));
    let parked = head.is_none() && !policy.ordered;
    let disposition = if parked {
        let parked_at = *progress.parked_age_ms.get_or_insert(millis(facts.age));
        let parked_for = Duration::from_millis(millis(facts.age).saturating_sub(parked_at));
        let message =
            "no entry of the Embeddable matches the identifier yet; another of its events finds out"
                .to_owned();
        let last = policy.schedule.entry_schedule.last().copied().unwrap_or_default();
        let delay = last.saturating_sub(parked_for).max(FOLLOW_AT_MOST);
        wait(delay, reason::ENTRY_NOT_FOUND, message, facts, progress)
    } else {
        let message = "an earlier event of the same identifier is settled first".to_owned();
        wait(FOLLOW_AT_MOST, reason::EARLIER_EVENT, message, facts, progress)
    };
    let gate = if policy.ordered {
        Gate::Line { head }
    } else {
        Gate::Follow { head }
    };
    Decision { disposition, gate }
}

/// Gives an event back untried. In an ordered lane it goes back into the line of its identifier.
pub fn give_back(facts: Facts, progress: &Progress, policy: &Policy) -> Decision {
    if !policy.ordered {
        return Decision {
            disposition: Disposition::Release,
            gate: Gate::Pass,
        };
    }
    Decision {
        disposition: Disposition::Wait {
            until: facts.steady,
            progress: progress.encode_bytes(),
        },
        gate: Gate::Line { head: None },
    }
}

/// Gives an event up that may have been sent by a process that ended, where nothing may be sent twice; `None` where it may.
pub fn interrupted(facts: Facts, progress: &mut Progress, policy: &Policy) -> Option<Disposition> {
    is_final(Fate::Ambiguous, policy)
        .then(|| ambiguous("the sidecar ended during the attempt", facts, progress))
}

fn ambiguous(detail: &str, facts: Facts, progress: &mut Progress) -> Disposition {
    let message = format!("upstream may have it, and delivery.ambiguity forbids another try: {detail}");
    dead_letter(reason::AMBIGUOUS, message, facts, progress)
}

/// Gives an event up whose `deliver_before` passed while it waited: nothing is sent any more.
pub fn deliver_before_passed(facts: Facts, progress: &mut Progress) -> Disposition {
    let message = "not delivered before the caller's deliver_before".to_owned();
    dead_letter(reason::DELIVER_BEFORE_PASSED, message, facts, progress)
}

/// Gives an event up that this release cannot read; its bytes are kept as they are.
pub fn unreadable(error: &dyn std::error::Error, facts: Facts, progress: &mut Progress) -> Disposition {
    dead_letter(reason::UNREADABLE, error.to_string(), facts, progress)
}

fn delivered(receipt: &Receipt, facts: Facts, progress: &mut Progress) -> Disposition {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    progress.receipt = Some(progress::Receipt {
        entry_id: text(&receipt.entry_id),
        contact_id: text(&receipt.contact_id),
        group_id: text(&receipt.group_id),
        embeddable_version_number: text(&receipt.embeddable_version_number),
        unparsed: receipt.unparsed,
    });
    progress.reason.clear();
    progress.message.clear();
    progress.upstream_body.clear();
    Disposition::Delivered {
        time: facts.wall,
        note: progress.encode_bytes(),
    }
}

/// The user is not known: a wrong identifier, or an entry that has not been synced yet.
fn entry_not_found(
    parked_at: Option<u64>,
    facts: Facts,
    progress: &mut Progress,
    schedule: &Schedule,
) -> Disposition {
    let age_ms = millis(facts.age);
    let parked_at = *progress.parked_age_ms.get_or_insert(parked_at.unwrap_or(age_ms));
    let parked_for = Duration::from_millis(age_ms.saturating_sub(parked_at));
    progress.entry_step = if progress.entry_tried {
        schedule.after_entry_try(progress.entry_step, parked_for)
    } else {
        schedule.entry_step(parked_for)
    };
    progress.entry_tried = true;
    progress.backoff_step = 0;
    match schedule.entry_delay(progress.entry_step, parked_for) {
        Some(delay) => {
            let message = "no entry of the Embeddable matches the identifier yet".to_owned();
            wait(delay, reason::ENTRY_NOT_FOUND, message, facts, progress)
        }
        None => {
            let message =
                "no entry of the Embeddable matched the identifier by the end of delivery.entry_schedule";
            dead_letter(reason::ENTRY_NOT_FOUND, message.to_owned(), facts, progress)
        }
    }
}

/// A failure that may pass.
struct Retry {
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl Retry {
    fn until_max_age(
        self,
        attempt: &Attempt,
        facts: Facts,
        progress: &mut Progress,
        schedule: &Schedule,
        random: &mut impl Rng,
    ) -> Disposition {
        if facts.age >= schedule.max_age {
            let message = format!(
                "not delivered within delivery.max_age; the last try: {}",
                attempt.detail
            );
            return dead_letter(reason::MAX_AGE, message, facts, progress);
        }
        let delay = schedule.backoff(progress.backoff_step, self.retry_after, random);
        progress.backoff_step = progress.backoff_step.saturating_add(1);
        wait(delay, self.code, self.message, facts, progress)
    }
}

/// Waits for `delay`, but not beyond `deliver_before`: then there is only its end to write down.
fn wait(delay: Duration, code: &str, message: String, facts: Facts, progress: &mut Progress) -> Disposition {
    code.clone_into(&mut progress.reason);
    progress.message = message;
    let mut delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    if let Some(limit) = facts.deliver_before {
        delay_ms = delay_ms.min(limit.0.saturating_sub(facts.wall.0).max(0));
    }
    let until = UnixMillis(facts.steady.0.saturating_add(delay_ms));
    Disposition::Wait {
        until,
        progress: progress.encode_bytes(),
    }
}

fn dead_letter(code: &str, message: String, facts: Facts, progress: &mut Progress) -> Disposition {
    code.clone_into(&mut progress.reason);
    progress.message = message;
    Disposition::DeadLetter {
        time: facts.wall,
        reason: code.into(),
        progress: progress.encode_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn policy() -> Policy {
        Policy {
            schedule: Schedule {
                retry_min: Duration::from_millis(500),
                retry_max: Duration::from_secs(300),
                max_age: Duration::from_secs(100),
                entry_schedule: [10, 60].map(Duration::from_secs).to_vec(),
            },
            ambiguity: Ambiguity::Retry,
            ordered: false,
        }
    }

    fn attempt(http_status: Option<u16>, verdict: Verdict) -> Attempt {
        let fate = http_status.map_or(Fate::NotSent, Fate::of_status);
        Attempt {
            fate,
            verdict,
            http_status,
            detail: "a few words".to_owned(),
            excerpt: None,
        }
    }

    fn facts(age_s: u64) -> Facts {
        Facts {
            age: Duration::from_secs(age_s),
            deliver_before: None,
            succeeds_unknown: false,
            wall: NOW,
            steady: NOW,
        }
    }

    /// What becomes of a fresh event of that age; `Some(reason)` for a dead letter.
    fn fresh(attempt: &Attempt, age_s: u64) -> (Disposition, Progress) {
        let mut progress = Progress::default();
        let mut random = SmallRng::seed_from_u64(7);
        let decision = decide(attempt, facts(age_s), &mut progress, &policy(), &mut random);
        (decision.disposition, progress)
    }

    #[track_caller]
    fn check_waits(attempt: &Attempt, age_s: u64, expected: &str) {
        let (disposition, progress) = fresh(attempt, age_s);
        assert!(
            matches!(disposition, Disposition::Wait { .. }),
            "{attempt:?}: {disposition:?}"
        );
        assert_eq!(progress.reason, expected);
    }

    #[track_caller]
    fn check_given_up(attempt: &Attempt, age_s: u64, expected: &str) {
        match fresh(attempt, age_s).0 {
            Disposition::DeadLetter { reason, .. } => assert_eq!(&*reason, expected),
            other => panic!("{attempt:?}: {other:?}"),
        }
    }

    #[test]
    fn a_success_is_delivered_with_its_receipt() {
        let receipt = Receipt {
            entry_id: Some("entry_1".to_owned()),
            ..Receipt::default()
        };
        let (disposition, _) = fresh(&attempt(Some(200), Verdict::Delivered(receipt)), 1_000_000);
        let Disposition::Delivered { note, time } = disposition else {
            panic!("not delivered: {disposition:?}");
        };
        assert_eq!(time, NOW);
        let noted = Progress::decode_bytes(&note)
            .expect("decodes")
            .receipt
            .expect("a receipt");
        assert_eq!(noted.entry_id, "entry_1");
    }

    #[test]
    fn an_answer_against_the_event_ends_it_at_once() {
        check_given_up(
            &attempt(Some(400), Verdict::Invalid),
            0,
            reason::UPSTREAM_REJECTED,
        );
    }

    #[test]
    fn a_rejected_key_costs_no_event_and_no_time() {
        let rejected = attempt(Some(401), Verdict::KeyRejected);
        let (disposition, progress) = fresh(&rejected, 1_000_000);
        assert!(
            matches!(disposition, Disposition::Wait { until: NOW, .. }),
            "{disposition:?}"
        );
        assert_eq!(
            (&*progress.reason, progress.backoff_step),
            (reason::KEY_REJECTED, 0)
        );
    }

    #[test]
    fn what_is_refused_on_the_way_waits_until_max_age() {
        let refused = attempt(Some(403), Verdict::Refused);
        check_waits(&refused, 99, reason::UPSTREAM_REFUSED);
        check_given_up(&refused, 100, reason::MAX_AGE);
    }

    #[test]
    fn an_unknown_fate_is_final_only_where_so_configured() {
        let ambiguous = attempt(Some(502), Verdict::Unavailable { retry_after: None });
        assert_eq!(ambiguous.fate, Fate::Ambiguous);
        check_waits(&ambiguous, 0, reason::UPSTREAM_UNAVAILABLE);
        let policy = Policy {
            ambiguity: Ambiguity::DeadLetter,
            ..policy()
        };
        let decided = |attempt: &Attempt| {
            let mut random = SmallRng::seed_from_u64(7);
            decide(attempt, facts(0), &mut Progress::default(), &policy, &mut random).disposition
        };
        assert!(
            matches!(decided(&ambiguous), Disposition::DeadLetter { reason, .. } if &*reason == reason::AMBIGUOUS)
        );
        let not_sent = attempt(None, Verdict::Unavailable { retry_after: None });
        assert!(
            matches!(decided(&not_sent), Disposition::Wait { .. }),
            "nothing was sent"
        );
        assert!(interrupted(facts(0), &mut Progress::default(), &policy).is_some());
    }

    /// What an answer means for those behind the same identifier.
    #[track_caller]
    fn check_gate(ordered: bool, attempt: &Attempt, parked: bool, expected: Gate) {
        let policy = Policy { ordered, ..policy() };
        let mut progress = Progress {
            parked_age_ms: parked.then_some(0),
            ..Progress::default()
        };
        let mut random = SmallRng::seed_from_u64(7);
        let decision = decide(attempt, facts(0), &mut progress, &policy, &mut random);
        assert_eq!(
            decision.gate, expected,
            "ordered {ordered}, parked {parked}: {attempt:?}"
        );
    }

    #[test]
    fn only_an_unknown_user_makes_others_wait_and_a_success_lets_all_of_them_go() {
        let unavailable = attempt(Some(503), Verdict::Unavailable { retry_after: None });
        check_gate(
            false,
            &attempt(Some(200), Verdict::Delivered(Receipt::default())),
            true,
            Gate::Open,
        );
        check_gate(
            false,
            &attempt(Some(404), Verdict::EntryNotFound),
            false,
            Gate::Lead,
        );
        check_gate(false, &attempt(Some(400), Verdict::Invalid), true, Gate::Pass);
        check_gate(false, &unavailable, true, Gate::Pass);
        check_gate(false, &attempt(Some(401), Verdict::KeyRejected), true, Gate::Lead);
        check_gate(
            false,
            &attempt(Some(401), Verdict::KeyRejected),
            false,
            Gate::Pass,
        );
    }

    #[test]
    fn in_an_ordered_lane_whatever_waits_makes_others_wait_and_whatever_ends_lets_the_next_pass() {
        let unavailable = attempt(Some(503), Verdict::Unavailable { retry_after: None });
        check_gate(
            true,
            &attempt(Some(200), Verdict::Delivered(Receipt::default())),
            false,
            Gate::Pass,
        );
        check_gate(true, &attempt(Some(400), Verdict::Invalid), false, Gate::Pass);
        check_gate(true, &unavailable, false, Gate::Lead);
        check_gate(true, &attempt(Some(401), Verdict::KeyRejected), false, Gate::Lead);
        check_gate(
            true,
            &attempt(Some(404), Verdict::EntryNotFound),
            false,
            Gate::Lead,
        );
    }

    #[test]
    fn one_that_waits_behind_a_parked_event_is_parked_itself() {
        let mut progress = Progress::default();
        let decision = follow(None, facts(7), &mut progress, &policy());
        assert_eq!(decision.gate, Gate::Follow { head: None });
        assert_eq!(progress.parked_age_ms, Some(7_000));
        assert_eq!(progress.reason, reason::ENTRY_NOT_FOUND);
        let mut progress = Progress::default();
        let head = Some(Sequence(3));
        assert_eq!(
            follow(head, facts(7), &mut progress, &policy()).gate,
            Gate::Follow { head }
        );
        assert_eq!(
            (progress.parked_age_ms, &*progress.reason),
            (None, reason::EARLIER_EVENT)
        );
    }

    #[test]
    fn what_may_pass_is_retried_until_max_age() {
        let unavailable = |status| attempt(status, Verdict::Unavailable { retry_after: None });
        check_waits(&unavailable(Some(503)), 99, reason::UPSTREAM_UNAVAILABLE);
        check_waits(&unavailable(None), 99, reason::UPSTREAM_UNAVAILABLE);
        check_waits(&unavailable(Some(429)), 99, reason::UPSTREAM_THROTTLED);
        check_given_up(&unavailable(Some(503)), 100, reason::MAX_AGE);
    }

    #[test]
    fn an_unknown_user_is_tried_by_the_schedule_counted_from_parking() {
        let unknown = attempt(Some(404), Verdict::EntryNotFound);
        let (mut progress, mut random) = (Progress::default(), SmallRng::seed_from_u64(7));
        let mut waits = Vec::new();
        // Parked at the age of 5 s; the first try comes 2 s late.
        for age_s in [5, 17, 65] {
            waits.push(
                match decide(&unknown, facts(age_s), &mut progress, &policy(), &mut random).disposition {
                    Disposition::Wait { until, .. } => Some(until.0 - NOW.0),
                    Disposition::DeadLetter { reason, .. } => {
                        assert_eq!(&*reason, reason::ENTRY_NOT_FOUND);
                        None
                    }
                    other => panic!("{other:?}"),
                },
            );
        }
        assert_eq!(waits, [Some(10_000), Some(48_000), None]);
    }

    #[test]
    fn who_waited_behind_an_unknown_user_was_parked_as_long() {
        let unknown = attempt(Some(404), Verdict::EntryNotFound);
        let after_following = |succeeds_unknown| {
            let mut progress = Progress::default();
            follow(Some(Sequence(1)), facts(5), &mut progress, &policy());
            let facts = Facts {
                succeeds_unknown,
                ..facts(65)
            };
            let mut random = SmallRng::seed_from_u64(7);
            decide(&unknown, facts, &mut progress, &policy(), &mut random).disposition
        };
        assert!(
            matches!(after_following(true), Disposition::DeadLetter { .. }),
            "60 s behind it"
        );
        assert!(
            matches!(after_following(false), Disposition::Wait { .. }),
            "it begins now"
        );
    }

    #[test]
    fn no_wait_goes_beyond_the_callers_limit() {
        let limit = UnixMillis(NOW.0 + 3_000);
        let facts = Facts {
            deliver_before: Some(limit),
            ..facts(0)
        };
        let mut random = SmallRng::seed_from_u64(7);
        let unknown = attempt(Some(404), Verdict::EntryNotFound);
        let disposition =
            decide(&unknown, facts, &mut Progress::default(), &policy(), &mut random).disposition;
        assert!(
            matches!(disposition, Disposition::Wait { until, .. } if until == limit),
            "{disposition:?}"
        );
    }

    #[test]
    fn upstreams_wish_to_wait_is_kept() {
        let asked = Verdict::Unavailable {
            retry_after: Some(Duration::from_secs(90)),
        };
        let Disposition::Wait { until, .. } = fresh(&attempt(Some(429), asked), 0).0 else {
            panic!("does not wait");
        };
        assert!(until.0 - NOW.0 >= 90_000);
    }
}
