//! The books balance, whatever becomes of a request.

use hyper::{Request, StatusCode};

use super::*;
use crate::record::{RecordedAnswer, RequestState};

fn arrive(received: &Arc<Received>, body: impl Into<Bytes>, answer: Option<&Answer>) -> Ticket {
    let request = Request::post("/projects/pr_1/events?a=b")
        .header("x-api-key", "rk_a")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .body(());
    let (head, ()) = request.expect("a request").into_parts();
    let arrival = Arrival {
        connection: 1,
        head: &head,
        project: Some("pr_1"),
        is_event: true,
        body: body.into(),
        created: answer.is_some_and(|answer| answer.status == StatusCode::OK),
        answer,
        fault: None,
    };
    received.arrive(arrival, true)
}

fn ok() -> Answer {
    Answer::json(StatusCode::OK, &"done")
}

#[track_caller]
fn check_balance(received: &Arc<Received>, requests: u64, unanswered: u64, in_flight: u64) {
    let counts = received.counts();
    let answered: u64 = counts.by_status.values().sum();
    assert_eq!(
        (counts.requests, counts.unanswered, counts.in_flight),
        (requests, unanswered, in_flight)
    );
    assert_eq!(counts.requests, answered + counts.unanswered + counts.in_flight);
    assert_eq!(counts.requests, counts.recorded + counts.not_recorded);
}

#[test]
fn a_request_is_in_flight_until_it_is_answered_or_given_up() {
    let received = Arc::new(Received::default());
    let first = arrive(&received, "a", Some(&ok()));
    let second = arrive(&received, "b", Some(&ok()));
    check_balance(&received, 2, 0, 2);
    assert!(received.requests(0).requests[0].answer.is_none());
    first.answered();
    drop(second);
    check_balance(&received, 2, 1, 0);
    let kept = received.requests(0).requests;
    assert_eq!(
        kept[0].answer,
        Some(RecordedAnswer {
            status: 200,
            body: "\"done\"".into()
        })
    );
    assert_eq!(
        (kept[0].state, kept[1].state),
        (RequestState::Answered, RequestState::Unanswered)
    );
    assert_eq!(kept[1].answer, None);
    assert_eq!(received.counts().max_in_flight, 2);
}

#[test]
fn a_request_is_kept_as_it_came() {
    let received = Arc::new(Received::default());
    arrive(&received, "{}", Some(&ok())).answered();
    let request = received.requests(0).requests.remove(0);
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/projects/pr_1/events?a=b")
    );
    assert_eq!(request.header("x-api-key"), Some("rk_a"));
    let json = serde_json::to_value(&request).expect("JSON");
    assert_eq!(json["headers"]["x-twice"], "1, 2");
    assert_eq!(json["state"], "answered");
}

#[test]
fn bodies_are_told_apart() {
    let received = Arc::new(Received::default());
    arrive(&received, "a", Some(&ok())).answered();
    arrive(&received, "a", Some(&ok())).answered();
    arrive(&received, "b", None).answered();
    let counts = received.counts();
    assert_eq!(
        (
            counts.distinct_event_bodies,
            counts.created,
            counts.distinct_created
        ),
        (2, 2, 1)
    );
}

#[test]
fn since_gives_what_came_later_and_says_what_is_missing() {
    let received = Arc::new(Received::default());
    for _ in 0..3 {
        arrive(&received, "a", Some(&ok())).answered();
    }
    let numbers = |since| {
        received
            .requests(since)
            .requests
            .iter()
            .map(|one| one.number)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(0), [1, 2, 3]);
    assert_eq!(numbers(2), [3]);
    assert_eq!((numbers(3), numbers(9)), (vec![], vec![]));
    received.lock().records.pop_front();
    assert_eq!(
        (received.requests(0).dropped, received.requests(1).dropped),
        (1, 0)
    );
}

#[test]
fn the_oldest_are_dropped_when_there_are_too_many_bytes() {
    let received = Arc::new(Received::default());
    let large = Bytes::from(vec![b'a'; MAX_RECORDED_BYTES / 3]);
    for _ in 0..4 {
        arrive(&received, large.clone(), Some(&ok())).answered();
    }
    let kept = received.requests(0);
    assert_eq!((kept.requests.len(), kept.dropped, kept.last), (2, 2, 4));
    check_balance(&received, 4, 0, 0);
}

#[test]
fn after_a_reset_numbers_go_on_and_counts_start_over() {
    let received = Arc::new(Received::default());
    let before = arrive(&received, "a", Some(&ok()));
    received.reset();
    check_balance(&received, 0, 0, 0);
    before.answered();
    check_balance(&received, 0, 0, 0);
    arrive(&received, "b", Some(&ok())).answered();
    check_balance(&received, 1, 0, 0);
    let kept = received.requests(0);
    assert_eq!((kept.requests[0].number, kept.last, kept.dropped), (2, 2, 0));
}
