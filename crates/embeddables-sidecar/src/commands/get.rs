//! `get ID`: all that the sidecar knows of an event.

use clap::Args;
use embeddables_proto::events::v1::{Attempt, AttemptOutcome, EventStatus, GetEventRequest, Receipt};

use super::failure::Failure;
use super::printer::Printer;
use super::render::{durability_name, short, state_name, time};
use super::{Global, OutputFormat, json, status};
use crate::config::units::format_duration;

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// Id of the event
    #[arg(value_name = "ID")]
    event_id: String,
    /// Its project [default: the sidecar's]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
}

/// Asks for an event; the exit code is 1 where it is not known.
pub(super) async fn get(args: &GetArgs, global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    let request = GetEventRequest {
        event_id: args.event_id.clone(),
        project_id: args.project.clone().unwrap_or_default(),
    };
    let mut client = global.address()?.events_service().await?;
    let answer = client
        .get_event(request)
        .await
        .map_err(|error| Failure::new(status::describe(&error)))?;
    let found = answer.into_inner().status.unwrap_or_default();
    match global.output {
        OutputFormat::Json => printer.line(json::to_json("EventStatus", &found)?)?,
        OutputFormat::Text => printer.text(&describe(&found))?,
    }
    Ok(0)
}

/// A status as a list of what is known.
pub(super) fn describe(found: &EventStatus) -> String {
    let mut lines = vec![
        ("event", found.event_id.clone()),
        ("project", found.project_id.clone()),
    ];
    let state = match &found.next_attempt_time {
        Some(next) => format!("{} until {}", state_name(found.state()), time(next)),
        None => state_name(found.state()),
    };
    lines.push(("state", state));
    if !found.reason.is_empty() {
        lines.push(("reason", found.reason.clone()));
    }
    if !found.message.is_empty() {
        lines.push(("message", found.message.clone()));
    }
    if let Some(accepted) = &found.accept_time {
        lines.push((
            "accepted",
            format!("{} ({})", time(accepted), durability_name(found.durability())),
        ));
    }
    if let Some(receipt) = &found.receipt {
        if let Some(delivered) = &receipt.delivery_time {
            lines.push(("delivered", time(delivered)));
        }
        lines.push(("receipt", describe_receipt(receipt)));
    }
    if found.possible_duplicate {
        lines.push((
            "note",
            "upstream may have it more than once: an attempt without a clear answer was repeated".to_owned(),
        ));
    }
    lines.push(("attempts", found.attempt_count.to_string()));
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("{name:<10}{value}\n"))
        .collect();
    let first = i64::from(found.attempt_count) - i64::try_from(found.attempts.len()).unwrap_or_default() + 1;
    for (number, attempt) in (first.max(1)..).zip(&found.attempts) {
        text.push_str(&format!("  {number:>3}  {}\n", describe_attempt(attempt)));
    }
    text
}

fn describe_receipt(receipt: &Receipt) -> String {
    if receipt.unparsed {
        return "upstream's answer could not be understood; the event is delivered all the same".to_owned();
    }
    let parts = [
        ("entry", &receipt.entry_id),
        ("contact", &receipt.contact_id),
        ("group", &receipt.group_id),
        ("version", &receipt.embeddable_version_number),
    ];
    let known: Vec<_> = parts
        .iter()
        .filter(|(_, id)| !id.is_empty())
        .map(|(name, id)| format!("{name} {id}"))
        .collect();
    known.join(", ")
}

fn describe_attempt(attempt: &Attempt) -> String {
    let start = attempt.start_time.as_ref().map(time).unwrap_or_default();
    let duration = attempt
        .duration
        .and_then(|duration| std::time::Duration::try_from(duration).ok());
    let millis = duration.map(|duration| {
        std::time::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    });
    let outcome = AttemptOutcome::try_from(attempt.outcome).unwrap_or_default();
    let mut parts = vec![start, short(outcome.as_str_name(), "ATTEMPT_OUTCOME_")];
    if attempt.http_status != 0 {
        parts.push(attempt.http_status.to_string());
    }
    parts.extend(millis.map(|millis| format!("in {}", format_duration(millis))));
    if !attempt.detail.is_empty() {
        parts.push(attempt.detail.clone());
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::{Durability, State};

    use super::*;

    #[test]
    fn a_waiting_event_tells_until_when_why_and_what_was_tried() {
        let at = |seconds: i64| {
            Some(prost_types::Timestamp {
                seconds: 1_640_995_200 + seconds,
                nanos: 0,
            })
        };
        let found = EventStatus {
            event_id: "e1".to_owned(),
            project_id: "pr_1".to_owned(),
            state: State::Waiting.into(),
            durability: Durability::Fsynced.into(),
            accept_time: at(0),
            next_attempt_time: at(70),
            reason: "ENTRY_NOT_FOUND".to_owned(),
            message: "no entry matches the identifier".to_owned(),
            attempts: vec![Attempt {
                start_time: at(60),
                duration: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 12_345_678,
                }),
                outcome: AttemptOutcome::Rejected.into(),
                http_status: 404,
                detail: "ENTRY_NOT_FOUND".to_owned(),
            }],
            attempt_count: 20,
            possible_duplicate: true,
            ..EventStatus::default()
        };
        assert_eq!(
            describe(&found),
            "event     e1\n\
             project   pr_1\n\
             state     waiting until 2022-01-01T00:01:10.000Z\n\
             reason    ENTRY_NOT_FOUND\n\
             message   no entry matches the identifier\n\
             accepted  2022-01-01T00:00:00.000Z (fsynced)\n\
             note      upstream may have it more than once: an attempt without a clear answer was repeated\n\
             attempts  20\n   20  2022-01-01T00:01:00.000Z  rejected  404  in 12ms  ENTRY_NOT_FOUND\n"
        );
    }

    #[test]
    fn a_delivered_event_shows_its_receipt() {
        let receipt = Receipt {
            entry_id: "entry_1".to_owned(),
            group_id: "group_1".to_owned(),
            ..Receipt::default()
        };
        assert_eq!(describe_receipt(&receipt), "entry entry_1, group group_1");
        let unparsed = Receipt {
            unparsed: true,
            ..Receipt::default()
        };
        assert!(describe_receipt(&unparsed).contains("delivered all the same"));
    }
}
