//! SIGTERM: new calls are refused, streams end with their acknowledgements, what is in flight ends, the rest stays on disk.

use std::time::Duration;

use e2e::event::TestEvent;
use e2e::load::{Load, Report};
use e2e::stage::Stage;
use e2e::{calls, refusal, wait};
use embeddables_mock::{FaultScript, Step};
use embeddables_proto::events::v1::State;
use tokio::time::Instant;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_zero_and_loses_nothing_acknowledged() {
    let mut stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "2s")).await;
    let load = Load::start(&stage.sidecar, "term", 1, Vec::new());
    load.await_acknowledged(500).await;
    stage.sidecar.terminate();
    let ended = stage.sidecar.wait_for_end().await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    let report = load.finish().await;
    for status in &report.errors {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    stage.restart().await;
    stage
        .await_delivered(report.acknowledged.values(), wait::LONG)
        .await;
    let books = stage.drain(wait::LONG).await;
    assert_eq!(books.delivered, books.accepted, "{books:?}");
}

#[tokio::test]
async fn while_it_drains_new_calls_are_told_so_and_what_is_in_flight_ends() {
    let mut stage = Stage::new().await;
    let client = stage.client();
    let event = TestEvent::new("in-flight");
    stage
        .upstream
        .fail_next([Step::latency(Duration::from_millis(1_500))]);
    calls::publish(&client, event.to_proto())
        .await
        .expect("a valid event");
    wait::until("the request upstream", wait::SOON, async || {
        (stage.upstream.request_count() == 1).then_some(())
    })
    .await;
    stage.sidecar.terminate();
    // On the connection that is open already.
    let refused = wait::until("a new call to be refused", wait::SOON, async || {
        calls::publish(&client, TestEvent::new("too-late").to_proto())
            .await
            .err()
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let ended = stage.sidecar.wait_for_end().await;
    assert_eq!(ended.code(), Some(0), "{ended}");

    stage.restart().await;
    let status = calls::get(&stage.client(), &event.id)
        .await
        .expect("an accepted event is known");
    assert_eq!(
        status.state(),
        State::Delivered,
        "what was in flight was settled: {status:?}"
    );
    assert!(!status.possible_duplicate, "{status:?}");
    stage.drain(wait::SOON).await;
    assert_eq!(stage.upstream.look(|created| created[&event.id].len()), 1);
}

#[tokio::test]
async fn draining_is_said_with_a_reason_and_a_time_to_wait() {
    let mut stage = Stage::new().await;
    let client = stage.client();
    stage.upstream.fail_next([Step::latency(Duration::from_secs(3))]);
    calls::publish(&client, TestEvent::new("in-flight").to_proto())
        .await
        .expect("a valid event");
    wait::until("the request upstream", wait::SOON, async || {
        (stage.upstream.request_count() == 1).then_some(())
    })
    .await;
    stage.sidecar.terminate();
    let refused = wait::until("a new call to be refused", wait::SOON, async || {
        calls::publish(&client, TestEvent::new("too-late").to_proto())
            .await
            .err()
    })
    .await;
    refusal::check_unavailable(&refused, "DRAINING");
    stage.sidecar.wait_for_end().await;
}

#[tokio::test]
async fn an_upstream_that_hangs_delays_the_end_by_the_drain_timeout_at_most() {
    let mut stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "500ms")).await;
    let event = TestEvent::new("hanging");
    stage
        .upstream
        .push(FaultScript::once([Step::hang(Duration::from_secs(60))]));
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
    wait::until("the request upstream", wait::SOON, async || {
        (stage.upstream.request_count() == 1).then_some(())
    })
    .await;
    let asked = Instant::now();
    stage.sidecar.terminate();
    let ended = stage.sidecar.wait_for_end().await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "took {:?}",
        asked.elapsed()
    );
    stage.restart().await;
    stage.await_delivered([&event], wait::SOON).await;
    let status = calls::await_state(&stage.client(), &event.id, State::Delivered, wait::SOON).await;
    assert!(
        status.possible_duplicate,
        "the attempt that was cut off is flagged: {status:?}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let mut stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "60s")).await;
    let event = TestEvent::new("hanging");
    stage
        .upstream
        .push(FaultScript::once([Step::hang(Duration::from_secs(60))]));
    let client = stage.client();
    calls::publish(&client, event.to_proto())
        .await
        .expect("a valid event");
    wait::until("the request upstream", wait::SOON, async || {
        (stage.upstream.request_count() == 1).then_some(())
    })
    .await;
    stage.sidecar.terminate();
    // The first one has been heard once calls are refused.
    wait::until("the sidecar to drain", wait::SOON, async || {
        calls::publish(&client, TestEvent::new("too-late").to_proto())
            .await
            .err()
    })
    .await;
    stage.sidecar.terminate();
    stage.sidecar.wait_for_end().await;
    stage.restart().await;
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

/// Time between SIGTERM and SIGKILL, as a pod's end may leave it; none is the least.
const GRACES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1_200),
    Duration::from_millis(3_000),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_little_grace_sigterm_gets_nothing_acknowledged_is_lost_or_sent_twice_unflagged() {
    let mut stage = Stage::with(|settings| settings.set("SHUTDOWN__DRAIN_TIMEOUT", "2s")).await;
    let mut total = Report::default();
    for (round, grace) in GRACES.into_iter().enumerate() {
        // Slow enough that deliveries are in flight at every moment.
        stage
            .upstream
            .push(FaultScript::forever([Step::latency(Duration::from_millis(50))]));
        let load = Load::start(&stage.sidecar, &format!("grace-{round}"), 7, Vec::new());
        load.await_acknowledged(200).await;
        stage.sidecar.terminate();
        // Not to wait for something: the moment of the kill is what is tried here.
        if tokio::time::timeout(grace, stage.sidecar.wait_for_end())
            .await
            .is_err()
        {
            stage.sidecar.kill_nine().await;
        }
        total.absorb(load.finish().await);
        stage.upstream.recover();
        stage.restart().await;
        stage.balance_books().await;
    }
    stage
        .await_delivered(total.acknowledged.values(), wait::LONG)
        .await;
    let books = stage.drain(wait::LONG).await;
    assert_eq!(books.delivered, books.accepted, "nothing was given up: {books:?}");
    let repeated: Vec<String> = stage.upstream.look(|created| {
        let repeated = created.iter().filter(|(_, bodies)| bodies.len() > 1);
        repeated.map(|(id, _)| id.clone()).collect()
    });
    for id in &repeated {
        let status = calls::get(&stage.client(), id)
            .await
            .expect("a delivered event is known");
        assert!(
            status.possible_duplicate,
            "upstream has {id} more than once: {status:?}"
        );
    }
}

