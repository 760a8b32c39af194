//! Each kind of fault, on HTTP/1.1 and HTTP/2.

use std::io::ErrorKind;
use std::time::Duration;

use embeddables_mock::{FaultScript, Mock, RequestState, ResetPoint, Settings, Step, Truncate};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{
    BOTH, Client, EVENTS, Protocol, Reply, event_request, good_event, http2_reason, send_event, start, until,
};

/// An hour: what waits for it never goes on within a test.
const AN_HOUR: Duration = Duration::from_secs(3600);

async fn with_step(step: Step) -> Mock {
    let mock = start().await;
    mock.push_faults(FaultScript::once([step])).expect("a good step");
    mock
}

/// Sends an event to a mock with one step; the next event must be answered as usual.
async fn check(protocol: Protocol, step: Step) -> (Result<Reply, hyper::Error>, Mock) {
    let mock = with_step(step.clone()).await;
    let reply = send_event(&mock, protocol).await;
    let requests = mock.requests();
    assert_eq!(requests.len(), 1, "{step:?}");
    assert_eq!(requests[0].fault.as_ref(), Some(&step));
    let next = send_event(&mock, protocol).await.expect("an answer");
    assert_eq!(
        (next.status.as_u16(), next.json()["project_id"].as_str()),
        (200, Some("pr_1"))
    );
    (reply, mock)
}

