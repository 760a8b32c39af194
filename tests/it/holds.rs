//! A lane whose key or way upstream is refused is held: one probe now and then, no event lost, no age spent.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::event::TestEvent;
use e2e::lanes::{self, await_free, await_held, check_free};
use e2e::metrics::Scrape;
use e2e::settings::{API_KEY, PROJECT};
use e2e::stage::Stage;
use e2e::tries::{Try, ids};
use e2e::upstream::{Upstream, usual_settings};
use e2e::wait;
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::events::v1::{AttemptOutcome, State};
use tokio::time::Instant;

const HTML: &str = "<html>gateway</html>";

/// What upstream believes while it takes another key than ours.
fn another_key() -> Settings {
    Settings {
        keys: [(PROJECT.to_owned(), vec!["rk_test_another".to_owned()])].into(),
        ..Settings::default()
    }
}

/// A stage whose lanes send no second probe within a test.
async fn patient_stage() -> Stage {
    Stage::with(|settings| settings.without_probes().without_retries()).await
}

fn events(prefix: &str, count: usize) -> Vec<TestEvent> {
    (0..count)
        .map(|index| TestEvent::new(format!("{prefix}-{index}")))
        .collect()
}

/// Publishes an event that is answered with this once, and waits until it is refused by itself.
async fn refuse_one(stage: &Stage, id: &str) {
    stage.upstream.fail_next([Step::status(403)]);
    let event = TestEvent::new(id);
    stage.publish(&event).await;
    stage
        .await_reason(&event, State::Waiting, "UPSTREAM_REFUSED")
        .await;
}

#[tokio::test]
async fn a_rejected_key_holds_the_lane_at_once_and_costs_no_event() {
    let stage = patient_stage().await;
    stage.upstream.configure(another_key());
    let first = TestEvent::new("key-first");
    stage.publish(&first).await;
    stage.await_reason(&first, State::Held, "KEY_REJECTED").await;
    // The lane is held before what became of the attempt is written down.
    let held = wait::until("the attempt to be noted", wait::SOON, async || {
        let status = stage.status(&first).await;
        (status.attempt_count == 1).then_some(status)
    })
    .await;
    assert!(!held.message.is_empty(), "{held:?}");
    assert_eq!(held.attempts[0].outcome(), AttemptOutcome::Rejected, "{held:?}");
    assert_eq!(held.attempts[0].http_status, 401, "{held:?}");
    let others = events("key-other", 20);
    stage.publish_all(&others).await;
    for event in &others {
        let status = stage.await_reason(event, State::Held, "KEY_REJECTED").await;
        assert_eq!(status.attempt_count, 0, "{status:?}");
    }
    assert_eq!(stage.upstream.request_count(), 1, "while held nothing is sent");
    let scrape = await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    for state in lanes::STATES {
        let expected = if state == "held" { 1.0 } else { 0.0 };
        assert_eq!(lanes::count(&scrape, state), expected, "{state}: {}", scrape.text);
    }
    let books = stage.balance_books().await;
    assert_eq!((books.dead_lettered, books.here), (0.0, 21.0), "{books:?}");
}

#[tokio::test]
async fn while_held_each_probe_is_another_event_and_they_grow_rare() {
    let stage = Stage::with(|settings| {
        settings
            .set("DELIVERY__PROBE_MIN", "100ms")
            .set("DELIVERY__PROBE_MAX", "800ms")
    })
    .await;
    stage.upstream.configure(another_key());
    stage.publish_all(&events("probe", 5)).await;
    let tries = stage.upstream.await_tries(7).await;
    let tries = &tries[..7];
    for pair in tries.windows(2) {
        assert_ne!(
            pair[0].id,
            pair[1].id,
            "the same event twice in a row: {:?}",
            ids(tries)
        );
    }
    let different: BTreeSet<_> = tries.iter().map(|one| &one.id).collect();
    assert!(different.len() >= 3, "each time another event: {:?}", ids(tries));
    let gaps: Vec<Duration> = tries.windows(2).map(|pair| pair[1].since(&pair[0])).collect();
    assert!(gaps[0] >= Duration::from_millis(40), "{gaps:?}");
    let late: Duration = gaps[3..].iter().sum();
    assert!(late >= Duration::from_millis(1_100), "intervals grow: {gaps:?}");
    assert!(
        gaps.iter().all(|gap| *gap < Duration::from_secs(5)),
        "to the configured longest: {gaps:?}"
    );
    assert_eq!(stage.balance_books().await.dead_lettered, 0.0);
}

