//! The log's keeper: copies what is committed from the log to the main file, on a thread of its own, while the writer goes on.
//!
//! # Invariants
//! 1. It never adds to the log, and no acknowledgement rests on it: a commit is answered after the writer's own sync of the log.
//! 2. One checkpoint at a time: whoever makes another waits for the pass under way.
//! 3. It has no file open while another takes that file's place.
//! 4. With no reader in the way the log holds [`BOUND`] times the limit and one commit more at most.

use std::fs::File;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ffi};

use super::commit::{FaultHook, FaultPoint};
use super::trouble::Trouble;
use super::volume::Paths;
use super::{connection, rebuild};

/// Limits from which on the log is to start anew: it does once all of it is written back.
const ANEW: i32 = 4;
/// Limits from which on the writer writes back what is left, however much.
pub(super) const BOUND: i32 = 8;
/// Part of the log that the writer writes back itself, so that its next commit starts the log anew: while it commits, no pass of
/// the keeper ever comes to the log's end.
const LAST_PART: i32 = 16;

/// What is to be done about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogStep {
    /// Nothing yet.
    Wait,
    /// A pass of the keeper.
    Pass,
    /// The writer writes back what is left.
    Finish,
}

/// What is to be done about a log of so many pages, `done` of them written back. Passes follow one another while the log is to
/// start anew: each has only what was committed during the one before.
pub(super) fn next_step(limit_pages: i32, pages: i32, done: i32, under_way: bool) -> LogStep {
    let left = pages - done;
    let is_long = |limits: i32| pages >= limit_pages.saturating_mul(limits);
    if left == 0 {
        LogStep::Wait
    } else if is_long(BOUND) {
        LogStep::Finish
    } else if under_way {
        LogStep::Wait
    } else if is_long(ANEW) && left <= pages / LAST_PART {
        LogStep::Finish
    } else if is_long(ANEW) || left >= limit_pages {
        LogStep::Pass
    } else {
        LogStep::Wait
    }
}

#[derive(Debug)]
enum Ended {
    Well,
    /// Nothing is known to be wrong with the store: there may be too many open files.
    NotOpened(rusqlite::Error),
    Badly(Trouble),
}

/// The writer's hold on the thread.
#[derive(Debug)]
pub(super) struct LogKeeper {
    /// `None` only while dropped.
    passes: Option<Sender<()>>,
    ended: Receiver<Ended>,
    under_way: bool,
    /// Whether it could not open the file.
    is_blocked: bool,
    /// Held here too, so that not even a panic of the thread closes it.
    file: Arc<Mutex<Option<LogFile>>>,
    thread: Option<JoinHandle<()>>,
}

impl LogKeeper {
    /// Starts the thread, which opens the file when it is first asked for a pass. `hook` runs before each pass.
    pub(super) fn start(paths: Paths, hook: Option<FaultHook>) -> std::io::Result<Self> {
        let (passes, passes_in) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let file = Arc::default();
        let kept = Arc::clone(&file);
        let thread = std::thread::Builder::new()
            .name("queue-log".into())
            .spawn(move || keep(&kept, &paths, hook.as_ref(), &passes_in, &ends))?;
        Ok(Self {
            passes: Some(passes),
            ended,
            under_way: false,
            is_blocked: false,
            file,
            thread: Some(thread),
        })
    }

    /// Begins a pass where none is under way; `false` where the keeper is of no use and the writer has to do the work.
    pub(super) fn begin(&mut self) -> bool {
        if !self.under_way && !self.is_blocked {
            self.under_way = self.passes.as_ref().is_some_and(|passes| passes.send(()).is_ok());
        }
        self.under_way
    }

    /// Whether a pass was begun and its end was not looked at yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Looks whether the pass under way has ended.
    ///
    /// # Errors
    /// As it ended. What was committed since the failure is durable: the writer's own sync of the log succeeded, and the system
    /// tells each open file of a page that it could not write, so that no sync of another file hides that from the writer's.
    pub(super) fn look(&mut self) -> Result<(), Trouble> {
        if !self.under_way {
            return Ok(());
        }
        match self.ended.try_recv() {
            Ok(ended) => self.note(ended),
            Err(TryRecvError::Empty) => Ok(()),
            // The thread has panicked: no pass is under way.
            Err(TryRecvError::Disconnected) => self.note(Ended::Well),
        }
    }

