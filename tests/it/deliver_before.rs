//! `deliver_before`: a limit in wall time that the caller sets. It passes whatever keeps the event from going: a wait, a pause,
//! a hold, a sidecar that is down.

use std::time::{Duration, SystemTime};

use e2e::event::TestEvent;
use e2e::lanes::await_held;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::wait;
use embeddables_mock::{Settings, Step};
use embeddables_proto::events::v1::{PublishOptions, State};

const REASON: &str = "DELIVER_BEFORE_PASSED";

fn options(limit: SystemTime) -> PublishOptions {
    PublishOptions {
        deliver_before: Some(limit.into()),
        ..PublishOptions::default()
    }
}

/// Publishes an event that must be delivered within `time`; gives the moment at which that is over.
async fn publish_within(stage: &Stage, event: &TestEvent, time: Duration) -> SystemTime {
    let limit = SystemTime::now() + time;
    stage.publish_with(event, options(limit)).await;
    limit
}

/// Waits until an event is given up for its limit, and asserts that this was not before it and not long after.
async fn check_given_up(stage: &Stage, event: &TestEvent, limit: SystemTime) {
    let dead = stage.await_reason(event, State::DeadLettered, REASON).await;
    let late = SystemTime::now().duration_since(limit);
    let late = late.unwrap_or_else(|_| panic!("given up before its limit: {dead:?}"));
    assert!(late < Duration::from_secs(5), "given up {late:?} after its limit");
}

fn another_key() -> Settings {
    Settings {
        keys: [(PROJECT.to_owned(), vec!["rk_test_another".to_owned()])].into(),
        ..Settings::default()
    }
}

#[tokio::test]
async fn it_passes_while_the_event_waits_for_another_try() {
    let stage = Stage::with(|settings| settings.without_retries()).await;
    stage.upstream.fail_next([Step::status(503)]);
    let event = TestEvent::new("limited-waiting");
    let limit = publish_within(&stage, &event, Duration::from_millis(1_500)).await;
    stage.await_state(&event, State::Waiting).await;
    check_given_up(&stage, &event, limit).await;
    assert_eq!(stage.upstream.request_count(), 1, "it is not tried once more");
    assert_eq!(stage.drain(wait::SOON).await.dead_lettered, 1.0);
}

#[tokio::test]
async fn it_passes_while_the_lane_is_held() {
    let stage = Stage::with(|settings| settings.without_probes()).await;
    stage.upstream.configure(another_key());
    let first = TestEvent::new("unlimited");
    stage.publish(&first).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    let event = TestEvent::new("limited-held");
    let limit = publish_within(&stage, &event, Duration::from_millis(1_500)).await;
    stage.await_reason(&event, State::Held, "KEY_REJECTED").await;
    check_given_up(&stage, &event, limit).await;
    let status = stage.status(&first).await;
    assert_eq!(status.state(), State::Held, "the lane is still held: {status:?}");
    assert_eq!(stage.upstream.request_count(), 1);
    let books = stage.balance_books().await;
    assert_eq!((books.dead_lettered, books.here), (1.0, 1.0), "{books:?}");
}

#[tokio::test]
async fn it_passes_while_the_lane_is_paused() {
    let stage = Stage::new().await;
    stage
        .upstream
        .fail_next([Step::status(429).with_retry_after("3600")]);
    let first = TestEvent::new("throttled");
    stage.publish(&first).await;
    stage
        .await_reason(&first, State::Waiting, "UPSTREAM_THROTTLED")
        .await;
    let event = TestEvent::new("limited-paused");
    let limit = publish_within(&stage, &event, Duration::from_millis(1_500)).await;
    check_given_up(&stage, &event, limit).await;
    assert_eq!(stage.upstream.request_count(), 1);
    stage.balance_books().await;
}

#[tokio::test]
async fn it_passes_while_the_sidecar_is_down() {
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    let event = TestEvent::new("limited-down");
    let limit = publish_within(&stage, &event, Duration::from_millis(500)).await;
    stage.sidecar.kill_nine().await;
    wait::until("the limit to pass", wait::SOON, async || {
        (SystemTime::now() > limit).then_some(())
    })
    .await;
    stage.settings = stage.settings.clone().set("DELIVERY__ENABLED", "true");
    stage.restart().await;
    check_given_up(&stage, &event, limit).await;
    assert_eq!(stage.upstream.request_count(), 0, "too late is never sent");
    assert_eq!(stage.drain(wait::SOON).await.dead_lettered, 1.0);
}

#[tokio::test]
async fn an_event_in_time_is_delivered_and_its_limit_changes_nothing_after() {
    let stage = Stage::new().await;
    let event = TestEvent::new("in-time");
    let limit = publish_within(&stage, &event, Duration::from_secs(2)).await;
    stage.await_state(&event, State::Delivered).await;
    wait::until("the limit to pass", wait::SOON, async || {
        (SystemTime::now() > limit).then_some(())
    })
    .await;
    // Options are no part of an event: a repeat with others is the same event.
    let again = stage
        .publish_with(&event, options(limit + Duration::from_secs(60)))
        .await;
    assert_eq!(
        (again.duplicate, again.state()),
        (true, State::Delivered),
        "{again:?}"
    );
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.accepted, books.dead_lettered), (1.0, 0.0), "{books:?}");
}

#[tokio::test]
async fn an_event_whose_limit_has_passed_already_is_never_sent() {
    let stage = Stage::new().await;
    let event = TestEvent::new("too-late");
    let limit = SystemTime::now() - Duration::from_secs(60);
    stage.publish_with(&event, options(limit)).await;
    stage.await_reason(&event, State::DeadLettered, REASON).await;
    assert_eq!(stage.upstream.request_count(), 0);
    assert_eq!(stage.drain(wait::SOON).await.dead_lettered, 1.0);
}
