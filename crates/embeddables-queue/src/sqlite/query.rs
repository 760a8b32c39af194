//! What readers ask: one function a question.

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{sql, unsigned};
use super::command::Suspected;
use super::reader::Finding;
use super::rows::{self, Read};
use super::shared::Shared;
use super::trouble::Trouble;
use crate::{
    Backlog, DeadLetter, Durability, Entry, EntryState, LaneName, Outcome, OutcomeKind, Sequence, UnixMillis,
};

/// How many records from the oldest on are looked at for those of one lane among waiting ones.
const OLDEST_SCAN: i64 = 10_000;
/// How many damaged rows are passed over before a page of results is cut short.
const SKIPPED_AT_MOST: usize = 256;

/// All that is known of an id.
pub(super) fn find(
    connection: &Connection,
    lane: i64,
    id: &str,
    is_interrupted: impl FnOnce(u64, u64) -> bool,
) -> Result<Finding<Option<Entry>>, Trouble> {
    let Some(known) = rows::id(connection, lane, id)? else {
        return Ok(Finding::clean(None));
    };
    let mut entry = Entry {
        sequence: Sequence(known.sequence),
        accept_time: UnixMillis(known.accept_time),
        durability: known.durability,
        state: EntryState::Quarantined,
        interrupted: false,
        progress: bytes::Bytes::new(),
    };
    let mut suspected = Vec::new();
    match rows::record_statement(connection)?
        .query_row([sql(known.sequence)], rows::record)
        .optional()?
    {
        Some(Read::Good(row)) if *row.id == *id && row.lane == lane => {
            entry.state = match row.due {
                0 => EntryState::Ready,
                due => EntryState::Waiting {
                    until: UnixMillis(due),
                },
            };
            entry.interrupted = is_interrupted(row.sequence, row.settled_claim);
            entry.progress = row.progress.into();
            return Ok(Finding::clean(Some(entry)));
        }
        Some(Read::Damaged) => suspected.push(Suspected::Record(known.sequence)),
        Some(Read::Good(_)) | None => {}
    }
    match rows::dead_letter_at(connection, known.sequence)? {
        Some(Read::Good(row)) if *row.id == *id && row.lane == lane => {
            entry.state = EntryState::DeadLettered {
                time: UnixMillis(row.dead_time),
                reason: row.reason,
            };
            entry.progress = row.progress.into();
            return Ok(Finding::clean(Some(entry)));
        }
        Some(Read::Damaged) => suspected.push(Suspected::DeadLetter(known.sequence)),
        Some(Read::Good(_)) | None => {}
    }
    if suspected.is_empty()
        && let Some(Read::Good(row)) = rows::outcome_at(connection, known.sequence)?
        && row.lane == lane
    {
        let time = UnixMillis(row.time);
        match row.kind {
            OutcomeKind::Delivered => entry.state = EntryState::Delivered { time },
            OutcomeKind::Discarded => entry.state = EntryState::Discarded { time },
            // A dead letter that is not there any more, nor replayed: lost to damage.
            OutcomeKind::DeadLettered | OutcomeKind::Quarantined => {}
        }
        entry.progress = row.note.into();
    }
    Ok(Finding {
        answer: Some(entry),
        suspected,
    })
}

/// Outcomes after a number.
pub(super) fn outcomes(
    connection: &Connection,
    shared: &Shared,
    after: u64,
    limit: usize,
) -> Result<Finding<Vec<Outcome>>, Trouble> {
    let mut found = Finding::clean(Vec::new());
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM outcomes WHERE number > ?1 ORDER BY number",
        rows::OUTCOME_COLUMNS
    ))?;
    let mut read = statement.query([sql(after)])?;
    while found.answer.len() < limit
        && found.suspected.len() < SKIPPED_AT_MOST
        && let Some(row) = read.next()?
    {
        let Read::Good(outcome) = rows::outcome(row)? else {
            found.suspected.push(Suspected::Outcome(unsigned(row.get(0)?)));
            continue;
        };
        let Some(lane) = shared.lane_by_number(outcome.lane) else {
            continue;
        };
        found.answer.push(Outcome {
            number: outcome.number,
            lane: shared.lanes[lane].name.clone(),
            id: outcome.id,
            sequence: Sequence(outcome.sequence),
            time: UnixMillis(outcome.time),
            kind: outcome.kind,
            reason: outcome.reason,
            note: outcome.note.into(),
        });
    }
    Ok(found)
}

