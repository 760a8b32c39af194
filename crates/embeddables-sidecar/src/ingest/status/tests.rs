//! What callers are told of held events and of outcomes.

use std::time::Duration;

use embeddables_queue::Disposition;

use super::*;
use crate::settle::progress::Receipt;
use crate::testing::{Bench, NOW, project};

async fn found(bench: &Bench, id: &str) -> proto::EventStatus {
    let found = bench.pipeline.find(&project("pr_a"), id).await;
    found.expect("the store answers").expect("the event is known")
}

#[tokio::test]
async fn while_a_lane_is_held_so_is_every_event_that_is_not_final() {
    let bench = Bench::new();
    for id in ["delivered", "waiting", "queued"] {
        bench.publish("pr_a", id).await;
    }
    bench.deliver("pr_a", 1).await;
    let wait = Disposition::Wait {
        until: UnixMillis(NOW.0 + 60_000),
        progress: Progress {
            attempt_count: 3,
            ..Progress::default()
        }
        .encode_bytes(),
    };
    bench.settle("pr_a", 1, &wait).await;
    assert_eq!(found(&bench, "waiting").await.state(), proto::State::Waiting);

    bench.show_held("pr_a");
    for id in ["waiting", "queued"] {
        let status = found(&bench, id).await;
        assert_eq!(status.state(), proto::State::Held, "{id}");
        assert_eq!(
            (status.reason.as_str(), status.message.as_str()),
            ("KEY_REJECTED", "give it another key")
        );
        assert_eq!(
            status.next_attempt_time,
            Some(timestamp(UnixMillis(NOW.0 + 5_000)))
        );
    }
    assert_eq!(found(&bench, "waiting").await.attempt_count, 3);
    assert_eq!(found(&bench, "delivered").await.state(), proto::State::Delivered);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_delivery_is_told_of_a_hold_at_the_deadline() {
    let bench = Bench::new();
    let mut accepted = bench.publish("pr_a", "e1").await;
    let wait = bench
        .pipeline
        .wait_until_final(&mut accepted, Duration::from_secs(3));
    let hold = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.show_held("pr_a");
    };
    tokio::join!(wait, hold);
    assert_eq!(accepted.status.state(), proto::State::Held);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_delivery_is_told_at_once() {
    let bench = Bench::new();
    let mut accepted = bench.publish("pr_a", "e1").await;
    let begin = tokio::time::Instant::now();
    let wait = bench
        .pipeline
        .wait_until_final(&mut accepted, Duration::from_secs(30));
    let deliver = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.deliver("pr_a", 1).await;
    };
    tokio::join!(wait, deliver);
    assert_eq!(accepted.status.state(), proto::State::Delivered);
    assert_eq!(begin.elapsed(), Duration::from_secs(1));
}

fn outcome(kind: OutcomeKind, progress: &Progress) -> Outcome {
    Outcome {
        number: 7,
        lane: embeddables_queue::LaneName::new("pr_a"),
        id: "e1".into(),
        sequence: embeddables_queue::Sequence(1),
        time: NOW,
        kind,
        reason: "".into(),
        note: progress.encode_bytes(),
    }
}

#[test]
fn an_outcome_tells_its_receipt_or_its_reason_and_no_attempts() {
    let mut progress = Progress {
        receipt: Some(Receipt {
            entry_id: "entry_1".to_owned(),
            ..Receipt::default()
        }),
        ..Progress::default()
    };
    progress.note_interruption(NOW);
    let status = of_outcome(&outcome(OutcomeKind::Delivered, &progress));
    let receipt = status.receipt.clone().expect("a receipt");
    assert_eq!(
        (receipt.entry_id.as_str(), receipt.delivery_time),
        ("entry_1", Some(timestamp(NOW)))
    );
    assert_eq!((status.attempts.len(), status.attempt_count), (0, 1));

    let status = of_outcome(&outcome(OutcomeKind::Quarantined, &Progress::default()));
    assert_eq!(
        (status.state(), status.reason.as_str()),
        (proto::State::Quarantined, "DAMAGED")
    );
    let unreadable = Outcome {
        note: bytes::Bytes::from_static(&[9]),
        ..outcome(OutcomeKind::Delivered, &progress)
    };
    assert_eq!(of_outcome(&unreadable).state(), proto::State::Delivered);
}
