//! Requests as they are written down for every implementation, and what a preview shows.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{client, endpoint, valid_event, validate};
use embeddables_core::{Event, EventTime, Identifier, IdentifierValue, Properties};
use serde_json::Value;

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn to_event(json: &Value) -> Event {
    let value = match &json["identifier"]["value"] {
        Value::String(text) => IdentifierValue::String(text.clone()),
        Value::Bool(truth) => IdentifierValue::Bool(*truth),
        number => IdentifierValue::Integer(number.as_i64().unwrap()),
    };
    let properties = if let Some(props) = json.get("props") {
        Properties::Object(members(props))
    } else if let Some(payload) = json.get("payload") {
        let metrics: BTreeMap<String, f64> = payload["metrics"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, n)| (key.clone(), n.as_f64().unwrap()))
            .collect();
        let dimensions = payload["dimensions"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, s)| (key.clone(), text(s)))
            .collect();
        Properties::Payload { metrics, dimensions }
    } else {
        Properties::None
    };
    Event {
        embeddable_id: text(&json["embeddable_id"]),
        name: text(&json["name"]),
        timestamp: Some(EventTime::Text(text(&json["timestamp"]))),
        identifier: Some(Identifier {
            key: text(&json["identifier"]["key"]),
            value: Some(value),
        }),
        properties,
        ..Event::default()
    }
}

fn members(json: &Value) -> Vec<(String, embeddables_core::Value)> {
    json.as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), to_value(value)))
        .collect()
}

fn to_value(json: &Value) -> embeddables_core::Value {
    use embeddables_core::Value as Ours;
    match json {
        Value::Null => Ours::Null,
        Value::Bool(truth) => Ours::Bool(*truth),
        Value::Number(number) => Ours::Number(number.as_f64().unwrap()),
        Value::String(text) => Ours::String(text.clone()),
        Value::Array(items) => Ours::List(items.iter().map(to_value).collect()),
        Value::Object(_) => Ours::Object(members(json)),
    }
}

/// The body with the JSON within its strings parsed as well.
fn unfolded(body: &Value) -> Value {
    let mut body = body.clone();
    for path in ["/custom_event_props", "/identifiers/0/value"] {
        let inner = body.pointer_mut(path).unwrap();
        *inner = serde_json::from_str(inner.as_str().unwrap()).unwrap();
    }
    body
}

#[test]
fn bodies_come_out_as_written_down() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/request-bodies.json")).unwrap();
    let vectors = vectors.as_array().unwrap();
    assert_eq!(vectors.len(), 5);
    let client = client(Duration::from_secs(1));
    for vector in vectors {
        let request = client.request(
            &endpoint("http://127.0.0.1:1"),
            &validate(&to_event(&vector["event"])),
        );
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(unfolded(&body), unfolded(&vector["body"]), "{}", vector["name"]);
        assert_eq!(
            body, vector["body"],
            "to the byte within strings: {}",
            vector["name"]
        );
    }
}

#[test]
fn properties_given_as_text_come_out_the_same() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/request-bodies.json")).unwrap();
    for vector in vectors.as_array().unwrap() {
        let event = Event {
            properties: Properties::Json(text(&vector["body"]["custom_event_props"])),
            ..to_event(&vector["event"])
        };
        let request =
            client(Duration::from_secs(1)).request(&endpoint("http://127.0.0.1:1"), &validate(&event));
        assert_eq!(
            serde_json::from_str::<Value>(&request.body).unwrap(),
            vector["body"],
            "{}",
            vector["name"]
        );
    }
}

#[test]
fn fields_stand_in_the_documented_order() {
    let request = client(Duration::from_secs(1)).request(&endpoint("http://127.0.0.1:1/v1/"), &valid_event());
    assert_eq!(
        request.body,
        r#"{"embeddable_id":"flow_a1","timestamp":"2022-01-01T00:00:00.000Z","custom_event_name":"visit_completed","#
            .to_owned()
            + r#""custom_event_props":"{\"diagnosis\":\"canary-illness\"}","#
            + r#""identifiers":[{"key":"email","value":"\"canary@test.com\""}]}"#
    );
    assert_eq!(request.method, "POST");
    assert_eq!(request.url, "http://127.0.0.1:1/v1/projects/pr_1/events");
}

#[test]
fn a_preview_shows_neither_key_nor_body_in_debug() {
    let client = client(Duration::from_secs(1));
    let endpoint = endpoint("http://127.0.0.1:1");
    let request = client.request(&endpoint, &valid_event());
    let shown = format!("{request:?} {endpoint:?} {client:?}");
    assert!(!shown.contains("c4n4ry") && !shown.contains("canary"), "{shown}");
    assert!(request.headers.contains(&("X-Api-Key", "[redacted]".to_owned())));
}
