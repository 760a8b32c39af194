//! Dead letters as an operator sees them, in pages or one.

use embeddables_core::{ProjectId, ValidEvent};
use embeddables_proto::admin::v1 as proto;
use embeddables_proto::events::v1 as events;
use embeddables_queue::{DeadLetter, EntryState, RECORD_OVERHEAD_BYTES, Sequence, Store};
use serde_json::Value;
use tonic::Status;

use super::{PAGE_SIZE_NEGATIVE, PAGE_TOKEN_MALFORMED, bad, no_dead_letter};
use crate::enqueue::{codec, lane};
use crate::ingest::bad_call::EVENT_ID_MISSING;
use crate::ingest::cursor::{Kind, Places};
use crate::ingest::refusal::{Refusal, unreadable};
use crate::ingest::status;
use crate::settle::progress::Progress;

/// Dead letters of a page: by default, and at most.
const PAGE: (usize, usize) = (100, 500);

/// Dead letters read at once: each brings its payload along.
const STEP: usize = 64;

/// Dead letters looked at in one call at most: where a filter keeps nearly all of them back the page stays short.
const LOOKED_AT: usize = 16 * STEP;

/// One page, oldest first; `project` is that of the request, checked.
pub(super) async fn list(
    store: &dyn Store,
    project: Option<&ProjectId>,
    request: &proto::ListDeadLettersRequest,
) -> Result<proto::ListDeadLettersResponse, Status> {
    let places = Places::new(&store.secret());
    let size = match usize::try_from(request.page_size) {
        Ok(0) => PAGE.0,
        Ok(size) => size.min(PAGE.1),
        Err(_) => return Err(bad(&PAGE_SIZE_NEGATIVE)),
    };
    let mut after = match request.page_token.as_str() {
        "" => 0,
        token => places
            .read(Kind::DeadLetter, token)
            .map_err(|_| bad(&PAGE_TOKEN_MALFORMED))?,
    };
    let lane = project.map(lane);
    let mut dead_letters = Vec::new();
    for _ in 0..LOOKED_AT / STEP {
        let step = read(store, lane.as_ref(), Sequence(after), STEP).await?;
        for letter in &step {
            after = letter.sequence.0;
            if request.reason.is_empty() || *request.reason == *letter.reason {
                dead_letters.push(brief(letter));
            }
            if dead_letters.len() == size {
                break;
            }
        }
        if step.len() < STEP && step.last().is_none_or(|last| last.sequence.0 == after) {
            return Ok(proto::ListDeadLettersResponse {
                dead_letters,
                next_page_token: String::new(),
            });
        }
        if dead_letters.len() == size {
            break;
        }
    }
    Ok(proto::ListDeadLettersResponse {
        dead_letters,
        next_page_token: places.write(Kind::DeadLetter, after),
    })
}

/// One dead letter with its attempts; identifier and props only where `include_event` asks for them.
pub(super) async fn get(
    store: &dyn Store,
    project: &ProjectId,
    id: &str,
    include_event: bool,
) -> Result<proto::DeadLetter, Status> {
    if id.is_empty() {
        return Err(bad(&EVENT_ID_MISSING));
    }
    let letter = find(store, project, id).await?.ok_or_else(no_dead_letter)?;
    let entry = store.find(&lane(project), id).await;
    let durability = entry
        .map_err(|error| unreadable(&error).to_status(""))?
        .map_or(events::Durability::Unspecified, |entry| {
            status::durability_to_proto(entry.durability)
        });
    let progress = progress_of(&letter)?;
    let mut whole = message(&letter, progress.clone(), include_event);
    if let Some(status) = &mut whole.status {
        status.durability = durability.into();
    }
    whole.upstream_body = progress.upstream_body;
    Ok(whole)
}

