//! Attempts whose fate is unknown: flagged, and tried again or set aside as the policy says.

use std::path::Path;
use std::time::Duration;

use e2e::event::TestEvent;
use e2e::lanes::{self, await_scrape};
use e2e::settings::Settings;
use e2e::sidecar::Sidecar;
use e2e::stage::Stage;
use e2e::upstream::body_of;
use e2e::{calls, metrics, refusal, wait};
use embeddables_mock::{FaultScript, ResetPoint, Step, Truncate};
use embeddables_proto::events::v1::{Attempt, AttemptOutcome, EventStatus, State};
use serde_json::json;
use tonic::Code;

fn outcomes(status: &EventStatus) -> Vec<AttemptOutcome> {
    status.attempts.iter().map(Attempt::outcome).collect()
}

/// Answers, and whether the request may have been carried out.
fn answers() -> Vec<(Step, AttemptOutcome)> {
    use AttemptOutcome::{Ambiguous, Rejected};
    vec![
        (Step::status(408), Ambiguous),
        (Step::status(500), Ambiguous),
        (Step::status(502), Ambiguous),
        (Step::status(504).with_body("<html>gateway</html>"), Ambiguous),
        (Step::reset(ResetPoint::Before), Ambiguous),
        (Step::reset(ResetPoint::After), Ambiguous),
        (
            Step {
                truncate: Some(Truncate::Bytes(3)),
                ..Step::status(500)
            },
            Ambiguous,
        ),
        (Step::status(425), Rejected),
        (Step::status(429), Rejected),
        (Step::status(503), Rejected),
        (Step::status(403), Rejected),
    ]
}

#[tokio::test]
async fn each_answer_that_does_not_say_is_flagged_and_each_that_says_no_is_not() {
    let stage = Stage::new().await;
    for (index, (step, expected)) in answers().into_iter().enumerate() {
        let what = format!("{step:?}");
        stage.upstream.fail_next([step]);
        let event = TestEvent::new(format!("answer-{index}"));
        stage.publish(&event).await;
        let status = stage.await_state(&event, State::Delivered).await;
        assert_eq!(
            outcomes(&status),
            [expected, AttemptOutcome::Accepted],
            "{what}: {status:?}"
        );
        let is_ambiguous = expected == AttemptOutcome::Ambiguous;
        assert_eq!(status.possible_duplicate, is_ambiguous, "{what}: {status:?}");
    }
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn under_dead_letter_an_ambiguous_event_is_set_aside_and_never_sent_twice() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__AMBIGUITY", "dead_letter")).await;
    for (index, (step, outcome)) in answers().into_iter().enumerate() {
        let what = format!("{step:?}");
        stage.upstream.fail_next([step]);
        let event = TestEvent::new(format!("aside-{index}"));
        stage.publish(&event).await;
        if outcome == AttemptOutcome::Ambiguous {
            let dead = stage.await_reason(&event, State::DeadLettered, "AMBIGUOUS").await;
            assert_eq!(outcomes(&dead), [AttemptOutcome::Ambiguous], "{what}: {dead:?}");
            assert!(!dead.possible_duplicate, "it went once at most, {what}: {dead:?}");
        } else {
            stage.await_state(&event, State::Delivered).await;
        }
    }
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.dead_lettered, books.delivered), (7.0, 4.0), "{books:?}");
    stage.upstream.look(|created| {
        assert!(created.values().all(|bodies| bodies.len() == 1), "{created:?}");
    });
}

#[tokio::test]
async fn under_dead_letter_the_first_ambiguous_attempt_opens_the_breaker() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__AMBIGUITY", "dead_letter")).await;
    stage.upstream.fail_next([Step::status(500)]);
    let event = TestEvent::new("opens");
    stage.publish(&event).await;
    stage.await_reason(&event, State::DeadLettered, "AMBIGUOUS").await;
    await_scrape(&stage.sidecar, "the breaker to be open", |scrape| {
        lanes::count(scrape, "breaker_open") + lanes::count(scrape, "breaker_half_open") == 1.0
    })
    .await;
    let next = TestEvent::new("closes");
    stage.publish(&next).await;
    stage.await_state(&next, State::Delivered).await;
    await_scrape(&stage.sidecar, "the lane to be open", |scrape| {
        lanes::count(scrape, "open") == 1.0
    })
    .await;
}

