//! What operators are told, through the service itself.

use embeddables_proto::events::v1::State;
use proto::admin_service_server::AdminService as _;
use tonic_types::StatusExt as _;

use super::*;
use crate::dispatch::board::{Command, Condition, LanePost, LaneView};
use crate::testing::{Bench, project};

fn service(bench: &Bench) -> AdminService {
    AdminService::new(Arc::clone(&bench.pipeline), true)
}

#[track_caller]
fn check_refused<T>(answer: Result<Response<T>, Status>, code: Code, reason: &str) {
    let status = answer.err().expect("must be refused");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!((status.code(), info.reason.as_str()), (code, reason));
}

async fn list(
    service: &AdminService,
    request: proto::ListDeadLettersRequest,
) -> (Vec<proto::DeadLetter>, String) {
    let answer = service.list_dead_letters(Request::new(request)).await;
    let page = answer.expect("a page").into_inner();
    (page.dead_letters, page.next_page_token)
}

fn ids(letters: &[proto::DeadLetter]) -> Vec<&str> {
    letters
        .iter()
        .filter_map(|letter| Some(letter.status.as_ref()?.event_id.as_str()))
        .collect()
}

#[tokio::test]
async fn lanes_show_what_they_do_and_what_lies_in_them() {
    let bench = Bench::new();
    bench.publish("pr_a", "e1").await;
    bench.publish("pr_a", "e2").await;
    bench.give_up("pr_a", 1, "MAX_AGE").await;
    bench.show_held("pr_b");
    let lanes = |service: AdminService| async move {
        let answer = service.list_lanes(Request::new(proto::ListLanesRequest {})).await;
        answer.expect("lanes").into_inner().lanes
    };
    let both = lanes(service(&bench)).await;
    assert_eq!(
        (both[0].project_id.as_str(), both[0].condition()),
        ("pr_a", proto::LaneCondition::Open)
    );
    assert_eq!((both[0].queued_count, both[0].dead_letter_count), (1, 1));
    assert!(both[0].used_bytes > both[0].dead_letter_bytes && both[0].dead_letter_bytes > 256);
    assert_eq!(both[1].condition(), proto::LaneCondition::Held);
    assert_eq!(
        both[1].hold.as_ref().map(|hold| hold.reason.as_str()),
        Some("KEY_REJECTED")
    );
    assert!(both[1].next_try_time.is_some());

    let off = lanes(AdminService::new(Arc::clone(&bench.pipeline), false)).await;
    assert_eq!(off[0].condition(), proto::LaneCondition::NotRunning);
    assert_eq!(off[0].queued_count, 1);
}

/// Obeys like a lane until it is resumed; the notes that it was held with.
async fn obey(mut post: LanePost) -> Vec<String> {
    let mut notes = Vec::new();
    let seen = |condition| LaneView {
        condition,
        ..LaneView::default()
    };
    while let Some(command) = post.commands.recv().await {
        match command {
            Command::Hold { note, reply } => {
                notes.push(note);
                reply.send(seen(Condition::Held)).expect("somebody listens");
            }
            Command::Resume { reply } => {
                reply.send(seen(Condition::Open)).expect("somebody listens");
                return notes;
            }
            _ => {}
        }
    }
    notes
}

#[tokio::test]
async fn a_lane_is_held_with_a_note_and_resumed() {
    let mut bench = Bench::new();
    let post = bench.posts.remove(&project("pr_a")).expect("a post");
    let lane = tokio::spawn(obey(post));
    let service = service(&bench);
    let hold = |project: &str, note: &str| {
        Request::new(proto::HoldLaneRequest {
            project_id: project.to_owned(),
            note: note.to_owned(),
        })
    };
    let held = service
        .hold_lane(hold("pr_a", "upstream moves"))
        .await
        .expect("held");
    assert_eq!(
        held.into_inner().lane.expect("a lane").condition(),
        proto::LaneCondition::Held
    );
    check_refused(
        service.hold_lane(hold("pr_a", &"x".repeat(257))).await,
        Code::InvalidArgument,
        "NOTE_INVALID",
    );
    check_refused(
        service.hold_lane(hold("", "")).await,
        Code::FailedPrecondition,
        "PROJECT_NOT_CONFIGURED",
    );
    let resume = Request::new(proto::ResumeLaneRequest {
        project_id: "pr_a".to_owned(),
    });
    service.resume_lane(resume).await.expect("resumed");
    assert_eq!(lane.await.expect("the lane ends"), ["upstream moves"]);
    // Its post is gone: the lane does not run any more.
    check_refused(
        service.hold_lane(hold("pr_a", "")).await,
        Code::Unavailable,
        "LANE_NOT_RUNNING",
    );
}

