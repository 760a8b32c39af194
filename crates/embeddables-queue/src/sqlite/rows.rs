//! Reading and writing single rows, with their checksums. Knows columns, not what a change means.

mod store;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::codec::{Body, OutcomeRow, dead_letter_checksum, order_key, record_checksum, sql, unsigned};
use super::trouble::is_unreadable_value;
use crate::{Durability, OrderKey, OutcomeKind};

pub(super) use self::store::{meta, store, write_meta, write_store};

/// A row as read: good, or with a wrong checksum or a value of a wrong type.
#[derive(Debug)]
pub(super) enum Read<T> {
    /// The checksum is right.
    Good(T),
    /// It is not; the row belongs into quarantine.
    Damaged,
}

/// A row of `records`.
#[derive(Debug)]
pub(super) struct RecordRow {
    pub(super) sequence: u64,
    pub(super) lane: i64,
    pub(super) due: i64,
    pub(super) settled_claim: u64,
    pub(super) accept_time: i64,
    pub(super) accept_running: i64,
    pub(super) order_key: OrderKey,
    pub(super) id: Box<str>,
    pub(super) progress: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) body_checksum: u32,
}

/// A row of `dead_letters`.
#[derive(Debug)]
pub(super) struct DeadLetterRow {
    pub(super) sequence: u64,
    pub(super) lane: i64,
    pub(super) accept_time: i64,
    pub(super) dead_time: i64,
    pub(super) order_key: OrderKey,
    pub(super) id: Box<str>,
    pub(super) reason: Box<str>,
    pub(super) progress: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// A row of `outcomes`.
#[derive(Debug)]
pub(super) struct KnownOutcome {
    pub(super) number: u64,
    pub(super) sequence: u64,
    pub(super) lane: i64,
    pub(super) kind: OutcomeKind,
    pub(super) time: i64,
    pub(super) id: Box<str>,
    pub(super) reason: Box<str>,
    pub(super) note: Vec<u8>,
}

/// A row of `ids`.
#[derive(Debug)]
pub(super) struct IdRow {
    pub(super) sequence: u64,
    pub(super) fingerprint: Vec<u8>,
    pub(super) accept_time: i64,
    pub(super) durability: Durability,
}

/// Columns that [`record`] reads, in its order.
pub(super) const RECORD_COLUMNS: &str =
    "sequence, lane, due, settled_claim, crc, accept_time, accept_running, order_key, id, progress, payload";
/// Columns that [`dead_letter`] reads, in its order.
pub(super) const DEAD_LETTER_COLUMNS: &str =
    "sequence, lane, crc, accept_time, accept_running, dead_time, order_key, id, reason, progress, payload";
/// Columns that [`outcome`] reads, in its order.
pub(super) const OUTCOME_COLUMNS: &str =
    "number, sequence, lane, kind, crc, outcome_time, running, id, reason, note";

/// Turns a value of a wrong type into a damaged row; other errors pass.
pub(super) fn or_damaged<T>(read: rusqlite::Result<Read<T>>) -> rusqlite::Result<Read<T>> {
    match read {
        Err(error) if is_unreadable_value(&error) => Ok(Read::Damaged),
        other => other,
    }
}

/// Reads a row of [`RECORD_COLUMNS`].
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Read<RecordRow>> {
    or_damaged(read_record(row))
}

fn read_record(row: &Row<'_>) -> rusqlite::Result<Read<RecordRow>> {
    let order = row.get_ref(7)?.as_blob()?;
    let (id, payload) = (row.get_ref(8)?.as_str()?, row.get_ref(10)?.as_blob()?);
    let body = Body {
        sequence: row.get(0)?,
        lane: row.get(1)?,
        accept_time: row.get(5)?,
        accept_running: row.get(6)?,
        order_key: order,
        id,
        payload,
    };
    let (due, settled_claim): (i64, i64) = (row.get(2)?, row.get(3)?);
    let progress = row.get_ref(9)?.as_blob()?;
    let checksum = body.checksum();
    if i64::from(record_checksum(checksum, due, settled_claim, progress)) != row.get::<_, i64>(4)? {
        return Ok(Read::Damaged);
    }
    Ok(Read::Good(RecordRow {
        sequence: unsigned(body.sequence),
        lane: body.lane,
        due,
        settled_claim: unsigned(settled_claim),
        accept_time: body.accept_time,
        accept_running: body.accept_running,
        order_key: order_key(order),
        id: id.into(),
        progress: progress.to_vec(),
        payload: payload.to_vec(),
        body_checksum: checksum.finish(),
    }))
}

/// Reads a row of [`DEAD_LETTER_COLUMNS`].
pub(super) fn dead_letter(row: &Row<'_>) -> rusqlite::Result<Read<DeadLetterRow>> {
    or_damaged(read_dead_letter(row))
}

fn read_dead_letter(row: &Row<'_>) -> rusqlite::Result<Read<DeadLetterRow>> {
    let order = row.get_ref(6)?.as_blob()?;
    let (id, payload) = (row.get_ref(7)?.as_str()?, row.get_ref(10)?.as_blob()?);
    let body = Body {
        sequence: row.get(0)?,
        lane: row.get(1)?,
        accept_time: row.get(3)?,
        accept_running: row.get(4)?,
        order_key: order,
        id,
        payload,
    };
    let dead_time: i64 = row.get(5)?;
    let reason = row.get_ref(8)?.as_str()?;
    let progress = row.get_ref(9)?.as_blob()?;
    let checksum = dead_letter_checksum(body.checksum(), dead_time, reason, progress);
    if i64::from(checksum) != row.get::<_, i64>(2)? {
        return Ok(Read::Damaged);
    }
    Ok(Read::Good(DeadLetterRow {
        sequence: unsigned(body.sequence),
        lane: body.lane,
        accept_time: body.accept_time,
        dead_time,
        order_key: order_key(order),
        id: id.into(),
        reason: reason.into(),
        progress: progress.to_vec(),
        payload: payload.to_vec(),
    }))
}

/// Reads a row of [`OUTCOME_COLUMNS`].
pub(super) fn outcome(row: &Row<'_>) -> rusqlite::Result<Read<KnownOutcome>> {
    or_damaged(read_outcome(row))
}

fn read_outcome(row: &Row<'_>) -> rusqlite::Result<Read<KnownOutcome>> {
    let stored = OutcomeRow {
        number: row.get(0)?,
        sequence: row.get(1)?,
        lane: row.get(2)?,
        kind: row.get(3)?,
        time: row.get(5)?,
        running: row.get(6)?,
        id: row.get_ref(7)?.as_str()?,
        reason: row.get_ref(8)?.as_str()?,
        note: row.get_ref(9)?.as_blob()?,
    };
    let Some(kind) = kind_of(stored.kind) else {
        return Ok(Read::Damaged);
    };
    if i64::from(stored.checksum()) != row.get::<_, i64>(4)? {
        return Ok(Read::Damaged);
    }
    Ok(Read::Good(KnownOutcome {
        number: unsigned(stored.number),
        sequence: unsigned(stored.sequence),
        lane: stored.lane,
        kind,
        time: stored.time,
        id: stored.id.into(),
        reason: stored.reason.into(),
        note: stored.note.to_vec(),
    }))
}

/// The row of an id.
pub(super) fn id(connection: &Connection, lane: i64, id: &str) -> rusqlite::Result<Option<IdRow>> {
    connection
        .prepare_cached(
            "SELECT sequence, fingerprint, accept_time, durability FROM ids WHERE lane = ?1 AND id = ?2",
        )?
        .query_row(params![lane, id], |row| {
            Ok(IdRow {
                sequence: unsigned(row.get(0)?),
                fingerprint: row.get(1)?,
                accept_time: row.get(2)?,
                durability: durability_of(row.get(3)?),
            })
        })
        .optional()
}

/// The statement that reads one record by its sequence.
pub(super) fn record_statement(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(&format!(
        "SELECT {RECORD_COLUMNS} FROM records WHERE sequence = ?1"
    ))
}

/// Due time and bytes of progress of a record that is there.
pub(super) fn due_of(connection: &Connection, sequence: u64) -> rusqlite::Result<Option<(i64, u64)>> {
    connection
        .prepare_cached("SELECT due, length(progress) FROM records WHERE sequence = ?1")?
        .query_row([sql(sequence)], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))
        .optional()
}

