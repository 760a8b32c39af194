//! An unknown user's events are parked: of one user only a canary is tried, and the others follow it.

use std::time::Duration;

use e2e::event::{EMBEDDABLE, TestEvent};
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::tries::ids;
use e2e::upstream::usual_settings;
use e2e::{calls, wait};
use embeddables_mock::{Entry, FaultScript, Settings, Step};
use embeddables_proto::events::v1::{EventStatus, PublishOptions, State};

const USER: &str = "late@example.com";

/// Tries every 200 ms, for longer than a test takes.
fn steady_schedule() -> String {
    let steps: Vec<String> = (1..=200).map(|step| format!("\"{}ms\"", step * 200)).collect();
    format!("[{}]", steps.join(", "))
}

async fn stage_with(schedule: impl Into<String>) -> Stage {
    let schedule = schedule.into();
    Stage::with(|settings| settings.set("DELIVERY__ENTRY_SCHEDULE", schedule)).await
}

/// Upstream knows these users and no other.
fn know_only(stage: &Stage, users: &[&str]) {
    let entry = |user: &&str| Entry {
        project: PROJECT.to_owned(),
        embeddable: EMBEDDABLE.to_owned(),
        key: "email".to_owned(),
        value: (*user).into(),
    };
    stage.upstream.configure(Settings {
        any_entry: Some(false),
        entries: users.iter().map(entry).collect(),
        ..usual_settings()
    });
}

