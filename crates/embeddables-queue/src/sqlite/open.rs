//! Opening a store: directory, lock, format, what a crash left behind, migration, state, writer. In this order.
//!
//! # Invariants
//! 1. Nothing is written before the lock is held and the format is known to be ours, but for the log's index, which whoever opens
//!    first makes anew.
//! 2. Damage never keeps a store from opening: what can be read is kept, the rest is reported and counted.
//! 3. The time it takes does not grow with what is queued, unless the file is damaged or suspect.

mod start;

use std::fs::File;

use rand::TryRng;
use rusqlite::Connection;

use self::start::{Parts, start};
use super::commit::FaultHook;
use super::config::{OpenReport, PossibleLoss, SqliteConfig};
use super::format::{self, Format, Found};
use super::load::{self, Loaded};
use super::mark::{self, Mark};
use super::rebuild::{self, LeftBehind};
use super::trouble::Trouble;
use super::volume::{self, Paths};
use super::{SqliteQueue, connection, migrate, rows, salvage};
use crate::{Durability, OpenError};

/// Opens a store and starts its writer.
pub(super) fn open(config: SqliteConfig) -> Result<(SqliteQueue, OpenReport), OpenError> {
    open_with(config, None)
}

/// As [`open`]; `hook` can make steps fail.
pub(super) fn open_with(
    config: SqliteConfig,
    hook: Option<FaultHook>,
) -> Result<(SqliteQueue, OpenReport), OpenError> {
    let paths = Paths {
        dir: config.dir.clone(),
    };
    let mut report = OpenReport::default();
    let lock = take_directory(&paths)?;
    report.durabilities = offered(&config)?;
    let is_there = check_format(&paths)?;
    let store = |trouble: Trouble| OpenError::Store {
        path: paths.dir.clone(),
        source: trouble.boxed(),
    };
    let marked = match mark::read(&paths.mark()) {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%error, "the mark file could not be read");
            None
        }
    };
    let newest = marked.map_or_else(Mark::default, |(_, mark)| mark);
    let connection = open_file(&paths, is_there, newest, &mut report).map_err(store)?;
    let opened = prepare(&connection, &config, &lock, newest, &mut report);
    let (connection, loaded) = match opened {
        Ok(loaded) => (connection, loaded),
        Err(OpenFailure::Newer(found)) => return Err(newer(&paths, found)),
        Err(OpenFailure::Trouble(trouble)) if trouble.is_unreadable() => {
            drop(connection);
            let connection = salvaged(&paths, newest, &mut report).map_err(store)?;
            match prepare(&connection, &config, &lock, newest, &mut report) {
                Ok(loaded) => (connection, loaded),
                Err(OpenFailure::Newer(found)) => return Err(newer(&paths, found)),
                Err(OpenFailure::Trouble(trouble)) => return Err(store(trouble)),
            }
        }
        Err(OpenFailure::Trouble(trouble)) => return Err(store(trouble)),
    };
    let turn = marked.map_or(0, |(turn, _)| turn);
    let parts = Parts {
        paths,
        lock,
        connection,
        loaded,
        turn,
        hook,
    };
    start(config, parts, report)
}

/// Why a file that opens is not used.
enum OpenFailure {
    Newer(Format),
    Trouble(Trouble),
}

impl<T: Into<Trouble>> From<T> for OpenFailure {
    fn from(error: T) -> Self {
        Self::Trouble(error.into())
    }
}

fn take_directory(paths: &Paths) -> Result<File, OpenError> {
    let directory = |source| OpenError::Directory {
        path: paths.dir.clone(),
        source,
    };
    volume::make_dir(&paths.dir).map_err(directory)?;
    volume::lock(&paths.lock())
        .map_err(directory)?
        .ok_or_else(|| OpenError::InUse {
            path: paths.dir.clone(),
        })
}

/// What the volume offers, up to what is configured.
fn offered(config: &SqliteConfig) -> Result<Vec<Durability>, OpenError> {
    let mut offers = volume::durabilities(&config.dir).map_err(|source| OpenError::Directory {
        path: config.dir.clone(),
        source,
    })?;
    if let Some(wanted) = config.durability {
        if !offers.contains(&wanted) {
            return Err(OpenError::Durability {
                path: config.dir.clone(),
            });
        }
        offers.retain(|offer| *offer <= wanted);
    }
    Ok(offers)
}

fn newer(paths: &Paths, found: Format) -> OpenError {
    OpenError::Newer {
        path: paths.dir.clone(),
        found: found.to_string(),
        supported: Format::CURRENT.to_string(),
    }
}

