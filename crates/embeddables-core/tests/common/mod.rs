//! What the tests share: a valid event to start from, and the one caller of `validate`.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]

pub mod strategies;

use embeddables_core::{
    Defaults, Event, EventId, Identifier, IdentifierValue, ProjectId, Properties, Rules, Timestamp,
    ValidEvent, Violations,
};

pub const NOW_SECONDS: i64 = 1_640_995_200;

pub fn event() -> Event {
    Event {
        event_id: Some("e-1".to_owned()),
        project_id: Some("pr_1".to_owned()),
        embeddable_id: "flow_a1".to_owned(),
        name: "visit_completed".to_owned(),
        timestamp: None,
        identifier: Some(identifier(IdentifierValue::String("test@test.com".to_owned()))),
        properties: Properties::None,
    }
}

pub fn identifier(value: IdentifierValue) -> Identifier {
    Identifier {
        key: "email".to_owned(),
        value: Some(value),
    }
}

pub fn with_value(value: IdentifierValue) -> Event {
    Event {
        identifier: Some(identifier(value)),
        ..event()
    }
}

pub fn with_properties(properties: Properties) -> Event {
    Event {
        properties,
        ..event()
    }
}

pub fn json(text: impl Into<String>) -> Properties {
    Properties::Json(text.into())
}

pub fn validate(event: &Event) -> Result<ValidEvent, Violations> {
    validate_by(event, &Rules::default())
}

pub fn validate_by(event: &Event, rules: &Rules) -> Result<ValidEvent, Violations> {
    let project = ProjectId::parse("pr_default").unwrap();
    let now = Timestamp::from_unix(NOW_SECONDS, 0).unwrap();
    let defaults = Defaults {
        project_id: Some(&project),
        event_id: EventId::parse("made").unwrap(),
        now,
    };
    event.validate(&defaults, rules)
}

#[track_caller]
pub fn accepted(event: &Event) -> ValidEvent {
    validate(event).unwrap_or_else(|violations| panic!("refused: {violations}"))
}

/// Field and code of each violation.
#[track_caller]
pub fn refused(event: &Event) -> Vec<(&'static str, &'static str)> {
    codes(&validate(event).expect_err("accepted"))
}

pub fn codes(violations: &Violations) -> Vec<(&'static str, &'static str)> {
    violations
        .iter()
        .map(|violation| (violation.field().as_str(), violation.reason().as_str()))
        .collect()
}