/// The dead letter of a sequence.
pub(super) fn dead_letter_at(
    connection: &Connection,
    sequence: u64,
) -> rusqlite::Result<Option<Read<DeadLetterRow>>> {
    connection
        .prepare_cached(&format!(
            "SELECT {DEAD_LETTER_COLUMNS} FROM dead_letters WHERE sequence = ?1"
        ))?
        .query_row([sql(sequence)], dead_letter)
        .optional()
}

/// The newest outcome of a sequence.
pub(super) fn outcome_at(
    connection: &Connection,
    sequence: u64,
) -> rusqlite::Result<Option<Read<KnownOutcome>>> {
    connection
        .prepare_cached(&format!(
            "SELECT {OUTCOME_COLUMNS} FROM outcomes WHERE sequence = ?1 ORDER BY number DESC LIMIT 1"
        ))?
        .query_row([sql(sequence)], outcome)
        .optional()
}

/// The statement that [`write_outcome`] runs.
pub(super) fn outcome_statement(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO outcomes (number, sequence, lane, kind, crc, outcome_time, running, id, reason, note)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
}

/// Writes an outcome.
pub(super) fn write_outcome(
    statement: &mut CachedStatement<'_>,
    row: &OutcomeRow<'_>,
) -> rusqlite::Result<()> {
    statement.execute(params![
        row.number,
        row.sequence,
        row.lane,
        row.kind,
        row.checksum(),
        row.time,
        row.running,
        row.id,
        row.reason,
        row.note
    ])?;
    Ok(())
}

/// Code of a kind of outcome on disk.
pub(super) fn kind_code(kind: OutcomeKind) -> i64 {
    match kind {
        OutcomeKind::Delivered => 1,
        OutcomeKind::DeadLettered => 2,
        OutcomeKind::Quarantined => 3,
        OutcomeKind::Discarded => 4,
    }
}

/// Kind of outcome of a code.
pub(super) fn kind_of(code: i64) -> Option<OutcomeKind> {
    match code {
        1 => Some(OutcomeKind::Delivered),
        2 => Some(OutcomeKind::DeadLettered),
        3 => Some(OutcomeKind::Quarantined),
        4 => Some(OutcomeKind::Discarded),
        _ => None,
    }
}

/// Code of a durability on disk.
pub(super) fn durability_code(durability: Durability) -> i64 {
    match durability {
        Durability::Memory => 1,
        Durability::Buffered => 2,
        Durability::Fsynced => 3,
        Durability::Replicated => 4,
    }
}

/// Durability of a code; an unknown one promises least.
pub(super) fn durability_of(code: i64) -> Durability {
    match code {
        2 => Durability::Buffered,
        3 => Durability::Fsynced,
        4 => Durability::Replicated,
        _ => Durability::Memory,
    }
}
