//! Connections to the file and how they are set up; making a new file.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::format::Format;
use super::rows;
use super::state::StoreRow;
use super::trouble::Trouble;
use super::volume::{Paths, open_private, remove_if_there, sync_dir};

/// All of the schema, in the order in which its tables lie in a new store. What is behind the first can be run again.
const SCHEMA: [&str; 3] = [
    include_str!("schema.sql"),
    include_str!("additions.sql"),
    include_str!("indexes.sql"),
];
/// Cache of the writer. Readers have a sixteenth.
const WRITER_CACHE_KIB: u32 = 8 * 1024;
const READER_CACHE_KIB: u32 = 512;
/// The log's keeper copies pages past its cache.
const KEEPER_CACHE_KIB: u32 = 64;
/// Statements kept prepared: more than there are.
const STATEMENTS: usize = 64;

/// Makes an empty file of the current format: under another name first, so that `queue.db` is never half made.
pub(super) fn create(paths: &Paths, secret: &[u8; 32]) -> Result<(), Trouble> {
    let unfinished = paths.rebuild_tmp();
    create_at(&unfinished, secret)?;
    // A log without its file belongs to nothing.
    remove_if_there(&paths.wal()).map_err(Trouble::file("removing a stray log"))?;
    remove_if_there(&paths.shm()).map_err(Trouble::file("removing a stray log index"))?;
    std::fs::rename(&unfinished, paths.db()).map_err(Trouble::file("renaming the new store into place"))?;
    sync_dir(&paths.dir).map_err(Trouble::file("syncing the directory"))
}

/// Makes an empty, synced file of the current format at a path.
pub(super) fn create_at(path: &Path, secret: &[u8; 32]) -> Result<(), Trouble> {
    remove_if_there(path).map_err(Trouble::file("removing an unfinished store"))?;
    let file = open_private(path).map_err(Trouble::file("making the store"))?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = MEMORY; BEGIN;",
    )?;
    add_schema(&connection)?;
    Format::CURRENT.write(&connection)?;
    rows::write_meta(&connection, "secret", secret)?;
    rows::write_meta(&connection, "secret_copy", secret)?;
    let first = StoreRow {
        next_sequence: 1,
        next_claim: 1,
        next_outcome: 1,
        ..StoreRow::default()
    };
    rows::write_store(&connection, &first)?;
    connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL;")?;
    connection.close().map_err(|(_, error)| error)?;
    file.sync_all().map_err(Trouble::file("syncing the new store"))
}

/// Makes all tables and indexes.
pub(super) fn add_schema(connection: &Connection) -> rusqlite::Result<()> {
    SCHEMA
        .iter()
        .try_for_each(|part| connection.execute_batch(&squeezed(part)))
}

/// Makes the tables and indexes that minors after 1.0 brought, where they are missing.
pub(super) fn add_missing(connection: &Connection) -> rusqlite::Result<()> {
    SCHEMA[1..]
        .iter()
        .try_for_each(|part| connection.execute_batch(&squeezed(part)))
}

/// Statements without comments and with single spaces: they are stored as they are run, and fit into the first page then.
fn squeezed(statements: &str) -> String {
    let words = statements
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .flat_map(str::split_whitespace);
    words.collect::<Vec<_>>().join(" ")
}

/// The one connection that adds to the log.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    open_to_write(path, WRITER_CACHE_KIB)
}

/// A connection that only copies the log back to the main file.
pub(super) fn open_keeper(path: &Path) -> rusqlite::Result<Connection> {
    open_to_write(path, KEEPER_CACHE_KIB)
}

fn open_to_write(path: &Path, cache_kib: u32) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    set_up(&connection, cache_kib)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;",
    )?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    set_up(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}

/// A connection that sees the main file alone and touches neither log nor index.
pub(super) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                uri.push(char::from(*byte))
            }
            other => {
                // Writing to a string cannot fail.
                write!(uri, "%{other:02X}").map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
            }
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(
        uri,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
    )
}

fn set_up(connection: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(Duration::from_secs(5))?;
    // Closing must never write: after a failed sync nothing may be checkpointed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Else a plan may hang on a bound value, and the statement is compiled anew whenever that changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!(
        "PRAGMA cache_size = -{cache_kib}; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;"
    ))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn the_schema_fits_into_the_first_page() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        create_at(&path, &[0; 32]).unwrap();
        let page = std::fs::read(path).unwrap();
        // 13 is a leaf. A first page that points to others could not be replaced by that of a new store, see `salvage.rs`.
        assert_eq!(page[100], 13);
    }

    #[test]
    fn a_statement_is_not_compiled_anew_for_other_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        create_at(&path, &[0; 32]).unwrap();
        let connection = open_writer(&path).unwrap();
        let text = "SELECT sequence FROM records INDEXED BY records_due
             WHERE lane = ?1 AND due = 0 AND sequence > ?2 AND sequence <= ?3 ORDER BY sequence";
        let mut statement = connection.prepare(text).unwrap();
        for value in [0, 1, 7] {
            assert!(!statement.exists([value; 3]).unwrap());
            statement.clear_bindings();
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
