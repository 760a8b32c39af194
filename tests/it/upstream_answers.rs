//! Answers that no well-behaved upstream would give: the status line decides, and what follows costs neither memory nor time.

use std::time::Duration;

use e2e::event::TestEvent;
use e2e::scripted::{Script, Scripted};
use e2e::stage::Stage;
use e2e::wait;
use embeddables_mock::Step;
use embeddables_proto::events::v1::{Attempt, AttemptOutcome, EventStatus, State};
use tokio::time::Instant;

/// A stage in front of an upstream that follows a script.
async fn stage_before(script: Script) -> (Stage, Scripted) {
    let upstream = Scripted::start(script).await;
    let stage = Stage::with(|settings| {
        settings
            .raw("EMBEDDABLES_API_URL", upstream.url())
            .set("DELIVERY__ATTEMPT_TIMEOUT", "1s")
    })
    .await;
    (stage, upstream)
}

async fn deliver(stage: &Stage, id: &str) -> (EventStatus, Duration) {
    let (event, begun) = (TestEvent::new(id), Instant::now());
    stage.publish(&event).await;
    let status = stage.await_state(&event, State::Delivered).await;
    (status, begun.elapsed())
}

#[track_caller]
fn check_unparsed(status: &EventStatus) {
    assert!(
        status.receipt.as_ref().is_some_and(|receipt| receipt.unparsed),
        "{status:?}"
    );
    let outcomes: Vec<_> = status.attempts.iter().map(Attempt::outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::Accepted], "{status:?}");
    assert!(!status.possible_duplicate, "{status:?}");
}

#[tokio::test]
async fn a_huge_body_is_delivered_all_the_same() {
    let stage = Stage::new().await;
    let huge = "x".repeat(8 * 1024 * 1024);
    stage.upstream.fail_next([
        Step::body(&*huge),
        Step::status(201).with_body(format!("{{\"entry_id\": \"{huge}\"}}")),
    ]);
    for id in ["huge-garbage", "huge-json"] {
        let (status, _) = deliver(&stage, id).await;
        check_unparsed(&status);
    }
    assert_eq!(stage.drain(wait::SOON).await.delivered, 2.0);
}

#[tokio::test]
async fn a_body_without_end_is_read_no_further_than_needed() {
    let script = Script {
        start: b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{".to_vec(),
        piece: vec![b' '; 16 * 1024],
        pause: Duration::ZERO,
    };
    let (stage, upstream) = stage_before(script).await;
    let (status, _) = deliver(&stage, "endless").await;
    check_unparsed(&status);
    // What the sockets between hold comes on top of the 64 KiB that are read.
    let sent = upstream.sent_bytes();
    assert!(sent < 16 * 1024 * 1024, "{sent} bytes were taken");
    assert_eq!(upstream.request_count(), 1);
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_body_that_drips_is_delivered_once_its_time_is_over() {
    let script = Script {
        start: b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n".to_vec(),
        piece: b" ".to_vec(),
        pause: Duration::from_millis(100),
    };
    let (stage, upstream) = stage_before(script).await;
    let (status, took) = deliver(&stage, "dripped").await;
    check_unparsed(&status);
    assert!(took < Duration::from_secs(10), "took {took:?}");
    assert_eq!(upstream.request_count(), 1, "it is not sent again");
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_head_that_drips_is_given_up_and_flagged() {
    let script = Script {
        start: b"HTTP/1.1 200 OK\r\n".to_vec(),
        piece: b"x-more: 1\r\n".to_vec(),
        pause: Duration::from_millis(100),
    };
    let (stage, _upstream) = stage_before(script).await;
    let event = TestEvent::new("dripped-head");
    stage.publish(&event).await;
    let status = stage.await_state(&event, State::Waiting).await;
    assert_eq!(
        status.attempts[0].outcome(),
        AttemptOutcome::Ambiguous,
        "{status:?}"
    );
    stage.balance_books().await;
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_flagged_and_tried_again() {
    for (index, start) in [&b"garbage\r\n\r\n"[..], b"HTTP/1.1 20", b"\0\0\0"]
        .into_iter()
        .enumerate()
    {
        let script = Script {
            start: start.to_vec(),
            piece: Vec::new(),
            pause: Duration::ZERO,
        };
        let (stage, _upstream) = stage_before(script).await;
        let event = TestEvent::new(format!("no-http-{index}"));
        stage.publish(&event).await;
        let status = stage.await_state(&event, State::Waiting).await;
        assert_eq!(status.reason, "UPSTREAM_UNAVAILABLE", "{index}: {status:?}");
        assert_eq!(
            status.attempts[0].outcome(),
            AttemptOutcome::Ambiguous,
            "{index}: {status:?}"
        );
        stage.balance_books().await;
    }
}