#[tokio::test]
async fn a_probe_that_succeeds_lifts_the_hold_and_everything_follows() {
    let stage = Stage::new().await;
    stage.upstream.configure(another_key());
    let events = events("lift", 30);
    stage.publish_all(&events).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    stage.upstream.configure(usual_settings());
    stage.await_delivered(&events, wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.delivered, books.dead_lettered), (30.0, 0.0), "{books:?}");
    let scrape = await_free(&stage.sidecar, PROJECT).await;
    assert_eq!(lanes::count(&scrape, "open"), 1.0, "{}", scrape.text);
    let status = stage.status(&events[0]).await;
    assert!(
        !status.possible_duplicate,
        "a 401 carries nothing out: {status:?}"
    );
}

/// Every answer that speaks against the way upstream and not against the event.
fn refusals(thief: &Upstream) -> Vec<(&'static str, Step)> {
    vec![
        ("r402", Step::status(402)),
        ("r403", Step::status(403)),
        ("r404json", Step::status(404)),
        ("r404html", Step::status(404).with_body(HTML)),
        ("r407", Step::status(407)),
        ("r421", Step::status(421)),
        ("r400html", Step::status(400).with_body(HTML)),
        ("r418html", Step::status(418).with_body(HTML)),
        (
            "r301",
            Step {
                status: Some(301),
                ..Step::redirect(thief.url())
            },
        ),
        (
            "r307",
            Step::redirect(format!("{}/projects/r307/events", thief.url())),
        ),
    ]
}

#[tokio::test]
async fn five_refusals_in_a_row_of_different_users_hold_the_lane_and_four_do_not() {
    let thief = Upstream::start().await;
    let refusals = refusals(&thief);
    let stage = Stage::with(|settings| {
        settings
            .with_projects(refusals.iter().map(|(project, _)| (*project, "")))
            .without_probes()
            .without_retries()
    })
    .await;
    stage.upstream.configure(Settings::default());
    for (project, step) in &refusals {
        let script = FaultScript::forever([step.clone()]).for_project(*project);
        stage.upstream.push(script);
    }
    let event =
        |project: &str, index: usize| TestEvent::new(format!("{project}-{index}")).in_project(project);
    for (project, _) in &refusals {
        let first: Vec<_> = (0..4).map(|index| event(project, index)).collect();
        stage.publish_all(&first).await;
    }
    for (project, step) in &refusals {
        for index in 0..4 {
            let waiting = stage
                .await_reason(&event(project, index), State::Waiting, "UPSTREAM_REFUSED")
                .await;
            assert!(waiting.next_attempt_time.is_some(), "{step:?}: {waiting:?}");
        }
        check_free(&stage.sidecar, project).await;
    }
    for (project, _) in &refusals {
        stage.publish(&event(project, 4)).await;
    }
    for (project, _) in &refusals {
        await_held(&stage.sidecar, project, "CONFIG").await;
        stage.publish(&event(project, 5)).await;
        let held = stage
            .await_reason(&event(project, 5), State::Held, "CONFIG")
            .await;
        assert_eq!(held.attempt_count, 0, "{held:?}");
        assert_eq!(stage.upstream.tries_of(project).len(), 5, "{project}");
    }
    assert_eq!(thief.request_count(), 0, "a redirect is never followed");
    assert_eq!(stage.balance_books().await.dead_lettered, 0.0);
}

#[tokio::test]
async fn a_lane_held_for_its_configuration_heals_by_a_probe() {
    let stage = Stage::new().await;
    stage
        .upstream
        .push(FaultScript::forever([Step::status(404).with_body(HTML)]));
    let events = events("heal", 20);
    stage.publish_all(&events).await;
    await_held(&stage.sidecar, PROJECT, "CONFIG").await;
    stage.upstream.recover();
    stage.await_delivered(&events, wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.delivered, books.dead_lettered), (20.0, 0.0), "{books:?}");
    await_free(&stage.sidecar, PROJECT).await;
}

