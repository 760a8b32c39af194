//! Copying the store to a new file after a failed write, so that no page of the old log is ever trusted again.
//!
//! # Invariants
//! 1. Until `queue.db.rebuilt` exists, `queue.db` with its log is the truth; from then on the rebuilt file is.
//! 2. `queue.db.rebuilt` is complete and synced from the moment that it has this name.
//! 3. The old log is gone, durably, before the new file takes the name `queue.db`: a log is never applied to another file.
//! 4. Each step can be repeated; a crash between any two leaves a state that [`resume`] finishes.

use rusqlite::Connection;

use super::connection;
use super::trouble::Trouble;
use super::volume::{Paths, open_private, remove_if_there, sync_dir};

/// Tells this and the next process that the log must not be written to. Needs no sync: the danger lives in the page cache,
/// exactly as long as the marker does.
pub(super) fn mark_suspect(paths: &Paths) {
    if let Err(error) = open_private(&paths.suspect()) {
        tracing::error!(%error, "the marker of a failed write could not be made");
    }
}

/// What an earlier process left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftBehind {
    /// Nothing: the store is as it should be.
    Nothing,
    /// A finished copy, which was put into its place now.
    Rebuilt,
    /// The log is not to be trusted: a copy has to be made.
    Suspect,
}

/// Finishes what an earlier process had begun.
pub(super) fn resume(paths: &Paths) -> Result<LeftBehind, Trouble> {
    remove_if_there(&paths.rebuild_tmp()).map_err(Trouble::file("removing an unfinished copy"))?;
    if paths.rebuilt().exists() {
        put_in_place(paths)?;
        return Ok(LeftBehind::Rebuilt);
    }
    Ok(if paths.suspect().exists() {
        LeftBehind::Suspect
    } else {
        LeftBehind::Nothing
    })
}

/// Copies what the connection sees to `queue.db.rebuilt`.
pub(super) fn copy(connection: &Connection, paths: &Paths) -> Result<(), Trouble> {
    let unfinished = paths.rebuild_tmp();
    remove_if_there(&unfinished).map_err(Trouble::file("removing an unfinished copy"))?;
    // Made beforehand, so that it is the owner's only from the first byte.
    let file = open_private(&unfinished).map_err(Trouble::file("making the copy"))?;
    let target = unfinished
        .to_str()
        .ok_or(Trouble::Sqlite(rusqlite::Error::InvalidPath(unfinished.clone())))?;
    connection.execute("VACUUM INTO ?1", [target])?;
    drop(file);
    publish(paths)
}

/// Syncs the copy in the making and gives it the name that makes it the truth.
pub(super) fn publish(paths: &Paths) -> Result<(), Trouble> {
    let unfinished = paths.rebuild_tmp();
    // The copy must be in WAL mode before it is the truth: the mode lies in its header.
    let connection = Connection::open(&unfinished)?;
    connection.execute_batch("PRAGMA journal_mode = WAL")?;
    connection.close().map_err(|(_, error)| error)?;
    let file = open_private(&unfinished).map_err(Trouble::file("opening the copy"))?;
    file.sync_all().map_err(Trouble::file("syncing the copy"))?;
    std::fs::rename(&unfinished, paths.rebuilt()).map_err(Trouble::file("naming the finished copy"))?;
    sync_dir(&paths.dir).map_err(Trouble::file("syncing the directory"))
}

/// Puts the finished copy into its place.
pub(super) fn put_in_place(paths: &Paths) -> Result<(), Trouble> {
    remove_if_there(&paths.wal()).map_err(Trouble::file("removing the old log"))?;
    remove_if_there(&paths.shm()).map_err(Trouble::file("removing the old log's index"))?;
    sync_dir(&paths.dir).map_err(Trouble::file("syncing the directory"))?;
    std::fs::rename(paths.rebuilt(), paths.db()).map_err(Trouble::file("putting the copy into its place"))?;
    sync_dir(&paths.dir).map_err(Trouble::file("syncing the directory"))?;
    remove_if_there(&paths.suspect()).map_err(Trouble::file("removing the marker of a failed write"))
}

/// Copies a store that no process has open, after [`LeftBehind::Suspect`].
pub(super) fn rebuild_closed(paths: &Paths) -> Result<(), Trouble> {
    let source = connection::open_writer(&paths.db())?;
    copy(&source, paths)?;
    drop(source);
    put_in_place(paths)
}
