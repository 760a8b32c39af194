//! Shares of the queue: one project's backlog, or its dead letters, take no room from another's, and settling always goes on.

use std::time::Duration;

use e2e::admin;
use e2e::event::TestEvent;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::{calls, refusal, rest, wait};
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::admin::v1::ReplayDeadLettersRequest;
use embeddables_proto::events::v1::State;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// More than fits, so that a missing bound does not end a test by its time.
const MOST_EVENTS: usize = 1_000;

fn event(project: &str, index: usize) -> TestEvent {
    TestEvent::new(format!("share-{project}-{index}"))
        .with("filler", "x".repeat(4_000))
        .in_project(project)
}

/// Publishes one event after the other until one is refused; gives those that were taken and why no more were.
async fn publish_until_refused(stage: &Stage, project: &str, first: usize) -> (Vec<TestEvent>, Status) {
    let mut taken = Vec::new();
    for index in first..first + MOST_EVENTS {
        let event = event(project, index);
        match calls::publish(&stage.client(), event.to_proto()).await {
            Ok(_) => taken.push(event),
            Err(status) => return (taken, status),
        }
    }
    panic!("{MOST_EVENTS} events were taken");
}

/// Waits until an event is taken that was refused before.
async fn await_taken(stage: &Stage, event: &TestEvent) {
    wait::until("room for another event", wait::SOON, async || {
        calls::publish(&stage.client(), event.to_proto()).await.ok()
    })
    .await;
}

#[track_caller]
fn check_refused(status: &Status, reason: &str) {
    refusal::check(status, Code::ResourceExhausted, reason);
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay > Duration::ZERO), "{status:?}");
}

#[tokio::test]
async fn a_project_at_its_share_is_refused_and_another_is_not() {
    let mut stage = Stage::with(|settings| {
        settings
            .with_projects([("pr_full", ""), ("pr_free", "")])
            .set("QUEUE__MAX_BYTES", "512KiB")
            .set("DELIVERY__ENABLED", "false")
    })
    .await;
    stage.upstream.configure(Settings::default());
    let (mut taken, status) = publish_until_refused(&stage, "pr_full", 0).await;
    check_refused(&status, "PROJECT_FULL");
    assert!(taken.len() > 20, "{} were taken", taken.len());
    let repeat = stage.publish(&taken[0]).await;
    assert!(repeat.duplicate, "what is here is known all the same: {repeat:?}");
    let more = event("pr_full", MOST_EVENTS);
    let path = "/projects/pr_full/events";
    let body = more.to_upstream_body().to_string();
    let answer = rest::post(stage.sidecar.ready("http"), path, &[], body).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    let other = event("pr_free", 0);
    stage.publish(&other).await;
    stage.sidecar.kill_nine().await;
    stage.settings = stage.settings.clone().set("DELIVERY__ENABLED", "true");
    stage.restart().await;
    await_taken(&stage, &more).await;
    taken.extend([more, other]);
    stage.await_delivered(&taken, wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn dead_letters_at_their_share_keep_new_events_out_and_what_is_here_goes_on() {
    let stage = Stage::with(|settings| settings.set("QUEUE__MAX_BYTES", "512KiB")).await;
    let good = event("", MOST_EVENTS);
    stage.publish(&good).await;
    stage.await_state(&good, State::Delivered).await;
    stage.upstream.push(FaultScript::forever([Step::status(422)]));
    let mut dead = Vec::new();
    let status = loop {
        let event = event("", dead.len());
        match calls::publish(&stage.client(), event.to_proto()).await {
            Ok(_) => stage.await_state(&event, State::DeadLettered).await,
            Err(status) => break status,
        };
        dead.push(event);
        assert!(dead.len() < MOST_EVENTS, "no bound was met");
    };
    check_refused(&status, "DEAD_LETTERS_FULL");
    let lane = admin::lane(&stage.sidecar, PROJECT).await;
    assert!(lane.dead_letter_bytes > 64 * 1024, "{lane:?}");
    stage.upstream.recover();
    let all = ReplayDeadLettersRequest {
        all: true,
        ..ReplayDeadLettersRequest::default()
    };
    admin::replay(&stage.sidecar, all).await.expect("all are there");
    stage.await_delivered(&dead, wait::SOON).await;
    await_taken(&stage, &event("", MOST_EVENTS + 1)).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!(books.dead_lettered, 0.0, "{books:?}");
}