async fn check_answer(step: Step, status: u16, headers: &[(&str, &str)], body: &str, created: bool) {
    for protocol in BOTH {
        let (reply, mock) = check(protocol, step.clone()).await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, status, "{step:?}");
        for (name, value) in headers {
            assert_eq!(&reply.header(name), value, "{step:?}");
        }
        let found = reply.body.expect("a whole body");
        let found = str::from_utf8(&found).expect("text");
        assert!(found.contains(body), "{step:?}: {found}");
        assert_eq!(mock.requests()[0].created, created, "{step:?}");
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn a_status_is_answered_with_its_own_code() {
    check_answer(
        Step::status(503),
        503,
        &[("content-type", "application/json")],
        "SERVICE_UNAVAILABLE",
        false,
    )
    .await;
    check_answer(Step::status(404), 404, &[], "\"NOT_FOUND\"", false).await;
    check_answer(Step::status(599), 599, &[], "UNKNOWN_STATUS", false).await;
}

#[tokio::test]
async fn a_retry_after_goes_out_verbatim() {
    for text in ["2", "Wed, 21 Oct 2015 07:28:00 GMT", "garbage", "31536000"] {
        let step = Step::status(429).with_retry_after(text);
        check_answer(step, 429, &[("retry-after", text)], "TOO_MANY_REQUESTS", false).await;
    }
    let step = serde_json::from_str(r#"{"status":503,"retry_after":7}"#).expect("a step");
    check_answer(step, 503, &[("retry-after", "7")], "", false).await;
}

#[tokio::test]
async fn a_success_on_demand_carries_the_request_out() {
    check_answer(Step::status(201), 201, &[], "\"entry_id\"", true).await;
    let headers = [("content-type", "text/html; charset=utf-8")];
    check_answer(Step::body("<p>hello"), 200, &headers, "<p>hello", true).await;
}

#[tokio::test]
async fn a_body_goes_out_verbatim() {
    let html = [("content-type", "text/html; charset=utf-8")];
    check_answer(
        Step::status(502).with_body("<html>bad"),
        502,
        &html,
        "<html>bad",
        false,
    )
    .await;
    let json = [("content-type", "application/json")];
    check_answer(
        Step::status(404).with_body("{\"a\": 1}"),
        404,
        &json,
        "{\"a\": 1}",
        false,
    )
    .await;
}

#[tokio::test]
async fn a_redirect_points_elsewhere() {
    let location = [("location", "http://127.0.0.1:1/x")];
    check_answer(Step::redirect(location[0].1), 307, &location, "", false).await;
    let step = Step {
        status: Some(301),
        ..Step::redirect(location[0].1)
    };
    check_answer(step, 301, &location, "", false).await;
}

#[tokio::test]
async fn latency_delays_the_answer() {
    for protocol in BOTH {
        let mock = with_step(Step::latency(Duration::from_millis(60))).await;
        mock.configure(Settings {
            latency_ms: 40,
            ..Settings::default()
        })
        .expect("good settings");
        let started = Instant::now();
        let reply = send_event(&mock, protocol).await.expect("an answer");
        assert!(
            started.elapsed() >= Duration::from_millis(100),
            "step and base latency add up"
        );
        assert_eq!(reply.status, 200);
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn a_reset_before_creates_nothing_and_a_reset_after_does() {
    for protocol in BOTH {
        for (point, created) in [(ResetPoint::Before, 0), (ResetPoint::After, 1)] {
            let (reply, mock) = check(protocol, Step::reset(point)).await;
            let error = reply.expect_err("no answer");
            if protocol == Protocol::Http2 {
                assert_eq!(http2_reason(&error), Some(h2::Reason::INTERNAL_ERROR));
            }
            let counts = mock.counts();
            assert_eq!((counts.created, counts.unanswered), (created + 1, 1), "{point:?}");
            let request = mock.requests().remove(0);
            assert_eq!((request.state, request.answer), (RequestState::Unanswered, None));
            mock.shutdown().await;
        }
    }
}

#[tokio::test]
async fn an_http2_reset_leaves_the_connection_alone() {
    let mock = with_step(Step::reset(ResetPoint::After)).await;
    let mut client = Client::connect(&mock, Protocol::Http2).await;
    let mut send = async || {
        client
            .send(event_request(mock.addr(), EVENTS, &good_event()))
            .await
    };
    send().await.expect_err("a reset stream");
    assert_eq!(send().await.expect("an answer").status, 200);
    assert_eq!(mock.counts().connections, 1);
    mock.shutdown().await;
}

/// Sends an event as plain bytes and reads to the end.
async fn send_raw(mock: &Mock) -> (Vec<u8>, Result<usize, ErrorKind>) {
    let mut stream = TcpStream::connect(mock.addr()).await.expect("a connection");
    stream.write_all(raw_event().as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let end = stream
        .read_to_end(&mut answer)
        .await
        .map_err(|error| error.kind());
    (answer, end)
}

fn raw_event() -> String {
    let body = good_event().to_string();
    format!(
        "POST {EVENTS} HTTP/1.1\r\nhost: mock\r\nx-api-key: rk_a\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn an_http1_reset_is_a_real_one() {
    for point in [ResetPoint::Before, ResetPoint::After] {
        let mock = with_step(Step::reset(point)).await;
        assert_eq!(
            send_raw(&mock).await,
            (vec![], Err(ErrorKind::ConnectionReset)),
            "{point:?}"
        );
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn a_hang_ends_without_an_answer() {
    let mock = with_step(Step::hang(Duration::from_millis(50))).await;
    let started = Instant::now();
    assert_eq!(send_raw(&mock).await, (vec![], Ok(0)), "closed in order");
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!((mock.counts().created, mock.counts().unanswered), (0, 1));
    mock.shutdown().await;
    let (reply, mock) = check(Protocol::Http2, Step::hang(Duration::from_millis(50))).await;
    assert_eq!(
        http2_reason(&reply.expect_err("no answer")),
        Some(h2::Reason::INTERNAL_ERROR)
    );
    mock.shutdown().await;
}

#[tokio::test]
async fn a_project_that_hangs_does_not_hold_up_another() {
    const HANGING: usize = 300;
    let mock = start().await;
    mock.push_faults(FaultScript::forever([Step::hang(AN_HOUR)]).for_project("pr_2"))
        .expect("a good step");
    for protocol in BOTH {
        let mut tasks = JoinSet::new();
        // Over HTTP/2 all share one connection, and the next project's requests come by it too.
        let mut shared = Client::connect(&mock, protocol).await;
        for _ in 0..HANGING {
            let request = event_request(mock.addr(), "/projects/pr_2/events", &good_event());
            let own = match &shared {
                Client::Http2(sender) => Client::Http2(sender.clone()),
                Client::Http1(_) => Client::connect(&mock, protocol).await,
            };
            tasks.spawn(async move {
                let mut own = own;
                own.send(request).await
            });
        }
        until(&mock, |counts| counts.in_flight == HANGING as u64).await;
        for _ in 0..HANGING {
            let request = event_request(mock.addr(), EVENTS, &good_event());
            let reply = shared.send(request).await.expect("an answer");
            assert_eq!(reply.status, 200);
        }
        assert_eq!(mock.counts().in_flight, HANGING as u64, "all of them still hang");
        tasks.shutdown().await;
        until(&mock, |counts| counts.in_flight == 0).await;
    }
    let created = mock.counts().by_project["pr_1"].created;
    assert_eq!(created, 2 * HANGING as u64);
    mock.shutdown().await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_noticed() {
    for protocol in BOTH {
        let mock = start().await;
        mock.push_faults(FaultScript::once([Step::hang(AN_HOUR), Step::latency(AN_HOUR)]))
            .expect("good steps");
        for unanswered in [1, 2] {
            tokio::select! {
                reply = send_event(&mock, protocol) => panic!("answered: {reply:?}"),
                _ = until(&mock, |counts| counts.in_flight == 1) => {}
            }
            until(&mock, |counts| {
                counts.unanswered == unanswered && counts.in_flight == 0
            })
            .await;
        }
        assert_eq!(
            mock.counts().created,
            1,
            "a slow request is carried out before the wait"
        );
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn a_truncated_answer_promises_all_and_gives_a_part() {
    let cases = [
        (Truncate::Bytes(0), 0),
        (Truncate::Bytes(5), 5),
        (Truncate::Half(true), 10),
    ];
    for (cut, kept) in cases {
        let step = Step {
            truncate: Some(cut),
            ..Step::status(200).with_body("0123456789abcdefghij")
        };
        for protocol in BOTH {
            let (reply, mock) = check(protocol, step.clone()).await;
            let reply = reply.expect("a head");
            assert_eq!(
                (reply.status.as_u16(), reply.header("content-length")),
                (200, "20")
            );
            reply.body.expect_err("a body cut short");
            mock.shutdown().await;
        }
        let mock = with_step(step).await;
        let (answer, end) = send_raw(&mock).await;
        let answer = String::from_utf8(answer).expect("text");
        let body = answer.split_once("\r\n\r\n").expect("a whole head").1;
        assert_eq!((body, end), (&"0123456789abcdefghij"[..kept], Ok(answer.len())));
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn the_usual_answer_can_be_truncated() {
    for protocol in BOTH {
        let (reply, mock) = check(protocol, Step::truncate(Truncate::Bytes(3))).await;
        assert_eq!(reply.expect("a head").status, 200);
        let request = mock.requests().remove(0);
        let recorded: Value =
            serde_json::from_str(&request.answer.expect("an answer").body).expect("the whole body");
        assert!(request.created && recorded["entry_id"].is_string());
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_is_counted_apart() {
    let mock = start().await;
    let mut stream = TcpStream::connect(mock.addr()).await.expect("a connection");
    let whole = raw_event();
    stream
        .write_all(&whole.as_bytes()[..whole.len() - 1])
        .await
        .expect("written");
    drop(stream);
    let counts = until(&mock, |counts| counts.incomplete == 1).await;
    assert_eq!((counts.requests, counts.created), (0, 0));
    mock.shutdown().await;
}
