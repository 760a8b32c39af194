//! What is refused leaves nothing behind: of a batch, of an all-or-nothing call, of a full queue, of a dry run.

use e2e::event::TestEvent;
use e2e::stage::Stage;
use e2e::{calls, refusal, wait};
use embeddables_proto::events::v1::validate_result::Result as Validated;
use embeddables_proto::events::v1::{
    Durability, Event, PublishEventRequest, PublishEventsRequest, PublishOptions, ValidateEventsRequest,
};
use serde_json::Value;
use tonic::{Code, Status};

fn good() -> Event {
    TestEvent::new("good-1").to_proto()
}

#[tokio::test]
async fn a_batch_takes_what_is_good_and_refuses_the_rest() {
    let stage = Stage::new().await;
    let good = [TestEvent::new("partial-1"), TestEvent::new("partial-3")];
    let bad = Event {
        name: "Not Snake".to_owned(),
        ..TestEvent::new("partial-2").to_proto()
    };
    let events = vec![good[0].to_proto(), bad, good[1].to_proto()];
    let mut results = calls::publish_batch(&stage.client(), events)
        .await
        .expect("a batch with good events")
        .into_iter();
    let mut next = || results.next().expect("a result an event");
    assert_eq!(calls::taken(next()).event_id, good[0].id);
    let refused = calls::refused(next());
    assert_eq!(
        (Code::from(refused.code), refused.reason.as_str()),
        (Code::InvalidArgument, "INVALID_EVENT")
    );
    let fields: Vec<_> = refused
        .violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["events[1].name"]);
    assert!(refused.retry_delay.is_none(), "{refused:?}");
    assert_eq!(calls::taken(next()).event_id, good[1].id);
    stage.await_delivered(&good, wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 2.0);
}

#[tokio::test]
async fn all_or_nothing_takes_none_where_one_cannot_be_taken() {
    let stage = Stage::new().await;
    let client = stage.client();
    let event = |index: usize| TestEvent::new(format!("atomic-{index}"));
    let bad = |index: usize| Event {
        name: String::new(),
        ..event(index).to_proto()
    };
    let publish = async |events: Vec<Event>| -> Result<usize, Status> {
        let request = PublishEventsRequest {
            events,
            options: None,
            all_or_nothing: true,
        };
        Ok(client
            .clone()
            .publish_events(request)
            .await?
            .into_inner()
            .results
            .len())
    };
    let status = publish(vec![event(0).to_proto(), bad(1), event(2).to_proto(), bad(3)])
        .await
        .expect_err("two are bad");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let fields: Vec<_> = refusal::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    assert_eq!(fields, ["events[1].name", "events[3].name"]);
    assert_eq!(stage.balance_books().await.accepted, 0.0);

    assert_eq!(
        publish(vec![event(0).to_proto(), event(2).to_proto()])
            .await
            .expect("all are good"),
        2
    );
    let reused = event(2).with("more", 1).to_proto();
    let status = publish(vec![event(4).to_proto(), reused])
        .await
        .expect_err("an id is taken");
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    stage.await_delivered([&event(0), &event(2)], wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 2.0);
}

#[tokio::test]
async fn a_project_without_a_key_is_refused() {
    let stage = Stage::new().await;
    let event = Event {
        project_id: "pr_other".to_owned(),
        ..good()
    };
    let status = calls::publish(&stage.client(), event)
        .await
        .expect_err("no key for it");
    refusal::check(&status, Code::FailedPrecondition, "PROJECT_NOT_CONFIGURED");
}

#[tokio::test]
async fn durability_that_is_not_on_offer_is_refused() {
    let stage = Stage::new().await;
    let options = PublishOptions {
        durability: Durability::Replicated.into(),
        ..PublishOptions::default()
    };
    let request = PublishEventRequest {
        event: Some(good()),
        options: Some(options),
    };
    let status = stage
        .client()
        .publish_event(request)
        .await
        .expect_err("one machine has no replicas");
    refusal::check(&status, Code::FailedPrecondition, "DURABILITY_NOT_ON_OFFER");
}

#[tokio::test]
async fn an_unknown_event_is_not_found() {
    let stage = Stage::new().await;
    let status = calls::get(&stage.client(), "never-seen")
        .await
        .expect_err("an unknown id");
    refusal::check(&status, Code::NotFound, "EVENT_UNKNOWN");
}

#[tokio::test]
async fn validating_keeps_nothing_and_shows_the_request_that_would_be_sent() {
    let stage = Stage::new().await;
    let event = TestEvent::new("validated-1");
    let bad = Event {
        name: String::new(),
        ..event.to_proto()
    };
    let request = ValidateEventsRequest {
        events: vec![event.to_proto(), bad],
    };
    let results = stage
        .client()
        .validate_events(request)
        .await
        .expect("a call with events")
        .into_inner()
        .results;
    let [
        Some(Validated::Request(request)),
        Some(Validated::Refusal(refused)),
    ] = [results[0].result.clone(), results[1].result.clone()]
    else {
        panic!("one good, one bad: {results:?}")
    };
    assert_eq!(request.method, "POST");
    assert_eq!(
        request.url,
        format!(
            "{}/projects/{}/events",
            stage.upstream.url(),
            e2e::settings::PROJECT
        )
    );
    let shown: Value = serde_json::from_str(&request.body).expect("a JSON body");
    assert_eq!(e2e::event::normalised(shown), event.body());
    assert!(
        !format!("{request:?}").contains(e2e::settings::API_KEY),
        "the key is redacted: {request:?}"
    );
    assert_eq!(refused.violations[0].reason, "NAME_MISSING", "{refused:?}");
    assert_eq!(stage.balance_books().await.accepted, 0.0);
    assert_eq!(stage.upstream.request_count(), 0);
}

#[tokio::test]
async fn a_full_queue_is_unavailable_and_takes_again_once_it_has_drained() {
    let stage = Stage::with(|settings| {
        settings
            .set("QUEUE__MAX_BYTES", "1MiB")
            .set("DELIVERY__MAX_IN_FLIGHT", "4")
    })
    .await;
    stage.upstream.go_down();
    let client = stage.client();
    let event = |index: usize| TestEvent::new(format!("full-{index}")).with("filler", "x".repeat(50_000));
    let mut taken = Vec::new();
    let status = loop {
        let event = event(taken.len());
        match calls::publish(&client, event.to_proto()).await {
            Ok(_) => taken.push(event),
            Err(status) => break status,
        }
        assert!(taken.len() < 100, "a queue of 1 MiB holds no 5 MB");
    };
    refusal::check_unavailable(&status, "QUEUE_FULL");
    // A batch whose every event fails for one retryable reason fails as a call.
    let events = (1000..1003).map(|index| event(index).to_proto()).collect();
    let status = calls::publish_batch(&client, events)
        .await
        .expect_err("the queue is full");
    refusal::check_unavailable(&status, "QUEUE_FULL");

    stage.upstream.recover();
    stage.await_delivered(&taken, wait::SOON).await;
    stage.drain(wait::SOON).await;
    calls::publish(&client, event(2000).to_proto())
        .await
        .expect("there is room again");
    stage.drain(wait::SOON).await;
}
