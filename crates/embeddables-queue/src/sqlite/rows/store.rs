//! The one row of `store` and the facts of `meta`. A damaged one counts as missing.

use rusqlite::{Connection, OptionalExtension, params};

use crate::sqlite::codec::{Checksum, meta_checksum, sql, unsigned};
use crate::sqlite::state::StoreRow;
use crate::sqlite::trouble::is_unreadable_value;

/// A fact of `meta`, if it is there and its checksum is right.
pub(in crate::sqlite) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let row = connection
        .prepare_cached("SELECT value, crc FROM meta WHERE name = ?1")?
        .query_row([name], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?))
        })
        .optional();
    match row {
        Ok(row) => Ok(row
            .filter(|(value, crc)| i64::from(meta_checksum(name, value)) == *crc)
            .map(|(value, _)| value)),
        Err(error) if is_unreadable_value(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a fact of `meta`.
pub(in crate::sqlite) fn write_meta(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value, crc) VALUES (?1, ?2, ?3)")?
        .execute(params![name, value, meta_checksum(name, value)])?;
    Ok(())
}

fn store_numbers(store: &StoreRow) -> [i64; 9] {
    [
        store.commit_number,
        store.next_sequence,
        store.next_claim,
        store.next_outcome,
        store.running,
        store.evicted_ids,
        store.possible_losses,
        store.doubt_sequence,
        store.doubt_claim,
    ]
    .map(sql)
}

/// The row of `store`; `None` where it is missing or damaged.
pub(in crate::sqlite) fn store(connection: &Connection) -> rusqlite::Result<Option<StoreRow>> {
    let row = connection
        .prepare_cached(
            "SELECT commit_number, next_sequence, next_claim, next_outcome, running, evicted_ids, possible_losses,
                    doubt_sequence, doubt_claim, crc FROM store WHERE only = 1",
        )?
        .query_row([], |row| {
            let mut numbers = [0_i64; 9];
            for (index, number) in numbers.iter_mut().enumerate() {
                *number = row.get(index)?;
            }
            Ok((numbers, row.get::<_, i64>(9)?))
        })
        .optional();
    let (numbers, crc) = match row {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(None),
        Err(error) if is_unreadable_value(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if i64::from(Checksum::default().numbers(numbers).finish()) != crc {
        return Ok(None);
    }
    let [
        commit_number,
        next_sequence,
        next_claim,
        next_outcome,
        running,
        evicted_ids,
        possible_losses,
        doubt_sequence,
        doubt_claim,
    ] = numbers.map(unsigned);
    Ok(Some(StoreRow {
        commit_number,
        next_sequence,
        next_claim,
        next_outcome,
        running,
        evicted_ids,
        possible_losses,
        doubt_sequence,
        doubt_claim,
    }))
}

/// Writes the row of `store`.
pub(in crate::sqlite) fn write_store(connection: &Connection, store: &StoreRow) -> rusqlite::Result<()> {
    let n = store_numbers(store);
    let crc = Checksum::default().numbers(n).finish();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO store (only, commit_number, next_sequence, next_claim, next_outcome, running,
                evicted_ids, possible_losses, doubt_sequence, doubt_claim, crc)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], crc])?;
    Ok(())
}
