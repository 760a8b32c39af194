//! Events that the tests send, and the request body that each must become.
//!
//! The body is worked out here from the API's documentation, not by the code under test.

use embeddables_proto::events::v1::event::Properties;
use embeddables_proto::events::v1::identifier::Value as IdentifierValue;
use embeddables_proto::events::v1::{Event, Identifier};
use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Property that carries the event's id, so that a request at the mock can be told.
const ID_PROPERTY: &str = "e2e_id";

/// Embeddable that all test events are about.
pub const EMBEDDABLE: &str = "flow_e2e";

/// 2026-01-02T03:04:05.678Z.
const BASE_TIME: i64 = 1_767_323_045_678;

/// An event that a test made up.
#[derive(Clone, Debug, PartialEq)]
pub struct TestEvent {
    /// Its id, which is also in its properties.
    pub id: String,
    /// Its project; empty for the default one.
    pub project: String,
    /// What happened.
    pub name: String,
    /// Whom it is about, under the key `email`.
    pub email: String,
    /// Its properties.
    pub props: Value,
    /// When it happened.
    pub unix_millis: i64,
}

impl TestEvent {
    /// An event with this id and properties of no interest.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            project: String::new(),
            name: "visit_completed".to_owned(),
            email: format!("{id}@example.com"),
            props: json!({ ID_PROPERTY: id }),
            unix_millis: BASE_TIME,
            id,
        }
    }

    /// An event with this id and properties that are hard to quote.
    pub fn random(id: impl Into<String>, source: &mut StdRng) -> Self {
        const PIECES: [&str; 8] = ["a", "\"", "\\", "\n", "\u{1}", "é", "漢😀", " "];
        let mut event = Self::new(id);
        let words = source.random_range(0..12);
        let text: String = (0..words)
            .map(|_| PIECES[source.random_range(0..PIECES.len())])
            .collect();
        event.props["text"] = json!(text);
        event.props["number"] = json!(source.random_range(-1_000_000..1_000_000));
        event.props["nested"] = json!({ "list": [1, null, true, text] });
        event.email = format!("{text}{}", event.email);
        event.unix_millis += source.random_range(0..1_000_000);
        event
    }

    /// The same with a property more.
    #[must_use]
    pub fn with(mut self, property: &str, value: impl Into<Value>) -> Self {
        self.props[property] = value.into();
        self
    }

    /// The same about another user.
    #[must_use]
    pub fn about(mut self, email: impl Into<String>) -> Self {
        self.email = email.into();
        self
    }

    /// The same in a project that is named.
    #[must_use]
    pub fn in_project(mut self, project: impl Into<String>) -> Self {
        self.project = project.into();
        self
    }

    /// As a service sends it over gRPC.
    pub fn to_proto(&self) -> Event {
        Event {
            event_id: self.id.clone(),
            project_id: self.project.clone(),
            embeddable_id: EMBEDDABLE.to_owned(),
            name: self.name.clone(),
            timestamp: Some(timestamp(self.unix_millis)),
            identifier: Some(string_identifier("email", &self.email)),
            properties: Some(Properties::PropsJson(self.props.to_string())),
        }
    }

    /// As a caller sends it over HTTP: the upstream's own body, not normalised.
    pub fn to_upstream_body(&self) -> Value {
        let time = Timestamp::from_millisecond(self.unix_millis).expect("the tests' times are in range");
        json!({
            "embeddable_id": EMBEDDABLE,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            "custom_event_name": self.name,
            "custom_event_props": self.props.to_string(),
            "identifiers": [{"key": "email", "value": Value::from(self.email.as_str()).to_string()}],
        })
    }

    /// The body that upstream must get, as [`normalised`] shows it.
    pub fn body(&self) -> Value {
        normalised(self.to_upstream_body())
    }
}

/// Moment of so many milliseconds since 1970.
pub fn timestamp(unix_millis: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(unix_millis.rem_euclid(1000) * 1_000_000).expect("less than a second");
    prost_types::Timestamp {
        seconds: unix_millis.div_euclid(1000),
        nanos,
    }
}

/// Identifier with a string value.
pub fn string_identifier(key: &str, value: &str) -> Identifier {
    Identifier {
        key: key.to_owned(),
        value: Some(IdentifierValue::StringValue(value.to_owned())),
    }
}

/// A request body with its inner JSON strings parsed too, so that only the meaning is compared.
pub fn normalised(mut body: Value) -> Value {
    let parse = |value: &mut Value| {
        if let Some(parsed) = value
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
        {
            *value = json!({ "parsed": parsed });
        }
    };
    if let Some(props) = body.get_mut("custom_event_props") {
        parse(props);
    }
    for identifier in body
        .get_mut("identifiers")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(value) = identifier.get_mut("value") {
            parse(value);
        }
    }
    body
}

/// Id of the test event that a normalised body was made of.
pub fn id_of(body: &Value) -> Option<&str> {
    body["custom_event_props"]["parsed"][ID_PROPERTY].as_str()
}
