//! Cursors, filters, and what a watcher is told when it cannot go on.

use futures_util::{FutureExt as _, StreamExt};
use tonic_types::StatusExt as _;

use super::*;
use crate::testing::{Bench, NOW};

fn request(cursor: &str) -> proto::WatchOutcomesRequest {
    proto::WatchOutcomesRequest {
        cursor: cursor.to_owned(),
        ..proto::WatchOutcomesRequest::default()
    }
}

fn watch_with(
    bench: &Bench,
    request: &proto::WatchOutcomesRequest,
) -> Result<impl Stream<Item = Result<proto::WatchOutcomesResponse, Status>> + use<>, Status> {
    outcomes(&bench.pipeline, request).map(StreamExt::boxed)
}

/// Every message that there is now.
fn told(
    stream: &mut (impl Stream<Item = Result<proto::WatchOutcomesResponse, Status>> + Unpin),
) -> Vec<proto::WatchOutcomesResponse> {
    let mut told = Vec::new();
    while let Some(Some(message)) = stream.next().now_or_never() {
        told.push(message.expect("a message"));
    }
    told
}

fn ids(messages: &[proto::WatchOutcomesResponse]) -> Vec<&str> {
    let status = |message: &'_ proto::WatchOutcomesResponse| message.status.is_some();
    assert!(messages.iter().all(status));
    messages
        .iter()
        .filter_map(|message| Some(message.status.as_ref()?.event_id.as_str()))
        .collect()
}

/// What a call, or a stream, is refused with: code, reason and oldest cursor.
fn refusal(status: &Status) -> (Code, String, Option<String>) {
    let mut info = status.get_details_error_info().expect("an ErrorInfo");
    (status.code(), info.reason, info.metadata.remove("oldest_cursor"))
}

#[track_caller]
fn check_refused(bench: &Bench, request: &proto::WatchOutcomesRequest, code: Code, reason: &str) {
    let status = watch_with(bench, request).err().expect("must be refused");
    let (real_code, real_reason, oldest) = refusal(&status);
    assert_eq!((real_code, real_reason.as_str()), (code, reason));
    assert_eq!(oldest.is_some(), code == Code::OutOfRange);
}

#[tokio::test]
async fn it_goes_on_from_where_it_was_without_a_gap() {
    let bench = Bench::new();
    let mut live = watch_with(&bench, &request("")).expect("watches");
    for id in ["e1", "e2", "e3"] {
        bench.publish("pr_a", id).await;
    }
    assert_eq!(told(&mut live), []);
    bench.deliver("pr_a", 1).await;
    bench.give_up("pr_a", 1, "MAX_AGE").await;
    let first = told(&mut live);
    assert_eq!(ids(&first), ["e1", "e2"]);
    let status = first[1].status.as_ref().expect("a status");
    assert_eq!(
        (status.state(), status.reason.as_str()),
        (proto::State::DeadLettered, "MAX_AGE")
    );
    assert_eq!(first[1].outcome_time, Some(status::timestamp(NOW)));
    bench.deliver("pr_a", 1).await;
    assert_eq!(ids(&told(&mut live)), ["e3"]);

    let mut again = watch_with(&bench, &request(&first[0].cursor)).expect("watches");
    assert_eq!(ids(&told(&mut again)), ["e2", "e3"]);
    let mut all = watch_with(&bench, &request(EARLIEST)).expect("watches");
    assert_eq!(ids(&told(&mut all)), ["e1", "e2", "e3"]);
    let mut from_now = watch_with(&bench, &request("")).expect("watches");
    assert_eq!(told(&mut from_now), []);
}

#[tokio::test]
async fn many_outcomes_come_page_by_page() {
    let bench = Bench::new();
    let count = 3 * PAGE + 1;
    for number in 0..count {
        bench.publish("pr_a", &format!("e{number}")).await;
    }
    bench.deliver("pr_a", count).await;
    let mut all = watch_with(&bench, &request(EARLIEST)).expect("watches");
    let told = told(&mut all);
    let expected: Vec<_> = (0..count).map(|number| format!("e{number}")).collect();
    assert_eq!(ids(&told), expected);
}

