//! A full disk: new events are refused with the time to wait, deliveries go on and free room, later there is room again.

use e2e::event::TestEvent;
use e2e::stage::Stage;
use e2e::volume::Volume;
use e2e::{calls, refusal, rest, wait};
use tonic::Status;

const VOLUME_BYTES: u64 = 12 * 1024 * 1024;

fn event(index: usize) -> TestEvent {
    TestEvent::new(format!("disk-{index}")).with("filler", "x".repeat(50_000))
}

/// Publishes until the first refusal; gives what was taken, and the refusal.
async fn publish_until_refused(stage: &Stage, first: usize) -> (Vec<TestEvent>, Status) {
    let client = stage.client();
    let mut taken = Vec::new();
    loop {
        let event = event(first + taken.len());
        match calls::publish(&client, event.to_proto()).await {
            Ok(_) => taken.push(event),
            Err(status) => return (taken, status),
        }
        assert!(
            taken.len() < 1_000,
            "a volume of {VOLUME_BYTES} bytes holds no 50 MB"
        );
    }
}

/// Publishes one event until it is taken.
async fn await_taken(stage: &Stage, event: &TestEvent) {
    let client = stage.client();
    wait::until("room for an event", wait::SOON, async || {
        match calls::publish(&client, event.to_proto()).await {
            Ok(status) => Some(status),
            Err(status) => {
                refusal::check_unavailable(&status, "DISK_FULL");
                None
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_fills_its_volume_refuses_and_drains_and_takes_again() {
    let Some(volume) = Volume::mount(VOLUME_BYTES) else {
        return;
    };
    let stage = Stage::with(|settings| settings.set("QUEUE__DIR", volume.path().join("queue"))).await;
    stage.upstream.go_down();
    let (taken, refused) = publish_until_refused(&stage, 0).await;
    refusal::check_unavailable(&refused, "DISK_FULL");
    assert!(taken.len() > 10, "only {} events fit", taken.len());
    for probe in ["/livez", "/readyz"] {
        assert_eq!(
            rest::get(stage.sidecar.ready("ops"), probe).await.status,
            200,
            "{probe}"
        );
    }
    stage.upstream.recover();
    stage.await_delivered(&taken, wait::LONG).await;
    stage.drain(wait::LONG).await;
    let later = event(5_000);
    await_taken(&stage, &later).await;
    stage.await_delivered([&later], wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!(books.delivered, books.accepted, "{books:?}");
}

#[tokio::test]
async fn while_others_fill_the_volume_deliveries_go_on() {
    let Some(volume) = Volume::mount(VOLUME_BYTES) else {
        return;
    };
    let mut stage = Stage::with(|settings| settings.set("QUEUE__DIR", volume.path().join("queue"))).await;
    stage.upstream.go_down();
    let kept: Vec<_> = (0..40).map(event).collect();
    for event in &kept {
        calls::publish(&stage.client(), event.to_proto())
            .await
            .expect("there is room");
    }
    let ballast = volume.fill();
    let (taken, refused) = publish_until_refused(&stage, 1_000).await;
    refusal::check_unavailable(&refused, "DISK_FULL");
    stage.upstream.recover();
    stage.await_delivered(kept.iter().chain(&taken), wait::LONG).await;
    stage.drain(wait::LONG).await;

    // A life that begins on the full volume starts all the same.
    stage.sidecar.kill_nine().await;
    stage.restart().await;
    stage.balance_books().await;
    std::fs::remove_file(ballast).expect("the ballast can be removed");
    let later = event(5_000);
    await_taken(&stage, &later).await;
    stage.await_delivered([&later], wait::SOON).await;
    stage.drain(wait::SOON).await;
}