/// The dead letter of an event; `None` where it is none.
pub(super) async fn find(
    store: &dyn Store,
    project: &ProjectId,
    id: &str,
) -> Result<Option<DeadLetter>, Status> {
    let lane = lane(project);
    let entry = store.find(&lane, id).await;
    let Some(entry) = entry.map_err(|error| unreadable(&error).to_status(""))? else {
        return Ok(None);
    };
    if !matches!(entry.state, EntryState::DeadLettered { .. }) {
        return Ok(None);
    }
    let before = Sequence(entry.sequence.0.saturating_sub(1));
    let next = read(store, Some(&lane), before, 1).await?;
    Ok(next.into_iter().find(|letter| letter.sequence == entry.sequence))
}

/// Dead letters after `after`.
pub(super) async fn read(
    store: &dyn Store,
    lane: Option<&embeddables_queue::LaneName>,
    after: Sequence,
    limit: usize,
) -> Result<Vec<DeadLetter>, Status> {
    let read = store.list(lane, after, limit).await;
    read.map_err(|error| unreadable(&error).to_status(""))
}

/// As a page shows it: no attempts, no words of upstream's, no personal data.
fn brief(letter: &DeadLetter) -> proto::DeadLetter {
    let progress = progress_of(letter).unwrap_or_default();
    let mut brief = message(letter, progress, false);
    if let Some(status) = &mut brief.status {
        status.attempts.clear();
    }
    brief
}

fn progress_of(letter: &DeadLetter) -> Result<Progress, Status> {
    Progress::decode_bytes(&letter.progress).map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "what is noted of a dead letter cannot be read"
        );
        Refusal::StorageUnreadable.to_status("")
    })
}

fn message(letter: &DeadLetter, progress: Progress, include_event: bool) -> proto::DeadLetter {
    let kept_bytes = u64::try_from(letter.payload.len() + letter.progress.len()).unwrap_or(u64::MAX);
    let whole = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let (http_status, replay_count) = (whole(progress.http_status), whole(progress.replay_count));
    let state = events::State::DeadLettered;
    let mut status = events::EventStatus {
        accept_time: Some(status::timestamp(letter.accept_time)),
        ..status::of_progress(
            letter.lane.as_str(),
            &letter.id,
            state,
            Some(letter.time),
            progress,
        )
    };
    if status.reason.is_empty() {
        // What is noted could not be read: the queue knows the reason too.
        letter.reason.as_ref().clone_into(&mut status.reason);
    }
    proto::DeadLetter {
        status: Some(status),
        event: codec::decode(&letter.payload)
            .ok()
            .map(|stored| event(&stored.event, include_event)),
        dead_letter_time: Some(status::timestamp(letter.time)),
        http_status,
        upstream_body: String::new(),
        replay_count,
        used_bytes: i64::try_from(RECORD_OVERHEAD_BYTES.saturating_add(kept_bytes)).unwrap_or(i64::MAX),
    }
}

/// The event as its caller could publish it; without what is personal unless `include_event`.
fn event(event: &ValidEvent, include_event: bool) -> events::Event {
    let personal = include_event.then(|| {
        let identifier = events::Identifier {
            key: event.identifier_key().to_owned(),
            value: identifier_value(event.identifier_json()),
        };
        let props = events::event::Properties::PropsJson(event.props_json().to_owned());
        (identifier, props)
    });
    let (identifier, properties) = personal.unzip();
    events::Event {
        event_id: event.event_id().to_string(),
        project_id: event.project_id().to_string(),
        embeddable_id: event.embeddable_id().to_string(),
        name: event.name().to_string(),
        timestamp: Some(status::timestamp(embeddables_queue::UnixMillis(
            event.time().unix_millis(),
        ))),
        identifier,
        properties,
    }
}

/// A value that is kept as JSON, in the kind that it came as.
fn identifier_value(json: &str) -> Option<events::identifier::Value> {
    use events::identifier::Value as Given;
    match serde_json::from_str::<Value>(json).ok()? {
        Value::String(text) => Some(Given::StringValue(text)),
        Value::Bool(truth) => Some(Given::BoolValue(truth)),
        Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Given::Int64Value(whole),
            (None, Some(double)) => Given::DoubleValue(double),
            (None, None) => Given::StringValue(json.to_owned()),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