/// Dead letters after a sequence, of one lane or of all.
pub(super) fn dead_letters(
    connection: &Connection,
    shared: &Shared,
    lane: Option<i64>,
    after: u64,
    limit: usize,
) -> Result<Finding<Vec<DeadLetter>>, Trouble> {
    let mut found = Finding::clean(Vec::new());
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM dead_letters WHERE sequence > ?1 AND (?2 IS NULL OR lane = ?2) ORDER BY sequence",
        rows::DEAD_LETTER_COLUMNS
    ))?;
    let mut read = statement.query(params![sql(after), lane])?;
    while found.answer.len() < limit
        && found.suspected.len() < SKIPPED_AT_MOST
        && let Some(row) = read.next()?
    {
        let Read::Good(letter) = rows::dead_letter(row)? else {
            found.suspected.push(Suspected::DeadLetter(unsigned(row.get(0)?)));
            continue;
        };
        let Some(lane) = shared.lane_by_number(letter.lane) else {
            continue;
        };
        found.answer.push(DeadLetter {
            sequence: Sequence(letter.sequence),
            lane: shared.lanes[lane].name.clone(),
            id: letter.id,
            order_key: letter.order_key,
            accept_time: UnixMillis(letter.accept_time),
            time: UnixMillis(letter.dead_time),
            reason: letter.reason,
            progress: letter.progress.into(),
            payload: letter.payload.into(),
        });
    }
    Ok(found)
}

/// Records of a lane that are still to be settled, up to a sequence.
pub(super) fn backlog(connection: &Connection, lane: i64, up_to: u64) -> Result<Backlog, Trouble> {
    let count = |sql: &str| -> rusqlite::Result<u64> {
        connection
            .prepare_cached(sql)?
            .query_row(params![lane, self::sql(up_to)], |row| row.get::<_, i64>(0))
            .map(unsigned)
    };
    Ok(Backlog {
        ready: count(
            "SELECT count(*) FROM records INDEXED BY records_due WHERE lane = ?1 AND due = 0 AND sequence <= ?2",
        )?,
        waiting: count(
            "SELECT count(*) FROM records INDEXED BY records_due WHERE lane = ?1 AND due > 0 AND sequence <= ?2",
        )?,
    })
}

/// Time of acceptance of each lane's oldest record.
pub(super) fn oldest(
    connection: &Connection,
    shared: &Shared,
) -> Result<Vec<(LaneName, UnixMillis)>, Trouble> {
    let mut found = Vec::new();
    for (index, lane) in shared.lanes.iter().enumerate() {
        let counters = shared.counters(index);
        if counters.ready + counters.waiting == 0 {
            continue;
        }
        if let Some(time) = oldest_of(connection, lane.number, counters.waiting > 0)? {
            found.push((lane.name.clone(), UnixMillis(time)));
        }
    }
    found.sort();
    Ok(found)
}

/// The first never-settled record is found by the index. A waiting one before it is looked for among the oldest records of all
/// lanes, but no further than a bound: beyond it the answer may be too young.
fn oldest_of(connection: &Connection, lane: i64, any_waiting: bool) -> Result<Option<i64>, Trouble> {
    let fresh: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT sequence, accept_time FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due = 0 ORDER BY sequence LIMIT 1",
        )?
        .query_row([lane], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let mut oldest = fresh.map(|(_, time)| time);
    if any_waiting {
        let before: Option<i64> = connection
            .prepare_cached(
                "SELECT accept_time FROM (
                    SELECT sequence, lane, accept_time FROM records WHERE sequence < ?2 ORDER BY sequence LIMIT ?3
                 ) WHERE lane = ?1 ORDER BY sequence LIMIT 1",
            )?
            .query_row(params![lane, fresh.map_or(i64::MAX, |(sequence, _)| sequence), OLDEST_SCAN], |row| row.get(0))
            .optional()?;
        oldest = before.or(oldest);
        if oldest.is_none() {
            oldest = connection
                .prepare_cached(
                    "SELECT accept_time FROM records INDEXED BY records_due
                     WHERE lane = ?1 ORDER BY due, sequence LIMIT 1",
                )?
                .query_row([lane], |row| row.get(0))
                .optional()?;
        }
    }
    Ok(oldest)
}

/// Whether a durability can be asked for.
pub(super) fn is_on_offer(offers: &[Durability], asked: Durability) -> bool {
    offers.last().is_some_and(|strongest| asked <= *strongest)
}
