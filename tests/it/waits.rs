//! Callers that wait: `WAIT_DELIVERED` over gRPC, `Prefer: wait` over HTTP. An event that is safe is never an error.

use std::time::Duration;

use e2e::calls::Client;
use e2e::event::TestEvent;
use e2e::lanes::await_held;
use e2e::rest::{self, Answer};
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::{calls, wait};
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::events::v1::{
    EventStatus, PublishEventRequest, PublishEventsRequest, PublishOptions, State, StreamEventsRequest, Wait,
};
use tokio::time::Instant;
use tonic::Request;

fn until_delivered() -> PublishOptions {
    PublishOptions {
        wait: Wait::Delivered.into(),
        ..PublishOptions::default()
    }
}

/// Publishes, waits for delivery with this deadline, and tells how long that took.
async fn publish_within(client: &Client, event: &TestEvent, deadline: Duration) -> (EventStatus, Duration) {
    let mut request = Request::new(PublishEventRequest {
        event: Some(event.to_proto()),
        options: Some(until_delivered()),
    });
    request.set_timeout(deadline);
    let begun = Instant::now();
    let answer = client.clone().publish_event(request).await;
    let status = answer
        .expect("an event that is safe is never an error")
        .into_inner()
        .status;
    (
        status.expect("an answer holds the event's status"),
        begun.elapsed(),
    )
}

#[tokio::test]
async fn an_answer_that_waits_tells_the_state_reached_and_the_receipt() {
    let stage = Stage::new().await;
    let client = stage.client();
    let (good, _) = publish_within(&client, &TestEvent::new("good"), wait::SOON).await;
    assert_eq!(good.state(), State::Delivered, "{good:?}");
    assert!(good.receipt.is_some_and(|receipt| !receipt.entry_id.is_empty()));
    stage.upstream.fail_next([Step::status(503), Step::status(422)]);
    let (bad, _) = publish_within(&client, &TestEvent::new("bad"), wait::SOON).await;
    assert_eq!(
        (bad.state(), bad.reason.as_str()),
        (State::DeadLettered, "UPSTREAM_REJECTED"),
        "{bad:?}"
    );
    let (again, _) = publish_within(&client, &TestEvent::new("good"), wait::SOON).await;
    assert_eq!(
        (again.state(), again.duplicate),
        (State::Delivered, true),
        "{again:?}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn near_the_callers_deadline_the_answer_tells_how_far_the_event_has_come() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "0s")).await;
    stage
        .upstream
        .push(FaultScript::once([Step::latency(Duration::from_secs(60))]));
    let (slow, took) = publish_within(&stage.client(), &TestEvent::new("slow"), DEADLINE).await;
    assert_eq!(slow.state(), State::Queued, "{slow:?}");
    assert!(took < DEADLINE, "{took:?}");
    stage.upstream.push(FaultScript::forever([Step::status(503)]));
    let (waiting, took) = publish_within(&stage.client(), &TestEvent::new("waiting"), DEADLINE).await;
    assert!(
        matches!(waiting.state(), State::Waiting | State::Queued),
        "{waiting:?}"
    );
    assert!(took < DEADLINE, "{took:?}");
    stage.balance_books().await;
}

#[tokio::test]
async fn who_waits_in_a_held_lane_is_told_so() {
    let stage = Stage::with(|settings| settings.without_probes()).await;
    stage.upstream.configure(Settings {
        keys: [(PROJECT.to_owned(), vec!["rk_test_another".to_owned()])].into(),
        ..Settings::default()
    });
    stage.publish(&TestEvent::new("first")).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    let deadline = Duration::from_secs(1);
    let (held, _) = publish_within(&stage.client(), &TestEvent::new("held"), deadline).await;
    assert_eq!(
        (held.state(), held.reason.as_str()),
        (State::Held, "KEY_REJECTED"),
        "{held:?}"
    );
    stage.balance_books().await;
}

#[tokio::test]
async fn a_batch_that_waits_tells_each_events_state() {
    let stage = Stage::new().await;
    stage
        .upstream
        .push(FaultScript::forever([Step::latency(Duration::from_millis(50))]));
    let events: Vec<_> = (0..20)
        .map(|index| TestEvent::new(format!("batch-{index}")))
        .collect();
    let request = PublishEventsRequest {
        events: events.iter().map(TestEvent::to_proto).collect(),
        options: Some(until_delivered()),
        all_or_nothing: false,
    };
    let answer = stage.client().publish_events(request).await.expect("good events");
    for result in answer.into_inner().results {
        let status = calls::taken(result);
        assert_eq!(status.state(), State::Delivered, "{status:?}");
    }
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn in_a_stream_who_waits_holds_up_nobody_who_does_not() {
    let stage = Stage::new().await;
    stage
        .upstream
        .push(FaultScript::once([Step::latency(Duration::from_secs(2))]));
    let message = |sequence, id: &str, options| StreamEventsRequest {
        sequence,
        event: Some(TestEvent::new(id).to_proto()),
        options,
    };
    let messages = vec![
        message(1, "waits", Some(until_delivered())),
        message(2, "does-not", None),
    ];
    let answers = stage.client().stream_events(tokio_stream::iter(messages)).await;
    let mut answers = answers.expect("the stream opens").into_inner();
    let mut order = Vec::new();
    while let Some(answer) = wait::within("an answer", wait::SOON, answers.message())
        .await
        .expect("the stream goes on")
    {
        for result in answer.results {
            order.push((
                result.sequence,
                calls::taken(result.result.expect("a result")).state(),
            ));
        }
    }
    assert_eq!(order.len(), 2, "{order:?}");
    assert_eq!(order[0].0, 2, "{order:?}");
    assert_eq!(order[1], (1, State::Delivered), "{order:?}");
    stage.drain(wait::SOON).await;
}

async fn post(stage: &Stage, event: &TestEvent, prefer: &str) -> Answer {
    let path = format!("/projects/{PROJECT}/events");
    let headers = [("idempotency-key", event.id.as_str()), ("prefer", prefer)];
    let body = event.to_upstream_body().to_string();
    rest::post(stage.sidecar.ready("http"), &path, &headers, body).await
}

#[tokio::test]
async fn over_http_prefer_wait_gives_upstreams_answer_or_says_that_it_is_not_there_yet() {
    let stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "0s")).await;
    let good = post(&stage, &TestEvent::new("http-good"), "wait=20").await;
    assert_eq!(good.status, 200, "{good:?}");
    assert!(good.json()["entry_id"].is_string(), "{good:?}");
    stage.upstream.fail_next([Step::status(422)]);
    let rejected = post(&stage, &TestEvent::new("http-bad"), "wait=20").await;
    assert_eq!(rejected.status, 422, "{rejected:?}");
    assert_eq!(rejected.header("content-type"), "application/problem+json");
    assert_eq!(rejected.json()["reason"], "UPSTREAM_REJECTED", "{rejected:?}");
    stage
        .upstream
        .push(FaultScript::once([Step::latency(Duration::from_secs(60))]));
    let slow = post(&stage, &TestEvent::new("http-slow"), "wait=1").await;
    assert_eq!(slow.status, 202, "{slow:?}");
    assert_eq!(slow.json()["event_id"], "http-slow", "{slow:?}");
    let at_once = post(&stage, &TestEvent::new("http-at-once"), "respond-async").await;
    assert_eq!(at_once.status, 202, "{at_once:?}");
    stage.balance_books().await;
}
