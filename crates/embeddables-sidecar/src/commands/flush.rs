//! `flush`: waits until what was accepted before is settled, for example before a pod goes.

use std::time::Duration;

use clap::Args;
use embeddables_proto::events::v1::{FlushRequest, FlushResponse};
use tonic::Request;

use super::failure::Failure;
use super::printer::Printer;
use super::{Global, OutputFormat, json, status};
use crate::config::units::parse_duration;

/// Least time for a call: the sidecar answers a little before it is over.
const LEAST_TIMEOUT: Duration = Duration::from_millis(500);

/// Arguments of `flush`.
#[derive(Debug, Args)]
pub(super) struct FlushArgs {
    /// Only this project [default: all]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Longest wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Flushes; the exit code is 1 where some is left.
pub(super) async fn flush(args: &FlushArgs, global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    let mut client = global.address()?.events_service().await?;
    let mut request = Request::new(FlushRequest {
        project_id: args.project.clone().unwrap_or_default(),
    });
    request.set_timeout(args.timeout.max(LEAST_TIMEOUT));
    let answer = client.flush(request).await;
    let flushed = answer
        .map_err(|error| Failure::new(status::describe(&error)))?
        .into_inner();
    match global.output {
        OutputFormat::Json => printer.line(json::to_json("FlushResponse", &flushed)?)?,
        OutputFormat::Text => printer.line(describe(&flushed))?,
    }
    Ok(if left(&flushed) == 0 { 0 } else { Failure::FAILED })
}

fn left(flushed: &FlushResponse) -> i64 {
    flushed.queued_count + flushed.waiting_count + flushed.held_count
}

fn describe(flushed: &FlushResponse) -> String {
    let mut text = format!(
        "delivered {}, dead-lettered {}, left {}",
        flushed.delivered_count,
        flushed.dead_lettered_count,
        left(flushed)
    );
    let parts = [
        ("queued", flushed.queued_count),
        ("waiting", flushed.waiting_count),
        ("held", flushed.held_count),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !parts.is_empty() {
        text.push_str(&format!(" ({})", parts.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_its_state() {
        let mut flushed = FlushResponse {
            delivered_count: 3,
            dead_lettered_count: 1,
            ..FlushResponse::default()
        };
        assert_eq!(describe(&flushed), "delivered 3, dead-lettered 1, left 0");
        assert_eq!(left(&flushed), 0, "a dead letter is not left");
        (flushed.waiting_count, flushed.held_count) = (2, 5);
        assert_eq!(
            describe(&flushed),
            "delivered 3, dead-lettered 1, left 7 (waiting 2, held 5)"
        );
    }
}
