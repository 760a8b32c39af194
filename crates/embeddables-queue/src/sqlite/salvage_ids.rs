//! Copying the ids out of a damaged file: the one large table with text keys.

use rusqlite::Connection;

use super::salvage_tables::insert;
use super::trouble::Trouble;

const ID_COLUMNS: &str = "lane, id, sequence, fingerprint, accept_time, durability";

/// Ids have text keys: the step behind damage is a shorter prefix, raised by one.
pub(super) fn copy<'a>(
    source: &Connection,
    target: &Connection,
    lanes: impl Iterator<Item = &'a i64>,
) -> Result<u64, Trouble> {
    let mut kept = 0;
    for lane in lanes {
        let mut after = String::new();
        let mut dropped = 0;
        loop {
            let before = kept;
            let (last, whole) = scan_ids(source, target, *lane, &after, false, &mut kept)?;
            if whole {
                break;
            }
            dropped = if kept > before { 0 } else { dropped + 1 };
            match raised(&last, dropped) {
                Some(next) => after = next,
                None => break,
            }
        }
        scan_ids(source, target, *lane, "", true, &mut kept)?;
    }
    Ok(kept)
}

/// The text with its last `dropped` characters cut off and the one before raised: behind everything with that prefix.
fn raised(text: &str, dropped: usize) -> Option<String> {
    let bytes = text.as_bytes();
    let mut length = bytes.len().checked_sub(dropped)?;
    while length > 0 {
        let byte = bytes[length - 1];
        if (0x20..0x7e).contains(&byte) {
            let mut next = text.get(..length - 1)?.to_owned();
            next.push(char::from(byte + 1));
            return Some(next);
        }
        length -= 1;
    }
    None
}

fn scan_ids(
    source: &Connection,
    target: &Connection,
    lane: i64,
    after: &str,
    backwards: bool,
    kept: &mut u64,
) -> Result<(String, bool), Trouble> {
    let direction = if backwards { "DESC" } else { "ASC" };
    let select = format!(
        "SELECT {ID_COLUMNS} FROM ids WHERE lane = ?1 AND id > ?2 ORDER BY lane {direction}, id {direction}"
    );
    let mut last = after.to_owned();
    let Ok(mut statement) = source.prepare_cached(&select) else {
        return Ok((last, false));
    };
    let Ok(mut read) = statement.query(rusqlite::params![lane, after]) else {
        return Ok((last, false));
    };
    let mut first = true;
    loop {
        let row = match read.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok((last, true)),
            Err(_) => return Ok((last, false)),
        };
        let id: String = match row.get(1) {
            Ok(id) => id,
            Err(_) => return Ok((last, false)),
        };
        let in_order = first || if backwards { id < last } else { id > last };
        if !in_order {
            return Ok((last, false));
        }
        first = false;
        last = id;
        let is_good = row
            .get_ref(2)
            .is_ok_and(|value| value.as_i64().is_ok_and(|sequence| sequence > 0))
            && row
                .get_ref(3)
                .is_ok_and(|value| value.as_blob().is_ok_and(|fingerprint| fingerprint.len() <= 16))
            && row.get_ref(4).is_ok_and(|value| value.as_i64().is_ok())
            && row.get_ref(5).is_ok_and(|value| value.as_i64().is_ok());
        if is_good {
            *kept += insert(target, "ids", ID_COLUMNS, row)?;
        }
    }
}
