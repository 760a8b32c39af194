//! Lanes as an operator sees them: what each does, and what lies in it.

use embeddables_core::ProjectId;
use embeddables_proto::admin::v1 as proto;
use embeddables_queue::{Books, LaneBooks};

use crate::dispatch::board::{Board, Condition, LaneView};
use crate::enqueue::lane;
use crate::ingest::status::timestamp;

/// Longest note on a hold.
pub(super) const NOTE_MAX_BYTES: usize = 256;

/// Every lane in order of project: those that are configured, and those that still hold something.
pub(super) fn all(books: &Books, board: &Board, delivering: bool) -> Vec<proto::Lane> {
    let mut lanes: Vec<_> = books
        .lanes
        .iter()
        .map(|(name, books)| {
            let project = ProjectId::parse(name.as_str()).ok();
            let view = project.and_then(|project| board.view(&project));
            match view.filter(|_| delivering) {
                Some(view) => message(name.as_str(), &view, books),
                None => proto::Lane {
                    condition: proto::LaneCondition::NotRunning.into(),
                    ..message(name.as_str(), &LaneView::default(), books)
                },
            }
        })
        .collect();
    lanes.sort_by(|left, right| left.project_id.cmp(&right.project_id));
    lanes
}

/// One lane, with this view of it.
pub(super) fn one(project: &ProjectId, view: &LaneView, books: &Books) -> proto::Lane {
    let name = lane(project);
    let of_lane = books.lanes.iter().find(|(known, _)| *known == name);
    let none = LaneBooks::default();
    message(project.as_str(), view, of_lane.map_or(&none, |(_, books)| books))
}

fn message(project: &str, view: &LaneView, books: &LaneBooks) -> proto::Lane {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let small = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    proto::Lane {
        project_id: project.to_owned(),
        condition: condition(view.condition).into(),
        hold: view.hold.as_ref().map(|hold| proto::Hold {
            reason: hold.reason.as_str().to_owned(),
            message: hold.message.clone(),
            start_time: Some(timestamp(hold.since)),
        }),
        next_try_time: view.next_try.map(timestamp),
        in_flight_count: small(view.in_flight),
        concurrency_limit: small(view.concurrency_limit),
        queued_count: whole(books.ready),
        waiting_count: whole(books.waiting),
        dead_letter_count: whole(books.dead_lettered),
        used_bytes: whole(books.used_bytes),
        dead_letter_bytes: whole(books.dead_letter_bytes),
    }
}

fn condition(condition: Condition) -> proto::LaneCondition {
    match condition {
        Condition::Open => proto::LaneCondition::Open,
        Condition::Paused => proto::LaneCondition::Paused,
        Condition::Held => proto::LaneCondition::Held,
        Condition::Probing => proto::LaneCondition::Probing,
        Condition::BreakerOpen => proto::LaneCondition::BreakerOpen,
        Condition::BreakerHalfOpen => proto::LaneCondition::BreakerHalfOpen,
    }
}
