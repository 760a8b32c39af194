//! What each answer of the upstream does to its event.

use e2e::event::TestEvent;
use e2e::metrics::Scrape;
use e2e::stage::Stage;
use e2e::upstream::usual_settings;
use e2e::{calls, wait};
use embeddables_mock::{Entry, FaultScript, ResetPoint, Settings, Step, Truncate};
use embeddables_proto::events::v1::{AttemptOutcome, EventStatus, State};

async fn publish(stage: &Stage, event: &TestEvent) {
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
}

async fn await_state(stage: &Stage, event: &TestEvent, state: State) -> EventStatus {
    calls::await_state(&stage.client(), &event.id, state, wait::SOON).await
}

fn outcomes(status: &EventStatus) -> Vec<AttemptOutcome> {
    status
        .attempts
        .iter()
        .map(embeddables_proto::events::v1::Attempt::outcome)
        .collect()
}

#[tokio::test]
async fn a_delivered_event_carries_upstreams_receipt() {
    let stage = Stage::new().await;
    let event = TestEvent::new("receipt-1");
    publish(&stage, &event).await;
    let status = await_state(&stage, &event, State::Delivered).await;
    let receipt = status.receipt.clone().expect("a delivered event has a receipt");
    assert!(
        !receipt.entry_id.is_empty() && !receipt.contact_id.is_empty() && !receipt.unparsed,
        "{receipt:?}"
    );
    assert!(receipt.delivery_time.is_some(), "{receipt:?}");
    assert_eq!(outcomes(&status), [AttemptOutcome::Accepted]);
    assert_eq!(status.attempts[0].http_status, 200);
    assert_eq!(
        (
            status.attempt_count,
            status.possible_duplicate,
            status.reason.as_str()
        ),
        (1, false, "")
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_understood_is_delivered_all_the_same() {
    let stage = Stage::new().await;
    let steps = [
        Step::status(200).with_body("<html>"),
        Step::status(204).with_body(""),
        Step::truncate(Truncate::Half(true)),
    ];
    for (index, step) in steps.into_iter().enumerate() {
        stage.upstream.fail_next([step]);
        let event = TestEvent::new(format!("garbage-{index}"));
        publish(&stage, &event).await;
        let status = await_state(&stage, &event, State::Delivered).await;
        assert!(status.receipt.is_some_and(|receipt| receipt.unparsed), "{index}");
    }
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_rejected_event_is_a_dead_letter_with_its_reason_at_once() {
    let stage = Stage::new().await;
    for status in [400, 405, 409, 413, 422] {
        stage.upstream.fail_next([Step::status(status)]);
        let event = TestEvent::new(format!("rejected-{status}"));
        publish(&stage, &event).await;
        let found = await_state(&stage, &event, State::DeadLettered).await;
        assert_eq!(found.reason, "UPSTREAM_REJECTED", "{found:?}");
        assert!(!found.message.is_empty(), "{found:?}");
        assert_eq!(outcomes(&found), [AttemptOutcome::Rejected], "{found:?}");
        assert_eq!(found.attempts[0].http_status, i32::from(status));
    }
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.dead_lettered, books.delivered), (5.0, 0.0), "{books:?}");
    let scrape = Scrape::of(&stage.sidecar).await;
    let labels = [
        ("project", e2e::settings::PROJECT),
        ("reason", "UPSTREAM_REJECTED"),
    ];
    assert_eq!(
        scrape.sum("embeddables_settle_dead_lettered_events_total", &labels),
        5.0,
        "{}",
        scrape.text
    );
}

#[tokio::test]
async fn what_says_nothing_against_the_event_is_tried_again() {
    let stage = Stage::new().await;
    let html = || "<html>gateway</html>";
    let steps = vec![
        (Step::status(402), "UPSTREAM_REFUSED"),
        (Step::status(403), "UPSTREAM_REFUSED"),
        (Step::status(404), "UPSTREAM_REFUSED"),
        (Step::status(404).with_body(html()), "UPSTREAM_REFUSED"),
        (Step::status(400).with_body(html()), "UPSTREAM_REFUSED"),
        (Step::redirect("http://127.0.0.1:9/steal"), "UPSTREAM_REFUSED"),
        (Step::status(408), "UPSTREAM_UNAVAILABLE"),
        (Step::status(425), "UPSTREAM_UNAVAILABLE"),
        (Step::status(429), "UPSTREAM_THROTTLED"),
        (Step::status(500), "UPSTREAM_UNAVAILABLE"),
        (Step::status(503).with_body(html()), "UPSTREAM_UNAVAILABLE"),
        (Step::reset(ResetPoint::Before), "UPSTREAM_UNAVAILABLE"),
    ];
    for (index, (step, reason)) in steps.into_iter().enumerate() {
        let what = format!("{index}: {step:?}");
        let event = TestEvent::new(format!("again-{index}"));
        stage.upstream.push(FaultScript::forever([step]));
        publish(&stage, &event).await;
        let waiting = await_state(&stage, &event, State::Waiting).await;
        assert_eq!(waiting.reason, reason, "{what}: {waiting:?}");
        assert!(waiting.next_attempt_time.is_some(), "{what}: {waiting:?}");
        stage.upstream.recover();
        let delivered = await_state(&stage, &event, State::Delivered).await;
        assert!(delivered.attempt_count > 1, "{what}: {delivered:?}");
    }
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.delivered, books.dead_lettered), (12.0, 0.0), "{books:?}");
}

