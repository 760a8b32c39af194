//! Upstream's own body, read strictly: what upstream would not understand is refused here, where its sender can still mend it.

use embeddables_core::{Event, EventTime, Identifier, IdentifierValue, Properties};
use serde::Deserialize;
use serde_json::Value;

use super::problem::{self, Problem};

/// The body as upstream documents it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    embeddable_id: String,
    timestamp: String,
    custom_event_name: String,
    custom_event_props: Option<String>,
    identifiers: Vec<BodyIdentifier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyIdentifier {
    key: String,
    value: Value,
}

/// Reads the event; its rules are checked later, like those of every event.
pub(super) fn event(bytes: &[u8], project_id: String, event_id: Option<String>) -> Result<Event, Problem> {
    let body: Body = serde_json::from_slice(bytes).map_err(|error| problem::of_json(&error))?;
    let mut identifiers = body.identifiers;
    let identifier = match (identifiers.pop(), identifiers.is_empty()) {
        (Some(identifier), true) => identifier,
        _ => return Err(problem::ONE_IDENTIFIER),
    };
    let value = match identifier.value {
        Value::String(text) => text,
        other => return Err(problem::not_stringified(&other)),
    };
    Ok(Event {
        event_id,
        project_id: Some(project_id),
        embeddable_id: body.embeddable_id,
        name: body.custom_event_name,
        timestamp: Some(EventTime::Text(body.timestamp)),
        identifier: Some(Identifier {
            key: identifier.key,
            value: Some(IdentifierValue::Json(value)),
        }),
        properties: body.custom_event_props.map_or(Properties::None, Properties::Json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        let problem = event(body.as_bytes(), "pr_1".to_owned(), None).expect_err("refused");
        let text = serde_json::to_string(&problem).expect("JSON");
        assert!(text.contains(expected), "{text} does not say {expected}");
    }

    const GOOD: &str = r#"{"embeddable_id":"flow_1","timestamp":"2022-01-01T00:00:00Z","custom_event_name":"a",
        "identifiers":[{"key":"email","value":"\"a@b.co\""}]}"#;

    #[test]
    fn the_documented_body_is_taken_with_and_without_props() {
        let event = event(GOOD.as_bytes(), "pr_1".to_owned(), Some("id".to_owned())).expect("an event");
        assert_eq!(event.event_id.as_deref(), Some("id"));
        assert_eq!(event.properties, Properties::None);
        let value = event.identifier.and_then(|identifier| identifier.value);
        assert_eq!(value, Some(IdentifierValue::Json("\"a@b.co\"".to_owned())));
    }

    #[test]
    fn what_upstream_would_not_understand_is_refused() {
        check("not json", "MALFORMED");
        check(&GOOD.replace("\"timestamp\"", "\"time\""), "unknown field `time`");
        check(
            &GOOD.replace("\"key\":\"email\"", "\"key\":\"email\",\"key\":\"email\""),
            "duplicate field `key`",
        );
        check(
            &GOOD.replace("[{", "[{\"key\":\"a\",\"value\":\"1\"},{"),
            "IDENTIFIER_COUNT",
        );
        check(
            &GOOD.replace(r#"[{"key":"email","value":"\"a@b.co\""}]"#, "[]"),
            "IDENTIFIER_COUNT",
        );
    }

    #[test]
    fn a_value_that_is_not_stringified_is_told_what_was_meant() {
        check(&GOOD.replace(r#""\"a@b.co\"""#, "42"), r#"send \"42\""#);
        check(
            &GOOD.replace(r#""\"a@b.co\"""#, "[1]"),
            "IDENTIFIER_NOT_STRINGIFIED",
        );
    }
}
