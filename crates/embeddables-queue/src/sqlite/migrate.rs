//! Bringing a store of an older format up to date. For a major: a list of steps, each in one transaction with its new number.
//! For a minor: tables that are added where they are missing.

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::connection;
use super::format::Format;
use super::trouble::Trouble;

/// One step: from the last minor of a major to the next major.
pub(super) struct Step {
    /// Major that it starts from.
    pub(super) from_major: u32,
    /// Format that it ends with.
    pub(super) to: Format,
    /// The statements.
    pub(super) sql: &'static str,
}

/// Tables and indexes that minors after 1.0 brought.
const ADDED: [&str; 6] = [
    "gates",
    "openings",
    "deadlines",
    "lane_states",
    "gates_key",
    "deadlines_time",
];

/// All steps, oldest first. There is only one major so far.
pub(super) const STEPS: &[Step] = &[];

/// Takes the steps that a store of this format needs; returns the format reached.
pub(super) fn migrate(connection: &Connection, found: Format, steps: &[Step]) -> Result<Format, Trouble> {
    let mut format = found;
    for step in steps {
        if step.from_major != format.major {
            continue;
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let taken = connection
            .execute_batch(step.sql)
            .and_then(|()| step.to.write(connection))
            .and_then(|()| connection.execute_batch("COMMIT"));
        if let Err(error) = taken {
            super::commit::roll_back(connection);
            return Err(error.into());
        }
        tracing::info!(from = %format, to = %step.to, "the store was migrated");
        format = step.to;
    }
    if format != found {
        // Another release then sees the number without the log.
        connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
    }
    Ok(format)
}

/// Adds what is missing of the minors up to ours; returns the format reached. An older release ignores it, and a newer minor
/// keeps its number.
pub(super) fn add_missing(connection: &Connection, found: Format) -> Result<Format, Trouble> {
    let mut is_complete = true;
    for name in ADDED {
        is_complete &= connection
            .prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1")?
            .exists([name])?;
    }
    let format = found.max(Format::CURRENT);
    if is_complete && format == found {
        return Ok(found);
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let added = connection::add_missing(connection)
        .and_then(|()| format.write(connection))
        .and_then(|()| connection.execute_batch("COMMIT"));
    if let Err(error) = added {
        super::commit::roll_back(connection);
        return Err(error.into());
    }
    tracing::info!(from = %found, to = %format, "tables of a newer minor format were added to the store");
    connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::format;

    #[test]
    fn steps_are_taken_in_order_and_their_number_reaches_the_main_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        connection::create_at(&path, &[0; 32]).unwrap();
        let store = connection::open_writer(&path).unwrap();
        let to = |major| Format { major, minor: 0 };
        let steps = [
            Step {
                from_major: 1,
                to: to(2),
                sql: "CREATE TABLE added (number INTEGER)",
            },
            Step {
                from_major: 2,
                to: to(3),
                sql: "INSERT INTO added VALUES (1)",
            },
        ];
        assert_eq!(migrate(&store, to(1), &steps).unwrap(), to(3));
        assert_eq!(
            format::peek(&path),
            format::Found::Is {
                format: to(3),
                repair: false
            }
        );
        assert_eq!(
            migrate(&store, to(3), &steps).unwrap(),
            to(3),
            "nothing is done twice"
        );
    }

    #[test]
    fn a_step_that_fails_leaves_the_store_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        connection::create_at(&path, &[0; 32]).unwrap();
        let store = connection::open_writer(&path).unwrap();
        let steps = [Step {
            from_major: 1,
            to: Format { major: 2, minor: 0 },
            sql: "CREATE TABLE added (number INTEGER); INSERT INTO missing VALUES (1)",
        }];
        assert!(migrate(&store, Format::CURRENT, &steps).is_err());
        assert_eq!(
            format::read(&store),
            format::Found::Is {
                format: Format::CURRENT,
                repair: false
            }
        );
    }
}
