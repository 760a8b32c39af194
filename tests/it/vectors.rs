//! The documented request bodies come out as given, whichever way an event comes in.

use e2e::event::{normalised, timestamp};
use e2e::settings::{API_KEY, PROJECT};
use e2e::stage::Stage;
use e2e::upstream::body_of;
use e2e::{calls, rest, wait};
use embeddables_proto::events::v1::event::Properties;
use embeddables_proto::events::v1::identifier::Value as IdentifierValue;
use embeddables_proto::events::v1::{Event, Identifier, State, StructuredPayload};
use jiff::Timestamp;
use prost_types::value::Kind;
use serde_json::Value;

const VECTORS: &str = include_str!("../vectors/request-bodies.json");

/// How properties given as an object are sent.
#[derive(Clone, Copy, Debug)]
enum PropsAs {
    Struct,
    Json,
}

#[tokio::test]
async fn vectors_in_over_grpc_come_out_as_given() {
    let stage = Stage::new().await;
    let client = stage.client();
    for vector in vectors() {
        for props_as in [PropsAs::Struct, PropsAs::Json] {
            let event = event(&vector["event"], props_as);
            let status = calls::publish(&client, event)
                .await
                .expect("a vector is a valid event");
            let what = format!("{} ({props_as:?})", vector["name"]);
            check_delivered(&stage, &status.event_id, &vector["body"], &what).await;
        }
    }
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn vectors_in_over_the_unix_socket_come_out_as_given() {
    let stage = Stage::new().await;
    let client = calls::unix(stage.sidecar.ready("grpc_unix"));
    for vector in vectors() {
        let event = event(&vector["event"], PropsAs::Json);
        let status = calls::publish(&client, event)
            .await
            .expect("a vector is a valid event");
        check_delivered(
            &stage,
            &status.event_id,
            &vector["body"],
            &vector["name"].to_string(),
        )
        .await;
    }
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn vectors_in_over_http_come_out_as_given() {
    let stage = Stage::new().await;
    let path = format!("/projects/{PROJECT}/events");
    for vector in vectors() {
        let mut body = vector["body"].clone();
        // As the caller wrote it: the sidecar brings it into the form that goes upstream.
        body["timestamp"] = vector["event"]["timestamp"].clone();
        // A caller that moves over by its base URL alone still sends its key, which must not go on.
        let headers = [("x-api-key", "rk_test_of_the_caller")];
        let answer = rest::post(stage.sidecar.ready("http"), &path, &headers, body.to_string()).await;
        assert_eq!(answer.status, 202, "{}: {answer:?}", vector["name"]);
        let id = answer.json()["event_id"]
            .as_str()
            .expect("an accepted event has an id")
            .to_owned();
        check_delivered(&stage, &id, &vector["body"], &vector["name"].to_string()).await;
    }
    stage.drain(wait::SOON).await;
}

fn vectors() -> Vec<Value> {
    serde_json::from_str(VECTORS).expect("the vectors are a JSON array")
}

/// Waits until the event is delivered, and compares the newest request at the upstream.
async fn check_delivered(stage: &Stage, event_id: &str, body: &Value, what: &str) {
    calls::await_state(&stage.client(), event_id, State::Delivered, wait::SOON).await;
    let requests = stage.upstream.requests();
    let request = requests.last().expect("a delivered event was a request");
    assert_eq!(body_of(request), normalised(body.clone()), "{what}");
    assert_eq!(request.method, "POST", "{what}");
    assert_eq!(request.path, format!("/projects/{PROJECT}/events"), "{what}");
    assert_eq!(request.header("x-api-key"), Some(API_KEY), "{what}");
    assert_eq!(request.header("content-type"), Some("application/json"), "{what}");
}

fn event(given: &Value, props_as: PropsAs) -> Event {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let time: Timestamp = text(&given["timestamp"]).parse().expect("a timestamp");
    let nanos = i32::try_from(time.as_nanosecond().rem_euclid(1_000_000_000)).expect("less than a second");
    let properties = match (given.get("props"), given.get("payload"), props_as) {
        (Some(props), None, PropsAs::Struct) => Some(Properties::Props(structure(props))),
        (Some(props), None, PropsAs::Json) => Some(Properties::PropsJson(props.to_string())),
        (None, Some(payload), _) => Some(Properties::Payload(StructuredPayload {
            metrics: members(&payload["metrics"])
                .map(|(name, value)| (name, value.as_f64().expect("a number")))
                .collect(),
            dimensions: members(&payload["dimensions"])
                .map(|(name, value)| (name, text(value)))
                .collect(),
        })),
        (None, None, _) => None,
        (Some(_), Some(_), _) => panic!("props or payload, not both: {given}"),
    };
    Event {
        embeddable_id: text(&given["embeddable_id"]),
        name: text(&given["name"]),
        timestamp: Some(prost_types::Timestamp {
            nanos,
            ..timestamp(time.as_millisecond())
        }),
        identifier: Some(identifier(&given["identifier"])),
        properties,
        ..Event::default()
    }
}

fn identifier(given: &Value) -> Identifier {
    let value = match &given["value"] {
        Value::String(text) => IdentifierValue::StringValue(text.clone()),
        Value::Bool(truth) => IdentifierValue::BoolValue(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => IdentifierValue::Int64Value(whole),
            None => IdentifierValue::DoubleValue(number.as_f64().expect("a number")),
        },
        other => panic!("not an identifier's value: {other}"),
    };
    Identifier {
        key: given["key"].as_str().expect("a key").to_owned(),
        value: Some(value),
    }
}

fn structure(object: &Value) -> prost_types::Struct {
    prost_types::Struct {
        fields: members(object)
            .map(|(name, member)| (name, value(member)))
            .collect(),
    }
}

fn value(json: &Value) -> prost_types::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().expect("a number")),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(list) => Kind::ListValue(prost_types::ListValue {
            values: list.iter().map(value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(structure(json)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn members(object: &Value) -> impl Iterator<Item = (String, &Value)> {
    object
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, member)| (name.clone(), member))
}
