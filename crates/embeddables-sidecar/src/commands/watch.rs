//! `watch`: outcomes as they happen, a line each.

use clap::Args;
use embeddables_proto::events::v1::{WatchOutcomesRequest, WatchOutcomesResponse};

use super::failure::Failure;
use super::printer::Printer;
use super::render::{state_name, time};
use super::{Global, OutputFormat, json, status};

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Go on after this cursor, the last word of a line [default: from now on]
    #[arg(long, value_name = "CURSOR", conflicts_with = "earliest")]
    cursor: Option<String>,
    /// Begin with the oldest outcome that is kept
    #[arg(long)]
    earliest: bool,
    /// Only this project [default: all]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// End after so many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Watches until `--count` are shown, or until the sidecar ends it.
pub(super) async fn watch(args: &WatchArgs, global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    let failed = |error: tonic::Status| Failure::new(status::describe(&error));
    let mut client = global.address()?.events_service().await?;
    let cursor = match args.earliest {
        true => "earliest".to_owned(),
        false => args.cursor.clone().unwrap_or_default(),
    };
    let answer = client
        .watch_outcomes(WatchOutcomesRequest {
            cursor,
            project_id: args.project.clone().unwrap_or_default(),
            states: Vec::new(),
        })
        .await;
    let mut outcomes = answer.map_err(failed)?.into_inner();
    let mut shown_count = 0_u64;
    while let Some(outcome) = outcomes.message().await.map_err(failed)? {
        match global.output {
            OutputFormat::Json => printer.line(json::to_json("WatchOutcomesResponse", &outcome)?)?,
            OutputFormat::Text => printer.line(describe(&outcome))?,
        }
        shown_count += 1;
        if args.count == Some(shown_count) || printer.is_closed() {
            return Ok(0);
        }
    }
    Err(Failure::new("the sidecar ended the stream"))
}

/// Time, project, id, state, reason and cursor: the same words in every line.
fn describe(outcome: &WatchOutcomesResponse) -> String {
    let status = outcome.status.clone().unwrap_or_default();
    let reason = match status.reason.as_str() {
        "" => "-",
        reason => reason,
    };
    format!(
        "{} {} {} {} {reason} {}",
        outcome.outcome_time.as_ref().map(time).unwrap_or_default(),
        status.project_id,
        status.event_id,
        state_name(status.state()),
        outcome.cursor
    )
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::{EventStatus, State};

    use super::*;

    #[test]
    fn every_line_has_the_same_words() {
        let outcome = WatchOutcomesResponse {
            cursor: "c7".to_owned(),
            outcome_time: Some(prost_types::Timestamp {
                seconds: 1_640_995_200,
                nanos: 0,
            }),
            status: Some(EventStatus {
                event_id: "e1".to_owned(),
                project_id: "pr_1".to_owned(),
                state: State::Delivered.into(),
                ..EventStatus::default()
            }),
        };
        assert_eq!(
            describe(&outcome),
            "2022-01-01T00:00:00.000Z pr_1 e1 delivered - c7"
        );
    }
}
