//! Any bytes on any listener get a clear answer, and nothing is lost or kept by them.

use e2e::event::TestEvent;
use e2e::random::Seeded;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::{calls, raw, refusal, rest, wait};
use prost::Message as _;
use rand::RngExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt as _;

/// Methods that take a message from a caller.
const METHODS: [&str; 5] = [
    "PublishEvent",
    "PublishEvents",
    "StreamEvents",
    "ValidateEvents",
    "GetEvent",
];

/// A key of field 1 and a length that goes past the end.
const CUT_SHORT: &[u8] = b"\x0a\xff\xff\xff\x0f";

/// A string of field 1 that is not UTF-8.
const NOT_UTF8: &[u8] = b"\x0a\x02\xc3\x28";

fn nested_struct(depth: usize) -> prost_types::Struct {
    use prost_types::value::Kind;
    let mut structure = prost_types::Struct::default();
    for _ in 1..depth {
        let value = prost_types::Value {
            kind: Some(Kind::StructValue(structure)),
        };
        structure = prost_types::Struct {
            fields: [("a".to_owned(), value)].into(),
        };
    }
    structure
}

/// Asserts that the sidecar still does its job, and that nothing but this one event was ever accepted.
async fn check_unharmed(stage: &Stage) {
    let event = TestEvent::new("unharmed");
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
    stage.await_delivered([&event], wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_mistake() {
    let stage = Stage::new().await;
    let address = stage.sidecar.ready("grpc");
    for method in METHODS {
        for bytes in [CUT_SHORT, b"\xff\xff\xff\xff".as_slice()] {
            let status = raw::call(address, method, bytes).await.expect_err(method);
            refusal::check(&status, Code::InvalidArgument, "MALFORMED");
        }
    }
    // In `GetEvent` field 1 is the event's id; elsewhere it is a message that cannot be read either.
    for method in METHODS {
        let status = raw::call(address, method, NOT_UTF8).await.expect_err(method);
        refusal::check(&status, Code::InvalidArgument, "MALFORMED");
    }
    check_unharmed(&stage).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_deep_inside_an_event_refuses_the_call() {
    let stage = Stage::new().await;
    let mut good = TestEvent::new("bytes-1").to_proto();
    good.name = "NAME".to_owned();
    let mut bytes = embeddables_proto::events::v1::PublishEventRequest {
        event: Some(good),
        options: None,
    }
    .encode_to_vec();
    let place = bytes
        .windows(4)
        .position(|window| window == b"NAME")
        .expect("the name is in the bytes");
    bytes[place..place + 4].copy_from_slice(b"\xf0\x28\x8c\x28");
    let status = raw::call(stage.sidecar.ready("grpc"), "PublishEvent", bytes)
        .await
        .expect_err("no UTF-8");
    refusal::check(&status, Code::InvalidArgument, "MALFORMED");
    check_unharmed(&stage).await;
}

#[tokio::test]
async fn random_bytes_never_end_in_anything_but_a_clear_refusal() {
    let stage = Stage::new().await;
    let mut seeded = Seeded::new();
    for round in 0..200 {
        let length = seeded.source.random_range(1..200);
        let bytes: Vec<u8> = (0..length).map(|_| seeded.source.random()).collect();
        let method = METHODS[round % METHODS.len()];
        if let Err(status) = raw::call(stage.sidecar.ready("grpc"), method, bytes).await {
            let clear = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition];
            assert!(clear.contains(&status.code()), "{method}: {status:?}");
            refusal::reason(&status);
        }
    }
    stage.balance_books().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_whatever_the_method() {
    let stage = Stage::new().await;
    let limit = stage
        .client()
        .get_server_info(embeddables_proto::events::v1::GetServerInfoRequest {})
        .await;
    let limits = limit
        .expect("a call without arguments")
        .into_inner()
        .limits
        .expect("limits");
    assert_eq!(limits.message_size_bytes, 4 * 1024 * 1024);
    let size = usize::try_from(limits.message_size_bytes).expect("a size");
    for method in METHODS {
        let status = raw::call(stage.sidecar.ready("grpc"), method, vec![b'x'; size + 1])
            .await
            .expect_err(method);
        refusal::check(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        assert!(
            status.get_details_retry_info().is_none(),
            "a retry never helps: {status:?}"
        );
    }
    check_unharmed(&stage).await;
}

#[tokio::test]
async fn a_frame_that_announces_more_than_the_limit_is_refused_by_its_length() {
    let stage = Stage::new().await;
    let announces_4_gib = b"\x00\xff\xff\xff\xff".as_slice();
    for body in [
        announces_4_gib,
        b"\x01\x00\x00\x00\x01x",
        b"\x07\x00\x00\x00\x01x",
        b"\x00\x00\x00",
        b"",
    ] {
        let (code, message) = raw::call_unframed(stage.sidecar.ready("grpc"), "PublishEvent", body).await;
        let clear = [
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::Unimplemented,
        ];
        assert!(clear.contains(&code), "{body:?}: {code:?} {message}");
    }
    check_unharmed(&stage).await;
}

#[tokio::test]
async fn properties_nested_too_deep_are_refused_and_those_at_the_limit_are_taken() {
    use embeddables_proto::events::v1::event::Properties;
    let stage = Stage::new().await;
    let publish = async |depth: usize| {
        let mut event = TestEvent::new(format!("deep-{depth}")).to_proto();
        event.properties = Some(Properties::Props(nested_struct(depth)));
        calls::publish(&stage.client(), event).await
    };
    let status = publish(25).await.expect_err("one level too deep");
    assert_eq!(
        refusal::violations(&status),
        [("event.props".to_owned(), "PROPS_TOO_DEEP".to_owned())]
    );
    // Beyond protobuf's own limit of recursion the message cannot even be decoded.
    let status = publish(200).await.expect_err("far too deep");
    refusal::check(&status, Code::InvalidArgument, "MALFORMED");
    assert_eq!(stage.balance_books().await.accepted, 0.0);
    publish(24).await.expect("at the limit");
    wait::until("the deep event upstream", wait::SOON, async || {
        (stage.upstream.request_count() == 1).then_some(())
    })
    .await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_batch_without_events_or_with_too_many_is_refused_as_a_call() {
    let stage = Stage::new().await;
    let client = stage.client();
    let status = calls::publish_batch(&client, Vec::new())
        .await
        .expect_err("no events");
    refusal::check(&status, Code::InvalidArgument, "BATCH_EMPTY");
    let event = TestEvent::new("").to_proto();
    let status = calls::publish_batch(&client, vec![event.clone(); 10_001])
        .await
        .expect_err("too many events");
    refusal::check(&status, Code::InvalidArgument, "BATCH_TOO_LARGE");
    assert_eq!(stage.balance_books().await.accepted, 0.0);
    let results = calls::publish_batch(&client, vec![event; 10_000])
        .await
        .expect("as many as allowed");
    assert_eq!(results.len(), 10_000);
    assert_eq!(stage.balance_books().await.accepted, 10_000.0);
}

#[tokio::test]
async fn a_call_without_an_event_is_refused() {
    let stage = Stage::new().await;
    let status = raw::call(stage.sidecar.ready("grpc"), "PublishEvent", b"".as_slice())
        .await
        .expect_err("no event");
    refusal::check(&status, Code::InvalidArgument, "EVENT_MISSING");
    check_unharmed(&stage).await;
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let stage = Stage::new().await;
    let status = raw::call(stage.sidecar.ready("grpc"), "NoSuchMethod", b"".as_slice())
        .await
        .expect_err("no method");
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}

#[tokio::test]
async fn garbage_on_any_port_harms_nobody() {
    let stage = Stage::new().await;
    let mut seeded = Seeded::new();
    for listener in ["grpc", "http", "ops"] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(stage.sidecar.ready(listener))
                .await
                .expect("the listener accepts");
            let length = seeded.source.random_range(1..2_000);
            let bytes: Vec<u8> = (0..length).map(|_| seeded.source.random()).collect();
            // It may close before it has read all.
            if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_ok() {
                let mut answer = Vec::new();
                let read = wait::within(
                    "garbage to be answered",
                    wait::SOON,
                    stream.read_to_end(&mut answer),
                )
                .await;
                drop(read);
            }
        }
    }
    check_unharmed(&stage).await;
}

/// What is wrong, the status that says so, a header and the body.
type HttpCase = (&'static str, u16, (&'static str, &'static str), Vec<u8>);

#[tokio::test]
async fn over_http_every_mistake_is_a_problem_with_its_status() {
    let stage = Stage::new().await;
    let address = stage.sidecar.ready("http");
    let events = format!("/projects/{PROJECT}/events");
    let good = TestEvent::new("http-1").to_upstream_body();
    let with = |field: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string().into_bytes()
    };
    let identifiers = |value: &str| with("identifiers", json!([{"key": "email", "value": value}]));
    let json_type = ("content-type", "application/json");
    let text_type = ("content-type", "text/plain");
    let cases: Vec<HttpCase> = vec![
        ("not JSON", 400, json_type, b"{".to_vec()),
        ("not UTF-8", 400, json_type, b"{\"a\":\"\xff\"}".to_vec()),
        ("an array", 400, json_type, b"[]".to_vec()),
        ("nothing", 400, json_type, Vec::new()),
        ("deep", 400, json_type, "[".repeat(100_000).into_bytes()),
        (
            "two identifiers",
            400,
            json_type,
            with("identifiers", json!([{}, {}])),
        ),
        ("no identifier", 400, json_type, with("identifiers", json!([]))),
        (
            "props that are no JSON",
            400,
            json_type,
            with("custom_event_props", json!("{")),
        ),
        (
            "props as an object",
            400,
            json_type,
            with("custom_event_props", json!({})),
        ),
        (
            "a bad name",
            400,
            json_type,
            with("custom_event_name", json!("Not Snake")),
        ),
        (
            "a bad timestamp",
            400,
            json_type,
            with("timestamp", json!("yesterday")),
        ),
        (
            "a value not stringified",
            400,
            json_type,
            identifiers("ada@example.com"),
        ),
        (
            "a value stringified twice",
            400,
            json_type,
            identifiers("\"\\\"ada@example.com\\\"\""),
        ),
        (
            "another content type",
            415,
            text_type,
            good.to_string().into_bytes(),
        ),
        ("too large", 413, json_type, vec![b' '; 4 * 1024 * 1024 + 1]),
    ];
    for (what, status, header, body) in cases {
        let answer = rest::post(address, &events, &[header], body).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{what}: {answer:?}"
        );
        assert_eq!(answer.json()["status"], status, "{what}: {answer:?}");
    }
    let other = rest::post(address, "/projects/pr_other/events", &[], good.to_string()).await;
    assert!(other.status.is_client_error(), "{other:?}");
    for path in [
        "/",
        "/projects",
        "/projects/../events",
        "/projects//events",
        "/projects/a%2fb/events",
        "/nothing",
    ] {
        let answer = rest::post(address, path, &[], good.to_string()).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {answer:?}");
    }
    assert_eq!(rest::get(address, &events).await.status, 405);
    check_unharmed(&stage).await;
}

#[tokio::test]
async fn over_http_an_identifier_that_was_not_stringified_once_is_answered_with_what_was_meant() {
    let stage = Stage::new().await;
    let events = format!("/projects/{PROJECT}/events");
    for value in ["ada@example.com", "\"\\\"ada@example.com\\\"\""] {
        let mut body = TestEvent::new("http-1").to_upstream_body();
        body["identifiers"][0]["value"] = json!(value);
        let answer = rest::post(stage.sidecar.ready("http"), &events, &[], body.to_string()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let meant = json!("\"ada@example.com\"").to_string();
        assert!(
            answer.body.contains(meant.trim_matches('"')),
            "{value}: {answer:?}"
        );
    }
}
