//! The control endpoints.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Client, EVENTS, Protocol, control, event_request, good_event, send_event, start};

#[tokio::test]
async fn keys_and_entries_are_as_configured() {
    let mock = start().await;
    let settings = json!({
        "keys": { "pr_1": ["rk_test"] },
        "entries": [{ "project": "pr_1", "embeddable": "flow_1", "key": "email", "value": "a@b.co" }],
        "any_entry": false,
        "latency_ms": 1,
    });
    let reply = control(&mock, "PUT", "/_mock/config", &settings.to_string()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["entries"], settings["entries"]);
    let mut client = Client::connect(&mock, Protocol::Http1).await;
    let mut check = async |path: &str, email: &str, status: u16| {
        let mut body = good_event();
        body["identifiers"][0]["value"] = json!(format!("\"{email}\""));
        let reply = client
            .send(event_request(mock.addr(), path, &body))
            .await
            .expect("an answer");
        assert_eq!(reply.status, status, "{path} {email}");
    };
    check(EVENTS, "a@b.co", 200).await;
    check(EVENTS, "b@b.co", 404).await;
    check("/projects/pr_2/events", "a@b.co", 401).await;
    mock.shutdown().await;
}

#[tokio::test]
async fn what_is_beyond_the_rate_is_429_counted_and_recorded() {
    let mock = start().await;
    let settings = json!({ "admit_per_second": 1, "admit_burst": 2, "retry_after": "3" });
    let reply = control(&mock, "PUT", "/_mock/config", &settings.to_string()).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["retry_after"]),
        (200, &json!("3"))
    );
    let started = Instant::now();
    let mut client = Client::connect(&mock, Protocol::Http2).await;
    for _ in 0..100 {
        let request = event_request(mock.addr(), EVENTS, &good_event());
        let reply = client.send(request).await.expect("an answer");
        match reply.status.as_u16() {
            200 => {}
            429 => assert_eq!(reply.header("retry-after"), "3"),
            other => panic!("status {other}"),
        }
    }
    let most = 2 + started.elapsed().as_secs() + 1;
    let counts = mock.counts();
    assert!((2..=most).contains(&counts.created), "{counts:?}");
    assert_eq!(counts.by_status[&200], counts.created);
    assert_eq!(counts.by_status[&429], 100 - counts.created);
    assert_eq!(counts.by_project["pr_1"].requests, 100);
    let last = mock.requests().pop().expect("recorded");
    assert_eq!((last.created, last.fault), (false, None));
    let elsewhere = event_request(mock.addr(), "/projects/pr_2/events", &good_event());
    let reply = client.send(elsewhere).await.expect("an answer");
    assert_eq!(reply.status, 200, "another project has a rate of its own");
    mock.shutdown().await;
}

#[tokio::test]
async fn requests_can_be_read_from_a_number_on() {
    let mock = start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        send_event(&mock, protocol).await.expect("an answer");
    }
    let all = control(&mock, "GET", "/_mock/requests", "").await.json();
    assert_eq!((&all["last"], &all["dropped"]), (&json!(2), &json!(0)));
    let first = &all["requests"][0];
    assert_eq!(first["number"], 1);
    assert_eq!(
        (&first["method"], &first["path"]),
        (&json!("POST"), &json!(EVENTS))
    );
    assert_eq!(first["version"], "HTTP/1.1");
    assert_eq!(first["headers"]["x-api-key"], "rk_test");
    assert_eq!(first["body"], good_event().to_string());
    assert_eq!(first["answer"]["status"], 200);
    assert_eq!((&first["fault"], &first["created"]), (&Value::Null, &json!(true)));
    let later = control(&mock, "GET", "/_mock/requests?since=1", "").await.json();
    assert_eq!(later["requests"].as_array().map(Vec::len), Some(1));
    assert_eq!(later["requests"][0]["version"], "HTTP/2.0");
    mock.shutdown().await;
}

#[tokio::test]
async fn without_recording_requests_are_counted_only() {
    let mock = start().await;
    control(&mock, "PUT", "/_mock/config", r#"{"record_requests":false}"#).await;
    send_event(&mock, Protocol::Http2).await.expect("an answer");
    let kept = control(&mock, "GET", "/_mock/requests?since=0", "").await.json();
    assert_eq!(kept, json!({ "requests": [], "last": 1, "dropped": 1 }));
    let counts = control(&mock, "GET", "/_mock/counts", "").await.json();
    assert_eq!(
        (&counts["created"], &counts["not_recorded"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        counts["by_project"],
        json!({ "pr_1": { "requests": 1, "created": 1 } })
    );
    assert_eq!(counts["by_status"], json!({ "200": 1 }));
    mock.shutdown().await;
}

#[tokio::test]
async fn a_reset_is_a_fresh_start() {
    let mock = start().await;
    control(&mock, "PUT", "/_mock/config", r#"{"any_entry":false}"#).await;
    control(
        &mock,
        "POST",
        "/_mock/faults",
        r#"{"times":0,"steps":[{"status":503}]}"#,
    )
    .await;
    assert_eq!(
        send_event(&mock, Protocol::Http2)
            .await
            .expect("an answer")
            .status,
        503
    );
    assert_eq!(control(&mock, "POST", "/_mock/reset", "").await.status, 200);
    assert_eq!(mock.counts().requests, 0);
    assert_eq!(
        send_event(&mock, Protocol::Http2)
            .await
            .expect("an answer")
            .status,
        200
    );
    let requests = mock.requests();
    assert_eq!((requests.len(), requests[0].number), (1, 2));
    mock.shutdown().await;
}

#[tokio::test]
async fn a_control_request_that_makes_no_sense_is_refused_with_the_reason() {
    let mock = start().await;
    for (method, path, body, status, reason) in [
        ("PUT", "/_mock/config", r#"{"any_entri":true}"#, 400, "any_entri"),
        (
            "PUT",
            "/_mock/config",
            r#"{"latency_ms":1,"latency_ms":2}"#,
            400,
            "latency_ms",
        ),
        (
            "PUT",
            "/_mock/config",
            r#"{"keys":{"pr_1":["sk_1"]}}"#,
            400,
            "rk_",
        ),
        ("PUT", "/_mock/config", "", 400, "EOF"),
        (
            "POST",
            "/_mock/faults",
            r#"{"steps":[{"code":503}]}"#,
            400,
            "code",
        ),
        ("POST", "/_mock/faults", r#"{"times":1}"#, 400, "steps"),
        (
            "POST",
            "/_mock/faults",
            r#"{"steps":[{"status":99}]}"#,
            400,
            "200 to 999",
        ),
        (
            "POST",
            "/_mock/faults",
            r#"{"steps":[{"status":503,"retry_after":-1}]}"#,
            400,
            "retry_after",
        ),
        ("GET", "/_mock/requests?since=x", "", 400, "since"),
        ("GET", "/_mock/reset", "", 405, "method"),
        ("GET", "/_mock/unknown", "", 404, "control endpoint"),
    ] {
        let reply = control(&mock, method, path, body).await;
        let answer = reply.json();
        let message = answer["message"].as_str().expect("a message");
        assert_eq!(reply.status, status, "{path} {body}");
        assert!(message.contains(reason), "{path} {body}: {message}");
    }
    let counts = mock.counts();
    assert_eq!(
        (counts.requests, counts.recorded),
        (0, 0),
        "control requests are never recorded"
    );
    mock.shutdown().await;
}