#[tokio::test]
async fn a_held_lane_delays_no_end_and_its_events_stay() {
    let mut stage = Stage::with(|settings| settings.without_probes()).await;
    stage.upstream.fail_next([Step::status(401)]);
    let event = TestEvent::new("held-at-the-end");
    stage.publish(&event).await;
    stage.await_reason(&event, State::Held, "KEY_REJECTED").await;
    let asked = Instant::now();
    stage.sidecar.terminate();
    let ended = stage.sidecar.wait_for_end().await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "took {:?}",
        asked.elapsed()
    );
    stage.restart().await;
    let status = stage.await_reason(&event, State::Held, "KEY_REJECTED").await;
    assert!(!status.possible_duplicate, "{status:?}");
    stage.balance_books().await;
}

#[tokio::test]
async fn on_an_ephemeral_volume_the_whole_grace_is_used_to_drain() {
    let mut stage = Stage::with(|settings| {
        settings
            .set("QUEUE__VOLUME", "ephemeral")
            .set("DELIVERY__RETRY_MIN", "1s")
            .set("DELIVERY__RETRY_MAX", "1s")
            .set("SHUTDOWN__DRAIN_TIMEOUT", "20s")
    })
    .await;
    stage.upstream.fail_next([Step::status(503), Step::status(503)]);
    // Nothing is in flight and nothing is due when it is asked to end: the event waits for another try.
    let event = TestEvent::new("ephemeral");
    stage.publish(&event).await;
    stage.await_state(&event, State::Waiting).await;
    stage.sidecar.terminate();
    let ended = stage.sidecar.wait_for_end().await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    let left = stage.sidecar.log();
    assert_eq!(
        stage.upstream.created_count(),
        1,
        "it was left behind although there was time: {left}"
    );
}