/// Has events in flight upstream that will not be answered, and kills the sidecar.
async fn interrupt(stage: &mut Stage, count: usize) -> Vec<TestEvent> {
    stage
        .upstream
        .push(FaultScript::forever([Step::latency(Duration::from_secs(60))]));
    let events: Vec<_> = (0..count)
        .map(|index| TestEvent::new(format!("interrupted-{index}")))
        .collect();
    stage.publish_all(&events).await;
    stage.upstream.await_tries(1).await;
    stage.sidecar.kill_nine().await;
    stage.upstream.recover();
    events
}

#[tokio::test]
async fn under_dead_letter_an_attempt_that_a_kill_interrupted_is_set_aside() {
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__AMBIGUITY", "dead_letter")).await;
    let events = interrupt(&mut stage, 1).await;
    stage.restart().await;
    let dead = stage
        .await_reason(&events[0], State::DeadLettered, "AMBIGUOUS")
        .await;
    assert!(outcomes(&dead).contains(&AttemptOutcome::Ambiguous), "{dead:?}");
    stage.drain(wait::SOON).await;
    assert_eq!(stage.upstream.request_count(), 1, "it is not sent again");
}

#[tokio::test]
async fn what_never_left_is_not_flagged_by_a_kill() {
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__MAX_IN_FLIGHT", "1")).await;
    let events = interrupt(&mut stage, 3).await;
    stage.restart().await;
    stage.await_delivered(&events, wait::SOON).await;
    stage.drain(wait::SOON).await;
    let flags = [stage.status(&events[0]).await, stage.status(&events[2]).await];
    assert!(flags[0].possible_duplicate, "it was in flight: {flags:?}");
    assert!(!flags[1].possible_duplicate, "it was not: {flags:?}");
}

#[tokio::test]
async fn the_stamp_puts_the_id_into_the_props_and_changes_nothing_else() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__STAMP_EVENT_ID", "_event_id")).await;
    let event = TestEvent::new("stamped-1");
    stage.publish(&event).await;
    stage.await_state(&event, State::Delivered).await;
    let sent = body_of(&stage.upstream.requests()[0]);
    assert_eq!(sent, event.clone().with("_event_id", "stamped-1").body());
    // The caller's content is compared, without the stamp.
    assert!(stage.publish(&event).await.duplicate);
    let taken = event.clone().with("_event_id", "mine");
    let taken = TestEvent {
        id: "stamped-2".to_owned(),
        ..taken
    };
    let refused = calls::publish(&stage.client(), taken.to_proto())
        .await
        .expect_err("the name is taken");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let reasons: Vec<_> = refusal::violations(&refused)
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    assert_eq!(reasons, ["PROPS_STAMP_TAKEN"]);
    stage.drain(wait::SOON).await;
    assert_eq!(stage.upstream.request_count(), 1);
}

#[tokio::test]
async fn an_id_that_the_sidecar_made_is_stamped_too() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__STAMP_EVENT_ID", "_event_id")).await;
    let mut proto = TestEvent::new("not-the-id").to_proto();
    proto.event_id = String::new();
    let status = calls::publish(&stage.client(), proto)
        .await
        .expect("a valid event");
    calls::await_state(&stage.client(), &status.event_id, State::Delivered, wait::SOON).await;
    let sent = body_of(&stage.upstream.requests()[0]);
    let stamp = &sent["custom_event_props"]["parsed"]["_event_id"];
    assert_eq!(*stamp, json!(status.event_id), "{sent}");
}

/// Copies a folder's files as `cp -a` does, one after the other.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new folder");
    for file in from.read_dir().expect("the folder can be read") {
        let file = file.expect("the folder can be read");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a file can be copied");
    }
}

#[tokio::test]
async fn every_pending_event_of_a_copied_data_directory_is_flagged() {
    // Kept back, so that all of them are pending when the copy is made.
    let stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    let events: Vec<_> = (0..20)
        .map(|index| TestEvent::new(format!("copied-{index}")))
        .collect();
    stage.publish_all(&events).await;
    let copy = stage.directory().join("copy");
    std::fs::create_dir(&copy).expect("a new folder");
    copy_folder(&stage.settings.queue_directory(), &copy.join("queue"));
    let settings = Settings::new(&copy, &stage.upstream.url());
    let other = Sidecar::start(&settings).await;
    let client = calls::client(&other);
    for event in &events {
        let status = calls::await_state(&client, &event.id, State::Delivered, wait::SOON).await;
        assert!(status.possible_duplicate, "both copies have it: {status:?}");
    }
    let books = metrics::balance_books(&other).await;
    assert_eq!((books.delivered, books.quarantined), (20.0, 0.0), "{books:?}");
    assert_eq!(
        stage.balance_books().await.here,
        20.0,
        "the original still has them"
    );
}
