//! A caller's repeat is one event: sequential, concurrent, within one call, after a restart, over HTTP.

use e2e::event::TestEvent;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::{calls, refusal, rest, wait};
use embeddables_mock::Step;
use embeddables_proto::events::v1::State;
use tonic::Code;

#[tokio::test]
async fn a_repeat_is_the_same_event_with_its_present_state() {
    let stage = Stage::new().await;
    let (client, event) = (stage.client(), TestEvent::new("repeat-1"));
    let first = calls::publish(&client, event.to_proto())
        .await
        .expect("a valid event");
    assert!(!first.duplicate, "{first:?}");
    calls::await_state(&client, &event.id, State::Delivered, wait::SOON).await;
    let second = calls::publish(&client, event.to_proto())
        .await
        .expect("a repeat is welcome");
    assert!(second.duplicate, "{second:?}");
    assert_eq!(second.state(), State::Delivered, "{second:?}");
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
    assert_eq!(stage.upstream.request_count(), 1);
}

#[tokio::test]
async fn the_same_id_with_another_content_is_refused() {
    let stage = Stage::new().await;
    let (client, event) = (stage.client(), TestEvent::new("reused-1"));
    calls::publish(&client, event.to_proto())
        .await
        .expect("a valid event");
    let others = [
        event.clone().with("more", 1),
        TestEvent {
            name: "another".to_owned(),
            ..event.clone()
        },
    ];
    for other in others {
        let status = calls::publish(&client, other.to_proto())
            .await
            .expect_err("another content");
        refusal::check(&status, Code::AlreadyExists, "EVENT_ID_REUSED");
    }
    stage.await_delivered([&event], wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
}

#[tokio::test]
async fn of_many_concurrent_repeats_exactly_one_is_the_first() {
    let stage = Stage::new().await;
    let event = TestEvent::new("concurrent-1");
    let clients = [
        stage.client(),
        stage.client(),
        calls::unix(stage.sidecar.ready("grpc_unix")),
    ];
    let publishing = (0..64).map(|index| {
        let (client, event) = (clients[index % clients.len()].clone(), event.to_proto());
        tokio::spawn(async move { calls::publish(&client, event).await })
    });
    let mut firsts = 0;
    for published in publishing.collect::<Vec<_>>() {
        let status = published
            .await
            .expect("no call panics")
            .expect("each repeat is welcome");
        firsts += usize::from(!status.duplicate);
    }
    assert_eq!(firsts, 1);
    stage.await_delivered([&event], wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
    assert_eq!(stage.upstream.request_count(), 1);
}

#[tokio::test]
async fn of_many_concurrent_contents_of_one_id_exactly_one_is_taken() {
    let stage = Stage::new().await;
    let event = |index: usize| TestEvent::new("contended-1").with("variant", index);
    let publishing = (0..32).map(|index| {
        let (client, event) = (stage.client(), event(index).to_proto());
        tokio::spawn(async move { (index, calls::publish(&client, event).await) })
    });
    let mut taken = Vec::new();
    for published in publishing.collect::<Vec<_>>() {
        match published.await.expect("no call panics") {
            (index, Ok(_)) => taken.push(index),
            (_, Err(status)) => refusal::check(&status, Code::AlreadyExists, "EVENT_ID_REUSED"),
        }
    }
    let [index] = taken[..] else {
        panic!("several contents were taken under one id: {taken:?}")
    };
    stage.await_delivered([&event(index)], wait::SOON).await;
    assert_eq!(stage.upstream.request_count(), 1);
}

#[tokio::test]
async fn a_repeat_within_one_batch_is_one_event() {
    let stage = Stage::new().await;
    let (client, event) = (stage.client(), TestEvent::new("batch-1"));
    let other = event.clone().with("more", true);
    let events = vec![event.to_proto(), event.to_proto(), other.to_proto()];
    let mut results = calls::publish_batch(&client, events)
        .await
        .expect("a batch with a good event")
        .into_iter();
    let mut next = || results.next().expect("a result an event");
    assert!(!calls::taken(next()).duplicate);
    assert!(calls::taken(next()).duplicate);
    let refusal = calls::refused(next());
    assert_eq!(
        (Code::from(refusal.code), refusal.reason.as_str()),
        (Code::AlreadyExists, "EVENT_ID_REUSED")
    );
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
}

#[tokio::test]
async fn a_repeat_after_a_kill_is_still_the_same_event() {
    let mut stage = Stage::new().await;
    let event = TestEvent::new("killed-1");
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
    stage.await_delivered([&event], wait::SOON).await;
    stage.sidecar.kill_nine().await;
    stage.restart().await;
    let status = calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a repeat is welcome");
    assert!(status.duplicate, "{status:?}");
    let other = event.clone().with("more", 1).to_proto();
    let status = calls::publish(&stage.client(), other)
        .await
        .expect_err("another content");
    refusal::check(&status, Code::AlreadyExists, "EVENT_ID_REUSED");
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
}

#[tokio::test]
async fn over_http_the_idempotency_key_is_the_events_id() {
    let stage = Stage::new().await;
    let event = TestEvent::new("http-1");
    let path = format!("/projects/{PROJECT}/events");
    let headers = [("idempotency-key", event.id.as_str())];
    let post = async |body: &TestEvent| {
        rest::post(
            stage.sidecar.ready("http"),
            &path,
            &headers,
            body.to_upstream_body().to_string(),
        )
        .await
    };
    for _ in 0..2 {
        let answer = post(&event).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json()["event_id"], event.id, "{answer:?}");
    }
    // The same event over gRPC is a repeat too.
    let status = calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a repeat is welcome");
    assert!(status.duplicate, "{status:?}");
    let answer = post(&event.clone().with("more", 1)).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    stage.await_delivered([&event], wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
}

#[tokio::test]
async fn a_repeat_tells_the_state_that_the_event_is_in_now_whatever_that_is() {
    let stage = Stage::with(|settings| settings.without_probes().without_retries()).await;
    let check = async |event: &TestEvent, state: State, reason: &str| {
        stage.await_reason(event, state, reason).await;
        let repeat = stage.publish(event).await;
        assert!(repeat.duplicate, "{repeat:?}");
        assert_eq!(
            (repeat.state(), repeat.reason.as_str()),
            (state, reason),
            "{repeat:?}"
        );
    };
    let answers = [
        (
            "waiting",
            Step::status(503),
            State::Waiting,
            "UPSTREAM_UNAVAILABLE",
        ),
        (
            "dead",
            Step::status(422),
            State::DeadLettered,
            "UPSTREAM_REJECTED",
        ),
        ("held", Step::status(401), State::Held, "KEY_REJECTED"),
    ];
    for (id, step, state, reason) in answers {
        stage.upstream.fail_next([step]);
        let event = TestEvent::new(id);
        stage.publish(&event).await;
        check(&event, state, reason).await;
    }
    let never_tried = TestEvent::new("held-too");
    stage.publish(&never_tried).await;
    check(&never_tried, State::Held, "KEY_REJECTED").await;
    let books = stage.balance_books().await;
    assert_eq!((books.accepted, books.dead_lettered), (4.0, 1.0), "{books:?}");
    assert_eq!(stage.upstream.request_count(), 3);
}

#[tokio::test]
async fn the_same_id_in_another_project_is_another_event() {
    let stage = Stage::with(|settings| settings.with_projects([("pr_one", ""), ("pr_two", "")])).await;
    stage.upstream.configure(embeddables_mock::Settings::default());
    for project in ["pr_one", "pr_two"] {
        let event = TestEvent::new("shared-id")
            .with("of", project)
            .in_project(project);
        assert!(!stage.publish(&event).await.duplicate);
        assert!(stage.publish(&event).await.duplicate);
        stage.await_state(&event, State::Delivered).await;
        assert_eq!(stage.upstream.tries_of(project).len(), 1);
    }
    assert_eq!(stage.drain(wait::SOON).await.accepted, 2.0);
}
