//! Every rule, at its edge: the field and the stable reason that a refusal must name, and all of them at once.

use e2e::event::{TestEvent, string_identifier};
use e2e::metrics::Scrape;
use e2e::stage::Stage;
use e2e::{calls, refusal};
use embeddables_proto::events::v1::event::Properties;
use embeddables_proto::events::v1::identifier::Value as IdentifierValue;
use embeddables_proto::events::v1::{Event, Identifier, StructuredPayload};
use prost_types::value::Kind;
use tonic::Code;
use tonic_types::StatusExt as _;

fn good() -> Event {
    TestEvent::new("good-1").to_proto()
}

fn with_identifier(value: Option<IdentifierValue>) -> Event {
    Event {
        identifier: Some(Identifier {
            key: "email".to_owned(),
            value,
        }),
        ..good()
    }
}

fn with_props_json(text: &str) -> Event {
    Event {
        properties: Some(Properties::PropsJson(text.to_owned())),
        ..good()
    }
}

fn with_props_number(number: f64) -> Event {
    with_props_value(Some(Kind::NumberValue(number)))
}

fn with_props_value(kind: Option<Kind>) -> Event {
    let value = prost_types::Value { kind };
    let props = prost_types::Struct {
        fields: [("n".to_owned(), value)].into(),
    };
    Event {
        properties: Some(Properties::Props(props)),
        ..good()
    }
}

fn with_time(seconds: i64, nanos: i32) -> Event {
    Event {
        timestamp: Some(prost_types::Timestamp { seconds, nanos }),
        ..good()
    }
}

fn nested(depth: usize) -> String {
    format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth))
}

/// One event for each rule, with the field and the reason that its refusal must name.
fn broken_events() -> Vec<(Event, &'static str, &'static str)> {
    let text = |text: &str| Some(IdentifierValue::StringValue(text.to_owned()));
    let id = |event_id: &str| Event {
        event_id: event_id.to_owned(),
        ..good()
    };
    let embeddable = |embeddable_id: &str| Event {
        embeddable_id: embeddable_id.to_owned(),
        ..good()
    };
    let project = |project_id: &str| Event {
        project_id: project_id.to_owned(),
        ..good()
    };
    let name = |name: &str| Event {
        name: name.to_owned(),
        ..good()
    };
    let key = |key: &str| Event {
        identifier: Some(string_identifier(key, "a@b.co")),
        ..good()
    };
    let metric = |number: f64| {
        let payload = StructuredPayload {
            metrics: [("n".to_owned(), number)].into(),
            ..StructuredPayload::default()
        };
        Event {
            properties: Some(Properties::Payload(payload)),
            ..good()
        }
    };
    vec![
        (id(&"i".repeat(65)), "event.event_id", "EVENT_ID_LENGTH"),
        (id("a b"), "event.event_id", "EVENT_ID_CHARACTER"),
        (id("é"), "event.event_id", "EVENT_ID_CHARACTER"),
        (project(&"p".repeat(129)), "event.project_id", "PROJECT_ID_LENGTH"),
        (project(".."), "event.project_id", "PROJECT_ID_CHARACTER"),
        (project("a/b"), "event.project_id", "PROJECT_ID_CHARACTER"),
        (project("%2e"), "event.project_id", "PROJECT_ID_CHARACTER"),
        (project("a\0"), "event.project_id", "PROJECT_ID_CHARACTER"),
        (embeddable(""), "event.embeddable_id", "EMBEDDABLE_ID_MISSING"),
        (
            embeddable(&"f".repeat(257)),
            "event.embeddable_id",
            "EMBEDDABLE_ID_LENGTH",
        ),
        (
            embeddable("flow 1"),
            "event.embeddable_id",
            "EMBEDDABLE_ID_CHARACTER",
        ),
        (name(""), "event.name", "NAME_MISSING"),
        (name(&"n".repeat(129)), "event.name", "NAME_LENGTH"),
        (name("VisitCompleted"), "event.name", "NAME_NOT_SNAKE_CASE"),
        (name("a__b"), "event.name", "NAME_NOT_SNAKE_CASE"),
        (
            with_time(-62_135_596_801, 0),
            "event.timestamp",
            "TIMESTAMP_RANGE",
        ),
        (
            with_time(253_402_300_800, 0),
            "event.timestamp",
            "TIMESTAMP_RANGE",
        ),
        (with_time(0, 1_000_000_000), "event.timestamp", "TIMESTAMP_NANOS"),
        (with_time(0, -1), "event.timestamp", "TIMESTAMP_NANOS"),
        (
            Event {
                identifier: None,
                ..good()
            },
            "event.identifier",
            "IDENTIFIER_MISSING",
        ),
        (key(""), "event.identifier.key", "IDENTIFIER_KEY_MISSING"),
        (
            key(&"k".repeat(257)),
            "event.identifier.key",
            "IDENTIFIER_KEY_LENGTH",
        ),
        (
            with_identifier(None),
            "event.identifier.value",
            "IDENTIFIER_VALUE_MISSING",
        ),
        (
            with_identifier(text("")),
            "event.identifier.value",
            "IDENTIFIER_VALUE_EMPTY",
        ),
        (
            with_identifier(text("\"a@b.co\"")),
            "event.identifier.value",
            "IDENTIFIER_DOUBLE_ENCODED",
        ),
        (
            with_identifier(Some(IdentifierValue::DoubleValue(f64::NAN))),
            "event.identifier.value",
            "NUMBER_NOT_FINITE",
        ),
        (with_props_number(f64::NAN), "event.props", "NUMBER_NOT_FINITE"),
        (
            with_props_number(f64::INFINITY),
            "event.props",
            "NUMBER_NOT_FINITE",
        ),
        (
            with_props_number(9_007_199_254_740_994.0),
            "event.props",
            "NUMBER_NOT_EXACT",
        ),
        (
            metric(f64::NEG_INFINITY),
            "event.payload.metrics",
            "NUMBER_NOT_FINITE",
        ),
        (with_props_value(None), "event.props", "PROPS_VALUE_MISSING"),
        (with_props_json("{"), "event.props_json", "PROPS_NOT_JSON"),
        (
            with_props_json("{\"a\":NaN}"),
            "event.props_json",
            "PROPS_NOT_JSON",
        ),
        (with_props_json("[]"), "event.props_json", "PROPS_NOT_OBJECT"),
        (
            with_props_json("{\"a\":\"\\ud800\"}"),
            "event.props_json",
            "PROPS_LONE_SURROGATE",
        ),
        (with_props_json(&nested(65)), "event.props_json", "PROPS_TOO_DEEP"),
        (
            with_props_json(&nested(10_000)),
            "event.props_json",
            "PROPS_TOO_DEEP",
        ),
        (
            with_props_json(&format!("{{\"a\":\"{}\"}}", "x".repeat(262_144))),
            "event.props_json",
            "PROPS_TOO_LARGE",
        ),
        (
            with_props_json("{\"a\":1,\"a\":1}"),
            "event.props_json",
            "PROPS_DUPLICATE_KEY",
        ),
    ]
}