#[tokio::test]
async fn dead_letters_come_in_pages_by_project_and_reason() {
    let bench = Bench::new();
    for (project, id, reason) in [
        ("pr_a", "a1", "MAX_AGE"),
        ("pr_b", "b1", "MAX_AGE"),
        ("pr_a", "a2", "UPSTREAM_REJECTED"),
        ("pr_a", "a3", "MAX_AGE"),
    ] {
        bench.publish(project, id).await;
        bench.give_up(project, 1, reason).await;
    }
    let service = service(&bench);
    let request = proto::ListDeadLettersRequest::default();
    let (all, token) = list(&service, request.clone()).await;
    assert_eq!((ids(&all), token.as_str()), (vec!["a1", "b1", "a2", "a3"], ""));

    let paged = proto::ListDeadLettersRequest {
        project_id: "pr_a".to_owned(),
        page_size: 2,
        ..request.clone()
    };
    let (first, page_token) = list(&service, paged.clone()).await;
    assert_eq!(ids(&first), ["a1", "a2"]);
    let (second, token) = list(&service, proto::ListDeadLettersRequest { page_token, ..paged }).await;
    assert_eq!((ids(&second), token.as_str()), (vec!["a3"], ""));

    let by_reason = proto::ListDeadLettersRequest {
        project_id: "pr_a".to_owned(),
        reason: "MAX_AGE".to_owned(),
        ..request.clone()
    };
    assert_eq!(ids(&list(&service, by_reason).await.0), ["a1", "a3"]);
    let bad_token = proto::ListDeadLettersRequest {
        page_token: "next".to_owned(),
        ..request
    };
    check_refused(
        service.list_dead_letters(Request::new(bad_token)).await,
        Code::InvalidArgument,
        "PAGE_TOKEN_MALFORMED",
    );
}

/// Everything of the event is there.
#[track_caller]
fn check_personal(event: embeddables_proto::events::v1::Event) {
    let value = event.identifier.and_then(|identifier| identifier.value);
    assert_eq!(
        value,
        Some(embeddables_proto::events::v1::identifier::Value::StringValue(
            "e1@example.com".to_owned()
        ))
    );
    assert_eq!(
        event.properties,
        Some(embeddables_proto::events::v1::event::Properties::PropsJson(
            "{\"amount\":7}".to_owned()
        ))
    );
}

#[tokio::test]
async fn personal_data_is_shown_only_of_one_and_only_on_request() {
    let bench = Bench::new();
    bench.publish("pr_a", "e1").await;
    bench.give_up("pr_a", 1, "UPSTREAM_REJECTED").await;
    let service = service(&bench);
    let get = |include_event| {
        let request = proto::GetDeadLetterRequest {
            event_id: "e1".to_owned(),
            project_id: "pr_a".to_owned(),
            include_event,
        };
        service.get_dead_letter(Request::new(request))
    };
    let brief = list(&service, proto::ListDeadLettersRequest::default())
        .await
        .0
        .remove(0);
    let whole = get(false)
        .await
        .expect("found")
        .into_inner()
        .dead_letter
        .expect("one");
    for letter in [&brief, &whole] {
        assert!(!format!("{letter:?}").contains("e1@example.com"), "{letter:?}");
        let event = letter.event.as_ref().expect("an event");
        assert_eq!(
            (event.name.as_str(), event.embeddable_id.as_str()),
            ("visit_completed", "flow_1")
        );
        assert!(event.timestamp.is_some() && event.properties.is_none());
    }
    assert_eq!(brief.upstream_body, "");
    assert!(
        brief
            .status
            .as_ref()
            .is_some_and(|status| status.attempts.is_empty())
    );
    assert_eq!(
        (whole.upstream_body.as_str(), whole.http_status),
        ("no such field", 400)
    );
    let status = whole.status.expect("a status");
    assert_eq!((status.state(), status.attempts.len()), (State::DeadLettered, 1));

    let shown = get(true)
        .await
        .expect("found")
        .into_inner()
        .dead_letter
        .expect("one");
    check_personal(shown.event.expect("an event"));
}

#[tokio::test]
async fn replayed_events_are_queued_again_with_their_attempts() {
    let bench = Bench::new();
    for id in ["e1", "e2", "e3"] {
        bench.publish("pr_a", id).await;
    }
    bench.give_up("pr_a", 2, "MAX_AGE").await;
    bench.give_up("pr_a", 1, "UPSTREAM_REJECTED").await;
    let service = service(&bench);
    let replay = async |request: proto::ReplayDeadLettersRequest| {
        let request = proto::ReplayDeadLettersRequest {
            project_id: "pr_a".to_owned(),
            ..request
        };
        service.replay_dead_letters(Request::new(request)).await
    };
    let replayed = async |request| {
        let answer = replay(request).await.expect("an answer");
        answer.into_inner().replayed_count
    };
    let of_ids = |ids: &[&str]| proto::ReplayDeadLettersRequest {
        event_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..proto::ReplayDeadLettersRequest::default()
    };
    let all = |reason: &str| proto::ReplayDeadLettersRequest {
        all: true,
        reason: reason.to_owned(),
        ..proto::ReplayDeadLettersRequest::default()
    };
    let answer = replay(of_ids(&["e1", "nobody"])).await;
    let answer = answer.expect("replayed").into_inner();
    assert_eq!(
        (answer.replayed_count, answer.unknown_event_ids),
        (1, vec!["nobody".to_owned()])
    );
    let status = bench
        .pipeline
        .find(&project("pr_a"), "e1")
        .await
        .expect("answers")
        .expect("known");
    assert_eq!(
        (status.state(), status.attempt_count, status.reason.as_str()),
        (State::Queued, 1, "")
    );
    check_refused(
        replay(of_ids(&["e1"])).await,
        Code::NotFound,
        "DEAD_LETTER_UNKNOWN",
    );

    // Given up again, it can be replayed again.
    bench.give_up("pr_a", 1, "MAX_AGE").await;
    assert_eq!(replayed(all("MAX_AGE")).await, 2);
    assert_eq!(replayed(all("")).await, 1);
    assert_eq!(replayed(all("")).await, 0, "nothing to do");
    assert_eq!(bench.claim("pr_a", 10).await.len(), 3);
    check_refused(
        replay(proto::ReplayDeadLettersRequest::default()).await,
        Code::InvalidArgument,
        "SELECTION_UNCLEAR",
    );
}
