//! What the documentation says of the API.

use serde_json::{Value, json};

use crate::support::{BOTH, Client, EVENTS, Protocol, event_request, good_event, request, start};

#[tokio::test]
async fn every_shared_body_is_accepted_and_told_back() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../../../../tests/vectors/request-bodies.json")).expect("vectors");
    assert!(!vectors.is_empty());
    let mock = start().await;
    for protocol in BOTH {
        let mut client = Client::connect(&mock, protocol).await;
        for vector in &vectors {
            let body = &vector["body"];
            let reply = client
                .send(event_request(mock.addr(), EVENTS, body))
                .await
                .expect("an answer");
            assert_eq!(reply.status, 200, "{}: {:?}", vector["name"], reply.body);
            let created = reply.json();
            for field in [
                "embeddable_id",
                "timestamp",
                "custom_event_name",
                "custom_event_props",
            ] {
                assert_eq!(created[field], body[field], "{}", vector["name"]);
            }
            assert_eq!(created["project_id"], "pr_1");
            assert_eq!(created["event_type"], "custom_event:triggered");
            assert!(created["entry_id"].is_string() && created["contact_id"].is_string());
        }
    }
    let counts = mock.counts();
    assert_eq!(counts.created, 2 * vectors.len() as u64);
    assert_eq!(counts.distinct_created, vectors.len() as u64);
    assert_eq!(counts.connections, 2);
    mock.shutdown().await;
}

/// Sends a body and compares the answer: the status, its code, and the codes of its reasons.
async fn check(body: Value, status: u16, code: &str, reasons: &[&str]) {
    let mock = start().await;
    for protocol in BOTH {
        let mut client = Client::connect(&mock, protocol).await;
        let reply = client
            .send(event_request(mock.addr(), EVENTS, &body))
            .await
            .expect("an answer");
        let answer = reply.json();
        let found: Vec<_> = answer["reasons"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["code"].clone())
            .collect();
        assert_eq!(
            (reply.status.as_u16(), &answer["code"]),
            (status, &json!(code)),
            "{body}"
        );
        assert_eq!(found, reasons, "{body}");
        assert_eq!(reply.header("content-type"), "application/json");
        assert!(answer["message"].is_string());
    }
    assert_eq!(mock.counts().created, 0);
    mock.shutdown().await;
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good_event();
    body[field] = value;
    body
}

#[tokio::test]
async fn each_rule_that_is_broken_is_a_reason() {
    let identified = |value: Value| with("identifiers", json!([value]));
    let refused = |body, reason| async move { check(body, 400, "INVALID_EVENT", &[reason]).await };
    refused(with("embeddable_id", json!("a b")), "EMBEDDABLE_ID_INVALID").await;
    refused(with("timestamp", json!("2022-01-01")), "TIMESTAMP_INVALID").await;
    refused(with("custom_event_name", json!("myEvent")), "NAME_NOT_SNAKE_CASE").await;
    refused(with("custom_event_props", json!("{")), "PROPS_NOT_JSON").await;
    refused(with("custom_event_props", json!("[]")), "PROPS_NOT_AN_OBJECT").await;
    refused(
        with("custom_event_props", json!("{\"a\":1,\"a\":1}")),
        "DUPLICATE_KEY",
    )
    .await;
    refused(with("custom_event_props", json!({})), "WRONG_TYPE").await;
    refused(with("more", json!(1)), "UNKNOWN_FIELD").await;
    refused(with("identifiers", json!([])), "IDENTIFIER_COUNT").await;
    refused(
        identified(json!({ "key": "", "value": "1" })),
        "IDENTIFIER_KEY_EMPTY",
    )
    .await;
    refused(identified(json!({ "key": "email" })), "FIELD_MISSING").await;
    refused(
        identified(json!({ "key": "email", "value": "a@b.co" })),
        "IDENTIFIER_VALUE_NOT_A_SCALAR",
    )
    .await;
    refused(json!("text"), "WRONG_TYPE").await;
}

#[tokio::test]
async fn all_reasons_come_at_once() {
    check(
        json!({ "timestamp": 1, "custom_event_name": "A", "custom_event_props": "", "identifiers": [{}], "x": 1 }),
        400,
        "INVALID_EVENT",
        &[
            "FIELD_MISSING",
            "WRONG_TYPE",
            "NAME_NOT_SNAKE_CASE",
            "PROPS_NOT_JSON",
            "FIELD_MISSING",
            "FIELD_MISSING",
            "UNKNOWN_FIELD",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_double_escaped_identifier_matches_no_entry() {
    let body = with(
        "identifiers",
        json!([{ "key": "email", "value": "\"\\\"test@test.com\\\"\"" }]),
    );
    check(body, 404, "ENTRY_NOT_FOUND", &[]).await;
}

#[tokio::test]
async fn other_requests_have_their_documented_answers() {
    let mock = start().await;
    let addr = mock.addr();
    let good = good_event();
    let mut no_key = event_request(addr, EVENTS, &good);
    no_key.headers_mut().remove("x-api-key");
    let mut no_type = event_request(addr, EVENTS, &good);
    no_type.headers_mut().remove("content-type");
    let mut key_check = request("GET", addr, "/v1/projects/pr_1/entries?limit=1", "");
    key_check
        .headers_mut()
        .insert("x-api-key", "rk_test".parse().expect("a value"));
    let cases = [
        (
            event_request(addr, "/v1/deep/projects/pr_2/events", &good),
            200,
            Value::Null,
        ),
        (no_key, 401, json!("UNAUTHORIZED")),
        (no_type, 415, json!("UNSUPPORTED_MEDIA_TYPE")),
        (
            event_request(addr, "//projects/pr_1/events", &good),
            404,
            json!("NOT_FOUND"),
        ),
        (
            event_request(addr, "/projects/pr_1/events/", &good),
            404,
            json!("NOT_FOUND"),
        ),
        (request("GET", addr, EVENTS, ""), 405, json!("METHOD_NOT_ALLOWED")),
        (
            request("GET", addr, "/projects/pr_1/entries?limit=1", ""),
            401,
            json!("UNAUTHORIZED"),
        ),
        (key_check, 200, Value::Null),
    ];
    let expected: Vec<u16> = cases.iter().map(|case| case.1).collect();
    let mut client = Client::connect(&mock, Protocol::Http2).await;
    for (request, status, code) in cases {
        let uri = request.uri().clone();
        let reply = client.send(request).await.expect("an answer");
        assert_eq!(
            (reply.status.as_u16(), reply.json()["code"].clone()),
            (status, code),
            "{uri}"
        );
    }
    let answered: Vec<_> = mock
        .requests()
        .iter()
        .map(|one| one.answer.clone().expect("answered").status)
        .collect();
    assert_eq!(answered, expected);
    mock.shutdown().await;
}

#[tokio::test]
async fn a_body_beyond_8_mib_is_413() {
    let mock = start().await;
    let mut large = event_request(mock.addr(), EVENTS, &Value::Null);
    *large.body_mut() = vec![b' '; 8 * 1024 * 1024 + 1].into();
    let reply = Client::connect(&mock, Protocol::Http2)
        .await
        .send(large)
        .await
        .expect("an answer");
    assert_eq!(reply.status, 413);
    let mut fitting = event_request(mock.addr(), EVENTS, &Value::Null);
    *fitting.body_mut() = vec![b' '; 8 * 1024 * 1024].into();
    let reply = Client::connect(&mock, Protocol::Http1)
        .await
        .send(fitting)
        .await
        .expect("an answer");
    assert_eq!(reply.status, 400);
    mock.shutdown().await;
}
