//! What could not be delivered yet survives restarts, and goes once the upstream is back.

use e2e::event::TestEvent;
use e2e::metrics::Scrape;
use e2e::stage::Stage;
use e2e::{calls, rest, wait};
use embeddables_proto::events::v1::State;

const EVENTS: usize = 300;

async fn publish_all(stage: &Stage, events: &[TestEvent]) {
    let protos = events.iter().map(TestEvent::to_proto).collect();
    let results = calls::publish_batch(&stage.client(), protos)
        .await
        .expect("a batch of good events");
    for result in results {
        calls::taken(result);
    }
}

#[tokio::test]
async fn a_backlog_survives_a_stop_and_is_delivered_after_the_next_start() {
    let mut stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "500ms")).await;
    stage.upstream.go_down();
    let events: Vec<_> = (0..EVENTS)
        .map(|index| TestEvent::new(format!("backlog-{index}")))
        .collect();
    publish_all(&stage, &events).await;
    wait::until("a first refusal upstream", wait::SOON, async || {
        (stage.upstream.request_count() > 0).then_some(())
    })
    .await;
    stage.sidecar.terminate();
    assert!(
        stage.sidecar.wait_for_end().await.success(),
        "SIGTERM ends with exit code 0"
    );
    assert_eq!(stage.upstream.created_count(), 0);

    stage.restart().await;
    let books = stage.balance_books().await;
    assert_eq!((books.accepted, books.here), (300.0, 300.0), "{books:?}");
    stage.upstream.recover();
    stage.await_delivered(&events, wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!(books.delivered, 300.0, "{books:?}");
}

#[tokio::test]
async fn a_backlog_survives_a_kill_and_is_delivered_after_the_next_start() {
    let mut stage = Stage::new().await;
    stage.upstream.go_down();
    let events: Vec<_> = (0..EVENTS)
        .map(|index| TestEvent::new(format!("killed-{index}")))
        .collect();
    publish_all(&stage, &events).await;
    stage.sidecar.kill_nine().await;
    stage.restart().await;
    // Still down: it is accepted all the same, and the sidecar is ready.
    let more = TestEvent::new("while-down");
    publish_all(&stage, std::slice::from_ref(&more)).await;
    assert_eq!(rest::get(stage.sidecar.ready("ops"), "/readyz").await.status, 200);
    stage.upstream.recover();
    stage
        .await_delivered(events.iter().chain([&more]), wait::SOON)
        .await;
    assert_eq!(stage.drain(wait::SOON).await.delivered, 301.0);
}

#[tokio::test]
async fn with_deliveries_switched_off_events_are_kept_and_nothing_is_sent() {
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    let event = TestEvent::new("kept-1");
    publish_all(&stage, std::slice::from_ref(&event)).await;
    stage.sidecar.kill_nine().await;
    stage.restart().await;
    let status = calls::get(&stage.client(), &event.id)
        .await
        .expect("an accepted event is known");
    assert_eq!(status.state(), State::Queued, "{status:?}");
    assert_eq!(stage.upstream.request_count(), 0);
    stage.sidecar.kill_nine().await;
    stage.settings = stage.settings.clone().set("DELIVERY__ENABLED", "true");
    stage.restart().await;
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn the_oldest_events_age_and_the_backlog_are_in_the_metrics() {
    let stage = Stage::new().await;
    stage.upstream.go_down();
    publish_all(&stage, &[TestEvent::new("old-1"), TestEvent::new("old-2")]).await;
    let client = stage.client();
    calls::await_state(&client, "old-1", State::Waiting, wait::SOON).await;
    wait::until("an age above zero", wait::SOON, async || {
        let scrape = Scrape::of(&stage.sidecar).await;
        (scrape.sum("embeddables_queue_oldest_event_age_seconds", &[]) > 0.0).then_some(())
    })
    .await;
    let scrape = Scrape::of(&stage.sidecar).await;
    assert!(
        scrape.sum("embeddables_queue_bytes", &[]) > 0.0,
        "{}",
        scrape.text
    );
    stage.upstream.recover();
    stage.drain(wait::SOON).await;
}
