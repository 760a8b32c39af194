//! What became of events, as a stream with durable cursors; and `Flush`, which waits until nothing is under way.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::event::TestEvent;
use e2e::lanes::await_held;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::watching::{self, Wanted, Watch};
use e2e::{refusal, wait};
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::events::v1::{State, WatchOutcomesResponse};
use tokio::time::Instant;
use tonic::Code;

fn events(prefix: &str, count: usize) -> Vec<TestEvent> {
    (0..count)
        .map(|index| TestEvent::new(format!("{prefix}-{index}")))
        .collect()
}

async fn open(stage: &Stage, wanted: Wanted) -> Watch {
    Watch::open(&stage.client(), wanted)
        .await
        .expect("the stream opens")
}

fn ids(outcomes: &[WatchOutcomesResponse]) -> Vec<&str> {
    outcomes.iter().map(watching::id).collect()
}

#[tokio::test]
async fn outcomes_come_as_they_happen_and_tell_all_about_the_event() {
    let stage = Stage::new().await;
    let before = TestEvent::new("before");
    stage.publish(&before).await;
    stage.await_state(&before, State::Delivered).await;
    let mut watch = open(&stage, Wanted::default()).await;
    let good = TestEvent::new("good");
    stage.publish(&good).await;
    let outcome = watch.take(1).await.remove(0);
    let status = outcome.status.as_ref().expect("an outcome shows its event");
    assert_eq!(
        (status.event_id.as_str(), status.state()),
        ("good", State::Delivered),
        "{outcome:?}"
    );
    assert_eq!(status.project_id, PROJECT, "{outcome:?}");
    assert!(
        status.receipt.is_some() && outcome.outcome_time.is_some(),
        "{outcome:?}"
    );
    assert!(!outcome.cursor.is_empty(), "{outcome:?}");
    stage.upstream.fail_next([Step::status(422)]);
    stage.publish(&TestEvent::new("bad")).await;
    let outcome = watch.take(1).await.remove(0);
    let status = outcome.status.as_ref().expect("an outcome shows its event");
    assert_eq!(
        (status.event_id.as_str(), status.state(), status.reason.as_str()),
        ("bad", State::DeadLettered, "UPSTREAM_REJECTED"),
        "{outcome:?}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_cursor_goes_on_without_gap_or_repeat_across_restarts() {
    let mut stage = Stage::new().await;
    let events = events("cursor", 40);
    stage.publish_all(&events[..20]).await;
    let mut seen = Vec::new();
    let mut cursor = "earliest".to_owned();
    for part in 0..4 {
        if part == 2 {
            stage.publish_all(&events[20..]).await;
        }
        let mut watch = open(&stage, Wanted::from(&*cursor)).await;
        let outcomes = watch.take(10).await;
        cursor = outcomes.last().expect("ten outcomes").cursor.clone();
        seen.extend(outcomes);
        if part % 2 == 0 {
            stage.kill_and_restart().await;
        } else {
            stage.sidecar.terminate();
            stage.sidecar.wait_for_end().await;
            stage.restart().await;
        }
    }
    let seen_ids: BTreeSet<_> = ids(&seen).into_iter().map(str::to_owned).collect();
    let expected: BTreeSet<_> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(seen_ids, expected, "each once: {:?}", ids(&seen));
    let mut all = open(&stage, Wanted::earliest()).await;
    assert_eq!(
        ids(&all.take(40).await),
        ids(&seen),
        "the order is the same for everybody"
    );
}

#[tokio::test]
async fn a_watcher_that_comes_back_gets_what_happened_while_it_was_away() {
    let stage = Stage::new().await;
    let mut watch = open(&stage, Wanted::default()).await;
    let first = TestEvent::new("first");
    stage.publish(&first).await;
    let cursor = watch.take(1).await.remove(0).cursor;
    drop(watch);
    let away = events("away", 10);
    stage.publish_all(&away).await;
    stage.drain(wait::SOON).await;
    let mut watch = open(&stage, Wanted::from(cursor)).await;
    let outcomes = watch.take(10).await;
    let seen: BTreeSet<_> = ids(&outcomes).into_iter().collect();
    assert_eq!(seen, away.iter().map(|event| event.id.as_str()).collect());
}

#[tokio::test]
async fn only_the_states_and_the_project_that_were_asked_for_come() {
    let stage = Stage::with(|settings| settings.with_projects([("pr_one", ""), ("pr_two", "")])).await;
    stage.upstream.configure(Settings::default());
    let rejected = FaultScript::once([Step::status(422)]);
    stage.upstream.push(rejected.clone().for_project("pr_one"));
    stage.upstream.push(rejected.for_project("pr_two"));
    for project in ["pr_one", "pr_two"] {
        for fate in ["dead", "delivered"] {
            let event = TestEvent::new(format!("{project}-{fate}")).in_project(project);
            stage.publish(&event).await;
            let state = if fate == "dead" {
                State::DeadLettered
            } else {
                State::Delivered
            };
            stage.await_state(&event, state).await;
        }
    }
    let dead = Wanted {
        states: vec![State::DeadLettered],
        ..Wanted::earliest()
    };
    let outcomes = open(&stage, dead).await.take(2).await;
    assert_eq!(ids(&outcomes), ["pr_one-dead", "pr_two-dead"]);
    let two = Wanted {
        project: "pr_two".to_owned(),
        ..Wanted::earliest()
    };
    let outcomes = open(&stage, two).await.take(2).await;
    assert_eq!(ids(&outcomes), ["pr_two-dead", "pr_two-delivered"]);
}

/// How a stream fails that cannot begin: at once, or with its first message.
async fn failure(stage: &Stage, wanted: Wanted) -> tonic::Status {
    match Watch::open(&stage.client(), wanted).await {
        Err(status) => status,
        Ok(mut watch) => watch.next().await.expect_err("the stream cannot begin"),
    }
}

#[tokio::test]
async fn a_cursor_of_another_store_is_out_of_range_and_the_oldest_valid_one_is_told() {
    let (other, stage) = (Stage::new().await, Stage::new().await);
    for stage in [&other, &stage] {
        stage.publish(&TestEvent::new("one")).await;
        stage.drain(wait::SOON).await;
    }
    let foreign = open(&other, Wanted::earliest())
        .await
        .take(1)
        .await
        .remove(0)
        .cursor;
    let status = failure(&stage, Wanted::from(foreign)).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(!refusal::reason(&status).is_empty());
    let oldest = refusal::metadata(&status, "oldest_cursor");
    let mut watch = open(&stage, Wanted::from(oldest)).await;
    assert_eq!(
        ids(&watch.take(1).await),
        ["one"],
        "it begins with the oldest outcome"
    );
}

#[tokio::test]
async fn a_cursor_older_than_what_is_kept_is_out_of_range_and_says_where_to_go_on() {
    let stage = Stage::with(|settings| settings.set("QUEUE__DEDUPE_IDS", "10")).await;
    let events = events("old", 40);
    let mut watch = open(&stage, Wanted::default()).await;
    stage.publish(&events[0]).await;
    let cursor = watch.take(1).await.remove(0).cursor;
    drop(watch);
    stage.publish_all(&events[1..]).await;
    stage.drain(wait::SOON).await;
    let status = wait::until("old outcomes to go", wait::SOON, async || {
        match Watch::open(&stage.client(), Wanted::from(&*cursor)).await {
            Err(status) => Some(status),
            Ok(mut watch) => watch.next().await.err(),
        }
    })
    .await;
    refusal::check(&status, Code::OutOfRange, "CURSOR_EXPIRED");
    let oldest = refusal::metadata(&status, "oldest_cursor");
    let kept = open(&stage, Wanted::from(oldest)).await.take(10).await;
    let earliest = open(&stage, Wanted::earliest()).await.take(10).await;
    assert_eq!(ids(&kept), ids(&earliest));
}

#[tokio::test]
async fn a_stream_ends_with_a_word_to_come_again_when_the_sidecar_shuts_down() {
    let mut stage = Stage::new().await;
    let mut watch = open(&stage, Wanted::default()).await;
    stage.publish(&TestEvent::new("last")).await;
    let cursor = watch.take(1).await.remove(0).cursor;
    stage.sidecar.terminate();
    let end = watch.next().await.expect_err("no outcome follows");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let ended = stage.sidecar.wait_for_end().await;
    assert_eq!(
        ended.code(),
        Some(0),
        "a watcher keeps nobody from ending: {ended}"
    );
    stage.restart().await;
    let mut watch = open(&stage, Wanted::from(cursor)).await;
    stage.publish(&TestEvent::new("next")).await;
    assert_eq!(ids(&watch.take(1).await), ["next"]);
}

#[tokio::test]
async fn a_project_that_is_not_configured_can_be_neither_watched_nor_flushed() {
    let stage = Stage::new().await;
    let unknown = Wanted {
        project: "pr_unknown".to_owned(),
        ..Wanted::default()
    };
    let status = failure(&stage, unknown).await;
    refusal::check(&status, Code::FailedPrecondition, "PROJECT_NOT_CONFIGURED");
    let flushed = watching::flush(&stage.client(), "pr_unknown", wait::SOON).await;
    let status = flushed.expect_err("nobody is there");
    refusal::check(&status, Code::FailedPrecondition, "PROJECT_NOT_CONFIGURED");
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let stage = Stage::new().await;
    for cursor in ["x", "-1", "earliest ", "0000000000000000"] {
        let status = failure(&stage, Wanted::from(cursor)).await;
        assert!(
            matches!(status.code(), Code::InvalidArgument | Code::OutOfRange),
            "{cursor:?}: {status:?}"
        );
    }
}

#[tokio::test]
async fn flush_returns_once_all_that_was_accepted_before_is_settled() {
    let stage = Stage::new().await;
    stage
        .upstream
        .push(FaultScript::forever([Step::latency(Duration::from_millis(200))]));
    let events = events("flush", 12);
    stage.publish_all(&events).await;
    let flushed = watching::flush(&stage.client(), "", wait::SOON)
        .await
        .expect("it answers");
    let left = (flushed.queued_count, flushed.waiting_count, flushed.held_count);
    assert_eq!((left, flushed.dead_lettered_count), ((0, 0, 0), 0), "{flushed:?}");
    assert!((1..=12).contains(&flushed.delivered_count), "{flushed:?}");
    for event in &events {
        assert_eq!(stage.status(event).await.state(), State::Delivered);
    }
    let again = watching::flush(&stage.client(), PROJECT, wait::SOON)
        .await
        .expect("it answers");
    assert_eq!(
        again,
        embeddables_proto::events::v1::FlushResponse::default(),
        "nothing was left"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn flush_tells_what_is_left_shortly_before_the_deadline() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let stage = Stage::with(|settings| {
        settings
            .with_projects([("pr_held", ""), ("pr_parked", "")])
            .without_probes()
            .set("DELIVERY__ENTRY_SCHEDULE", r#"["1h"]"#)
    })
    .await;
    stage.upstream.configure(Settings {
        keys: [("pr_parked".to_owned(), vec!["rk_test_pr_parked".to_owned()])].into(),
        any_entry: Some(false),
        ..Settings::default()
    });
    let held = events("held", 3)
        .into_iter()
        .map(|event| event.in_project("pr_held"));
    let parked: Vec<_> = events("parked", 2)
        .into_iter()
        .map(|event| event.in_project("pr_parked"))
        .collect();
    stage.publish_all(&held.collect::<Vec<_>>()).await;
    stage.publish_all(&parked).await;
    await_held(&stage.sidecar, "pr_held", "KEY_REJECTED").await;
    for event in &parked {
        stage.await_state(event, State::Waiting).await;
    }
    let begun = Instant::now();
    let left = watching::flush(&stage.client(), "", DEADLINE)
        .await
        .expect("it answers in time");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    assert_eq!(
        (left.queued_count, left.waiting_count, left.held_count),
        (0, 2, 3),
        "{left:?}"
    );
    assert_eq!(
        (left.delivered_count, left.dead_lettered_count),
        (0, 0),
        "{left:?}"
    );
    let left = watching::flush(&stage.client(), "pr_parked", Duration::from_millis(500)).await;
    let left = left.expect("it answers in time");
    assert_eq!((left.waiting_count, left.held_count), (2, 0), "{left:?}");
    stage.balance_books().await;
}

#[tokio::test]
async fn flush_counts_what_was_given_up_meanwhile() {
    let stage = Stage::new().await;
    stage.upstream.push(FaultScript::forever([Step {
        latency_ms: Some(500),
        ..Step::status(422)
    }]));
    stage.publish(&TestEvent::new("given-up")).await;
    let flushed = watching::flush(&stage.client(), "", wait::SOON)
        .await
        .expect("it answers");
    assert_eq!(
        (flushed.delivered_count, flushed.dead_lettered_count),
        (0, 1),
        "{flushed:?}"
    );
    stage.drain(wait::SOON).await;
}
