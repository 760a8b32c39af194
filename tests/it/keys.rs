//! A key that is rotated by its file: a new one is in force at once and lifts the hold of the old one; a broken one changes
//! nothing.

use std::time::Duration;

use e2e::event::TestEvent;
use e2e::key_file::{Change, KeyFile};
use e2e::lanes::{await_free, await_held, check_free};
use e2e::settings::{API_KEY, PROJECT};
use e2e::stage::{self, Stage};
use e2e::upstream::Upstream;
use e2e::wait;
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::events::v1::State;
use tempfile::TempDir;

const NEW_KEY: &str = "rk_test_new_0123456789";

/// A stage whose key is in a file, and whose lane does not probe within a test; upstream takes `accepted` alone.
async fn stage_with(change: Change, accepted: &str) -> (Stage, KeyFile, TempDir) {
    let folder = stage::directory();
    let file = KeyFile::new(&folder.path().join("secret"), change, &format!("{API_KEY}\n"));
    let upstream = Upstream::start().await;
    accept(&upstream, accepted);
    let stage = Stage::on(upstream, |settings| {
        settings.with_key_file(&file.path()).without_probes()
    })
    .await;
    (stage, file, folder)
}

fn accept(upstream: &Upstream, key: &str) {
    upstream.configure(Settings {
        keys: [(PROJECT.to_owned(), vec![key.to_owned()])].into(),
        ..Settings::default()
    });
}

/// Key that each event went out with in the end, by its order of arrival.
fn keys(stage: &Stage) -> Vec<String> {
    let created = stage.upstream.tries().into_iter().filter(|one| one.created);
    created.map(|one| one.key).collect()
}

async fn check_rotation(change: Change) {
    let (stage, mut file, _folder) = stage_with(change, NEW_KEY).await;
    let events: Vec<_> = (0..10)
        .map(|index| TestEvent::new(format!("rotated-{index}")))
        .collect();
    stage.publish_all(&events).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    file.write(&format!("{NEW_KEY}\n"));
    stage.await_delivered(&events, wait::SOON).await;
    await_free(&stage.sidecar, PROJECT).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.delivered, books.dead_lettered), (10.0, 0.0), "{books:?}");
    assert_eq!(keys(&stage), vec![NEW_KEY; 10]);
    // Once more: what is watched is the name, not the file that was there at first.
    const THIRD_KEY: &str = "rk_test_third_0123456789";
    accept(&stage.upstream, THIRD_KEY);
    let event = TestEvent::new("rotated-again");
    stage.publish(&event).await;
    await_held(&stage.sidecar, PROJECT, "KEY_REJECTED").await;
    file.write(THIRD_KEY);
    stage.await_delivered([&event], wait::SOON).await;
}

#[tokio::test]
async fn a_key_file_that_is_written_again_lifts_the_hold() {
    check_rotation(Change::Rewrite).await;
}

#[tokio::test]
async fn a_key_file_that_is_replaced_lifts_the_hold() {
    check_rotation(Change::Replace).await;
}

#[tokio::test]
async fn a_key_file_whose_folder_kubernetes_swaps_lifts_the_hold() {
    check_rotation(Change::SwapFolder).await;
}

#[tokio::test]
async fn a_new_key_is_in_force_before_the_old_one_is_revoked() {
    let (stage, mut file, _folder) = stage_with(Change::SwapFolder, API_KEY).await;
    stage.upstream.configure(Settings {
        keys: [(PROJECT.to_owned(), vec![API_KEY.to_owned(), NEW_KEY.to_owned()])].into(),
        ..Settings::default()
    });
    file.write(NEW_KEY);
    let mut sent = 0;
    wait::until("an event to go out with the new key", wait::SOON, async || {
        let event = TestEvent::new(format!("overlap-{sent}"));
        sent += 1;
        stage.publish(&event).await;
        stage.await_state(&event, State::Delivered).await;
        keys(&stage)
            .last()
            .is_some_and(|key| key == NEW_KEY)
            .then_some(())
    })
    .await;
    check_free(&stage.sidecar, PROJECT).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_new_key_file_that_is_no_good_leaves_the_old_key_in_force_and_is_told() {
    const SECRET: &str = "secretword7d1f";
    let (stage, mut file, _folder) = stage_with(Change::Replace, API_KEY).await;
    let broken = [
        format!("sk_{SECRET}"),
        String::new(),
        format!("rk_{SECRET}\nrk_{SECRET}\n"),
        format!("rk_{SECRET} with spaces"),
    ];
    for (index, content) in broken.iter().enumerate() {
        let log_before = stage.sidecar.log().len();
        file.write(content);
        let name = file.path().display().to_string();
        wait::until(
            format!("a word about the key file {content:?}"),
            wait::SOON,
            async || stage.sidecar.log()[log_before..].contains(&name).then_some(()),
        )
        .await;
        let event = TestEvent::new(format!("old-key-{index}"));
        stage.publish(&event).await;
        stage.await_state(&event, State::Delivered).await;
    }
    assert_eq!(keys(&stage), vec![API_KEY; broken.len()]);
    assert!(!stage.sidecar.log().contains(SECRET), "{}", stage.sidecar.log());
    // Mended, it is read again.
    accept(&stage.upstream, NEW_KEY);
    file.write(NEW_KEY);
    let event = TestEvent::new("mended");
    stage.publish(&event).await;
    stage.await_state(&event, State::Delivered).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn an_answer_counts_only_for_the_key_that_asked() {
    let (stage, mut file, _folder) = stage_with(Change::Rewrite, NEW_KEY).await;
    // The refusal of the old key is on its way while the new one comes into force.
    stage.upstream.push(FaultScript::once([Step {
        latency_ms: Some(4_000),
        ..Step::status(401)
    }]));
    let late = TestEvent::new("asked-with-the-old-key");
    stage.publish(&late).await;
    stage.upstream.await_tries(1).await;
    file.write(NEW_KEY);
    let status = stage.await_state(&late, State::Delivered).await;
    assert_eq!(status.attempt_count, 2, "{status:?}");
    assert_eq!(keys(&stage), [NEW_KEY]);
    let tries = stage.upstream.tries();
    let gap = tries[1].since(&tries[0]);
    assert!(gap < Duration::from_secs(20), "no hold in between: {gap:?}");
    check_free(&stage.sidecar, PROJECT).await;
    stage.drain(wait::SOON).await;
}
