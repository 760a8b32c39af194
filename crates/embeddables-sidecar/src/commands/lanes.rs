//! `lanes`: what each project's lane does; holding and resuming one.

use clap::{Args, Subcommand};
use embeddables_proto::admin::v1::{HoldLaneRequest, Lane, ListLanesRequest, ResumeLaneRequest};

use super::failure::Failure;
use super::printer::Printer;
use super::render::{short, time};
use super::{Global, OutputFormat, json, status};

/// Arguments of `lanes`.
#[derive(Debug, Args)]
pub(super) struct LanesArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every lane (as `lanes` alone does)
    List,
    /// Send nothing of a project until it is resumed, also over a restart
    Hold {
        /// The project
        #[arg(value_name = "PROJECT")]
        project: String,
        /// A few words for those who look
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// Lift whatever keeps a project from being sent
    Resume {
        /// The project
        #[arg(value_name = "PROJECT")]
        project: String,
    },
}

/// Shows lanes, or the one that was changed.
pub(super) async fn lanes(args: &LanesArgs, global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    let failed = |error: tonic::Status| Failure::new(status::describe(&error));
    let mut client = global.admin_address()?.admin_service().await?;
    let lanes: Vec<Lane> = match &args.action {
        None | Some(Action::List) => {
            let answer = client.list_lanes(ListLanesRequest {}).await;
            answer.map_err(failed)?.into_inner().lanes
        }
        Some(Action::Hold { project, note }) => {
            let request = HoldLaneRequest {
                project_id: project.clone(),
                note: note.clone(),
            };
            let answer = client.hold_lane(request).await;
            answer.map_err(failed)?.into_inner().lane.into_iter().collect()
        }
        Some(Action::Resume { project }) => {
            let request = ResumeLaneRequest {
                project_id: project.clone(),
            };
            let answer = client.resume_lane(request).await;
            answer.map_err(failed)?.into_inner().lane.into_iter().collect()
        }
    };
    for lane in &lanes {
        match global.output {
            OutputFormat::Json => printer.line(json::admin_to_json("Lane", lane)?)?,
            OutputFormat::Text => printer.line(describe(lane))?,
        }
    }
    Ok(0)
}

/// A line for what the lane does and what lies in it, and one for why it is held.
fn describe(lane: &Lane) -> String {
    let condition = short(lane.condition().as_str_name(), "LANE_CONDITION_");
    let mut text = format!("{} {condition}", lane.project_id);
    if let Some(hold) = &lane.hold {
        text.push_str(&format!(" {}", hold.reason));
    }
    text.push_str(&format!(
        ", in flight {} of {}, queued {}, waiting {}, dead letters {}",
        lane.in_flight_count,
        lane.concurrency_limit,
        lane.queued_count,
        lane.waiting_count,
        lane.dead_letter_count
    ));
    if let Some(next) = &lane.next_try_time {
        text.push_str(&format!(", next try {}", time(next)));
    }
    if let Some(hold) = &lane.hold {
        let since = hold.start_time.as_ref().map(time).unwrap_or_default();
        text.push_str(&format!("\n  since {since}: {}", hold.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use embeddables_proto::admin::v1::{Hold, LaneCondition};

    use super::*;

    #[test]
    fn a_held_lane_tells_why_and_since_when() {
        let mut lane = Lane {
            project_id: "pr_1".to_owned(),
            condition: LaneCondition::Open.into(),
            in_flight_count: 2,
            concurrency_limit: 256,
            queued_count: 3,
            waiting_count: 4,
            dead_letter_count: 5,
            ..Lane::default()
        };
        assert_eq!(
            describe(&lane),
            "pr_1 open, in flight 2 of 256, queued 3, waiting 4, dead letters 5"
        );
        lane.condition = LaneCondition::Held.into();
        lane.hold = Some(Hold {
            reason: "KEY_REJECTED".to_owned(),
            message: "give it another key".to_owned(),
            start_time: Some(prost_types::Timestamp {
                seconds: 1_640_995_200,
                nanos: 0,
            }),
        });
        assert_eq!(
            describe(&lane),
            "pr_1 held KEY_REJECTED, in flight 2 of 256, queued 3, waiting 4, dead letters 5\n  \
             since 2022-01-01T00:00:00.000Z: give it another key"
        );
    }
}
