//! Dead letters: kept with the reason and upstream's words until an operator replays them.

use e2e::admin;
use e2e::event::TestEvent;
use e2e::stage::Stage;
use e2e::tries::ids;
use e2e::{refusal, wait};
use embeddables_mock::{FaultScript, ResetPoint, Step};
use embeddables_proto::admin::v1::{ListDeadLettersRequest, ReplayDeadLettersRequest};
use embeddables_proto::events::v1::{PublishOptions, State};
use serde_json::json;
use tonic::Code;

/// Publishes events of which each becomes a dead letter by this answer.
async fn give_up(stage: &Stage, prefix: &str, count: usize, step: Step) -> Vec<TestEvent> {
    let events: Vec<_> = (0..count)
        .map(|index| TestEvent::new(format!("{prefix}-{index}")))
        .collect();
    for event in &events {
        stage.upstream.fail_next([step.clone()]);
        stage.publish(event).await;
        stage.await_state(event, State::DeadLettered).await;
    }
    events
}

async fn letters(stage: &Stage, reason: &str, page_size: i32) -> Vec<String> {
    let request = ListDeadLettersRequest {
        reason: reason.to_owned(),
        page_size,
        ..ListDeadLettersRequest::default()
    };
    let found = admin::dead_letters(&stage.sidecar, request).await;
    admin::ids(&found).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_dead_letter_shows_reason_attempts_and_upstreams_words_without_what_is_personal() {
    let stage = Stage::new().await;
    let event = TestEvent::new("words-1").about("canary@example.com");
    let words = json!({ "message": "no such plan", "about": event.email, "more": "x".repeat(10_000) });
    stage
        .upstream
        .fail_next([Step::status(422).with_body(words.to_string())]);
    stage.publish(&event).await;
    stage.await_state(&event, State::DeadLettered).await;
    let listed = admin::dead_letters(&stage.sidecar, ListDeadLettersRequest::default()).await;
    assert_eq!(admin::ids(&listed), ["words-1"]);
    let letter = admin::dead_letter(&stage.sidecar, "words-1", false)
        .await
        .expect("it is there");
    for text in [format!("{listed:?}"), format!("{letter:?}")] {
        assert!(!text.contains("canary"), "an identifier is shown: {text}");
    }
    let status = letter.status.as_ref().expect("it tells its event");
    assert_eq!(
        (status.reason.as_str(), status.attempts.len()),
        ("UPSTREAM_REJECTED", 1),
        "{status:?}"
    );
    assert_eq!((letter.http_status, letter.replay_count), (422, 0), "{letter:?}");
    assert!(letter.upstream_body.contains("no such plan"), "{letter:?}");
    assert!(
        letter.upstream_body.len() <= 4_096,
        "{}",
        letter.upstream_body.len()
    );
    assert!(
        letter.dead_letter_time.is_some() && letter.used_bytes > 256,
        "{letter:?}"
    );
    let shown = letter.event.as_ref().expect("it shows the event");
    assert_eq!(
        (shown.name.as_str(), &shown.identifier),
        (event.name.as_str(), &None),
        "{shown:?}"
    );
    let whole = admin::dead_letter(&stage.sidecar, "words-1", true)
        .await
        .expect("it is there");
    let shown = whole.event.expect("it shows the event");
    assert_eq!(shown.identifier, event.to_proto().identifier);
    assert!(shown.properties.is_some(), "{shown:?}");
}

#[tokio::test]
async fn they_are_listed_in_pages_oldest_first_and_by_reason() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__AMBIGUITY", "dead_letter")).await;
    let good = TestEvent::new("good");
    stage.publish(&good).await;
    stage.await_state(&good, State::Delivered).await;
    let rejected = give_up(&stage, "rejected", 7, Step::status(422)).await;
    let ambiguous = give_up(&stage, "ambiguous", 3, Step::reset(ResetPoint::After)).await;
    let of = |events: &[TestEvent]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
    let all = [of(&rejected), of(&ambiguous)].concat();
    for page_size in [0, 1, 3, 500, 100_000] {
        assert_eq!(letters(&stage, "", page_size).await, all, "pages of {page_size}");
    }
    assert_eq!(letters(&stage, "AMBIGUOUS", 2).await, of(&ambiguous));
    assert_eq!(letters(&stage, "UPSTREAM_REJECTED", 2).await, of(&rejected));
    assert!(letters(&stage, "MAX_AGE", 2).await.is_empty());
}

#[tokio::test]
async fn a_replayed_dead_letter_is_delivered_and_is_none_any_more() {
    let stage = Stage::new().await;
    let events = give_up(&stage, "replayed", 3, Step::status(422)).await;
    let ids = ["replayed-0", "replayed-2", "never-seen"];
    let answer = admin::replay_ids(&stage.sidecar, &ids)
        .await
        .expect("two are there");
    assert_eq!(answer.replayed_count, 2, "{answer:?}");
    assert_eq!(answer.unknown_event_ids, ["never-seen"]);
    stage.await_delivered([&events[0], &events[2]], wait::SOON).await;
    let status = stage.await_state(&events[0], State::Delivered).await;
    assert_eq!(status.attempt_count, 2, "its attempts stay noted: {status:?}");
    assert!(
        !status.possible_duplicate,
        "a rejection carried nothing out: {status:?}"
    );
    assert_eq!(letters(&stage, "", 0).await, ["replayed-1"]);
    let gone = admin::dead_letter(&stage.sidecar, "replayed-0", false)
        .await
        .expect_err("it is none");
    refusal::check(&gone, Code::NotFound, "DEAD_LETTER_UNKNOWN");
    let again = admin::replay_ids(&stage.sidecar, &["replayed-0"])
        .await
        .expect_err("it is none");
    assert_eq!(again.code(), Code::NotFound, "{again:?}");
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.accepted, books.delivered), (3.0, 2.0), "{books:?}");
}

