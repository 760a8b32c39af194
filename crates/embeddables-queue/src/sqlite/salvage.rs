//! Keeping what can be read of a damaged file.
//!
//! Every table is read in order of its key; where that fails, the read goes on behind the damage, in growing steps, and then back
//! towards it. Rows whose checksum is wrong are left behind. What the books know and no table holds counts as quarantined.
//!
//! # Invariants
//! 1. The damaged file, with its log, is kept under another name; it is only read.
//! 2. The books of the salvaged store balance.
//! 3. No read goes on for ever: keys must rise, and steps double.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::config::Salvaged;
use super::format::Format;
use super::mark::Mark;
use super::salvage_tables::{self, Copied};
use super::trouble::Trouble;
use super::volume::{Paths, remove_if_there};
use super::{connection, rebuild, rows};
use super::{salvage_books, salvage_gates};

/// Damaged files kept at most; older ones are removed, so that a failing disk does not fill itself up.
const DAMAGED_FILES: usize = 4;
const PAGE_BYTES: usize = 4_096;

/// Salvages the store of a directory and puts the result into its place. Nobody may have it open to write.
pub(super) fn salvage(paths: &Paths, newest: Mark, new_secret: &[u8; 32]) -> Result<Salvaged, Trouble> {
    let source = open_source(paths);
    let secret = source.as_ref().and_then(known_secret).unwrap_or_else(|| {
        tracing::error!("the secret of the store is lost: repeats of known ids will look like other content");
        *new_secret
    });
    let unfinished = paths.rebuild_tmp();
    connection::create_at(&unfinished, &secret)?;
    let target = Connection::open(&unfinished)?;
    target.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; BEGIN")?;
    let copied = match &source {
        Some(source) => salvage_tables::copy_all(source, &target, newest)?,
        None => Copied::default(),
    };
    let quarantined = salvage_books::balance(&target, &copied, newest)?;
    salvage_gates::balance(&target, copied.gates_are_whole)?;
    Format::CURRENT.write(&target)?;
    target.execute_batch("COMMIT")?;
    target.close().map_err(|(_, error)| error)?;
    drop(source);
    remove_graft(paths)?;
    let set_aside = set_aside(paths)?;
    rebuild::publish(paths)?;
    rebuild::put_in_place(paths)?;
    tracing::error!(
        rows_kept = copied.row_count,
        quarantined,
        set_aside = %set_aside.display(),
        "the damaged store was salvaged"
    );
    Ok(Salvaged {
        set_aside,
        rows_kept: copied.row_count,
        quarantined,
    })
}

fn known_secret(source: &Connection) -> Option<[u8; 32]> {
    ["secret", "secret_copy"].into_iter().find_map(|name| {
        rows::meta(source, name)
            .ok()
            .flatten()
            .and_then(|value| value.try_into().ok())
    })
}

/// The damaged file as it is, or with the first page of a new store where its own cannot be read.
fn open_source(paths: &Paths) -> Option<Connection> {
    let readable = |path: &Path| -> rusqlite::Result<Connection> {
        let source = connection::open_writer(path)?;
        source.execute_batch("PRAGMA query_only = ON; BEGIN")?;
        // Reads the schema, and one page of it at least.
        source.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })?;
        source.prepare("SELECT lane FROM records")?;
        source.prepare("SELECT lane FROM ids")?;
        Ok(source)
    };
    match readable(&paths.db()) {
        Ok(source) => return Some(source),
        Err(error) => {
            tracing::warn!(%error, "the damaged store has no readable schema: that of a new one is tried")
        }
    }
    let grafted = graft(paths)
        .map_err(|error| tracing::error!(%error, "no schema could be grafted"))
        .ok()?;
    readable(&grafted)
        .map_err(|error| tracing::error!(%error, "nothing of the damaged store can be read"))
        .ok()
}

fn graft_path(paths: &Paths) -> PathBuf {
    paths.dir.join("queue.db.graft-tmp")
}

/// A copy of the damaged file whose first page is that of a new store: tables start on the same pages in every store.
fn graft(paths: &Paths) -> Result<PathBuf, Trouble> {
    let grafted = graft_path(paths);
    let step = |what| Trouble::file(what);
    remove_graft(paths)?;
    connection::create_at(&paths.rebuild_tmp(), &[0; 32])?;
    let mut page = vec![0; PAGE_BYTES];
    let fresh = File::open(paths.rebuild_tmp()).map_err(step("opening a new store"))?;
    fresh
        .read_exact_at(&mut page, 0)
        .map_err(step("reading a new store's first page"))?;
    std::fs::copy(paths.db(), &grafted).map_err(step("copying the damaged store"))?;
    if paths.wal().exists() {
        std::fs::copy(paths.wal(), grafted.with_extension("graft-tmp-wal"))
            .map_err(step("copying the damaged store's log"))?;
    }
    let file = File::options()
        .write(true)
        .open(&grafted)
        .map_err(step("opening the copy"))?;
    let length = file.metadata().map_err(step("measuring the copy"))?.len();
    let pages = u32::try_from(length / PAGE_BYTES as u64).unwrap_or(u32::MAX);
    // Number of pages, and an empty list of free ones.
    page[28..32].copy_from_slice(&pages.to_be_bytes());
    page[32..40].fill(0);
    file.write_all_at(&page, 0)
        .map_err(step("grafting a first page"))?;
    Ok(grafted)
}

fn remove_graft(paths: &Paths) -> Result<(), Trouble> {
    for name in [
        "queue.db.graft-tmp",
        "queue.db.graft-tmp-wal",
        "queue.db.graft-tmp-shm",
    ] {
        remove_if_there(&paths.dir.join(name)).map_err(Trouble::file("removing a grafted copy"))?;
    }
    Ok(())
}

/// Gives the damaged file and its log another name beside their own; the own ones go when the salvaged file takes their place.
fn set_aside(paths: &Paths) -> Result<PathBuf, Trouble> {
    forget_oldest(paths)?;
    let mut seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    while paths.damaged(seconds).exists() {
        seconds += 1;
    }
    let aside = paths.damaged(seconds);
    keep_as(&paths.db(), &aside).map_err(Trouble::file("setting the damaged store aside"))?;
    if paths.wal().exists() {
        keep_as(
            &paths.wal(),
            &paths.dir.join(format!("queue.db.damaged-{seconds}-wal")),
        )
        .map_err(Trouble::file("setting the damaged store's log aside"))?;
    }
    Ok(aside)
}

fn keep_as(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        // Not every file system links.
        Err(error) if error.kind() != io::ErrorKind::NotFound => std::fs::copy(from, to).map(|_| ()),
        other => other,
    }
}

fn forget_oldest(paths: &Paths) -> Result<(), Trouble> {
    let entries = std::fs::read_dir(&paths.dir).map_err(Trouble::file("listing the directory"))?;
    let mut kept: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("queue.db.damaged-"))
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .collect();
    kept.sort();
    while kept.len() >= DAMAGED_FILES {
        let oldest = kept.remove(0);
        tracing::warn!(file = %oldest.display(), "the oldest damaged store is removed to bound the disk used");
        remove_if_there(&oldest).map_err(Trouble::file("removing an old damaged store"))?;
        let mut log = oldest.into_os_string();
        log.push("-wal");
        remove_if_there(Path::new(&log)).map_err(Trouble::file("removing an old damaged log"))?;
    }
    Ok(())
}
