//! From the contract's messages to the model: nothing is checked here and nothing is lost.

use embeddables_core::{Event, EventTime, Identifier, IdentifierValue, Properties, Value};
use embeddables_proto::events::v1 as proto;
use prost_types::value::Kind;

/// An event as it came over gRPC.
pub fn event(event: proto::Event) -> Event {
    Event {
        event_id: not_empty(event.event_id),
        project_id: not_empty(event.project_id),
        embeddable_id: event.embeddable_id,
        name: event.name,
        timestamp: event.timestamp.map(|time| EventTime::Unix {
            seconds: time.seconds,
            nanos: time.nanos,
        }),
        identifier: event.identifier.map(identifier),
        properties: event.properties.map_or(Properties::None, properties),
    }
}

/// Proto3 has no absent strings: an empty one means the default.
fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn identifier(identifier: proto::Identifier) -> Identifier {
    use proto::identifier::Value as Given;
    let value = identifier.value.map(|value| match value {
        Given::StringValue(text) => IdentifierValue::String(text),
        Given::Int64Value(number) => IdentifierValue::Integer(number),
        Given::DoubleValue(number) => IdentifierValue::Number(number),
        Given::BoolValue(truth) => IdentifierValue::Bool(truth),
    });
    Identifier {
        key: identifier.key,
        value,
    }
}

fn properties(properties: proto::event::Properties) -> Properties {
    use proto::event::Properties as Given;
    match properties {
        Given::Props(structure) => Properties::Object(members(structure)),
        Given::PropsJson(text) => Properties::Json(text),
        Given::Payload(payload) => Properties::Payload {
            metrics: payload.metrics,
            dimensions: payload.dimensions,
        },
    }
}

fn members(structure: prost_types::Struct) -> Vec<(String, Value)> {
    structure
        .fields
        .into_iter()
        .map(|(key, member)| (key, value(member)))
        .collect()
}

/// Recursion is bounded by protobuf's own limit of 100 nested messages.
fn value(value: prost_types::Value) -> Value {
    match value.kind {
        // struct.proto calls an unset kind an error.
        None => Value::Unset,
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(truth)) => Value::Bool(truth),
        Some(Kind::NumberValue(number)) => Value::Number(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::List(list.values.into_iter().map(self::value).collect()),
        Some(Kind::StructValue(structure)) => Value::Object(members(structure)),
    }
}
