//! `delivery.order = "identifier"`: what one user did reaches upstream in the order in which it was accepted, whatever happens
//! in between; nobody waits for another user.

use std::collections::BTreeMap;

use e2e::event::{EMBEDDABLE, TestEvent};
use e2e::lanes::await_held;
use e2e::random::Seeded;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::tries::ids;
use e2e::upstream::usual_settings;
use e2e::wait;
use embeddables_mock::{Entry, FaultScript, ResetPoint, Settings, Step};
use embeddables_proto::events::v1::State;
use rand::RngExt as _;
use rand::rngs::StdRng;

const USERS: usize = 4;
const EVENTS_EACH: usize = 12;

async fn stage_with(change: impl FnOnce(e2e::settings::Settings) -> e2e::settings::Settings) -> Stage {
    Stage::with(|settings| {
        let settings = settings
            .set("DELIVERY__ORDER", "identifier")
            .set("DELIVERY__RETRY_MIN", "5ms")
            .set("DELIVERY__RETRY_MAX", "20ms");
        change(settings)
    })
    .await
}

fn event(user: usize, index: usize) -> TestEvent {
    TestEvent::new(format!("u{user}-{index:03}")).about(format!("user{user}@example.com"))
}

/// Every user's events, those of one time beside each other.
fn interleaved() -> Vec<TestEvent> {
    (0..EVENTS_EACH)
        .flat_map(|index| (0..USERS).map(move |user| event(user, index)))
        .collect()
}

/// Faults of every kind that leads to another try, between requests that meet none.
fn faults(source: &mut StdRng, count: usize) -> FaultScript {
    let steps = (0..count).map(|_| match source.random_range(0..20) {
        0 => Step::status(503),
        1 => Step::status(500),
        2 => Step::reset(ResetPoint::Before),
        3 => Step::reset(ResetPoint::After),
        4 => Step::status(425),
        _ => Step::latency(std::time::Duration::from_millis(source.random_range(0..20))),
    });
    FaultScript::once(steps)
}

/// Asserts that of no user an event was tried before the one accepted before it had been tried for the last time.
#[track_caller]
fn check_order(stage: &Stage) {
    let tries = stage.upstream.tries();
    let mut of_users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in ids(&tries) {
        let user = id.split('-').next().unwrap_or_default();
        of_users.entry(user).or_default().push(id);
    }
    for (user, tried) in of_users {
        assert!(
            tried.is_sorted(),
            "{user}'s events were tried in another order: {tried:?}"
        );
    }
}

#[tokio::test]
async fn each_users_events_are_tried_in_order_whatever_goes_wrong_between() {
    let mut seeded = Seeded::new();
    let stage = stage_with(|settings| settings).await;
    stage.upstream.push(faults(&mut seeded.source, 60));
    let events = interleaved();
    stage.publish_all(&events).await;
    stage.await_delivered(&events, wait::SOON).await;
    stage.drain(wait::SOON).await;
    check_order(&stage);
}

#[tokio::test]
async fn the_order_holds_across_kills() {
    let mut seeded = Seeded::new();
    let mut stage = stage_with(|settings| settings).await;
    stage.upstream.push(faults(&mut seeded.source, 60));
    let events = interleaved();
    stage.publish_all(&events[..events.len() / 2]).await;
    for part in [1, 2] {
        let enough = stage.upstream.request_count() + seeded.source.random_range(1..10);
        stage.upstream.await_tries(enough).await;
        stage.sidecar.kill_nine().await;
        stage.restart().await;
        if part == 1 {
            stage.publish_all(&events[events.len() / 2..]).await;
        }
    }
    stage.await_delivered(&events, wait::SOON).await;
    stage.drain(wait::SOON).await;
    check_order(&stage);
}

#[tokio::test]
async fn a_dead_letter_lets_the_next_pass() {
    let stage = stage_with(|settings| settings).await;
    stage.upstream.fail_next([Step::status(503), Step::status(422)]);
    let events: Vec<_> = (0..3).map(|index| event(0, index)).collect();
    stage.publish_all(&events).await;
    stage.await_delivered(&events[1..], wait::SOON).await;
    let dead = stage.await_state(&events[0], State::DeadLettered).await;
    assert_eq!(dead.reason, "UPSTREAM_REJECTED", "{dead:?}");
    assert_eq!(
        ids(&stage.upstream.tries()),
        ["u0-000", "u0-000", "u0-001", "u0-002"]
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_user_who_waits_blocks_no_other_user() {
    let stage = stage_with(|settings| settings.set("DELIVERY__ENTRY_SCHEDULE", r#"["2s", "1h"]"#)).await;
    let entry = |user: usize| Entry {
        project: PROJECT.to_owned(),
        embeddable: EMBEDDABLE.to_owned(),
        key: "email".to_owned(),
        value: event(user, 0).email.into(),
    };
    stage.upstream.configure(Settings {
        entries: vec![entry(1)],
        ..usual_settings()
    });
    let events: Vec<_> = (0..6)
        .flat_map(|index| [event(0, index), event(1, index)])
        .collect();
    stage.publish_all(&events).await;
    let (waiting, free): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.id.starts_with("u0"));
    stage.await_delivered(free, wait::SOON).await;
    stage
        .await_reason(waiting[0], State::Waiting, "ENTRY_NOT_FOUND")
        .await;
    for follower in &waiting[1..] {
        let status = stage.status(follower).await;
        assert_eq!(status.attempt_count, 0, "behind the one that waits: {status:?}");
    }
    stage.upstream.configure(usual_settings());
    stage.await_delivered(waiting, wait::SOON).await;
    stage.drain(wait::SOON).await;
    check_order(&stage);
}

#[tokio::test]
async fn a_refused_event_keeps_its_followers_back_and_nobody_else() {
    let stage = stage_with(|settings| {
        settings
            .set("DELIVERY__RETRY_MIN", "3s")
            .set("DELIVERY__RETRY_MAX", "3s")
    })
    .await;
    stage.upstream.fail_next([Step::status(403)]);
    stage.publish(&event(0, 0)).await;
    stage
        .await_reason(&event(0, 0), State::Waiting, "UPSTREAM_REFUSED")
        .await;
    let others = [event(0, 1), event(1, 0), event(1, 1)];
    stage.publish_all(&others).await;
    stage.await_delivered(&others, wait::SOON).await;
    stage.drain(wait::SOON).await;
    check_order(&stage);
}

#[tokio::test]
async fn probes_of_a_held_lane_keep_the_order_too() {
    let stage = stage_with(|settings| {
        settings
            .set("DELIVERY__PROBE_MIN", "50ms")
            .set("DELIVERY__PROBE_MAX", "100ms")
    })
    .await;
    stage.upstream.configure(Settings {
        keys: [(PROJECT.to_owned(), vec!["rk_test_another".to_owned()])].into(),
        ..Settings::default()
    });
    let events = interleaved();
    stage.publish_all(&events).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    stage.upstream.await_tries(8).await;
    stage.upstream.configure(usual_settings());
    stage.await_delivered(&events, wait::SOON).await;
    stage.drain(wait::SOON).await;
    check_order(&stage);
}
