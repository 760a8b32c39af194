//! `kill -9` at random moments under load: nothing that was acknowledged is ever lost or changed.
//!
//! `E2E_CRASH_ROUNDS` sets the number of rounds, `E2E_SEED` brings a run back as far as timing allows, and the summary goes
//! to the file that `E2E_SUMMARY_FILE` names.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::calls;
use e2e::event::TestEvent;
use e2e::load::{Load, Report};
use e2e::random::Seeded;
use e2e::sidecar::Sidecar;
use e2e::stage::Stage;
use e2e::wait;
use embeddables_proto::events::v1::State;
use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use serde_json::json;
use tokio::time::Instant;

const DEFAULT_ROUNDS: usize = 25;

/// Most events acknowledged in one round before the kill.
const MOST_ACKNOWLEDGED: usize = 600;

/// Events in doubt that the next round repeats, as a service would.
const REPEATS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_load_loses_nothing_acknowledged() {
    let rounds = rounds();
    let started = Instant::now();
    let mut seeded = Seeded::new();
    let mut stage = Stage::new().await;
    let mut total = Report::default();
    for round in 0..rounds {
        let report = run_until_killed(&mut stage, round, &mut seeded, &total).await;
        let newest: Vec<String> = report.acknowledged.keys().cloned().collect();
        total.absorb(report);
        if seeded.source.random_bool(0.3) {
            kill_while_starting(&stage, &mut seeded).await;
        }
        stage.restart().await;
        check_known(&stage, &newest).await;
        check_books(&stage, &total).await;
    }
    stage
        .await_delivered(total.acknowledged.values(), wait::LONG)
        .await;
    let books = stage.drain(wait::LONG).await;
    assert_eq!(books.delivered, books.accepted, "nothing was given up: {books:?}");
    check_books(&stage, &total).await;
    let repeated = check_bodies(&stage, &total);
    check_flagged(&stage, &repeated).await;
    let summary = json!({
        "recipe": "crash", "ok": true, "rounds": rounds, "seed": seeded.seed, "seconds": started.elapsed().as_secs(),
        "acknowledged": total.acknowledged.len(), "in_doubt": total.in_doubt.len(), "accepted": books.accepted,
        "delivered": books.delivered, "delivered_more_than_once": repeated.len(), "lost": 0,
    });
    println!("{summary}");
    if let Some(file) = std::env::var_os("E2E_SUMMARY_FILE") {
        std::fs::write(file, format!("{summary}\n")).expect("the summary can be written");
    }
}

fn rounds() -> usize {
    let rounds = std::env::var("E2E_CRASH_ROUNDS").ok();
    rounds.map_or(DEFAULT_ROUNDS, |text| {
        text.parse().expect("E2E_CRASH_ROUNDS is a whole number")
    })
}

/// Puts load on the sidecar and kills it: at once, after so many acknowledgements, or after so many deliveries.
async fn run_until_killed(stage: &mut Stage, round: usize, seeded: &mut Seeded, total: &Report) -> Report {
    let repeats = total.in_doubt.values().take(REPEATS).cloned().collect();
    let seed = seeded.source.random();
    let load = Load::start(&stage.sidecar, &format!("crash-{round}"), seed, repeats);
    match seeded.source.random_range(0..4) {
        0 => {}
        1 => {
            let enough = stage.upstream.created_count() + seeded.source.random_range(1..200);
            let what = format!("{enough} deliveries at the upstream");
            wait::until(what, wait::SOON, async || {
                (stage.upstream.created_count() >= enough).then_some(())
            })
            .await;
        }
        _ => {
            load.await_acknowledged(seeded.source.random_range(1..MOST_ACKNOWLEDGED))
                .await
        }
    }
    stage.sidecar.kill_nine().await;
    load.finish().await
}

/// Starts a life that ends before or just after it is ready: recovery itself is interrupted.
async fn kill_while_starting(stage: &Stage, seeded: &mut Seeded) {
    let mut starting = Sidecar::spawn(&stage.settings);
    // Not to wait for something: the moment of the kill is what is random here.
    tokio::time::sleep(Duration::from_millis(seeded.source.random_range(0..150))).await;
    starting.kill_nine().await;
}

/// Asks for each of these ids: each must be known, and in a place where an acknowledged event may be.
async fn check_known(stage: &Stage, ids: &[String]) {
    let client = stage.client();
    let asking = stream::iter(ids).map(|id| {
        let client = client.clone();
        async move { (id, calls::get(&client, id).await) }
    });
    let mut answers = asking.buffer_unordered(32);
    while let Some((id, answer)) = answers.next().await {
        let status = answer.unwrap_or_else(|status| panic!("{id} was acknowledged and is lost: {status}"));
        assert!(
            matches!(status.state(), State::Queued | State::Waiting | State::Delivered),
            "{status:?}"
        );
    }
}

async fn check_books(stage: &Stage, total: &Report) {
    let books = stage.balance_books().await;
    let count = |length: usize| f64::from(u32::try_from(length).expect("fewer than four thousand million"));
    let (least, most) = (
        count(total.acknowledged.len()),
        count(total.acknowledged.len() + total.in_doubt.len()),
    );
    assert!(books.accepted >= least, "{least} were acknowledged, {books:?}");
    assert!(books.accepted <= most, "{most} were sent, {books:?}");
    assert_eq!(books.quarantined, 0.0, "{books:?}");
}

/// Compares every body that arrived with what was sent; gives the ids that arrived more than once.
fn check_bodies(stage: &Stage, total: &Report) -> Vec<String> {
    let sent: BTreeMap<&String, &TestEvent> = total.acknowledged.iter().chain(&total.in_doubt).collect();
    stage.upstream.look(|created| {
        for (id, bodies) in created {
            let event = sent.get(id).unwrap_or_else(|| panic!("{id} was never sent"));
            for body in bodies {
                assert_eq!(*body, event.body(), "{id} arrived with another body");
            }
        }
        created
            .iter()
            .filter(|(_, bodies)| bodies.len() > 1)
            .map(|(id, _)| id.clone())
            .collect()
    })
}

/// Whatever upstream got more than once is flagged.
async fn check_flagged(stage: &Stage, repeated: &[String]) {
    let client = stage.client();
    for id in repeated {
        let status = calls::get(&client, id).await.expect("a delivered event is known");
        assert!(
            status.possible_duplicate,
            "upstream has {id} more than once: {status:?}"
        );
    }
}
