//! The rules, answer by answer.

use embeddables_queue::Sequence;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;

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
fn one_that_waits_behind_another_notes_since_when() {
    let mut progress = Progress::default();
    let decision = follow(None, true, facts(7), &mut progress, &policy());
    assert_eq!(decision.gate, Gate::Follow { head: None });
    assert_eq!(
        (progress.parked_age_ms, progress.in_line_age_ms),
        (None, Some(7_000))
    );
    assert_eq!(progress.reason, reason::ENTRY_NOT_FOUND);
    let mut progress = Progress::default();
    let head = Some(Sequence(3));
    assert_eq!(
        follow(head, false, facts(7), &mut progress, &policy()).gate,
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
        follow(Some(Sequence(1)), false, facts(5), &mut progress, &policy());
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
    let disposition = decide(&unknown, facts, &mut Progress::default(), &policy(), &mut random).disposition;
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