/// Refuses a newer format; returns whether there is a store. A finished copy of it counts instead, where there is one. That
/// neither copy of the format can be read decides nothing: why that is shows when the file is opened to write.
fn check_format(paths: &Paths) -> Result<bool, OpenError> {
    let truth = if paths.rebuilt().exists() {
        paths.rebuilt()
    } else {
        paths.db()
    };
    if !volume::has_bytes(&truth) {
        return Ok(false);
    }
    match format::peek(&truth) {
        Found::Is { format, .. } if !format.is_supported() => Err(newer(paths, format)),
        _ => Ok(true),
    }
}

/// Finishes what was left behind and opens the file, or makes it, or salvages it.
fn open_file(
    paths: &Paths,
    is_there: bool,
    newest: Mark,
    report: &mut OpenReport,
) -> Result<Connection, Trouble> {
    match rebuild::resume(paths)? {
        LeftBehind::Nothing => {}
        LeftBehind::Rebuilt => report.rebuilt = true,
        LeftBehind::Suspect if !is_there => {
            volume::remove_if_there(&paths.suspect()).map_err(Trouble::file("removing a stray marker"))?;
        }
        LeftBehind::Suspect => {
            report.rebuilt = true;
            match rebuild::rebuild_closed(paths) {
                Err(trouble) if trouble.is_unreadable() => {
                    return salvaged(paths, newest, report);
                }
                other => other?,
            }
        }
    }
    if !is_there {
        report.created = true;
        connection::create(paths, &new_secret()?)?;
    }
    match connection::open_writer(&paths.db()) {
        Ok(connection) => Ok(connection),
        Err(error) => {
            let trouble = Trouble::from(error);
            if trouble.is_unreadable() {
                return salvaged(paths, newest, report);
            }
            Err(trouble)
        }
    }
}

fn salvaged(paths: &Paths, newest: Mark, report: &mut OpenReport) -> Result<Connection, Trouble> {
    tracing::error!("the store is damaged: what can be read is kept, the file is set aside");
    report.salvaged = Some(salvage::salvage(paths, newest, &new_secret()?)?);
    Ok(connection::open_writer(&paths.db())?)
}

pub(super) fn new_secret() -> Result<[u8; 32], Trouble> {
    let mut secret = [0_u8; 32];
    rand::rngs::SysRng
        .try_fill_bytes(&mut secret)
        .map_err(|error| Trouble::File {
            step: "drawing a random secret",
            source: std::io::Error::other(error),
        })?;
    Ok(secret)
}

/// Migrates, repairs what is kept twice, loads the state and writes what this start has to say.
fn prepare(
    connection: &Connection,
    config: &SqliteConfig,
    lock: &File,
    newest: Mark,
    report: &mut OpenReport,
) -> Result<Loaded, OpenFailure> {
    let Found::Is { format, repair } = format::read(connection) else {
        return Err(OpenFailure::Trouble(Trouble::Damaged {
            what: "neither copy of the format can be read",
        }));
    };
    if !format.is_supported() {
        return Err(OpenFailure::Newer(format));
    }
    if repair {
        tracing::warn!(%format, "one of the two copies of the format was damaged and is repaired");
        format.write(connection)?;
    }
    let format = migrate::migrate(connection, format, migrate::STEPS)?;
    report.format = migrate::add_missing(connection, format)?.to_string();
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let loaded = (|| -> Result<Loaded, Trouble> {
        let mut loaded = load::load(connection, config, newest)?;
        let store = &mut loaded.state.store;
        let store_commit = store.commit_number;
        if store_commit < newest.commit_number {
            store.possible_losses += 1;
            report.possible_loss = Some(PossibleLoss {
                store_commit,
                mark_commit: newest.commit_number,
            });
            // The lost numbers are not given out again.
            store.commit_number = newest.commit_number;
        }
        let identity = volume::identity(lock).map_err(Trouble::file("telling the directory from a copy"))?;
        let known = rows::meta(connection, "identity")?;
        if known.as_deref() != Some(identity.as_bytes()) {
            if known.is_some() && store.next_sequence > 1 {
                report.copied = true;
                store.doubt_sequence = store.next_sequence;
                store.doubt_claim = store.next_claim;
            }
            rows::write_meta(connection, "identity", identity.as_bytes())?;
        }
        store.commit_number += 1;
        rows::write_store(connection, store)?;
        connection.execute_batch("COMMIT")?;
        Ok(loaded)
    })();
    match loaded {
        Ok(loaded) => {
            report.interrupted = loaded.state.interrupted.len() as u64;
            Ok(loaded)
        }
        Err(trouble) => {
            super::commit::roll_back(connection);
            Err(OpenFailure::Trouble(trouble))
        }
    }
}