#[tokio::test]
async fn one_user_refused_again_and_again_holds_nothing() {
    let stage = Stage::new().await;
    stage.upstream.push(FaultScript::forever([Step::status(403)]));
    let same = |id: &str| TestEvent::new(id).about("one@example.com");
    let (one, other) = (same("stuck-1"), same("stuck-2"));
    stage.publish(&one).await;
    stage.publish(&other).await;
    stage.upstream.await_tries(8).await;
    check_free(&stage.sidecar, PROJECT).await;
    stage.await_reason(&one, State::Waiting, "UPSTREAM_REFUSED").await;
    stage.upstream.recover();
    stage.await_delivered([&one, &other], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_success_between_refusals_starts_their_count_again() {
    let stage = patient_stage().await;
    for index in 0..4 {
        refuse_one(&stage, &format!("before-{index}")).await;
    }
    let good = TestEvent::new("between");
    stage.publish(&good).await;
    stage.await_state(&good, State::Delivered).await;
    for index in 0..4 {
        refuse_one(&stage, &format!("after-{index}")).await;
    }
    check_free(&stage.sidecar, PROJECT).await;
    stage.upstream.fail_next([Step::status(403)]);
    stage.publish(&TestEvent::new("fifth")).await;
    await_held(&stage.sidecar, PROJECT, "CONFIG").await;
}

#[tokio::test]
async fn a_lane_that_never_had_a_success_is_held_after_twenty_rejections() {
    let stage = Stage::with(|settings| settings.without_probes().set("DELIVERY__MAX_IN_FLIGHT", "1")).await;
    stage.upstream.push(FaultScript::forever([Step::status(422)]));
    let events = events("mass", 26);
    stage.publish_all(&events).await;
    await_held(&stage.sidecar, PROJECT, "MASS_REJECTION").await;
    for event in &events[..20] {
        let dead = stage.await_state(event, State::DeadLettered).await;
        assert_eq!(dead.reason, "UPSTREAM_REJECTED", "{dead:?}");
    }
    for event in &events[20..] {
        stage.await_reason(event, State::Held, "MASS_REJECTION").await;
    }
    let books = stage.balance_books().await;
    assert_eq!((books.dead_lettered, books.here), (20.0, 6.0), "{books:?}");
}

#[tokio::test]
async fn a_lane_that_had_a_success_is_not_held_for_rejections() {
    let stage = Stage::new().await;
    let good = TestEvent::new("good");
    stage.publish(&good).await;
    stage.await_state(&good, State::Delivered).await;
    stage.upstream.push(FaultScript::forever([Step::status(422)]));
    stage.publish_all(&events("bad", 40)).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.dead_lettered, books.delivered), (40.0, 1.0), "{books:?}");
    check_free(&stage.sidecar, PROJECT).await;
}

#[tokio::test]
async fn no_age_is_spent_while_held() {
    const MAX_AGE: Duration = Duration::from_secs(1);
    let stage = Stage::with(|settings| {
        settings
            .set("DELIVERY__MAX_AGE", "1s")
            .set("DELIVERY__PROBE_MIN", "400ms")
            .set("DELIVERY__PROBE_MAX", "400ms")
    })
    .await;
    stage.upstream.configure(another_key());
    let (event, begun) = (TestEvent::new("aged"), Instant::now());
    stage.publish(&event).await;
    wait::until("the hold to outlast max_age", wait::SOON, async || {
        (begun.elapsed() > 2 * MAX_AGE && stage.upstream.request_count() >= 3).then_some(())
    })
    .await;
    // The next answer is one after which an event beyond `max_age` is given up.
    stage.upstream.fail_next([Step::status(503)]);
    stage.upstream.configure(usual_settings());
    let status = stage.await_state(&event, State::Delivered).await;
    assert!(
        status.attempts.iter().any(|attempt| attempt.http_status == 503),
        "{status:?}"
    );
    assert_eq!(stage.drain(wait::SOON).await.dead_lettered, 0.0);
}

#[tokio::test]
async fn a_hold_survives_a_restart() {
    let mut stage = patient_stage().await;
    stage.upstream.configure(another_key());
    let before = TestEvent::new("before-restart");
    stage.publish(&before).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    stage.kill_and_restart().await;
    let scrape = Scrape::of(&stage.sidecar).await;
    assert!(
        lanes::is_held(&scrape, PROJECT, "KEY_REJECTED"),
        "{}",
        scrape.text
    );
    let after = TestEvent::new("after-restart");
    stage.publish(&after).await;
    for event in [&before, &after] {
        stage.await_reason(event, State::Held, "KEY_REJECTED").await;
    }
    // One probe at most: a start may look whether the world has changed.
    let tries = stage.upstream.tries();
    assert!(tries.len() <= 2, "{tries:?}");
    assert!(tries.iter().all(|one: &Try| one.status == Some(401)), "{tries:?}");
}

#[tokio::test]
async fn a_restart_with_another_key_lifts_the_hold() {
    let mut stage = patient_stage().await;
    stage.upstream.configure(another_key());
    let event = TestEvent::new("rotated-by-restart");
    stage.publish(&event).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    stage.sidecar.kill_nine().await;
    stage.settings = stage
        .settings
        .clone()
        .raw("EMBEDDABLES_API_KEY", "rk_test_another");
    stage.restart().await;
    stage.await_delivered([&event], wait::SOON).await;
    await_free(&stage.sidecar, PROJECT).await;
    let keys: Vec<_> = stage.upstream.tries().into_iter().map(|one| one.key).collect();
    assert_eq!(keys.first().map(String::as_str), Some(API_KEY), "{keys:?}");
}