#[tokio::test]
async fn only_what_is_asked_for_is_told_but_cursors_count_all() {
    let bench = Bench::new();
    for (project, id) in [("pr_a", "a1"), ("pr_b", "b1"), ("pr_a", "a2")] {
        bench.publish(project, id).await;
    }
    bench.deliver("pr_a", 1).await;
    bench.deliver("pr_b", 1).await;
    bench.give_up("pr_a", 1, "MAX_AGE").await;
    let of_project = proto::WatchOutcomesRequest {
        project_id: "pr_b".to_owned(),
        ..request(EARLIEST)
    };
    let of_b = told(&mut watch_with(&bench, &of_project).expect("watches"));
    assert_eq!(ids(&of_b), ["b1"]);
    let rest = told(&mut watch_with(&bench, &request(&of_b[0].cursor)).expect("watches"));
    assert_eq!(ids(&rest), ["a2"]);
    let of_state = proto::WatchOutcomesRequest {
        states: vec![proto::State::DeadLettered.into()],
        ..request(EARLIEST)
    };
    let given_up = told(&mut watch_with(&bench, &of_state).expect("watches"));
    assert_eq!(ids(&given_up), ["a2"]);
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused() {
    let bench = Bench::new();
    check_refused(
        &bench,
        &request("soon"),
        Code::InvalidArgument,
        "CURSOR_MALFORMED",
    );
    let of_state = proto::WatchOutcomesRequest {
        states: vec![proto::State::Waiting.into()],
        ..request("")
    };
    check_refused(&bench, &of_state, Code::InvalidArgument, "STATE_NOT_AN_OUTCOME");
    let of_project = proto::WatchOutcomesRequest {
        project_id: "pr_unknown".to_owned(),
        ..request("")
    };
    check_refused(
        &bench,
        &of_project,
        Code::FailedPrecondition,
        "PROJECT_NOT_CONFIGURED",
    );
    let places = Places::new(&[9; 32]);
    let others = request(&places.write(Kind::Outcome, 0));
    check_refused(&bench, &others, Code::OutOfRange, "CURSOR_OF_ANOTHER_STORE");
    let places = Places::new(&bench.store.secret());
    let future = request(&places.write(Kind::Outcome, 1));
    check_refused(&bench, &future, Code::OutOfRange, "CURSOR_OF_ANOTHER_STORE");
}

#[tokio::test]
async fn an_old_cursor_is_refused_with_the_oldest_that_works() {
    let bench = Bench::with(|config| config.dedupe_ids = 2);
    let mut slow = watch_with(&bench, &request("")).expect("watches");
    for number in 0..5 {
        bench.publish("pr_a", &format!("e{number}")).await;
        bench.deliver("pr_a", 1).await;
    }
    let places = Places::new(&bench.store.secret());
    let old = request(&places.write(Kind::Outcome, 1));
    check_refused(&bench, &old, Code::OutOfRange, "CURSOR_EXPIRED");
    let still_good = request(&places.write(Kind::Outcome, 3));
    assert!(watch_with(&bench, &still_good).is_ok());

    let status = slow.next().await.expect("a last word").expect_err("an error");
    let (code, reason, oldest) = refusal(&status);
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    assert!(slow.next().await.is_none(), "the stream has ended");
    let oldest = request(&oldest.expect("an oldest cursor"));
    let mut on = watch_with(&bench, &oldest).expect("watches");
    assert_eq!(ids(&told(&mut on)), ["e3", "e4"]);
}

#[tokio::test]
async fn it_ends_when_the_sidecar_does() {
    let bench = Bench::new();
    let mut stream = watch_with(&bench, &request("")).expect("watches");
    assert!(stream.next().now_or_never().is_none());
    bench.pipeline.start_draining();
    let status = stream.next().await.expect("a last word").expect_err("an error");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(stream.next().await.is_none());
    check_refused(&bench, &request(""), Code::Unavailable, "DRAINING");
}
