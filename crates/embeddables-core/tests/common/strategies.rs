//! Events of every kind, for properties that hold for all of them.

use embeddables_core::{Event, EventTime, Identifier, IdentifierValue, Properties, Value};
use proptest::prelude::*;

/// Values whose keys differ, at most a few levels deep; numbers of every kind.
pub fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any_number().prop_map(Value::Number),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

pub fn any_members() -> impl Strategy<Value = Vec<(String, Value)>> {
    prop::collection::btree_map(any::<String>(), any_value(), 0..6).prop_map(|map| map.into_iter().collect())
}

pub fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        any::<i32>().prop_map(f64::from),
        any::<i64>().prop_map(|number| number as f64)
    ]
}

pub fn any_properties() -> impl Strategy<Value = Properties> {
    prop_oneof![
        Just(Properties::None),
        any_members().prop_map(Properties::Object),
        any::<String>().prop_map(Properties::Json),
        any_members().prop_map(|members| Properties::Json(to_json(&Value::Object(members)).to_string())),
        (
            prop::collection::btree_map(any::<String>(), any_number(), 0..5),
            prop::collection::btree_map(any::<String>(), any::<String>(), 0..5),
        )
            .prop_map(|(metrics, dimensions)| Properties::Payload { metrics, dimensions }),
    ]
}

pub fn any_identifier_value() -> impl Strategy<Value = IdentifierValue> {
    prop_oneof![
        any::<String>().prop_map(IdentifierValue::String),
        any::<i64>().prop_map(IdentifierValue::Integer),
        any_number().prop_map(IdentifierValue::Number),
        any::<bool>().prop_map(IdentifierValue::Bool),
        any::<String>().prop_map(IdentifierValue::Json),
        any::<String>().prop_map(|text| IdentifierValue::Json(serde_json::Value::String(text).to_string())),
    ]
}

pub fn any_event() -> impl Strategy<Value = Event> {
    let time = prop_oneof![
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| EventTime::Unix { seconds, nanos }),
        any::<String>().prop_map(EventTime::Text),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
            .prop_map(EventTime::Text),
    ];
    (
        prop::option::of(any::<String>()),
        prop::option::of(any::<String>()),
        prop_oneof!["[A-Za-z0-9_-]{1,20}", any::<String>()],
        prop_oneof!["[a-z]{1,5}(_[a-z0-9]{1,5}){0,3}", any::<String>()],
        prop::option::of(time),
        prop::option::of((any::<String>(), prop::option::of(any_identifier_value()))),
        any_properties(),
    )
        .prop_map(
            |(event_id, project_id, embeddable_id, name, timestamp, identifier, properties)| Event {
                event_id,
                project_id,
                embeddable_id,
                name,
                timestamp,
                identifier: identifier.map(|(key, value)| Identifier { key, value }),
                properties,
            },
        )
}

/// The same tree by another library's hands.
pub fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Unset | Value::Null => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => (*number).into(),
        Value::String(text) => text.clone().into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), to_json(value)))
            .collect(),
    }
}
