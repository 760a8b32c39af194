//! Everything at once: answers of every kind, operators, kills and stops, over several lives. When the last fault has ended the
//! backlog drains without help, each event has one fate, and what may have gone twice is flagged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::admin;
use e2e::event::TestEvent;
use e2e::random::Seeded;
use e2e::settings::{PROJECT, Settings};
use e2e::stage::Stage;
use e2e::tries::ids;
use e2e::{calls, wait};
use embeddables_mock::{FaultScript, ResetPoint, Step};
use embeddables_proto::events::v1::{EventStatus, State};
use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use rand::rngs::StdRng;

const ROUNDS: usize = 4;
const EVENTS_A_ROUND: usize = 80;
const USERS: usize = 12;

/// What one request meets: mostly nothing, now and then any answer there is.
fn step(source: &mut StdRng) -> Step {
    let html = "<html>gateway</html>";
    match source.random_range(0..40) {
        0 => Step::status(401),
        1 => Step::status(403),
        2 => Step::status(404).with_body(html),
        3 | 4 => Step::status(404).with_body(r#"{"code": "ENTRY_NOT_FOUND"}"#),
        5 => Step::status(422),
        6 => Step::status(503),
        7 => Step::status(503).with_retry_after("0"),
        8 => Step::status(500),
        9 => Step::reset(ResetPoint::Before),
        10 => Step::reset(ResetPoint::After),
        11 => Step::redirect("http://127.0.0.1:9/"),
        _ => Step::latency(Duration::from_millis(source.random_range(0..15))),
    }
}

async fn stage_with(change: impl FnOnce(Settings) -> Settings) -> Stage {
    let schedule: Vec<String> = (1..=300).map(|step| format!("\"{}ms\"", step * 100)).collect();
    Stage::with(|settings| {
        let settings = settings
            .set("DELIVERY__RETRY_MIN", "5ms")
            .set("DELIVERY__RETRY_MAX", "50ms")
            .set("DELIVERY__PROBE_MIN", "20ms")
            .set("DELIVERY__PROBE_MAX", "100ms")
            .set("DELIVERY__ENTRY_SCHEDULE", format!("[{}]", schedule.join(", ")))
            .set("SHUTDOWN__DRAIN_TIMEOUT", "200ms");
        change(settings)
    })
    .await
}

fn events(round: usize, source: &mut StdRng) -> Vec<TestEvent> {
    (0..EVENTS_A_ROUND)
        .map(|index| {
            let user = source.random_range(0..USERS);
            TestEvent::random(format!("r{round}-{index:03}"), source).about(format!("u{user:02}@example.com"))
        })
        .collect()
}

/// One life: events come, answers go wrong, somebody interferes, and it ends.
async fn live(stage: &mut Stage, events: &[TestEvent], source: &mut StdRng) {
    let steps: Vec<_> = (0..400).map(|_| step(source)).collect();
    stage.upstream.push(FaultScript::forever(steps));
    let before = stage.upstream.request_count();
    let (first, second) = events.split_at(events.len() / 2);
    stage.publish_all(first).await;
    stage
        .upstream
        .await_tries(before + source.random_range(1..20))
        .await;
    let interferes = source.random_bool(0.5);
    if interferes {
        admin::hold(&stage.sidecar, PROJECT, "a look")
            .await
            .expect("it is held");
    }
    stage.publish_all(second).await;
    if interferes {
        admin::resume(&stage.sidecar, PROJECT)
            .await
            .expect("it is resumed");
    }
    stage
        .upstream
        .await_tries(before + source.random_range(20..60))
        .await;
    if source.random_bool(0.7) {
        stage.sidecar.kill_nine().await;
    } else {
        stage.sidecar.terminate();
        stage.sidecar.wait_for_end().await;
    }
    stage.upstream.recover();
    stage.restart().await;
    stage.balance_books().await;
}

/// What is told of each event.
async fn told(stage: &Stage, events: &[TestEvent]) -> Vec<EventStatus> {
    let client = stage.client();
    let asking = stream::iter(events).map(|event| {
        let client = client.clone();
        async move {
            calls::get(&client, &event.id)
                .await
                .expect("an accepted event is known")
        }
    });
    asking.buffered(16).collect().await
}

async fn check_fates(stage: &Stage, events: &[TestEvent]) {
    let statuses = told(stage, events).await;
    stage.upstream.look(|created| {
        for (event, status) in events.iter().zip(&statuses) {
            let copies = created.get(&event.id).map_or(&[][..], Vec::as_slice);
            for body in copies {
                assert_eq!(*body, event.body(), "{} arrived with another body", event.id);
            }
            match status.state() {
                State::Delivered => assert!(!copies.is_empty(), "it never arrived: {status:?}"),
                State::DeadLettered => assert_eq!(status.reason, "UPSTREAM_REJECTED", "{status:?}"),
                _ => panic!("its fate is open: {status:?}"),
            }
            let is_honest = copies.len() <= 1 || status.possible_duplicate;
            assert!(is_honest, "{} copies: {status:?}", copies.len());
        }
        let sent: BTreeSet<_> = events.iter().map(|event| &event.id).collect();
        assert!(
            created.keys().all(|id| sent.contains(id)),
            "something else arrived"
        );
    });
}

async fn run(stage: &mut Stage, seeded: &mut Seeded) -> Vec<TestEvent> {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let events = events(round, &mut seeded.source);
        live(stage, &events, &mut seeded.source).await;
        all.extend(events);
    }
    let drained = wait::holds_within(wait::SOON, async || {
        (stage.balance_books().await.here == 0.0).then_some(())
    })
    .await;
    if !drained {
        let statuses = told(stage, &all).await;
        let is_final =
            |status: &&EventStatus| matches!(status.state(), State::Delivered | State::DeadLettered);
        let open: Vec<_> = statuses.iter().filter(|status| !is_final(status)).collect();
        let lanes = admin::lanes(&stage.sidecar).await;
        panic!(
            "{} do not drain: {:#?}\n{lanes:?}",
            open.len(),
            open.iter().take(3).collect::<Vec<_>>()
        );
    }
    check_fates(stage, &all).await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_last_fault_has_ended_everything_drains_and_every_event_has_one_fate() {
    let mut seeded = Seeded::new();
    let mut stage = stage_with(|settings| settings).await;
    run(&mut stage, &mut seeded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_ordered_lane_it_does_so_in_order() {
    let mut seeded = Seeded::new();
    let mut stage = stage_with(|settings| settings.set("DELIVERY__ORDER", "identifier")).await;
    let events = run(&mut stage, &mut seeded).await;
    let users: BTreeMap<&str, &str> = events
        .iter()
        .map(|event| (event.id.as_str(), event.email.as_str()))
        .collect();
    let tries = stage.upstream.tries();
    let mut of_users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in ids(&tries) {
        of_users.entry(users[id]).or_default().push(id);
    }
    for (user, tried) in of_users {
        assert!(
            tried.is_sorted(),
            "{user}'s events were tried in another order: {tried:?}"
        );
    }
}