#[tokio::test]
async fn all_of_a_reason_are_replayed_at_once_as_the_newest_events() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__MAX_IN_FLIGHT", "1")).await;
    let good = TestEvent::new("good");
    stage.publish(&good).await;
    stage.await_state(&good, State::Delivered).await;
    let dead = give_up(&stage, "dead", 30, Step::status(422)).await;
    admin::hold(&stage.sidecar, "", "").await.expect("it is held");
    let queued = TestEvent::new("queued-before");
    stage.publish(&queued).await;
    let none = ReplayDeadLettersRequest {
        all: true,
        reason: "MAX_AGE".to_owned(),
        ..ReplayDeadLettersRequest::default()
    };
    let answer = admin::replay(&stage.sidecar, none.clone())
        .await
        .expect("none is there");
    assert_eq!(answer.replayed_count, 0, "{answer:?}");
    let all = ReplayDeadLettersRequest {
        reason: "UPSTREAM_REJECTED".to_owned(),
        ..none
    };
    let answer = admin::replay(&stage.sidecar, all).await.expect("all are there");
    assert_eq!(answer.replayed_count, 30, "{answer:?}");
    let before = stage.upstream.request_count();
    admin::resume(&stage.sidecar, "").await.expect("it is resumed");
    stage
        .await_delivered(dead.iter().chain([&queued]), wait::SOON)
        .await;
    stage.drain(wait::SOON).await;
    let tries = stage.upstream.tries();
    let after = ids(&tries[before..]);
    assert_eq!(after[0], "queued-before", "a replay goes last: {after:?}");
    assert_eq!(after.len(), 31, "each once: {after:?}");
}

#[tokio::test]
async fn a_replay_can_fail_and_be_replayed_again_and_ambiguity_is_not_forgotten() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__AMBIGUITY", "dead_letter")).await;
    let events = give_up(&stage, "twice", 1, Step::reset(ResetPoint::After)).await;
    for round in 1..=2 {
        stage.upstream.fail_next([Step::status(422)]);
        let answer = admin::replay_ids(&stage.sidecar, &["twice-0"])
            .await
            .expect("it is there");
        assert_eq!(answer.replayed_count, 1, "{answer:?}");
        stage.upstream.await_tries(1 + round).await;
        let dead = stage
            .await_reason(&events[0], State::DeadLettered, "UPSTREAM_REJECTED")
            .await;
        assert_eq!(usize::try_from(dead.attempt_count), Ok(1 + round), "{dead:?}");
    }
    let letter = admin::dead_letter(&stage.sidecar, "twice-0", false)
        .await
        .expect("it is there");
    assert_eq!(letter.replay_count, 2, "{letter:?}");
    admin::replay_ids(&stage.sidecar, &["twice-0"])
        .await
        .expect("it is there");
    let status = stage.await_state(&events[0], State::Delivered).await;
    assert!(
        status.possible_duplicate,
        "the first attempt may have created it: {status:?}"
    );
    assert_eq!(stage.upstream.look(|created| created["twice-0"].len()), 2);
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_replayed_event_has_no_deadline_and_its_id_is_still_its_own() {
    let stage = Stage::new().await;
    let limit = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    let event = TestEvent::new("late-but-wanted");
    let options = PublishOptions {
        deliver_before: Some(limit.into()),
        ..PublishOptions::default()
    };
    stage.publish_with(&event, options).await;
    stage
        .await_reason(&event, State::DeadLettered, "DELIVER_BEFORE_PASSED")
        .await;
    let repeat = stage.publish(&event).await;
    assert_eq!(
        (repeat.duplicate, repeat.state()),
        (true, State::DeadLettered),
        "{repeat:?}"
    );
    admin::replay_ids(&stage.sidecar, &["late-but-wanted"])
        .await
        .expect("it is there");
    stage.await_state(&event, State::Delivered).await;
    let repeat = stage.publish(&event).await;
    assert_eq!(
        (repeat.duplicate, repeat.state()),
        (true, State::Delivered),
        "{repeat:?}"
    );
    stage.drain(wait::SOON).await;
    assert_eq!(stage.upstream.request_count(), 1);
}

#[tokio::test]
async fn dead_letters_and_replays_survive_a_kill() {
    let mut stage = Stage::new().await;
    let events = give_up(&stage, "killed", 5, Step::status(422)).await;
    stage.kill_and_restart().await;
    assert_eq!(letters(&stage, "", 2).await.len(), 5);
    stage.upstream.push(FaultScript::forever([Step::status(503)]));
    let all = ReplayDeadLettersRequest {
        all: true,
        ..ReplayDeadLettersRequest::default()
    };
    admin::replay(&stage.sidecar, all).await.expect("all are there");
    stage.kill_and_restart().await;
    assert!(letters(&stage, "", 0).await.is_empty());
    stage.upstream.recover();
    stage.await_delivered(&events, wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_replay_that_does_not_say_which_is_refused() {
    let stage = Stage::new().await;
    let unclear = [
        ReplayDeadLettersRequest::default(),
        ReplayDeadLettersRequest {
            event_ids: vec!["one".to_owned()],
            all: true,
            ..ReplayDeadLettersRequest::default()
        },
    ];
    for request in unclear {
        let status = admin::replay(&stage.sidecar, request).await.expect_err("unclear");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}
