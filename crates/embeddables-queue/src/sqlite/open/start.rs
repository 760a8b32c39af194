//! Last step of opening a store: its writer starts, on a thread of its own.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc};

use crate::clock::whole_millis;
use crate::running::RunningTime;
use crate::sqlite::SqliteQueue;
use crate::sqlite::command::{AppendCall, Control};
use crate::sqlite::commit::{FaultHook, Scope, Terms};
use crate::sqlite::config::{OpenReport, SqliteConfig};
use crate::sqlite::draft::SizeBounds;
use crate::sqlite::intake::Intake;
use crate::sqlite::load::Loaded;
use crate::sqlite::log_keeper::{self, LogKeeper};
use crate::sqlite::mark::MarkKeeper;
use crate::sqlite::reader::Readers;
use crate::sqlite::reserve::Reserve;
use crate::sqlite::shared::Shared;
use crate::sqlite::volume::{self, Paths};
use crate::sqlite::writer::{Health, Writer};
use crate::{Durability, OpenError};

/// Calls that may wait in each of the writer's channels.
const CHANNEL_CALLS: usize = 1_024;
/// The log is written back from this size on, or from a size at which its bound is a sixteenth of a small volume.
const LOG_LIMIT_BYTES: u64 = 4 << 20;
const MIN_LOG_LIMIT_BYTES: u64 = 64 << 10;
const PAGE_BYTES: u64 = 4_096;

/// What a writer is made of.
pub(super) struct Parts {
    pub(super) paths: Paths,
    pub(super) lock: File,
    pub(super) connection: Connection,
    pub(super) loaded: Loaded,
    /// Of the newest mark.
    pub(super) turn: u64,
    pub(super) hook: Option<FaultHook>,
}

/// Starts the writer, and hands out the queue that talks to it.
pub(super) fn start(
    config: SqliteConfig,
    parts: Parts,
    report: OpenReport,
) -> Result<(SqliteQueue, OpenReport), OpenError> {
    let Parts {
        paths,
        lock,
        connection,
        loaded,
        turn,
        hook,
    } = parts;
    let path = paths.dir.clone();
    let failed = |source: std::io::Error| OpenError::Store {
        path: path.clone(),
        source: Box::new(source),
    };
    let Loaded { state, secret } = loaded;
    let running = Arc::new(RunningTime::resume(
        state.store.running,
        Arc::clone(&config.clock),
    ));
    let mark = MarkKeeper::start(paths.mark(), turn, Arc::clone(&running)).map_err(failed)?;
    let reserve = Reserve::open(&paths, config.max_bytes);
    let shared = Arc::new(Shared::of(&state));
    let (controls, controls_in) = mpsc::channel(CHANNEL_CALLS);
    let (appends, appends_in) = mpsc::channel(CHANNEL_CALLS);
    let intake = intake(&config, controls_in, appends_in).map_err(failed)?;
    let strongest = report.durabilities.last().copied().unwrap_or(Durability::Memory);
    let writer = Writer {
        connection: Some(connection),
        shared: Arc::clone(&shared),
        intake,
        running,
        mark,
        reserve,
        terms: terms(&config, strongest),
        strongest,
        on_commit: config.on_commit.clone(),
        syncs: true,
        log_keeper: LogKeeper::start(paths.clone(), hook.clone()).map_err(failed)?,
        log_limit_pages: log_limit_pages(&paths),
        health: Health::Good,
        more_to_evict: state.oldest_outcome.is_some(),
        more_to_let_go: state.has_openings,
        more_to_vacuum: true,
        hook,
        state,
        paths: paths.clone(),
        lock,
    };
    let thread = spawn(writer).map_err(failed)?;
    let queue = SqliteQueue {
        readers: Readers::new(paths.db(), Arc::clone(&shared), controls.clone()),
        shared,
        controls,
        appends,
        durabilities: report.durabilities.clone(),
        max_bytes: config.max_bytes,
        secret,
        no_lane: Arc::new(Notify::new()),
        closed: AtomicBool::new(false),
        thread: std::sync::Mutex::new(Some(thread)),
    };
    Ok((queue, report))
}

fn intake(
    config: &SqliteConfig,
    controls: mpsc::Receiver<Control>,
    appends: mpsc::Receiver<AppendCall>,
) -> std::io::Result<Intake> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    Ok(Intake {
        runtime,
        controls,
        appends,
        max_batch: config.max_batch.get(),
        linger: config.linger,
    })
}

fn terms(config: &SqliteConfig, strongest: Durability) -> Terms {
    Terms {
        bounds: SizeBounds {
            max: config.max_bytes,
            lane_share: config.lane_share_bytes,
            dead_letter_share: config.dead_letter_share_bytes,
        },
        dedupe_window_millis: whole_millis(config.dedupe_window),
        dedupe_ids: config.dedupe_ids,
        scope: Scope::All,
        durability: strongest,
        running: 0,
    }
}

fn log_limit_pages(paths: &Paths) -> i32 {
    let volume_bytes = volume::room(&paths.dir).map_or(u64::MAX, |(size, _)| size);
    let limit_bytes = (volume_bytes / 16 / u64::from(log_keeper::BOUND.unsigned_abs()))
        .clamp(MIN_LOG_LIMIT_BYTES, LOG_LIMIT_BYTES);
    i32::try_from(limit_bytes / PAGE_BYTES).unwrap_or(i32::MAX)
}

fn spawn(writer: Writer) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("queue-writer".into())
        .spawn(move || writer.run())
}
