//! `dev --demo`: a few events, over gRPC as any service would publish them, and what becomes of each.
//!
//! Standard output has a line an event, `ID STATE REASON`, and what the mock received; explanations go to standard error.
//! The exit code is 0 only where all went as it should.

use std::time::Duration;

use embeddables_mock::{Entry, FaultScript, Mock, Settings, Step};
use embeddables_proto::events::v1::events_service_client::EventsServiceClient;
use embeddables_proto::events::v1::{
    Event, EventStatus, GetEventRequest, Identifier, PublishEventsRequest, PublishResult, State,
    StructuredPayload, event, identifier, publish_result,
};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::address::Address;
use super::dev::{API_KEY, PROJECT};
use super::failure::Failure;
use super::printer::Printer;
use super::{OutputFormat, render, status};
use crate::server::Addresses;

/// Longest wait for all events to be where they should be.
const DEADLINE: Duration = Duration::from_secs(20);
/// Pause between two questions.
const POLL: Duration = Duration::from_millis(20);

const EMBEDDABLE: &str = "flow_demo";
const KNOWN_USER: &str = "ada@example.com";
const KNOWN_NUMBER: i64 = 9_007_199_254_740_993;

/// An event with what should become of it.
struct Act {
    event: Event,
    explanation: &'static str,
    expected_state: &'static str,
    expected_reason: Option<&'static str>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
struct Fate {
    state: String,
    reason: String,
}

/// Plays it.
pub(super) async fn demo(
    addresses: &Addresses,
    mock: &Mock,
    output: OutputFormat,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let grpc = addresses
        .grpc
        .ok_or_else(|| Failure::new("the demonstration needs `listen.grpc`"))?;
    let mut client = Address::Tcp(grpc.to_string()).events_service().await?;
    prepare(mock)?;
    eprintln!(
        "The sidecar listens on {grpc}, a mock of the events API on {}. Publishing over gRPC:\n",
        mock.url()
    );

    let deadline = Instant::now() + DEADLINE;
    let (rejected, others) = acts();
    // Alone and first: the mock rejects the next request, whosever it is.
    mock.push_faults(FaultScript::once([Step {
        status: Some(400),
        body: Some(r#"{"error":"embeddable_id: no such Embeddable"}"#.to_owned()),
        ..Step::default()
    }]))
    .map_err(|error| Failure::new(format!("the mock takes no fault: {error}")))?;
    let mut fates = play(&mut client, std::slice::from_ref(&rejected), deadline).await?;
    let mut all = play(&mut client, &others, deadline).await?;
    all.append(&mut fates);

    let mut acts = others;
    acts.push(rejected);
    let mut is_as_expected = true;
    for (act, fate) in acts.iter().zip(&all) {
        is_as_expected &= tell(act, fate, output, printer)?;
    }
    let counts = mock.counts();
    let delivered_count = acts
        .iter()
        .filter(|act| act.expected_state == "delivered")
        .count();
    if counts.created != delivered_count as u64 {
        eprintln!(
            "unexpected: the mock created {} events, not {delivered_count}",
            counts.created
        );
        is_as_expected = false;
    }
    eprintln!("\nEvery request that the mock received, the attempts that failed too:");
    match output {
        OutputFormat::Text => printer.line(format!("mock received {}", counts.requests))?,
        OutputFormat::Json => {
            printer.line(serde_json::json!({ "mock_received": counts.requests }).to_string())?
        }
    }
    Ok(if is_as_expected { 0 } else { Failure::FAILED })
}

/// The mock knows one key and two users.
fn prepare(mock: &Mock) -> Result<(), Failure> {
    let entry = |key: &str, value: serde_json::Value| Entry {
        project: PROJECT.to_owned(),
        embeddable: EMBEDDABLE.to_owned(),
        key: key.to_owned(),
        value,
    };
    let settings = Settings {
        keys: [(PROJECT.to_owned(), vec![API_KEY.to_owned()])].into(),
        entries: vec![
            entry("email", KNOWN_USER.into()),
            entry("member_no", KNOWN_NUMBER.into()),
        ],
        any_entry: Some(false),
        ..Settings::default()
    };
    mock.configure(settings)
        .map_err(|error| Failure::new(format!("the mock takes no settings: {error}")))
}

/// The event that upstream rejects, and the others.
fn acts() -> (Act, Vec<Act>) {
    use identifier::Value::{Int64Value, StringValue};
    let event = |id: &str, key: &str, value: identifier::Value| Event {
        event_id: id.to_owned(),
        embeddable_id: EMBEDDABLE.to_owned(),
        name: "visit_completed".to_owned(),
        identifier: Some(Identifier {
            key: key.to_owned(),
            value: Some(value),
        }),
        properties: Some(event::Properties::Payload(StructuredPayload {
            metrics: [("amount".to_owned(), 49.5)].into(),
            dimensions: [("currency".to_owned(), "EUR".to_owned())].into(),
        })),
        ..Event::default()
    };
    let known_user = || StringValue(KNOWN_USER.to_owned());
    let others = vec![
        Act {
            event: event("demo-good", "email", known_user()),
            explanation: "a good event: on disk before the call returns, then delivered",
            expected_state: "delivered",
            expected_reason: None,
        },
        Act {
            event: event("demo-number", "member_no", Int64Value(KNOWN_NUMBER)),
            explanation: "its user is told by a number beyond 2^53, which stays exact",
            expected_state: "delivered",
            expected_reason: None,
        },
        Act {
            event: event(
                "demo-double-encoded",
                "email",
                StringValue(format!("\"{KNOWN_USER}\"")),
            ),
            explanation: "its identifier was made JSON already, which would match nobody: refused in the call itself",
            expected_state: "refused",
            expected_reason: Some("IDENTIFIER_DOUBLE_ENCODED"),
        },
        Act {
            event: event(
                "demo-unknown-user",
                "email",
                StringValue("grace@example.com".to_owned()),
            ),
            explanation: "its user is not known upstream, perhaps not yet: tried again in 10 s, 1 min, 5 min …",
            expected_state: "waiting",
            expected_reason: Some("ENTRY_NOT_FOUND"),
        },
    ];
    let rejected = Act {
        event: event("demo-rejected", "email", known_user()),
        explanation: "upstream says 400, which no repeat would change: kept as a dead letter until an operator decides",
        expected_state: "dead_lettered",
        expected_reason: None,
    };
    (rejected, others)
}

/// Publishes in one call, then waits until each event is where it should be, or the deadline.
async fn play(
    client: &mut EventsServiceClient<Channel>,
    acts: &[Act],
    deadline: Instant,
) -> Result<Vec<Fate>, Failure> {
    let events = acts.iter().map(|act| act.event.clone()).collect();
    let request = PublishEventsRequest {
        events,
        ..PublishEventsRequest::default()
    };
    let answer = client
        .publish_events(request)
        .await
        .map_err(|error| Failure::new(status::describe(&error)))?;
    let mut fates = Vec::new();
    for (act, result) in acts.iter().zip(answer.into_inner().results) {
        fates.push(match refusal(result) {
            Some(fate) => fate,
            None => wait_for(client, act, deadline).await?,
        });
    }
    Ok(fates)
}

fn refusal(result: PublishResult) -> Option<Fate> {
    match result.result {
        Some(publish_result::Result::Refusal(refusal)) => {
            // What is wrong with the event says more than that something is.
            let reason = refusal
                .violations
                .into_iter()
                .next()
                .map_or(refusal.reason, |violation| violation.reason);
            Some(Fate {
                state: "refused".to_owned(),
                reason,
            })
        }
        _ => None,
    }
}

async fn wait_for(
    client: &mut EventsServiceClient<Channel>,
    act: &Act,
    deadline: Instant,
) -> Result<Fate, Failure> {
    loop {
        let request = GetEventRequest {
            event_id: act.event.event_id.clone(),
            ..GetEventRequest::default()
        };
        let answer = client
            .get_event(request)
            .await
            .map_err(|error| Failure::new(status::describe(&error)))?;
        let fate = fate(&answer.into_inner().status.unwrap_or_default());
        if fate.state == act.expected_state || Instant::now() >= deadline {
            return Ok(fate);
        }
        sleep(POLL).await;
    }
}

fn fate(found: &EventStatus) -> Fate {
    let reason = match found.state() {
        State::Delivered => String::new(),
        _ => found.reason.clone(),
    };
    Fate {
        state: render::state_name(found.state()),
        reason,
    }
}

/// Prints an event's line; returns whether it is as it should be.
fn tell(act: &Act, fate: &Fate, output: OutputFormat, printer: &mut Printer) -> Result<bool, Failure> {
    let id = &act.event.event_id;
    let reason = if fate.reason.is_empty() { "-" } else { &fate.reason };
    eprintln!("{id}: {}", act.explanation);
    match output {
        OutputFormat::Text => printer.line(format!("{id} {} {reason}", fate.state))?,
        OutputFormat::Json => printer.line(
            serde_json::json!({ "event_id": id, "state": fate.state, "reason": fate.reason }).to_string(),
        )?,
    }
    let is_expected = fate.state == act.expected_state
        && act.expected_reason.is_none_or(|expected| expected == fate.reason);
    if !is_expected {
        eprintln!(
            "unexpected: it should be {} {}",
            act.expected_state,
            act.expected_reason.unwrap_or("-")
        );
    }
    Ok(is_expected)
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::{Refusal, Violation};

    use super::super::printer::tests::to_memory;
    use super::*;

    #[test]
    fn a_line_has_id_state_and_reason_or_a_dash() {
        let (_, acts) = acts();
        let (mut printer, memory) = to_memory();
        let delivered = fate(&EventStatus {
            state: State::Delivered.into(),
            ..EventStatus::default()
        });
        assert!(tell(&acts[0], &delivered, OutputFormat::Text, &mut printer).unwrap());
        let waiting = EventStatus {
            state: State::Waiting.into(),
            reason: "ENTRY_NOT_FOUND".to_owned(),
            ..EventStatus::default()
        };
        assert!(tell(&acts[3], &fate(&waiting), OutputFormat::Text, &mut printer).unwrap());
        assert!(!tell(&acts[3], &delivered, OutputFormat::Text, &mut printer).unwrap());
        assert_eq!(
            String::from_utf8_lossy(&memory.lock().unwrap()),
            "demo-good delivered -\ndemo-unknown-user waiting ENTRY_NOT_FOUND\ndemo-unknown-user delivered -\n"
        );
    }

    #[test]
    fn a_refusal_is_told_by_its_violation() {
        let violation = Violation {
            reason: "IDENTIFIER_DOUBLE_ENCODED".to_owned(),
            ..Violation::default()
        };
        let result = Refusal {
            reason: "INVALID_EVENT".to_owned(),
            violations: vec![violation],
            ..Refusal::default()
        };
        let fate = refusal(PublishResult {
            result: Some(publish_result::Result::Refusal(result)),
        })
        .unwrap();
        assert_eq!(
            (fate.state.as_str(), fate.reason.as_str()),
            ("refused", "IDENTIFIER_DOUBLE_ENCODED")
        );
    }
}