    /// Waits until no pass is under way.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(super) fn wait(&mut self) -> Result<(), Trouble> {
        if !self.under_way {
            return Ok(());
        }
        // Without an answer the thread has panicked: no pass is under way.
        let ended = self.ended.recv().unwrap_or(Ended::Well);
        self.note(ended)
    }

    /// Waits until no pass is under way and the file is closed, so that another can take its place. How the pass ended says
    /// nothing about the other file.
    pub(super) fn close_file(&mut self) {
        if let Err(error) = self.wait() {
            tracing::warn!(%error, "the log of a file that is replaced could not be written back");
        }
        *hold(&self.file) = None;
        self.is_blocked = false;
    }

    fn note(&mut self, ended: Ended) -> Result<(), Trouble> {
        self.under_way = false;
        match ended {
            Ended::Well => Ok(()),
            Ended::NotOpened(error) => {
                tracing::warn!(%error, "the log's keeper cannot open the store: the writer does its work");
                self.is_blocked = true;
                Ok(())
            }
            Ended::Badly(trouble) => Err(trouble),
        }
    }
}

impl Drop for LogKeeper {
    /// Lets a pass under way end, and the thread.
    fn drop(&mut self) {
        self.passes = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the log back panicked");
        }
    }
}

fn hold(file: &Mutex<Option<LogFile>>) -> MutexGuard<'_, Option<LogFile>> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(
    kept: &Mutex<Option<LogFile>>,
    paths: &Paths,
    hook: Option<&FaultHook>,
    passes: &Receiver<()>,
    ends: &Sender<Ended>,
) {
    for () in passes {
        let mut kept = hold(kept);
        let ended = match kept.take().map_or_else(|| LogFile::open(paths), Ok) {
            Ok(file) => pass(kept.insert(file), paths, hook),
            Err(error) => Ended::NotOpened(error),
        };
        drop(kept);
        if ends.send(ended).is_err() {
            return;
        }
    }
}

fn pass(file: &LogFile, paths: &Paths, hook: Option<&FaultHook>) -> Ended {
    let hooked = hook.map_or(Ok(()), |hook| hook(FaultPoint::WriteBack, &file.connection));
    match hooked.and_then(|()| file.write_back()) {
        Ok(()) => Ended::Well,
        Err(error) => {
            let trouble = Trouble::from(error);
            if trouble.is_failed_sync() {
                // Not left to the writer, which may be killed before it looks.
                rebuild::mark_suspect(paths);
            }
            Ended::Badly(trouble)
        }
    }
}

/// The file as the keeper has it open.
#[derive(Debug)]
struct LogFile {
    connection: Connection,
    /// The main file once more, to sync it: read only. Closing it gives up the locks that this process has on that file: it must not happen
    /// while the writer has it open, or another process may take itself for the last one and remove the log.
    main: File,
}

impl LogFile {
    fn open(paths: &Paths) -> rusqlite::Result<Self> {
        let connection = connection::open_keeper(&paths.db())?;
        // Last, so that no failure closes it.
        let main = File::open(paths.db()).map_err(|error| failure(ffi::SQLITE_CANTOPEN, &error))?;
        Ok(Self { connection, main })
    }

    /// Copies to the main file what is committed by now, and syncs it.
    fn write_back(&self) -> rusqlite::Result<()> {
        let checkpoint = |mode| self.connection.wal_checkpoint_v2(None::<&str>, mode);
        let (_, done_before) = checkpoint(CheckpointMode::NOOP)?;
        checkpoint(CheckpointMode::PASSIVE)?;
        let (pages, done) = checkpoint(CheckpointMode::NOOP)?;
        // SQLite syncs the main file only when it comes to the log's end. Here it is for the writer, which would else have all of
        // it to sync there.
        if done < pages && done != done_before {
            self.main
                .sync_data()
                .map_err(|error| failure(ffi::SQLITE_IOERR_FSYNC, &error))?;
        }
        Ok(())
    }
}

