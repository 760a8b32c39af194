//! What a full share says, and to whom.

use embeddables_proto::events::v1 as proto;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::testing::Bench;

#[track_caller]
fn check(refusal: &Refusal, code: Code, reason: &str, http: u16) {
    let status = refusal.to_status("event");
    let details = status.get_error_details();
    assert_eq!(status.code(), code);
    assert_eq!(
        details.error_info().map(|info| info.reason.as_str()),
        Some(reason)
    );
    assert!(details.retry_info().is_some(), "{reason} passes by itself");
    assert_eq!(refusal.http_status().as_u16(), http);
    let alone: proto::Refusal = refusal.to_proto("event");
    assert_eq!((alone.code, alone.reason.as_str()), (i32::from(code), reason));
}

#[tokio::test]
async fn a_project_at_its_share_is_refused_and_no_other() {
    let bench = Bench::with(|config| config.lane_share_bytes = 600);
    bench.publish("pr_a", "a1").await;
    let refused = bench.try_publish("pr_a", "a2").await.expect_err("over its share");
    assert_eq!(refused, Refusal::ProjectFull);
    check(&refused, Code::ResourceExhausted, "PROJECT_FULL", 429);
    bench.publish("pr_b", "b1").await;
    bench.deliver("pr_a", 1).await;
    bench.publish("pr_a", "a2").await;
}

#[tokio::test]
async fn too_many_dead_letters_keep_new_events_out() {
    let bench = Bench::with(|config| config.dead_letter_share_bytes = 300);
    bench.publish("pr_a", "a1").await;
    bench.give_up("pr_a", 1, "MAX_AGE").await;
    let refused = bench
        .try_publish("pr_a", "a2")
        .await
        .expect_err("too many dead letters");
    assert_eq!(refused, Refusal::DeadLettersFull);
    check(&refused, Code::ResourceExhausted, "DEAD_LETTERS_FULL", 429);
    assert!(
        refused.to_string().contains("dead-letters"),
        "says what to do: {refused}"
    );
    bench.publish("pr_b", "b1").await;
}
