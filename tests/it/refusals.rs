//! What is refused, is refused with everything that is wrong, in stable words, and nothing of it is kept.

use e2e::event::{TestEvent, string_identifier};
use e2e::metrics::Scrape;
use e2e::stage::Stage;
use e2e::{calls, refusal, wait};
use embeddables_proto::events::v1::event::Properties;
use embeddables_proto::events::v1::identifier::Value as IdentifierValue;
use embeddables_proto::events::v1::validate_result::Result as Validated;
use embeddables_proto::events::v1::{
    Durability, Event, Identifier, PublishEventRequest, PublishEventsRequest, PublishOptions,
    StructuredPayload, ValidateEventsRequest,
};
use prost_types::value::Kind;
use serde_json::Value;
use tonic::{Code, Status};
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
    let value = prost_types::Value {
        kind: Some(Kind::NumberValue(number)),
    };
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

#[tokio::test]
async fn a_batch_takes_what_is_good_and_refuses_the_rest() {
    let stage = Stage::new().await;
    let good = [TestEvent::new("partial-1"), TestEvent::new("partial-3")];
    let bad = Event {
        name: "Not Snake".to_owned(),
        ..TestEvent::new("partial-2").to_proto()
    };
    let events = vec![good[0].to_proto(), bad, good[1].to_proto()];
    let mut results = calls::publish_batch(&stage.client(), events)
        .await
        .expect("a batch with good events")
        .into_iter();
    let mut next = || results.next().expect("a result an event");
    assert_eq!(calls::taken(next()).event_id, good[0].id);
    let refused = calls::refused(next());
    assert_eq!(
        (Code::from(refused.code), refused.reason.as_str()),
        (Code::InvalidArgument, "INVALID_EVENT")
    );
    let fields: Vec<_> = refused
        .violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["events[1].name"]);
    assert!(refused.retry_delay.is_none(), "{refused:?}");
    assert_eq!(calls::taken(next()).event_id, good[1].id);
    stage.await_delivered(&good, wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 2.0);
}

#[tokio::test]
async fn all_or_nothing_takes_none_where_one_cannot_be_taken() {
    let stage = Stage::new().await;
    let client = stage.client();
    let event = |index: usize| TestEvent::new(format!("atomic-{index}"));
    let bad = |index: usize| Event {
        name: String::new(),
        ..event(index).to_proto()
    };
    let publish = async |events: Vec<Event>| -> Result<usize, Status> {
        let request = PublishEventsRequest {
            events,
            options: None,
            all_or_nothing: true,
        };
        Ok(client
            .clone()
            .publish_events(request)
            .await?
            .into_inner()
            .results
            .len())
    };
    let status = publish(vec![event(0).to_proto(), bad(1), event(2).to_proto(), bad(3)])
        .await
        .expect_err("two are bad");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let fields: Vec<_> = refusal::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    assert_eq!(fields, ["events[1].name", "events[3].name"]);
    assert_eq!(stage.balance_books().await.accepted, 0.0);

    assert_eq!(
        publish(vec![event(0).to_proto(), event(2).to_proto()])
            .await
            .expect("all are good"),
        2
    );
    let reused = event(2).with("more", 1).to_proto();
    let status = publish(vec![event(4).to_proto(), reused])
        .await
        .expect_err("an id is taken");
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    stage.await_delivered([&event(0), &event(2)], wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 2.0);
}

#[tokio::test]
async fn a_project_without_a_key_is_refused() {
    let stage = Stage::new().await;
    let event = Event {
        project_id: "pr_other".to_owned(),
        ..good()
    };
    let status = calls::publish(&stage.client(), event)
        .await
        .expect_err("no key for it");
    refusal::check(&status, Code::FailedPrecondition, "PROJECT_NOT_CONFIGURED");
}

#[tokio::test]
async fn durability_that_is_not_on_offer_is_refused() {
    let stage = Stage::new().await;
    let options = PublishOptions {
        durability: Durability::Replicated.into(),
        ..PublishOptions::default()
    };
    let request = PublishEventRequest {
        event: Some(good()),
        options: Some(options),
    };
    let status = stage
        .client()
        .publish_event(request)
        .await
        .expect_err("one machine has no replicas");
    refusal::check(&status, Code::FailedPrecondition, "DURABILITY_NOT_ON_OFFER");
}

#[tokio::test]
async fn an_unknown_event_is_not_found() {
    let stage = Stage::new().await;
    let status = calls::get(&stage.client(), "never-seen")
        .await
        .expect_err("an unknown id");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    refusal::reason(&status);
}

#[tokio::test]
async fn validating_keeps_nothing_and_shows_the_request_that_would_be_sent() {
    let stage = Stage::new().await;
    let event = TestEvent::new("validated-1");
    let bad = Event {
        name: String::new(),
        ..event.to_proto()
    };
    let request = ValidateEventsRequest {
        events: vec![event.to_proto(), bad],
    };
    let results = stage
        .client()
        .validate_events(request)
        .await
        .expect("a call with events")
        .into_inner()
        .results;
    let [
        Some(Validated::Request(request)),
        Some(Validated::Refusal(refused)),
    ] = [results[0].result.clone(), results[1].result.clone()]
    else {
        panic!("one good, one bad: {results:?}")
    };
    assert_eq!(request.method, "POST");
    assert_eq!(
        request.url,
        format!(
            "{}/projects/{}/events",
            stage.upstream.url(),
            e2e::settings::PROJECT
        )
    );
    let shown: Value = serde_json::from_str(&request.body).expect("a JSON body");
    assert_eq!(e2e::event::normalised(shown), event.body());
    assert!(
        !format!("{request:?}").contains(e2e::settings::API_KEY),
        "the key is redacted: {request:?}"
    );
    assert_eq!(refused.violations[0].reason, "NAME_MISSING", "{refused:?}");
    assert_eq!(stage.balance_books().await.accepted, 0.0);
    assert_eq!(stage.upstream.request_count(), 0);
}

#[tokio::test]
async fn a_full_queue_is_unavailable_and_takes_again_once_it_has_drained() {
    let stage = Stage::with(|settings| {
        settings
            .set("QUEUE__MAX_BYTES", "1MiB")
            .set("DELIVERY__MAX_IN_FLIGHT", "4")
    })
    .await;
    stage.upstream.go_down();
    let client = stage.client();
    let event = |index: usize| TestEvent::new(format!("full-{index}")).with("filler", "x".repeat(50_000));
    let mut taken = Vec::new();
    let status = loop {
        let event = event(taken.len());
        match calls::publish(&client, event.to_proto()).await {
            Ok(_) => taken.push(event),
            Err(status) => break status,
        }
        assert!(taken.len() < 100, "a queue of 1 MiB holds no 5 MB");
    };
    refusal::check_unavailable(&status, "QUEUE_FULL");
    // A batch whose every event fails for one retryable reason fails as a call.
    let events = (1000..1003).map(|index| event(index).to_proto()).collect();
    let status = calls::publish_batch(&client, events)
        .await
        .expect_err("the queue is full");
    refusal::check_unavailable(&status, "QUEUE_FULL");

    stage.upstream.recover();
    stage.await_delivered(&taken, wait::SOON).await;
    stage.drain(wait::SOON).await;
    calls::publish(&client, event(2000).to_proto())
        .await
        .expect("there is room again");
    stage.drain(wait::SOON).await;
}