/// The answer for an unknown user, once.
fn unknown_once() -> Step {
    Step::status(404).with_body(r#"{"code": "ENTRY_NOT_FOUND"}"#)
}

fn of_user(prefix: &str, count: usize) -> Vec<TestEvent> {
    (0..count)
        .map(|index| TestEvent::new(format!("{prefix}-{index}")).about(USER))
        .collect()
}

async fn await_parked(stage: &Stage, event: &TestEvent) -> EventStatus {
    stage.await_reason(event, State::Waiting, "ENTRY_NOT_FOUND").await
}

/// Parks a canary, then so many followers behind it.
async fn park(stage: &Stage, count: usize) -> (TestEvent, Vec<TestEvent>) {
    let (canary, followers) = (TestEvent::new("canary").about(USER), of_user("follower", count));
    stage.publish(&canary).await;
    await_parked(stage, &canary).await;
    stage.publish_all(&followers).await;
    for follower in &followers {
        // Behind a canary that waits, or behind one that is being tried just now.
        let status = stage.await_state(follower, State::Waiting).await;
        let reasons = ["ENTRY_NOT_FOUND", "EARLIER_EVENT"];
        assert!(reasons.contains(&status.reason.as_str()), "{status:?}");
        assert_eq!(status.attempt_count, 0, "a follower is not tried: {status:?}");
    }
    (canary, followers)
}

#[tokio::test]
async fn of_one_unknown_user_only_a_canary_is_tried_and_others_go_on() {
    let stage = stage_with(steady_schedule()).await;
    know_only(&stage, &["known@example.com"]);
    let (canary, followers) = park(&stage, 5).await;
    let known = TestEvent::new("known").about("known@example.com");
    stage.publish(&known).await;
    stage.await_state(&known, State::Delivered).await;
    let tries = stage.upstream.await_tries(6).await;
    let parked: Vec<_> = tries.iter().filter(|one| one.id != known.id).collect();
    assert!(parked.iter().all(|one| one.id == canary.id), "{:?}", ids(&tries));
    know_only(&stage, &[USER]);
    stage
        .await_delivered(followers.iter().chain([&canary]), wait::SOON)
        .await;
    for follower in &followers {
        let status = stage.await_state(follower, State::Delivered).await;
        assert_eq!(
            (status.attempt_count, status.possible_duplicate),
            (1, false),
            "{status:?}"
        );
    }
    assert_eq!(stage.drain(wait::SOON).await.delivered, 7.0);
}

#[tokio::test]
async fn when_the_canary_succeeds_all_follow_at_once() {
    let stage = stage_with(r#"["2s", "1h"]"#).await;
    stage.upstream.fail_next([unknown_once()]);
    let (canary, followers) = park(&stage, 20).await;
    assert_eq!(
        stage.upstream.request_count(),
        1,
        "parked before the canary's next try"
    );
    // Their own schedule would let them wait for two seconds and an hour.
    stage
        .await_delivered(followers.iter().chain([&canary]), wait::SOON)
        .await;
    let tries = stage.upstream.tries();
    assert_eq!(ids(&tries)[..2], ["canary", "canary"], "the canary goes first");
    assert_eq!(tries.len(), 22, "each follower is tried once: {:?}", ids(&tries));
    let took = tries[21].since(&tries[1]);
    assert!(
        took < Duration::from_millis(1_900),
        "at once, not on its own schedule: {took:?}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn when_the_canary_is_given_up_the_oldest_follower_takes_over_at_once() {
    let stage = stage_with(r#"["1s"]"#).await;
    know_only(&stage, &[]);
    let (canary, followers) = park(&stage, 2).await;
    for event in [&canary, &followers[0], &followers[1]] {
        let dead = stage
            .await_reason(event, State::DeadLettered, "ENTRY_NOT_FOUND")
            .await;
        assert!(dead.attempt_count >= 1, "none is given up untried: {dead:?}");
    }
    let tries = stage.upstream.tries();
    assert!(ids(&tries).is_sorted(), "one after the other: {:?}", ids(&tries));
    let last = tries.iter().rposition(|one| one.id == canary.id);
    let last = last.expect("the canary was tried");
    assert_eq!(last, 1, "at once and after a second: {:?}", ids(&tries));
    let gap = tries[last + 1].since(&tries[last]);
    assert!(
        gap < Duration::from_millis(900),
        "the follower takes over at once: {gap:?}"
    );
    assert_eq!(stage.drain(wait::SOON).await.dead_lettered, 3.0);
}

#[tokio::test]
async fn when_the_canary_is_rejected_the_oldest_follower_takes_over_at_once() {
    let stage = stage_with(r#"["1500ms", "1h"]"#).await;
    stage.upstream.fail_next([unknown_once(), Step::status(422)]);
    let (canary, followers) = park(&stage, 3).await;
    stage
        .await_reason(&canary, State::DeadLettered, "UPSTREAM_REJECTED")
        .await;
    stage.await_delivered(&followers, wait::SOON).await;
    let tries = stage.upstream.tries();
    assert_eq!(
        ids(&tries)[..3],
        ["canary", "canary", "follower-0"],
        "{:?}",
        ids(&tries)
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn when_the_canarys_deadline_passes_the_oldest_follower_takes_over_at_once() {
    let stage = stage_with(r#"["1h"]"#).await;
    stage.upstream.fail_next([unknown_once()]);
    let canary = TestEvent::new("canary").about(USER);
    let limit = std::time::SystemTime::now() + Duration::from_secs(2);
    let options = PublishOptions {
        deliver_before: Some(limit.into()),
        ..PublishOptions::default()
    };
    stage.publish_with(&canary, options).await;
    await_parked(&stage, &canary).await;
    let follower = TestEvent::new("follower").about(USER);
    stage.publish(&follower).await;
    await_parked(&stage, &follower).await;
    stage
        .await_reason(&canary, State::DeadLettered, "DELIVER_BEFORE_PASSED")
        .await;
    stage.await_state(&follower, State::Delivered).await;
    assert_eq!(ids(&stage.upstream.tries()), ["canary", "follower"]);
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_later_success_for_the_same_user_wakes_who_is_parked() {
    let stage = stage_with(r#"["1h"]"#).await;
    // The lane has to learn first that upstream bears several at once, and that the user is known.
    let others = (0..60).map(|index| TestEvent::new(format!("warm-{index}")));
    let warm_up: Vec<_> = others.chain(of_user("warm-user", 3)).collect();
    stage.publish_all(&warm_up).await;
    stage.await_delivered(&warm_up, wait::SOON).await;
    stage.drain(wait::SOON).await;
    let slowly = Step::latency(Duration::from_millis(1_500));
    stage.upstream.push(FaultScript::once([unknown_once(), slowly]));
    let both = of_user("both", 2);
    stage.publish_all(&both).await;
    let mut attempts = 0;
    for event in &both {
        attempts += stage.await_state(event, State::Delivered).await.attempt_count;
    }
    assert_eq!(attempts, 3, "one was parked, and woken before its hour was over");
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn canary_and_followers_survive_a_kill() {
    let mut stage = stage_with(steady_schedule()).await;
    know_only(&stage, &[]);
    let (canary, followers) = park(&stage, 4).await;
    stage.kill_and_restart().await;
    let before = stage.upstream.request_count();
    let tries = stage.upstream.await_tries(before + 3).await;
    assert!(tries.iter().all(|one| one.id == canary.id), "{:?}", ids(&tries));
    know_only(&stage, &[USER]);
    stage
        .await_delivered(followers.iter().chain([&canary]), wait::SOON)
        .await;
    for follower in &followers {
        let status = calls::get(&stage.client(), &follower.id)
            .await
            .expect("it is known");
        assert!(
            !status.possible_duplicate,
            "a follower was never tried before: {status:?}"
        );
    }
    stage.drain(wait::SOON).await;
}