fn failure(code: i32, error: &std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::rows;

    fn pages_of(connection: &Connection) -> (i32, i32) {
        connection
            .wal_checkpoint_v2(None::<&str>, CheckpointMode::NOOP)
            .unwrap()
    }

    fn commit_something(connection: &Connection) {
        // SQLite writes no page that stays the same.
        let changes = u8::try_from(connection.total_changes()).unwrap();
        rows::write_meta(connection, "test", &[changes; 50_000]).unwrap();
    }

    fn store(dir: &std::path::Path) -> (Paths, Connection) {
        let paths = Paths { dir: dir.to_owned() };
        connection::create(&paths, &[0; 32]).unwrap();
        let writer = connection::open_writer(&paths.db()).unwrap();
        commit_something(&writer);
        (paths, writer)
    }

    #[track_caller]
    fn check(pages: i32, done: i32, under_way: bool, expected: LogStep) {
        assert_eq!(
            next_step(1_000, pages, done, under_way),
            expected,
            "{done} of {pages} pages written back, under way: {under_way}"
        );
    }

    #[test]
    fn a_long_log_is_passed_on_and_only_its_end_is_left_to_the_writer() {
        check(999, 0, false, LogStep::Wait);
        check(1_000, 0, false, LogStep::Pass);
        check(1_500, 0, true, LogStep::Wait);
        check(1_500, 1_000, false, LogStep::Wait);
        check(3_999, 3_990, false, LogStep::Wait);
        // To start anew, pass after pass is made until little is left.
        check(4_000, 3_000, false, LogStep::Pass);
        check(4_800, 4_000, true, LogStep::Wait);
        check(4_800, 4_499, false, LogStep::Pass);
        check(4_800, 4_500, false, LogStep::Finish);
        check(4_800, 4_800, false, LogStep::Wait);
        // At the bound, whatever is left.
        check(8_000, 1_000, true, LogStep::Finish);
        check(8_000, 1_000, false, LogStep::Finish);
        check(8_000, 8_000, false, LogStep::Wait);
    }

    #[test]
    fn after_a_pass_the_next_commit_starts_the_log_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, writer) = store(dir.path());
        let mut keeper = LogKeeper::start(paths, None).unwrap();
        let (pages, done) = pages_of(&writer);
        assert!(pages > 10 && done == 0, "{pages} {done}");
        assert!(keeper.begin() && keeper.is_under_way());
        keeper.wait().unwrap();
        assert!(!keeper.is_under_way());
        assert_eq!(pages_of(&writer), (pages, pages));
        commit_something(&writer);
        let (anew, done) = pages_of(&writer);
        assert!(anew <= 2 * pages && done == 0, "{anew} {done}");
    }

    #[test]
    fn what_is_committed_while_a_pass_is_under_way_is_left_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, writer) = store(dir.path());
        let (first, _) = pages_of(&writer);
        // A reader that saw the first commit only stands for commits that come during the pass.
        let reader = connection::open_reader(&paths.db()).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
            .unwrap();
        commit_something(&writer);
        let (pages, _) = pages_of(&writer);
        let mut keeper = LogKeeper::start(paths, None).unwrap();
        assert!(keeper.begin());
        keeper.wait().unwrap();
        assert_eq!(pages_of(&writer), (pages, first));
        reader.execute_batch("ROLLBACK").unwrap();
        assert!(keeper.begin());
        keeper.wait().unwrap();
        assert_eq!(pages_of(&writer), (pages, pages));
    }

    #[test]
    fn a_failed_sync_leaves_the_marker_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, _writer) = store(dir.path());
        let hook: FaultHook =
            Arc::new(|_, _| Err(failure(ffi::SQLITE_IOERR_FSYNC, &std::io::Error::other("test"))));
        let mut keeper = LogKeeper::start(paths.clone(), Some(hook)).unwrap();
        assert!(keeper.begin());
        assert!(keeper.wait().unwrap_err().is_failed_sync());
        assert!(paths.suspect().exists());
        keeper.wait().unwrap();
        keeper.look().unwrap();
    }

    #[test]
    fn a_keeper_without_a_file_or_a_thread_is_of_no_use_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            dir: dir.path().to_owned(),
        };
        let mut keeper = LogKeeper::start(paths.clone(), None).unwrap();
        assert!(keeper.begin());
        keeper.wait().unwrap();
        assert!(!keeper.begin(), "there is no file to open");
        let (_, _writer) = store(dir.path());
        keeper.close_file();
        assert!(keeper.begin(), "another file is there now");
        drop(keeper);

        let hook: FaultHook = Arc::new(|_, _| panic!("a test of what follows a panic"));
        let mut keeper = LogKeeper::start(paths, Some(hook)).unwrap();
        assert!(keeper.begin());
        keeper.wait().unwrap();
        keeper.close_file();
        assert!(!keeper.begin());
    }
}
