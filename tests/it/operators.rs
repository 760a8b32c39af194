//! What an operator does over the admin listener: looks at lanes, holds and resumes them.

use std::time::Duration;

use e2e::admin;
use e2e::event::TestEvent;
use e2e::lanes::{await_free, await_held};
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::{refusal, wait};
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::admin::v1::LaneCondition;
use embeddables_proto::events::v1::State;
use tonic::Code;

fn events(prefix: &str, count: usize) -> Vec<TestEvent> {
    (0..count)
        .map(|index| TestEvent::new(format!("{prefix}-{index}")))
        .collect()
}

#[tokio::test]
async fn every_lane_shows_its_condition_and_what_lies_in_it() {
    let stage = Stage::with(|settings| {
        settings
            .with_projects([
                ("pr_held", ""),
                ("pr_open", ""),
                ("pr_paused", ""),
                ("pr_parked", ""),
            ])
            .without_probes()
            .set("DELIVERY__ENTRY_SCHEDULE", r#"["1h"]"#)
    })
    .await;
    stage.upstream.configure(Settings::default());
    let once = |project: &str, step| FaultScript::once([step]).for_project(project);
    stage.upstream.push(once("pr_held", Step::status(401)));
    stage
        .upstream
        .push(once("pr_paused", Step::status(429).with_retry_after("600")));
    stage.upstream.push(once("pr_open", Step::status(422)));
    let unknown = Step::status(404).with_body(r#"{"code": "ENTRY_NOT_FOUND"}"#);
    stage.upstream.push(once("pr_parked", unknown));
    for project in ["pr_held", "pr_open", "pr_paused", "pr_parked"] {
        stage.publish(&TestEvent::new(project).in_project(project)).await;
    }
    let in_state = async |project: &str, state| {
        let event = TestEvent::new(project).in_project(project);
        stage.await_state(&event, state).await
    };
    in_state("pr_held", State::Held).await;
    in_state("pr_open", State::DeadLettered).await;
    in_state("pr_paused", State::Waiting).await;
    in_state("pr_parked", State::Waiting).await;
    let lanes = admin::lanes(&stage.sidecar).await;
    let seen: Vec<_> = lanes
        .iter()
        .map(|lane| (lane.project_id.as_str(), lane.condition()))
        .collect();
    let expected = [
        ("pr_held", LaneCondition::Held),
        ("pr_open", LaneCondition::Open),
        ("pr_parked", LaneCondition::Open),
        ("pr_paused", LaneCondition::Paused),
    ];
    assert_eq!(seen, expected, "{lanes:?}");
    let hold = lanes[0].hold.as_ref().expect("a held lane says why");
    assert_eq!(hold.reason, "KEY_REJECTED", "{hold:?}");
    assert!(!hold.message.is_empty() && hold.start_time.is_some(), "{hold:?}");
    assert!(
        lanes[0].next_try_time.is_some() && lanes[3].next_try_time.is_some(),
        "{lanes:?}"
    );
    let counts: Vec<_> = lanes
        .iter()
        .map(|lane| (lane.queued_count + lane.waiting_count, lane.dead_letter_count))
        .collect();
    assert_eq!(counts, [(1, 0), (0, 1), (1, 0), (1, 0)], "{lanes:?}");
    assert!(lanes.iter().all(|lane| lane.used_bytes > 0), "{lanes:?}");
}

#[tokio::test]
async fn an_operator_holds_a_lane_and_nothing_is_sent_until_it_is_resumed() {
    let stage = Stage::with(|settings| {
        settings
            .set("DELIVERY__PROBE_MIN", "20ms")
            .set("DELIVERY__PROBE_MAX", "20ms")
    })
    .await;
    let lane = admin::hold(&stage.sidecar, PROJECT, "maintenance window")
        .await
        .expect("it is held");
    let hold = lane.hold.as_ref().expect("the answer says so");
    assert_eq!(
        (lane.condition(), hold.reason.as_str()),
        (LaneCondition::Held, "OPERATOR"),
        "{lane:?}"
    );
    let again = admin::hold(&stage.sidecar, "", "maintenance window")
        .await
        .expect("it is idempotent");
    assert_eq!(again.hold.map(|hold| hold.reason), Some("OPERATOR".to_owned()));
    let events = events("operator", 10);
    stage.publish_all(&events).await;
    for event in &events {
        let held = stage.await_reason(event, State::Held, "OPERATOR").await;
        assert!(held.message.contains("maintenance window"), "{held:?}");
    }
    await_held(&stage.sidecar, PROJECT, "OPERATOR").await;
    // A probe would be due many times by now.
    let deadline = Duration::from_millis(500);
    let left = e2e::watching::flush(&stage.client(), "", deadline)
        .await
        .expect("it answers");
    assert_eq!(left.held_count, 10, "{left:?}");
    assert_eq!(stage.upstream.request_count(), 0, "not even a probe");
    let lane = admin::resume(&stage.sidecar, PROJECT)
        .await
        .expect("it is resumed");
    assert!(lane.hold.is_none(), "{lane:?}");
    stage.await_delivered(&events, wait::SOON).await;
    await_free(&stage.sidecar, PROJECT).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn an_operators_hold_survives_a_kill_and_a_restart() {
    let mut stage = Stage::new().await;
    admin::hold(&stage.sidecar, PROJECT, "until monday")
        .await
        .expect("it is held");
    let event = TestEvent::new("held-over-restarts");
    stage.publish(&event).await;
    stage.kill_and_restart().await;
    let lane = admin::lane(&stage.sidecar, PROJECT).await;
    let hold = lane.hold.as_ref().expect("it is still held");
    assert!(
        hold.reason == "OPERATOR" && hold.message.contains("until monday"),
        "{lane:?}"
    );
    stage.sidecar.terminate();
    stage.sidecar.wait_for_end().await;
    stage.restart().await;
    let held = stage.await_reason(&event, State::Held, "OPERATOR").await;
    assert_eq!(held.attempt_count, 0, "{held:?}");
    assert_eq!(stage.upstream.request_count(), 0);
    admin::resume(&stage.sidecar, PROJECT)
        .await
        .expect("it is resumed");
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn what_is_in_flight_when_a_lane_is_held_ends_and_counts() {
    let stage = Stage::new().await;
    stage.upstream.fail_next([Step::latency(Duration::from_secs(1))]);
    let event = TestEvent::new("in-flight");
    stage.publish(&event).await;
    stage.upstream.await_tries(1).await;
    admin::hold(&stage.sidecar, PROJECT, "")
        .await
        .expect("it is held");
    let status = stage.await_state(&event, State::Delivered).await;
    assert_eq!(
        (status.attempt_count, status.possible_duplicate),
        (1, false),
        "{status:?}"
    );
    let lane = admin::lane(&stage.sidecar, PROJECT).await;
    assert!(
        lane.hold.is_some(),
        "a success lifts no operator's hold: {lane:?}"
    );
    admin::resume(&stage.sidecar, PROJECT)
        .await
        .expect("it is resumed");
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn an_operator_lifts_a_hold_of_the_lanes_own_and_a_pause() {
    let stage = Stage::with(|settings| settings.without_probes()).await;
    stage.upstream.fail_next([Step::status(401)]);
    let event = TestEvent::new("lifted");
    stage.publish(&event).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    admin::resume(&stage.sidecar, PROJECT)
        .await
        .expect("it is resumed");
    stage.await_state(&event, State::Delivered).await;
    stage
        .upstream
        .fail_next([Step::status(503).with_retry_after("3600")]);
    let (paused, other) = (TestEvent::new("paused"), TestEvent::new("behind-the-pause"));
    stage.publish(&paused).await;
    stage.await_state(&paused, State::Waiting).await;
    stage.publish(&other).await;
    admin::resume(&stage.sidecar, PROJECT)
        .await
        .expect("it is resumed");
    stage.await_state(&other, State::Delivered).await;
    stage.balance_books().await;
}

#[tokio::test]
async fn a_pause_survives_a_restart() {
    let mut stage = Stage::new().await;
    stage
        .upstream
        .fail_next([Step::status(429).with_retry_after("600")]);
    let event = TestEvent::new("throttled");
    stage.publish(&event).await;
    stage.await_state(&event, State::Waiting).await;
    stage.kill_and_restart().await;
    let lane = admin::lane(&stage.sidecar, PROJECT).await;
    assert_eq!(lane.condition(), LaneCondition::Paused, "{lane:?}");
    let other = TestEvent::new("after-the-restart");
    stage.publish(&other).await;
    let deadline = Duration::from_millis(500);
    let left = e2e::watching::flush(&stage.client(), "", deadline)
        .await
        .expect("it answers");
    assert_eq!(left.delivered_count, 0, "{left:?}");
    assert_eq!(stage.upstream.request_count(), 1, "upstream is left alone");
}

#[tokio::test]
async fn a_lane_that_does_not_exist_or_run_is_told() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    let unknown = admin::hold(&stage.sidecar, "pr_unknown", "")
        .await
        .expect_err("no such project");
    refusal::check(&unknown, Code::FailedPrecondition, "PROJECT_NOT_CONFIGURED");
    let lane = admin::lane(&stage.sidecar, PROJECT).await;
    assert_eq!(lane.condition(), LaneCondition::NotRunning, "{lane:?}");
    let idle = admin::hold(&stage.sidecar, PROJECT, "")
        .await
        .expect_err("deliveries are switched off");
    assert_eq!(idle.code(), Code::Unavailable, "{idle:?}");
    let long = admin::hold(&stage.sidecar, PROJECT, &"x".repeat(257))
        .await
        .expect_err("a long note");
    assert_eq!(long.code(), Code::InvalidArgument, "{long:?}");
}

#[tokio::test]
async fn the_callers_listener_serves_no_operator_and_the_admin_listener_no_caller() {
    let stage = Stage::new().await;
    let method = "embeddables.admin.v1.AdminService/ListLanes";
    let call = e2e::raw::call_service(stage.sidecar.ready("grpc"), method, Vec::new()).await;
    assert_eq!(call.expect_err("not there").code(), Code::Unimplemented);
    let method = "embeddables.events.v1.EventsService/GetServerInfo";
    let call = e2e::raw::call_service(stage.sidecar.ready("admin"), method, Vec::new()).await;
    assert_eq!(call.expect_err("not there").code(), Code::Unimplemented);
}