#[tokio::test]
async fn a_user_who_appears_late_gets_the_event() {
    let schedule = format!("[{}]", ["\"100ms\""; 100].join(", "));
    let stage = Stage::with(|settings| settings.set("DELIVERY__ENTRY_SCHEDULE", schedule)).await;
    let event = TestEvent::new("late-1");
    stage.upstream.configure(Settings {
        any_entry: Some(false),
        ..usual_settings()
    });
    publish(&stage, &event).await;
    let waiting = await_state(&stage, &event, State::Waiting).await;
    assert_eq!(waiting.reason, "ENTRY_NOT_FOUND", "{waiting:?}");
    assert_eq!(
        outcomes(&waiting).first(),
        Some(&AttemptOutcome::Rejected),
        "{waiting:?}"
    );
    let entry = Entry {
        project: e2e::settings::PROJECT.to_owned(),
        embeddable: "flow_e2e".to_owned(),
        key: "email".to_owned(),
        value: event.email.clone().into(),
    };
    stage.upstream.configure(Settings {
        entries: vec![entry],
        ..usual_settings()
    });
    await_state(&stage, &event, State::Delivered).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_user_who_never_appears_is_a_dead_letter_after_the_schedule_and_one_last_try() {
    let stage =
        Stage::with(|settings| settings.set("DELIVERY__ENTRY_SCHEDULE", r#"["20ms", "40ms", "60ms"]"#)).await;
    let event = TestEvent::new("never-1");
    stage.upstream.configure(Settings {
        any_entry: Some(false),
        ..usual_settings()
    });
    publish(&stage, &event).await;
    let dead = await_state(&stage, &event, State::DeadLettered).await;
    assert_eq!(
        (dead.reason.as_str(), dead.attempt_count),
        ("ENTRY_NOT_FOUND", 4),
        "{dead:?}"
    );
    assert_eq!(stage.drain(wait::SOON).await.dead_lettered, 1.0);
}

#[tokio::test]
async fn an_attempt_whose_fate_is_unknown_is_flagged_and_tried_again() {
    let stage = Stage::new().await;
    let event = TestEvent::new("ambiguous-1");
    // The event is created, and the answer never comes.
    stage.upstream.fail_next([Step::reset(ResetPoint::After)]);
    publish(&stage, &event).await;
    let status = await_state(&stage, &event, State::Delivered).await;
    assert_eq!(
        outcomes(&status),
        [AttemptOutcome::Ambiguous, AttemptOutcome::Accepted],
        "{status:?}"
    );
    assert!(status.possible_duplicate, "{status:?}");
    assert_eq!(
        stage.upstream.look(|created| created[&event.id].len()),
        2,
        "upstream has it twice, as the flag says"
    );
    stage.drain(wait::SOON).await;
    let scrape = Scrape::of(&stage.sidecar).await;
    assert_eq!(
        scrape.sum("embeddables_deliver_attempts_total", &[("outcome", "ambiguous")]),
        1.0,
        "{}",
        scrape.text
    );
}

#[tokio::test]
async fn an_attempt_that_was_open_when_the_sidecar_was_killed_is_flagged() {
    let mut stage = Stage::new().await;
    let event = TestEvent::new("interrupted-1");
    stage
        .upstream
        .fail_next([Step::latency(std::time::Duration::from_secs(60))]);
    publish(&stage, &event).await;
    wait::until("the request upstream", wait::SOON, async || {
        (stage.upstream.request_count() == 1).then_some(())
    })
    .await;
    stage.sidecar.kill_nine().await;
    stage.restart().await;
    let status = await_state(&stage, &event, State::Delivered).await;
    assert!(status.possible_duplicate, "{status:?}");
    assert!(
        outcomes(&status).contains(&AttemptOutcome::Ambiguous),
        "{status:?}"
    );
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn while_nobody_listens_upstream_no_attempt_is_ambiguous() {
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("an address");
    let stage = Stage::with(|settings| settings.raw("EMBEDDABLES_API_URL", format!("http://{free}"))).await;
    let event = TestEvent::new("unreachable-1");
    publish(&stage, &event).await;
    let status = await_state(&stage, &event, State::Waiting).await;
    assert_eq!(status.reason, "UPSTREAM_UNAVAILABLE", "{status:?}");
    assert!(
        outcomes(&status)
            .iter()
            .all(|outcome| *outcome == AttemptOutcome::NotSent),
        "{status:?}"
    );
    assert!(!status.possible_duplicate, "{status:?}");
    stage.balance_books().await;
}

#[tokio::test]
async fn an_upstream_that_hangs_is_given_up_and_tried_again() {
    let stage = Stage::with(|settings| {
        settings
            .set("DELIVERY__ATTEMPT_TIMEOUT", "300ms")
            .set("DELIVERY__CONNECT_TIMEOUT", "200ms")
    })
    .await;
    let event = TestEvent::new("hang-1");
    stage
        .upstream
        .fail_next([Step::hang(std::time::Duration::from_secs(60))]);
    publish(&stage, &event).await;
    let status = await_state(&stage, &event, State::Delivered).await;
    assert_eq!(
        outcomes(&status),
        [AttemptOutcome::Ambiguous, AttemptOutcome::Accepted],
        "{status:?}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn one_stuck_user_holds_nobody_up() {
    let stage = Stage::with(|settings| {
        settings
            .set("DELIVERY__MAX_IN_FLIGHT", "2")
            .set("DELIVERY__ENTRY_SCHEDULE", r#"["60s"]"#)
    })
    .await;
    stage.upstream.configure(Settings {
        any_entry: Some(false),
        ..usual_settings()
    });
    let stuck: Vec<_> = (0..10)
        .map(|index| TestEvent::new(format!("stuck-{index}")))
        .collect();
    for event in &stuck {
        publish(&stage, event).await;
        await_state(&stage, event, State::Waiting).await;
    }
    stage.upstream.configure(usual_settings());
    let event = TestEvent::new("free-1");
    publish(&stage, &event).await;
    await_state(&stage, &event, State::Delivered).await;
    let books = stage.balance_books().await;
    assert_eq!((books.delivered, books.here), (1.0, 10.0), "{books:?}");
}