#[tokio::test]
async fn each_broken_rule_is_named_with_its_field_and_a_stable_reason() {
    let stage = Stage::new().await;
    let client = stage.client();
    let broken = broken_events();
    for (event, field, reason) in &broken {
        let status = calls::publish(&client, event.clone()).await.expect_err(reason);
        refusal::check(&status, Code::InvalidArgument, "INVALID_EVENT");
        assert_eq!(
            refusal::violations(&status),
            [((*field).to_owned(), (*reason).to_owned())],
            "{status:?}"
        );
        assert!(
            status.get_details_retry_info().is_none(),
            "a retry never helps: {status:?}"
        );
    }
    assert_eq!(stage.balance_books().await.accepted, 0.0);
    let scrape = Scrape::of(&stage.sidecar).await;
    let refused = scrape.sum(
        "embeddables_ingest_refused_events_total",
        &[("reason", "INVALID_EVENT")],
    );
    assert_eq!(
        refused,
        f64::from(u32::try_from(broken.len()).expect("few")),
        "{}",
        scrape.text
    );
}

#[tokio::test]
async fn every_violation_of_an_event_is_told_at_once() {
    let stage = Stage::new().await;
    let event = Event {
        event_id: "a b".to_owned(),
        embeddable_id: String::new(),
        name: "Not Snake".to_owned(),
        identifier: Some(Identifier::default()),
        properties: Some(Properties::PropsJson("nothing".to_owned())),
        ..good()
    };
    let status = calls::publish(&stage.client(), event)
        .await
        .expect_err("much is wrong");
    let expected = [
        ("event.event_id", "EVENT_ID_CHARACTER"),
        ("event.embeddable_id", "EMBEDDABLE_ID_MISSING"),
        ("event.name", "NAME_NOT_SNAKE_CASE"),
        ("event.identifier.key", "IDENTIFIER_KEY_MISSING"),
        ("event.identifier.value", "IDENTIFIER_VALUE_MISSING"),
        ("event.props_json", "PROPS_NOT_JSON"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(field, reason)| ((*field).to_owned(), (*reason).to_owned()))
        .collect();
    assert_eq!(refusal::violations(&status), expected, "{status:?}");
}

#[tokio::test]
async fn a_double_encoded_identifier_is_answered_with_the_value_that_was_meant() {
    let stage = Stage::new().await;
    let event = with_identifier(Some(IdentifierValue::StringValue(
        "\"ada@example.com\"".to_owned(),
    )));
    let status = calls::publish(&stage.client(), event)
        .await
        .expect_err("encoded twice");
    let details = status.get_details_bad_request().expect("`BadRequest`");
    let [violation] = &details.field_violations[..] else {
        panic!("one violation: {details:?}")
    };
    assert_eq!(violation.reason, "IDENTIFIER_DOUBLE_ENCODED");
    assert!(violation.description.contains("ada@example.com"), "{violation:?}");
    assert!(
        !status.message().contains("ada"),
        "the message may land in a log: {status:?}"
    );
}
