//! `publish`: events by arguments or NDJSON, over gRPC, in batches.

use std::time::Duration;

use clap::{Args, ValueEnum};
use embeddables_proto::events::v1::{
    Durability, Event, PublishOptions, PublishResult, Refusal, publish_result,
};
use tonic::{Code, Request, Response};

use super::event_input::{EventInput, Item};
use super::failure::Failure;
use super::printer::Printer;
use super::submit::submit;
use super::{Global, OutputFormat, json, render, status};
use crate::config::units::parse_duration;

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    input: EventInput,
    /// For how long a batch is tried while the sidecar is not available or has no room
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Least durability to acknowledge with [default: the sidecar's]
    #[arg(long, value_name = "LEVEL", value_enum)]
    durability: Option<DurabilityArg>,
}

/// How safe an event is to be before it is acknowledged.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityArg {
    /// Held in memory
    Memory,
    /// Written, not synced
    Buffered,
    /// Written and synced
    Fsynced,
}

impl From<DurabilityArg> for Durability {
    fn from(argument: DurabilityArg) -> Self {
        match argument {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::Buffered => Self::Buffered,
            DurabilityArg::Fsynced => Self::Fsynced,
        }
    }
}

/// Publishes; the exit code is 1 where any event was refused.
pub(super) async fn publish(
    args: &PublishArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let mut items = args.input.open()?.with_ids();
    let client = global.address()?.events_service().await?;
    let options = PublishOptions {
        durability: args
            .durability
            .map_or(Durability::Unspecified, Durability::from)
            .into(),
        ..PublishOptions::default()
    };
    let mut refused_count = 0_u64;
    loop {
        let batch = items.next_batch().await?;
        if batch.is_empty() {
            return Ok(if refused_count == 0 { 0 } else { Failure::FAILED });
        }
        let events: Vec<Event> = batch.iter().filter_map(|item| item.event.clone().ok()).collect();
        let submitted = match events.is_empty() {
            true => None,
            false => Some(
                submit(&events, options, args.timeout, async |request, timeout| {
                    let mut request = Request::new(request);
                    request.set_timeout(timeout);
                    client
                        .clone()
                        .publish_events(request)
                        .await
                        .map(Response::into_inner)
                })
                .await,
            ),
        };
        let (results, error) = submitted
            .map(|submitted| (submitted.results, submitted.error))
            .unwrap_or_default();
        refused_count += print_batch(batch, results, global.output, printer)?;
        if let Some(error) = error {
            return Err(Failure::new(format!(
                "{}\nwhat was not published yet was left; events with ids of their own can be published again safely",
                status::describe(&error)
            )));
        }
    }
}

/// Prints a result for each item, in order; returns how many were refused.
fn print_batch(
    batch: Vec<Item>,
    results: Vec<PublishResult>,
    output: OutputFormat,
    printer: &mut Printer,
) -> Result<u64, Failure> {
    let mut results = results.into_iter();
    let mut refused_count = 0;
    for item in batch {
        let mut result = match &item.event {
            Ok(_) => results.next().unwrap_or_default(),
            Err(message) => malformed(message.clone()),
        };
        if let Some(publish_result::Result::Refusal(refusal)) = &mut result.result {
            refused_count += 1;
            render::forget_place(refusal);
        }
        match output {
            OutputFormat::Json => printer.line(json::to_json("PublishResult", &result)?)?,
            OutputFormat::Text => printer.line(match &result.result {
                Some(publish_result::Result::Status(status)) => render::published(status),
                Some(publish_result::Result::Refusal(refusal)) => {
                    render::refused(&item.name(), item.line_beside_name(), refusal)
                }
                None => format!("{} has no result", item.name()),
            })?,
        }
    }
    Ok(refused_count)
}

/// The result of a line that is no event: as the sidecar says it of a message that cannot be decoded.
pub(super) fn malformed(message: String) -> PublishResult {
    PublishResult {
        result: Some(publish_result::Result::Refusal(malformed_refusal(message))),
    }
}

/// Why a line is no event.
pub(super) fn malformed_refusal(message: String) -> Refusal {
    Refusal {
        code: Code::InvalidArgument.into(),
        reason: "MALFORMED".to_owned(),
        message,
        violations: Vec::new(),
        retry_delay: None,
    }
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::{EventStatus, State};

    use super::super::printer::tests::to_memory;
    use super::*;

    fn batch() -> (Vec<Item>, Vec<PublishResult>) {
        let event = |id: &str| {
            Ok(Event {
                event_id: id.to_owned(),
                ..Event::default()
            })
        };
        let items = vec![
            Item {
                line: Some(1),
                event: event("a"),
            },
            Item {
                line: Some(2),
                event: Err("not JSON, column 1: expected value".to_owned()),
            },
            Item {
                line: Some(3),
                event: event("b"),
            },
        ];
        let status = EventStatus {
            event_id: "a".to_owned(),
            state: State::Queued.into(),
            ..EventStatus::default()
        };
        let refusal = Refusal {
            code: 6,
            reason: "ID_REUSED".to_owned(),
            message: "other content".to_owned(),
            ..Refusal::default()
        };
        let results = vec![
            PublishResult {
                result: Some(publish_result::Result::Status(status)),
            },
            PublishResult {
                result: Some(publish_result::Result::Refusal(refusal)),
            },
        ];
        (items, results)
    }

    #[test]
    fn results_come_in_the_order_of_the_lines() {
        let (mut printer, memory) = to_memory();
        let (items, results) = batch();
        assert_eq!(
            print_batch(items, results, OutputFormat::Text, &mut printer).unwrap(),
            2
        );
        assert_eq!(
            String::from_utf8_lossy(&memory.lock().unwrap()),
            "a queued\nline 2 refused MALFORMED: not JSON, column 1: expected value\nb refused ID_REUSED: other content (line 3)\n"
        );
    }

    #[test]
    fn json_has_an_object_for_each_line() {
        let (mut printer, memory) = to_memory();
        let (items, results) = batch();
        print_batch(items, results, OutputFormat::Json, &mut printer).unwrap();
        let text = String::from_utf8_lossy(&memory.lock().unwrap()).into_owned();
        let objects: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects[0]["status"]["state"], "STATE_QUEUED");
        assert_eq!(objects[1]["refusal"]["reason"], "MALFORMED");
        assert_eq!(objects[2]["refusal"]["code"], 6);
    }
}
