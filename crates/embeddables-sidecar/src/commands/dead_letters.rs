//! `dead-letters`: events that were given up.

use clap::{Args, Subcommand};
use embeddables_proto::admin::v1::{
    DeadLetter, GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLettersRequest,
    ReplayDeadLettersResponse,
};
use tonic::Status;

use super::address::AdminClient;
use super::failure::Failure;
use super::printer::Printer;
use super::render::time;
use super::{Global, OutputFormat, get, json, status};

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show them, oldest event first
    List(ListArgs),
    /// Show all of one: why it was given up, its attempts, upstream's words
    Get(GetArgs),
    /// Put them back into the queue, as the newest events of their project
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only this project [default: all]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Only those given up for this reason, such as UPSTREAM_REJECTED
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct GetArgs {
    /// Id of the event
    #[arg(value_name = "ID")]
    event_id: String,
    /// Its project [default: the sidecar's]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Show identifier and props too: personal data
    #[arg(long)]
    include_event: bool,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// Ids of the events
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    event_ids: Vec<String>,
    /// Their project [default: the sidecar's]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// All of the project
    #[arg(long)]
    all: bool,
    /// With --all: only those given up for this reason
    #[arg(long, value_name = "REASON", conflicts_with = "event_ids")]
    reason: Option<String>,
}

/// Shows or replays; the exit code is 1 where an id to replay is no dead letter.
pub(super) async fn dead_letters(
    args: &DeadLettersArgs,
    global: &Global,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let client = global.admin_address()?.admin_service().await?;
    match &args.action {
        Action::List(args) => list(args, global, client, printer).await,
        Action::Get(args) => show(args, global, client, printer).await,
        Action::Replay(args) => replay(args, global, client, printer).await,
    }
}

fn failed(error: Status) -> Failure {
    Failure::new(status::describe(&error))
}

/// Shows page after page.
async fn list(
    args: &ListArgs,
    global: &Global,
    mut client: AdminClient,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let mut request = ListDeadLettersRequest {
        project_id: args.project.clone().unwrap_or_default(),
        reason: args.reason.clone().unwrap_or_default(),
        ..ListDeadLettersRequest::default()
    };
    loop {
        let answer = client.list_dead_letters(request.clone()).await;
        let page = answer.map_err(failed)?.into_inner();
        for letter in &page.dead_letters {
            match global.output {
                OutputFormat::Json => printer.line(json::admin_to_json("DeadLetter", letter)?)?,
                OutputFormat::Text => printer.line(line(letter))?,
            }
        }
        if page.next_page_token.is_empty() || printer.is_closed() {
            return Ok(0);
        }
        request.page_token = page.next_page_token;
    }
}

async fn show(
    args: &GetArgs,
    global: &Global,
    mut client: AdminClient,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let request = GetDeadLetterRequest {
        event_id: args.event_id.clone(),
        project_id: args.project.clone().unwrap_or_default(),
        include_event: args.include_event,
    };
    let answer = client.get_dead_letter(request).await;
    let letter = answer
        .map_err(failed)?
        .into_inner()
        .dead_letter
        .unwrap_or_default();
    match global.output {
        OutputFormat::Json => printer.line(json::admin_to_json("DeadLetter", &letter)?)?,
        OutputFormat::Text => printer.text(&describe(&letter)?)?,
    }
    Ok(0)
}

async fn replay(
    args: &ReplayArgs,
    global: &Global,
    mut client: AdminClient,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let request = ReplayDeadLettersRequest {
        project_id: args.project.clone().unwrap_or_default(),
        event_ids: args.event_ids.clone(),
        all: args.all,
        reason: args.reason.clone().unwrap_or_default(),
    };
    let answer = client.replay_dead_letters(request).await;
    let replayed = answer.map_err(failed)?.into_inner();
    match global.output {
        OutputFormat::Json => {
            printer.line(json::admin_to_json("ReplayDeadLettersResponse", &replayed)?)?;
        }
        OutputFormat::Text => printer.text(&describe_replay(&replayed))?,
    }
    Ok(match replayed.unknown_event_ids.is_empty() {
        true => 0,
        false => Failure::FAILED,
    })
}

/// When, project, id, reason, name: the same words in every line.
fn line(letter: &DeadLetter) -> String {
    let status = letter.status.clone().unwrap_or_default();
    let name = letter.event.as_ref().map_or("-", |event| event.name.as_str());
    format!(
        "{} {} {} {} {name}",
        letter.dead_letter_time.as_ref().map(time).unwrap_or_default(),
        status.project_id,
        status.event_id,
        status.reason
    )
}

fn describe(letter: &DeadLetter) -> Result<String, Failure> {
    let mut text = get::describe(&letter.status.clone().unwrap_or_default());
    let mut push = |name: &str, value: &str| text.push_str(&format!("{name:<10}{value}\n"));
    if let Some(given_up) = &letter.dead_letter_time {
        push("given up", &time(given_up));
    }
    if letter.replay_count > 0 {
        push("replays", &letter.replay_count.to_string());
    }
    if letter.http_status != 0 {
        push(
            "upstream",
            &format!("{} {}", letter.http_status, letter.upstream_body),
        );
    }
    match &letter.event {
        Some(event) => push("event", &json::to_json("Event", event)?),
        None => push("event", "the stored event cannot be read by this release"),
    }
    Ok(text)
}

fn describe_replay(replayed: &ReplayDeadLettersResponse) -> String {
    let unknown = replayed
        .unknown_event_ids
        .iter()
        .map(|id| format!("{id} is no dead letter\n"));
    unknown
        .chain([format!("{} replayed\n", replayed.replayed_count)])
        .collect()
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::{Event, EventStatus};

    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            status: Some(EventStatus {
                event_id: "e1".to_owned(),
                project_id: "pr_1".to_owned(),
                reason: "UPSTREAM_REJECTED".to_owned(),
                ..EventStatus::default()
            }),
            event: Some(Event {
                name: "visit_completed".to_owned(),
                ..Event::default()
            }),
            dead_letter_time: Some(prost_types::Timestamp {
                seconds: 1_640_995_200,
                nanos: 0,
            }),
            http_status: 400,
            upstream_body: "no such field".to_owned(),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn a_list_has_the_same_words_in_every_line() {
        assert_eq!(
            line(&letter()),
            "2022-01-01T00:00:00.000Z pr_1 e1 UPSTREAM_REJECTED visit_completed"
        );
        let unreadable = DeadLetter {
            event: None,
            ..letter()
        };
        assert!(line(&unreadable).ends_with("UPSTREAM_REJECTED -"));
    }

    #[test]
    fn one_shows_upstreams_words_and_the_event() {
        let text = describe(&letter()).expect("is text");
        assert!(text.contains("upstream  400 no such field\n"), "{text}");
        assert!(text.contains("\"name\":\"visit_completed\""), "{text}");
    }

    #[test]
    fn a_replay_names_what_was_not_there() {
        let replayed = ReplayDeadLettersResponse {
            replayed_count: 2,
            unknown_event_ids: vec!["e9".to_owned()],
        };
        assert_eq!(describe_replay(&replayed), "e9 is no dead letter\n2 replayed\n");
    }
}
