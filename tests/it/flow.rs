//! How fast a lane sends: as fast as it may and upstream bears, never at the cost of another lane.

use std::time::Duration;

use e2e::event::TestEvent;
use e2e::lanes::{self, await_scrape};
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::tries::Try;
use e2e::upstream::Upstream;
use e2e::wait;
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::events::v1::State;

fn events(prefix: &str, count: usize) -> Vec<TestEvent> {
    (0..count)
        .map(|index| TestEvent::new(format!("{prefix}-{index}")))
        .collect()
}

fn created_of(upstream: &Upstream, project: &str) -> usize {
    let tries = upstream.tries_of(project);
    tries.iter().filter(|one| one.created).count()
}

/// Time from the first to the last of some requests.
fn span(tries: &[Try]) -> Duration {
    match tries {
        [first, .., last] => last.since(first),
        _ => Duration::ZERO,
    }
}

#[tokio::test]
async fn a_lane_sends_no_faster_than_its_rate() {
    const RATE: u32 = 40;
    const EVENTS: u32 = 160;
    let stage = Stage::with(|settings| settings.set("DELIVERY__RATE", "40/s")).await;
    let events = events("rate", EVENTS as usize);
    stage.publish_all(&events).await;
    stage.await_delivered(&events, wait::SOON).await;
    // A bucket holds what comes in a second at most.
    let least = Duration::from_secs(1) * (EVENTS - RATE) / RATE;
    let took = span(&stage.upstream.tries());
    assert!(
        took >= least.mul_f64(0.95),
        "{EVENTS} at {RATE} a second took {took:?}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_project_may_have_a_rate_of_its_own() {
    let stage =
        Stage::with(|settings| settings.with_projects([("pr_slow", "rate = \"10/s\""), ("pr_free", "")]))
            .await;
    stage.upstream.configure(Settings::default());
    let slow: Vec<_> = events("slow", 40)
        .into_iter()
        .map(|event| event.in_project("pr_slow"))
        .collect();
    let free: Vec<_> = events("free", 200)
        .into_iter()
        .map(|event| event.in_project("pr_free"))
        .collect();
    stage.publish_all(slow.iter().chain(&free)).await;
    stage.await_delivered(slow.iter().chain(&free), wait::SOON).await;
    let took = span(&stage.upstream.tries_of("pr_slow"));
    assert!(
        took >= Duration::from_millis(2_800),
        "40 at 10 a second took {took:?}"
    );
    let tries = stage.upstream.tries();
    let last = tries.last().expect("there were requests");
    assert_eq!(last.project, "pr_slow", "the other project was done long before");
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn no_more_than_configured_is_in_flight_and_more_than_one_is() {
    let stage = Stage::with(|settings| settings.set("DELIVERY__MAX_IN_FLIGHT", "4")).await;
    stage
        .upstream
        .push(FaultScript::forever([Step::latency(Duration::from_millis(30))]));
    let events = events("flight", 60);
    stage.publish_all(&events).await;
    stage.await_delivered(&events, wait::SOON).await;
    let most = stage.upstream.counts().max_in_flight;
    assert!((2..=4).contains(&most), "{most} in flight");
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_project_whose_upstream_hangs_does_not_slow_another() {
    let stage = Stage::with(|settings| {
        settings
            .with_projects([("pr_hangs", ""), ("pr_works", "")])
            .set("DELIVERY__ATTEMPT_TIMEOUT", "20s")
            .set("SHUTDOWN__DRAIN_TIMEOUT", "0s")
    })
    .await;
    stage.upstream.configure(Settings::default());
    let hang = FaultScript::forever([Step::hang(Duration::from_secs(600))]);
    stage.upstream.push(hang.for_project("pr_hangs"));
    let hanging: Vec<_> = events("hang", 300)
        .into_iter()
        .map(|event| event.in_project("pr_hangs"))
        .collect();
    let working: Vec<_> = events("work", 300)
        .into_iter()
        .map(|event| event.in_project("pr_works"))
        .collect();
    stage.publish_all(hanging.iter().chain(&working)).await;
    stage.await_delivered(&working, Duration::from_secs(15)).await;
    assert!(
        stage.upstream.counts().in_flight > 0,
        "the other project hangs all the while"
    );
    assert_eq!(created_of(&stage.upstream, "pr_hangs"), 0);
    stage.balance_books().await;
}

#[tokio::test]
async fn a_project_that_is_throttled_does_not_slow_another() {
    let stage = Stage::with(|settings| settings.with_projects([("pr_paused", ""), ("pr_works", "")])).await;
    stage.upstream.configure(Settings::default());
    let throttled = FaultScript::forever([Step::status(429).with_retry_after("3600")]);
    stage.upstream.push(throttled.for_project("pr_paused"));
    let paused: Vec<_> = events("paused", 50)
        .into_iter()
        .map(|event| event.in_project("pr_paused"))
        .collect();
    let working: Vec<_> = events("work", 50)
        .into_iter()
        .map(|event| event.in_project("pr_works"))
        .collect();
    stage.publish(&paused[0]).await;
    stage
        .await_reason(&paused[0], State::Waiting, "UPSTREAM_THROTTLED")
        .await;
    stage.publish_all(paused[1..].iter().chain(&working)).await;
    stage.await_delivered(&working, wait::SOON).await;
    assert_eq!(
        stage.upstream.tries_of("pr_paused").len(),
        1,
        "a paused lane sends nothing"
    );
    let scrape = await_scrape(&stage.sidecar, "a lane to be paused", |scrape| {
        lanes::count(scrape, "paused") == 1.0
    })
    .await;
    assert!(!lanes::is_held_at_all(&scrape, "pr_paused"), "{}", scrape.text);
    stage.balance_books().await;
}

#[tokio::test]
async fn an_upstream_that_is_down_is_asked_by_few_and_ever_more_seldom() {
    let stage = Stage::with(|settings| {
        settings
            .set("DELIVERY__RETRY_MIN", "1ms")
            .set("DELIVERY__RETRY_MAX", "1ms")
    })
    .await;
    stage.upstream.go_down();
    let events = events("down", 300);
    stage.publish_all(&events).await;
    let tries = stage.upstream.await_tries(12).await;
    // Three hundred are due all the time.
    let took = span(&tries[..12]);
    assert!(took >= Duration::from_secs(1), "12 requests within {took:?}");
    let scrape = await_scrape(&stage.sidecar, "the breaker to be open", |scrape| {
        lanes::count(scrape, "breaker_open") + lanes::count(scrape, "breaker_half_open") == 1.0
    })
    .await;
    assert!(
        !lanes::is_held_at_all(&scrape, PROJECT),
        "an outage is no hold: {}",
        scrape.text
    );
    stage.upstream.recover();
    stage.await_delivered(&events, wait::SOON).await;
    await_scrape(&stage.sidecar, "the lane to be open", |scrape| {
        lanes::count(scrape, "open") == 1.0
    })
    .await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.delivered, books.dead_lettered), (300.0, 0.0), "{books:?}");
}

#[tokio::test]
async fn one_request_that_was_too_much_does_not_slow_a_lane_for_long() {
    let stage = Stage::new().await;
    // Nothing was sent before it: it says nothing of how much upstream admits.
    stage.upstream.fail_next([Step::status(429)]);
    let first = TestEvent::new("too-much");
    stage.publish(&first).await;
    stage.upstream.await_tries(1).await;
    let events = events("after", 200);
    stage.publish_all(&events).await;
    stage
        .await_delivered(events.iter().chain([&first]), wait::SOON)
        .await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn live_events_do_not_wait_for_the_whole_backlog() {
    const BACKLOG: usize = 600;
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    stage.publish_all(&events("backlog", BACKLOG)).await;
    stage.sidecar.kill_nine().await;
    stage.settings = stage
        .settings
        .clone()
        .set("DELIVERY__ENABLED", "true")
        .set("DELIVERY__RATE", "40/s");
    stage.restart().await;
    stage.upstream.await_tries(1).await;
    for index in 0..3 {
        let live = TestEvent::new(format!("live-{index}"));
        stage.publish(&live).await;
        stage.await_state(&live, State::Delivered).await;
    }
    let sent = stage.upstream.request_count();
    assert!(
        sent < BACKLOG * 2 / 3,
        "three live events came after {sent} of {BACKLOG}"
    );
    stage.balance_books().await;
}
