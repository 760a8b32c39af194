//! `validate`: checks events as publishing would, and shows the requests that would be sent.
//!
//! The running sidecar judges, as for `publish`: its configuration decides about double encoding and projects, and one set
//! of rules cannot differ from another.

use clap::Args;
use embeddables_proto::events::v1::{
    UpstreamRequest, ValidateEventsRequest, ValidateResult, validate_result,
};

use super::event_input::{EventInput, Item};
use super::failure::Failure;
use super::printer::Printer;
use super::publish::malformed_refusal;
use super::{Global, OutputFormat, json, render, status};

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    input: EventInput,
}

/// Validates; the exit code is 1 where any event would be refused.
pub(super) async fn validate(
    args: &ValidateArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let mut items = args.input.open()?;
    let mut client = global.address()?.events_service().await?;
    let mut refused_count = 0_u64;
    loop {
        let batch = items.next_batch().await?;
        if batch.is_empty() {
            return Ok(if refused_count == 0 { 0 } else { Failure::FAILED });
        }
        let events: Vec<_> = batch.iter().filter_map(|item| item.event.clone().ok()).collect();
        let results = match events.is_empty() {
            true => Vec::new(),
            false => {
                client
                    .validate_events(ValidateEventsRequest { events })
                    .await
                    .map_err(|error| Failure::new(status::describe(&error)))?
                    .into_inner()
                    .results
            }
        };
        refused_count += print_batch(batch, results, global.output, printer)?;
    }
}

/// Prints a result for each item, in order; returns how many would be refused.
fn print_batch(
    batch: Vec<Item>,
    results: Vec<ValidateResult>,
    output: OutputFormat,
    printer: &mut Printer,
) -> Result<u64, Failure> {
    let mut results = results.into_iter();
    let mut refused_count = 0;
    for item in batch {
        let mut result = match &item.event {
            Ok(_) => results.next().unwrap_or_default(),
            Err(message) => ValidateResult {
                result: Some(validate_result::Result::Refusal(malformed_refusal(
                    message.clone(),
                ))),
            },
        };
        if let Some(validate_result::Result::Refusal(refusal)) = &mut result.result {
            refused_count += 1;
            render::forget_place(refusal);
        }
        match output {
            OutputFormat::Json => printer.line(json::to_json("ValidateResult", &result)?)?,
            OutputFormat::Text => printer.line(match &result.result {
                Some(validate_result::Result::Request(request)) => valid(&item.name(), request),
                Some(validate_result::Result::Refusal(refusal)) => {
                    render::refused(&item.name(), item.line_beside_name(), refusal)
                }
                None => format!("{} has no result", item.name()),
            })?,
        }
    }
    Ok(refused_count)
}

/// A good event with its request, as `curl -v` would show it.
fn valid(name: &str, request: &UpstreamRequest) -> String {
    let mut text = format!("{name} valid\n  {} {}", request.method, request.url);
    for (header, value) in &request.headers {
        text.push_str(&format!("\n  {header}: {value}"));
    }
    text.push_str(&format!("\n\n  {}\n", request.body));
    text
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::Event;

    use super::super::printer::tests::to_memory;
    use super::*;

    #[test]
    fn a_valid_event_shows_its_request_and_a_bad_line_its_number() {
        let items = vec![
            Item {
                line: Some(1),
                event: Ok(Event {
                    event_id: "a".to_owned(),
                    ..Event::default()
                }),
            },
            Item {
                line: Some(2),
                event: Err("not JSON".to_owned()),
            },
        ];
        let request = UpstreamRequest {
            method: "POST".to_owned(),
            url: "https://api.example/projects/p/events".to_owned(),
            headers: [("x-api-key".to_owned(), "redacted".to_owned())].into(),
            body: "{}".to_owned(),
        };
        let results = vec![ValidateResult {
            result: Some(validate_result::Result::Request(request)),
        }];
        let (mut printer, memory) = to_memory();
        assert_eq!(
            print_batch(items, results, OutputFormat::Text, &mut printer).unwrap(),
            1
        );
        assert_eq!(
            String::from_utf8_lossy(&memory.lock().unwrap()),
            "a valid\n  POST https://api.example/projects/p/events\n  x-api-key: redacted\n\n  {}\n\nline 2 refused MALFORMED: not JSON\n"
        );
    }
}
